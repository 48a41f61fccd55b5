//! The publisher at work: empties the outbox into the broker and keeps the retained documents true, connection after
//! connection.

mod refused;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rumqttc::v5::mqttbytes::v5::PubAckReason;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::backoff::{Backoff, Reconnect};
use super::commands::{ANSWER_PAUSE, Desk, REPLAY_PAUSE};
use super::delivery::{Delivery, Hold, Lane, Policy, Verdict, code};
use super::journal::Journal;
use super::link::{Link, Loss, Message, Signal};
use super::options::options;
use super::{LinkEvent, LinkState, MqttError, Publisher};
use crate::crash_point;
use crate::outbox::{Head, Outbox, OutboxError};
use crate::report::{CONTENT_TYPE, Channel, Command, Condition, EventKind, Reason, ServiceState, Session, Status};

/// First pause between attempts to connect (R25).
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// A connection that lasted this many keep-alives was a sound one.
const SOUND_KEEP_ALIVES: u32 = 2;
/// How a connection ended.
enum End {
    Lost(Loss),
    Stopped,
}

/// How far the stop is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// Every waiting event gets one more try.
    Draining,
    /// The last status is on its way.
    Leaving,
    /// Another publisher of this device waits for the connection.
    HandingOver,
}

/// The publisher at work.
pub(super) struct Work {
    publisher: Publisher,
    condition: watch::Receiver<Condition>,
    condition_ended: bool,
    link_state: watch::Sender<LinkState>,
    shutdown: CancellationToken,
    phase: Phase,
    session: u64,
    delivery: Delivery,
    /// When the packet under way was sent.
    sent_at: Instant,
    reconnect: Reconnect,
    /// The pause after the last connection.
    reconnect_in: Duration,
    /// The oldest result and the oldest error.
    heads: [Option<Head>; 2],
    /// The length of the queue that the last published status told.
    told_length: u64,
    journal: Journal,
    /// Commands and their answers.
    desk: Desk,
}

impl Work {
    pub(super) fn new(
        publisher: Publisher,
        condition: watch::Receiver<Condition>,
        link_state: watch::Sender<LinkState>,
        shutdown: CancellationToken,
    ) -> Self {
        let policy = Policy {
            require_subscriber: publisher.require_subscriber,
            ack_timeout: publisher.settings.ack_timeout,
            max_backoff: publisher.settings.max_backoff,
        };
        let seed = seed(&publisher.boot_id);
        // Connections are counted through all publishers of a run.
        let session = link_state.borrow().session;
        Self {
            delivery: Delivery::new(policy, seed),
            sent_at: Instant::now(),
            reconnect: Reconnect::new(
                Backoff::new(RECONNECT_PAUSE, publisher.settings.max_backoff, seed),
                publisher.settings.keep_alive * SOUND_KEEP_ALIVES,
            ),
            reconnect_in: Duration::ZERO,
            journal: Journal::new(&publisher.settings),
            desk: Desk::new(publisher.topics.clone(), publisher.boot_id.clone()),
            publisher,
            condition,
            condition_ended: false,
            link_state,
            shutdown,
            phase: Phase::Running,
            session,
            heads: [None, None],
            told_length: 0,
        }
    }

    /// Connects and delivers until the stop is complete.
    pub(super) async fn connect_and_serve(&mut self) -> Result<(), MqttError> {
        loop {
            let last_try = self.shutdown.is_cancelled();
            let hand_over = self.publisher.hand_over.clone();
            let connected = tokio::select! {
                connected = self.connect() => connected,
                () = hand_over.cancelled() => return Ok(()),
            };
            let loss = match connected {
                Ok(mut link) => match self.serve(&mut link).await? {
                    End::Stopped => {
                        link.close().await;
                        return Ok(());
                    }
                    End::Lost(loss) => {
                        self.publisher.observer.tell(LinkEvent::Lost);
                        loss
                    }
                },
                Err(loss) => loss,
            };
            self.lost(&loss);
            self.answered_out_of_turn(&loss).await?;
            if last_try {
                return Ok(());
            }
            tokio::select! {
                () = hand_over.cancelled() => return Ok(()),
                () = sleep(self.reconnect_in) => {}
                () = self.shutdown.cancelled() => {}
            }
        }
    }

