//! The one call of `run` and `check-config`: read, merge, validate.

use std::path::{Path, PathBuf};

use super::defaults::CREDENTIALS_DIRECTORY;
use super::error::ConfigErrors;
use super::layers::Merged;
use super::settings::Settings;
use super::validate::validate;

/// The bundle that serves when none is named.
pub const MODEL_NAME: &str = "ceph19-nfdp";

/// A configuration that may be run, and where its values come from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What every room reads.
    pub settings: Settings,
    /// For `check-config --print`.
    pub merged: Merged,
}

/// What validation must know of the machine.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// `$CREDENTIALS_DIRECTORY`: where the service manager puts the files that are named without a path.
    pub credentials: PathBuf,
    /// The bundle that serves when none is named.
    pub default_model: PathBuf,
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
        Self {
            credentials: credentials.map_or_else(|| CREDENTIALS_DIRECTORY.into(), PathBuf::from),
            default_model: default_model_directory(),
        }
    }
}

/// Reads `file`, its `conf.d` and this process's environment.
///
/// # Errors
/// Everything that is wrong, with its place.
pub fn load(file: &Path) -> Result<Loaded, ConfigErrors> {
    let merged = Merged::read(file, std::env::vars_os())?;
    let settings = validate(&merged, &Surroundings::of_process())?;
    Ok(Loaded { settings, merged })
}

/// The directory of the default bundle: the first of these that exists, else the first.
///
/// 1. `models/ceph19-nfdp` in the working directory (a source checkout),
/// 2. `models/ceph19-nfdp` beside the program (an unpacked archive),
/// 3. `/usr/share/landmarkd/models/ceph19-nfdp` (a package).
#[must_use]
pub fn default_model_directory() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|program| program.parent().map(Path::to_path_buf));
    let roots = [Some(PathBuf::new()), beside, Some("/usr/share/landmarkd".into())];
    let candidates: Vec<_> = roots.iter().flatten().map(|root| root.join("models").join(MODEL_NAME)).collect();
    candidates.iter().find(|directory| directory.is_dir()).unwrap_or(&candidates[0]).clone()
}
