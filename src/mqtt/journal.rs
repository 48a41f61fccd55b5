//! What the journal hears of the broker: each cause once in five minutes (R15).

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Hold;
use super::commands::Heard;
use super::link::Loss;
use super::seldom::Seldom;
use crate::config::MqttSettings;

/// Says what happens, but never the same twice in five minutes.
#[derive(Debug)]
pub(super) struct Journal {
    broker: String,
    client_id: String,
    seldom: Seldom,
    /// A lost connection was told, so that the next one is too.
    loss_told: bool,
}

impl Journal {
    pub(super) fn new(settings: &MqttSettings) -> Self {
        Self {
            broker: format!("{}:{}", settings.host, settings.port),
            client_id: settings.client_id.clone(),
            seldom: Seldom::default(),
            // The first connection is news.
            loss_told: true,
        }
    }

    /// A connection was made, the `session`-th.
    pub(super) fn connected(&mut self, session: u64) {
        if std::mem::take(&mut self.loss_told) {
            info!("connected to the broker at {}, session {session}", self.broker);
        }
    }

    /// A connection ended or was not made.
    pub(super) fn lost(&mut self, loss: &Loss, now: Instant) {
        if !self.seldom.may_say(&loss.to_string(), now) {
            return;
        }
        self.loss_told = true;
        warn!("no connection to the broker at {}: {loss}; results wait in the outbox", self.broker);
    }

    /// Another client has our id, by all we know.
    pub(super) fn contested(&mut self, now: Instant) {
        if self.seldom.may_say("contested", now) {
            error!(
                "the broker at {} ends each connection soon after it is made: most likely another client connects as \
                 {:?} too, and the two throw each other out; give every device an mqtt.client_id of its own; results \
                 wait in the outbox in between",
                self.broker, self.client_id
            );
        }
    }

    /// The broker refuses the subscription to the command topics.
    pub(super) fn commands_refused(&mut self, now: Instant) {
        if self.seldom.may_say("commands", now) {
            warn!(
                "the broker at {} does not let this device hear commands: check its access list, or set \
                 mqtt.commands = false",
                self.broker
            );
        }
    }

    /// Somebody asked for something.
    pub(super) fn heard(&mut self, heard: Heard, now: Instant) {
        match heard {
            Heard::Answered => {}
            Heard::Replay { from, to } => info!("events {from} to {to} are asked for again and sent once more"),
            Heard::Refused(reason) => {
                if self.seldom.may_say(&format!("refused {reason:?}"), now) {
                    warn!("a command is refused: {reason:?}");
                }
            }
            Heard::Dropped => {
                if self.seldom.may_say("dropped", now) {
                    warn!("more commands come than can be answered; some are dropped");
                }
            }
        }
    }

    /// An answer to a command cannot be delivered.
    pub(super) fn unanswered(&mut self, code: u8, now: Instant) {
        let cause = format!("the broker refuses an answer to a command with reason code {code}");
        if self.seldom.may_say(&cause, now) {
            warn!("{cause}: check its access list");
        }
    }

    /// What goes to `topic` waits.
    pub(super) fn held(&mut self, topic: &str, hold: Hold, now: Instant) {
        let cause = match hold {
            Hold::Rejected { code } => format!("the broker refuses {topic} with reason code {code}"),
            Hold::NoSubscriber { alarm: false } => format!("nobody is subscribed to {topic}"),
            Hold::NoSubscriber { alarm: true } => format!("nobody has been subscribed to {topic} for a minute"),
        };
        if !self.seldom.may_say(&cause, now) {
            return;
        }
        match hold {
            Hold::Rejected { .. } => error!("{cause}: check its access list and limits; what waits for it is kept"),
            Hold::NoSubscriber { alarm: false } => warn!("{cause}: results wait until somebody is"),
            Hold::NoSubscriber { alarm: true } => {
                error!("{cause}: start a subscriber, or set result.require_subscriber = false");
            }
        }
    }
}
