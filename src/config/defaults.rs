//! Every default of the configuration, in one place.

use super::file::{
    AcquisitionSection, After, Backend, DaemonSection, HealthSection, InferenceSection, LogFormatName, LogSection,
    MeasuresSection, MountRule, MqttSection, ResultSection, StateSection,
};
use crate::measure::ISBI2015;

/// Where the configuration is looked for when the command line does not say.
pub const CONFIG_FILE: &str = "/etc/landmarkd/landmarkd.toml";

/// Where systemd puts the credentials of our unit, for commands that run outside it (R39).
pub(super) const CREDENTIALS_DIRECTORY: &str = "/run/credentials/landmarkd.service";

/// The registered port of MQTT over TLS.
pub(super) const MQTT_TLS_PORT: u16 = 8883;

/// The registered port of MQTT over plain TCP.
pub(super) const MQTT_PORT: u16 = 1883;

impl Default for AcquisitionSection {
    fn default() -> Self {
        Self {
            folder: None,
            mount: MountRule::Remembered,
            recursive: true,
            rescan_s: 30,
            settle_ms: None,
            max_settle_s: 600,
            done_marker: None,
            after: After::Keep,
            after_folder: None,
            max_file_mib: 256,
            max_megapixels: 100,
            max_attempts: 3,
            remember_days: 90,
            pixel_spacing_mm: None,
        }
    }
}

impl Default for StateSection {
    fn default() -> Self {
        Self {
            directory: "/var/lib/landmarkd".into(),
            warn_free_mib: 1024,
            stop_free_mib: 128,
            ballast_mib: 16,
            archive_days: 30,
            archive_mib: 256,
        }
    }
}

impl Default for InferenceSection {
    fn default() -> Self {
        Self {
            backend: Backend::Auto,
            build_timeout_s: 1800,
            build_memory_mib: 6144,
            answer_timeout_s: 300,
            retry_s: 3600,
        }
    }
}

impl Default for MqttSection {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: None,
            client_id: None,
            username: None,
            password_file: None,
            tls: false,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            allow_plaintext: false,
            keep_alive_s: 30,
            ack_timeout_s: 30,
            max_backoff_s: 60,
            max_packet_kib: 128,
            commands: false,
        }
    }
}

impl Default for ResultSection {
    fn default() -> Self {
        Self { require_subscriber: true, fresh_s: 300, token_key_file: None }
    }
}

impl Default for MeasuresSection {
    fn default() -> Self {
        let norms = ISBI2015.to_owned();
        Self { norms, sna: None, snb: None, anb: None, odi: None, apdi: None, fhi: None, fha: None, mw: None }
    }
}

impl Default for DaemonSection {
    fn default() -> Self {
        Self { drain_s: 20, budget_s: 60, canary_s: 3600, throttled_pause_s: 10 }
    }
}

impl Default for HealthSection {
    fn default() -> Self {
        let listen = "127.0.0.1:9464".to_owned();
        Self { listen, host_name: None, allow_remote: false, overlays: 20, overlays_mib: 24 }
    }
}

impl Default for LogSection {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormatName::Text }
    }
}
