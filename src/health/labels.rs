//! The closed sets that metrics and the status page speak in; nothing else ever becomes a label (R31).

/// A closed set whose members can stand behind a metric's name.
pub(super) trait Label: Copy + Sized + 'static {
    /// Every member, in the order of declaration.
    const ALL: &'static [Self];

    /// The place in [`ALL`](Self::ALL).
    fn index(self) -> usize;

    /// Names and values of the labels.
    fn pairs(self) -> &'static [(&'static str, &'static str)];
}

/// An enum whose members have labels; the value of the last one is also the member's word in documents.
macro_rules! labels {
    ($(#[$of:meta])* $set:ident { $($(#[$one:meta])* $member:ident: $($name:ident = $value:literal),+;)+ }) => {
        $(#[$of])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $set { $($(#[$one])* $member,)+ }

        impl $crate::health::labels::Label for $set {
            const ALL: &'static [Self] = &[$(Self::$member),+];

            fn index(self) -> usize {
                self as usize
            }

            fn pairs(self) -> &'static [(&'static str, &'static str)] {
                match self { $(Self::$member => &[$((stringify!($name), $value)),+],)+ }
            }
        }

        impl $set {
            /// The word for it in labels and documents.
            #[must_use]
            pub fn word(self) -> &'static str {
                $crate::health::labels::Label::pairs(self).last().map_or("", |&(_, word)| word)
            }
        }

        impl serde::Serialize for $set {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }
    };
}

pub(super) use labels;

labels! {
    /// How a film's way ended.
    FilmEnd {
        /// It has a result.
        Accepted: outcome = "accepted", reason = "accepted";
        /// It stayed incomplete for too long.
        Incomplete: outcome = "refused", reason = "incomplete";
        /// Its file is larger than is allowed.
        TooLarge: outcome = "refused", reason = "too_large";
        /// Its file could not be read.
        Unreadable: outcome = "refused", reason = "unreadable";
        /// Its bytes are no film we can decode.
        Decode: outcome = "quarantined", reason = "decode";
        /// The network failed on it.
        Inference: outcome = "quarantined", reason = "inference";
        /// Its result does not fit the wire.
        Report: outcome = "quarantined", reason = "report";
        /// The daemon ended too often while it worked on it.
        Crash: outcome = "quarantined", reason = "crash";
    }
}

labels! {
    /// A step of a film's way that is timed.
    Step {
        /// From bytes to gray values.
        Decode: step = "decode";
        /// From gray values to the network's input.
        Frame: step = "frame";
        /// The network.
        Inference: step = "inference";
        /// Event, sequence number and the film's end become durable.
        Commit: step = "commit";
        /// From sending an event to its acknowledgement.
        Publish: step = "publish";
    }
}

labels! {
    /// What an event tells.
    Event {
        /// What was found on a film.
        Result: kind = "result";
        /// Why a film was refused.
        Error: kind = "error";
    }
}

labels! {
    /// What the broker said to a publication: a reason code of MQTT 5.0, 3.4.2.1.
    Code {
        /// Taken, and somebody is subscribed.
        Success: code = "0", reason = "success";
        /// Taken, and nobody is subscribed.
        NoSubscriber: code = "16", reason = "no_matching_subscribers";
        /// Refused without a reason.
        Unspecified: code = "128", reason = "unspecified_error";
        /// Refused for the broker's own reasons.
        Implementation: code = "131", reason = "implementation_specific_error";
        /// The access list forbids it.
        NotAuthorized: code = "135", reason = "not_authorized";
        /// The topic is not accepted.
        TopicName: code = "144", reason = "topic_name_invalid";
        /// The packet's number is in use.
        PacketId: code = "145", reason = "packet_identifier_in_use";
        /// Larger than the broker takes; found before sending.
        PacketTooLarge: code = "149", reason = "packet_too_large";
        /// A limit of the broker is reached.
        Quota: code = "151", reason = "quota_exceeded";
        /// The payload is not what was declared.
        PayloadFormat: code = "153", reason = "payload_format_invalid";
        /// A code that the standard does not give to acknowledgements.
        Other: code = "other", reason = "other";
    }
}

impl Code {
    /// The member for a reason code.
    #[must_use]
    pub fn of(code: u8) -> Self {
        let matches = |known: &Self| known.pairs().iter().any(|&(_, value)| value.parse() == Ok(code));
        Self::ALL.iter().copied().find(matches).unwrap_or(Self::Other)
    }
}

labels! {
    /// What became of a connection to the broker.
    Connection {
        /// The broker accepted us.
        Made: event = "made";
        /// It could not be made.
        Failed: event = "failed";
        /// It broke or was closed.
        Lost: event = "lost";
    }
}

