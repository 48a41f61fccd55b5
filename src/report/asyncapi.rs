//! The contract as one AsyncAPI 3.0 document: topics, what is said on them, how, and by whom (`landmarkd schema
//! --asyncapi`).
//!
//! Everything in it comes from the types and from [`Topics`]. The schemas are those of [`schema`], taken apart into
//! components: AsyncAPI's references count from the root of the document, and its own dialect is draft-07, of which
//! they use nothing beyond.

use serde_json::{Map, Value, json};

use super::topics::Channel;
use super::{CONTENT_TYPE, Command, EventKind, Schemas, Topics, schema};

const PLAIN: &str = "application/json";
const BINDING: &str = "0.2.0";

/// What is said on one channel.
struct Document {
    /// Of the channel, its message and its operation among the others.
    key: &'static str,
    /// The topic.
    address: String,
    /// The channel of the answers, where it is the device that is asked.
    answered_on: Option<&'static str>,
    /// Of the schema among the components.
    name: &'static str,
    summary: &'static str,
    content_type: &'static str,
    retained: bool,
    schema: Value,
}

/// The contract of this version, for the topics of any site and device.
#[must_use]
pub fn asyncapi() -> Value {
    let Schemas { result, error, status, info, replay, replay_answer, ping_answer } = schema();
    let said = |channel: Channel, name, summary, content_type, schema| Document {
        key: channel.last_level(),
        address: topics().name(channel),
        answered_on: None,
        name,
        summary,
        content_type,
        retained: matches!(channel, Channel::Status | Channel::Info),
        schema,
    };
    let command = |key, address, answered_on, name, summary, schema| Document {
        key,
        address,
        answered_on,
        name,
        summary,
        content_type: PLAIN,
        retained: false,
        schema,
    };
    let (ask_replay, ask_ping) = (topics().command(Command::Replay), topics().command(Command::Ping));
    let (replayed, pinged) = (topics().answer(Command::Replay), topics().answer(Command::Ping));
    let documents = [
        said(Channel::Status, "Status", "How the device is; also its last will.", PLAIN, status),
        said(Channel::Info, "Info", "What the device is.", PLAIN, info),
        said(
            Channel::Result,
            "ResultEvent",
            "What was found on a film, as a CloudEvents 1.0 event in structured mode.",
            CONTENT_TYPE,
            result,
        ),
        said(
            Channel::Error,
            "ErrorEvent",
            "Why a film was refused, as a CloudEvents 1.0 event in structured mode.",
            CONTENT_TYPE,
            error,
        ),
        command(
            "replay",
            ask_replay,
            Some("replay_answer"),
            "ReplayRequest",
            "Asks for delivered events once more; heard only where mqtt.commands is set.",
            replay,
        ),
        command(
            "replay_answer",
            replayed,
            None,
            "ReplayAnswer",
            "What becomes of a replay; goes to the request's Response Topic where it names one.",
            replay_answer,
        ),
        command(
            "ping",
            ask_ping,
            Some("ping_answer"),
            "PingRequest",
            "Asks for a sign of life, by any payload; heard only where mqtt.commands is set.",
            json!({}),
        ),
        command(
            "ping_answer",
            pinged,
            None,
            "PingAnswer",
            "How far the device has counted; goes to the request's Response Topic where it names one.",
            ping_answer,
        ),
    ];
    let (mut channels, mut operations, mut messages, mut schemas) = (Map::new(), Map::new(), Map::new(), Map::new());
    for document in documents {
        let key = document.key;
        let of_message = reference(&["components", "messages", key]);
        channels.insert(key.to_owned(), channel(&document, &of_message));
        operations.extend(operation(&document));
        messages.insert(key.to_owned(), message(&document));
        add_schema(&mut schemas, document.name, document.schema);
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "landmarkd",
            "version": env!("CARGO_PKG_VERSION"),
            "description": description(),
            "license": { "name": env!("CARGO_PKG_LICENSE") },
        },
        "defaultContentType": "application/json",
        "servers": { "broker": server() },
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": schemas },
    })
}

fn description() -> String {
    format!(
        "Results and refusals are delivered at least once, on each topic in the order of `sequence` but for those that \
         the broker refused at first and for what is replayed, which come late. `sequence` counts both topics and \
         leaves no number out within an `epoch`; the same event always has the same `id`. Their types are {} and {}. \
         Research use, not a medical device.",
        EventKind::Result.type_name(),
        EventKind::Error.type_name()
    )
}

