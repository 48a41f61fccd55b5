//! The envelope of results and refusals: CloudEvents 1.0 in structured JSON.
//!
//! An event is made in two steps. When a film is finished its [`Draft`] is: all that will never change, as JSON text.
//! Its place in the queue, and whether it comes late, are known only when it is published ([`Draft::publish`]); the
//! text in between is kept byte for byte, so a number is never read and written again on its way.

use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::rfc3339;
use super::{EventId, FilmError, FilmResult, Stage, Topics};
use crate::disposition::Disposition;

/// No event is larger (R27).
pub const MAX_EVENT_BYTES: usize = 64 * 1024;

/// The MQTT content type of an event (CloudEvents MQTT binding 1.0.2, 3.2: structured mode).
pub const CONTENT_TYPE: &str = "application/cloudevents+json; charset=utf-8";

/// The longest an epoch may be; with it the size of the published event is known before its place in the queue is.
const MAX_EPOCH_BYTES: usize = 64;

/// What an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum EventKind {
    /// Landmarks were found: `data` is a [`FilmResult`].
    #[serde(rename = "org.landmarkd.film.result.v1")]
    Result,
    /// A film was refused: `data` is a [`FilmError`].
    #[serde(rename = "org.landmarkd.film.error.v1")]
    Error,
}

impl EventKind {
    /// The value of CloudEvents' `type`.
    #[must_use]
    pub const fn type_name(self) -> &'static str {
        match self {
            Self::Result => "org.landmarkd.film.result.v1",
            Self::Error => "org.landmarkd.film.error.v1",
        }
    }

    /// The value of CloudEvents' `dataschema`.
    #[must_use]
    pub const fn data_schema(self) -> &'static str {
        match self {
            Self::Result => "urn:landmarkd:film-result:v1",
            Self::Error => "urn:landmarkd:film-error:v1",
        }
    }
}

/// An event as subscribers get it; `D` is [`FilmResult`] or [`FilmError`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Event<D> {
    /// The version of CloudEvents: `1.0`.
    pub specversion: String,
    /// 64 hexadecimal digits; the same event always has the same id, so a repeated delivery can be told (R27).
    pub id: String,
    /// The device: `/xr/v1/<site>/<device>`.
    pub source: String,
    /// What the event tells.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// When the event was produced, RFC 3339.
    pub time: String,
    /// `application/json`.
    pub datacontenttype: String,
    /// Names the schema of `data`.
    pub dataschema: String,
    /// The event's number in its `epoch`, 20 decimal digits: no number is left out, results and errors count together
    /// (R28; CloudEvents' sequence extension).
    pub sequence: String,
    /// The random id of the state directory that counts.
    pub epoch: String,
    /// When the film was acquired, RFC 3339.
    pub acquiredtime: String,
    /// Whether the event comes later after the acquisition than a fresh one would (R29).
    pub historical: bool,
    /// The document itself.
    pub data: D,
}

/// What all events of one device share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    source: String,
}

/// An event that has no place in the queue yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// What it tells.
    pub kind: EventKind,
    /// Its id.
    pub id: EventId,
    /// When the film was acquired.
    pub acquired: SystemTime,
    /// A JSON object: the event without `sequence`, `epoch` and `historical`.
    pub body: Vec<u8>,
}

/// An event that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// It would not fit the wire.
    #[error("the event has {found} bytes, the limit is {limit}")]
    TooLarge {
        /// Bytes when published.
        found: usize,
        /// [`MAX_EVENT_BYTES`].
        limit: usize,
    },
    /// It has no JSON form.
    #[error("the event has no JSON form")]
    Json(#[from] serde_json::Error),
}

impl ReportError {
    /// The film is at fault; its refusal is small.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        Disposition::Reject
    }
}

#[derive(Serialize)]
struct Body<'a, D> {
    specversion: &'static str,
    id: String,
    source: &'a str,
    #[serde(rename = "type")]
    kind: EventKind,
    time: String,
    datacontenttype: &'static str,
    dataschema: &'static str,
    acquiredtime: String,
    data: &'a D,
}

impl Origin {
    /// The device with these topics.
    #[must_use]
    pub fn new(topics: &Topics) -> Self {
        Self { source: topics.source() }
    }

