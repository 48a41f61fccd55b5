//! `landmarkd completions`: a completion script for a shell.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use super::Failure;

/// The arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Which shell
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// When printing fails.
pub fn completions(arguments: &Arguments) -> Result<(), Failure> {
    let mut script = Vec::new();
    let mut command = super::Arguments::command();
    clap_complete::generate(arguments.shell, &mut command, "landmarkd", &mut script);
    Ok(io::stdout().lock().write_all(&script)?)
}
