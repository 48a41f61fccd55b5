//! A bundle on disk: opened with every digest checked, written so that it is there whole or not at all.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::manifest::{Fault, Manifest};
use crate::disposition::Disposition;

pub(super) const MANIFEST_FILE: &str = "manifest.json";
pub(super) const CARD_FILE: &str = "README.md";
const MAX_MANIFEST_BYTES: u64 = 1 << 20;
const MAX_NETWORK_BYTES: u64 = 256 << 20;
const MAX_GOLDEN_BYTES: u64 = 16 << 20;

/// A model bundle whose files are those its manifest speaks of.
#[derive(Clone, Debug)]
pub struct Bundle {
    manifest: Manifest,
    network: Vec<u8>,
    golden: Vec<u8>,
}

/// What a new bundle is made of.
#[derive(Clone, Debug)]
pub struct BundleParts {
    /// Its two digests are filled in by [`Bundle::write`].
    pub manifest: Manifest,
    /// Bytes of the ONNX file.
    pub network: Vec<u8>,
    /// Bytes of the golden film's PNG.
    pub golden: Vec<u8>,
    /// The model card, Markdown.
    pub card: String,
}

/// Why a bundle cannot be used or written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; is this the directory of a model bundle?", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is larger than any sound one.
    #[error("{} has more than {limit} bytes; install the bundle again", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that is read.
        limit: u64,
    },
    /// The manifest is not the JSON it should be.
    #[error("{}: {reason}; install the bundle again, or a daemon that knows its format", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// With line and column.
        reason: String,
    },
    /// A field of the manifest cannot be right.
    #[error("{}: `{field}` is {value}, expected {expected}", path.display())]
    Field {
        /// The manifest.
        path: PathBuf,
        /// The field's path.
        field: String,
        /// What it says.
        value: String,
        /// What it may say.
        expected: String,
    },
    /// A file is not the one the manifest speaks of.
    #[error("{} has SHA-256 {found}, its manifest says {expected}; install the bundle again", path.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// What the manifest says.
        expected: String,
        /// What the bytes give.
        found: String,
    },
    /// The bundle cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl BundleError {
    /// Always fatal: nothing can be localized without a sound bundle.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        Disposition::Fatal
    }
}

impl Bundle {
    /// Reads the bundle in `directory` and checks its manifest and digests.
    ///
    /// # Errors
    /// When a file is missing, too large or another than the manifest says, or when the manifest asks for what this
    /// build cannot do.
    pub fn open(directory: &Path) -> Result<Self, BundleError> {
        let path = directory.join(MANIFEST_FILE);
        let bytes = read(&path, MAX_MANIFEST_BYTES)?;
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|e| BundleError::Manifest { path: path.clone(), reason: e.to_string() })?;
        validate(&manifest, &path)?;
        let network = verified(directory, &manifest.network.file, &manifest.network.sha256, MAX_NETWORK_BYTES)?;
        let golden = verified(directory, &manifest.golden.file, &manifest.golden.sha256, MAX_GOLDEN_BYTES)?;
        Ok(Self { manifest, network, golden })
    }

    /// Writes a bundle to `directory`, which then holds the whole new one; a crash before leaves the old one.
    ///
    /// The files go to a directory beside it, are flushed, and take its place in one rename.
    ///
    /// # Errors
    /// When the manifest has a fault or the disk refuses.
    pub fn write(directory: &Path, parts: BundleParts) -> Result<Self, BundleError> {
        let BundleParts { mut manifest, network, golden, card } = parts;
        manifest.network.sha256 = sha256(&network);
        manifest.golden.sha256 = sha256(&golden);
        validate(&manifest, &directory.join(MANIFEST_FILE))?;
        let mut json = serde_json::to_string_pretty(&manifest).expect("a manifest is plain data");
        json.push('\n');
        let files = [
            (manifest.network.file.as_str(), network.as_slice()),
            (manifest.golden.file.as_str(), golden.as_slice()),
            (CARD_FILE, card.as_bytes()),
            (MANIFEST_FILE, json.as_bytes()),
        ];
        replace(directory, &files)?;
        Ok(Self { manifest, network, golden })
    }

    /// What the bundle says about itself.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Bytes of the ONNX file.
    #[must_use]
    pub fn network(&self) -> &[u8] {
        &self.network
    }

    /// SHA-256 of the ONNX file, hexadecimal: what identifies the model in a result.
    #[must_use]
    pub fn network_sha256(&self) -> &str {
        &self.manifest.network.sha256
    }

    /// Bytes of the golden film's PNG.
    #[must_use]
    pub fn golden(&self) -> &[u8] {
        &self.golden
    }
}

