//! What the page, `/status.json`, `/healthz` and `/readyz` show: plain data that the daemon fills at each request.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use super::labels::{AcceleratorWord, FilmEnd, FolderWord, Stage};
use super::trouble::Trouble;
use crate::report;
use crate::telemetry::Machine;

/// The daemon at one moment. It has no room for a path or a file name of the site, or anything a patient could be known
/// by; what is said of the GPU may name the system's libraries.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StatusView {
    /// The moment.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// The daemon's version.
    pub version: &'static str,
    /// The site, as in the topics.
    pub site: String,
    /// The device, as in the topics.
    pub device: String,
    /// When the daemon was started.
    #[serde(serialize_with = "rfc3339")]
    pub started: SystemTime,
    /// A stop was asked for.
    pub stopping: bool,
    /// What is wrong, worst first; empty when nothing is.
    #[serde(rename = "reasons")]
    pub troubles: BTreeSet<Trouble>,
    /// What is known of the watched folder.
    pub folder: FolderWord,
    /// The way to the broker.
    pub broker: BrokerView,
    /// What waits for the broker.
    pub queue: QueueView,
    /// What became of the films since the start.
    pub counts: Counts,
    /// The last films, newest first.
    pub films: Vec<FilmView>,
    /// The serving model.
    pub model: Option<ModelView>,
    /// The file system of the state directory.
    pub disk: Option<DiskView>,
    /// The machine, once it was looked at.
    pub machine: Option<Machine>,
    /// The backlog waits at this moment because the machine throttles.
    pub pausing: bool,
    /// The parts of the daemon that must not hang.
    pub stages: Vec<StageView>,
}

/// The state in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceWord {
    /// The folder has not been looked at yet.
    Starting,
    /// Films are read and results delivered.
    Online,
    /// It works, but something keeps films or results waiting.
    Degraded,
    /// What is in hand is being finished.
    Stopping,
}

/// The way to the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BrokerView {
    /// It has accepted us.
    pub connected: bool,
    /// Connections tried since the start.
    pub session: u64,
}

/// What waits for the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QueueView {
    /// How many events.
    pub length: u64,
    /// When the oldest of them was produced.
    #[serde(serialize_with = "rfc3339_or_null")]
    pub oldest: Option<SystemTime>,
}

/// What became of the films since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// They have a result.
    pub accepted: u64,
    /// They were refused unread.
    pub refused: u64,
    /// They could not be analysed and are kept.
    pub quarantined: u64,
}

/// A film whose way has ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FilmView {
    /// The sequence number of its event.
    pub number: u64,
    /// How its way ended.
    pub end: FilmEnd,
    /// When it was acquired.
    #[serde(serialize_with = "rfc3339")]
    pub acquired: SystemTime,
    /// When its event was made durable.
    #[serde(serialize_with = "rfc3339")]
    pub finished: SystemTime,
    /// When its event was delivered; absent while it waits.
    #[serde(serialize_with = "rfc3339_or_null")]
    pub delivered: Option<SystemTime>,
    /// What took how long; absent for a film that was refused.
    pub steps: Option<StepTimes>,
    /// Columns and rows of the source image.
    pub size_px: Option<[u32; 2]>,
    /// How many landmarks were found.
    pub landmarks: u32,
    /// There is a picture of it; [`Films::newest_first`](super::Films::newest_first) knows.
    pub picture: bool,
}

/// What took how long, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct StepTimes {
    /// From bytes to gray values.
    pub decode_ms: f64,
    /// From gray values to the network's input.
    pub frame_ms: f64,
    /// The network.
    pub inference_ms: f64,
}

/// The serving model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelView {
    /// The bundle's name.
    pub name: String,
    /// The bundle's version.
    pub version: String,
    /// SHA-256 of the bundle's network, hexadecimal.
    pub sha256: String,
    /// What computes.
    pub backend: String,
    /// What is with the GPU; absent where none is to be used.
    pub accelerator: Option<AcceleratorView>,
}

/// What is with the GPU that computes in the place of the processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AcceleratorView {
    /// The one word.
    pub state: AcceleratorWord,
    /// Why.
    pub reason: Option<String>,
}

/// The file system of the state directory (R41).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DiskView {
    /// Free for us.
    pub free_bytes: u64,
    /// All of it.
    pub total_bytes: u64,
    /// Below this much free space the daemon is degraded.
    pub warn_bytes: u64,
    /// Below this much it takes no films.
    pub stop_bytes: u64,
}

