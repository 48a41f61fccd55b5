//! What to send next, what an acknowledgement means and when to give up waiting: pure rules over events and times.
//!
//! One packet is under way at a time. A topic that the broker refuses waits on its own; the others go on (R18).

use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::PubAckReason;
use tokio::time::Instant;

use super::backoff::Backoff;
use crate::report::Reason;

/// A result without a subscriber is an operator's affair after this long (R19).
const ALARM_AFTER: Duration = Duration::from_secs(60);
/// First and longest pause before a result that nobody was subscribed to is sent again.
const NO_SUBSCRIBER_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// First pause before a topic that was refused is tried again.
const REJECTED_PAUSE: Duration = Duration::from_secs(1);

/// A topic of ours: each is held and released on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Status,
    Info,
    Result,
    Error,
    /// Answers to commands.
    Answer,
    /// Delivered events that somebody asked for again, on the topics of events.
    Replay,
}

impl Lane {
    const COUNT: usize = 6;
    const ALL: [Self; Self::COUNT] = [Self::Status, Self::Info, Self::Result, Self::Error, Self::Answer, Self::Replay];

    /// Retained documents are for whoever subscribes later, so nobody need be there now.
    const fn is_event(self) -> bool {
        matches!(self, Self::Result | Self::Error)
    }

    /// Who asked can ask again: nothing that is refused waits.
    const fn is_asked_for(self) -> bool {
        matches!(self, Self::Answer | Self::Replay)
    }
}

/// Why a lane waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The broker took the event, but nobody was subscribed (PUBACK reason 16).
    NoSubscriber {
        /// It has been so for a minute.
        alarm: bool,
    },
    /// The broker refused it with this reason code (MQTT 5.0, 3.4.2.1).
    Rejected {
        /// 128 or more.
        code: u8,
    },
}

impl Hold {
    /// How the status document calls it.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::NoSubscriber { .. } => Reason::NoSubscriber,
            Self::Rejected { .. } => Reason::Rejected,
        }
    }
}

/// The rules' parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) require_subscriber: bool,
    pub(super) ack_timeout: Duration,
    pub(super) max_backoff: Duration,
}

/// What an acknowledgement means for the packet that was under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Somebody has it.
    Delivered(Lane),
    /// It must be sent again.
    Held(Lane, Hold),
    /// Nobody has it, by this reason code, and it is not sent again.
    Refused(Lane, u8),
    /// Nothing was under way.
    Unasked,
}

#[derive(Debug)]
struct LaneState {
    /// Something is to be sent.
    due: bool,
    held: Option<Held>,
    /// Nothing is sent before, so that the lane takes its share of the connection and no more.
    not_before: Option<Instant>,
    no_subscriber: Backoff,
    rejected: Backoff,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    hold: Hold,
    since: Instant,
    until: Instant,
}

impl LaneState {
    /// Holds the lane for `pause`, then it is due; a hold for the same reason counts from its beginning.
    fn hold(&mut self, hold: Hold, pause: Duration, now: Instant) {
        self.due = true;
        let same = self.held.filter(|held| held.hold.reason() == hold.reason());
        self.held = Some(Held { hold, since: same.map_or(now, |held| held.since), until: now + pause });
    }

    fn wait_until(&self) -> Option<Instant> {
        self.held.map(|held| held.until).max(self.not_before)
    }
}

/// The state of the rules.
#[derive(Debug)]
pub(super) struct Delivery {
    policy: Policy,
    lanes: [LaneState; Lane::COUNT],
    under_way: Option<(Lane, Instant)>,
}

impl Delivery {
    pub(super) fn new(policy: Policy, seed: u64) -> Self {
        let (first, longest) = NO_SUBSCRIBER_PAUSE;
        let lanes = Lane::ALL.map(|lane| LaneState {
            due: false,
            held: None,
            not_before: None,
            no_subscriber: Backoff::new(first, longest, seed ^ lane as u64),
            rejected: Backoff::new(REJECTED_PAUSE, policy.max_backoff, seed ^ (0x10 + lane as u64)),
        });
        Self { policy, lanes, under_way: None }
    }

    /// A connection was made: status and info are told again, and every held event gets its chance at once.
    pub(super) fn connected(&mut self, now: Instant) {
        self.under_way = None;
        self.set_due(Lane::Status, true);
        self.set_due(Lane::Info, true);
        self.release(now);
    }

