//! The published documents: pure data and its JSON form, nothing about how it travels.
//!
//! A result or a refusal is a CloudEvents 1.0 event in structured JSON ([`Event`]); its `data` is [`FilmResult`] or
//! [`FilmError`]. The retained [`Status`] and [`Info`] are plain JSON. [`Topics`] says where each of them goes, and
//! [`schema`] gives the JSON Schemas of all, made from these types (`landmarkd schema`);
//! [`asyncapi`] puts topics and schemas together as one document.
//!
//! Only what these types name leaves the device: no patient, no accession number, no date or description from a file's
//! header, no file name (R31). Identifiers of DICOM films leave as tokens ([`TokenKey`]).

mod asyncapi;
mod command;
mod event;
mod film;
mod identity;
mod schema;
mod status;
mod topics;

pub use asyncapi::asyncapi;
pub use command::{Command, MAX_REQUEST_BYTES, PingAnswer, ReplayAnswer, ReplayReason, ReplayRequest, ReplayState};
pub use event::{CONTENT_TYPE, Draft, Event, EventKind, MAX_EVENT_BYTES, Origin, ReportError};
pub use film::{
    DicomTokens, FilmError, FilmResult, ImageInfo, LandmarkResult, MeasureResult, ModelInfo, NormResult, Stage, Timing,
};
pub use identity::{EventId, TokenKey};
pub use schema::{Schemas, schema};
pub use status::{
    Accelerator, AcceleratorState, Condition, FolderState, Info, Reason, ServiceState, Session, Status, ThrottleCause,
    rfc3339,
};
pub use topics::{Channel, TopicError, Topics};
