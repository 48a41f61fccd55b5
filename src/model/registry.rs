//! The installed bundles below the state directory, and which of them serves.
//!
//! ```text
//! <state>/models/
//!   <name>/<version>/    a bundle, with .receipt.json: who signed it, how its self-test went
//!   .selection.json      the active and the previous bundle, in one file so that both change in one rename
//!   .runs.json           how the daemon's last runs ended
//!   .new, .old-*         a bundle that is being made or taken away; never read, removed by the next command
//! ```
//!
//! What holds at every moment, whatever is killed:
//! 1. What lies under `<name>/<version>` is whole: it comes and goes by one rename.
//! 2. The selection names bundles that were whole, verified and tested on this machine when they were chosen.
//! 3. The active and the previous bundle are never collected.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::archive::Archive;
use super::bundle::Bundle;
use super::error::RegistryError;
use super::identity::BundleId;
use super::layout::Layout;
use super::runs::{End, Runs};
use super::selection::{Moment, Selection};
use super::self_test::{Passed, SelfTestError};

/// Tries a bundle's network on its golden film, on this machine; see [`in_child`](super::in_child).
pub type SelfTest<'a> = dyn Fn(&Path) -> Result<Passed, SelfTestError> + 'a;

/// The store of installed bundles.
#[derive(Clone, Debug)]
pub struct Registry {
    pub(super) layout: Layout,
}

/// A bundle in the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Installed {
    /// Which.
    pub id: BundleId,
    /// Where it lies.
    pub directory: PathBuf,
    /// What was noted when it was installed; `None` where that cannot be read any more.
    pub receipt: Option<Receipt>,
}

/// What is noted when a bundle is installed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// SHA-256 of the archive.
    pub archive_sha256: String,
    /// The name of the key that vouched for it.
    pub signed_by: String,
    /// When, in seconds since 1970 by the machine's clock.
    pub installed_unix_s: u64,
    /// How its self-test went.
    pub self_test: Passed,
}

/// What an activation came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Activation {
    /// What serves from the next start on.
    pub selection: Selection,
    /// The bundles that were removed.
    pub removed: Vec<BundleId>,
}