fn server() -> Value {
    json!({
        "host": "{host}:{port}",
        "protocol": "mqtt",
        "protocolVersion": "5.0",
        "description": "The site's broker, over TLS wherever it is another machine (mqtt.host, mqtt.port, mqtt.tls).",
        "variables": {
            "host": { "default": "localhost" },
            "port": { "default": "1883", "description": "8883 with TLS." },
        },
        "bindings": {
            "mqtt": {
                "cleanSession": true,
                "lastWill": { "topic": topics().name(Channel::Status), "qos": 1, "retain": true },
                "bindingVersion": BINDING,
            },
        },
    })
}

fn channel(Document { key, address, summary, .. }: &Document, of_message: &Value) -> Value {
    let level = |what: &str| json!({ "description": format!("{what} of the configuration: one level of the topic.") });
    json!({
        "address": address,
        "description": summary,
        "messages": { *key: of_message },
        "parameters": { "site": level("site.name"), "device": level("site.device") },
    })
}

/// What the device does with a channel, by the operation's name; an answer is part of what it answers.
fn operation(Document { key, answered_on, retained, .. }: &Document) -> Option<(String, Value)> {
    let of = |key: &str| json!([reference(&["channels", key, "messages", key])]);
    let mut operation = json!({
        "action": if answered_on.is_some() { "receive" } else { "send" },
        "channel": reference(&["channels", key]),
        "messages": of(key),
        "bindings": { "mqtt": { "qos": 1, "retain": retained, "bindingVersion": BINDING } },
    });
    if let Some(answer) = answered_on {
        operation["reply"] = json!({ "channel": reference(&["channels", answer]), "messages": of(answer) });
        return Some((format!("receive_{key}"), operation));
    }
    (!key.ends_with("_answer")).then(|| (format!("send_{key}"), operation))
}

fn message(Document { name, summary, content_type, .. }: &Document) -> Value {
    json!({
        "name": name,
        "summary": summary,
        "contentType": content_type,
        "payload": reference(&["components", "schemas", name]),
        "bindings": {
            "mqtt": { "payloadFormatIndicator": 1, "contentType": content_type, "bindingVersion": BINDING },
        },
    })
}

/// The topics, with the two levels that differ from device to device as parameters.
fn topics() -> Topics {
    Topics::new("{site}", "{device}").expect("braces mean nothing to MQTT")
}

fn reference(path: &[&str]) -> Value {
    json!({ "$ref": format!("#/{}", path.join("/")) })
}

/// Adds a schema and its definitions to the components, each under its own name.
fn add_schema(schemas: &mut Map<String, Value>, name: &str, mut schema: Value) {
    let text = schema.to_string();
    let definitions = schema.as_object_mut().and_then(|schema| {
        // They say which dialect and what name the schema has where it stands alone.
        schema.remove("$schema");
        schema.remove("$id");
        schema.remove("$defs")
    });
    if let Some(Value::Object(definitions)) = definitions {
        // What an event pins refers to no definition any more.
        let is_used = |name: &str| text.contains(&format!("\"#/$defs/{name}\""));
        for (name, definition) in definitions.into_iter().filter(|(name, _)| is_used(name)) {
            add_schema(schemas, &name, definition);
        }
    }
    count_from_the_root(&mut schema);
    schemas.insert(name.to_owned(), schema);
}

