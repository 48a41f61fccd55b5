//! The wiring: the only room that knows all the others.
//!
//! [`run`] opens the state, readies the model and starts three parties: the folder (`acquisition`), one thread that
//! owns the network (`worker`) and the publisher (`mqtt`). Films reach the worker through a channel of one; results
//! reach the publisher through the outbox on disk and nothing else, so a stuck broker never holds up a film.
//! Which bundle serves is `bundles`' to say; while no film comes the worker tries its golden one (`canary`).
//! Meanwhile `accelerate` prepares the GPU beside them, and hands it to the worker once it has proven itself.
//! A thread of its own looks at the machine (`machine`); while that throttles, the backlog is worked with pauses
//! (`restraint`).
//! Any of the three ending early, by error or panic, stops all of them. A configuration that is read again is tried
//! first (`reload`); if it serves, the three make way for three new ones, and the state stays open.

mod accelerate;
mod archive;
mod bundles;
mod canary;
mod condition;
mod disk;
mod machine;
mod reload;
mod restraint;
mod service_manager;
mod start;
mod starts;
mod supervise;
mod visible;
mod watchdog;
mod worker;

pub use start::{DaemonError, Reloads, run};
