//! The retained documents: how the device is, and what it is.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ModelInfo;

/// How the device is (R26): retained on the `status` topic, published again at every connection, and the last will.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// The one word.
    pub state: ServiceState,
    /// Why it is not `online`, in a fixed order.
    pub reasons: BTreeSet<Reason>,
    /// Which run of the daemon speaks: `<epoch>-<number of the start>`.
    pub boot_id: String,
    /// The how-manieth connection of this run speaks; the last will carries the same number, so a late will of an
    /// older connection can be told from the present state.
    pub session: u64,
    /// When this was said, RFC 3339; of a last will, when the connection was made.
    pub time: String,
    /// The daemon's version.
    pub version: String,
    /// SHA-256 of the serving network, hexadecimal; absent until a model serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_sha256: Option<String>,
    /// What computes ("tract-cpu"); absent until a model serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// What is with the GPU that computes faster than the processor, where there is one to speak of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<Accelerator>,
    /// Events that wait for the broker.
    pub queue_length: u64,
    /// The watched folder.
    pub folder: FolderState,
    /// When the last film was finished, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_film: Option<String>,
    /// Why the machine slows itself down; absent while it does not.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub throttled_by: BTreeSet<ThrottleCause>,
    /// The machine's power mode, which limits its clocks ("15W", "MAXN"); absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_mode: Option<String>,
}

/// What is with the GPU; the processor computes unless it is `serving`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Accelerator {
    /// The one word.
    pub state: AcceleratorState,
    /// Why, in words: of the library, the driver or the daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// While it serves: how far its landmarks of the bundle's golden film lie from the processor's at most, in pixels of
    /// that film (R44).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_px: Option<f64>,
    /// The same, the median.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub median_px: Option<f64>,
}

impl Accelerator {
    /// One that does not serve, for this reason, or of which nothing was measured.
    #[must_use]
    pub const fn new(state: AcceleratorState, reason: Option<String>) -> Self {
        Self { state, reason, max_px: None, median_px: None }
    }
}

/// What is with the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AcceleratorState {
    /// There is none that can be used: no driver, no TensorRT, or another version of it.
    Absent,
    /// Its engine is being loaded, built or compared.
    Preparing,
    /// It computes.
    Serving,
    /// It is there, and was given up.
    Failed,
    /// It is left alone while the daemon is in safe mode, and not looked for (R36).
    Withheld,
}

/// The state in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// Films are read and results delivered.
    Online,
    /// The daemon works, but `reasons` keep films or results waiting.
    Degraded,
    /// A stop was asked for; what is in hand is being finished.
    Stopping,
    /// The daemon has stopped or cannot be reached.
    Offline,
}

/// Why a device is degraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The watched folder is away (R16).
    FolderMissing,
    /// The file system of the state directory is nearly full (R41).
    DiskLow,
    /// It is full: no film is taken until there is room again (R41).
    DiskFull,
    /// No model serves.
    ModelUnavailable,
    /// The broker takes results but nobody is subscribed (R19).
    NoSubscriber,
    /// The broker refuses a topic (R18).
    Rejected,
    /// Another client uses the same client id: the two throw each other out (R25).
    ClientIdTaken,
    /// The configuration was read again and is wrong; the one before stays in force (R37).
    ConfigRejected,
    /// The daemon ended again and again: films it ended on are quarantined at once (R36).
    SafeMode,
    /// An installed model was taken out of service and the one before it serves, until somebody chooses (R43).
    ModelRolledBack,
    /// The network did not place the golden film's landmarks where they are: results may be wrong.
    CanaryFailed,
    /// The machine is too hot or draws too much and slows itself down; the backlog is read with pauses.
    Throttled,
    /// The GPU that was to compute was given up or is not there; the processor computes.
    AcceleratorFailed,
}

/// Why a machine slows itself down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ThrottleCause {
    /// The processor is too hot.
    CpuHeat,
    /// The GPU is too hot.
    GpuHeat,
    /// Another part of the chip is too hot.
    SocHeat,
    /// It draws more current than its supply or its power mode allows.
    OverCurrent,
}

impl ThrottleCause {
    /// Every member, in the order of declaration.
    pub const ALL: &'static [Self] = &[Self::CpuHeat, Self::GpuHeat, Self::SocHeat, Self::OverCurrent];

    /// The word for it in labels and documents.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::CpuHeat => "cpu_heat",
            Self::GpuHeat => "gpu_heat",
            Self::SocHeat => "soc_heat",
            Self::OverCurrent => "over_current",
        }
    }

    /// What is the matter, for a person.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::CpuHeat => "the processor is too hot",
            Self::GpuHeat => "the GPU is too hot",
            Self::SocHeat => "the chip is too hot",
            Self::OverCurrent => "it draws more than its supply or power mode allows",
        }
    }
}

/// What is known of the watched folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FolderState {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// Watched through inotify and rescanned.
    Watching,
    /// Scanned periodically: a network file system tells nothing (R3).
    Polling,
    /// Away.
    Missing,
}

/// What the daemon knows of itself; with a [`Session`] it becomes a [`Status`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition {
    /// What keeps films waiting; the publisher adds what keeps results waiting.
    pub reasons: BTreeSet<Reason>,
    /// The serving model.
    pub model: Option<ModelInfo>,
    /// What is with the GPU; absent where none is to be used.
    pub accelerator: Option<Accelerator>,
    /// The watched folder.
    pub folder: FolderState,
    /// When the last film was finished.
    pub last_film: Option<SystemTime>,
    /// Why the machine slows itself down.
    pub throttled_by: BTreeSet<ThrottleCause>,
    /// The machine's power mode.
    pub power_mode: Option<String>,
}

