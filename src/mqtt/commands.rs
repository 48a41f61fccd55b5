//! Commands from outside: what is asked, what is answered, and the one replay under way.
//!
//! Nothing here is kept on the disk, and nothing holds up an event: answers are few and paced, a replay sends when
//! nothing else is to be sent. Who hears no answer asks again.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use super::link::{Message, Request};
use crate::outbox::{Head, Outbox, OutboxError};
use crate::report::{
    CONTENT_TYPE, Channel, Command, EventKind, MAX_REQUEST_BYTES, PingAnswer, ReplayAnswer, ReplayReason,
    ReplayRequest, ReplayState, Topics, rfc3339,
};

/// Between two answers: a flood of requests gets no more of the connection than this.
pub(super) const ANSWER_PAUSE: Duration = Duration::from_millis(20);
/// Between two events of a replay.
pub(super) const REPLAY_PAUSE: Duration = Duration::from_millis(20);
/// Answers that may wait; a request beyond them is dropped.
const ANSWERS: usize = 16;
/// What is sent back as it came.
const MAX_CORRELATION_BYTES: usize = 256;
const MAX_TOPIC_BYTES: usize = 256;

/// Where an answer goes.
#[derive(Clone, Debug)]
struct Asker {
    topic: String,
    correlation: Option<Vec<u8>>,
}

/// A replay that was accepted.
#[derive(Debug)]
struct Replay {
    asker: Asker,
    from: u64,
    to: u64,
    /// The first number that is not dealt with yet, and its event once it was looked up.
    next: u64,
    event: Option<Head>,
    sent: u64,
}

/// The requests in hand.
#[derive(Debug)]
pub(super) struct Desk {
    topics: Topics,
    boot_id: String,
    answers: VecDeque<Message>,
    replay: Option<Replay>,
}

/// What became of a request, for the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is answered, and nothing more is to say.
    Answered,
    /// A replay of this many numbers begins.
    Replay { from: u64, to: u64 },
    /// It is refused.
    Refused(ReplayReason),
    /// There are more requests than can be answered.
    Dropped,
}

impl Desk {
    pub(super) const fn new(topics: Topics, boot_id: String) -> Self {
        Self { topics, boot_id, answers: VecDeque::new(), replay: None }
    }

    /// Takes a request at `now`.
    ///
    /// # Errors
    /// When the outbox cannot be read.
    pub(super) fn hear(&mut self, request: Request, outbox: &Outbox, now: SystemTime) -> Result<Heard, OutboxError> {
        let Some(command) = Command::ALL.into_iter().find(|&command| self.topics.command(command) == request.topic)
        else {
            return Ok(Heard::Refused(ReplayReason::Malformed));
        };
        if self.answers.len() >= ANSWERS {
            return Ok(Heard::Dropped);
        }
        let (asker, wrong) = self.asker(command, request.response_topic, request.correlation);
        match command {
            Command::Ping => {
                let refused = wrong.map_or(Heard::Answered, Heard::Refused);
                let answer = PingAnswer {
                    time: rfc3339(now),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    boot_id: self.boot_id.clone(),
                    epoch: outbox.epoch().to_owned(),
                    last: outbox.last()?,
                    queue_length: outbox.len()?,
                };
                self.answer(&asker, to_json(&answer));
                Ok(refused)
            }
            Command::Replay => self.replay(asker, wrong, &request.payload, outbox),
        }
    }

    /// Who is answered, and what is wrong with how it was said.
    ///
    /// What a request names is published with this device's rights, which may be more than the asker's: of this
    /// package's topics only those of our answers may be named.
    fn asker(
        &self,
        command: Command,
        topic: Option<String>,
        correlation: Option<Vec<u8>>,
    ) -> (Asker, Option<ReplayReason>) {
        let own = self.topics.answer(command);
        let wrong = correlation.as_ref().is_some_and(|bytes| bytes.len() > MAX_CORRELATION_BYTES);
        let correlation = correlation.filter(|_| !wrong);
        let wrong = wrong.then_some(ReplayReason::Malformed);
        match topic {
            None => (Asker { topic: own, correlation }, wrong),
            Some(topic) if is_answer_topic(&topic, &own) => (Asker { topic, correlation }, wrong),
            Some(_) => (Asker { topic: own, correlation }, Some(ReplayReason::ResponseTopic)),
        }
    }

