//! Which bundle: its name and version, as the manifest, the signature, the archive's file name and the store say them.

use std::cmp::Ordering;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::manifest::Manifest;

/// Longest name of a bundle, in bytes.
const MAX_NAME: usize = 64;

/// Name and version of a bundle; both are sound as components of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct BundleId {
    name: String,
    version: String,
}

/// A name or version that no bundle can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The name is not one.
    #[error("{0:?} is no bundle's name: it takes 1 to {MAX_NAME} letters, digits, `-`, `_` and `.`, no `.` in front")]
    Name(String),
    /// The version is not one.
    #[error("{0:?} is no bundle's version: it takes major.minor.patch in digits, such as 1.0.0")]
    Version(String),
}

impl BundleId {
    /// The bundle `name` in `version` (`major.minor.patch`).
    ///
    /// # Errors
    /// When either could not be that of a bundle, or would leave its directory as part of a path.
    pub fn new(name: &str, version: &str) -> Result<Self, IdentityError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > MAX_NAME || name.starts_with('.') || !name.bytes().all(plain) {
            return Err(IdentityError::Name(name.to_owned()));
        }
        if triple(version).is_none() {
            return Err(IdentityError::Version(version.to_owned()));
        }
        Ok(Self { name: name.to_owned(), version: version.to_owned() })
    }

    /// What a manifest says it is.
    ///
    /// # Errors
    /// When name or version are none.
    pub fn of(manifest: &Manifest) -> Result<Self, IdentityError> {
        Self::new(&manifest.name, &manifest.version)
    }

    /// The bundle's name ("ceph19-nfdp").
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `major.minor.patch`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The only name its archive may have: `<name>-<version>.tar.gz`.
    #[must_use]
    pub fn archive_name(&self) -> String {
        format!("{}-{}.tar.gz", self.name, self.version)
    }

    /// Where it lies below a store: `<root>/<name>/<version>`.
    #[must_use]
    pub fn below(&self, root: &Path) -> PathBuf {
        root.join(&self.name).join(&self.version)
    }

    /// Whether this is an earlier version of the same bundle.
    #[must_use]
    pub fn is_older_than(&self, other: &Self) -> bool {
        self.name == other.name && self < other
    }
}

/// By name, then by version as numbers.
impl Ord for BundleId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name.cmp(&other.name).then_with(|| triple(&self.version).cmp(&triple(&other.version)))
    }
}

impl PartialOrd for BundleId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// An id as it stands in a file, unchecked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    version: String,
}

impl TryFrom<Written> for BundleId {
    type Error = IdentityError;

    fn try_from(Written { name, version }: Written) -> Result<Self, IdentityError> {
        Self::new(&name, &version)
    }
}

/// The three numbers, if each is written in the one way a number is: no sign, no leading zero.
fn triple(version: &str) -> Option<[u32; 3]> {
    let number = |part: &str| part.parse::<u32>().ok().filter(|n| n.to_string() == part);
    let mut parts = version.split('.').map(number);
    let triple = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(triple)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_leave_its_directory_is_no_name() {
        for name in ["", ".", "..", ".hidden", "a/b", "../a", "a\\b", "a b", "a\n", "\u{e9}", &"a".repeat(65)] {
            assert_eq!(BundleId::new(name, "1.0.0"), Err(IdentityError::Name(name.to_owned())));
        }
        for version in ["", "1", "1.2", "1.2.3.4", "1.2.x", "+1.2.3", "01.2.3", "1.2.-3", "1.2.4294967296", "../1.2.3"]
        {
            assert_eq!(BundleId::new("a", version), Err(IdentityError::Version(version.to_owned())));
        }
        let id = BundleId::new("ceph19-nfdp", "1.10.0").expect("sound");
        assert_eq!(id.below(Path::new("/s")), Path::new("/s/ceph19-nfdp/1.10.0"));
        assert_eq!(id.archive_name(), "ceph19-nfdp-1.10.0.tar.gz");
    }

    #[test]
    fn versions_compare_as_numbers_and_only_within_a_name() {
        let id = |name, version| BundleId::new(name, version).expect("sound");
        assert!(id("a", "1.9.0").is_older_than(&id("a", "1.10.0")));
        assert!(!id("a", "1.10.0").is_older_than(&id("a", "1.10.0")));
        assert!(!id("a", "2.0.0").is_older_than(&id("a", "1.10.0")));
        assert!(!id("a", "1.0.0").is_older_than(&id("b", "2.0.0")));
    }

    #[test]
    fn a_file_cannot_bring_in_what_the_constructor_refuses() {
        let id = BundleId::new("a", "1.2.3").expect("sound");
        let json = serde_json::to_string(&id).expect("plain data");
        assert_eq!(json, r#"{"name":"a","version":"1.2.3"}"#);
        assert_eq!(serde_json::from_str::<BundleId>(&json).expect("what was written"), id);
        for bad in [r#"{"name":"../a","version":"1.2.3"}"#, r#"{"name":"a","version":"x"}"#, r#"{"name":"a"}"#] {
            serde_json::from_str::<BundleId>(bad).expect_err(bad);
        }
    }
}
