//! What goes into the archive.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use super::archive::Texts;
use super::withheld::Withheld;
use crate::acquisition::{Ledger, quarantined_films};
use crate::cli::doctor::{self, Check, Report, ask, holder};
use crate::cli::{Exit, Failure, live, logging};
use crate::config::{self, CONFIG_FILE, Loaded, Settings};
use crate::outbox::Outbox;
use crate::store::Store;

/// Of the unit's journal.
const JOURNAL_LINES: &str = "2000";

/// The arguments of `diag`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// The configuration; the *.toml of conf.d beside it and `LANDMARKD_SECTION__KEY` variables are read too
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    config: PathBuf,
    /// The service's unit
    #[arg(long, value_name = "UNIT", default_value = "landmarkd.service")]
    unit: String,
    /// The archive to write, a .tar.gz that is not there yet
    archive: PathBuf,
}

const AFTER_HELP: &str = "\
In it: what doctor says, the configuration without the folders of films, status and metrics of the running daemon, the \
last 2,000 lines of its journal, versions, limits and counts. Not in it: films, events, file names, the quarantine, \
passwords and keys. Look through it before you send it: tar xzf FILE.tar.gz";

/// Writes the archive and lists what is in it.
///
/// # Errors
/// [`Exit::Io`] where it cannot be written, or is there already.
pub fn diag(arguments: &Arguments) -> Result<(), Failure> {
    logging::start(&logging::for_people());
    let Arguments { config: file, unit, archive } = arguments;
    let loaded = config::load(file);
    let report = doctor::examine(file, unit, false)?;
    let mut texts = Texts::default();
    match &loaded {
        Ok(Loaded { settings, merged }) => {
            let withheld = Withheld::of(settings);
            texts.add("doctor.json", pretty(&hidden(report, &withheld))?);
            texts.add("configuration.toml", withheld.hide(&merged.to_toml_that_names_nobody()));
            texts.add("status.json", withheld.hide(&asked(settings, "/status.json")));
            texts.add("metrics.txt", withheld.hide(&asked(settings, "/metrics")));
            texts.add("journal.txt", withheld.hide(&journal(unit)));
            texts.add("counts.json", pretty(&counts(&settings.state.directory))?);
            texts.add("machine.json", pretty(&machine(Some(settings)))?);
        }
        Err(errors) => {
            // What is wrong may quote a folder, and without settings nobody knows which: places only.
            texts.add("doctor.json", pretty(&without_words(report, errors.0.len()))?);
            texts.add("machine.json", pretty(&machine(None))?);
        }
    }
    let failed = |error: io::Error| Failure::new(Exit::Io, format!("{}: {error}", archive.display()));
    texts.write(archive).map_err(failed)?;
    let mut out = io::stdout().lock();
    Ok(write!(out, "{}: look through it before you send it\n{}", archive.display(), texts.outline())?)
}

fn pretty(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(|error| Failure::new(Exit::Bug, error))
}

fn hidden(report: Report, withheld: &Withheld) -> Report {
    let hide = |check: Check| Check {
        words: withheld.hide(&check.words),
        remedy: check.remedy.map(|remedy| withheld.hide(&remedy)),
        ..check
    };
    Report { checks: report.checks.into_iter().map(hide).collect(), ..report }
}

fn without_words(report: Report, mistakes: usize) -> Report {
    let hide = |check: Check| match check.name {
        "configuration" => {
            let words = format!("{mistakes} mistakes; `landmarkd check-config` names them on the machine itself");
            Check { words, ..check }
        }
        _ => check,
    };
    Report { checks: report.checks.into_iter().map(hide).collect(), ..report }
}

fn asked(settings: &Settings, path: &str) -> String {
    match settings.health.listen {
        Some(address) => live::get(address, path).unwrap_or_else(|error| format!("not to be had: {error}\n")),
        None => "not to be had: health.listen is empty\n".to_owned(),
    }
}

fn journal(unit: &str) -> String {
    let arguments = ["--unit", unit, "--lines", JOURNAL_LINES, "--output", "short-iso", "--no-pager", "--quiet"];
    ask("journalctl", &arguments).unwrap_or_else(|| "not to be had: no journalctl, or no right to read it\n".to_owned())
}

/// How much is in the state, where no daemon holds it; a running one tells in its metrics.
fn counts(directory: &Path) -> serde_json::Value {
    let quarantine = quarantined_films(directory).map(|films| films.len()).ok();
    let counted = || -> Result<serde_json::Value, String> {
        let told = |error: &(dyn std::error::Error + 'static)| crate::cli::chain(error);
        let store = Store::inspect(directory).map_err(|e| told(&e))?;
        let outbox = Outbox::open(&store).map_err(|e| told(&e))?;
        let ledger = Ledger::open(Arc::clone(store.database())).map_err(|e| told(&e))?;
        let (films, files) = ledger.snapshot().and_then(|snapshot| snapshot.count()).map_err(|e| told(&e))?;
        Ok(json!({
            "epoch": store.epoch(),
            "boot_id": store.boot_id(),
            "events_waiting": outbox.len().map_err(|e| told(&e))?,
            "events_quarantined": outbox.quarantined().map_err(|e| told(&e))?.len(),
            "films": films,
            "files": files,
        }))
    };
    let state = counted().unwrap_or_else(|reason| json!({ "not to be had": reason }));
    json!({ "state": state, "films_quarantined": quarantine })
}

/// What the daemon runs on.
fn machine(settings: Option<&Settings>) -> serde_json::Value {
    let text = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    let pid = settings.and_then(|settings| match holder(&settings.state.directory) {
        Ok(doctor::Holder::Running(pid)) => pid,
        _ => None,
    });
    let process = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let system = text("/etc/os-release").and_then(|release| {
        let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        name.map(|name| name.trim_matches('"').to_owned())
    });
    let limits: Vec<_> = text(&format!("/proc/{process}/limits")).map_or_else(Vec::new, |text| {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    });
    json!({
        "landmarkd": env!("CARGO_PKG_VERSION"),
        "system": system,
        "kernel": text("/proc/sys/kernel/osrelease"),
        "architecture": std::env::consts::ARCH,
        "processors": std::thread::available_parallelism().map(usize::from).ok(),
        "memory": text("/proc/meminfo").and_then(|text| text.lines().next().map(str::to_owned)),
        "uptime": text("/proc/uptime"),
        "limits_of": if pid.is_some() { "the running daemon" } else { "diag itself" },
        "limits": limits,
    })
}
