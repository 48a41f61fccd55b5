//! The subcommand: which checks, in which order, and the exit code they amount to.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use super::{Check, Report, Verdict, broker, folder, gpu, machine, model, state};
use crate::cli::{Exit, Failure, logging};
use crate::config::{self, CONFIG_FILE};

/// The arguments of `doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// The configuration; the *.toml of conf.d beside it and `LANDMARKD_SECTION__KEY` variables are read too
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    config: PathBuf,
    /// Print one JSON object and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// Look at the machine under the network instead: board, JetPack, driver, TensorRT, latency on the CPU and the GPU,
    /// their agreement, memory, power, temperature, throttling, and a verdict; it needs no configuration
    #[arg(long, conflicts_with = "probe_broker")]
    gpu: bool,
    /// With --gpu: how often the network runs on its golden film
    #[arg(long, value_name = "N", default_value_t = 20, requires = "gpu", value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// With --gpu: the model bundle [default: the one that serves, or the packaged one]
    #[arg(long, value_name = "DIR", requires = "gpu")]
    model: Option<PathBuf>,
    /// Connect to the broker even while the daemon runs with a client certificate, which some brokers take for one
    /// session: the daemon is then thrown out and connects again
    #[arg(long)]
    probe_broker: bool,
    /// The service's unit
    #[arg(long, value_name = "UNIT", default_value = "landmarkd.service")]
    unit: String,
}

const AFTER_HELP: &str = "\
Run it as the daemon's user, so that the same rights are tried: sudo -u landmarkd landmarkd doctor. Nothing is changed: \
the broker is asked under another client id, with messages that no subscriber gets, except an empty one on the metrics \
topic. The exit code is 78 if the configuration or the model is wrong, 69 if anything else is, 0 if all is well or only \
to be looked at.";

/// Makes all checks and prints them.
///
/// # Errors
/// [`Exit::Config`] or [`Exit::Service`] when a check has failed, [`Exit::Io`] when printing fails.
pub fn doctor(arguments: &Arguments) -> Result<(), Failure> {
    logging::start(&logging::for_people());
    let Arguments { config, json, gpu, runs, model, probe_broker, unit } = arguments;
    if *gpu {
        let (bundle, runs, json) = (model.clone(), *runs, *json);
        return gpu::doctor(&gpu::Question { config, bundle, runs, json });
    }
    let report = examine(config, unit, *probe_broker)?;
    let mut out = io::stdout().lock();
    if *json {
        let text = serde_json::to_string(&report).map_err(|e| Failure::new(Exit::Bug, e))?;
        writeln!(out, "{text}")?;
    } else {
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        out.write_all(report.table(colours).as_bytes())?;
    }
    verdict(&report)
}

/// All checks; without a configuration only those that need none.
///
/// # Errors
/// When the program has no threads to make them with.
pub fn examine(file: &Path, unit: &str, probe_broker: bool) -> Result<Report, Failure> {
    let mut checks = Vec::new();
    match config::load(file) {
        Ok(loaded) => {
            let settings = loaded.settings;
            checks.push(Check::ok("configuration", format!("{} is right", file.display())));
            checks.extend(folder::check(&settings.acquisition));
            checks.extend(state::check(&settings.state));
            checks.extend(model::check(&settings));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            checks.extend(runtime.block_on(broker::check(&settings, probe_broker)));
            checks.push(machine::unit(unit, Some(&settings)));
        }
        Err(errors) => {
            let remedy = "mend every line of it; nothing else can be looked at before";
            checks.push(Check::fail("configuration", errors.to_string(), remedy));
            checks.push(machine::unit(unit, None));
        }
    }
    checks.push(machine::clock());
    checks.push(machine::gpu());
    Ok(Report::new(checks))
}

fn verdict(report: &Report) -> Result<(), Failure> {
    let failed = || report.checks.iter().filter(|check| check.verdict == Verdict::Fail);
    let names: Vec<_> = failed().map(|check| check.name).collect();
    if names.is_empty() {
        return Ok(());
    }
    let is_ours = names.iter().any(|name| matches!(*name, "configuration" | "model" | "self-test"));
    let exit = if is_ours { Exit::Config } else { Exit::Service };
    Err(Failure::new(exit, format!("not well: {}", names.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_says_whose_the_fault_is() {
        let exit = |checks| verdict(&Report::new(checks)).err().map(|failure| failure.exit);
        let (bad, poor) = (|name| Check::fail(name, "x", "y"), || Check::warn("clock", "x", "y"));
        assert_eq!(exit(vec![Check::ok("model", "x"), poor()]), None);
        assert_eq!(exit(vec![bad("broker"), poor()]), Some(Exit::Service));
        assert_eq!(exit(vec![bad("broker"), bad("model")]), Some(Exit::Config));
        assert_eq!(exit(vec![bad("self-test")]), Some(Exit::Config));
        assert_eq!(exit(vec![bad("configuration")]), Some(Exit::Config));
    }
}
