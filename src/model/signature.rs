//! Who vouches for a bundle: a detached minisign signature against the public keys of a folder.
//!
//! Only prehashed signatures count (what minisign makes since 0.10 by default). The trusted comment, which is signed
//! too, must read `landmarkd bundle <name> <version>`: so a file that was signed as one bundle or version cannot be
//! handed out as another, whatever it is called.
//!
//! No key comes with the program. Whoever may write in the folder decides which bundles are installed, so the folder
//! and its keys must not be writable by anybody but root and the user who asks.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use minisign_verify::{Error as Minisign, PublicKey, Signature};

use super::durable;
use super::identity::BundleId;

/// Where the keys are looked for when the command line does not say.
pub const TRUST_DIRECTORY: &str = "/etc/landmarkd/trust.d";
/// What a signature's name adds to that of its file.
pub const SIGNATURE_SUFFIX: &str = ".minisig";

const KEY_EXTENSION: &str = "pub";
/// A key has some 110 bytes and a signature some 350.
const MAX_TEXT_BYTES: u64 = 4096;
const COMMENT_PREFIX: &str = "landmarkd bundle ";

/// The public keys that may vouch for a bundle.
#[derive(Clone, Debug)]
pub struct TrustedKeys {
    directory: PathBuf,
    keys: Vec<TrustedKey>,
}

#[derive(Clone, Debug)]
struct TrustedKey {
    /// Its file's name without `.pub`.
    name: String,
    key: PublicKey,
}

/// What a good signature says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The bundle that was signed.
    pub id: BundleId,
    /// The key's file name in the folder, without `.pub`.
    pub signed_by: String,
}

/// Why nobody who is trusted vouches for a file.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The folder of keys, or a key, cannot be read.
    #[error("cannot read {}: {source}; it holds the public keys whose bundles may be installed", path.display())]
    Keys {
        /// The folder or key.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Others could put their own key there.
    #[error(
        "{} can be changed by others than root and you, so what it trusts counts for nothing: \
         chown root and chmod go-w it", path.display()
    )]
    Writable {
        /// The folder or key.
        path: PathBuf,
    },
    /// A `.pub` file is no key.
    #[error("{} is no minisign public key ({reason}); replace it or take it away", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// There is no key at all.
    #[error("no key is trusted: put the public key of who makes your bundles into {} as NAME.pub", directory.display())]
    NobodyTrusted {
        /// The folder of keys.
        directory: PathBuf,
    },
    /// The signature's file is not there.
    #[error("there is no signature {}: get it from where the bundle came from, and put it beside the bundle", path.display())]
    Unsigned {
        /// Where it should be.
        path: PathBuf,
    },
    /// The signature cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The signature.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The signature is none.
    #[error("{} is no minisign signature ({reason}); get it again from where the bundle came from", path.display())]
    Malformed {
        /// The signature.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// It signs the file itself rather than its hash.
    #[error("{} is of minisign's legacy kind: have the bundle signed again with minisign 0.10 or later, without -l", path.display())]
    Legacy {
        /// The signature.
        path: PathBuf,
    },
    /// Somebody signed it, but nobody who is trusted.
    #[error(
        "{} was made with a key that is not in {}, which trusts {}: do not install the bundle, \
         unless you know that the key is good and add it there", path.display(), directory.display(), known.join(", ")
    )]
    UnknownKey {
        /// The signature.
        path: PathBuf,
        /// The folder of keys.
        directory: PathBuf,
        /// The names of its keys.
        known: Vec<String>,
    },
    /// Signature and file do not belong together.
    #[error(
        "{} is not what {} signs: it was changed or is damaged; get both again and do not install this one",
        file.display(), path.display()
    )]
    Forged {
        /// The file.
        file: PathBuf,
        /// Its signature.
        path: PathBuf,
    },
    /// The signature does not say what it is for.
    #[error(
        "{} has the trusted comment {found:?}, expected \"{COMMENT_PREFIX}NAME VERSION\": \
         have the bundle signed with minisign -t \"{COMMENT_PREFIX}NAME VERSION\"", path.display()
    )]
    Comment {
        /// The signature.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// The file was signed as another than its name says.
    #[error(
        "{} was signed as {signed}, whose file is called {expected}: somebody renamed it; \
         rename it back if {signed} is what you want", file.display()
    )]
    Misnamed {
        /// The file.
        file: PathBuf,
        /// What it is.
        signed: BundleId,
        /// How it must be called.
        expected: String,
    },
}

