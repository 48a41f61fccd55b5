//! What the folder's task makes of its finished jobs.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::after::apply_after;
use super::examine::Examined;
use super::filesystem::WatchMode;
use super::ledger::LedgerError;
use super::settle::Due;
use super::survey::{Sorted, Survey, SurveyError};
use super::task::{
    AcquisitionError, Folder, FolderFault, FolderState, Job, MISSING_PAUSE, PRUNE_PAUSE, Progress, cost, now,
};
use super::watch::Watcher;
use crate::disposition::Disposition;

impl Folder {
    /// # Errors
    /// Only what ends the task.
    pub(super) fn finished(&mut self, job: Job) -> Result<(), AcquisitionError> {
        let count: fn(&mut Progress) -> &mut u64 = match job {
            Job::Surveyed(_) => |progress| &mut progress.rounds,
            Job::Looked(_) => |progress| &mut progress.looks,
            Job::Examined(..) => |progress| &mut progress.examinations,
            Job::Applied(_) => |progress| &mut progress.applications,
        };
        let result = self.conclude(job);
        self.progress.send_modify(|progress| *count(progress) += 1);
        result
    }

    fn conclude(&mut self, job: Job) -> Result<(), AcquisitionError> {
        match job {
            Job::Surveyed(result) => {
                let started = self.round.take().map_or_else(now, |(started, _)| started);
                match *result {
                    Ok(survey) => {
                        self.surveyed(survey, started);
                        Ok(())
                    }
                    Err(error) => {
                        self.next_round = now() + self.settings.rescan.min(MISSING_PAUSE);
                        self.survey_failed(error)
                    }
                }
            }
            Job::Looked(Ok(sorted)) => {
                self.sorted(sorted);
                Ok(())
            }
            Job::Looked(Err(error)) => {
                self.round_soon();
                self.survey_failed(error)
            }
            Job::Examined(due, result) => {
                self.reading.0 -= 1;
                self.reading.1 -= cost(due.file.size, self.settings.max_file_bytes);
                match result {
                    // It was seen to change meanwhile: what was read is not what is there.
                    _ if !self.settle.is_examining(&due.path, &due.file) => Ok(()),
                    Ok(examined) => {
                        self.examined(&due, examined);
                        Ok(())
                    }
                    Err(error) => {
                        self.settle.retry(&due.path, now());
                        self.ledger_failed(error)
                    }
                }
            }
            Job::Applied(result) => {
                if let Err(error) = result {
                    self.fault(
                        FolderFault::After,
                        &format_args!("a processed film cannot be moved or deleted: {error}"),
                    );
                }
                Ok(())
            }
        }
    }

    fn surveyed(&mut self, survey: Survey, started: Instant) {
        let Survey { folder, filesystem, inotify, watches, sorted, special, failures, forgotten } = survey;
        self.settle.set_pause(self.settings.settle.unwrap_or(filesystem.mode.settle()));
        self.watched = Some(folder);
        match (inotify, &mut self.watcher) {
            (Some(inotify), Some(watcher)) if Arc::ptr_eq(&inotify, &watcher.inotify()) => watcher.set_folders(watches),
            (Some(inotify), watcher) => match Watcher::new(inotify, watches) {
                Ok(new) => *watcher = Some(new),
                Err(error) => {
                    *watcher = None;
                    self.fault(FolderFault::Events, &error);
                }
            },
            (None, watcher) => *watcher = None,
        }
        let mode = if self.watcher.is_some() { WatchMode::Inotify } else { WatchMode::Polling };
        let took = now().saturating_duration_since(started);
        // However many hints come, not more than half of the time goes into rounds.
        self.earliest_round = now() + took;
        let pause = if self.another_round { took } else { self.pause_after_round(mode, took) };
        self.next_round = now() + pause;
        if special > 0 {
            self.fault(
                FolderFault::Special,
                &format_args!("{special} links or special files in the folder are passed over"),
            );
        }
        if let Some(error) = failures.first() {
            let count = failures.len();
            self.fault(FolderFault::Round, &format_args!("{count} files or folders cannot be looked at: {error}"));
        } else {
            let present: HashSet<_> = sorted.unknown.iter().map(|(path, _)| path.clone()).collect();
            self.settle.only(&present, started);
        }
        if let Some(forgotten) = forgotten {
            self.next_prune = now() + PRUNE_PAUSE;
            tracing::debug!(forgotten, "the ledger is pruned");
        }
        self.sorted(sorted);
        self.tell(FolderState::Watching { mode, filesystem: filesystem.name });
    }

    /// A polled folder is listed as often as films settle, but never more than a tenth of the time.
    fn pause_after_round(&self, mode: WatchMode, took: Duration) -> Duration {
        let rescan = self.settings.rescan;
        match mode {
            WatchMode::Inotify => rescan,
            WatchMode::Polling => self.settings.settle.unwrap_or(mode.settle()).max(took * 10).min(rescan),
        }
    }

    fn sorted(&mut self, sorted: Sorted) {
        let now = now();
        for path in sorted.gone {
            self.settle.forget(&path);
        }
        for (path, file) in sorted.unknown {
            if !self.in_flight.holds(&path, &file) {
                self.settle.sighted(&path, file, now);
            }
        }
        for source in sorted.done {
            self.settle.forget(&source.path);
            let settings = Arc::clone(&self.settings);
            self.jobs.spawn_blocking(move || {
                let marker = settings.done_marker.as_deref();
                Job::Applied(apply_after(&settings.after, &settings.folder, &source, marker))
            });
        }
    }

    fn examined(&mut self, due: &Due, examined: Examined) {
        match examined {
            Examined::Acquired(acquired) => {
                self.settle.forget(&due.path);
                self.ready.push_back(acquired);
            }
            Examined::Known(source) => {
                self.settle.forget(&due.path);
                if !source.is_unread() {
                    self.know(source);
                }
            }
            Examined::Incomplete => self.settle.hold(&due.path),
            // What becomes of it is known when the pipeline is through with its twin.
            Examined::InFlight => self.settle.retry(&due.path, now()),
            Examined::Changed => {
                self.settle.retry(&due.path, now());
                self.look_at(vec![due.path.clone()]);
            }
            Examined::Gone => self.settle.forget(&due.path),
            Examined::Unreadable(error) => {
                self.settle.retry(&due.path, now());
                self.fault(FolderFault::Unreadable, &format_args!("a file cannot be read: {error}"));
            }
        }
    }

    fn survey_failed(&mut self, error: SurveyError) -> Result<(), AcquisitionError> {
        match error {
            SurveyError::Ledger(error) => self.ledger_failed(error),
            SurveyError::Folder(_) | SurveyError::Unmounted(_) => {
                self.watcher = None;
                self.watched = None;
                self.settle.clear();
                self.tell(FolderState::Missing { since: std::time::SystemTime::now() });
                self.fault(FolderFault::Missing, &error);
                Ok(())
            }
        }
    }

    fn ledger_failed(&mut self, error: LedgerError) -> Result<(), AcquisitionError> {
        match error.disposition() {
            Disposition::Fatal => Err(error.into()),
            Disposition::Retry | Disposition::Reject => {
                self.fault(FolderFault::Ledger, &error);
                Ok(())
            }
        }
    }
}