    /// Every held lane may be tried now.
    pub(super) fn release(&mut self, now: Instant) {
        for held in self.lanes.iter_mut().filter_map(|lane| lane.held.as_mut()) {
            held.until = now;
        }
    }

    /// Whether a lane has something to send.
    pub(super) const fn set_due(&mut self, lane: Lane, due: bool) {
        self.lanes[lane as usize].due = due;
    }

    /// Nothing of the lane is sent before `pause` has passed.
    pub(super) fn pace(&mut self, lane: Lane, pause: Duration, now: Instant) {
        self.lanes[lane as usize].not_before = Some(now + pause);
    }

    /// What to send now: the status first, a replay last; of results and errors the caller says which has the lower
    /// number.
    pub(super) fn next(&self, older: Lane, now: Instant) -> Option<Lane> {
        if self.under_way.is_some() {
            return None;
        }
        let newer = if older == Lane::Result { Lane::Error } else { Lane::Result };
        [Lane::Status, Lane::Info, Lane::Answer, older, newer, Lane::Replay].into_iter().find(|&lane| {
            let state = &self.lanes[lane as usize];
            state.due && state.wait_until().is_none_or(|until| until <= now)
        })
    }

    /// A packet of this lane was handed to the connection. What becomes due while it is under way is sent after it.
    pub(super) const fn sent(&mut self, lane: Lane, now: Instant) {
        self.set_due(lane, false);
        self.under_way = Some((lane, now));
    }

    /// What the broker's answer means (R18, R19).
    pub(super) fn acknowledged(&mut self, reason: PubAckReason, now: Instant) -> Verdict {
        let Some((lane, _)) = self.under_way.take() else {
            return Verdict::Unasked;
        };
        if lane.is_asked_for() {
            return match reason {
                PubAckReason::Success => Verdict::Delivered(lane),
                PubAckReason::NoMatchingSubscribers if lane == Lane::Answer => Verdict::Delivered(lane),
                refused => Verdict::Refused(lane, code(refused)),
            };
        }
        let state = &mut self.lanes[lane as usize];
        let hold = match reason {
            PubAckReason::Success => None,
            PubAckReason::NoMatchingSubscribers if lane.is_event() && self.policy.require_subscriber => {
                let since = state.held.filter(|held| matches!(held.hold, Hold::NoSubscriber { .. }));
                let alarm = since.is_some_and(|held| now - held.since >= ALARM_AFTER);
                Some((Hold::NoSubscriber { alarm }, state.no_subscriber.pause()))
            }
            PubAckReason::NoMatchingSubscribers => None,
            refused => Some((Hold::Rejected { code: code(refused) }, state.rejected.pause())),
        };
        let Some((hold, pause)) = hold else {
            state.held = None;
            state.no_subscriber.reset();
            state.rejected.reset();
            return Verdict::Delivered(lane);
        };
        state.hold(hold, pause, now);
        Verdict::Held(lane, hold)
    }

    /// A packet of this lane would be refused with this code, so it is not sent at all.
    pub(super) fn refused(&mut self, lane: Lane, code: u8, now: Instant) {
        let state = &mut self.lanes[lane as usize];
        let pause = state.rejected.pause();
        state.hold(Hold::Rejected { code }, pause, now);
    }

    /// Whether the packet under way has waited longer than a living broker takes (R24).
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        self.under_way.is_some_and(|(_, since)| now - since >= self.policy.ack_timeout)
    }

    /// The lane of the packet under way.
    pub(super) fn under_way(&self) -> Option<Lane> {
        self.under_way.map(|(lane, _)| lane)
    }

    /// Whether a packet is under way.
    pub(super) const fn is_waiting(&self) -> bool {
        self.under_way.is_some()
    }

    /// When to ask again although nothing happened: a held lane is due, or the packet under way is overdue.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        match self.under_way {
            Some((_, since)) => Some(since + self.policy.ack_timeout),
            None => self.lanes.iter().filter(|lane| lane.due).filter_map(LaneState::wait_until).min(),
        }
    }

    /// Why events wait, results first.
    pub(super) fn holds(&self) -> impl Iterator<Item = Hold> {
        let order = [Lane::Result, Lane::Error, Lane::Info, Lane::Status];
        order.into_iter().filter_map(|lane| self.lanes[lane as usize].held).map(|held| held.hold)
    }
}

