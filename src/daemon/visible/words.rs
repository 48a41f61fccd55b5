//! The daemon's own words in those of the status page and the metrics.

use crate::acquisition::FolderFault;
use crate::health::{AcceleratorView, AcceleratorWord, Event, FaultCause, FolderWord, Trouble};
use crate::report::{Accelerator, AcceleratorState, EventKind, FolderState, Reason};

pub(super) const fn event(kind: EventKind) -> Event {
    match kind {
        EventKind::Result => Event::Result,
        EventKind::Error => Event::Error,
    }
}

pub(super) const fn trouble(reason: Reason) -> Trouble {
    match reason {
        Reason::FolderMissing => Trouble::FolderMissing,
        Reason::DiskLow => Trouble::DiskLow,
        Reason::DiskFull => Trouble::DiskFull,
        Reason::ModelUnavailable => Trouble::ModelUnavailable,
        Reason::NoSubscriber => Trouble::NoSubscriber,
        Reason::Rejected => Trouble::Rejected,
        Reason::ClientIdTaken => Trouble::ClientIdTaken,
        Reason::ConfigRejected => Trouble::ConfigRejected,
        Reason::SafeMode => Trouble::SafeMode,
        Reason::ModelRolledBack => Trouble::ModelRolledBack,
        Reason::CanaryFailed => Trouble::CanaryFailed,
        Reason::Throttled => Trouble::Throttled,
        Reason::AcceleratorFailed => Trouble::AcceleratorFailed,
    }
}

pub(super) fn accelerator(accelerator: &Accelerator) -> AcceleratorView {
    let state = match accelerator.state {
        AcceleratorState::Absent => AcceleratorWord::Absent,
        AcceleratorState::Preparing => AcceleratorWord::Preparing,
        AcceleratorState::Serving => AcceleratorWord::Serving,
        AcceleratorState::Failed => AcceleratorWord::Failed,
        AcceleratorState::Withheld => AcceleratorWord::Withheld,
    };
    AcceleratorView { state, reason: accelerator.reason.clone() }
}

pub(super) const fn folder_fault(fault: FolderFault) -> FaultCause {
    match fault {
        FolderFault::Missing => FaultCause::FolderMissing,
        FolderFault::Unresponsive => FaultCause::FolderUnresponsive,
        FolderFault::Round => FaultCause::FolderRound,
        FolderFault::Special => FaultCause::FolderSpecial,
        FolderFault::Events => FaultCause::FolderEvents,
        FolderFault::Unreadable => FaultCause::FilmUnreadable,
        FolderFault::After => FaultCause::FilmAfter,
        FolderFault::Ledger => FaultCause::Ledger,
    }
}

pub(super) const fn folder(state: FolderState) -> FolderWord {
    match state {
        FolderState::Unknown => FolderWord::Starting,
        FolderState::Watching => FolderWord::Watching,
        FolderState::Polling => FolderWord::Polling,
        FolderState::Missing => FolderWord::Missing,
    }
}
