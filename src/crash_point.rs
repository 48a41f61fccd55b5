//! Named places where a test can have the process killed, as a power cut would, or hang, as a dead disk would.
//!
//! Every fsync, rename and commit of the daemon stands inside [`step`], under a name of its own; `tests/tidy.rs` finds
//! those that do not. `tests/crash.rs` kills the daemon before and after each of them.

/// The steps after which something is durable that was not before.
///
/// A step `x` is met twice: as `x.before` and as `x.after`.
pub const STEPS: [&str; 32] = [
    // The state directory comes to be.
    "store.identity",
    "store.rename",
    "store.directory",
    "store.start",
    "outbox.open",
    "ledger.open",
    "attempt.file",
    "ballast.taken",
    "starts.recorded",
    // A film is worked on, and ends.
    "attempt.marked",
    "attempt.counted",
    "film.commit",
    "quarantine.file",
    "quarantine.entry",
    "quarantine.rename",
    "quarantine.directory",
    // Its event is delivered, or cannot be.
    "outbox.refused",
    "outbox.acknowledged",
    "outbox.saved",
    // Its file leaves the folder.
    "after.delete",
    "after.move",
    "after.copy",
    "after.directory",
    "after.remove",
    // It is met again, or for long not.
    "ledger.known",
    "ledger.sighted",
    "ledger.pruned",
    "outbox.pruned",
    "ledger.share",
    // A person has it tried again.
    "outbox.retried",
    "ledger.forgotten",
    // The daemon is asked to stop.
    "starts.clean",
];

/// Moments between two steps, at which a crash could tell the difference.
pub const MOMENTS: [&str; 5] =
    ["film.received", "film.analysed", "event.appended", "event.acknowledged", "event.removed"];

/// Those that a new model bundle meets, from its archive to its first start.
pub const MODEL_MOMENTS: [&str; 17] = [
    "model.begun",
    "model.file-unpacked",
    "model.unpacked",
    "model.testing",
    "model.receipt-written",
    "model.staged",
    "model.placed",
    "model.installed",
    "selection.written",
    "selection.renamed",
    "selection.synced",
    "model.condemned",
    "model.removed",
    "runs.written",
    "runs.renamed",
    "runs.synced",
    "model.serving",
];

/// Those that an engine for the GPU meets when it is built.
pub const ENGINE_MOMENTS: [&str; 6] = [
    "engine.plan-written",
    "engine.plan-renamed",
    "engine.plan-synced",
    "engine.note-written",
    "engine.note-renamed",
    "engine.note-synced",
];

/// Kills the process with SIGKILL when the environment names this moment in `LANDMARKD_CRASH_POINT`, and keeps the
/// thread for ever when it does in `LANDMARKD_HANG_POINT`.
///
/// Only in builds with debug assertions: a released daemon has no such switch.
pub fn reach(moment: &'static str) {
    let known = [&MOMENTS[..], &MODEL_MOMENTS, &ENGINE_MOMENTS].iter().any(|list| list.contains(&moment));
    debug_assert!(known, "{moment} is in no list that the tests walk");
    act(moment, "");
}

/// Takes a step, with a crash point before and after it.
pub fn step<T>(name: &'static str, step: impl FnOnce() -> T) -> T {
    debug_assert!(STEPS.contains(&name), "{name} is not in the list that the tests walk");
    act(name, ".before");
    let taken = step();
    act(name, ".after");
    taken
}

#[cfg(not(debug_assertions))]
const fn act(_: &str, _: &str) {}

#[cfg(debug_assertions)]
fn act(name: &str, side: &str) {
    let chosen = |variable| {
        let value = std::env::var(variable);
        value.is_ok_and(|value| value.strip_suffix(side).is_some_and(|chosen| chosen == name))
    };
    if chosen("LANDMARKD_HANG_POINT") {
        loop {
            std::thread::park();
        }
    }
    if chosen("LANDMARKD_CRASH_POINT") {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // The signal is delivered before the call returns to us; should it ever not be, do not go on.
        std::process::abort();
    }
}
