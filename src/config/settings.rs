//! The validated settings: what every other room reads, free of file formats.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::file::{Backend, MountRule};
use crate::geometry::PixelSpacing;
use crate::measure::Norms;

/// Everything the daemon was told, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Who we are on the wire.
    pub site: SiteSettings,
    /// Where films come from.
    pub acquisition: AcquisitionSettings,
    /// Where the daemon keeps what must survive.
    pub state: StateSettings,
    /// Which bundle serves.
    pub model: ModelSettings,
    /// What computes.
    pub inference: InferenceSettings,
    /// The broker.
    pub mqtt: MqttSettings,
    /// What is published and how.
    pub result: ResultSettings,
    /// What clinical measures are classed by.
    pub measures: Norms,
    /// Starting and stopping.
    pub daemon: DaemonSettings,
    /// What is shown over HTTP.
    pub health: HealthSettings,
    /// The journal.
    pub log: LogSettings,
}

impl Settings {
    /// The SHA-256, in hexadecimal, of the settings that change a result; part of every event's id (R27).
    ///
    /// Those are: `acquisition.pixel_spacing_mm`, which adds millimetres to films that state no scale, and `measures`, which
    /// classes values. Neither the broker, nor limits, nor the journal count: they change whether or when a result comes,
    /// not what it says.
    ///
    /// Only what differs from the default is hashed, one `key=value` line each after a line with the format's name,
    /// so that a version with more such settings gives the same ids to sites that do not use them.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        hash.update("landmarkd-config-1\n");
        if let Some(PixelSpacing { x_mm, y_mm, source: _ }) = self.acquisition.pixel_spacing {
            hash.update(format!("acquisition.pixel_spacing_mm={x_mm},{y_mm}\n"));
        }
        if self.measures != Norms::default() {
            hash.update(format!("measures.norms={}\n", self.measures.source()));
            for (measure, [low, high]) in self.measures.ranges() {
                hash.update(format!("measures.{measure}={low},{high}\n"));
            }
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Who we are on the wire: the topics are `xr/v1/<site>/<device>/..`.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteSettings {
    /// One MQTT topic level: no `/`, `+`, `#` or control character.
    pub site: String,
    /// One MQTT topic level.
    pub device: String,
}

/// The acquisition folder and the gates a file passes before it is read (R1-R16).
#[derive(Clone, Debug, PartialEq)]
pub struct AcquisitionSettings {
    /// Absolute path of the watched folder; it may be missing at start (R16).
    pub folder: PathBuf,
    /// When an existing folder counts as missing because nothing is mounted on it (R16).
    pub mount: MountRule,
    /// Whether its sub-folders are watched too.
    pub recursive: bool,
    /// How often the whole folder is listed, whatever inotify says (R1).
    pub rescan: Duration,
    /// How long size and mtime must stay unchanged; `None` chooses by file system (R4b): 2 s local, 5 s network.
    pub settle: Option<Duration>,
    /// After this long without becoming complete a file is refused (R4c).
    pub max_settle: Duration,
    /// A film `X` counts only when `X<suffix>` exists too (R4d).
    pub done_marker: Option<String>,
    /// What happens to a film once its result is durable (R13).
    pub after: AfterPublish,
    /// Larger files are refused unread (R12).
    pub max_file_bytes: u64,
    /// Images of more pixels are refused before their pixels are decoded (R12).
    pub max_pixels: u64,
    /// Tries before a film is quarantined (R10).
    pub max_attempts: u32,
    /// For how long a film's identity is remembered (R7).
    pub remember: Duration,
    /// The scale of films whose file states none (R32: `config`).
    pub pixel_spacing: Option<PixelSpacing>,
}

/// What happens to a film once its result is durable.
#[derive(Clone, Debug, PartialEq)]
pub enum AfterPublish {
    /// Nothing: the source is read-only for us.
    Keep,
    /// It is moved into this folder.
    Move(PathBuf),
    /// It is deleted.
    Delete,
}

/// Where the daemon keeps what must survive.
#[derive(Clone, Debug, PartialEq)]
pub struct StateSettings {
    /// Absolute path; ledger, outbox and quarantine live below it.
    pub directory: PathBuf,
    /// Free space below which the device is degraded (R41).
    pub warn_free_bytes: u64,
    /// Free space below which no film is taken.
    pub stop_free_bytes: u64,
    /// Room that is held and given up when the disk is full.
    pub ballast_bytes: u64,
    /// For how long delivered events are kept.
    pub archive_age: Duration,
    /// How many bytes of them; beyond it the oldest go, however young.
    pub archive_bytes: u64,
}

/// Which bundle serves.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSettings {
    /// A fixed bundle, whatever is installed; absent: the active one of the store below the state directory.
    pub directory: Option<PathBuf>,
    /// The bundle that serves where neither is.
    pub packaged: PathBuf,
}

/// What computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InferenceSettings {
    /// Processor or GPU.
    pub backend: Backend,
    /// How long the building of an engine may take.
    pub build_timeout: Duration,
    /// How much memory its process may take.
    pub build_memory_mib: u64,
    /// How long the GPU may take to load an engine and compute the golden film.
    pub answer_timeout: Duration,
    /// After how long a GPU that failed is tried again.
    pub retry: Duration,
}

