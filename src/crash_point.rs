//! Named places where a test can have the process killed, as a power cut would, or hang, as a dead disk would.

/// The moments between which a crash could tell the difference, in the order a film meets them.
pub const NAMES: [&str; 7] = [
    "film.received",
    "attempt.counted",
    "film.analysed",
    "event.appended",
    "event.committed",
    "event.acknowledged",
    "event.removed",
];

/// Those that a new model bundle meets, from its archive to its first start.
pub const MODEL_NAMES: [&str; 17] = [
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

/// Kills the process with SIGKILL when the environment names this place in `LANDMARKD_CRASH_POINT`, and keeps the
/// thread for ever when it does in `LANDMARKD_HANG_POINT`.
///
/// Only in builds with debug assertions: a released daemon has no such switch.
pub fn reach(name: &'static str) {
    debug_assert!(NAMES.contains(&name) || MODEL_NAMES.contains(&name), "{name} is in no list that the tests walk");
    #[cfg(debug_assertions)]
    if std::env::var_os("LANDMARKD_HANG_POINT").is_some_and(|chosen| chosen == name) {
        loop {
            std::thread::park();
        }
    }
    #[cfg(debug_assertions)]
    if std::env::var_os("LANDMARKD_CRASH_POINT").is_some_and(|chosen| chosen == name) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // The signal is delivered before the call returns to us; should it ever not be, do not go on.
        std::process::abort();
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