    fn replay(
        &mut self,
        asker: Asker,
        wrong: Option<ReplayReason>,
        payload: &[u8],
        outbox: &Outbox,
    ) -> Result<Heard, OutboxError> {
        let (oldest, last) = (oldest(outbox)?, outbox.last()?);
        let request = Some(payload).filter(|payload| payload.len() <= MAX_REQUEST_BYTES);
        let request = request.and_then(|payload| serde_json::from_slice::<ReplayRequest>(payload).ok());
        let decided = match (wrong, request) {
            (Some(wrong), _) => Err(wrong),
            (None, None) => Err(ReplayReason::Malformed),
            (None, Some(request)) => decide(&request, outbox.epoch(), oldest, last, self.replay.is_some()),
        };
        let answer = |state, reason, range: Option<(u64, u64)>| ReplayAnswer {
            state,
            reason,
            epoch: outbox.epoch().to_owned(),
            oldest,
            last,
            from: range.map(|(from, _)| from),
            to: range.map(|(_, to)| to),
            sent: 0,
        };
        Ok(match decided {
            Err(reason) => {
                self.answer(&asker, to_json(&answer(ReplayState::Refused, Some(reason), None)));
                Heard::Refused(reason)
            }
            Ok((from, to, reason)) => {
                self.answer(&asker, to_json(&answer(ReplayState::Accepted, reason, Some((from, to)))));
                self.replay = Some(Replay { asker, from, to, next: from, event: None, sent: 0 });
                Heard::Replay { from, to }
            }
        })
    }

    fn answer(&mut self, asker: &Asker, payload: Vec<u8>) {
        self.answers.push_back(Message {
            topic: asker.topic.clone(),
            retain: false,
            content_type: "application/json",
            correlation: asker.correlation.clone(),
            payload,
        });
    }

    /// The oldest answer that waits.
    pub(super) fn next_answer(&self) -> Option<&Message> {
        self.answers.front()
    }

    /// The oldest answer was taken, or never will be.
    pub(super) fn answered(&mut self) {
        self.answers.pop_front();
    }

    /// Whether a replay is under way.
    pub(super) const fn is_replaying(&self) -> bool {
        self.replay.is_some()
    }

    /// The next event of the replay under way; `None` when there is none, or when it has just ended.
    ///
    /// # Errors
    /// When the outbox cannot be read.
    pub(super) fn next_replayed(&mut self, outbox: &Outbox) -> Result<Option<Message>, OutboxError> {
        let Some(replay) = &mut self.replay else { return Ok(None) };
        if replay.event.is_none() {
            replay.event = outbox.archived(replay.next..=replay.to).next().transpose()?;
        }
        if let Some(Head { sequence, draft }) = &replay.event {
            let channel = match draft.kind {
                EventKind::Result => Channel::Result,
                EventKind::Error => Channel::Error,
            };
            return Ok(Some(Message {
                topic: self.topics.name(channel),
                retain: false,
                content_type: CONTENT_TYPE,
                correlation: None,
                payload: draft.publish(*sequence, outbox.epoch(), true),
            }));
        }
        self.end_replay(ReplayState::Done, None, outbox)?;
        Ok(None)
    }

    /// Somebody has the event that was sent.
    pub(super) fn replayed(&mut self) {
        if let Some(replay) = &mut self.replay
            && let Some(Head { sequence, .. }) = replay.event.take()
        {
            replay.next = sequence.saturating_add(1);
            replay.sent += 1;
        }
    }

    /// Ends the replay under way and says so.
    ///
    /// # Errors
    /// When the outbox cannot be read.
    pub(super) fn end_replay(
        &mut self,
        state: ReplayState,
        reason: Option<ReplayReason>,
        outbox: &Outbox,
    ) -> Result<(), OutboxError> {
        let Some(Replay { asker, from, to, sent, .. }) = self.replay.take() else { return Ok(()) };
        let answer = ReplayAnswer {
            state,
            reason,
            epoch: outbox.epoch().to_owned(),
            oldest: oldest(outbox)?,
            last: outbox.last()?,
            from: Some(from),
            to: Some(to),
            sent,
        };
        self.answer(&asker, to_json(&answer));
        Ok(())
    }
}

/// What a request comes to: the numbers that can be had and whether some are gone, or why none come.
fn decide(
    request: &ReplayRequest,
    epoch: &str,
    oldest: u64,
    last: u64,
    busy: bool,
) -> Result<(u64, u64, Option<ReplayReason>), ReplayReason> {
    let ReplayRequest { epoch: asked, from, to } = request;
    let (from, to) = (*from, *to);
    if asked != epoch {
        Err(ReplayReason::UnknownEpoch)
    } else if from == 0 || from > to {
        Err(ReplayReason::Range)
    } else if from > last {
        Err(ReplayReason::NotYet)
    } else if to < oldest {
        Err(ReplayReason::Pruned)
    } else if busy {
        Err(ReplayReason::Busy)
    } else {
        Ok((from.max(oldest), to.min(last), (from < oldest).then_some(ReplayReason::Pruned)))
    }
}

/// The lowest number that can be had, be it from the archive or because it still waits.
fn oldest(outbox: &Outbox) -> Result<u64, OutboxError> {
    let waiting = [outbox.head(EventKind::Result)?, outbox.head(EventKind::Error)?];
    let waiting = waiting.into_iter().flatten().map(|head| head.sequence);
    Ok(waiting.chain(outbox.oldest()?).min().unwrap_or(outbox.last()? + 1))
}