    /// The event of a result that was produced at `now` from a film acquired at `acquired`.
    ///
    /// # Errors
    /// [`ReportError::TooLarge`] when it would be larger than [`MAX_EVENT_BYTES`].
    pub fn result(
        &self,
        id: EventId,
        data: &FilmResult,
        acquired: SystemTime,
        now: SystemTime,
    ) -> Result<Draft, ReportError> {
        Draft::new(&self.source, EventKind::Result, id, data, acquired, now)
    }

    /// The event of a refusal that was decided at `now` about a film acquired at `acquired`.
    ///
    /// # Errors
    /// [`ReportError::TooLarge`] when it would be larger than [`MAX_EVENT_BYTES`].
    pub fn error(
        &self,
        id: EventId,
        data: &FilmError,
        acquired: SystemTime,
        now: SystemTime,
    ) -> Result<Draft, ReportError> {
        Draft::new(&self.source, EventKind::Error, id, data, acquired, now)
    }
}

impl Draft {
    fn new<D: Serialize>(
        source: &str,
        kind: EventKind,
        id: EventId,
        data: &D,
        acquired: SystemTime,
        now: SystemTime,
    ) -> Result<Self, ReportError> {
        let body = serde_json::to_vec(&Body {
            specversion: "1.0",
            id: id.to_string(),
            source,
            kind,
            time: rfc3339(now),
            datacontenttype: "application/json",
            dataschema: kind.data_schema(),
            acquiredtime: rfc3339(acquired),
            data,
        })?;
        let draft = Self { kind, id, acquired, body };
        let found = draft.publish(u64::MAX, &"x".repeat(MAX_EPOCH_BYTES), false).len();
        if found > MAX_EVENT_BYTES {
            return Err(ReportError::TooLarge { found, limit: MAX_EVENT_BYTES });
        }
        Ok(draft)
    }

