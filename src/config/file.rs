//! The file mirror: every key that may be written, as it is written.
//!
//! Nothing is checked here beyond types and names; [`super::validate`] turns the mirror into [`super::Settings`].
//! The defaults are in [`super::defaults`], what each key may hold is in [`super::keys`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The whole configuration, section by section.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigFile {
    /// Who we are on the wire.
    pub site: SiteSection,
    /// The watched folder.
    pub acquisition: AcquisitionSection,
    /// What must survive.
    pub state: StateSection,
    /// The model bundle.
    pub model: ModelSection,
    /// What computes.
    pub inference: InferenceSection,
    /// The broker.
    pub mqtt: MqttSection,
    /// What is published.
    pub result: ResultSection,
    /// What clinical measures are classed by.
    pub measures: MeasuresSection,
    /// Starting and stopping.
    pub daemon: DaemonSection,
    /// What is shown over HTTP.
    pub health: HealthSection,
    /// The journal.
    pub log: LogSection,
}

/// `[site]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SiteSection {
    /// Topic level of the site; required.
    pub name: Option<String>,
    /// Topic level of this device; required.
    pub device: Option<String>,
}

/// `[acquisition]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AcquisitionSection {
    /// The watched folder; required.
    pub folder: Option<PathBuf>,
    /// Whether something must be mounted on the folder (R16).
    pub mount: MountRule,
    /// Sub-folders too.
    pub recursive: bool,
    /// Between two listings of the whole folder (R1).
    pub rescan_s: u64,
    /// How long a file must rest (R4b).
    pub settle_ms: Option<u64>,
    /// When an incomplete file is given up (R4c).
    pub max_settle_s: u64,
    /// Suffix of the file that declares a film whole (R4d).
    pub done_marker: Option<String>,
    /// What happens to a film once its result is durable (R13).
    pub after: After,
    /// Where `after = "move"` puts it.
    pub after_folder: Option<PathBuf>,
    /// Largest file that is read (R12).
    pub max_file_mib: u64,
    /// Largest image that is decoded (R12).
    pub max_megapixels: u64,
    /// Tries before quarantine (R10).
    pub max_attempts: u32,
    /// How long a film's identity is remembered (R7).
    pub remember_days: u64,
    /// Scale on x and y of films whose file states none (R32).
    pub pixel_spacing_mm: Option<[f64; 2]>,
}

/// `acquisition.mount`: when an existing folder counts as missing because nothing is mounted on it (R16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountRule {
    /// When it was a share at the last look and is an ordinary folder of this machine now.
    Remembered,
    /// When it lies on the same file system as the folder above it.
    Required,
    /// Never.
    Ignored,
}

/// `acquisition.after`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum After {
    /// The folder is read-only for us.
    Keep,
    /// Into `after_folder`.
    Move,
    /// Gone.
    Delete,
}

/// `[state]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StateSection {
    /// Ledger, outbox and quarantine live below it.
    pub directory: PathBuf,
    /// Free space below which the device is degraded (R41).
    pub warn_free_mib: u64,
    /// And below which no film is taken.
    pub stop_free_mib: u64,
    /// Thrown off when the disk is full.
    pub ballast_mib: u64,
    /// How long delivered events are kept.
    pub archive_days: u64,
    /// And how many bytes of them.
    pub archive_mib: u64,
}

/// `[model]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSection {
    /// The bundle's directory.
    pub directory: Option<PathBuf>,
}

/// `[inference]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InferenceSection {
    /// Processor or GPU.
    pub backend: Backend,
    /// How long the building of an engine may take.
    pub build_timeout_s: u64,
    /// And how much memory.
    pub build_memory_mib: u64,
    /// How long the GPU may take to load an engine and compute the golden film.
    pub answer_timeout_s: u64,
    /// After how long a GPU that failed is tried again.
    pub retry_s: u64,
}

/// `inference.backend`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// TensorRT where it is there and right, the processor otherwise.
    Auto,
    /// The processor alone.
    Cpu,
    /// The same as `auto`, and without TensorRT the device is degraded.
    #[serde(rename = "tensorrt")]
    TensorRt,
}

/// `[mqtt]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttSection {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: Option<u16>,
    /// Unique on the broker.
    pub client_id: Option<String>,
    /// User name.
    pub username: Option<String>,
    /// Where the password lies (R39).
    pub password_file: Option<PathBuf>,
    /// TLS or plain TCP.
    pub tls: bool,
    /// Authorities that may sign the broker's certificate.
    pub ca_file: Option<PathBuf>,
    /// Our certificate chain.
    pub client_cert_file: Option<PathBuf>,
    /// Where our certificate's key lies (R39).
    pub client_key_file: Option<PathBuf>,
    /// Plain TCP towards a host that is not loopback.
    pub allow_plaintext: bool,
    /// MQTT keep-alive (R24).
    pub keep_alive_s: u64,
    /// Longest wait for a PUBACK (R24).
    pub ack_timeout_s: u64,
    /// Longest pause between attempts to connect (R25).
    pub max_backoff_s: u64,
    /// Our own limit on a packet (R22).
    pub max_packet_kib: u32,
    /// Whether the device can be asked for a replay and a sign of life.
    pub commands: bool,
}

/// `[result]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResultSection {
    /// Hold what no subscriber took (R19).
    pub require_subscriber: bool,
    /// When a result counts as historical (R29).
    pub fresh_s: u64,
    /// Where the site's key for tokens lies (R31, R39).
    pub token_key_file: Option<PathBuf>,
}

/// `[measures]`: the norms, and of a site's own from where to where a measure is normal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeasuresSection {
    /// Whose norms.
    pub norms: String,
    /// Degrees.
    pub sna: Option<[f64; 2]>,
    /// Degrees.
    pub snb: Option<[f64; 2]>,
    /// Degrees.
    pub anb: Option<[f64; 2]>,
    /// Degrees.
    pub odi: Option<[f64; 2]>,
    /// Degrees.
    pub apdi: Option<[f64; 2]>,
    /// A ratio.
    pub fhi: Option<[f64; 2]>,
    /// Degrees.
    pub fha: Option<[f64; 2]>,
    /// Millimetres.
    pub mw: Option<[f64; 2]>,
}

/// `[daemon]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DaemonSection {
    /// How long a stop may take.
    pub drain_s: u64,
    /// How long one piece of work may take (R35).
    pub budget_s: u64,
    /// Between two tries of the golden film; 0: none.
    pub canary_s: u64,
    /// Before each film of the backlog while the machine throttles; 0: none.
    pub throttled_pause_s: u64,
}

/// `[health]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthSection {
    /// Where the status page and the metrics are; empty: nowhere (R45).
    pub listen: String,
    /// A name besides localhost and the address.
    pub host_name: Option<String>,
    /// An address that is not loopback.
    pub allow_remote: bool,
    /// Pictures of the last films.
    pub overlays: usize,
    /// Their memory.
    pub overlays_mib: usize,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// An `EnvFilter` directive.
    pub filter: String,
    /// One line of text or one JSON object an event.
    pub format: LogFormatName,
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormatName {
    /// For people and journald.
    Text,
    /// For log collectors.
    Json,
}