impl Registry {
    /// The store below a state directory; nothing is made or read yet.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self { layout: Layout::below(state) }
    }

    /// Where a bundle lies, installed or not.
    #[must_use]
    pub fn directory(&self, id: &BundleId) -> PathBuf {
        self.layout.directory(id)
    }

    /// Every installed bundle, by name and version.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub fn installed(&self) -> Result<Vec<Installed>, RegistryError> {
        Ok(self.layout.bundles()?.into_iter().map(|id| self.look_up(id)).collect())
    }

    /// Which bundle serves and which did before; `None` before the first is activated.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn selection(&self) -> Result<Option<Selection>, RegistryError> {
        self.layout.selection()
    }

    /// Installs a bundle, which does not serve yet; whether it was there already.
    ///
    /// It is unpacked beside the others, tested, and takes its place in one rename. The same archive again mends a
    /// bundle that broke on the disk.
    ///
    /// # Errors
    /// When anything about it is wrong; the store is then as it was.
    pub fn install(
        &self,
        archive: &Archive,
        allow_older: bool,
        self_test: &SelfTest<'_>,
    ) -> Result<(Installed, bool), RegistryError> {
        let _work = self.layout.work()?;
        let id = &archive.claim().id;
        // A selection that cannot be read says nothing about ages, and installing changes none.
        if let Ok(Some(Selection { active, .. })) = self.selection()
            && id.is_older_than(&active)
            && !allow_older
        {
            return Err(RegistryError::Older { id: id.clone(), active });
        }
        let present = self.look_up(id.clone());
        if let Some(receipt) = &present.receipt {
            if receipt.archive_sha256 != archive.sha256() {
                return Err(RegistryError::Taken(id.clone()));
            }
            if Bundle::open(&present.directory).is_ok() {
                return Ok((present, true));
            }
        }
        let staging = self.layout.stage()?;
        archive.unpack(&staging.path)?;
        let tested = self_test(&staging.path);
        let self_test = tested.map_err(|source| RegistryError::SelfTest { id: id.clone(), source })?;
        staging.write_receipt(&Receipt {
            archive_sha256: archive.sha256(),
            signed_by: archive.claim().signed_by.clone(),
            installed_unix_s: Moment::now().unix_s,
            self_test,
        })?;
        self.layout.place(&staging, id)?;
        Ok((self.look_up(id.clone()), false))
    }

    /// Lets an installed bundle serve from the daemon's next start on, after it was tested again; what served becomes
    /// the previous one, and all others are removed.
    ///
    /// # Errors
    /// When it is not there, broken or fails its test; what serves is then unchanged.
    pub fn activate(&self, id: &BundleId, self_test: &SelfTest<'_>) -> Result<Activation, RegistryError> {
        let _work = self.layout.work()?;
        let directory = self.directory(id);
        if !directory.is_dir() {
            return Err(RegistryError::NotInstalled { id: id.clone(), installed: self.layout.bundles()? });
        }
        self.open(id)?;
        self_test(&directory).map_err(|source| RegistryError::SelfTest { id: id.clone(), source })?;
        let _lock = self.layout.lock()?;
        let before = match self.selection() {
            Ok(before) => before,
            Err(RegistryError::Damaged { .. }) => {
                // The count of switches begins anew: the runs under the old ones must not be taken for later ones'.
                self.layout.write_runs(&Runs::default())?;
                None
            }
            Err(error) => return Err(error),
        };
        let selection = Selection::activate(before.as_ref(), id.clone(), Moment::now());
        if before.as_ref() != Some(&selection) {
            self.layout.write_selection(&selection)?;
        }
        let removed = self.collect(&selection)?;
        Ok(Activation { selection, removed })
    }

    /// Lets the bundle that served before serve again from the daemon's next start on; what serves becomes the
    /// previous one.
    ///
    /// # Errors
    /// When there is none, it was taken out of service itself, or is broken.
    pub fn roll_back(&self) -> Result<Selection, RegistryError> {
        let _work = self.layout.work()?;
        let _lock = self.layout.lock()?;
        let selection = self.selection()?.ok_or(RegistryError::NothingActive)?.roll_back(None, Moment::now())?;
        self.open(&selection.active)?;
        self.layout.write_selection(&selection)?;
        Ok(selection)
    }

    /// Removes every bundle but the active and the previous one, and what killed commands left; which it removed.
    ///
    /// # Errors
    /// When nothing is active, or something cannot be removed.
    pub fn collect_garbage(&self) -> Result<Vec<BundleId>, RegistryError> {
        let _work = self.layout.work()?;
        let _lock = self.layout.lock()?;
        let selection = self.selection()?.ok_or(RegistryError::NothingActive)?;
        self.collect(&selection)
    }

    /// Notes how the daemon's present run ends; see [`serve`](Self::serve).
    ///
    /// # Errors
    /// When it cannot be written; the run then counts as unclean.
    pub fn ended(&self, end: End) -> Result<(), RegistryError> {
        if !self.layout.exists() {
            return Ok(());
        }
        let _lock = self.layout.lock()?;
        let mut runs = self.layout.runs();
        runs.end(end);
        self.layout.write_runs(&runs)
    }

    /// An installed bundle, if it is still what it was, under the name it has.
    pub(super) fn open(&self, id: &BundleId) -> Result<Bundle, RegistryError> {
        let broken = |reason: String| RegistryError::Broken { id: id.clone(), reason };
        let bundle = Bundle::open(&self.directory(id)).map_err(|e| broken(e.to_string()))?;
        match BundleId::of(bundle.manifest()) {
            Ok(found) if found == *id => Ok(bundle),
            Ok(found) => Err(broken(format!("it is {found}"))),
            Err(e) => Err(broken(e.to_string())),
        }
    }

    fn look_up(&self, id: BundleId) -> Installed {
        Installed { directory: self.directory(&id), receipt: self.layout.receipt(&id), id }
    }

    fn collect(&self, selection: &Selection) -> Result<Vec<BundleId>, RegistryError> {
        let mut removed = self.layout.bundles()?;
        removed.retain(|id| !selection.keeps(id));
        removed.iter().try_for_each(|id| self.layout.remove(id))?;
        self.layout.sweep()?;
        Ok(removed)
    }
}
