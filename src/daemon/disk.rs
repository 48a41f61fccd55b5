//! The ladder of free space on the disk of the state directory (R41).
//!
//! Below `state.warn_free_mib` the daemon is degraded and makes no pictures. Below `state.stop_free_mib` it takes no
//! film: films stay in the folder, and the results that wait are still delivered. Unsent results are never removed, and
//! whatever was begun waits for room (`store::DiskRoom`). When there is space again all goes on by itself.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::condition::ConditionBoard;
use super::service_manager;
use super::start::PANICKED;
use super::visible::Visible;
use crate::config::StateSettings;
use crate::health::DiskView;
use crate::store::DiskRoom;

/// Between two looks at the disk.
const PAUSE: Duration = Duration::from_secs(5);
/// The service manager gives a start that waits for room so much more time, again and again.
const MORE_TIME: Duration = Duration::from_secs(60);
/// The worker asks so often whether it should stop while it waits at the gate.
const GATE_PAUSE: Duration = Duration::from_millis(250);

/// How much is free, in the one way that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Enough.
    Plenty,
    /// Little: the device is degraded.
    Low,
    /// Too little for new films.
    Full,
}

/// Looks at the free space, moment after moment.
#[derive(Debug)]
struct Ladder {
    warn_bytes: u64,
    stop_bytes: u64,
    level: Level,
}

impl Ladder {
    /// The level at `free` bytes; `waiting`: somebody could not write. A level is left only a tenth above its limit.
    fn step(&mut self, free: u64, waiting: bool) -> Level {
        let below = |limit: u64, since: Level| {
            let limit = if self.level >= since { limit.saturating_add(limit / 10) } else { limit };
            free < limit
        };
        self.level = if waiting || below(self.stop_bytes, Level::Full) {
            Level::Full
        } else if below(self.warn_bytes, Level::Low) {
            Level::Low
        } else {
            Level::Plenty
        };
        self.level
    }
}

