//! Which bundle the daemon serves with: the active one, or the one before it where the active one is to blame.

use std::path::PathBuf;

use super::bundle::Bundle;
use super::error::RegistryError;
use super::identity::BundleId;
use super::registry::{Registry, SelfTest};
use super::runs::{End, Policy, Runs, judge};
use super::selection::{Moment, Previous, Selection};
use super::self_test::SelfTestError;
use crate::crash_point;

/// The bundle to serve with.
#[derive(Debug)]
pub struct Serving {
    /// Which.
    pub id: BundleId,
    /// Where it lies.
    pub directory: PathBuf,
    /// Opened, its digests checked.
    pub bundle: Bundle,
    /// What was taken out of service for it, now or before; the daemon says so until somebody chooses a bundle by name.
    pub rolled_back: Option<RolledBack>,
}

/// A bundle that was taken out of service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// Which.
    pub bundle: BundleId,
    /// Completes "because ..".
    pub fault: String,
}

impl Selection {
    fn out_of_service(&self) -> Option<RolledBack> {
        let Previous { bundle, fault } = self.previous.clone()?;
        Some(RolledBack { bundle, fault: fault? })
    }
}

impl Registry {
    /// The bundle to serve with from `now` on, after noting that a run begins; `None` where none was ever activated.
    ///
    /// The active bundle is given up for the previous one (R43) when `policy` says that it brought the daemon down, or
    /// when it cannot be opened or fails `self_test`, which is only asked while nothing speaks for the bundle: after a
    /// switch, and after a run that did not end well. To be called while no other daemon uses the state, at every
    /// start; each run ends with [`ended`](Self::ended), or counts as unclean.
    ///
    /// What cannot be written (a full disk) is told and does not keep the daemon from serving.
    ///
    /// # Errors
    /// When neither the active bundle nor the one before it can serve, or it cannot be told which they are.
    pub fn serve(
        &self,
        now: &Moment,
        policy: Policy,
        self_test: &SelfTest<'_>,
    ) -> Result<Option<Serving>, RegistryError> {
        if !self.layout.exists() {
            return Ok(None);
        }
        let _lock = self.layout.lock()?;
        let Some(mut selection) = self.selection()? else { return Ok(None) };
        let mut runs = self.layout.runs();
        let mut rolled_back = selection.out_of_service();
        if let Some(RolledBack { bundle, fault }) = &rolled_back {
            tracing::warn!("{bundle} is out of service until it is activated by name: {fault}");
        }
        if let Some(fault) = judge(&selection, &runs, now, policy) {
            match selection.roll_back(Some(fault.to_string()), now.clone()) {
                Ok(after) => rolled_back = Some(self.switch(&mut selection, after, fault.to_string())),
                Err(no_way) => tracing::warn!("serving with {} although {fault}: {no_way}", selection.active),
            }
        }
        loop {
            let in_doubt = runs.leave_doubt(selection.generation);
            // Before anything looks inside the bundle: should that kill us, it counts.
            runs.begin(selection.generation, now.clone());
            self.note(&runs);
            crash_point::reach("model.serving");
            let id = selection.active.clone();
            let reason = match self.try_out(&id, in_doubt, self_test) {
                Ok(bundle) => {
                    let directory = self.directory(&id);
                    return Ok(Some(Serving { id, directory, bundle, rolled_back }));
                }
                Err(error) => error.to_string(),
            };
            runs.end(End::SelfTestFailed { reason: reason.clone() });
            self.note(&runs);
            match selection.roll_back(Some(reason.clone()), now.clone()) {
                // It has a fault noted now, so the way leads back once at most.
                Ok(after) => rolled_back = Some(self.switch(&mut selection, after, reason)),
                Err(no_way) => {
                    let source = Box::new(no_way);
                    return Err(RegistryError::NothingServes { id, reason, source });
                }
            }
        }
    }

    fn try_out(&self, id: &BundleId, in_doubt: bool, self_test: &SelfTest<'_>) -> Result<Bundle, RegistryError> {
        let bundle = self.open(id)?;
        if in_doubt {
            match self_test(&self.directory(id)) {
                Ok(passed) => tracing::info!("{id}: self-test within {:.3} px on {}", passed.off_px, passed.backend),
                // No word against the bundle; it is tried in process too, before the first film.
                Err(error @ SelfTestError::NotRun(_)) => tracing::warn!("{id}: {error}"),
                Err(source) => return Err(RegistryError::SelfTest { id: id.clone(), source }),
            }
        }
        Ok(bundle)
    }

    fn switch(&self, selection: &mut Selection, after: Selection, fault: String) -> RolledBack {
        tracing::error!("{} is taken out of service, and {} serves again: {fault}", selection.active, after.active);
        if let Err(error) = self.layout.write_selection(&after) {
            tracing::warn!("the next start will decide that anew: {error}");
        }
        let before = std::mem::replace(selection, after);
        RolledBack { bundle: before.active, fault }
    }

    fn note(&self, runs: &Runs) {
        if let Err(error) = self.layout.write_runs(runs) {
            tracing::warn!("an unclean end of this run would not be noticed: {error}");
        }
    }
}
