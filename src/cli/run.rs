//! `landmarkd run`: the daemon.

use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Exit, Failure, logging};
use crate::config::{self, CONFIG_FILE};
use crate::daemon::{self, DaemonError};

/// How long threads that are stuck in the file system may keep the process.
const LEFTOVERS: Duration = Duration::from_millis(500);

/// The arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The configuration; the *.toml of conf.d beside it and `LANDMARKD_SECTION__KEY` variables are read too
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    config: PathBuf,
}

/// Runs until SIGTERM or SIGINT, then drains and returns.
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
        daemon::run(loaded.settings, shutdown).await.map_err(|error| {
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
