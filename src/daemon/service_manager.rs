//! What systemd is told: ready, stopping. Without a service manager nothing happens.

use sd_notify::NotifyState;
use tracing::warn;

/// The model works and the folder is being watched.
pub(super) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A stop was asked for.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!("the service manager was not told: {error}");
    }
}