/// One connection to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Which run of the daemon.
    pub boot_id: String,
    /// Which connection of this run, from 1.
    pub number: u64,
}

impl Status {
    /// The status at `now`, with what the publisher adds: its own `reasons` and the length of the queue.
    ///
    /// The state is `online` without reasons and `degraded` with any; a stop overrides it with [`Status::with_state`].
    #[must_use]
    pub fn new(
        condition: &Condition,
        session: &Session,
        reasons: impl IntoIterator<Item = Reason>,
        queue_length: u64,
        now: SystemTime,
    ) -> Self {
        let reasons: BTreeSet<Reason> = condition.reasons.iter().copied().chain(reasons).collect();
        Self {
            state: if reasons.is_empty() { ServiceState::Online } else { ServiceState::Degraded },
            reasons,
            boot_id: session.boot_id.clone(),
            session: session.number,
            time: rfc3339(now),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model_sha256: condition.model.as_ref().map(|model| model.sha256.clone()),
            backend: condition.model.as_ref().map(|model| model.backend.clone()),
            accelerator: condition.accelerator.clone(),
            queue_length,
            folder: condition.folder,
            last_film: condition.last_film.map(rfc3339),
            throttled_by: condition.throttled_by.clone(),
            power_mode: condition.power_mode.clone(),
        }
    }

    /// The same with another word for it.
    #[must_use]
    pub fn with_state(self, state: ServiceState) -> Self {
        Self { state, ..self }
    }
}

/// What the device is: retained on the `info` topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Info {
    /// The daemon's version.
    pub version: String,
    /// The site, as in the topic.
    pub site: String,
    /// The device, as in the topic.
    pub device: String,
    /// The state directory's random id: sequence numbers count within it (R28).
    pub epoch: String,
    /// The serving model.
    pub model: ModelInfo,
    /// The names of the landmarks of a result, in order.
    pub landmarks: Vec<String>,
}

/// The last second of the year 9999, in seconds since 1970: RFC 3339 knows no later year.
const LAST_SECOND: u64 = 253_402_300_799;

/// UTC with milliseconds, RFC 3339; what lies before 1970 or after 9999 is told as the nearest time between.
///
/// A file's time may be anything: a camera without a clock, a time zone before the epoch, a broken share.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(LAST_SECOND);
    humantime::format_rfc3339_millis(time.clamp(SystemTime::UNIX_EPOCH, last)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session { boot_id: "0123-7".to_owned(), number: 3 }
    }

    #[test]
    fn a_reason_of_either_side_degrades() {
        let now = SystemTime::UNIX_EPOCH;
        let mut condition = Condition::default();
        assert_eq!(Status::new(&condition, &session(), [], 0, now).state, ServiceState::Online);
        assert_eq!(Status::new(&condition, &session(), [Reason::Rejected], 0, now).state, ServiceState::Degraded);
        condition.reasons.insert(Reason::FolderMissing);
        let status = Status::new(&condition, &session(), [Reason::NoSubscriber], 4, now);
        assert_eq!(status.state, ServiceState::Degraded);
        assert_eq!(status.reasons.into_iter().collect::<Vec<_>>(), [Reason::FolderMissing, Reason::NoSubscriber]);
    }

    #[test]
    fn a_time_that_cannot_be_written_is_told_as_the_nearest_that_can() {
        let epoch = SystemTime::UNIX_EPOCH;
        let years = |n: u64| Duration::from_secs(n * 31_556_952);
        for (time, expected) in [
            (epoch - Duration::from_millis(1), "1970-01-01T00:00:00.000Z"),
            (epoch - years(200), "1970-01-01T00:00:00.000Z"),
            (epoch + Duration::from_millis(1), "1970-01-01T00:00:00.001Z"),
            (epoch + Duration::from_secs(LAST_SECOND), "9999-12-31T23:59:59.000Z"),
            (epoch + Duration::from_secs(LAST_SECOND + 1), "9999-12-31T23:59:59.000Z"),
            (epoch + years(20_000), "9999-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(rfc3339(time), expected, "{time:?}");
        }
    }

    #[test]
    fn the_words_for_causes_are_those_on_the_wire() {
        for cause in ThrottleCause::ALL {
            assert_eq!(serde_json::to_value(cause).expect("a word"), cause.word());
        }
    }

    #[test]
    fn the_document_is_the_one_subscribers_were_told() {
        let mut condition = Condition {
            last_film: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_500)),
            folder: FolderState::Watching,
            ..Condition::default()
        };
        let status = Status::new(&condition, &session(), [Reason::NoSubscriber], 2, SystemTime::UNIX_EPOCH);
        let mut expected = serde_json::json!({
            "state": "degraded", "reasons": ["no_subscriber"], "boot_id": "0123-7", "session": 3,
            "time": "1970-01-01T00:00:00.000Z", "version": env!("CARGO_PKG_VERSION"), "queue_length": 2,
            "folder": "watching", "last_film": "1970-01-01T00:00:01.500Z",
        });
        assert_eq!(serde_json::to_value(status).expect("serializable"), expected);
        condition.throttled_by = [ThrottleCause::OverCurrent, ThrottleCause::CpuHeat].into();
        condition.power_mode = Some("15W".to_owned());
        let status = Status::new(&condition, &session(), [Reason::NoSubscriber], 2, SystemTime::UNIX_EPOCH);
        expected["throttled_by"] = serde_json::json!(["cpu_heat", "over_current"]);
        expected["power_mode"] = "15W".into();
        assert_eq!(serde_json::to_value(status).expect("serializable"), expected);
    }
}
