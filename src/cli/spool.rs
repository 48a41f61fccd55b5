//! `landmarkd spool`: what waits and what was put aside in the state of a stopped daemon.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::{Exit, Failure, logging};
use crate::acquisition::{Kept, Ledger, Outcome, quarantined_films};
use crate::config::{self, CONFIG_FILE};
use crate::outbox::{Head, Outbox};
use crate::report::{Draft, EventKind, rfc3339};
use crate::store::{Store, StoreError};

/// The arguments of `spool`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// The configuration, which names the state directory
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE, global = true)]
    config: PathBuf,
    #[command(subcommand)]
    action: Action,
}

const AFTER_HELP: &str = "\
The daemon must be stopped: while it runs, its state is in use (exit code 69). Run it as the daemon's user.";

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the events that wait for the broker, those that could not travel, and the films without a result
    Ls {
        /// Print one JSON object and nothing else on standard output
        #[arg(long)]
        json: bool,
    },
    /// Send an event that could not travel once more, or have a film that was refused read again
    Retry {
        /// The event's number, as `ls` shows it
        #[arg(value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
        number: u64,
    },
    /// Write every event that waits or could not travel to DIR, one JSON file each, and change nothing
    Export {
        /// A folder that is not there yet
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

/// Does it.
///
/// # Errors
/// [`Exit::Config`] for a wrong configuration, [`Exit::NoInput`] without a state, [`Exit::Service`] while a daemon
/// runs or when the state is damaged, [`Exit::BadInput`] for a number that is nobody's.
pub fn spool(arguments: &Arguments) -> Result<(), Failure> {
    logging::start(&logging::for_people());
    let loaded = config::load(&arguments.config).map_err(|errors| Failure::new(Exit::Config, errors))?;
    let directory = loaded.settings.state.directory;
    let spool = Spool::open(&directory)?;
    let mut out = io::stdout().lock();
    match &arguments.action {
        Action::Ls { json: true } => {
            let text = serde_json::to_string(&spool.listing(&directory)?).map_err(|e| Failure::new(Exit::Bug, e))?;
            writeln!(out, "{text}")?;
        }
        Action::Ls { json: false } => out.write_all(spool.listing(&directory)?.table().as_bytes())?,
        Action::Retry { number } => writeln!(out, "{}", spool.retry(*number, &directory)?)?,
        Action::Export { directory: target } => writeln!(out, "{} events written", spool.export(target)?)?,
    }
    Ok(())
}

/// The state of a stopped daemon.
struct Spool {
    store: Store,
    outbox: Outbox,
    ledger: Ledger,
}

/// Everything that is not delivered.
#[derive(Debug, Serialize)]
struct Listing {
    /// In the order of their numbers.
    waiting: Vec<Waiting>,
    /// Events that could not travel; their refusals took their numbers.
    quarantined_events: Vec<AsideEvent>,
    /// Films that ended without a result.
    films_without_result: Vec<AsideFilm>,
}

#[derive(Debug, Serialize)]
struct Waiting {
    number: u64,
    kind: EventKind,
    acquired: String,
    bytes: usize,
}

#[derive(Debug, Serialize)]
struct AsideEvent {
    number: u64,
    reason: String,
}

#[derive(Debug, Serialize)]
struct AsideFilm {
    number: u64,
    outcome: &'static str,
    sha256: String,
    /// What lies in the quarantine, where the film does.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<Kept>,
}

impl Spool {
    fn open(directory: &Path) -> Result<Self, Failure> {
        let store = Store::inspect(directory).map_err(|error| Failure::new(exit_of(&error), error))?;
        let outbox = Outbox::open(&store).map_err(unusable)?;
        let ledger = Ledger::open(Arc::clone(store.database())).map_err(unusable)?;
        Ok(Self { store, outbox, ledger })
    }

    /// Each event that waits, in the order of their numbers.
    fn waiting(&self) -> Result<Vec<Head>, Failure> {
        let mut events = Vec::new();
        for kind in [EventKind::Result, EventKind::Error] {
            let mut next = self.outbox.head(kind).map_err(unusable)?;
            while let Some(head) = next {
                next = self.outbox.after(kind, head.sequence).map_err(unusable)?;
                events.push(head);
            }
        }
        events.sort_by_key(|head| head.sequence);
        Ok(events)
    }

    fn listing(&self, directory: &Path) -> Result<Listing, Failure> {
        let kept = quarantined_films(directory).map_err(|error| Failure::new(Exit::Io, error))?;
        let films = self.ledger.snapshot().and_then(|ledger| ledger.without_result()).map_err(unusable)?;
        let film = |(number, film, outcome): (u64, crate::acquisition::FilmId, Outcome)| {
            let sha256 = film.to_string();
            let kept = kept.iter().find(|kept| kept.reason.sha256 == sha256).cloned();
            let outcome = if matches!(outcome, Outcome::Quarantined { .. }) { "quarantined" } else { "refused" };
            AsideFilm { number, outcome, sha256, kept }
        };
        let waiting = |Head { sequence, draft }: Head| Waiting {
            number: sequence,
            kind: draft.kind,
            acquired: rfc3339(draft.acquired),
            bytes: draft.body.len(),
        };
        let aside = self.outbox.quarantined().map_err(unusable)?;
        Ok(Listing {
            waiting: self.waiting()?.into_iter().map(waiting).collect(),
            quarantined_events: aside.into_iter().map(|(number, reason)| AsideEvent { number, reason }).collect(),
            films_without_result: films.into_iter().map(film).collect(),
        })
    }

    /// Queues again what ended under this number; what was done, in words.
    fn retry(&self, number: u64, directory: &Path) -> Result<String, Failure> {
        if let Some(again) = self.outbox.retry(number).map_err(unusable)? {
            return Ok(format!("event {number} waits again, as event {again}"));
        }
        let films = self.ledger.snapshot().and_then(|ledger| ledger.without_result()).map_err(unusable)?;
        let Some((_, film, outcome)) = films.into_iter().find(|(of, ..)| *of == number) else {
            let words =
                format!("{number} is no event that could not travel and no film without a result; see `spool ls`");
            return Err(Failure::new(Exit::BadInput, words));
        };
        self.ledger.forget(film).map_err(unusable)?;
        let copy = match outcome {
            Outcome::Quarantined { .. } => {
                let copy = directory.join("quarantine").join(film.to_string()).join("film");
                format!("; if it lies there no more, put {} there", copy.display())
            }
            _ => String::new(),
        };
        Ok(format!("the film of event {number} is new again: it is read from the folder at the next start{copy}"))
    }

    fn export(&self, target: &Path) -> Result<usize, Failure> {
        let failed = |e: io::Error| Failure::new(Exit::Io, format!("{}: {e}", target.display()));
        DirBuilder::new().mode(0o700).create(target).map_err(failed)?;
        let mut written = 0;
        let mut write = |prefix: &str, number: u64, draft: &Draft| -> io::Result<()> {
            let path = target.join(format!("{prefix}-{number:020}.json"));
            let text = draft.publish(number, self.store.epoch(), true);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(&text)?;
            written += 1;
            file.sync_all()
        };
        for Head { sequence, draft } in self.waiting()? {
            let prefix = if draft.kind == EventKind::Result { "result" } else { "error" };
            write(prefix, sequence, &draft).map_err(failed)?;
        }
        for (number, _) in self.outbox.quarantined().map_err(unusable)? {
            if let Some((_, draft)) = self.outbox.quarantined_event(number).map_err(unusable)? {
                write("quarantined", number, &draft).map_err(failed)?;
            }
        }
        Ok(written)
    }
}

impl Listing {
    fn table(&self) -> String {
        let mut text = format!("{} events wait for the broker\n", self.waiting.len());
        for Waiting { number, kind, acquired, bytes } in &self.waiting {
            let kind = if *kind == EventKind::Result { "result" } else { "error" };
            text.push_str(&format!("{number:>8}  {kind:<6}  acquired {acquired}  {bytes} bytes\n"));
        }
        text.push_str(&format!("{} events could not travel\n", self.quarantined_events.len()));
        for AsideEvent { number, reason } in &self.quarantined_events {
            text.push_str(&format!("{number:>8}  {reason}\n"));
        }
        text.push_str(&format!("{} films without a result\n", self.films_without_result.len()));
        for AsideFilm { number, outcome, sha256, kept } in &self.films_without_result {
            let why = kept.as_ref().map_or(String::new(), |kept| format!("  {}", kept.reason.errors.join(": ")));
            text.push_str(&format!("{number:>8}  {outcome:<11}  {sha256}{why}\n"));
        }
        text
    }
}

fn exit_of(error: &StoreError) -> Exit {
    match error {
        StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Exit::NoInput,
        StoreError::Io { .. } => Exit::Io,
        _ => Exit::Service,
    }
}

fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::new(Exit::Service, error)
}
