//! `landmarkd check-config`: is the configuration right, and what does it amount to?

use std::io::{self, Write};
use std::path::PathBuf;

use super::{Exit, Failure};
use crate::config::{self, CONFIG_FILE};

/// The arguments of `check-config`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The configuration; the *.toml of conf.d beside it and `LANDMARKD_SECTION__KEY` variables are read too
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    config: PathBuf,
    /// Print the configuration in force as TOML, with the source of each value
    #[arg(long)]
    print: bool,
}

/// Reads the configuration as `run` would, and starts nothing.
///
/// # Errors
/// [`Exit::Config`] with everything that is wrong, [`Exit::Io`] when printing fails.
pub fn check_config(arguments: &Arguments) -> Result<(), Failure> {
    let loaded = config::load(&arguments.config).map_err(|errors| Failure::new(Exit::Config, errors))?;
    let mut out = io::stdout().lock();
    if arguments.print {
        out.write_all(loaded.merged.to_toml().as_bytes())?;
    } else {
        writeln!(out, "{}: the configuration is right", arguments.config.display())?;
    }
    Ok(())
}