/// The broker and how to reach it.
#[derive(Clone, Debug, PartialEq)]
pub struct MqttSettings {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Unique on the broker.
    pub client_id: String,
    /// Absent: plain TCP, for loopback only unless `allow_plaintext`.
    pub tls: Option<TlsSettings>,
    /// Plain TCP towards a host that is not loopback.
    pub allow_plaintext: bool,
    /// Absent: anonymous.
    pub credentials: Option<CredentialSettings>,
    /// MQTT keep-alive (R24).
    pub keep_alive: Duration,
    /// Without a PUBACK for this long the connection is rebuilt (R24).
    pub ack_timeout: Duration,
    /// Longest pause between attempts to connect (R25).
    pub max_backoff: Duration,
    /// Our own limit on a packet; the broker's may be lower (R22).
    pub max_packet_bytes: u32,
    /// Whether the command topics are subscribed to.
    pub commands: bool,
}

/// TLS towards the broker.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsSettings {
    /// PEM file of the authorities that may sign the broker's certificate; absent: the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM files of our certificate chain and its key, for mutual TLS.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A user name and where its password lies (R39: never in the environment or an argument).
#[derive(Clone, Debug, PartialEq)]
pub struct CredentialSettings {
    /// The user's name.
    pub username: String,
    /// A file of mode 0600, or a credential of the service manager.
    pub password_file: PathBuf,
}

/// What is published and how.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultSettings {
    /// Hold a result that the broker accepted but no subscriber took (R19).
    pub require_subscriber: bool,
    /// A result published later than this after acquisition is marked historical (R29).
    pub fresh: Duration,
    /// A file holding the site's key for tokens of DICOM UIDs (R31); absent: a key made at first start.
    pub token_key_file: Option<PathBuf>,
}

/// Starting and stopping.
#[derive(Clone, Debug, PartialEq)]
pub struct DaemonSettings {
    /// How long a stop may wait for work in hand and unacknowledged results.
    pub drain: Duration,
    /// How long one piece of work, a film or an answer of the disk, may take before the watchdog gives up (R35).
    pub budget: Duration,
    /// How often the golden film is tried on the live path while it is idle; absent: never.
    pub canary: Option<Duration>,
    /// How long the worker pauses before each film of the backlog while the machine throttles; zero: not at all.
    pub throttled_pause: Duration,
}

/// What is shown over HTTP (R45).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// Where; absent: nowhere.
    pub listen: Option<SocketAddr>,
    /// A name besides localhost and the address under which browsers reach it.
    pub host_name: Option<String>,
    /// Pictures of the last films that are kept.
    pub overlays: usize,
    /// Their memory.
    pub overlays_bytes: usize,
}

/// The journal.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSettings {
    /// An `EnvFilter` directive ("info", "landmarkd=debug").
    pub filter: String,
    /// One line of text or one JSON object an event.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people and journald.
    Text,
    /// For log collectors.
    Json,
}
