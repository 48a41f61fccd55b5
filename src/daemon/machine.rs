//! The look at the machine: how it is, for the page and the metrics, and whether it throttles, for status and worker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::condition::ConditionBoard;
use super::visible::Visible;
use crate::acquisition::{FAULT_LOG_INTERVAL, FaultLog};
use crate::report::ThrottleCause;
use crate::telemetry::{Board, Machine, Prober, Root, Source};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(5);
/// Throttling comes and goes within seconds; it is over once the machine has not throttled for so long.
const CALM: Duration = Duration::from_secs(15);

/// Keeps the look going; dropping it ends the thread, at once or after the read that it waits for.
pub(super) struct MachineWatch {
    _stop: Sender<()>,
}

/// Looks at the machine until what it returns is dropped, on a thread of its own: what hangs there, hangs there.
pub(super) fn watch(root: Root, condition: Arc<ConditionBoard>, visible: Arc<Visible>) -> Option<MachineWatch> {
    let (stop, stopped) = channel();
    let looks = move || look(Prober::new(root), &condition, &visible, &stopped);
    match std::thread::Builder::new().name("telemetry".into()).spawn(looks) {
        Ok(_) => Some(MachineWatch { _stop: stop }),
        Err(why) => {
            error!("nobody looks at temperatures and clocks: {why}");
            None
        }
    }
}

fn look(mut prober: Prober, condition: &ConditionBoard, visible: &Visible, stopped: &Receiver<()>) {
    let (mut told, mut recent) = (Told::default(), Recent::default());
    loop {
        let mut machine = prober.look();
        machine.throttled_by = recent.add(&machine.throttled_by, Instant::now());
        condition.machine(&machine.throttled_by, machine.board.power_mode.as_deref());
        visible.machine(machine.clone());
        told.of(&machine, prober.limit(), Instant::now());
        if stopped.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// Causes of throttling with the time at which each was last seen.
#[derive(Default)]
struct Recent(Vec<(ThrottleCause, Instant)>);

impl Recent {
    /// Those seen `now` and those that have not been away for [`CALM`].
    fn add(&mut self, seen: &BTreeSet<ThrottleCause>, now: Instant) -> BTreeSet<ThrottleCause> {
        self.0.retain(|(cause, last)| !seen.contains(cause) && now.saturating_duration_since(*last) < CALM);
        self.0.extend(seen.iter().map(|cause| (*cause, now)));
        self.0.iter().map(|(cause, _)| *cause).collect()
    }
}

/// What the journal was told last; what comes and goes again and again is told seldom (R15).
struct Told {
    board: Option<Board>,
    silent: BTreeSet<Source>,
    throttled_by: BTreeSet<ThrottleCause>,
    /// The journal believes that the machine throttles.
    is_slow: bool,
    silences: FaultLog<Source>,
    slowdowns: FaultLog<()>,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            board: None,
            silent: BTreeSet::new(),
            throttled_by: BTreeSet::new(),
            is_slow: false,
            silences: FaultLog::new(FAULT_LOG_INTERVAL),
            slowdowns: FaultLog::new(FAULT_LOG_INTERVAL),
        }
    }
}

impl Told {
    /// Tells what has changed.
    fn of(&mut self, machine: &Machine, limit: Duration, now: Instant) {
        let Machine { board, silent, throttled_by, .. } = machine;
        if self.board.as_ref() != Some(board) && !silent.contains(&Source::Board) {
            if *board != Board::default() {
                info!("this machine is {board}");
            }
            self.board = Some(board.clone());
        }
        for &source in silent.difference(&self.silent) {
            if let Some(times) = self.silences.occurred(source, now) {
                let (source, ms) = (source.word(), limit.as_millis());
                warn!(
                    "no answer from the machine within {ms} ms to: {source}; absent until it comes ({times} times so far)"
                );
            }
        }
        self.silent.clone_from(silent);
        if self.throttled_by == *throttled_by {
            return;
        }
        let causes: Vec<_> = throttled_by.iter().map(|cause| cause.words()).collect();
        if causes.is_empty() {
            if std::mem::take(&mut self.is_slow) {
                info!("the machine no longer slows itself down");
            }
        } else if let Some(times) = self.slowdowns.occurred((), now) {
            self.is_slow = true;
            let causes = causes.join(", ");
            warn!("the machine slows itself down: {causes}; the backlog is read with pauses ({times} times so far)");
        }
        self.throttled_by.clone_from(throttled_by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttling_is_over_when_it_has_been_away_for_a_while() {
        let (start, mut recent) = (Instant::now(), Recent::default());
        let (cpu, gpu) = (ThrottleCause::CpuHeat, ThrottleCause::GpuHeat);
        for (second, seen, expected) in [
            (0, vec![], vec![]),
            (5, vec![cpu], vec![cpu]),
            (10, vec![gpu], vec![cpu, gpu]),
            (15, vec![cpu], vec![cpu, gpu]),
            (24, vec![], vec![cpu, gpu]),
            (25, vec![], vec![cpu]),
            (29, vec![], vec![cpu]),
            (30, vec![], vec![]),
            (35, vec![gpu], vec![gpu]),
        ] {
            let found = recent.add(&seen.into_iter().collect(), start + Duration::from_secs(second));
            assert_eq!(found.into_iter().collect::<Vec<_>>(), expected, "at {second} s");
        }
    }
}
