//! Whether the share is there: a mount point whose file system is gone is an empty folder of this machine, and looks
//! like one in which nothing happens (R16).

use super::filesystem::{Filesystem, WatchMode};
use super::ledger::Ledger;
use super::open::Root;
use super::survey::SurveyError;
use crate::config::{AcquisitionSettings, MountRule};

/// The folder is there, and what should be mounted on it is not.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unmounted {
    /// The settings say that a file system is mounted there.
    #[error(
        "nothing is mounted on the acquisition folder, and acquisition.mount = \"required\" says that something is: \
         mount it, or set acquisition.mount = \"ignored\""
    )]
    Required,
    /// It was a share when it was last looked at.
    #[error(
        "the acquisition folder lay on a share ({was}) and is an ordinary folder of this machine now: mount the \
         share, or set acquisition.mount = \"ignored\" if films are to come into this folder from now on"
    )]
    Remembered {
        /// The kind of its file system: "cifs", "nfs", ..
        was: String,
    },
}

/// Holds an open folder against the rule of the settings, and remembers a share for the next time.
///
/// # Errors
/// [`SurveyError::Unmounted`]; else that of looking at the folder or at the ledger.
pub(super) fn check(
    settings: &AcquisitionSettings,
    ledger: &Ledger,
    root: &Root,
    found: Filesystem,
) -> Result<(), SurveyError> {
    match settings.mount {
        MountRule::Ignored => Ok(ledger.remember_share(&settings.folder, None)?),
        MountRule::Required if root.is_mount_point().map_err(SurveyError::Folder)? => Ok(()),
        MountRule::Required => Err(Unmounted::Required.into()),
        MountRule::Remembered => match found.mode {
            // Only what other machines serve: a disk of this one is put into the settings, not guessed at.
            WatchMode::Polling => Ok(ledger.remember_share(&settings.folder, Some(found.name))?),
            WatchMode::Inotify => match ledger.share(&settings.folder)? {
                Some(was) => Err(Unmounted::Remembered { was }.into()),
                None => Ok(()),
            },
        },
    }
}

impl From<Unmounted> for SurveyError {
    fn from(why: Unmounted) -> Self {
        Self::Unmounted(why)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use redb::Database;

    use super::*;

    const LOCAL: Filesystem = Filesystem { name: "local", mode: WatchMode::Inotify };
    const CIFS: Filesystem = Filesystem { name: "cifs", mode: WatchMode::Polling };
    const NFS: Filesystem = Filesystem { name: "nfs", mode: WatchMode::Polling };

    fn ledger() -> Ledger {
        let backend = redb::backends::InMemoryBackend::new();
        let database = Database::builder().create_with_backend(backend).expect("memory is there");
        Ledger::open(Arc::new(database)).expect("a store")
    }

    fn settings(folder: &Path, mount: MountRule) -> AcquisitionSettings {
        AcquisitionSettings { mount, ..super::super::task::tests::settings(folder) }
    }

    fn unmounted(result: Result<(), SurveyError>) -> Option<Unmounted> {
        match result {
            Ok(()) => None,
            Err(SurveyError::Unmounted(why)) => Some(why),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_share_that_was_there_must_be_there_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let other = tempfile::tempdir().expect("a temporary folder");
        let (root, ledger) = (Root::open(folder.path()).expect("it is there"), ledger());
        let was = |name: &str| Some(Unmounted::Remembered { was: name.to_owned() });
        for (step, at, rule, found, expected) in [
            ("before it was ever seen", &folder, MountRule::Remembered, LOCAL, None),
            ("a share", &folder, MountRule::Remembered, CIFS, None),
            ("its empty mount point", &folder, MountRule::Remembered, LOCAL, was("cifs")),
            ("still so", &folder, MountRule::Remembered, LOCAL, was("cifs")),
            ("another folder", &other, MountRule::Remembered, LOCAL, None),
            ("a share of another kind", &folder, MountRule::Remembered, NFS, None),
            ("gone again", &folder, MountRule::Remembered, LOCAL, was("nfs")),
            ("a person says so", &folder, MountRule::Ignored, LOCAL, None),
            ("and it is forgotten", &folder, MountRule::Remembered, LOCAL, None),
        ] {
            let checked = check(&settings(at.path(), rule), &ledger, &root, found);
            assert_eq!(unmounted(checked), expected, "{step}");
        }
    }

    #[test]
    fn where_a_mount_is_required_an_ordinary_folder_is_none() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let settings = settings(folder.path(), MountRule::Required);
        for (path, expected) in [(folder.path(), Some(Unmounted::Required)), (Path::new("/proc"), None)] {
            let root = Root::open(path).expect("it is there");
            let checked = check(&settings, &ledger(), &root, LOCAL);
            assert_eq!(unmounted(checked), expected, "{}", path.display());
        }
    }
}
