//! One settled file, from its name to a verdict: read, hash, gate, ledger. Blocking.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::SystemTime;

use super::completeness::{Completeness, completeness};
use super::film::{Acquired, AcquiredFilm, InFlight, Refusal, RefusedFile};
use super::identity::{FilmId, FilmSource};
use super::ledger::{FilmState, Ledger, LedgerError};
use super::open::{ReadError, Root};
use super::settle::Due;
use crate::config::AcquisitionSettings;

/// What a look inside a file says.
#[derive(Debug)]
pub(super) enum Examined {
    /// To be handed out.
    Acquired(Acquired),
    /// A film that ended before, under this name or another.
    Known(FilmSource),
    /// The same bytes, under another name, are handed out and not yet finished.
    InFlight,
    /// Not whole: wait for a change.
    Incomplete,
    /// It is being written: wait until it settles again.
    Changed,
    /// Nothing to read there.
    Gone,
    /// It cannot be read now.
    Unreadable(io::Error),
}

/// Reads and judges the file `due` of the folder in `settings`.
///
/// # Errors
/// [`LedgerError`] only; what is wrong with the file is a verdict.
pub(super) fn examine(
    settings: &AcquisitionSettings,
    ledger: &Ledger,
    in_flight: &Arc<InFlight>,
    due: &Due,
) -> Result<Examined, LedgerError> {
    let Due { path, file, last } = due;
    let refuse = |source, why| refuse(ledger, in_flight, source, why);
    // Without its folder a file is gone; the next round says so.
    let Ok(root) = Root::open(&settings.folder) else { return Ok(Examined::Gone) };
    let bytes = match root.read(path, file, settings.max_file_bytes) {
        Ok(bytes) => bytes,
        Err(ReadError::Changed) => return Ok(Examined::Changed),
        Err(ReadError::Gone | ReadError::NotRegular) => return Ok(Examined::Gone),
        // Whoever writes it may not be through: each state that rests for a moment would be refused anew.
        Err(ReadError::TooLarge { .. }) if !*last => return Ok(Examined::Incomplete),
        Err(ReadError::TooLarge { found, limit }) => {
            return refuse(FilmSource::unread(path, file), Refusal::TooLarge { bytes: found, limit });
        }
        // A missing right is about this file; any other failure may be the disk's or the network's, and pass.
        Err(ReadError::Io(error)) if *last && error.kind() == io::ErrorKind::PermissionDenied => {
            return Ok(match refuse(FilmSource::unread(path, file), Refusal::Unreadable)? {
                Examined::Known(_) => Examined::Unreadable(error),
                refused => refused,
            });
        }
        Err(ReadError::Io(error)) => return Ok(Examined::Unreadable(error)),
    };
    let source = FilmSource { film: FilmId::of(&bytes), path: path.clone(), file: *file };
    // A walker that panics must not take the daemon with it before the attempt is counted; the decoder is guarded.
    match catch_unwind(AssertUnwindSafe(|| completeness(&bytes))).unwrap_or(Completeness::Unknown) {
        Completeness::Incomplete { why } if *last => refuse(source, Refusal::Incomplete { why }),
        Completeness::Incomplete { .. } => Ok(Examined::Incomplete),
        Completeness::ZeroTail if !*last => Ok(Examined::Incomplete),
        Completeness::Complete | Completeness::ZeroTail | Completeness::Unknown => {
            hand_out(settings, ledger, in_flight, source, bytes)
        }
    }
}

fn hand_out(
    settings: &AcquisitionSettings,
    ledger: &Ledger,
    in_flight: &Arc<InFlight>,
    source: FilmSource,
    bytes: Vec<u8>,
) -> Result<Examined, LedgerError> {
    // The lease comes first: else the film could be finished and given back between the look at the ledger and it.
    let Some(lease) = in_flight.lease(&source) else { return Ok(Examined::InFlight) };
    let record = ledger.snapshot()?.film(source.film)?;
    if record.is_some_and(|record| record.state != FilmState::Attempting) {
        lease.cancel();
        return Ok(Examined::Known(source));
    }
    let attempts = record.map_or(0, |record| record.attempts);
    let film = AcquiredFilm::new(source, bytes, attempts, lease);
    let exhausted = attempts >= settings.max_attempts;
    Ok(Examined::Acquired(if exhausted { Acquired::Exhausted(film) } else { Acquired::Film(film) }))
}

/// The refusal of a file, published once for the same bytes or the same state of an unread file (R7).
fn refuse(
    ledger: &Ledger,
    in_flight: &Arc<InFlight>,
    source: FilmSource,
    why: Refusal,
) -> Result<Examined, LedgerError> {
    let Some(lease) = in_flight.lease(&source) else { return Ok(Examined::InFlight) };
    let record = ledger.snapshot()?.film(source.film)?;
    let Some(record) = record.filter(|record| record.state != FilmState::Attempting) else {
        return Ok(Examined::Acquired(Acquired::Refused(RefusedFile::new(source, why, lease))));
    };
    lease.cancel();
    // A file that is never read is sighted here and nowhere else.
    let now = SystemTime::now();
    if record.is_stale(now) {
        ledger.sight(&[source.film], now)?;
    }
    Ok(Examined::Known(source))
}
