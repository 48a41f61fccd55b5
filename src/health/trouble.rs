//! What can be wrong, in words: what it is and what to do about it.

use super::labels::labels;

labels! {
    /// Why the daemon is degraded; worst first.
    Trouble {
        /// No model serves.
        ModelUnavailable: reason = "model_unavailable";
        /// The live path does not find the golden film's landmarks where they are.
        CanaryFailed: reason = "canary_failed";
        /// No room for new films.
        DiskFull: reason = "disk_full";
        /// The acquisition folder is away.
        FolderMissing: reason = "folder_missing";
        /// The daemon ended too often.
        SafeMode: reason = "safe_mode";
        /// The state's file system is nearly full.
        DiskLow: reason = "disk_low";
        /// There is no connection to the broker.
        BrokerAway: reason = "broker_away";
        /// The broker refuses a topic.
        Rejected: reason = "rejected";
        /// Nobody is subscribed.
        NoSubscriber: reason = "no_subscriber";
        /// Another client uses our id.
        ClientIdTaken: reason = "client_id_taken";
        /// A new model failed and the one before it serves.
        ModelRolledBack: reason = "model_rolled_back";
        /// A changed configuration was refused.
        ConfigRejected: reason = "config_rejected";
        /// The machine slows itself down.
        Throttled: reason = "throttled";
        /// The GPU does not compute what it was to.
        AcceleratorFailed: reason = "accelerator_failed";
        /// The machine's clock is not set.
        ClockUnset: reason = "clock_unset";
    }
}

impl Trouble {
    /// Whether no film can be taken while it lasts; the broker never matters here (R45).
    #[must_use]
    pub const fn stops_films(self) -> bool {
        matches!(self, Self::ModelUnavailable | Self::DiskFull | Self::FolderMissing)
    }

    /// Whether somebody should come at once: films wait, or results may be wrong.
    #[must_use]
    pub const fn is_severe(self) -> bool {
        self.stops_films() || matches!(self, Self::CanaryFailed)
    }

    /// What is wrong, for a person.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::ModelUnavailable => "No model serves, so no film can be read.",
            Self::CanaryFailed => "The self-check is off: landmarks of the golden film are not where they should be.",
            Self::DiskFull => "The disk is full; no new films are taken.",
            Self::FolderMissing => "The acquisition folder is away.",
            Self::SafeMode => "The daemon ended too often and runs in safe mode.",
            Self::DiskLow => "The disk is nearly full.",
            Self::BrokerAway => "There is no connection to the MQTT broker.",
            Self::Rejected => "The MQTT broker refuses what is published.",
            Self::NoSubscriber => "Nobody is subscribed to the results.",
            Self::ClientIdTaken => "Another client connects to the broker with the same id.",
            Self::ModelRolledBack => "The newly installed model failed; the one before it serves.",
            Self::ConfigRejected => "The changed configuration was refused; the one before it is in force.",
            Self::Throttled => "The machine is too hot or draws too much, and slows itself down.",
            Self::AcceleratorFailed => "The GPU was given up; the processor computes, more slowly.",
            Self::ClockUnset => "The clock of this machine is not set.",
        }
    }

    /// What to do about it, and what happens until then.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::ModelUnavailable => "Install a model bundle that suits this version, or go back to the previous one.",
            Self::CanaryFailed => "Do not rely on results until a model bundle has been reinstalled and checked.",
            Self::DiskFull => {
                "Free space on the disk of the state directory. Films stay in the folder and results in the queue; \
                 both go on by themselves."
            }
            Self::FolderMissing => {
                "Check that the share is mounted and may be read. Films are taken as soon as it is back."
            }
            Self::SafeMode => "See the journal for why it ended. It leaves safe mode after ten quiet minutes.",
            Self::DiskLow => {
                "Free space on the disk of the state directory. Until then no pictures are made; films and results go \
                 on."
            }
            Self::BrokerAway => {
                "Check the network and the broker. Films are read meanwhile; results wait on disk and are sent as soon \
                 as it answers."
            }
            Self::Rejected => "Check the broker's access list and limits. What waits is kept and tried again.",
            Self::NoSubscriber => {
                "Start the program that takes the results, or set result.require_subscriber = false. Results wait \
                 until then."
            }
            Self::ClientIdTaken => "Give every device an mqtt.client_id of its own.",
            Self::ModelRolledBack => {
                "Run landmarkd model list: it says why. It is over when a bundle is activated by name, be it the one that serves."
            }
            Self::ConfigRejected => "Run landmarkd check-config, mend what it names and reload the service.",
            Self::Throttled => {
                "Check its fan, its vents, the room and its power supply; landmarkd doctor --gpu says which. Fresh films \
                 are read as ever, but slower; the backlog is read with pauses until it has recovered."
            }
            Self::AcceleratorFailed => {
                "Run landmarkd doctor: it says why. Results are as right as before. The GPU is tried again at the next \
                 start, or never with inference.backend = \"cpu\"."
            }
            Self::ClockUnset => {
                "Set up time synchronisation. Times of films are wrong until then, and TLS may refuse the broker."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::labels::{Label, tests::check};
    use super::*;

    #[test]
    fn every_trouble_has_its_place_and_a_label_of_its_own() {
        check::<Trouble>();
    }

    #[test]
    fn every_trouble_says_what_is_wrong_and_what_to_do() {
        for trouble in Trouble::ALL {
            for text in [trouble.words(), trouble.remedy()] {
                assert!(text.ends_with('.') && text.len() > 20, "{trouble:?}: {text}");
            }
        }
    }

    #[test]
    fn the_broker_never_stops_films() {
        for trouble in [Trouble::BrokerAway, Trouble::Rejected, Trouble::NoSubscriber, Trouble::ClientIdTaken] {
            assert!(!trouble.stops_films(), "{trouble:?}");
        }
    }
}
