//! The last starts of the daemon, and whether it ends again and again (R36).
//!
//! A run that was not told to stop ended uncleanly: killed by the system, the watchdog or a crash, or given up by
//! itself. Five of these in ten minutes, with no clean end between, are a crash loop: the next run is in safe mode.

use std::fs;

use crate::crash_point;
use redb::{Database, ReadableTable, TableDefinition};
use tracing::warn;

/// Unclean ends that make a loop.
const ENDS: usize = 5;
/// Within so many seconds; after as many without another, safe mode ends.
pub(super) const WINDOW_S: u64 = 600;
/// Starts remembered.
const KEPT: u64 = 16;

/// The number of the start -> the kernel's boot, seconds of its uptime, whether the run ended cleanly.
const STARTS: TableDefinition<'_, u64, (&str, u64, bool)> = TableDefinition::new("daemon.starts");

/// A moment that no clock change moves.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Moment {
    boot: String,
    uptime_s: u64,
}

/// One run of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Start {
    at: Moment,
    clean: bool,
}

/// This run, on record.
#[derive(Clone, Copy, Debug)]
pub(super) struct ThisRun {
    number: u64,
    /// It follows a crash loop.
    pub(super) is_safe: bool,
}

/// Records this start. A store that cannot be read or written is told elsewhere; here it only means no safe mode.
pub(super) fn begin(database: &Database) -> ThisRun {
    let recorded = Moment::now().map_err(redb::Error::Io).and_then(|now| record(database, &now));
    recorded.unwrap_or_else(|error| {
        warn!("the starts of the daemon are not on record: {error}");
        ThisRun { number: 0, is_safe: false }
    })
}

/// Records that this run ended as it was told to.
pub(super) fn end_cleanly(database: &Database, run: ThisRun) {
    if let Err(error) = mark_clean(database, run.number) {
        warn!("the end of the daemon is not on record: {error}");
    }
}

impl Moment {
    fn now() -> std::io::Result<Self> {
        // Seconds since boot, suspended ones included (proc_uptime(5)).
        let uptime = fs::read_to_string("/proc/uptime")?;
        let seconds = uptime.split('.').next().and_then(|seconds| seconds.parse().ok());
        Ok(Self {
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned(),
            uptime_s: seconds.ok_or(std::io::ErrorKind::InvalidData)?,
        })
    }
}

fn record(database: &Database, now: &Moment) -> Result<ThisRun, redb::Error> {
    let tx = database.begin_write()?;
    let run;
    {
        let mut table = tx.open_table(STARTS)?;
        let mut starts = Vec::new();
        let mut last = 0;
        for row in table.iter()? {
            let (number, row) = row?;
            last = number.value();
            let (boot, uptime_s, clean) = row.value();
            starts.push(Start { at: Moment { boot: boot.to_owned(), uptime_s }, clean });
        }
        run = ThisRun { number: last + 1, is_safe: is_loop(&starts, now) };
        table.insert(run.number, (now.boot.as_str(), now.uptime_s, false))?;
        table.retain(|number, _| number + KEPT > run.number)?;
    }
    crash_point::step("starts.recorded", || tx.commit())?;
    Ok(run)
}

fn mark_clean(database: &Database, number: u64) -> Result<(), redb::Error> {
    let tx = database.begin_write()?;
    {
        let mut table = tx.open_table(STARTS)?;
        let row = table.get(number)?.map(|row| {
            let (boot, uptime_s, _) = row.value();
            (boot.to_owned(), uptime_s)
        });
        if let Some((boot, uptime_s)) = row {
            table.insert(number, (boot.as_str(), uptime_s, true))?;
        }
    }
    crash_point::step("starts.clean", || tx.commit())?;
    Ok(())
}

/// Whether the runs in `starts`, oldest first, ended uncleanly so often before `now` that this is a loop.
///
/// A run's end is the next one's start, which comes seconds later. Another boot of the machine began a new count: a
/// power cut ends every program.
fn is_loop(starts: &[Start], now: &Moment) -> bool {
    let ends = starts.iter().skip(1).map(|next| &next.at).chain([now]);
    let runs: Vec<_> = starts.iter().zip(ends).collect();
    let in_row = runs.iter().rev().take_while(|(run, end)| {
        let recent = end.uptime_s.saturating_add(WINDOW_S) >= now.uptime_s;
        !run.clean && run.at.boot == now.boot && end.boot == now.boot && recent
    });
    in_row.count() >= ENDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(uptime_s: u64) -> Moment {
        Moment { boot: "this".to_owned(), uptime_s }
    }

    fn unclean(times: impl IntoIterator<Item = u64>) -> Vec<Start> {
        times.into_iter().map(|s| Start { at: at(s), clean: false }).collect()
    }

    #[test]
    fn five_unclean_ends_in_ten_minutes_are_a_loop() {
        let clean_between = |mut starts: Vec<Start>| {
            starts[3].clean = true;
            starts
        };
        let other_boot = |mut starts: Vec<Start>| {
            starts.iter_mut().for_each(|start| start.at.boot = "other".to_owned());
            starts
        };
        for (what, starts, now, expected) in [
            ("the first start", vec![], 10, false),
            ("four", unclean([0, 5, 10, 15]), 20, false),
            ("five", unclean([0, 5, 10, 15, 20]), 25, true),
            ("five in exactly ten minutes", unclean([0, 5, 10, 15, 20]), 605, true),
            ("the first of five ended too long ago", unclean([0, 5, 10, 15, 20]), 606, false),
            ("a long run that ended only now counts", unclean([0, 100_000, 100_001, 100_002, 100_003]), 100_004, true),
            ("one each three minutes", unclean((0..16).map(|n| n * 180)), 16 * 180, false),
            ("a clean end between", clean_between(unclean([0, 5, 10, 15, 20, 25])), 30, false),
            ("before a restart of the machine", other_boot(unclean([0, 5, 10, 15, 20])), 25, false),
        ] {
            assert_eq!(is_loop(&starts, &at(now)), expected, "{what}");
        }
    }

    #[test]
    fn starts_are_kept_with_their_ends_and_not_for_ever() {
        let backend = redb::backends::InMemoryBackend::new();
        let database = Database::builder().create_with_backend(backend).expect("memory is there");
        for n in 0..40 {
            let run = record(&database, &at(n)).expect("writable");
            assert_eq!((run.number, run.is_safe), (n + 1, n >= 5), "start {n}");
        }
        let tx = database.begin_write().expect("writable");
        let kept = tx.open_table(STARTS).expect("readable").iter().expect("readable").count();
        assert_eq!(kept as u64, KEPT);
        drop(tx);
        let run = record(&database, &at(40)).expect("writable");
        mark_clean(&database, run.number).expect("writable");
        assert!(!record(&database, &at(41)).expect("writable").is_safe);
        assert!(Moment::now().is_ok_and(|now| !now.boot.is_empty()));
    }
}
