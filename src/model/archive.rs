//! The form in which bundles travel: `<name>-<version>.tar.gz` with a minisign signature beside it.
//!
//! The archive holds the four files of a bundle and nothing else, as plain entries without a directory: no links, no
//! paths, no extensions of the format. Nothing looks inside before the signature of the whole file was found good;
//! what is inside is then still treated as if a stranger had made it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use super::bundle::{Bundle, BundleError, CARD_FILE, MANIFEST_FILE};
use super::durable;
use super::identity::{BundleId, IdentityError};
use super::signature::{Claim, SignatureError, TrustedKeys};
use crate::crash_point;

const MIB: u64 = 1 << 20;
/// Networks do not compress, so an archive has about the size of what is in it.
const MAX_ARCHIVE_BYTES: u64 = 276 * MIB;
/// Of manifest and card.
const MAX_TEXT_BYTES: u64 = MIB;
/// Of network and golden film together.
const MAX_UNPACKED_BYTES: u64 = 272 * MIB;
/// What tar programs fill their last record up with.
const MAX_PADDING_BYTES: u64 = 64 << 10;
/// The files of a bundle.
const ENTRIES: usize = 4;
const HOW_TO: &str = "make it with tar --format=ustar -czf NAME-VERSION.tar.gz of the plain files manifest.json, the \
                      network, the golden film and README.md";

/// An archive whose signature is good.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    claim: Claim,
    /// All of it: what was verified is what is unpacked, whatever happens to the file in between.
    bytes: Vec<u8>,
}

/// Why an archive is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The archive.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Nobody who is trusted vouches for it.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// It is no gzip or no tar, or ends early.
    #[error("{} is no archive that can be unpacked: {reason}; {HOW_TO}", path.display())]
    Damaged {
        /// The archive.
        path: PathBuf,
        /// What the decoder says.
        reason: String,
    },
    /// It holds what a bundle does not.
    #[error("{} holds {entry}, {problem}; {HOW_TO}", path.display())]
    Entry {
        /// The archive.
        path: PathBuf,
        /// The entry's name, escaped.
        entry: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Its files are not those that its manifest names.
    #[error("{} holds {found:?}, its manifest needs {expected:?}; {HOW_TO}", path.display())]
    Files {
        /// The archive.
        path: PathBuf,
        /// What there is.
        found: BTreeSet<String>,
        /// What there must be.
        expected: BTreeSet<String>,
    },
    /// What is in it is no sound bundle.
    #[error("{} holds no sound bundle: {source}", path.display())]
    Bundle {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        source: Box<BundleError>,
    },
    /// The manifest's name or version is none.
    #[error("{}: {source}", path.display())]
    Identity {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        source: IdentityError,
    },
    /// It was signed as another bundle than its manifest says.
    #[error("{} was signed as {signed}, and its manifest says {found}: have the right one signed", path.display())]
    Another {
        /// The archive.
        path: PathBuf,
        /// The signature's word.
        signed: BundleId,
        /// The manifest's.
        found: BundleId,
    },
    /// It cannot be unpacked here.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl Archive {
    /// Reads an archive and verifies its signature; nothing inside is looked at.
    ///
    /// # Errors
    /// When it cannot be read or nobody who is trusted vouches for it under its name.
    pub fn open(path: &Path, trusted: &TrustedKeys) -> Result<Self, ArchiveError> {
        let read = || {
            // A pipe would be waited for.
            if !std::fs::metadata(path)?.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
            }
            durable::read_up_to(File::open(path)?, MAX_ARCHIVE_BYTES)
        };
        let bytes = read().map_err(|source| ArchiveError::Read { path: path.to_owned(), source })?;
        let claim = trusted.verify(path, &bytes)?;
        Ok(Self { path: path.to_owned(), claim, bytes })
    }

    /// What the signature says.
    #[must_use]
    pub const fn claim(&self) -> &Claim {
        &self.claim
    }

    /// SHA-256 of the archive, hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> String {
        Sha256::digest(&self.bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Unpacks into a directory that is empty and ours alone, flushes it, and opens the bundle that lies there then.
    ///
    /// # Errors
    /// When the archive holds anything else than the bundle that was signed; the directory then holds what came
    /// before the fault, for the caller to remove.
    pub fn unpack(&self, directory: &Path) -> Result<Bundle, ArchiveError> {
        let found = self.write_entries(directory)?;
        durable::sync_directory(directory)
            .map_err(|source| ArchiveError::Write { path: directory.to_owned(), source })?;
        crash_point::reach("model.unpacked");
        let path = || self.path.clone();
        let bundle = Bundle::open(directory).map_err(|e| ArchiveError::Bundle { path: path(), source: Box::new(e) })?;
        let manifest = bundle.manifest();
        let expected = [MANIFEST_FILE, CARD_FILE, &manifest.network.file, &manifest.golden.file];
        let expected: BTreeSet<String> = expected.into_iter().map(str::to_owned).collect();
        if found != expected {
            return Err(ArchiveError::Files { path: path(), found, expected });
        }
        let id = BundleId::of(manifest).map_err(|source| ArchiveError::Identity { path: path(), source })?;
        if id != self.claim.id {
            return Err(ArchiveError::Another { path: path(), signed: self.claim.id.clone(), found: id });
        }
        Ok(bundle)
    }

    fn write_entries(&self, directory: &Path) -> Result<BTreeSet<String>, ArchiveError> {
        let damaged = |e: io::Error| ArchiveError::Damaged { path: self.path.clone(), reason: e.to_string() };
        let mut tar = tar::Archive::new(BufReader::new(GzDecoder::new(self.bytes.as_slice())));
        let mut left = MAX_UNPACKED_BYTES;
        let mut found = BTreeSet::new();
        // Raw: the format's extensions (long names, other sizes, sparse files) come as entries, and are refused.
        for entry in tar.entries().map_err(damaged)?.raw(true) {
            let mut entry = entry.map_err(damaged)?;
            let (name, size) = self.admit(entry.header(), &found, left)?;
            left -= size;
            let path = directory.join(&name);
            let mut content = Content { inner: (&mut entry).take(size), failed: None };
            let written = durable::write_new(&path, &mut content, "model.file-unpacked");
            // Whose fault it was: that of the archive or of the disk.
            if let Some(error) = content.failed {
                return Err(damaged(error));
            }
            if written.map_err(|source| ArchiveError::Write { path, source })? != size {
                return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
            }
            found.insert(name);
        }
        // To the end, where gzip has its checksum; nothing may follow but the zeros of the last record.
        let mut rest = Vec::new();
        tar.into_inner().take(MAX_PADDING_BYTES + 1).read_to_end(&mut rest).map_err(damaged)?;
        if rest.len() as u64 > MAX_PADDING_BYTES || rest.iter().any(|&byte| byte != 0) {
            return Err(damaged(io::Error::other("something follows its end")));
        }
        Ok(found)
    }

    /// The name and size of an entry that a bundle may have.
    fn admit(&self, header: &tar::Header, found: &BTreeSet<String>, left: u64) -> Result<(String, u64), ArchiveError> {
        let bytes = header.path_bytes();
        let entry: String = bytes.escape_ascii().to_string().chars().take(200).collect();
        let refuse = |problem: &str| {
            let (path, entry, problem) = (self.path.clone(), entry.clone(), problem.to_owned());
            ArchiveError::Entry { path, entry, problem }
        };
        if !header.entry_type().is_file() {
            return Err(refuse("which is no plain file"));
        }
        let name = std::str::from_utf8(&bytes).ok().filter(|name| is_file_name(name));
        let name = name.ok_or_else(|| refuse("which is no plain file name"))?;
        if found.contains(name) {
            return Err(refuse("twice"));
        }
        if found.len() == ENTRIES {
            return Err(refuse("one file too many"));
        }
        let limit = if [MANIFEST_FILE, CARD_FILE].contains(&name) { MAX_TEXT_BYTES } else { MAX_UNPACKED_BYTES };
        let size = header.entry_size().map_err(|_| refuse("whose size cannot be read"))?;
        if size > limit.min(left) {
            return Err(refuse(&format!("of {size} bytes, more than the {} it may have", limit.min(left))));
        }
        Ok((name.to_owned(), size))
    }
}

