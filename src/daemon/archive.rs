//! Delivered events grow old: the archive is looked at when the daemon starts, and then every hour.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::start::PANICKED;
use crate::config::StateSettings;
use crate::disposition::Disposition;
use crate::outbox::{ArchiveLimits, Outbox, OutboxError};

/// A look that finds nothing to do writes nothing; with one an hour a busy day stays close to its bytes.
const PAUSE: Duration = Duration::from_secs(3600);

/// Prunes the archive until `stop`.
///
/// # Errors
/// When the state is broken; a disk that refuses is tried again at the next look.
pub(super) async fn keep_bounded(
    outbox: Arc<Outbox>,
    settings: StateSettings,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let limits = ArchiveLimits { age: settings.archive_age, bytes: settings.archive_bytes };
    loop {
        let (outbox, stop_pruning) = (Arc::clone(&outbox), stop.clone());
        let pruned = tokio::task::spawn_blocking(move || prune(&outbox, &limits, &stop_pruning));
        let pruned = tokio::select! {
            pruned = pruned => pruned.map_err(|_| anyhow::anyhow!(PANICKED))?,
            () = stop.cancelled() => return Ok(()),
        };
        match pruned {
            Ok(0) => {}
            Ok(events) => debug!("{events} delivered events were old and are removed"),
            Err(error) if error.disposition() == Disposition::Retry => {
                warn!("delivered events that are old could not be removed: {error}");
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = sleep(PAUSE) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

fn prune(outbox: &Outbox, limits: &ArchiveLimits, stop: &CancellationToken) -> Result<u64, OutboxError> {
    let mut events = 0;
    while !stop.is_cancelled() {
        match outbox.prune_archive(SystemTime::now(), limits)? {
            0 => break,
            more => events += more,
        }
    }
    Ok(events)
}