    /// The JSON text that goes to the broker.
    #[must_use]
    pub fn publish(&self, sequence: u64, epoch: &str, historical: bool) -> Vec<u8> {
        let delivery = format!(r#"{{"sequence":"{sequence:020}","epoch":"{epoch}","historical":{historical},"#);
        // The body is an object with members: its opening brace gives way to the delivery's.
        [delivery.as_bytes(), &self.body[1..]].concat()
    }

    /// Whether an event published at `now` comes more than `fresh` after the acquisition (R29).
    ///
    /// A film from the future, by a clock that was set back, is not historical.
    #[must_use]
    pub fn is_historical(&self, fresh: Duration, now: SystemTime) -> bool {
        now.duration_since(self.acquired).is_ok_and(|age| age > fresh)
    }

    /// The refusal that takes this event's place when it cannot travel (R22), decided at `now`.
    ///
    /// # Errors
    /// When this event's own text does not read as one.
    pub fn refuse(&self, message: String, now: SystemTime) -> Result<Self, ReportError> {
        #[derive(Deserialize)]
        struct Known {
            source: String,
            data: KnownData,
        }
        #[derive(Deserialize)]
        struct KnownData {
            image: Option<KnownImage>,
        }
        #[derive(Deserialize)]
        struct KnownImage {
            sha256: String,
        }
        let known: Known = serde_json::from_slice(&self.body)?;
        let error = FilmError {
            image_sha256: known.data.image.map(|image| image.sha256),
            stage: Stage::Report,
            message,
            attempts: 1,
        };
        Self::new(&known.source, EventKind::Error, self.id.refused(), &error, self.acquired, now)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::geometry::{PixelSpacing, SpacingSource};
    use crate::measure::Unit;
    use crate::report::{DicomTokens, ImageInfo, LandmarkResult, MeasureResult, ModelInfo, NormResult, Timing};

    /// A result that uses every member, with `landmarks` landmarks; 19 of them make about 3 KiB.
    pub(crate) fn result(landmarks: usize) -> FilmResult {
        let token = || Some("0123456789abcdef".repeat(4));
        FilmResult {
            image: ImageInfo {
                sha256: "a".repeat(64),
                format: "dicom".to_owned(),
                width_px: 1935,
                height_px: 2400,
                spacing: Some(PixelSpacing { x_mm: 0.1, y_mm: 0.1, source: SpacingSource::Detector }),
                dicom: Some(DicomTokens { sop_instance: token(), series_instance: token(), study_instance: token() }),
            },
            landmarks: (0..landmarks)
                .map(|i| LandmarkResult {
                    name: format!("landmark_{i}"),
                    x_px: 1000.0 / 3.0 + i as f64,
                    y_px: 2000.0 / 3.0,
                    x_mm: Some(100.0 / 3.0),
                    y_mm: Some(200.0 / 3.0),
                    sigma_px: [1.0 / 3.0, 0.1 + 0.2],
                    radius95_px: Some(10.0 / 3.0),
                    radius95_mm: Some(1.0 / 3.0),
                    score: 0.987_654_321,
                })
                .collect(),
            measures: vec![
                MeasureResult {
                    name: "cobb_1".to_owned(),
                    unit: Unit::Degrees,
                    value: Some(100.0 / 3.0),
                    absent: None,
                    class: Some("normal".to_owned()),
                    norm: Some(NormResult { source: "ours".to_owned(), low: 79.4, high: 250.0 / 3.0 }),
                    vertebrae: Some([5, 13]),
                },
                MeasureResult {
                    name: "MW".to_owned(),
                    unit: Unit::Millimetres,
                    value: None,
                    absent: Some("the film's scale is unknown".to_owned()),
                    class: None,
                    norm: None,
                    vertebrae: None,
                },
            ],
            model: ModelInfo {
                name: "ceph19-nfdp".to_owned(),
                version: "1".to_owned(),
                sha256: "b".repeat(64),
                backend: "tract-cpu".to_owned(),
            },
            timing: Timing { decode_ms: 10.5, frame_ms: 3.25, inference_ms: 400.125 },
        }
    }

    pub(crate) fn origin() -> Origin {
        Origin::new(&Topics::new("clinic", "ceph-1").expect("valid"))
    }

    /// The draft of the `n`-th film.
    pub(crate) fn draft(n: u32) -> Draft {
        let id = EventId::of_result(&n.to_string(), "model", "config");
        origin().result(id, &result(19), SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH).expect("small")
    }

    #[test]
    fn a_published_event_reads_as_the_document_that_was_put_in() {
        let draft = draft(1);
        let event: Event<FilmResult> = serde_json::from_slice(&draft.publish(42, "e-1", true)).expect("an event");
        assert_eq!(event.data, result(19));
        assert_eq!(
            (event.specversion.as_str(), event.kind, event.source.as_str()),
            ("1.0", EventKind::Result, "/xr/v1/clinic/ceph-1")
        );
        assert_eq!((event.sequence.as_str(), event.epoch.as_str()), ("00000000000000000042", "e-1"));
        assert_eq!((event.historical, event.id), (true, draft.id.to_string()));
        assert_eq!(event.acquiredtime, "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn the_text_of_the_data_is_not_touched_on_its_way() {
        let data = serde_json::to_string(&result(19)).expect("serializable");
        let text = String::from_utf8(draft(1).publish(1, "e", false)).expect("JSON is UTF-8");
        assert!(text.ends_with(&format!(r#""data":{data}}}"#)));
    }

    #[test]
    fn an_event_comes_late_when_more_than_fresh_lies_between() {
        let fresh = Duration::from_secs(300);
        let draft = draft(1);
        for (age, historical) in [(0, false), (300, false), (301, true)] {
            let now = draft.acquired + Duration::from_secs(age);
            assert_eq!(draft.is_historical(fresh, now), historical, "{age} s");
        }
        assert!(!draft.is_historical(fresh, draft.acquired - Duration::from_secs(1)));
    }

    #[test]
    fn an_event_over_the_limit_is_refused_and_its_refusal_fits() {
        let id = EventId::of_result("a", "b", "c");
        let made = |n| origin().result(id, &result(n), SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH);
        let ReportError::TooLarge { found, limit } = made(1000).expect_err("too large") else {
            panic!("another error");
        };
        assert!(found > limit && limit == MAX_EVENT_BYTES);
        let refusal = made(19).expect("fits").refuse("too large".to_owned(), SystemTime::UNIX_EPOCH).expect("fits");
        let event: Event<FilmError> = serde_json::from_slice(&refusal.publish(7, "e", false)).expect("an event");
        assert_eq!(event.id, id.refused().to_string());
        assert_eq!((event.data.image_sha256, event.data.stage), (Some("a".repeat(64)), Stage::Report));
    }
}
