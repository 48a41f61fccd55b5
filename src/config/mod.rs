//! From a TOML file, its `conf.d` and the environment to validated settings.
//!
//! Three types: [`ConfigFile`] mirrors what is written, [`Merged`] is the layers laid over each other with the
//! source of each value, [`Settings`] is what every other room reads.

mod defaults;
mod error;
mod file;
mod keys;
mod layers;
mod load;
mod norms;
mod settings;
mod unknown;
mod validate;

pub use defaults::CONFIG_FILE;
pub use error::{ConfigError, ConfigErrors, Origin, Suggestion};
pub use file::{Backend, ConfigFile, MountRule};
#[cfg(feature = "fuzzing")]
pub(crate) use layers::fuzz;
pub use layers::{ENVIRONMENT_PREFIX, Merged};
pub use load::{Loaded, MODEL_NAME, Surroundings, default_model_directory, load};
pub use settings::{
    AcquisitionSettings, AfterPublish, CredentialSettings, DaemonSettings, HealthSettings, InferenceSettings,
    LogFormat, LogSettings, ModelSettings, MqttSettings, ResultSettings, Settings, SiteSettings, StateSettings,
    TlsSettings,
};
pub use validate::validate;