impl TrustedKeys {
    /// Reads every `*.pub` of a folder; one that is no key is an error, so that nobody wonders why it does not count.
    ///
    /// # Errors
    /// When the folder is there but cannot be read, or when it or a key may be changed by others.
    pub fn read(directory: &Path) -> Result<Self, SignatureError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SignatureError::Keys { path, source }
        };
        let mut keys = Vec::new();
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { directory: directory.to_owned(), keys });
            }
            Err(error) => return Err(failed(directory)(error)),
        };
        guarded(directory)?;
        for entry in entries {
            let path = entry.map_err(failed(directory))?.path();
            if path.extension().is_none_or(|extension| extension != KEY_EXTENSION) {
                continue;
            }
            guarded(&path)?;
            let text = read_text(&path).map_err(failed(&path))?;
            let key = PublicKey::decode(text.trim())
                .map_err(|e| SignatureError::Key { path: path.clone(), reason: e.to_string() })?;
            let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            keys.push(TrustedKey { name, key });
        }
        keys.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { directory: directory.to_owned(), keys })
    }

    /// Verifies `bytes`, which were read from `file`, against the signature beside it, and that the file's name is the
    /// one of the bundle that was signed.
    ///
    /// # Errors
    /// When no trusted key vouches for exactly this.
    pub fn verify(&self, file: &Path, bytes: &[u8]) -> Result<Claim, SignatureError> {
        if self.keys.is_empty() {
            return Err(SignatureError::NobodyTrusted { directory: self.directory.clone() });
        }
        let mut path = file.as_os_str().to_owned();
        path.push(SIGNATURE_SUFFIX);
        let path = PathBuf::from(path);
        let text = match read_text(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SignatureError::Unsigned { path }),
            Err(source) => return Err(SignatureError::Read { path, source }),
        };
        self.verify_text(file, bytes, path, &text)
    }

    /// As [`verify`](Self::verify), where `text` is what stands in the signature's file at `path`.
    fn verify_text(&self, file: &Path, bytes: &[u8], path: PathBuf, text: &str) -> Result<Claim, SignatureError> {
        let signature = match Signature::decode(text) {
            Ok(signature) => signature,
            Err(e) => return Err(SignatureError::Malformed { path, reason: e.to_string() }),
        };
        let signed_by = self.signer(file, bytes, path.clone(), &signature)?;
        let comment = signature.trusted_comment();
        let id = parse_comment(comment)
            .ok_or_else(|| SignatureError::Comment { path, found: comment.chars().take(200).collect() })?;
        let expected = id.archive_name();
        if file.file_name().is_none_or(|name| *name != *expected) {
            return Err(SignatureError::Misnamed { file: file.to_owned(), signed: id, expected });
        }
        Ok(Claim { id, signed_by })
    }

    fn signer(
        &self,
        file: &Path,
        bytes: &[u8],
        path: PathBuf,
        signature: &Signature,
    ) -> Result<String, SignatureError> {
        let mut forged = false;
        for TrustedKey { name, key } in &self.keys {
            match key.verify(bytes, signature, false) {
                Ok(()) => return Ok(name.clone()),
                Err(Minisign::UnexpectedKeyId) => {}
                Err(Minisign::UnexpectedAlgorithm | Minisign::UnsupportedLegacyMode) => {
                    return Err(SignatureError::Legacy { path });
                }
                Err(_) => forged = true,
            }
        }
        if forged {
            return Err(SignatureError::Forged { file: file.to_owned(), path });
        }
        let known = self.keys.iter().map(|key| key.name.clone()).collect();
        Err(SignatureError::UnknownKey { path, directory: self.directory.clone(), known })
    }
}

