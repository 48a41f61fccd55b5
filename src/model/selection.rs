//! Which installed bundle serves and which served before: one small file, so that both change in one rename.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::identity::BundleId;

/// The format of the file this build reads and writes.
pub(super) const FORMAT: u32 = 1;

/// Which bundle serves, since when, and which to go back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    pub(super) format: u32,
    /// Counts the switches, so that a run of the daemon can say under which one it ran.
    pub generation: u64,
    /// What serves.
    pub active: BundleId,
    /// What served before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
    /// When the active one was chosen.
    pub since: Moment,
}

/// The bundle that served before the active one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Previous {
    /// Which.
    pub bundle: BundleId,
    /// Why it was taken out of service, if it was at fault: then nothing goes back to it by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// A moment that can be told from another one although the machine's clock may be wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// The kernel's id of the present boot.
    pub boot: String,
    /// Seconds since that boot, with those asleep.
    pub up_s: u64,
    /// Seconds since 1970 by the machine's clock.
    pub unix_s: u64,
}

/// Why there is nothing to go back to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoWayBack {
    /// Nothing served before.
    #[error("no other bundle has served before {0}: install and activate one")]
    NothingBefore(BundleId),
    /// What served before was itself taken out of service.
    #[error(
        "{bundle}, which served before, was taken out of service because {fault}: \
         if you want it nevertheless, activate it by name"
    )]
    AtFault {
        /// The previous bundle.
        bundle: BundleId,
        /// What it did.
        fault: String,
    },
}

impl Moment {
    /// This one.
    #[must_use]
    pub fn now() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let up_s = u64::try_from(rustix::system::sysinfo().uptime).unwrap_or_default();
        Self { boot: boot.trim().to_owned(), up_s, unix_s: unix.as_secs() }
    }

    /// Seconds from `earlier` to this one: within one boot by the kernel's count, else by the clock; a clock that was
    /// set back in between makes it 0.
    #[must_use]
    pub fn seconds_since(&self, earlier: &Self) -> u64 {
        if self.boot == earlier.boot {
            self.up_s.saturating_sub(earlier.up_s)
        } else {
            self.unix_s.saturating_sub(earlier.unix_s)
        }
    }
}

impl Selection {
    /// The selection after `bundle` is activated; what served becomes the previous one.
    ///
    /// The bundle that serves already goes on under the same count; one that was taken out of service for it is
    /// forgotten then, since somebody has seen to it.
    #[must_use]
    pub fn activate(before: Option<&Self>, bundle: BundleId, now: Moment) -> Self {
        match before {
            Some(before) if before.active == bundle => {
                let previous = before.previous.clone().filter(|previous| previous.fault.is_none());
                Self { previous, ..before.clone() }
            }
            Some(before) => {
                let previous = Some(Previous { bundle: before.active.clone(), fault: None });
                Self { format: FORMAT, generation: before.generation + 1, active: bundle, previous, since: now }
            }
            None => Self { format: FORMAT, generation: 1, active: bundle, previous: None, since: now },
        }
    }

    /// The selection after going back: the previous bundle serves, and what served becomes the previous one, with the
    /// fault that it is to be remembered by.
    ///
    /// # Errors
    /// When nothing served before, or what did was at fault itself.
    pub fn roll_back(&self, fault: Option<String>, now: Moment) -> Result<Self, NoWayBack> {
        match &self.previous {
            None => Err(NoWayBack::NothingBefore(self.active.clone())),
            Some(Previous { bundle, fault: Some(fault) }) => {
                Err(NoWayBack::AtFault { bundle: bundle.clone(), fault: fault.clone() })
            }
            Some(Previous { bundle, fault: None }) => Ok(Self {
                format: FORMAT,
                generation: self.generation + 1,
                active: bundle.clone(),
                previous: Some(Previous { bundle: self.active.clone(), fault }),
                since: now,
            }),
        }
    }

    /// Whether garbage collection must leave a bundle alone.
    #[must_use]
    pub fn keeps(&self, bundle: &BundleId) -> bool {
        self.active == *bundle || self.previous.as_ref().is_some_and(|previous| previous.bundle == *bundle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(version: &str) -> BundleId {
        BundleId::new("ceph", version).expect("sound")
    }

    fn at(up_s: u64) -> Moment {
        Moment { boot: "b".to_owned(), up_s, unix_s: 0 }
    }

    #[test]
    fn two_rollbacks_by_hand_end_where_they_began() {
        let first = Selection::activate(None, id("1.0.0"), at(1));
        assert_eq!(first.roll_back(None, at(2)), Err(NoWayBack::NothingBefore(id("1.0.0"))));
        let second = Selection::activate(Some(&first), id("2.0.0"), at(2));
        assert!(second.keeps(&id("1.0.0")) && second.keeps(&id("2.0.0")) && !second.keeps(&id("3.0.0")));
        let back = second.roll_back(None, at(3)).expect("1.0.0 served before");
        assert_eq!((&back.active, back.generation), (&id("1.0.0"), 3));
        let again = back.roll_back(None, at(4)).expect("2.0.0 served before");
        assert_eq!((again.active, again.previous), (second.active, second.previous));
    }

    #[test]
    fn nothing_goes_back_to_a_bundle_at_fault_until_it_is_activated_by_name() {
        let first = Selection::activate(None, id("1.0.0"), at(1));
        let second = Selection::activate(Some(&first), id("2.0.0"), at(2));
        let back = second.roll_back(Some("it crashed".to_owned()), at(3)).expect("1.0.0 served before");
        let fault = NoWayBack::AtFault { bundle: id("2.0.0"), fault: "it crashed".to_owned() };
        assert_eq!(back.roll_back(None, at(4)), Err(fault));
        let forced = Selection::activate(Some(&back), id("2.0.0"), at(5));
        assert_eq!(forced.previous, Some(Previous { bundle: id("1.0.0"), fault: None }));
    }

    #[test]
    fn activating_what_is_active_keeps_what_served_before() {
        let first = Selection::activate(None, id("1.0.0"), at(1));
        let second = Selection::activate(Some(&first), id("2.0.0"), at(2));
        assert_eq!(Selection::activate(Some(&second), id("2.0.0"), at(3)), second);
        // But somebody has seen then what was taken out of service.
        let back = second.roll_back(Some("it crashed".to_owned()), at(3)).expect("1.0.0 served before");
        let seen = Selection::activate(Some(&back), id("1.0.0"), at(4));
        assert_eq!(seen, Selection { previous: None, ..back });
    }

    #[test]
    fn time_is_counted_by_the_kernel_within_a_boot_and_by_the_clock_between_two() {
        let moment = |boot: &str, up_s, unix_s| Moment { boot: boot.to_owned(), up_s, unix_s };
        let earlier = moment("a", 100, 5_000);
        assert_eq!(moment("a", 160, 9).seconds_since(&earlier), 60, "the clock was set back");
        assert_eq!(moment("b", 5, 5_300).seconds_since(&earlier), 300);
        assert_eq!(moment("b", 5, 9).seconds_since(&earlier), 0, "a clock at 1970");
        let now = Moment::now();
        assert_eq!(now.boot.len(), 36, "{now:?}");
        assert!(now.up_s > 0 && now.unix_s > 0, "{now:?}");
    }
}
