//! Asking a running device over its broker, as `landmarkd replay` does.

use std::ops::RangeInclusive;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, PubAckReason, Publish, PublishProperties, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::delivery::code;
use super::link::loss;
use super::options::options;
use super::{MqttError, commands};
use crate::config::MqttSettings;
use crate::disposition::Disposition;
use crate::report::{Channel, Command, ReplayAnswer, ReplayRequest, ReplayState, Topics};

/// A subscription, a request and a DISCONNECT.
const REQUESTS: usize = 3;
/// How long the broker and a device that listens may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a device cannot be asked, or does not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The settings.
    #[error(transparent)]
    Settings(#[from] MqttError),
    /// The connection.
    #[error("no connection to the broker at {host}:{port}: {reason}")]
    Broker {
        /// `mqtt.host`.
        host: String,
        /// `mqtt.port`.
        port: u16,
        /// Why, in words.
        reason: String,
    },
    /// The broker does not let us read answers.
    #[error("the broker does not let this user subscribe to {topic}: check its access list")]
    Unheard {
        /// What we wanted to read.
        topic: String,
    },
    /// The broker does not let us ask.
    #[error("the broker refuses {topic} with reason code {code}: check its access list")]
    Refused {
        /// What we wanted to write.
        topic: String,
        /// MQTT 5.0, 3.4.2.1.
        code: u8,
    },
    /// Nobody listens.
    #[error("nobody listens on {topic}: is the daemon connected, and does it run with mqtt.commands = true?")]
    Nobody {
        /// Where a device would listen.
        topic: String,
    },
    /// The epoch is not known.
    #[error("nothing is on {topic}: name the epoch by --epoch, or start the daemon")]
    NoInfo {
        /// Where a device says what it is.
        topic: String,
    },
    /// Nothing comes.
    #[error("no answer on {topic}: ask again, what was sent already is told apart by its id")]
    Silent {
        /// Where the answer would have come.
        topic: String,
    },
}

impl AskError {
    /// Our own settings are wrong for good; anything else may be different the next time.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Settings(error) => error.disposition(),
            _ => Disposition::Retry,
        }
    }
}

/// Asks the device with these topics for the events of `numbers` once more, and calls `tell` with its answers; yields
/// the last one, which refuses or ends the replay. Without an epoch the device's present one is meant.
///
/// The connection has a client id of its own, so it does not throw out the daemon; where the broker takes the id from
/// the client's certificate, the settings must name another certificate than the daemon's.
///
/// # Errors
/// [`AskError`], when there is no such answer.
pub async fn replay(
    settings: &MqttSettings,
    topics: &Topics,
    epoch: Option<String>,
    numbers: RangeInclusive<u64>,
    mut tell: impl FnMut(&ReplayAnswer),
) -> Result<ReplayAnswer, AskError> {
    let mut settings = settings.clone();
    let own = format!("ask-{:032x}", seed());
    settings.client_id = format!("{}-{}", settings.client_id, &own[..12]);
    let (info, answers) = (topics.name(Channel::Info), topics.answer(Command::Replay));
    let mut line = Line::open(&settings, &[&info, &answers]).await?;
    let first = Instant::now() + PATIENCE;
    let epoch = match epoch {
        Some(epoch) => epoch,
        None => line.epoch(&info, first).await?,
    };
    let (from, to) = numbers.into_inner();
    line.ask(topics.command(Command::Replay), &answers, &own, &ReplayRequest { epoch, from, to })?;
    let mut deadline = first;
    loop {
        let silent = || AskError::Silent { topic: answers.clone() };
        let publish = match line.next(deadline).await?.ok_or_else(silent)? {
            Packet::PubAck(acknowledgement) => {
                let topic = topics.command(Command::Replay);
                match acknowledgement.reason {
                    PubAckReason::Success => continue,
                    PubAckReason::NoMatchingSubscribers => return Err(AskError::Nobody { topic }),
                    refused => return Err(AskError::Refused { topic, code: code(refused) }),
                }
            }
            Packet::Publish(publish) if publish.topic == answers && is_for(&publish, &own) => publish,
            _ => continue,
        };
        let Ok(answer) = serde_json::from_slice::<ReplayAnswer>(&publish.payload) else { continue };
        tell(&answer);
        if answer.state != ReplayState::Accepted {
            // The broker closes when it has it.
            let _closing = line.client.try_disconnect();
            let _closed = line.next(Instant::now() + Duration::from_secs(1)).await;
            return Ok(answer);
        }
        let count = answer.to.unwrap_or(0).saturating_sub(answer.from.unwrap_or(0));
        let work = commands::REPLAY_PAUSE * 10 * u32::try_from(count).unwrap_or(u32::MAX);
        deadline = Instant::now() + PATIENCE + work.min(Duration::from_secs(24 * 3600));
    }
}