/// What a bundle's signature must have as its trusted comment.
#[must_use]
pub fn trusted_comment(id: &BundleId) -> String {
    format!("{COMMENT_PREFIX}{} {}", id.name(), id.version())
}

fn parse_comment(comment: &str) -> Option<BundleId> {
    let (name, version) = comment.strip_prefix(COMMENT_PREFIX)?.split_once(' ')?;
    BundleId::new(name, version).ok()
}

fn read_text(path: &Path) -> io::Result<String> {
    let bytes = durable::read_up_to(fs::File::open(path)?, MAX_TEXT_BYTES)?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text"))
}

fn guarded(path: &Path) -> Result<(), SignatureError> {
    let metadata = fs::metadata(path).map_err(|source| SignatureError::Keys { path: path.to_owned(), source })?;
    let owner = metadata.uid();
    let ours = owner == 0 || owner == rustix::process::geteuid().as_raw();
    if !ours || metadata.permissions().mode() & 0o022 != 0 {
        return Err(SignatureError::Writable { path: path.to_owned() });
    }
    Ok(())
}

/// Takes bytes for the signature of a bundle: only one that was made for just this bundle is good.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    /// Its private half was thrown away.
    const KEY: &str = "RWRRuGGQvChiEPlL0UW+99II3DJo0TFeA02xKSDoG615MEQFQt+0iqp9";
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let key = PublicKey::decode(&format!("untrusted comment: maker\n{KEY}")).expect("a key");
    let trusted = TrustedKeys {
        directory: PathBuf::from(TRUST_DIRECTORY),
        keys: vec![TrustedKey { name: "maker".to_owned(), key }],
    };
    let file = Path::new("fuzz-1.2.3.tar.gz");
    let verify = |content: &[u8]| trusted.verify_text(file, content, PathBuf::from("fuzz-1.2.3.tar.gz.minisig"), text);
    if let Ok(claim) = verify(b"a bundle") {
        assert_eq!((claim.id.archive_name().as_str(), claim.signed_by.as_str()), ("fuzz-1.2.3.tar.gz", "maker"));
    }
    assert!(verify(b"another bundle").is_err(), "nobody signed that");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comment_is_read_back_and_nothing_else_passes_for_one() {
        let id = BundleId::new("ceph19-nfdp", "1.2.3").expect("sound");
        assert_eq!(parse_comment(&trusted_comment(&id)), Some(id));
        for comment in [
            "",
            "landmarkd bundle",
            "landmarkd bundle a",
            "landmarkd bundle a 1.2",
            "landmarkd bundle a 1.2.3 x",
            "landmarkd bundle  a 1.2.3",
            " landmarkd bundle a 1.2.3",
            "landmarkd bundle ../a 1.2.3",
            "timestamp:1700000000\tfile:a-1.2.3.tar.gz\thashed",
        ] {
            assert_eq!(parse_comment(comment), None, "{comment:?}");
        }
    }

    #[test]
    fn a_folder_that_is_missing_or_empty_trusts_nobody() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for directory in [folder.path().to_owned(), folder.path().join("missing")] {
            let trusted = TrustedKeys::read(&directory).expect("nothing to read");
            let error = trusted.verify(&folder.path().join("a-1.0.0.tar.gz"), b"").expect_err("nobody vouches");
            assert!(matches!(error, SignatureError::NobodyTrusted { .. }), "{error}");
        }
    }

    #[test]
    fn a_key_that_others_may_change_or_that_is_none_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("maker.pub");
        fs::write(&path, "not a key\n").expect("ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).expect("ours");
        let error = TrustedKeys::read(folder.path()).expect_err("writable by the group");
        assert!(matches!(&error, SignatureError::Writable { path: found } if *found == path), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("ours");
        let error = TrustedKeys::read(folder.path()).expect_err("no key");
        assert!(matches!(&error, SignatureError::Key { path: found, .. } if *found == path), "{error}");
    }
}
