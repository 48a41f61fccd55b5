//! Secrets from files: of mode 0600, or handed over by the service manager (R39).
//!
//! A secret never comes from an environment variable or an argument, which other processes can read.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::disposition::Disposition;

/// A secret is a password or a key, not a film.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// A secret that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be opened or read.
    #[error("cannot read the secret {}", path.display())]
    Read {
        /// Where it should be.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Others may read it.
    #[error("{} has mode {found:04o}, others may read it: run `chmod 600 {}`", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        found: u32,
    },
    /// A bare name, but the service manager hands over no credentials.
    #[error(
        "{name} is a bare name, so it is a credential of the service manager, but $CREDENTIALS_DIRECTORY is not set: \
         add `LoadCredential={name}:/path` to the unit, or configure an absolute path"
    )]
    NoCredentials {
        /// The configured name.
        name: String,
    },
    /// It is empty, larger than 64 KiB, or not the text it should be.
    #[error("the secret {} {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl SecretError {
    /// The file may be put right at any time, so it is read again at every use.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        Disposition::Retry
    }
}

/// The bytes of the secret that the configuration calls `path`.
///
/// An absolute path is a file that only its owner may read. A relative one is the name of a credential of the service
/// manager (systemd's `LoadCredential=`), which guards its access itself.
///
/// # Errors
/// See [`SecretError`]; none of them holds a byte of the secret.
pub fn read(path: &Path) -> Result<Vec<u8>, SecretError> {
    read_with(path, std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from).as_deref())
}

/// The secret as one line of text, without its line end.
///
/// # Errors
/// Those of [`read`], and when it is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, SecretError> {
    let mut text = String::from_utf8(read(path)?)
        .map_err(|_| SecretError::Malformed { path: path.to_owned(), reason: "is not UTF-8" })?;
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    Ok(text)
}

fn read_with(path: &Path, credentials: Option<&Path>) -> Result<Vec<u8>, SecretError> {
    let (path, guarded) = match (path.is_absolute(), credentials) {
        (true, credentials) => (path.to_owned(), credentials.is_some_and(|directory| path.starts_with(directory))),
        (false, Some(directory)) => (directory.join(path), true),
        (false, None) => return Err(SecretError::NoCredentials { name: path.display().to_string() }),
    };
    let failed = |source| SecretError::Read { path: path.clone(), source };
    let file = File::open(&path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !guarded && metadata.permissions().mode() & 0o077 != 0 {
        return Err(SecretError::Exposed { path, found: metadata.mode() & 0o7777 });
    }
    let mut secret = Vec::new();
    file.take(MAX_SECRET_BYTES + 1).read_to_end(&mut secret).map_err(failed)?;
    match secret.len() as u64 {
        0 => Err(SecretError::Malformed { path, reason: "is empty" }),
        1..=MAX_SECRET_BYTES => Ok(secret),
        _ => Err(SecretError::Malformed { path, reason: "is larger than 64 KiB" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn file(directory: &Path, mode: u32, content: &str) -> PathBuf {
        let path = directory.join("password");
        fs::write(&path, content).expect("writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
        path
    }

    #[test]
    fn only_a_file_for_its_owner_alone_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        for (mode, readable) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o666, false)] {
            let path = file(directory.path(), mode, "secret");
            let found = read_with(&path, None);
            assert_eq!(found.is_ok(), readable, "{mode:o}");
            if let Err(error) = found {
                assert!(error.to_string().contains("chmod 600"), "{error}");
            }
        }
    }

    #[test]
    fn a_bare_name_is_a_credential_and_its_mode_is_the_service_managers_affair() {
        let directory = tempfile::tempdir().expect("a directory");
        file(directory.path(), 0o640, "secret");
        assert_eq!(read_with(Path::new("password"), Some(directory.path())).expect("there"), b"secret");
        let error = read_with(Path::new("password"), None).expect_err("no credentials");
        assert!(error.to_string().contains("LoadCredential=password"), "{error}");
    }

    #[test]
    fn a_password_ends_before_its_line_end() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(read_text(&file(directory.path(), 0o600, "pass word \n")).expect("there"), "pass word ");
        assert!(read_text(&file(directory.path(), 0o600, "")).is_err());
    }
}
