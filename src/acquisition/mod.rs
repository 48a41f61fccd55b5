//! The watched folder: which files are whole, and which were seen before.
//!
//! A film's way through this room, driven by [`run`] (`task`, `outcomes`): a round through the folder (`survey`,
//! `scan`) or an inotify hint (`watch`) sights a file; it settles ([`Settle`]); it is read once, below the folder and
//! without following links ([`Root`]); its structure says whether it is whole ([`completeness`]); the [`Ledger`] says
//! whether its bytes are new (`examine`); then it is handed out as [`Acquired`], and handed out again unless the
//! pipeline finishes it in the ledger.
//!
//! Nothing here decodes a pixel, and nothing writes in the folder unless the settings say `after = move` or `delete`.

mod after;
mod attempt;
mod completeness;
mod examine;
mod fault;
mod filesystem;
mod film;
mod identity;
mod ignore;
mod ledger;
mod mount;
mod open;
mod outcomes;
mod quarantine;
mod scan;
mod settle;
mod survey;
mod task;
mod watch;

pub use after::apply_after;
pub use attempt::AttemptMark;
#[cfg(feature = "fuzzing")]
pub(crate) use completeness::is_dicom;
pub use completeness::{Completeness, completeness};
pub use fault::{FAULT_LOG_INTERVAL, FaultLog};
pub use filesystem::{Filesystem, WatchMode};
pub use film::{Acquired, AcquiredFilm, Refusal, RefusedFile};
pub use identity::{FileIdentity, FilmId, FilmSource};
pub use ignore::ignored;
pub use ledger::{FilmRecord, FilmState, Ledger, LedgerError, Outcome, Snapshot};
pub use open::{FolderIdentity, ReadError, Root};
pub use quarantine::{Kept, Quarantine, QuarantineError, Reason, quarantined_films};
pub use settle::{Due, Settle};
pub use task::{AcquisitionError, FolderFault, FolderObserver, FolderState, run};
