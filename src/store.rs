//! The state directory: one transactional file that outlives the process, and who may use it.
//!
//! `<state>/state.redb` holds the ledger of films, the outbox and the daemon's identity. What belongs together is
//! written in one transaction; a commit returns only when it is on the disk (redb's `Durability::Immediate`, its
//! default). The file is locked while it is open, so two daemons never share one.
//!
//! A file that does not read as ours is never replaced: it may hold results that nobody has yet.

mod backend;
mod room;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use self::backend::PulsedBackend;
pub use self::room::{DiskRoom, is_full};
use crate::crash_point;
use crate::disposition::Disposition;
use crate::pulse::Pulse;
use crate::report::TokenKey;
use crate::secret::{self, SecretError};

/// The database's file in the state directory.
pub const DATABASE_FILE: &str = "state.redb";

/// Of the tables of this module; outbox and ledger version their own records.
const FORMAT: u64 = 1;
/// redb's default of 1 GiB is more memory than the whole daemon may use.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("store.numbers");
const SECRETS: TableDefinition<&str, &[u8]> = TableDefinition::new("store.secrets");

/// An open state directory; as long as it lives no other daemon can use it.
#[derive(Debug)]
pub struct Store {
    database: Arc<Database>,
    epoch: String,
    boot: u64,
    token_key: TokenKey,
    pulse: Pulse,
    room: DiskRoom,
}

/// A state directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or file cannot be made, opened or written.
    #[error("cannot use {}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "{} is in use by another landmarkd: stop it, or give this one its own [state] directory",
        path.display()
    )]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// It does not read as a database of ours.
    #[error(
        "{} is damaged ({reason}): it may hold results that were not delivered, so it is left as it is; \
         restore it from a backup, or move it away to start with an empty one",
        path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Another version wrote it.
    #[error(
        "{} has format {found}, this version reads {expected}: \
         install the version that wrote it, or move it away to start with an empty one",
        path.display()
    )]
    Format {
        /// The database.
        path: PathBuf,
        /// What this version reads.
        expected: u64,
        /// What it says.
        found: u64,
    },
    /// The configured key for tokens cannot be had.
    #[error("no key for tokens of DICOM identifiers")]
    TokenKey(#[from] SecretError),
}

impl StoreError {
    /// Without its state the daemon cannot keep its promises.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        Disposition::Fatal
    }
}

impl Store {
    /// Opens the state in `directory`, or makes it: the directory for its owner alone (0700), the file too (0600).
    ///
    /// The key for tokens is read from `token_key_file`, or made at the first start and kept in the state.
    ///
    /// A full disk is an error.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing is ever replaced or deleted.
    pub fn open(directory: &Path, token_key_file: Option<&Path>) -> Result<Self, StoreError> {
        Self::open_in(DiskRoom::impatient(), directory, token_key_file)
    }

    /// The same; a full disk is what `room` makes of it, now and later.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing is ever replaced or deleted.
    pub fn open_in(room: DiskRoom, directory: &Path, token_key_file: Option<&Path>) -> Result<Self, StoreError> {
        room.wait_for(|| make_private(directory))
            .map_err(|source| StoreError::Io { path: directory.to_owned(), source })?;
        let path = directory.join(DATABASE_FILE);
        if !path.exists() {
            create(directory, &path, &room)?;
        }
        let pulse = Pulse::new("the state directory");
        let database = opened(&path, &pulse, &room)?;
        let configured = token_key_file.map(secret::read).transpose()?;
        let (epoch, boot, kept) = start(&database).map_err(|error| explain(&path, error))?;
        let token_key = TokenKey::new(configured.unwrap_or(kept));
        Ok(Self { database: Arc::new(database), epoch, boot, token_key, pulse, room })
    }

    /// Opens the state that a stopped daemon has left in `directory`, for a person to look at: no start is counted, and
    /// nothing is made.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::Io`] where there is no state, [`StoreError::InUse`] while the daemon runs.
    pub fn inspect(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(DATABASE_FILE);
        let pulse = Pulse::new("the state directory");
        let room = DiskRoom::impatient();
        let database = opened(&path, &pulse, &room)?;
        let (epoch, boot, key) = identity(&database).map_err(|error| explain(&path, error))?;
        Ok(Self { database: Arc::new(database), epoch, boot, token_key: TokenKey::new(key), pulse, room })
    }

    /// The database, for the rooms that keep their tables in it.
    #[must_use]
    pub const fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// The random id of this state directory, 32 hexadecimal digits: sequence numbers count within it (R28).
    #[must_use]
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// The number of this start, from 1.
    #[must_use]
    pub const fn boot(&self) -> u64 {
        self.boot
    }

    /// Which run of the daemon this is: `<epoch>-<number of the start>`, never the same twice.
    #[must_use]
    pub fn boot_id(&self) -> String {
        format!("{}-{}", self.epoch, self.boot)
    }

