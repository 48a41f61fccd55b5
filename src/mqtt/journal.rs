//! What the journal hears of the broker: each cause once in five minutes (R15).

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Hold;
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
        let broker = &self.broker;
        match loss {
            Loss::ClientIdTaken => error!(
                "another client connects to the broker at {broker} as {:?} and throws this device out: give every \
                 device an mqtt.client_id of its own; results wait in the outbox in between",
                self.client_id
            ),
            Loss::Other(reason) => {
                self.loss_told = true;
                warn!("no connection to the broker at {broker}: {reason}; results wait in the outbox");
            }
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
