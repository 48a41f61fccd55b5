//! `landmarkd run`: the daemon.

use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Exit, Failure, logging};
use crate::config::{self, CONFIG_FILE};
use crate::daemon::{self, DaemonError, Reloads};

/// How long threads that are stuck in the file system may keep the process.
const LEFTOVERS: Duration = Duration::from_millis(500);

/// The arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The configuration; the *.toml of conf.d beside it and `LANDMARKD_SECTION__KEY` variables are read too
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    config: PathBuf,
}

/// Runs until SIGTERM or SIGINT, then drains and returns. SIGHUP has the configuration read again.
///
/// # Errors
/// [`Exit::Config`] before anything is started, else what ended the daemon.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let loaded = config::load(&arguments.config).map_err(|errors| Failure::new(Exit::Config, errors))?;
    logging::start(&loaded.settings.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!("stopping on {name}");
            stop.cancel();
        });
        let reloads = read_again(signal(SignalKind::hangup())?, arguments.config.clone());
        daemon::run(loaded.settings, reloads, shutdown).await.map_err(|error| {
            let exit = match error {
                DaemonError::Unfit(_) => Exit::Config,
                DaemonError::Failed(_) => Exit::Service,
            };
            Failure::new(exit, error)
        })
    });
    // A read that hangs in a dead network mount keeps its thread; the process does not wait for it.
    runtime.shutdown_timeout(LEFTOVERS);
    ended
}

/// Reads the configuration at each `hangup`; signals that come meanwhile are one.
fn read_again(mut hangup: Signal, file: PathBuf) -> Reloads {
    let (sender, reloads) = mpsc::channel(1);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!("reading the configuration again on SIGHUP");
            let file = file.clone();
            let settings = match tokio::task::spawn_blocking(move || config::load(&file)).await {
                Ok(Ok(loaded)) => Ok(loaded.settings),
                Ok(Err(errors)) => Err(errors.to_string()),
                Err(_) => Err("reading it panicked".to_owned()),
            };
            if sender.send(settings).await.is_err() {
                return;
            }
        }
    });
    reloads
}