    /// Nobody works any more.
    pub(super) fn ended(&self) {
        self.link_state.send_modify(|state| state.connected = false);
    }

    async fn connect(&mut self) -> Result<Link, Loss> {
        self.session += 1;
        let will = (self.topic(Lane::Status), to_json(&self.status().with_state(ServiceState::Offline)));
        let options = options(&self.publisher.settings, Some(will)).map_err(|error| Loss::Other(chain(&error)))?;
        let commands: Vec<String> = match self.publisher.settings.commands {
            true => Command::ALL.map(|command| self.publisher.topics.command(command)).into(),
            false => Vec::new(),
        };
        let link =
            Link::open(options, &commands).await.inspect_err(|_| self.publisher.observer.tell(LinkEvent::Failed))?;
        self.publisher.observer.tell(LinkEvent::Made);
        self.reconnect.connected(Instant::now());
        self.journal.connected(self.session);
        if link.commands_refused() {
            self.journal.commands_refused(Instant::now());
        }
        Ok(link)
    }

    fn lost(&mut self, loss: &Loss) {
        let now = Instant::now();
        self.reconnect_in = self.reconnect.pause(loss, now);
        self.journal.lost(loss, now);
        if self.reconnect.is_contested() {
            self.journal.contested(now);
        }
        self.tell_link_state(Some(loss.to_string()));
    }

    /// Sends what is due and waits for what happens, until the connection is lost or the stop complete.
    async fn serve(&mut self, link: &mut Link) -> Result<End, MqttError> {
        self.delivery.connected(Instant::now());
        self.heads = [None, None];
        self.look()?;
        self.tell_link_state(None);
        let (shutdown, hand_over) = (self.shutdown.clone(), self.publisher.hand_over.clone());
        let outbox = Arc::clone(&self.publisher.outbox);
        loop {
            if let Some(end) = self.send_what_is_due(link).await? {
                return Ok(end);
            }
            let settled_at = self.reconnect.settled_at();
            let wake_at = [self.delivery.wake_at(), settled_at].into_iter().flatten().min();
            tokio::select! {
                signal = link.signal() => match signal {
                    Signal::Acknowledged(reason) => self.acknowledged(reason).await?,
                    Signal::Asked(request) => {
                        let heard = patiently(|| self.desk.hear(request, &outbox, SystemTime::now()))?;
                        self.journal.heard(heard, Instant::now());
                        self.look()?;
                    }
                    Signal::Lost(loss) => return Ok(End::Lost(loss)),
                },
                () = outbox.appended(), if self.phase != Phase::Leaving => self.look()?,
                changed = self.condition.changed(), if !self.condition_ended => {
                    self.condition_ended = changed.is_err();
                    self.delivery.set_due(Lane::Status, true);
                }
                () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {
                    let now = Instant::now();
                    if self.delivery.is_stalled(now) {
                        let timeout = humantime::format_duration(self.publisher.settings.ack_timeout);
                        return Ok(End::Lost(Loss::Other(format!("no PUBACK within {timeout}"))));
                    }
                    if settled_at.is_some_and(|at| at <= now) {
                        let before = self.reasons();
                        self.reconnect.settled();
                        self.tell_changes(&before);
                    }
                }
                () = hand_over.cancelled(), if self.phase == Phase::Running => self.phase = Phase::HandingOver,
                () = shutdown.cancelled(), if self.phase == Phase::Running => {
                    self.phase = Phase::Draining;
                    self.look()?;
                    self.delivery.release(Instant::now());
                    self.delivery.set_due(Lane::Status, true);
                }
            }
        }
    }