/// MQTT 5.0, table 3-4.
pub(super) const fn code(reason: PubAckReason) -> u8 {
    match reason {
        PubAckReason::Success => 0,
        PubAckReason::NoMatchingSubscribers => 16,
        PubAckReason::UnspecifiedError => 128,
        PubAckReason::ImplementationSpecificError => 131,
        PubAckReason::NotAuthorized => 135,
        PubAckReason::TopicNameInvalid => 144,
        PubAckReason::PacketIdentifierInUse => 145,
        PubAckReason::QuotaExceeded => 151,
        PubAckReason::PayloadFormatInvalid => 153,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACK_TIMEOUT: Duration = Duration::from_secs(30);

    fn delivery(require_subscriber: bool) -> Delivery {
        let max_backoff = Duration::from_secs(60);
        Delivery::new(Policy { require_subscriber, ack_timeout: ACK_TIMEOUT, max_backoff }, 1)
    }

    /// A connected publisher whose status and info are out.
    fn settled(require_subscriber: bool, now: Instant) -> Delivery {
        let mut delivery = delivery(require_subscriber);
        delivery.connected(now);
        for expected in [Lane::Status, Lane::Info] {
            assert_eq!(delivery.next(Lane::Result, now), Some(expected));
            delivery.sent(expected, now);
            assert_eq!(delivery.acknowledged(PubAckReason::NoMatchingSubscribers, now), Verdict::Delivered(expected));
        }
        delivery
    }

    fn answered(delivery: &mut Delivery, reason: PubAckReason, now: Instant) -> Verdict {
        delivery.set_due(Lane::Result, true);
        delivery.release(now);
        assert_eq!(delivery.next(Lane::Result, now), Some(Lane::Result));
        delivery.sent(Lane::Result, now);
        delivery.acknowledged(reason, now)
    }

    #[test]
    fn a_result_leaves_only_when_somebody_has_it() {
        use PubAckReason::*;
        let now = Instant::now();
        let rejected = |code| Verdict::Held(Lane::Result, Hold::Rejected { code });
        let no_subscriber = Verdict::Held(Lane::Result, Hold::NoSubscriber { alarm: false });
        for (reason, required, expected) in [
            (Success, true, Verdict::Delivered(Lane::Result)),
            (NoMatchingSubscribers, true, no_subscriber),
            (NoMatchingSubscribers, false, Verdict::Delivered(Lane::Result)),
            (UnspecifiedError, true, rejected(128)),
            (ImplementationSpecificError, true, rejected(131)),
            (NotAuthorized, false, rejected(135)),
            (TopicNameInvalid, true, rejected(144)),
            (PacketIdentifierInUse, true, rejected(145)),
            (QuotaExceeded, true, rejected(151)),
            (PayloadFormatInvalid, true, rejected(153)),
        ] {
            let mut delivery = settled(required, now);
            assert_eq!(answered(&mut delivery, reason, now), expected, "{reason:?}");
            assert_eq!(delivery.holds().next().is_some(), expected != Verdict::Delivered(Lane::Result), "{reason:?}");
        }
    }

    #[test]
    fn nothing_is_sent_while_a_packet_is_under_way() {
        let now = Instant::now();
        let mut delivery = delivery(true);
        delivery.connected(now);
        delivery.sent(Lane::Status, now);
        assert_eq!(delivery.next(Lane::Result, now), None);
        assert_eq!(delivery.wake_at(), Some(now + ACK_TIMEOUT));
        assert!(!delivery.is_stalled(now + ACK_TIMEOUT - Duration::from_millis(1)));
        assert!(delivery.is_stalled(now + ACK_TIMEOUT));
    }

    #[test]
    fn a_refused_topic_waits_while_the_others_go_on() {
        let now = Instant::now();
        let mut delivery = settled(true, now);
        answered(&mut delivery, PubAckReason::NotAuthorized, now);
        assert_eq!(delivery.next(Lane::Result, now), None);
        delivery.set_due(Lane::Error, true);
        assert_eq!(delivery.next(Lane::Result, now), Some(Lane::Error));
        delivery.set_due(Lane::Status, true);
        assert_eq!(delivery.next(Lane::Result, now), Some(Lane::Status));
        let later = delivery.wake_at().expect("held");
        assert!(later <= now + REJECTED_PAUSE);
        delivery.set_due(Lane::Status, false);
        assert_eq!(delivery.next(Lane::Result, later), Some(Lane::Result));
    }

    #[test]
    fn a_reconnection_sends_the_held_event_at_once() {
        let now = Instant::now();
        let mut delivery = settled(true, now);
        answered(&mut delivery, PubAckReason::NoMatchingSubscribers, now);
        delivery.connected(now);
        delivery.set_due(Lane::Status, false);
        delivery.set_due(Lane::Info, false);
        assert_eq!(delivery.next(Lane::Result, now), Some(Lane::Result));
    }

    #[test]
    fn a_minute_without_a_subscriber_is_an_alarm_and_a_subscriber_ends_it() {
        let start = Instant::now();
        let mut delivery = settled(true, start);
        for (s, alarm) in [(0, false), (30, false), (59, false), (60, true), (90, true)] {
            let verdict = answered(&mut delivery, PubAckReason::NoMatchingSubscribers, start + Duration::from_secs(s));
            assert_eq!(verdict, Verdict::Held(Lane::Result, Hold::NoSubscriber { alarm }), "{s} s");
        }
        let later = start + Duration::from_secs(91);
        assert_eq!(answered(&mut delivery, PubAckReason::Success, later), Verdict::Delivered(Lane::Result));
        assert_eq!(delivery.holds().count(), 0);
        let again = answered(&mut delivery, PubAckReason::NoMatchingSubscribers, later);
        assert_eq!(again, Verdict::Held(Lane::Result, Hold::NoSubscriber { alarm: false }));
    }

    #[test]
    fn a_status_that_changes_under_way_is_sent_again() {
        let now = Instant::now();
        let mut delivery = settled(true, now);
        delivery.set_due(Lane::Status, true);
        delivery.sent(Lane::Status, now);
        delivery.set_due(Lane::Status, true);
        delivery.acknowledged(PubAckReason::Success, now);
        assert_eq!(delivery.next(Lane::Result, now), Some(Lane::Status));
    }

    #[test]
    fn a_replay_goes_last_and_takes_its_time() {
        let now = Instant::now();
        let mut delivery = settled(true, now);
        for lane in [Lane::Replay, Lane::Result, Lane::Answer] {
            delivery.set_due(lane, true);
        }
        for expected in [Lane::Answer, Lane::Result, Lane::Replay] {
            assert_eq!(delivery.next(Lane::Result, now), Some(expected));
            delivery.sent(expected, now);
            assert_eq!(delivery.acknowledged(PubAckReason::Success, now), Verdict::Delivered(expected));
        }
        let pause = Duration::from_millis(20);
        delivery.pace(Lane::Replay, pause, now);
        delivery.set_due(Lane::Replay, true);
        assert_eq!((delivery.next(Lane::Result, now), delivery.wake_at()), (None, Some(now + pause)));
        assert_eq!(delivery.next(Lane::Result, now + pause), Some(Lane::Replay));
    }

    #[test]
    fn what_was_asked_for_is_not_sent_again_and_holds_nothing() {
        use PubAckReason::*;
        let now = Instant::now();
        for (lane, reason, expected) in [
            (Lane::Answer, NoMatchingSubscribers, Verdict::Delivered(Lane::Answer)),
            (Lane::Answer, NotAuthorized, Verdict::Refused(Lane::Answer, 135)),
            (Lane::Replay, NoMatchingSubscribers, Verdict::Refused(Lane::Replay, 16)),
            (Lane::Replay, QuotaExceeded, Verdict::Refused(Lane::Replay, 151)),
        ] {
            let mut delivery = settled(true, now);
            delivery.sent(lane, now);
            assert_eq!(delivery.acknowledged(reason, now), expected);
            assert_eq!(delivery.holds().count(), 0);
        }
    }

    #[test]
    fn an_answer_to_nothing_changes_nothing() {
        let now = Instant::now();
        let mut delivery = settled(true, now);
        assert_eq!(delivery.acknowledged(PubAckReason::Success, now), Verdict::Unasked);
    }

    #[test]
    fn of_two_events_the_older_goes_first() {
        let now = Instant::now();
        let mut delivery = settled(true, now);
        delivery.set_due(Lane::Result, true);
        delivery.set_due(Lane::Error, true);
        assert_eq!(delivery.next(Lane::Error, now), Some(Lane::Error));
        assert_eq!(delivery.next(Lane::Result, now), Some(Lane::Result));
    }
}