    /// The room on its disk.
    #[must_use]
    pub const fn room(&self) -> &DiskRoom {
        &self.room
    }

    /// Busy while the disk has not answered.
    #[must_use]
    pub const fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// The site's key for tokens of DICOM identifiers (R31).
    #[must_use]
    pub const fn token_key(&self) -> &TokenKey {
        &self.token_key
    }
}

fn make_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mode = fs::metadata(directory)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Makes the database under another name and gives it its own when it is whole, so that a power cut in between leaves
/// no half-made file that later starts would call damaged.
fn create(directory: &Path, path: &Path, room: &DiskRoom) -> Result<(), StoreError> {
    let unfinished = directory.join("state.redb.new");
    let failed = |source| StoreError::Io { path: unfinished.clone(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    let file = room.wait_for(|| options.open(&unfinished)).map_err(failed)?;
    let database = database(&unfinished, file, &Pulse::new("the state directory"), room)?;
    write_identity(&database).map_err(|error| explain(&unfinished, error))?;
    drop(database);
    room.wait_for(|| crash_point::step("store.rename", || fs::rename(&unfinished, path))).map_err(failed)?;
    crash_point::step("store.directory", || File::open(directory)?.sync_all()).map_err(failed)
}

/// A database that is there.
fn opened(path: &Path, pulse: &Pulse, room: &DiskRoom) -> Result<Database, StoreError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|source| StoreError::Io { path: path.to_owned(), source })?;
    if file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
        // redb would take an empty file for a new database.
        return Err(StoreError::Damaged { path: path.to_owned(), reason: "it is empty".to_owned() });
    }
    database(path, file, pulse, room)
}

fn database(path: &Path, file: File, pulse: &Pulse, room: &DiskRoom) -> Result<Database, StoreError> {
    FileBackend::new(file)
        .map(|backend| PulsedBackend::new(backend, pulse.clone(), room.clone()))
        .and_then(|backend| Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend))
        .map_err(|error| explain(path, error))
}

fn write_identity(database: &Database) -> Result<(), redb::Error> {
    let tx = database.begin_write()?;
    {
        let mut numbers = tx.open_table(NUMBERS)?;
        numbers.insert("format", FORMAT)?;
        numbers.insert("boot", 0)?;
        let mut secrets = tx.open_table(SECRETS)?;
        secrets.insert("epoch", random::<16>()?.as_slice())?;
        secrets.insert("token_key", random::<32>()?.as_slice())?;
    }
    crash_point::step("store.identity", || tx.commit())?;
    Ok(())
}

/// Counts this start and yields the epoch, the count and the key that was made at the first one.
fn start(database: &Database) -> Result<(String, u64, Vec<u8>), Unusable> {
    let format = number(database, "format")?;
    if format != FORMAT {
        return Err(Unusable::Format(format));
    }
    let tx = database.begin_write()?;
    let (epoch, boot, token_key);
    {
        let mut numbers = tx.open_table(NUMBERS)?;
        boot = numbers.get("boot")?.map_or(0, |n| n.value()) + 1;
        numbers.insert("boot", boot)?;
        let secrets = tx.open_table(SECRETS)?;
        let bytes = |name| secrets.get(name)?.map(|v| v.value().to_vec()).ok_or(Unusable::Missing(name));
        epoch = bytes("epoch")?.iter().map(|byte| format!("{byte:02x}")).collect();
        token_key = bytes("token_key")?;
    }
    crash_point::step("store.start", || tx.commit())?;
    Ok((epoch, boot, token_key))
}

/// The epoch, the count of starts and the key, as they are.
fn identity(database: &Database) -> Result<(String, u64, Vec<u8>), Unusable> {
    let format = number(database, "format")?;
    if format != FORMAT {
        return Err(Unusable::Format(format));
    }
    let secrets = database.begin_read()?.open_table(SECRETS)?;
    let bytes = |name| secrets.get(name)?.map(|v| v.value().to_vec()).ok_or(Unusable::Missing(name));
    let epoch = bytes("epoch")?.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((epoch, number(database, "boot")?, bytes("token_key")?))
}

fn number(database: &Database, name: &'static str) -> Result<u64, Unusable> {
    let numbers = database.begin_read()?.open_table(NUMBERS)?;
    numbers.get(name)?.map(|n| n.value()).ok_or(Unusable::Missing(name))
}

