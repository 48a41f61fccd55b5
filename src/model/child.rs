//! Waiting for a process of our own, with a limit, and why it died.

use std::io;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

/// Why the waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// The child has ended.
    Ended,
    /// It had not when the limit passed.
    TimedOut,
    /// It had not when a look at it was enough.
    Enough,
}

/// Waits for the end of a child, until `limit` has passed, or until a look at it, once `every` so often, is `false`.
pub(crate) fn wait_while(
    child: &mut Child,
    limit: Duration,
    every: Duration,
    mut look: impl FnMut(&Child) -> bool,
) -> io::Result<Waited> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let turn = left.min(every);
        let timeout = Timespec { tv_sec: turn.as_secs() as i64, tv_nsec: i64::from(turn.subsec_nanos()) };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) if ready > 0 => return Ok(Waited::Ended),
            Ok(_) if left <= every => return Ok(Waited::TimedOut),
            Ok(_) if !look(child) => return Ok(Waited::Enough),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The signal in words.
pub(crate) fn signal_name(signal: i32) -> &'static str {
    match signal {
        s if s == Signal::ABORT.as_raw() => "abort",
        s if s == Signal::SEGV.as_raw() => "memory fault",
        s if s == Signal::BUS.as_raw() => "bus error",
        s if s == Signal::ILL.as_raw() => "illegal instruction",
        s if s == Signal::FPE.as_raw() => "arithmetic error",
        s if s == Signal::KILL.as_raw() => "killed, perhaps because the machine ran out of memory",
        _ => "see signal(7)",
    }
}
