//! `landmarkd man`: the manual, one page a command.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::CommandFactory;

use super::{Exit, Failure};

/// The arguments of `man`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where the pages go; made where it is not there
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Writes the pages, `landmarkd.1` and one for each subcommand, in roff.
///
/// # Errors
/// [`Exit::Io`] when they cannot be written.
pub fn man(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { directory } = arguments;
    let failed = |error: io::Error| Failure::new(Exit::Io, format!("{}: {error}", directory.display()));
    fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(super::Arguments::command(), directory).map_err(failed)?;
    let pages = fs::read_dir(directory).map_err(failed)?.count();
    Ok(writeln!(io::stdout().lock(), "{pages} pages in {}", directory.display())?)
}
