//! The JSON Schemas of the published documents (draft 2020-12), made from the types themselves.

use schemars::{JsonSchema, schema_for};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Event, EventKind, FilmError, FilmResult, Info, PingAnswer, ReplayAnswer, ReplayRequest, Status};

/// One schema a document; its JSON form is what `landmarkd schema` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Schemas {
    /// Of an event on the `result` topic.
    pub result: Value,
    /// Of an event on the `error` topic.
    pub error: Value,
    /// Of the `status` topic and the last will.
    pub status: Value,
    /// Of the `info` topic.
    pub info: Value,
    /// Of what is asked on the `cmd/replay` topic.
    pub replay: Value,
    /// Of the answers to it.
    pub replay_answer: Value,
    /// Of the answers to what is asked on the `cmd/ping` topic, which may be anything.
    pub ping_answer: Value,
}

/// The schemas of everything this version publishes.
///
/// They forbid members they do not name. A new member therefore comes with a new version of the daemon, not of `type`:
/// subscribers that validate take the schema of the version that `status` tells.
#[must_use]
pub fn schema() -> Schemas {
    Schemas {
        result: event_schema::<FilmResult>(EventKind::Result),
        error: event_schema::<FilmError>(EventKind::Error),
        status: schema_for!(Status).to_value(),
        info: schema_for!(Info).to_value(),
        replay: schema_for!(ReplayRequest).to_value(),
        replay_answer: schema_for!(ReplayAnswer).to_value(),
        ping_answer: schema_for!(PingAnswer).to_value(),
    }
}

/// The schema of [`Event<D>`] with the members pinned that are the same in every event of a kind.
fn event_schema<D: JsonSchema>(kind: EventKind) -> Value {
    let mut schema = schema_for!(Event<D>).to_value();
    schema["$id"] = json!(kind.data_schema());
    for (member, constraint) in [
        ("specversion", json!({"const": "1.0"})),
        ("type", json!({"const": kind.type_name()})),
        ("datacontenttype", json!({"const": "application/json"})),
        ("dataschema", json!({"const": kind.data_schema()})),
        ("id", json!({"type": "string", "pattern": "^[0-9a-f]{64}$"})),
        ("sequence", json!({"type": "string", "pattern": "^[0-9]{20}$"})),
        ("time", json!({"type": "string", "format": "date-time"})),
        ("acquiredtime", json!({"type": "string", "format": "date-time"})),
    ] {
        let property = &mut schema["properties"][member];
        let description = property["description"].take();
        *property = constraint;
        property["description"] = description;
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::event::tests::{draft, origin};
    use crate::report::{Condition, EventId, ModelInfo, ReplayReason, ReplayState, Session, Stage, rfc3339};
    use std::time::SystemTime;

    fn valid(schema: &Value, document: &Value) -> Result<(), String> {
        let validator = jsonschema::validator_for(schema).map_err(|e| e.to_string())?;
        let errors: Vec<String> =
            validator.iter_errors(document).map(|e| format!("{}: {e}", e.instance_path())).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
    }

    fn result_event() -> Value {
        serde_json::from_slice(&draft(1).publish(1, "e", false)).expect("JSON")
    }

    #[test]
    fn every_published_document_validates() {
        let schemas = schema();
        assert_eq!(valid(&schemas.result, &result_event()), Ok(()));

        let error = FilmError { image_sha256: None, stage: Stage::Read, message: "unreadable".to_owned(), attempts: 3 };
        let epoch = SystemTime::UNIX_EPOCH;
        let draft = origin().error(EventId::of_error("1:2:3", "m", "c"), &error, epoch, epoch).expect("small");
        let event: Value = serde_json::from_slice(&draft.publish(2, "e", true)).expect("JSON");
        assert_eq!(valid(&schemas.error, &event), Ok(()));
        assert!(valid(&schemas.result, &event).is_err());

        let session = Session { boot_id: "e-1".to_owned(), number: 1 };
        let status = Status::new(&Condition::default(), &session, [], 0, SystemTime::UNIX_EPOCH);
        assert_eq!(valid(&schemas.status, &serde_json::to_value(status).expect("JSON")), Ok(()));

        let text = |s: &str| s.to_owned();
        let info = Info {
            version: text("0.1.0"),
            site: text("clinic"),
            device: text("ceph-1"),
            epoch: text("e"),
            model: ModelInfo {
                name: text("n"),
                version: text("1"),
                sha256: "b".repeat(64),
                backend: text("tract-cpu"),
            },
            landmarks: vec![text("sella")],
        };
        assert_eq!(valid(&schemas.info, &serde_json::to_value(info).expect("JSON")), Ok(()));
    }

    #[test]
    fn commands_and_their_answers_validate() {
        let schemas = schema();
        let request = ReplayRequest { epoch: "e".to_owned(), from: 1, to: 20 };
        assert_eq!(valid(&schemas.replay, &serde_json::to_value(request).expect("JSON")), Ok(()));
        assert_eq!(valid(&schemas.replay, &json!({"epoch": "e", "from": "1", "to": "20"})), Ok(()));
        for wrong in [json!({"epoch": "e", "from": 1, "to": "2"}), json!({"epoch": "e", "from": "-1", "to": "2"})] {
            assert!(valid(&schemas.replay, &wrong).is_err(), "{wrong}");
        }
        for (reason, from) in [(None, Some(1)), (Some(ReplayReason::Busy), None)] {
            let (epoch, state) = ("e".to_owned(), ReplayState::Done);
            let answer = ReplayAnswer { state, reason, epoch, oldest: 1, last: 2, from, to: from, sent: 0 };
            assert_eq!(valid(&schemas.replay_answer, &serde_json::to_value(answer).expect("JSON")), Ok(()));
        }
        let answer = PingAnswer {
            time: rfc3339(SystemTime::UNIX_EPOCH),
            version: "0.1.0".to_owned(),
            boot_id: "e-1".to_owned(),
            epoch: "e".to_owned(),
            last: 3,
            queue_length: 0,
        };
        assert_eq!(valid(&schemas.ping_answer, &serde_json::to_value(answer).expect("JSON")), Ok(()));
    }

    #[test]
    fn a_member_that_is_not_named_is_forbidden_at_every_depth() {
        for place in [
            "",
            "/data",
            "/data/image",
            "/data/image/dicom",
            "/data/landmarks/0",
            "/data/measures/0",
            "/data/model",
            "/data/timing",
        ] {
            let mut event = result_event();
            let object = event.pointer_mut(place).and_then(Value::as_object_mut).expect("an object");
            object.insert("patient_name".to_owned(), json!("Doe^Jane"));
            assert!(valid(&schema().result, &event).is_err(), "{place}");
        }
    }

    #[test]
    fn a_member_that_is_pinned_takes_no_other_value() {
        for (member, value) in [("type", "org.example"), ("id", "42"), ("sequence", "42"), ("specversion", "0.3")] {
            let mut event = result_event();
            event[member] = json!(value);
            assert!(valid(&schema().result, &event).is_err(), "{member}");
        }
    }
}
