//! One settled file, from its name to a verdict: read, hash, gate, ledger. Blocking.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::SystemTime;

use super::completeness::{Completeness, completeness};
use super::film::Refusal;
use super::identity::{FilmId, FilmSource};
use super::ledger::{FilmState, Ledger, LedgerError};
use super::open::{ReadError, Root};
use super::settle::Due;
use crate::config::AcquisitionSettings;

/// What a look inside a file says.
#[derive(Debug)]
pub(super) enum Examined {
    /// A whole film, new or unfinished.
    Film { source: FilmSource, bytes: Vec<u8>, attempts: u32 },
    /// A whole film whose attempts are used up.
    Exhausted { source: FilmSource, bytes: Vec<u8>, attempts: u32 },
    /// It will not become a film.
    Refused { source: FilmSource, why: Refusal },
    /// A film that ended before, under this name or another.
    Known { source: FilmSource },
    /// Not whole: wait for a change.
    Incomplete,
    /// It is being written: wait until it settles again.
    Changed,
    /// Nothing to read there.
    Gone,
    /// It cannot be read now.
    Unreadable { error: io::Error },
}

/// Reads and judges the file `due` of the folder in `settings`.
///
/// # Errors
/// [`LedgerError`] only; what is wrong with the file is a verdict.
pub(super) fn examine(settings: &AcquisitionSettings, ledger: &Ledger, due: &Due) -> Result<Examined, LedgerError> {
    let Due { path, file, last } = due;
    // Without its folder a file is gone; the next round says so.
    let Ok(root) = Root::open(&settings.folder) else { return Ok(Examined::Gone) };
    let bytes = match root.read(path, file, settings.max_file_bytes) {
        Ok(bytes) => bytes,
        Err(ReadError::Changed) => return Ok(Examined::Changed),
        Err(ReadError::Gone | ReadError::NotRegular) => return Ok(Examined::Gone),
        Err(ReadError::TooLarge { found, limit }) => {
            let why = Refusal::TooLarge { bytes: found, limit };
            let refused = refuse(ledger, FilmSource::unread(path, file), why)?;
            return Ok(refused.unwrap_or_else(|source| Examined::Known { source }));
        }
        // A missing right is about this file; any other failure may be the disk's or the network's, and pass.
        Err(ReadError::Io(error)) if *last && error.kind() == io::ErrorKind::PermissionDenied => {
            let refused = refuse(ledger, FilmSource::unread(path, file), Refusal::Unreadable)?;
            return Ok(refused.unwrap_or(Examined::Unreadable { error }));
        }
        Err(ReadError::Io(error)) => return Ok(Examined::Unreadable { error }),
    };
    let source = FilmSource { film: FilmId::of(&bytes), path: path.clone(), file: *file };
    // A walker that panics must not take the daemon with it before the attempt is counted; the decoder is guarded.
    let verdict = catch_unwind(AssertUnwindSafe(|| completeness(&bytes))).unwrap_or(Completeness::Unknown);
    match verdict {
        Completeness::Incomplete { why } if *last => {
            let refused = refuse(ledger, source, Refusal::Incomplete { why })?;
            return Ok(refused.unwrap_or_else(|source| Examined::Known { source }));
        }
        Completeness::Incomplete { .. } => return Ok(Examined::Incomplete),
        Completeness::ZeroTail if !*last => return Ok(Examined::Incomplete),
        Completeness::Complete | Completeness::ZeroTail | Completeness::Unknown => {}
    }
    let record = ledger.snapshot()?.film(source.film)?;
    let attempts = record.map_or(0, |record| record.attempts);
    Ok(match record.map(|record| record.state) {
        Some(FilmState::Ended(_)) => Examined::Known { source },
        _ if attempts >= settings.max_attempts => Examined::Exhausted { source, bytes, attempts },
        _ => Examined::Film { source, bytes, attempts },
    })
}

/// The refusal of a file, or its source back where it was refused before: it is published once (R7).
fn refuse(ledger: &Ledger, source: FilmSource, why: Refusal) -> Result<Result<Examined, FilmSource>, LedgerError> {
    let record = ledger.snapshot()?.film(source.film)?;
    let Some(record) = record.filter(|record| record.state != FilmState::Attempting) else {
        return Ok(Ok(Examined::Refused { source, why }));
    };
    // A file that is never read is sighted here and nowhere else.
    let now = SystemTime::now();
    if record.is_stale(now) {
        ledger.sight(&[source.film], now)?;
    }
    Ok(Err(source))
}