/// Where the worker waits before it takes a film: closed while there is no room for its result.
#[derive(Debug, Default)]
pub(super) struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, open: bool) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = open;
        self.changed.notify_all();
    }

    /// Blocks until it is open or `stop`; whether it is open.
    pub(super) fn pass(&self, stop: &CancellationToken) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        while !*open {
            if stop.is_cancelled() {
                return false;
            }
            open = self.changed.wait_timeout(open, GATE_PAUSE).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// The party that looks at the disk.
pub(super) struct DiskWatch {
    pub(super) settings: StateSettings,
    pub(super) room: DiskRoom,
    /// Closed until the first look.
    pub(super) gate: Arc<Gate>,
    pub(super) condition: Arc<ConditionBoard>,
    pub(super) visible: Arc<Visible>,
}

impl DiskWatch {
    /// Looks until `stop`.
    ///
    /// # Errors
    /// When a look panics.
    pub(super) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let StateSettings { warn_free_bytes: warn_bytes, stop_free_bytes: stop_bytes, .. } = self.settings;
        let mut ladder = Ladder { warn_bytes, stop_bytes, level: Level::Plenty };
        let mut waiting = self.room.waiting();
        let mut told = Level::Plenty;
        loop {
            let is_waiting = *waiting.borrow_and_update() > 0;
            let look = self.look();
            let space = tokio::select! {
                space = look => space?,
                () = stop.cancelled() => return Ok(()),
            };
            let level = match space {
                Ok(Space { free, total, ballast }) => {
                    // As if the ballast were there: to throw it off does not make room for films.
                    let free = free.saturating_sub(self.settings.ballast_bytes.saturating_sub(ballast));
                    let level = ladder.step(free, is_waiting);
                    let view = DiskView { free_bytes: free, total_bytes: total, warn_bytes, stop_bytes };
                    self.visible.disk(view, level == Level::Plenty);
                    if level == Level::Plenty && ballast < self.settings.ballast_bytes {
                        self.take_ballast().await?;
                    }
                    level
                }
                // A system that does not say how much is free must not keep films waiting.
                Err(_) => ladder.step(u64::MAX, is_waiting),
            };
            if level != told {
                self.tell(level);
                told = level;
            }
            self.condition.disk(level);
            self.gate.set(level != Level::Full);
            tokio::select! {
                () = sleep(PAUSE) => {}
                // It ends with the daemon alone.
                _ = waiting.changed() => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    async fn look(&self) -> anyhow::Result<rustix::io::Result<Space>> {
        let (directory, room) = (self.settings.directory.clone(), self.room.clone());
        let look = tokio::task::spawn_blocking(move || Space::of(directory, &room));
        look.await.map_err(|_| anyhow!(PANICKED))
    }

    async fn take_ballast(&self) -> anyhow::Result<()> {
        let (room, bytes) = (self.room.clone(), self.settings.ballast_bytes);
        let taken = tokio::task::spawn_blocking(move || room.take_ballast(bytes)).await;
        // Without one the daemon waits a little earlier; the next look tries again.
        let _refused = taken.map_err(|_| anyhow!(PANICKED))?;
        Ok(())
    }

    fn tell(&self, level: Level) {
        let StateSettings { directory, warn_free_bytes, stop_free_bytes, .. } = &self.settings;
        let (directory, warn_mib, stop_mib) = (directory.display(), warn_free_bytes >> 20, stop_free_bytes >> 20);
        match level {
            Level::Plenty => info!("there is enough space on the disk of {directory}"),
            Level::Low => warn!(
                "less than {warn_mib} MiB are free on the disk of {directory} (state.warn_free_mib): free space; \
                 below {stop_mib} MiB no film is taken"
            ),
            Level::Full => error!(
                "the disk of {directory} has no room for films, less than {stop_mib} MiB are free \
                 (state.stop_free_mib) or none at all: free space; films stay in the folder until then"
            ),
        }
    }
}

/// A file system at one moment, in bytes.
struct Space {
    free: u64,
    total: u64,
    ballast: u64,
}

impl Space {
    fn of(directory: PathBuf, room: &DiskRoom) -> rustix::io::Result<Self> {
        let ballast = room.ballast();
        let found = rustix::fs::statvfs(&directory)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Self { free: bytes(found.f_bavail), total: bytes(found.f_blocks), ballast })
    }
}

/// Ends every wait for room at `shutdown`; until then a start that waits is given more time by the service manager.
pub(super) async fn attend(room: DiskRoom, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return room.give_up(),
            () = sleep(MORE_TIME / 4) => {}
        }
        if room.is_full() {
            service_manager::more_time(MORE_TIME);
        }
    }
}

/// Ends every wait for room when it is dropped: what is still to be written then must not keep the process.
pub(super) struct GiveUp(pub(super) DiskRoom);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn levels_are_entered_at_their_limit_and_left_a_tenth_above_it() {
        let mut ladder = Ladder { warn_bytes: 1000, stop_bytes: 100, level: Level::Plenty };
        for (free, waiting, expected) in [
            (5000, false, Level::Plenty),
            (1000, false, Level::Plenty),
            (999, false, Level::Low),
            (1099, false, Level::Low),
            (1100, false, Level::Plenty),
            (99, false, Level::Full),
            (109, false, Level::Full),
            (110, false, Level::Low),
            (100, false, Level::Low),
            (5000, true, Level::Full),
            (5000, false, Level::Plenty),
            (0, false, Level::Full),
            (2000, false, Level::Plenty),
        ] {
            assert_eq!(ladder.step(free, waiting), expected, "{free} bytes, waiting: {waiting}");
        }
        let mut without = Ladder { warn_bytes: 0, stop_bytes: 0, level: Level::Plenty };
        assert_eq!(without.step(0, false), Level::Plenty);
        assert_eq!(without.step(0, true), Level::Full);
    }

    #[test]
    fn the_gate_holds_until_it_opens_or_a_stop() {
        let (gate, stop) = (Arc::new(Gate::default()), CancellationToken::new());
        let worker = {
            let (gate, stop) = (Arc::clone(&gate), stop.clone());
            std::thread::spawn(move || gate.pass(&stop))
        };
        gate.set(true);
        assert!(worker.join().expect("no panic"));
        assert!(gate.pass(&stop));
        gate.set(false);
        stop.cancel();
        let began = Instant::now();
        assert!(!gate.pass(&stop));
        assert!(began.elapsed() < GATE_PAUSE);
    }
}
