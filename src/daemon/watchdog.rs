//! The service manager hears that all is well only while it is (R35).
//!
//! Every stage has a [`Pulse`], and `daemon.budget_s` says how long one piece of its work may take. A stage that hangs,
//! in the network, in a decoder or in a write that the disk never answers, stops the pings, and the service manager
//! kills and restarts the daemon. Work that waits for the broker is nobody's pulse: a restart would not bring the broker
//! back. The pings come from the runtime that all tasks share, so they stop as well when that no longer turns.

use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

use super::service_manager;
use crate::pulse::{Late, Pulse};

/// Pings within the time after which the service manager gives up.
const PINGS: u32 = 3;

/// What to do at a moment, and what to say about it.
#[derive(Debug, PartialEq, Eq)]
enum Beat {
    /// All is well: ping.
    Ping,
    /// A stage that was late before is not any more: ping, and say so.
    Recovered,
    /// A stage is late: no ping. It is said once.
    Late { late: Late, news: bool },
}

/// Looks at the pulses, moment after moment.
#[derive(Debug)]
struct Watchdog {
    pulses: Vec<Pulse>,
    budget: Duration,
    late: Option<&'static str>,
}

impl Watchdog {
    fn beat(&mut self, now: Instant) -> Beat {
        match self.pulses.iter().find_map(|pulse| pulse.late(self.budget, now)) {
            Some(late) => Beat::Late { late, news: self.late.replace(late.stage) != Some(late.stage) },
            None if self.late.take().is_some() => Beat::Recovered,
            None => Beat::Ping,
        }
    }
}

/// Pings as often as the service manager asks for, while every pulse is within its budget; without such a wish it
/// returns at once. It ends with the task it runs in.
pub(super) async fn run(pulses: Vec<Pulse>, budget: Duration) {
    let Some(patience) = service_manager::watchdog() else { return };
    let mut watchdog = Watchdog { pulses, budget, late: None };
    let mut ticks = interval((patience / PINGS).max(Duration::from_millis(1)));
    // After a standstill one ping is as good as many.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match watchdog.beat(Instant::now()) {
            Beat::Ping => service_manager::alive(),
            Beat::Recovered => {
                info!("every stage is within its budget again");
                ping().await;
            }
            Beat::Late { late: Late { stage, busy }, news: true } => {
                error!(
                    "{stage} hangs: it has been at one piece of work for {} s, {} s are allowed (daemon.budget_s); \
                     the service manager is left to restart the daemon",
                    busy.as_secs(),
                    budget.as_secs()
                );
            }
            Beat::Late { news: false, .. } => {}
        }
    }
}

/// Off the runtime's threads: a service manager that does not read holds up its next ping and nothing else.
async fn ping() {
    // The process is going away when this cannot be run.
    let _told = tokio::task::spawn_blocking(service_manager::alive).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_stop_while_any_stage_is_late_and_it_is_told_once() {
        let budget = Duration::from_secs(60);
        let pulses = vec![Pulse::new("the folder"), Pulse::new("the worker")];
        let worker = pulses[1].clone();
        let mut watchdog = Watchdog { pulses, budget, late: None };
        let start = Instant::now();
        let after = |s| start + Duration::from_secs(s);
        assert_eq!(watchdog.beat(after(1000)), Beat::Ping, "all idle");
        let film = worker.busy();
        assert_eq!(watchdog.beat(after(59)), Beat::Ping, "within the budget");
        for news in [true, false, false] {
            let beat = watchdog.beat(after(100));
            assert!(
                matches!(beat, Beat::Late { late: Late { stage: "the worker", .. }, news: told } if told == news),
                "{beat:?}"
            );
        }
        drop(film);
        assert_eq!(watchdog.beat(after(101)), Beat::Recovered);
        assert_eq!(watchdog.beat(after(102)), Beat::Ping);
    }
}