/// Why the content of a database that opened is of no use.
enum Unusable {
    Format(u64),
    Missing(&'static str),
    Redb(redb::Error),
}

impl<E: Into<redb::Error>> From<E> for Unusable {
    fn from(error: E) -> Self {
        Self::Redb(error.into())
    }
}

fn explain(path: &Path, error: impl Into<Unusable>) -> StoreError {
    let path = path.to_owned();
    match error.into() {
        Unusable::Format(found) => StoreError::Format { path, expected: FORMAT, found },
        Unusable::Missing(name) => StoreError::Damaged { path, reason: format!("it has no {name}") },
        Unusable::Redb(redb::Error::DatabaseAlreadyOpen) => StoreError::InUse { path },
        Unusable::Redb(redb::Error::Io(source)) if !is_about_content(&source) => StoreError::Io { path, source },
        Unusable::Redb(error) => StoreError::Damaged { path, reason: error.to_string() },
    }
}

/// redb tells some damage as an I/O error of these kinds.
fn is_about_content(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn random<const N: usize>() -> Result<[u8; N], redb::Error> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| redb::Error::Io(errno.into()))?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_keeps_epoch_and_key_and_counts() {
        let home = tempfile::tempdir().expect("a directory");
        let directory = home.path().join("a/state");
        let open = || Store::open(&directory, None).expect("usable");
        let first = open();
        let (epoch, key) = (first.epoch().to_owned(), first.token_key().clone());
        assert_eq!(epoch.len(), 32);
        assert_eq!(first.boot_id(), format!("{epoch}-1"));
        drop(first);
        let second = open();
        assert_eq!((second.boot_id(), second.token_key()), (format!("{epoch}-2"), &key));
        let other = Store::open(&home.path().join("b"), None).expect("usable");
        assert!(other.epoch() != epoch && other.token_key() != &key);
    }

    #[test]
    fn to_look_at_the_state_counts_no_start_and_makes_nothing() {
        let home = tempfile::tempdir().expect("a directory");
        let absent = home.path().join("state");
        let error = Store::inspect(&absent).expect_err("nothing is there");
        assert!(matches!(error, StoreError::Io { .. }) && !absent.exists(), "{error}");

        let daemon = Store::open(&absent, None).expect("usable");
        assert!(matches!(Store::inspect(&absent), Err(StoreError::InUse { .. })));
        let boot = daemon.boot_id();
        drop(daemon);
        for _ in 0..2 {
            assert_eq!(Store::inspect(&absent).expect("usable").boot_id(), boot);
        }
    }

    #[test]
    fn only_its_owner_can_read_it() {
        let home = tempfile::tempdir().expect("a directory");
        let directory = home.path().join("state");
        fs::create_dir(&directory).expect("new");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("ours");
        let _store = Store::open(&directory, None).expect("usable");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&directory.join("state.redb"))), (0o700, 0o600));
        assert!(!directory.join("state.redb.new").exists());
    }

    #[test]
    fn a_second_daemon_is_told_so() {
        let home = tempfile::tempdir().expect("a directory");
        let _first = Store::open(home.path(), None).expect("usable");
        let error = Store::open(home.path(), None).expect_err("locked");
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        assert_eq!(error.disposition(), Disposition::Fatal);
    }

    #[test]
    fn a_damaged_file_is_named_and_left_as_it_is() {
        let home = tempfile::tempdir().expect("a directory");
        drop(Store::open(home.path(), None).expect("usable"));
        let path = home.path().join("state.redb");
        let whole = fs::read(&path).expect("there");
        let mut zeroed = whole.clone();
        zeroed[..512].fill(0);
        for damaged in [Vec::new(), b"not a database".to_vec(), vec![0; 8192], zeroed, whole[..4096].to_vec()] {
            fs::write(&path, &damaged).expect("writable");
            let error = Store::open(home.path(), None).expect_err("damaged");
            let text = error.to_string();
            assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
            assert!(text.contains("state.redb") && text.contains("restore it from a backup"), "{text}");
            assert_eq!(fs::read(&path).expect("there"), damaged, "left as it is");
        }
    }

    #[test]
    fn a_file_of_another_format_is_refused() {
        let home = tempfile::tempdir().expect("a directory");
        let store = Store::open(home.path(), None).expect("usable");
        let tx = store.database().begin_write().expect("open");
        tx.open_table(NUMBERS).expect("there").insert("format", 9).expect("writable");
        tx.commit().expect("written");
        drop(store);
        let error = Store::open(home.path(), None).expect_err("unknown format");
        assert!(matches!(error, StoreError::Format { expected: 1, found: 9, .. }), "{error}");
    }

    #[test]
    fn a_configured_key_is_used_and_one_that_others_can_read_is_not() {
        let home = tempfile::tempdir().expect("a directory");
        let key = home.path().join("key");
        fs::write(&key, "site key").expect("writable");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("ours");
        let state = home.path().join("state");
        assert_eq!(Store::open(&state, Some(&key)).expect("usable").token_key(), &TokenKey::new("site key"));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("ours");
        assert!(matches!(Store::open(&state, Some(&key)), Err(StoreError::TokenKey(_))));
    }
}
