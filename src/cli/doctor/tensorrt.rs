//! TensorRT for `doctor --gpu`: on the daemon's own engine, or on one that is built for the moment.

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Settings;
use crate::inference::Localizer;
use crate::inference::tensorrt::{
    BuildLimits, EngineCache, Key, Note, TensorRt, TensorRtError, build_in_child, watched,
};
use crate::model::{Bundle, OWN_PROGRAM};

/// Where no configuration says how long the GPU may take to answer.
const PATIENCE: Duration = Duration::from_secs(300);
/// Where no configuration says what the building of an engine may take.
const LIMITS: BuildLimits = BuildLimits { wall: Duration::from_secs(1800), memory_mib: 6144, leave_mib: 256 };

/// TensorRT ready to run a bundle's network on this machine.
pub(super) struct Ready {
    /// "TensorRT 10.3.0".
    pub(super) version: String,
    /// How long its engine took to build, in seconds.
    pub(super) build_s: f64,
    /// Why the engine is not the one that the daemon keeps, where it is not.
    pub(super) not_kept: Option<String>,
    /// How long one answer of the GPU may take.
    pub(super) patience: Duration,
    /// The network on it, in the bundle's order of landmarks.
    pub(super) localizer: Localizer,
}

/// Opens TensorRT with the daemon's engine for the bundle in `directory`; where there is none that can be used, one is
/// built and thrown away.
///
/// # Errors
/// In words, why the network does not run on it; they follow "because".
pub(super) fn ready(bundle: &Bundle, directory: &Path, settings: Option<&Settings>) -> Result<Ready, String> {
    let patience = settings.map_or(PATIENCE, |settings| settings.inference.answer_timeout);
    let (bundle, directory, settings) = (bundle.clone(), directory.to_owned(), settings.cloned());
    let found = watched(patience, move |progress| {
        let tensorrt = TensorRt::open()?;
        let key = tensorrt.key(bundle.network_sha256());
        let cache = settings.as_ref().map(|settings| EngineCache::below(&settings.state.directory));
        let (kept, not_kept) = match cache.map(|cache| cache.plan(&key)) {
            Some(Ok(Some(kept))) => (Some(kept), None),
            Some(Ok(None)) => (None, Some("the daemon has none yet".to_owned())),
            Some(Err(why @ TensorRtError::Foreign { .. })) => {
                (None, Some(format!("{why}; run this as the daemon's own user: sudo -u landmarkd")))
            }
            Some(Err(why)) => (None, Some(why.to_string())),
            None => (None, Some("no configuration says where the daemon keeps its own".to_owned())),
        };
        let (plan, note) = match kept {
            Some(kept) => kept,
            None => {
                progress.leaves_alone("the building of its engine");
                built(&directory, &key, settings.as_ref())?
            }
        };
        progress.begins("the loading of its engine");
        let names = bundle.manifest().landmarks.clone();
        let detector = tensorrt.detector(&plan, bundle.manifest().network.frame, names.len())?;
        let localizer = Localizer::with_detector(Box::new(detector), names);
        Ok(Ready { version: tensorrt.version(), build_s: note.build_s, not_kept, patience, localizer })
    });
    found.map_err(|error| error.to_string())
}

/// An engine in a folder of its own, which is gone when this returns.
fn built(directory: &Path, key: &Key, settings: Option<&Settings>) -> Result<(Vec<u8>, Note), TensorRtError> {
    let failed = |reason: String| TensorRtError::Build { reason };
    let folder = Folder::make().map_err(|error| failed(format!("there is no folder to build it in: {error}")))?;
    let limits = settings.map_or(LIMITS, |settings| BuildLimits {
        wall: settings.inference.build_timeout,
        memory_mib: settings.inference.build_memory_mib,
        ..LIMITS
    });
    // Nobody minds if it cannot be said.
    let _ = writeln!(io::stderr(), "no engine of the daemon's can be used: one is built, which takes minutes");
    build_in_child(Path::new(OWN_PROGRAM), directory, &folder.0, key, &limits, &|| false)?;
    EngineCache::below(&folder.0).plan(key)?.ok_or_else(|| failed("the engine that was built is gone".to_owned()))
}

struct Folder(PathBuf);

impl Folder {
    fn make() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("landmarkd-doctor-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