fn validate(manifest: &Manifest, path: &Path) -> Result<(), BundleError> {
    manifest.validate(env!("CARGO_PKG_VERSION")).map_err(|Fault { field, value, expected }| BundleError::Field {
        path: path.to_owned(),
        field,
        value,
        expected,
    })
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, BundleError> {
    let failed = |source| BundleError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    let mut bytes = Vec::with_capacity(len.min(limit) as usize);
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(BundleError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

fn verified(directory: &Path, file: &str, expected: &str, limit: u64) -> Result<Vec<u8>, BundleError> {
    let path = directory.join(file);
    let bytes = read(&path, limit)?;
    let found = sha256(&bytes);
    if found != expected {
        return Err(BundleError::Digest { path, expected: expected.to_owned(), found });
    }
    Ok(bytes)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn replace(directory: &Path, files: &[(&str, &[u8])]) -> Result<(), BundleError> {
    let parent = match directory.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| BundleError::Write { path, source }
    };
    std::fs::create_dir_all(parent).map_err(at(parent))?;
    let name = directory.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let staging = parent.join(format!(".{name}.{}.new", std::process::id()));
    std::fs::create_dir(&staging).map_err(at(&staging))?;
    let result = fill(&staging, files).and_then(|()| {
        put_in_place(&staging, directory).map_err(at(directory))?;
        sync_directory(parent).map_err(at(parent))
    });
    // What is left here is the old bundle, or half of a new one.
    if staging.exists() {
        std::fs::remove_dir_all(&staging).map_err(at(&staging))?;
    }
    result
}

fn fill(staging: &Path, files: &[(&str, &[u8])]) -> Result<(), BundleError> {
    for (name, bytes) in files {
        let path = staging.join(name);
        let write = |path: &Path| {
            let mut file = File::create_new(path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write(&path).map_err(|source| BundleError::Write { path, source })?;
    }
    sync_directory(staging).map_err(|source| BundleError::Write { path: staging.to_owned(), source })
}

/// Renames `staging` to `directory`, or swaps the two when there is one already.
fn put_in_place(staging: &Path, directory: &Path) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let flags = if directory.exists() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
    Ok(renameat_with(CWD, staging, CWD, directory, flags)?)
}

fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::manifest;
    use super::*;

    fn parts(network: &[u8]) -> BundleParts {
        let (network, golden) = (network.to_vec(), b"a film".to_vec());
        BundleParts { manifest: manifest(), network, golden, card: "# Card\n".to_owned() }
    }

    #[test]
    fn what_is_written_is_read_again_and_replaced_whole() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let directory = folder.path().join("deep/test-nfdp");
        for network in [b"first".as_slice(), b"second"] {
            let written = Bundle::write(&directory, parts(network)).expect("a sound bundle");
            let read = Bundle::open(&directory).expect("what was written");
            assert_eq!(read.manifest(), written.manifest());
            assert_eq!((read.network(), read.golden()), (network, b"a film".as_slice()));
            assert_eq!(read.network_sha256(), sha256(network));
        }
        let beside: Vec<_> = std::fs::read_dir(directory.parent().expect("deep")).expect("a folder").collect();
        assert_eq!(beside.len(), 1, "nothing is left beside it: {beside:?}");
    }

    #[test]
    fn the_digest_is_the_known_one() {
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_changed_file_is_named_with_both_digests() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for file in ["network.onnx", "golden.png"] {
            Bundle::write(folder.path().join("b").as_path(), parts(b"network")).expect("a sound bundle");
            let path = folder.path().join("b").join(file);
            std::fs::write(&path, b"tampered").expect("ours");
            let error = Bundle::open(&folder.path().join("b")).expect_err("refused");
            assert!(matches!(&error, BundleError::Digest { path: p, .. } if *p == path), "{error}");
            assert_eq!(error.disposition(), Disposition::Fatal);
        }
    }

    #[test]
    fn a_fault_in_the_manifest_is_told_with_file_field_and_value() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut broken = parts(b"network");
        broken.manifest.landmarks[0] = "Sella".to_owned();
        let error = Bundle::write(&folder.path().join("b"), broken).expect_err("refused").to_string();
        assert!(error.ends_with("manifest.json: `landmarks[0]` is Sella, expected lower-case letters, digits and `_`"));
        assert!(!folder.path().join("b").exists());
    }

    #[test]
    fn a_directory_without_a_bundle_is_told() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let error = Bundle::open(folder.path()).expect_err("refused");
        assert!(matches!(error, BundleError::Read { .. }), "{error}");
        std::fs::write(folder.path().join(MANIFEST_FILE), b"{\"format\": 1,\n}").expect("ours");
        let error = Bundle::open(folder.path()).expect_err("refused").to_string();
        assert!(error.contains("line 2"), "{error}");
    }
}