/// A part of the daemon that must not hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StageView {
    /// Which.
    pub stage: Stage,
    /// How long it has been at what it does, in milliseconds; absent while it is idle.
    #[serde(rename = "busy_ms", serialize_with = "millis_or_null")]
    pub busy_for: Option<Duration>,
    /// How long that may take, in milliseconds.
    #[serde(rename = "budget_ms", serialize_with = "millis")]
    pub budget: Duration,
}

impl StatusView {
    /// The one word.
    #[must_use]
    pub fn word(&self) -> ServiceWord {
        if self.stopping {
            ServiceWord::Stopping
        } else if !self.troubles.is_empty() || !self.is_healthy() {
            ServiceWord::Degraded
        } else if self.folder == FolderWord::Starting {
            ServiceWord::Starting
        } else {
            ServiceWord::Online
        }
    }

    /// Whether films can be taken now. Results that wait for the broker do not matter: they wait on disk (R45).
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let stopped = self.troubles.iter().any(|trouble| trouble.stops_films());
        let looked_at = matches!(self.folder, FolderWord::Watching | FolderWord::Polling);
        !self.stopping && !stopped && looked_at
    }

    /// Whether every stage is idle or within its budget.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.stages.iter().all(StageView::is_within_budget)
    }
}

impl StageView {
    /// Whether it is idle or has not been at it for too long.
    #[must_use]
    pub fn is_within_budget(&self) -> bool {
        self.busy_for.is_none_or(|busy_for| busy_for <= self.budget)
    }
}

impl FilmView {
    /// From the acquisition to the durable event; zero where the clocks disagree.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.finished.duration_since(self.acquired).unwrap_or_default()
    }
}

impl StepTimes {
    /// All of them together.
    #[must_use]
    pub fn total_ms(&self) -> f64 {
        self.decode_ms + self.frame_ms + self.inference_ms
    }
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&report::rfc3339(*time))
}

fn rfc3339_or_null<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(report::rfc3339).serialize(serializer)
}

fn millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    millis_or_null(&Some(*duration), serializer)
}

fn millis_or_null<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).serialize(serializer)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A daemon that has nothing to complain of, an hour after its start.
    pub(in super::super) fn quiet() -> StatusView {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000);
        StatusView {
            time,
            version: "0.1.0",
            site: "clinic".to_owned(),
            device: "ceph".to_owned(),
            started: time - Duration::from_secs(3600),
            stopping: false,
            troubles: BTreeSet::new(),
            folder: FolderWord::Watching,
            broker: BrokerView { connected: true, session: 1 },
            queue: QueueView::default(),
            counts: Counts::default(),
            films: Vec::new(),
            model: None,
            disk: None,
            machine: None,
            pausing: false,
            stages: vec![StageView { stage: Stage::Worker, busy_for: None, budget: Duration::from_secs(60) }],
        }
    }

    #[test]
    fn the_broker_degrades_but_films_are_still_taken() {
        let mut view = quiet();
        assert_eq!((view.word(), view.is_ready()), (ServiceWord::Online, true));
        view.troubles = [Trouble::BrokerAway, Trouble::NoSubscriber].into();
        assert_eq!((view.word(), view.is_ready()), (ServiceWord::Degraded, true));
    }

    #[test]
    fn films_are_not_taken_without_folder_model_or_room_or_while_stopping() {
        for trouble in [Trouble::FolderMissing, Trouble::ModelUnavailable, Trouble::DiskFull] {
            assert!(!StatusView { troubles: [trouble].into(), ..quiet() }.is_ready(), "{trouble:?}");
        }
        assert!(!StatusView { stopping: true, ..quiet() }.is_ready());
        for folder in [FolderWord::Starting, FolderWord::Missing] {
            assert!(!StatusView { folder, ..quiet() }.is_ready(), "{folder:?}");
        }
    }

    #[test]
    fn a_stage_over_its_budget_is_not_healthy_and_degrades() {
        let mut view = quiet();
        for (busy_s, healthy) in [(None, true), (Some(60), true), (Some(61), false)] {
            view.stages[0].busy_for = busy_s.map(Duration::from_secs);
            assert_eq!(view.is_healthy(), healthy, "{busy_s:?}");
            let word = if healthy { ServiceWord::Online } else { ServiceWord::Degraded };
            assert_eq!(view.word(), word, "{busy_s:?}");
        }
    }

    #[test]
    fn the_worst_trouble_comes_first() {
        let troubles: BTreeSet<_> = [Trouble::NoSubscriber, Trouble::DiskFull, Trouble::BrokerAway].into();
        assert_eq!(troubles.first(), Some(&Trouble::DiskFull));
    }
}