/// Lets references to definitions point to the components; what stands beside one is kept, which draft-07 would not.
fn count_from_the_root(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.values_mut().for_each(count_from_the_root);
            let Some(name) = members.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix("#/$defs/"))
            else {
                return;
            };
            let to = reference(&["components", "schemas", name]);
            members.remove("$ref");
            if members.is_empty() {
                *schema = to;
            } else {
                members.insert("allOf".to_owned(), json!([to]));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(count_from_the_root),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Calls `seen` with every object of a document.
    fn walk(value: &Value, seen: &mut impl FnMut(&Map<String, Value>)) {
        match value {
            Value::Object(members) => {
                seen(members);
                members.values().for_each(|member| walk(member, seen));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, seen)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_everything_is_referred_to() {
        let document = asyncapi();
        let mut to = BTreeSet::new();
        walk(&document, &mut |object| {
            if let Some(Value::String(reference)) = object.get("$ref") {
                let pointer = reference.strip_prefix('#').expect("within the document");
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
                to.insert(pointer.to_owned());
            }
        });
        for kind in ["messages", "schemas"] {
            for name in document["components"][kind].as_object().expect("components").keys() {
                let pointer = format!("/components/{kind}/{name}");
                assert!(to.contains(&pointer), "nothing refers to {pointer}");
            }
        }
    }

    #[test]
    fn each_document_goes_to_its_topic_as_it_is_published() {
        let document = asyncapi();
        let channels = document["channels"].as_object().expect("channels");
        let keys = ["error", "info", "ping", "ping_answer", "replay", "replay_answer", "result", "status"];
        assert_eq!(channels.keys().collect::<Vec<_>>(), keys);
        for key in ["error", "info", "result", "status"] {
            assert_eq!(channels[key]["address"], format!("xr/v1/{{site}}/{{device}}/{key}"));
            let operation = &document["operations"][format!("send_{key}")];
            assert_eq!(operation["channel"]["$ref"], format!("#/channels/{key}"));
            let retained = matches!(key, "info" | "status");
            assert_eq!(operation["bindings"]["mqtt"]["retain"], retained, "{key}");
            let message = &document["components"]["messages"][key];
            assert_eq!(
                message["contentType"].as_str().is_some_and(|of| of.contains("cloudevents")),
                !retained,
                "{key}"
            );
        }
    }

    #[test]
    fn what_is_asked_is_received_and_answered() {
        let document = asyncapi();
        let operations = document["operations"].as_object().expect("operations");
        assert_eq!(operations.len(), 6);
        for key in ["replay", "ping"] {
            assert_eq!(document["channels"][key]["address"], format!("xr/v1/{{site}}/{{device}}/cmd/{key}"));
            let answer = format!("{key}_answer");
            let address = format!("xr/v1/{{site}}/{{device}}/cmd/{key}/answer");
            assert_eq!(document["channels"][&answer]["address"], address);
            let operation = &operations[&format!("receive_{key}")];
            assert_eq!(
                (&operation["action"], &operation["bindings"]["mqtt"]["retain"]),
                (&json!("receive"), &json!(false))
            );
            assert_eq!(operation["reply"]["channel"]["$ref"], format!("#/channels/{answer}"));
        }
    }

    /// The keywords of a schema that draft-07 does not know would mean nothing in AsyncAPI's own dialect.
    #[test]
    fn the_schemas_use_no_keyword_beyond_draft_07() {
        let document = asyncapi();
        let mut newer = BTreeSet::new();
        walk(&document["components"]["schemas"], &mut |object| {
            let beyond = ["$defs", "$anchor", "prefixItems", "unevaluatedProperties", "unevaluatedItems"];
            newer.extend(
                object.keys().filter(|key| beyond.contains(&key.as_str()) || key.starts_with("dependent")).cloned(),
            );
            // Its neighbours would be ignored.
            assert!(object.len() == 1 || !object.contains_key("$ref"), "{object:?}");
        });
        assert_eq!(newer, BTreeSet::new());
    }

    /// Two documents that each bring a definition of the same name must mean the same by it.
    #[test]
    fn a_name_among_the_components_means_one_thing() {
        let Schemas { result, error, status, info, replay, replay_answer, ping_answer } = schema();
        let mut seen = Map::new();
        for schema in [result, error, status, info, replay, replay_answer, ping_answer] {
            for (name, definition) in schema["$defs"].as_object().into_iter().flatten() {
                let before = seen.insert(name.clone(), definition.clone());
                assert!(before.is_none_or(|before| before == *definition), "{name}");
            }
        }
        for name in [
            "Status",
            "Info",
            "ResultEvent",
            "ErrorEvent",
            "ReplayRequest",
            "ReplayAnswer",
            "PingRequest",
            "PingAnswer",
        ] {
            assert!(!seen.contains_key(name), "{name}");
        }
    }

    #[test]
    fn an_event_validates_against_the_components_as_it_does_against_its_schema() {
        let mut root = asyncapi();
        root["$ref"] = json!("#/components/schemas/ResultEvent");
        let validator = jsonschema::validator_for(&root).expect("a schema");
        let mut event: Value =
            serde_json::from_slice(&super::super::event::tests::draft(1).publish(1, "e", false)).expect("JSON");
        assert!(validator.is_valid(&event));
        event["data"]["image"]["patient_name"] = json!("Doe^Jane");
        assert!(!validator.is_valid(&event));
    }
}
