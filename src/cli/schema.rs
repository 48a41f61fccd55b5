//! `landmarkd schema`: the JSON Schemas of what is published.

use std::io::{self, Write};

use super::{Exit, Failure};
use crate::report;

/// Prints the schemas as one JSON document.
///
/// # Errors
/// When printing fails.
pub fn schema() -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(&report::schema()).map_err(|e| Failure::new(Exit::Bug, e))?;
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}
