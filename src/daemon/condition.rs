//! What the daemon knows of itself, gathered for the status topic.

use std::collections::BTreeSet;
use std::time::SystemTime;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::disk::Level;
use crate::acquisition::{FolderState, WatchMode};
use crate::report::{Accelerator, Condition, FolderState as ReportedFolder, ModelInfo, Reason, ThrottleCause};

/// The one place where all parties pin what concerns the status.
#[derive(Debug)]
pub(super) struct ConditionBoard {
    sender: watch::Sender<Condition>,
}

impl ConditionBoard {
    pub(super) fn new(model: ModelInfo) -> Self {
        let condition = Condition { model: Some(model), ..Condition::default() };
        Self { sender: watch::Sender::new(condition) }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Condition> {
        self.sender.subscribe()
    }

    /// From now on this model serves, under a configuration that is right: in safe mode or not, and in the place of one
    /// that was taken out of service or not.
    pub(super) fn serves(&self, model: ModelInfo, is_safe: bool, is_rolled_back: bool) {
        self.sender.send_if_modified(|condition| {
            let before = condition.clone();
            condition.reasons.remove(&Reason::ConfigRejected);
            // Its network was loaded anew and has passed its self-test.
            condition.reasons.remove(&Reason::CanaryFailed);
            // The GPU is tried anew too.
            condition.reasons.remove(&Reason::AcceleratorFailed);
            condition.accelerator = None;
            for (reason, holds) in [(Reason::SafeMode, is_safe), (Reason::ModelRolledBack, is_rolled_back)] {
                if holds {
                    condition.reasons.insert(reason);
                } else {
                    condition.reasons.remove(&reason);
                }
            }
            condition.model = Some(model);
            *condition != before
        });
    }

    /// A new configuration is wrong: the old one stays in force (R37).
    pub(super) fn config_rejected(&self) {
        self.sender.send_if_modified(|condition| condition.reasons.insert(Reason::ConfigRejected));
    }

    /// The golden film was tried on the live path, and failed or not.
    pub(super) fn canary(&self, failed: bool) {
        self.sender.send_if_modified(|condition| {
            if failed {
                condition.reasons.insert(Reason::CanaryFailed)
            } else {
                condition.reasons.remove(&Reason::CanaryFailed)
            }
        });
    }

    /// What is with the GPU, what computes now, and whether that is less than was asked for.
    pub(super) fn accelerator(&self, accelerator: Accelerator, backend: &str, degraded: bool) {
        self.sender.send_if_modified(|condition| {
            let before = condition.clone();
            condition.accelerator = Some(accelerator);
            if let Some(model) = &mut condition.model {
                backend.clone_into(&mut model.backend);
            }
            if degraded {
                condition.reasons.insert(Reason::AcceleratorFailed);
            } else {
                condition.reasons.remove(&Reason::AcceleratorFailed);
            }
            *condition != before
        });
    }

    pub(super) fn film_finished(&self, now: SystemTime) {
        self.sender.send_modify(|condition| condition.last_film = Some(now));
    }

    /// So much is free on the disk of the state (R41).
    pub(super) fn disk(&self, level: Level) {
        self.sender.send_if_modified(|condition| {
            let before = condition.reasons.clone();
            condition.reasons.retain(|reason| !matches!(reason, Reason::DiskLow | Reason::DiskFull));
            match level {
                Level::Plenty => {}
                Level::Low => drop(condition.reasons.insert(Reason::DiskLow)),
                Level::Full => drop(condition.reasons.insert(Reason::DiskFull)),
            }
            condition.reasons != before
        });
    }

    /// The machine slows itself down for these causes, under this power mode.
    pub(super) fn machine(&self, throttled_by: &BTreeSet<ThrottleCause>, power_mode: Option<&str>) {
        self.sender.send_if_modified(|condition| {
            if condition.throttled_by == *throttled_by && condition.power_mode.as_deref() == power_mode {
                return false;
            }
            condition.throttled_by.clone_from(throttled_by);
            condition.power_mode = power_mode.map(str::to_owned);
            if throttled_by.is_empty() {
                condition.reasons.remove(&Reason::Throttled);
            } else {
                condition.reasons.insert(Reason::Throttled);
            }
            true
        });
    }

    fn folder(&self, state: FolderState) {
        self.sender.send_if_modified(|condition| {
            let before = (condition.folder, condition.reasons.contains(&Reason::FolderMissing));
            let (folder, missing) = match state {
                FolderState::Starting => (ReportedFolder::Unknown, false),
                FolderState::Watching { mode: WatchMode::Inotify, .. } => (ReportedFolder::Watching, false),
                FolderState::Watching { mode: WatchMode::Polling, .. } => (ReportedFolder::Polling, false),
                FolderState::Missing { .. } | FolderState::Unresponsive { .. } => (ReportedFolder::Missing, true),
            };
            condition.folder = folder;
            if missing {
                condition.reasons.insert(Reason::FolderMissing);
            } else {
                condition.reasons.remove(&Reason::FolderMissing);
            }
            before != (folder, missing)
        });
    }

    /// Follows the folder's state until `shutdown`.
    pub(super) async fn follow_folder(&self, mut state: watch::Receiver<FolderState>, shutdown: CancellationToken) {
        loop {
            let now = *state.borrow_and_update();
            self.folder(now);
            tokio::select! {
                changed = state.changed() => if changed.is_err() { return },
                () = shutdown.cancelled() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> ModelInfo {
        ModelInfo {
            name: "m".to_owned(),
            version: "1.0.0".to_owned(),
            sha256: String::new(),
            backend: "tract-cpu".to_owned(),
        }
    }

    #[test]
    fn a_wrong_configuration_degrades_until_a_right_one_is_taken() {
        let board = ConditionBoard::new(model());
        let watching = board.subscribe();
        board.config_rejected();
        assert!(watching.borrow().reasons.contains(&Reason::ConfigRejected));
        board.serves(ModelInfo { version: "2.0.0".to_owned(), ..model() }, true, true);
        let reasons: Vec<_> = watching.borrow().reasons.iter().copied().collect();
        assert_eq!(reasons, [Reason::SafeMode, Reason::ModelRolledBack]);
        board.serves(ModelInfo { version: "2.0.0".to_owned(), ..model() }, false, false);
        assert!(watching.borrow().reasons.is_empty());
        assert_eq!(watching.borrow().model.as_ref().map(|model| model.version.as_str()), Some("2.0.0"));
    }

    #[test]
    fn the_disk_has_one_reason_at_a_time() {
        let board = ConditionBoard::new(model());
        let mut watching = board.subscribe();
        board.folder(FolderState::Missing { since: SystemTime::UNIX_EPOCH });
        for (level, reasons) in [
            (Level::Low, vec![Reason::FolderMissing, Reason::DiskLow]),
            (Level::Full, vec![Reason::FolderMissing, Reason::DiskFull]),
            (Level::Plenty, vec![Reason::FolderMissing]),
        ] {
            board.disk(level);
            assert_eq!(watching.borrow_and_update().reasons.iter().copied().collect::<Vec<_>>(), reasons);
            board.disk(level);
            assert!(!watching.has_changed().expect("there"), "told twice");
        }
    }

    #[test]
    fn a_machine_that_throttles_degrades_until_it_has_recovered() {
        let board = ConditionBoard::new(model());
        let mut watching = board.subscribe();
        let hot = BTreeSet::from([ThrottleCause::CpuHeat]);
        board.machine(&hot, Some("15W"));
        assert!(watching.borrow_and_update().reasons.contains(&Reason::Throttled));
        board.machine(&hot, Some("15W"));
        assert!(!watching.has_changed().expect("there"), "told twice");
        board.machine(&BTreeSet::new(), Some("15W"));
        let now = watching.borrow_and_update().clone();
        assert!(now.reasons.is_empty() && now.throttled_by.is_empty());
        assert_eq!(now.power_mode.as_deref(), Some("15W"));
    }

    #[test]
    fn a_missing_folder_degrades_and_heals() {
        let board = ConditionBoard::new(model());
        let watching = board.subscribe();
        board.folder(FolderState::Missing { since: SystemTime::UNIX_EPOCH });
        assert!(watching.borrow().reasons.contains(&Reason::FolderMissing));
        assert_eq!(watching.borrow().folder, ReportedFolder::Missing);
        board.folder(FolderState::Watching { mode: WatchMode::Polling, filesystem: "nfs" });
        assert!(watching.borrow().reasons.is_empty());
        assert_eq!(watching.borrow().folder, ReportedFolder::Polling);
    }
}
