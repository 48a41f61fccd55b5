//! Doors to parsers that nobody outside their rooms calls, for the fuzz targets in `tests/fuzz` (feature `fuzzing`).
//!
//! Each takes any bytes, and panics where a promise of the parser is broken.

/// Whether the walkers of completeness take this for DICOM.
#[must_use]
pub fn is_dicom(bytes: &[u8]) -> bool {
    crate::acquisition::is_dicom(bytes)
}

/// DICOM: the structure of a data set in each encoding, and the headers of compressed images.
pub fn dicom_structure(bytes: &[u8]) {
    crate::radiograph::fuzzing::dicom_structure(bytes);
}

/// JPEG: frame headers, entropy-coded scans, and the decoder of 12-bit films.
pub fn jpeg_scan(bytes: &[u8]) {
    crate::radiograph::fuzzing::jpeg_scan(bytes);
}

/// The manifest of a model bundle.
pub fn manifest(bytes: &[u8]) {
    crate::model::fuzz_manifest(bytes);
}

/// The archive of a model bundle.
pub fn archive(bytes: &[u8]) {
    crate::model::fuzz_archive(bytes);
}

/// The signature of a model bundle.
pub fn signature(bytes: &[u8]) {
    crate::model::fuzz_signature(bytes);
}

/// Requests over MQTT.
pub fn command(bytes: &[u8]) {
    crate::mqtt::fuzz(bytes);
}

/// The text of a configuration file.
pub fn config(bytes: &[u8]) {
    crate::config::fuzz(bytes);
}

/// A stored record of the outbox.
pub fn record(bytes: &[u8]) {
    crate::outbox::fuzz(bytes);
}

/// The head of an HTTP request.
pub fn http_head(bytes: &[u8]) {
    crate::health::fuzz(bytes);
}