    /// Hands the next packet to the connection, if one is due; yields the end when the last has been acknowledged.
    async fn send_what_is_due(&mut self, link: &Link) -> Result<Option<End>, MqttError> {
        while !self.delivery.is_waiting() {
            if self.phase == Phase::HandingOver {
                return Ok(Some(End::Stopped));
            }
            let Some(lane) = self.delivery.next(self.older(), Instant::now()) else {
                match self.phase {
                    Phase::Running | Phase::HandingOver => return Ok(None),
                    Phase::Leaving => return Ok(Some(End::Stopped)),
                    Phase::Draining => {
                        self.phase = Phase::Leaving;
                        for lane in [Lane::Info, Lane::Result, Lane::Error, Lane::Answer, Lane::Replay] {
                            self.delivery.set_due(lane, false);
                        }
                        self.delivery.set_due(Lane::Status, true);
                        continue;
                    }
                }
            };
            let Some(message) = patiently(|| self.message(lane))? else {
                self.delivery.set_due(lane, false);
                self.look()?;
                continue;
            };
            let own = self.publisher.settings.max_packet_bytes;
            let limit = link.max_packet_bytes().map_or(own, |broker| broker.min(own));
            let found = message.wire_bytes();
            if found > limit as usize {
                let reason = format!("the message has {found} bytes, the broker takes {limit}");
                self.too_large(lane, reason).await?;
                continue;
            }
            if !link.publish(message) {
                return Ok(Some(End::Lost("the connection takes nothing".into())));
            }
            self.sent_at = Instant::now();
            self.delivery.sent(lane, self.sent_at);
        }
        Ok(None)
    }

    fn message(&mut self, lane: Lane) -> Result<Option<Message>, MqttError> {
        let _busy = self.publisher.pulse.busy();
        let (retain, content_type, payload) = match lane {
            Lane::Status => {
                self.told_length = self.publisher.outbox.len()?;
                let status = match self.phase {
                    Phase::Running | Phase::HandingOver => self.status(),
                    Phase::Draining => self.status().with_state(ServiceState::Stopping),
                    Phase::Leaving => self.status().with_state(ServiceState::Offline),
                };
                (true, "application/json", to_json(&status))
            }
            Lane::Info => (true, "application/json", to_json(&self.publisher.info)),
            Lane::Answer => return Ok(self.desk.next_answer().cloned()),
            Lane::Replay => return Ok(self.desk.next_replayed(&self.publisher.outbox)?),
            Lane::Result | Lane::Error => {
                let Some(head) = &self.heads[slot(lane)] else {
                    return Ok(None);
                };
                let historical = head.draft.is_historical(self.publisher.fresh, SystemTime::now());
                let payload = head.draft.publish(head.sequence, self.publisher.outbox.epoch(), historical);
                (false, CONTENT_TYPE, payload)
            }
        };
        Ok(Some(Message { topic: self.topic(lane), retain, content_type, correlation: None, payload }))
    }

    async fn acknowledged(&mut self, reason: PubAckReason) -> Result<(), MqttError> {
        let before = self.reasons();
        let now = Instant::now();
        self.publisher.observer.tell(LinkEvent::Acknowledged { code: code(reason) });
        match self.delivery.acknowledged(reason, now) {
            Verdict::Delivered(lane @ (Lane::Result | Lane::Error)) => {
                self.reconnect.delivered();
                if let Some(Head { sequence, draft }) = self.heads[slot(lane)].take() {
                    crash_point::reach("event.acknowledged");
                    let kind = draft.kind;
                    self.write(move |outbox| outbox.acknowledge(kind, sequence)).await?;
                    crash_point::reach("event.removed");
                    let took = now.saturating_duration_since(self.sent_at);
                    self.publisher.observer.tell(LinkEvent::Delivered { kind, sequence, took });
                    debug!("event {sequence} is delivered");
                }
                self.look()?;
            }
            Verdict::Delivered(Lane::Status | Lane::Info) => {}
            Verdict::Delivered(Lane::Answer) => {
                self.desk.answered();
                self.delivery.pace(Lane::Answer, ANSWER_PAUSE, now);
                self.look()?;
            }
            Verdict::Delivered(Lane::Replay) => {
                self.desk.replayed();
                self.delivery.pace(Lane::Replay, REPLAY_PAUSE, now);
                self.look()?;
            }
            Verdict::Refused(lane, code) => self.not_taken(lane, code)?,
            Verdict::Held(lane, hold) => self.journal.held(&self.topic(lane), hold, now),
            Verdict::Unasked => warn!("the broker acknowledged what was not sent"),
        }
        self.tell_changes(&before);
        Ok(())
    }