labels! {
    /// A lasting fault, logged seldom and counted always (R15).
    FaultCause {
        /// A finished film could not be made durable and waits.
        Store: cause = "store";
        /// The watched folder is away, or what should be mounted on it is.
        FolderMissing: cause = "folder_missing";
        /// The watched folder's file system does not answer.
        FolderUnresponsive: cause = "folder_unresponsive";
        /// Some of the watched folder cannot be looked at.
        FolderRound: cause = "folder_round";
        /// Links and special files lie in the watched folder.
        FolderSpecial: cause = "folder_special";
        /// The kernel's events about the watched folder cannot be had.
        FolderEvents: cause = "folder_events";
        /// A file in the watched folder cannot be read.
        FilmUnreadable: cause = "film_unreadable";
        /// A processed film can be neither moved nor deleted.
        FilmAfter: cause = "film_after";
        /// What is known of films can be neither read nor written.
        Ledger: cause = "ledger";
        /// A picture for the status page was left out.
        Picture: cause = "picture";
    }
}

labels! {
    /// A part of the daemon that must not hang.
    Stage {
        /// Rounds, events and reading of the folder.
        Folder: stage = "folder";
        /// The thread that owns the network.
        Worker: stage = "worker";
        /// Reading and writing what the broker is to be sent.
        Publisher: stage = "publisher";
        /// The state's file on the disk.
        Store: stage = "store";
    }
}

labels! {
    /// What is known of the watched folder.
    FolderWord {
        /// Not looked at yet.
        Starting: state = "starting";
        /// Watched through events and rescanned.
        Watching: state = "watching";
        /// Scanned periodically.
        Polling: state = "polling";
        /// Away, or it does not answer.
        Missing: state = "missing";
    }
}

labels! {
    /// What is with the GPU that computes in the place of the processor.
    AcceleratorWord {
        /// There is none that can be used.
        Absent: state = "absent";
        /// Its engine is being loaded, built or compared.
        Preparing: state = "preparing";
        /// It computes.
        Serving: state = "serving";
        /// It was given up.
        Failed: state = "failed";
        /// It is left alone in safe mode.
        Withheld: state = "withheld";
    }
}

labels! {
    /// Why the GPU does not compute, counted each time it is tried.
    AcceleratorFault {
        /// This program was built without TensorRT.
        NotBuilt: cause = "not_built";
        /// A library is not there, or lacks a function.
        Libraries: cause = "libraries";
        /// Another TensorRT than is needed.
        Version: cause = "version";
        /// There is no GPU with a driver.
        NoGpu: cause = "no_gpu";
        /// It had no memory left.
        OutOfMemory: cause = "out_of_memory";
        /// TensorRT refused the network or the plan.
        Refused: cause = "refused";
        /// An engine in the cache was damaged.
        Damaged: cause = "damaged";
        /// One belongs to somebody else.
        Foreign: cause = "foreign";
        /// The cache could not be read or written.
        Cache: cause = "cache";
        /// The building crashed, took too long or too much, or was refused.
        Build: cause = "build";
        /// Its landmarks were not those of the processor.
        Differs: cause = "differs";
        /// It failed on a film while it served, or the daemon died meanwhile.
        Run: cause = "run";
        /// It did not answer while it was prepared.
        Hang: cause = "hang";
    }
}

impl FilmEnd {
    /// What became of the film, for a person.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Accepted => "landmarks found",
            Self::Incomplete => "refused: the file stayed incomplete",
            Self::TooLarge => "refused: the file is too large",
            Self::Unreadable => "refused: the file cannot be read",
            Self::Decode => "quarantined: not a film that can be decoded",
            Self::Inference => "quarantined: the network failed on it",
            Self::Report => "quarantined: its result cannot be sent",
            Self::Crash => "quarantined: the daemon ended while it worked on it",
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use super::*;

    pub(in super::super) fn check<L: Label + PartialEq + std::fmt::Debug>() {
        let mut seen = BTreeSet::new();
        for (place, &member) in L::ALL.iter().enumerate() {
            assert_eq!(member.index(), place, "{member:?}");
            assert!(seen.insert(member.pairs()), "{member:?} has the labels of another");
            for (name, value) in member.pairs() {
                let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                assert!(name.chars().all(plain) && value.chars().all(plain) && !value.is_empty(), "{member:?}");
            }
        }
    }

    #[test]
    fn every_member_has_its_place_and_labels_of_its_own() {
        check::<FilmEnd>();
        check::<Step>();
        check::<Event>();
        check::<Code>();
        check::<Connection>();
        check::<FaultCause>();
        check::<Stage>();
        check::<FolderWord>();
    }

    #[test]
    fn a_reason_code_finds_its_member() {
        for (code, expected) in
            [(0, Code::Success), (16, Code::NoSubscriber), (135, Code::NotAuthorized), (7, Code::Other)]
        {
            assert_eq!(Code::of(code), expected, "{code}");
        }
    }
}
