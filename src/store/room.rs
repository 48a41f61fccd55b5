//! Room on the disk of the state directory: a ballast that is thrown off when there is none, and then patience (R41).
//!
//! A database that meets one full disk must be opened anew, and what it had in hand is lost; a program that ends on a
//! full disk ends again at its next start. So whoever writes to the state waits here until there is room again. What
//! waits is no hang, and says so to the pulses that are watched; a stop ends the waiting with the disk's own error.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};
use tokio::sync::watch;
use tracing::{error, info};

use crate::crash_point;
use crate::pulse::Pulse;

/// Between two looks whether there is room.
const RETRY: Duration = Duration::from_millis(250);
/// A disk that fills up again and again is told of this often (R15).
const SAY_AGAIN: Duration = Duration::from_secs(300);
const BALLAST: &str = "ballast";

/// The room of one state directory; its clones are the same.
#[derive(Clone, Debug)]
pub struct DiskRoom(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Where the ballast is; without one nobody waits either.
    directory: Option<PathBuf>,
    waiting: watch::Sender<usize>,
    state: Mutex<State>,
    given_up: Condvar,
}

#[derive(Debug, Default)]
struct State {
    given_up: bool,
    refused: bool,
    pulses: Vec<Pulse>,
    said: Option<Instant>,
}

/// Somebody waits for room; until it is dropped.
struct Waiting<'a>(&'a Shared);

impl DiskRoom {
    /// For a daemon with this state directory: a full disk is waited for.
    #[must_use]
    pub fn patient(directory: &Path) -> Self {
        Self::new(Some(directory.to_owned()))
    }

    /// For a command, which ends with the disk's error.
    #[must_use]
    pub fn impatient() -> Self {
        Self::new(None)
    }

    fn new(directory: Option<PathBuf>) -> Self {
        let (state, given_up) = (Mutex::default(), Condvar::new());
        Self(Arc::new(Shared { directory, waiting: watch::Sender::new(0), state, given_up }))
    }

    /// Does something that writes, again and again while the disk is full.
    ///
    /// # Errors
    /// Any other error of `act`; that the disk is full once [`give_up`](Self::give_up) was called.
    pub fn wait_for<T>(&self, act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        self.wait_while(is_full, act)
    }

    /// The same for errors that have the disk's as their cause.
    ///
    /// # Errors
    /// Any error of `act` that is not `full`; one that is, once [`give_up`](Self::give_up) was called.
    pub fn wait_while<T, E>(&self, full: impl Fn(&E) -> bool, mut act: impl FnMut() -> Result<T, E>) -> Result<T, E> {
        let mut done = act();
        if !done.as_ref().is_err_and(&full) || self.0.directory.is_none() {
            return done;
        }
        if self.drop_ballast() {
            done = act();
        }
        if !done.as_ref().is_err_and(&full) {
            return done;
        }
        let _waiting = self.0.begin();
        while done.as_ref().is_err_and(&full) && !self.0.pause() {
            done = act();
        }
        if done.as_ref().is_err_and(&full) {
            lock(&self.0.state).refused = true;
        }
        done
    }

    /// Whether something was not written because a wait was given up.
    #[must_use]
    pub fn refused(&self) -> bool {
        lock(&self.0.state).refused
    }

    /// Ends every wait, now and from now on: the daemon stops.
    pub fn give_up(&self) {
        lock(&self.0.state).given_up = true;
        self.0.given_up.notify_all();
    }

    /// How many wait for room.
    #[must_use]
    pub fn waiting(&self) -> watch::Receiver<usize> {
        self.0.waiting.subscribe()
    }

    /// Whether somebody waits for room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        *self.0.waiting.borrow() > 0
    }

    /// While somebody waits for room, these are not late: they may be what waits.
    pub fn excuses(&self, pulses: Vec<Pulse>) {
        lock(&self.0.state).pulses = pulses;
    }

    /// The bytes of the ballast; 0 where there is none.
    #[must_use]
    pub fn ballast(&self) -> u64 {
        let path = self.0.directory.as_ref().map(|directory| directory.join(BALLAST));
        path.and_then(|path| fs::metadata(path).ok()).map_or(0, |metadata| metadata.len())
    }

    /// Takes room on the disk that can be thrown off later.
    ///
    /// # Errors
    /// When there is not so much of it, or the file system cannot promise it; there is no ballast then.
    pub fn take_ballast(&self, bytes: u64) -> io::Result<()> {
        let Some(path) = self.0.directory.as_ref().map(|directory| directory.join(BALLAST)) else { return Ok(()) };
        self.drop_ballast();
        if bytes == 0 {
            return Ok(());
        }
        let take = |file: File| {
            fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
            crash_point::step("ballast.taken", || file.sync_all())
        };
        let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        options.and_then(take).inspect_err(|_| drop(fs::remove_file(&path)))
    }

    fn drop_ballast(&self) -> bool {
        self.0.directory.as_ref().is_some_and(|directory| fs::remove_file(directory.join(BALLAST)).is_ok())
    }
}