    /// Reads the heads that are not known, and what follows from there being one or none.
    fn look(&mut self) -> Result<(), MqttError> {
        let _busy = self.publisher.pulse.busy();
        for (lane, kind) in [(Lane::Result, EventKind::Result), (Lane::Error, EventKind::Error)] {
            let head = &mut self.heads[slot(lane)];
            if head.is_none() {
                *head = patiently(|| self.publisher.outbox.head(kind))?;
            }
            self.delivery.set_due(lane, head.is_some() && self.phase != Phase::Leaving);
        }
        let running = self.phase == Phase::Running;
        self.delivery.set_due(Lane::Answer, running && self.desk.next_answer().is_some());
        self.delivery.set_due(Lane::Replay, running && self.desk.is_replaying());
        if self.told_length > 0 && self.heads.iter().all(Option::is_none) {
            self.delivery.set_due(Lane::Status, true);
        }
        Ok(())
    }

    /// Changes the outbox on a thread that may wait for the disk.
    async fn write(
        &self,
        change: impl FnOnce(&Outbox) -> Result<(), OutboxError> + Send + 'static,
    ) -> Result<(), MqttError> {
        let _busy = self.publisher.pulse.busy();
        let outbox = Arc::clone(&self.publisher.outbox);
        match tokio::task::spawn_blocking(move || change(&outbox)).await {
            Ok(changed) => Ok(changed?),
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going away: the event is still queued, and the next start delivers it again.
                Err(_) => Ok(()),
            },
        }
    }

    /// Which of the two heads has the lower number.
    fn older(&self) -> Lane {
        match &self.heads {
            [Some(result), Some(error)] if error.sequence < result.sequence => Lane::Error,
            _ => Lane::Result,
        }
    }

    fn topic(&self, lane: Lane) -> String {
        self.publisher.topics.name(match lane {
            Lane::Status => Channel::Status,
            Lane::Info => Channel::Info,
            Lane::Result => Channel::Result,
            Lane::Error => Channel::Error,
            Lane::Answer | Lane::Replay => unreachable!("these say themselves where they go"),
        })
    }

    fn status(&self) -> Status {
        let session = Session { boot_id: self.publisher.boot_id.clone(), number: self.session };
        let condition = self.condition.borrow();
        Status::new(&condition, &session, self.reasons(), self.told_length, SystemTime::now())
    }

    fn reasons(&self) -> BTreeSet<Reason> {
        let taken = self.reconnect.is_contested().then_some(Reason::ClientIdTaken);
        self.delivery.holds().map(Hold::reason).chain(taken).collect()
    }

    /// Tells what became of the holds: the daemon always, subscribers when the reasons differ from `before`.
    fn tell_changes(&mut self, before: &BTreeSet<Reason>) {
        if self.reasons() != *before {
            self.delivery.set_due(Lane::Status, true);
        }
        self.tell_link_state(None);
    }

    /// Tells the daemon how the connection is: there, or ended by `error`.
    fn tell_link_state(&self, error: Option<String>) {
        self.link_state.send_replace(LinkState {
            connected: error.is_none(),
            session: self.session,
            error,
            hold: self.delivery.holds().next(),
            client_id_taken: self.reconnect.is_contested(),
        });
    }
}

/// Reads the outbox: while the disk is full that may wait for a writer, and must keep no other task from its thread.
fn patiently<T>(read: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => read(),
        _ => tokio::task::block_in_place(read),
    }
}

const fn slot(lane: Lane) -> usize {
    match lane {
        Lane::Error => 1,
        _ => 0,
    }
}

/// Every run of every device draws its own pauses.
fn seed(boot_id: &str) -> u64 {
    Sha256::digest(boot_id).iter().take(8).fold(0, |seed, &byte| (seed << 8) | u64::from(byte))
}

fn to_json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("the documents have string keys only")
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_read_that_waits_keeps_no_other_task() {
        let (sender, receiver) = mpsc::channel();
        let reader = tokio::spawn(async move {
            let other = tokio::spawn(async move { sender.send(()) });
            let heard = patiently(|| receiver.recv_timeout(Duration::from_secs(10)));
            other.await.expect("no panic").expect("it is waited for");
            heard
        });
        assert_eq!(reader.await.expect("no panic"), Ok(()), "the only thread of the runtime was kept");
    }
}
