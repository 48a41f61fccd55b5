//! The `data` of an event: what was found on a film, or why it was refused.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::geometry::PixelSpacing;
use crate::measure::Unit;

/// What was found on one film: the `data` of a result event and of a line of `landmarkd predict --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilmResult {
    /// The film.
    pub image: ImageInfo,
    /// In the order of the bundle's manifest.
    pub landmarks: Vec<LandmarkResult>,
    /// What the bundle measures on them; absent where it measures nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measures: Vec<MeasureResult>,
    /// What found them.
    pub model: ModelInfo,
    /// How long it took.
    pub timing: Timing,
}

/// Why a film was refused: the `data` of an error event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilmError {
    /// SHA-256 of the file's bytes, hexadecimal; absent when the file could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_sha256: Option<String>,
    /// Which step refused it.
    pub stage: Stage,
    /// Why, in a sentence without the file's name or anything a patient could be known by.
    pub message: String,
    /// How often it was tried.
    pub attempts: u32,
}

/// A step of a film's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Opening and reading the file.
    Read,
    /// From bytes to gray values.
    Decode,
    /// The network.
    Inference,
    /// Turning the result into a document that fits the wire.
    Report,
    /// Unknown: the daemon itself ended while it worked on the film, as often as is allowed.
    Crash,
}

/// The film a result speaks of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageInfo {
    /// SHA-256 of the file's bytes, hexadecimal.
    pub sha256: String,
    /// The container the bytes were recognised as.
    pub format: String,
    /// Columns of the source image.
    pub width_px: u32,
    /// Rows of the source image.
    pub height_px: u32,
    /// The scale, where it is known, and who says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spacing: Option<PixelSpacing>,
    /// For DICOM: keyed tokens (HMAC-SHA-256 with the site's key) of the film's identifiers, never the identifiers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dicom: Option<DicomTokens>,
}

/// Identifiers of a DICOM film as tokens that only a holder of the site's key can match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DicomTokens {
    /// Of SOP Instance UID (0008,0018).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sop_instance: Option<String>,
    /// Of Series Instance UID (0020,000E).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series_instance: Option<String>,
    /// Of Study Instance UID (0020,000D).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub study_instance: Option<String>,
}

/// One landmark of a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LandmarkResult {
    /// The field's name for it.
    pub name: String,
    /// To the right, in source pixels; the centre of the first pixel is 0.
    pub x_px: f64,
    /// Downwards, in source pixels.
    pub y_px: f64,
    /// `x_px` in millimetres, where the scale is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x_mm: Option<f64>,
    /// `y_px` in millimetres, where the scale is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub y_mm: Option<f64>,
    /// The predicted scale of the error on x and y, in source pixels.
    pub sigma_px: [f64; 2],
    /// Radius of the disc around the landmark that holds the true one in 95 % of cases, as measured on films like
    /// those the bundle was trained for; in source pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub radius95_px: Option<f64>,
    /// `radius95_px` in millimetres, where the scale is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub radius95_mm: Option<f64>,
    /// 1 is certain, 0 is not.
    pub score: f64,
}

/// One clinical measure of a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeasureResult {
    /// The field's name for it ("SNA").
    pub name: String,
    /// Of `value`.
    pub unit: Unit,
    /// The value; absent where `absent` says why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Why there is no value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
    /// What the value is called in `norm`, if it has a name there. No diagnosis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// What `class` was taken from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm: Option<NormResult>,
    /// For an angle of a spine: its end vertebrae, counted from the top from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vertebrae: Option<[u8; 2]>,
}

/// What counts as normal of a measure, and to whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NormResult {
    /// `isbi2015`: the ISBI 2015 challenge; else the name that the site gave its own.
    pub source: String,
    /// The least value that is normal, in the measure's unit.
    pub low: f64,
    /// The greatest value that is normal.
    pub high: f64,
}

/// The model behind a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelInfo {
    /// The bundle's name.
    pub name: String,
    /// The bundle's version.
    pub version: String,
    /// SHA-256 of the bundle's network, hexadecimal.
    pub sha256: String,
    /// What computed it ("tract-cpu").
    pub backend: String,
}

/// Durations of the steps, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// From the file's bytes to gray values.
    pub decode_ms: f64,
    /// From gray values to the network's input.
    pub frame_ms: f64,
    /// The network.
    pub inference_ms: f64,
}