/// A file name that stays in its directory, and is none of the store's own, which begin with a dot.
fn is_file_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= 100 && !name.starts_with('.') && name.bytes().all(plain)
}

/// Unpacks bytes as the archive of a bundle: the compressed form, or a tar file that is compressed here.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    use std::io::Write;
    let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
        bytes.to_vec()
    } else {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        gzip.write_all(bytes).and_then(|()| gzip.finish()).expect("into memory")
    };
    let around = std::env::temp_dir().join(format!("landmarkd-fuzz-{}", std::process::id()));
    let directory = around.join("bundle");
    std::fs::create_dir_all(&directory).expect("a folder of ours");
    let id = BundleId::new("fuzz", "1.2.3").expect("sound");
    let archive = Archive { path: PathBuf::from("x"), claim: Claim { id, signed_by: "maker".to_owned() }, bytes };
    let unpacked = archive.unpack(&directory);
    let names = |folder: &Path| {
        let entries = std::fs::read_dir(folder).expect("ours").map(|entry| entry.expect("ours"));
        entries.map(|entry| (entry.file_name(), entry.metadata().expect("ours"))).collect::<Vec<_>>()
    };
    assert_eq!(names(&around).len(), 1, "nothing lies beside the folder");
    let files = names(&directory);
    assert!(files.len() <= ENTRIES && files.iter().all(|(_, metadata)| metadata.is_file()), "{files:?}");
    assert!(files.iter().map(|(_, metadata)| metadata.len()).sum::<u64>() <= MAX_UNPACKED_BYTES + 2 * MAX_TEXT_BYTES);
    assert!(unpacked.is_err() || files.len() == ENTRIES, "{files:?}");
    std::fs::remove_dir_all(&around).expect("ours");
}

/// The bytes of an entry; remembers why they could not be read.
struct Content<R> {
    inner: R,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Content<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                self.failed = Some(error);
            }
            kind.into()
        })
    }
}
