//! What systemd is told: ready, alive, reloading, stopping. Without a service manager nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

/// The model works and the folder is being watched.
pub(super) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// How long the service manager waits for the next [`alive`], where it does.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// Every stage gets on with its work.
pub(super) fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// The configuration is being read again; [`ready`] ends it.
pub(super) fn reloading() {
    // A systemd of 253 or later relates the two by the time.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => warn!("the service manager was not told: {error}"),
    }
}

/// What is under way, a start above all, needs so much more time from now on.
pub(super) fn more_time(time: Duration) {
    notify(&[NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))]);
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