/// Whether an answer may go to `topic`, where `own` is the one that it goes to by default.
fn is_answer_topic(topic: &str, own: &str) -> bool {
    let is_name = (1..=MAX_TOPIC_BYTES).contains(&topic.len())
        && !topic.contains(['+', '#'])
        && !topic.contains(char::is_control)
        && !topic.starts_with('$');
    let below_own = topic.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    is_name && (below_own || !topic.starts_with("xr/"))
}

pub(super) fn to_json(document: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("the documents have string keys only")
}

/// Takes bytes for a request: response topic, NUL, correlation data, NUL, payload.
///
/// Whatever is asked, each answer goes where answers may go, can be read, and says what then happens.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    thread_local! {
        static OUTBOX: Outbox = crate::outbox::delivered_four();
    }
    let mut parts = bytes.splitn(3, |&byte| byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (topic, correlation, payload) = (part(), part(), part());
    let (Ok(topic), topics) = (std::str::from_utf8(topic), Topics::new("s", "d").expect("sound")) else { return };
    OUTBOX.with(|outbox| {
        let (last, now) = (outbox.last().expect("in memory"), SystemTime::UNIX_EPOCH);
        for command in Command::ALL {
            let own = topics.answer(command);
            let mut desk = Desk::new(topics.clone(), "boot".to_owned());
            let request = Request {
                topic: topics.command(command),
                payload: payload.to_vec(),
                response_topic: (!topic.is_empty()).then(|| topic.to_owned()),
                correlation: (!correlation.is_empty()).then(|| correlation.to_vec()),
            };
            let heard = desk.hear(request, outbox, now).expect("in memory");
            let mut events = 0;
            while desk.next_replayed(outbox).expect("in memory").is_some() {
                desk.replayed();
                events += 1;
            }
            let mut answers = Vec::new();
            while let Some(answer) = desk.next_answer() {
                assert!(is_answer_topic(&answer.topic, &own), "{answer:?}");
                answers.push(serde_json::from_slice::<serde_json::Value>(&answer.payload).expect("JSON"));
                desk.answered();
            }
            let said = |index: usize| answers.get(index).and_then(|answer| answer["state"].as_str());
            match (command, heard) {
                (Command::Replay, Heard::Replay { from, to }) => {
                    assert!((1..=to).contains(&from) && to <= last, "{from} to {to} of {last}");
                    assert_eq!((events, said(0), said(1)), (to - from + 1, Some("accepted"), Some("done")));
                }
                (Command::Replay, Heard::Refused(_)) => {
                    assert_eq!((events, said(0), answers.len()), (0, Some("refused"), 1));
                }
                (Command::Ping, Heard::Answered | Heard::Refused(_)) => assert_eq!((events, answers.len()), (0, 1)),
                (_, heard) => panic!("{heard:?}"),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_gets_what_there_is_or_the_reason_why_not() {
        use ReplayReason::*;
        // 5 to 9 can be had.
        for (epoch, from, to, busy, expected) in [
            ("e", 5, 9, false, Ok((5, 9, None))),
            ("e", 6, 6, false, Ok((6, 6, None))),
            ("e", 9, u64::MAX, false, Ok((9, 9, None))),
            ("e", 1, 7, false, Ok((5, 7, Some(Pruned)))),
            ("e", 1, 4, false, Err(Pruned)),
            ("e", 10, 12, false, Err(NotYet)),
            ("e", 0, 9, false, Err(Range)),
            ("e", 7, 6, false, Err(Range)),
            ("other", 5, 9, false, Err(UnknownEpoch)),
            ("e", 5, 9, true, Err(Busy)),
            ("e", 1, 4, true, Err(Pruned)),
        ] {
            let request = ReplayRequest { epoch: epoch.to_owned(), from, to };
            assert_eq!(decide(&request, "e", 5, 9, busy), expected, "{epoch} {from} {to} {busy}");
        }
    }

    #[test]
    fn an_answer_goes_where_answers_may_go() {
        let own = "xr/v1/s/d/cmd/replay/answer";
        for (topic, may) in [
            (own, true),
            ("xr/v1/s/d/cmd/replay/answer/archive-1", true),
            ("archive/answers", true),
            ("xr/v1/s/d/status", false),
            ("xr/v1/s/d/result", false),
            ("xr/v1/s/other/cmd/replay/answer", false),
            ("xr/v1/s/d/cmd/replay", false),
            ("xr/v1/s/d/cmd/replay/answers", false),
            ("$SYS/broker", false),
            ("a/+", false),
            ("#", false),
            ("", false),
            ("a\0b", false),
        ] {
            assert_eq!(is_answer_topic(topic, own), may, "{topic}");
        }
        assert!(!is_answer_topic(&"x".repeat(257), own));
    }
}