/// A connection that listens.
struct Line {
    client: AsyncClient,
    event_loop: EventLoop,
    host: String,
    port: u16,
}

impl Line {
    async fn open(settings: &MqttSettings, filters: &[&str]) -> Result<Self, AskError> {
        let (client, event_loop) = AsyncClient::new(options(settings, None)?, REQUESTS);
        let mut line = Self { client, event_loop, host: settings.host.clone(), port: settings.port };
        let filters: Vec<Filter> = filters.iter().map(|&filter| Filter::new(filter, QoS::AtLeastOnce)).collect();
        let wanted: Vec<String> = filters.iter().map(|filter| filter.path.clone()).collect();
        // The channel is empty.
        let _queued = line.client.try_subscribe_many(filters);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match line.next(deadline).await? {
                Some(Packet::SubAck(answer)) => {
                    let refused = |code: &SubscribeReasonCode| !matches!(code, SubscribeReasonCode::Success(_));
                    return match answer.return_codes.iter().position(refused) {
                        Some(at) => Err(AskError::Unheard { topic: wanted[at].clone() }),
                        None => Ok(line),
                    };
                }
                Some(_) => {}
                None => return Err(line.broker("no answer to the subscription".to_owned())),
            }
        }
    }

    /// The next packet; `None` when none comes until `deadline`, and then the connection is of no more use.
    async fn next(&mut self, deadline: Instant) -> Result<Option<Packet>, AskError> {
        loop {
            match timeout_at(deadline, self.event_loop.poll()).await {
                Err(_) => return Ok(None),
                Ok(Ok(Event::Incoming(packet))) => return Ok(Some(packet)),
                Ok(Ok(Event::Outgoing(_))) => {}
                Ok(Err(error)) => return Err(self.broker(loss(&error).to_string())),
            }
        }
    }

    /// The epoch in the retained document on `topic`.
    async fn epoch(&mut self, topic: &str, deadline: Instant) -> Result<String, AskError> {
        #[derive(Deserialize)]
        struct Known {
            epoch: String,
        }
        while let Some(packet) = self.next(deadline).await? {
            if let Packet::Publish(publish) = packet
                && publish.topic == topic
                && let Ok(Known { epoch }) = serde_json::from_slice(&publish.payload)
            {
                return Ok(epoch);
            }
        }
        Err(AskError::NoInfo { topic: topic.to_owned() })
    }

    fn ask(&self, topic: String, answers: &str, own: &str, request: &ReplayRequest) -> Result<(), AskError> {
        let properties = PublishProperties {
            response_topic: Some(answers.to_owned()),
            correlation_data: Some(own.to_owned().into()),
            ..PublishProperties::default()
        };
        let text = commands::to_json(request);
        let asked = self.client.try_publish_with_properties(topic, QoS::AtLeastOnce, false, text, properties);
        asked.map_err(|_| self.broker("the connection takes nothing".to_owned()))
    }

    fn broker(&self, reason: String) -> AskError {
        AskError::Broker { host: self.host.clone(), port: self.port, reason }
    }
}

fn is_for(publish: &Publish, own: &str) -> bool {
    let correlation = publish.properties.as_ref().and_then(|properties| properties.correlation_data.as_ref());
    correlation.is_some_and(|bytes| bytes.as_ref() == own.as_bytes())
}

/// What no other process has: the number of this one and the time.
fn seed() -> u128 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    // The lowest digits differ most and are wanted first.
    (now ^ (u128::from(std::process::id()) << 20)).reverse_bits()
}
