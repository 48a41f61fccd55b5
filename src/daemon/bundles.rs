//! Which bundle serves, and how its runs ended: what the store of bundles judges the active one by (R43).
//!
//! A directory in the configuration is the bundle, whatever is installed. Else the store's active bundle serves, or the
//! one before it where the active one is to blame; where nothing was ever activated, the packaged one.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::warn;

use super::start::DaemonError;
use crate::config::Settings;
use crate::model::{
    Bundle, BundleId, End, Limits, Moment, OWN_PROGRAM, Policy, Registry, RolledBack, Serving, in_child,
};

/// Two of these, for the active bundle and the one before it, fit into TimeoutStartSec= of the unit with the minute that
/// a dead network mount takes.
const CHILD_LIMITS: Limits = Limits { memory_mib: 2048, cpu_s: 50, wall: Duration::from_secs(50) };

/// The bundle to serve with.
pub(super) struct Chosen {
    pub(super) bundle: Bundle,
    /// Where it lies.
    pub(super) directory: PathBuf,
    /// Its name in the store, where it came from there: then another may take its place.
    pub(super) installed: Option<BundleId>,
    /// What was taken out of service for it.
    pub(super) rolled_back: Option<RolledBack>,
}

/// The daemon's side of the store; one for the whole run.
#[derive(Default)]
pub(super) struct Bundles {
    /// The store that has a run of ours on record whose end it does not know yet.
    under_way: Mutex<Option<Registry>>,
}

impl Bundles {
    /// Chooses the bundle, and has a run with it on record where it is the store's; the run so far ended well then.
    ///
    /// Blocking: it may wait for a self-test. The state must be open: its lock keeps other daemons from the store.
    ///
    /// # Errors
    /// [`DaemonError::Unfit`] for a directory that holds no sound bundle. [`DaemonError::Failed`] where the store has
    /// none to serve with: what is wrong with it can mend, and a person can choose another one meanwhile.
    pub(super) fn choose(&self, settings: &Settings) -> Result<Chosen, DaemonError> {
        if let Some(directory) = &settings.model.directory {
            return plain(directory);
        }
        let registry = Registry::new(&settings.state.directory);
        self.ended(End::Clean);
        let self_test = |directory: &Path| in_child(Path::new(OWN_PROGRAM), directory, &CHILD_LIMITS);
        let served = registry.serve(&Moment::now(), Policy::default(), &self_test);
        let Some(served) = served.map_err(|error| DaemonError::Failed(error.into()))? else {
            return plain(&settings.model.packaged);
        };
        let Serving { id, directory, bundle, rolled_back } = served;
        *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) = Some(registry);
        Ok(Chosen { bundle, directory, installed: Some(id), rolled_back })
    }

    /// Notes how the run that is under way ended, once; nothing happens where the bundle is not the store's.
    ///
    /// Blocking: a few small files, under a lock that commands hold for moments.
    pub(super) fn ended(&self, end: End) {
        let registry = self.under_way.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(error)) = registry.map(|registry| registry.ended(end)) {
            warn!("the model bundle's run is on record as one that died: {error}");
        }
    }
}

fn plain(directory: &Path) -> Result<Chosen, DaemonError> {
    let bundle = Bundle::open(directory).map_err(|error| DaemonError::Unfit(error.into()))?;
    Ok(Chosen { bundle, directory: directory.to_owned(), installed: None, rolled_back: None })
}