impl Shared {
    fn begin(&self) -> Waiting<'_> {
        let mut state = lock(&self.state);
        if state.said.is_none_or(|said| said.elapsed() >= SAY_AGAIN)
            && let Some(directory) = &self.directory
        {
            state.said = Some(Instant::now());
            error!(
                "the disk of {} is full: waiting for room; films stay in the folder and results in the queue, free \
                 space and both go on",
                directory.display()
            );
        }
        drop(state);
        self.waiting.send_modify(|waiting| *waiting += 1);
        Waiting(self)
    }

    /// Waits a moment; whether the wait was given up.
    fn pause(&self) -> bool {
        let state = lock(&self.state);
        let waited = self.given_up.wait_timeout_while(state, RETRY, |state| !state.given_up);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.pulses.iter().for_each(Pulse::begin_anew);
        state.given_up
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.send_modify(|waiting| *waiting -= 1);
        if *self.0.waiting.borrow() == 0 && !lock(&self.0.state).given_up {
            info!("there is room on the disk again");
        }
    }
}

/// No room on the file system, or for this user on it.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Nothing panics while it holds the lock half-way through a change.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn full() -> io::Error {
        io::ErrorKind::StorageFull.into()
    }

    #[test]
    fn a_full_disk_is_waited_for_and_any_other_error_is_told() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let room = DiskRoom::patient(state.path());
        let pulse = Pulse::new("the worker");
        room.excuses(vec![pulse.clone()]);
        let (busy, began) = (pulse.busy(), Instant::now());
        let mut tries = 0;
        let done = room.wait_for(|| {
            tries += 1;
            // The first try is before anybody waits.
            assert_eq!(room.is_full(), tries > 1, "try {tries}");
            if tries < 4 { Err(full()) } else { Ok(tries) }
        });
        assert_eq!(done.expect("there is room"), 4);
        assert!(!room.is_full());
        let busy_for = pulse.busy_for(Instant::now()).expect("busy");
        assert!(busy_for + 2 * RETRY < began.elapsed() + RETRY, "the wait counts as work: {busy_for:?}");
        drop(busy);
        let mut tries = 0;
        let failed = room.wait_for(|| {
            tries += 1;
            Err::<(), _>(io::Error::from(io::ErrorKind::PermissionDenied))
        });
        assert_eq!((failed.expect_err("told").kind(), tries), (io::ErrorKind::PermissionDenied, 1));
    }

    #[test]
    fn the_ballast_is_thrown_off_first() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let room = DiskRoom::patient(state.path());
        room.take_ballast(1 << 20).expect("there is room");
        assert_eq!(room.ballast(), 1 << 20);
        let done = room.wait_for(|| if room.ballast() > 0 { Err(full()) } else { Ok(room.is_full()) });
        assert!(!done.expect("the ballast's"), "nobody had to wait");
        room.take_ballast(1 << 20).expect("there is room");
        room.take_ballast(0).expect("none is wanted");
        assert_eq!(room.ballast(), 0);
    }

    #[test]
    fn a_stop_ends_the_wait_and_a_command_never_waits() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let room = DiskRoom::patient(state.path());
        let tries = Arc::new(AtomicU32::new(0));
        let waiting = {
            let (room, tries) = (room.clone(), Arc::clone(&tries));
            std::thread::spawn(move || {
                room.wait_for(|| {
                    tries.fetch_add(1, Ordering::Relaxed);
                    Err::<(), _>(full())
                })
            })
        };
        let mut waits = room.waiting();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(waits.wait_for(|&waiting| waiting == 1)).expect("it waits");
        room.give_up();
        let ended = waiting.join().expect("no panic").expect_err("given up");
        assert_eq!(ended.kind(), io::ErrorKind::StorageFull);
        assert!(room.refused());
        assert!(!room.is_full());
        let before = tries.load(Ordering::Relaxed);
        for (room, more) in [(room, 2), (DiskRoom::impatient(), 1)] {
            tries.store(before, Ordering::Relaxed);
            let ended = room.wait_for(|| {
                tries.fetch_add(1, Ordering::Relaxed);
                Err::<(), _>(full())
            });
            assert!(ended.is_err());
            assert!(tries.load(Ordering::Relaxed) <= before + more);
        }
    }
}
