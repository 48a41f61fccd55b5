//! From a TOML file, its `conf.d` and the environment to validated settings.

mod settings;

pub use settings::{
    AcquisitionSettings, AfterPublish, CredentialSettings, DaemonSettings, LogFormat, LogSettings, ModelSettings,
    MqttSettings, ResultSettings, Settings, SiteSettings, StateSettings, TlsSettings,
};
