//! Why the store of bundles was left as it was.

use std::io;
use std::path::PathBuf;

use super::archive::ArchiveError;
use super::identity::BundleId;
use super::selection::NoWayBack;
use super::self_test::SelfTestError;
use crate::disposition::Disposition;

/// Why the store was left as it was.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Something cannot be read or written.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// There is no state directory.
    #[error("there is no state directory {}: start the daemon once, or say with --config or --state where it is", .0.display())]
    NoState(PathBuf),
    /// The daemon could not read what we would write.
    #[error(
        "{} belongs to user {owner}, and this runs as user {user}, whose files the daemon could not read: run it as \
         that user, such as with runuser -u landmarkd -- landmarkd model ..", path.display()
    )]
    WrongUser {
        /// The state directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// Another command is at work.
    #[error("another landmarkd model command is at work in {}: wait until it has ended", .0.display())]
    Busy(PathBuf),
    /// A file of the store does not read as ours.
    #[error("{} cannot be understood ({reason}): choose again with landmarkd model activate NAME VERSION", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The archive is not taken.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// An installed bundle is not what it was.
    #[error("the installed {id} is broken ({reason}): install its archive again")]
    Broken {
        /// Which.
        id: BundleId,
        /// What is wrong.
        reason: String,
    },
    /// It does not work on this machine.
    #[error("{id}: {source}")]
    SelfTest {
        /// Which.
        id: BundleId,
        /// How it failed.
        source: SelfTestError,
    },
    /// There is another archive under that version.
    #[error("{0} is installed from another archive: a version is made once, have the new one numbered higher")]
    Taken(BundleId),
    /// Somebody may be handing out an old one.
    #[error("{id} is older than {active}, which serves: install it with --allow-older if that is what you want")]
    Older {
        /// What was to be installed.
        id: BundleId,
        /// What serves.
        active: BundleId,
    },
    /// It is not there.
    #[error("{id} is not installed; there is {}", list(.installed))]
    NotInstalled {
        /// What was asked for.
        id: BundleId,
        /// What there is.
        installed: Vec<BundleId>,
    },
    /// Nothing was activated yet.
    #[error("no installed bundle is active: choose one with landmarkd model activate NAME VERSION")]
    NothingActive,
    /// There is nothing to go back to.
    #[error(transparent)]
    NoWayBack(#[from] NoWayBack),
    /// The active bundle failed at the start, and there is none to go back to.
    #[error("{id} cannot serve ({reason}), and there is nothing to go back to: {source}")]
    NothingServes {
        /// The active bundle.
        id: BundleId,
        /// How it failed.
        reason: String,
        /// Why not.
        source: Box<NoWayBack>,
    },
}

impl RegistryError {
    /// Fatal in the daemon, which keeps being started: a store may come back, and a person can choose another bundle.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        Disposition::Fatal
    }
}

fn list(installed: &[BundleId]) -> String {
    let all: Vec<_> = installed.iter().map(ToString::to_string).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}
