//! `landmarkd schema`: the contract with subscribers.

use std::io::{self, Write};

use super::{Exit, Failure};
use crate::report;

/// The arguments of `schema`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Print one AsyncAPI 3.0 document, with the topics, instead of the JSON Schemas alone
    #[arg(long)]
    asyncapi: bool,
}

/// Prints the schemas, or the whole contract, as one JSON document.
///
/// # Errors
/// When printing fails.
pub fn schema(arguments: &Arguments) -> Result<(), Failure> {
    let text = if arguments.asyncapi {
        serde_json::to_string_pretty(&report::asyncapi())
    } else {
        serde_json::to_string_pretty(&report::schema())
    };
    let text = text.map_err(|e| Failure::new(Exit::Bug, e))?;
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}
