//! One connection to the broker, from CONNECT to its end; it is never mended, the next one is new.

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use rumqttc::TlsError;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, DisconnectReasonCode, Filter, Packet, PubAckReason, Publish, PublishProperties, RetainForwardRule, SubAck,
    SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{self, QoS};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use rustls::CertificateError;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::bytes::Bytes;
use tokio_util::task::AbortOnDropHandle;

/// A publication or subscription, and a DISCONNECT.
const REQUESTS: usize = 2;
/// From SUBSCRIBE to SUBACK.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the broker may take to close after DISCONNECT.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A live connection. Dropping it closes the socket without a DISCONNECT: the broker then publishes the last will.
pub(super) struct Link {
    client: AsyncClient,
    signals: mpsc::Receiver<Signal>,
    pump: AbortOnDropHandle<()>,
    max_packet_bytes: Option<u32>,
    commands_refused: bool,
}

/// What a connection tells.
#[derive(Debug)]
pub(super) enum Signal {
    /// The broker answered the packet under way.
    Acknowledged(PubAckReason),
    /// Somebody asks for something.
    Asked(Request),
    /// It is over.
    Lost(Loss),
}

/// What somebody asks for.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) response_topic: Option<String>,
    pub(super) correlation: Option<Vec<u8>>,
}

/// Why a connection ended or was not made; its text is for the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Another client came with our id, and the broker keeps the newer one (MQTT 5.0, 3.14.2.1: 142).
    ClientIdTaken,
    /// The broker closed the connection without a word.
    Closed,
    /// The broker answered with a reason code that its packet must not have. Mosquitto refuses what is larger than its
    /// `message_size_limit` with 149 in a PUBACK, which rumqttc takes for the end of the connection.
    Reason(u8),
    /// Anything else.
    Other(String),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientIdTaken => f.write_str("another client came with the same client id"),
            Self::Closed => f.write_str("the broker closed the connection"),
            Self::Reason(code) => write!(f, "the broker answered with the unknown reason code {code}"),
            Self::Other(words) => f.write_str(words),
        }
    }
}

impl From<&str> for Loss {
    fn from(words: &str) -> Self {
        Self::Other(words.to_owned())
    }
}

/// What to publish.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) retain: bool,
    pub(super) content_type: &'static str,
    /// What the request that this answers wants back as it came.
    pub(super) correlation: Option<Vec<u8>>,
    pub(super) payload: Vec<u8>,
}

impl Message {
    fn properties(&self) -> PublishProperties {
        PublishProperties {
            payload_format_indicator: Some(1),
            content_type: Some(self.content_type.to_owned()),
            correlation_data: self.correlation.clone().map(Bytes::from),
            ..PublishProperties::default()
        }
    }

    /// The bytes of the PUBLISH packet (MQTT 5.0, 3.3).
    pub(super) fn wire_bytes(&self) -> usize {
        let payload = self.payload.clone();
        let mut packet = Publish::new(&self.topic, QoS::AtLeastOnce, payload, Some(self.properties()));
        // A packet without an identifier would be counted without its two bytes.
        packet.pkid = 1;
        packet.size()
    }
}

impl Link {
    /// Connects and waits for the CONNACK, and for the SUBACK where there are `topics` on which we are asked.
    pub(super) async fn open(options: MqttOptions, topics: &[String]) -> Result<Self, Loss> {
        let (client, mut event_loop) = AsyncClient::new(options, REQUESTS);
        let max_packet_bytes = loop {
            match event_loop.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(ConnAck { properties, .. }))) => {
                    break properties.and_then(|properties| properties.max_packet_size);
                }
                Ok(_) => {}
                Err(error) => return Err(loss(&error)),
            }
        };
        let mut commands_refused = false;
        if !topics.is_empty() {
            // Nothing is published meanwhile: rumqttc numbers both from 1, and no two packets under way may be the same.
            let subscribed = timeout(SUBSCRIBE_TIMEOUT, subscribe(&client, &mut event_loop, topics)).await;
            commands_refused = !subscribed.unwrap_or_else(|_| Err("no answer to the subscription".into()))?;
        }
        let (sender, signals) = mpsc::channel(REQUESTS);
        // rumqttc's `poll` loses bytes when it is dropped half-way, so it runs where nothing selects over it.
        let pump = AbortOnDropHandle::new(tokio::spawn(pump(event_loop, sender)));
        Ok(Self { client, signals, pump, max_packet_bytes, commands_refused })
    }

    /// The largest packet the broker takes, where it says so (CONNACK's Maximum Packet Size).
    pub(super) const fn max_packet_bytes(&self) -> Option<u32> {
        self.max_packet_bytes
    }

    /// Whether the broker lets us hear no commands.
    pub(super) const fn commands_refused(&self) -> bool {
        self.commands_refused
    }

    /// Hands a message to the connection with QoS 1; false when the connection is over.
    pub(super) fn publish(&self, message: Message) -> bool {
        let properties = message.properties();
        let Message { topic, retain, payload, .. } = message;
        self.client.try_publish_with_properties(topic, QoS::AtLeastOnce, retain, payload, properties).is_ok()
    }

    /// The next thing the connection tells.
    pub(super) async fn signal(&mut self) -> Signal {
        self.signals.recv().await.unwrap_or_else(|| Signal::Lost("the connection's task ended".into()))
    }

    /// Says DISCONNECT, so that the last will is not published, and waits a little for the broker to close.
    pub(super) async fn close(self) {
        if self.client.try_disconnect().is_ok() {
            // Whether it closed in time or not, the connection is over.
            let _closed = timeout(CLOSE_TIMEOUT, self.pump).await;
        }
    }
}

/// Subscribes to the topics on which we are asked; whether the broker lets us.
async fn subscribe(client: &AsyncClient, event_loop: &mut EventLoop, topics: &[String]) -> Result<bool, Loss> {
    let filters = topics.iter().map(|topic| Filter {
        // A command that is retained would come again with every connection.
        retain_forward_rule: RetainForwardRule::Never,
        ..Filter::new(topic, QoS::AtLeastOnce)
    });
    client.try_subscribe_many(filters).map_err(|_| Loss::from("the connection takes nothing"))?;
    loop {
        match event_loop.poll().await {
            Ok(Event::Incoming(Packet::SubAck(SubAck { return_codes, .. }))) => {
                return Ok(return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_))));
            }
            Ok(_) => {}
            Err(error) => return Err(loss(&error)),
        }
    }
}

async fn pump(mut event_loop: EventLoop, signals: mpsc::Sender<Signal>) {
    loop {
        let signal = match event_loop.poll().await {
            Ok(Event::Incoming(Packet::PubAck(acknowledgement))) => Signal::Acknowledged(acknowledgement.reason),
            Ok(Event::Incoming(Packet::Publish(publish))) => Signal::Asked(request(publish)),
            Ok(_) => continue,
            Err(error) => Signal::Lost(loss(&error)),
        };
        let over = matches!(signal, Signal::Lost(_));
        if signals.send(signal).await.is_err() || over {
            return;
        }
    }
}

fn request(publish: Publish) -> Request {
    let Publish { topic, payload, properties, .. } = publish;
    let properties = properties.unwrap_or_default();
    Request {
        topic: String::from_utf8_lossy(&topic).into_owned(),
        payload: payload.to_vec(),
        response_topic: properties.response_topic,
        correlation: properties.correlation_data.map(|bytes| bytes.to_vec()),
    }
}

/// rumqttc's words are for its debuggers; these are for an operator where they can be.
pub(super) fn loss(error: &ConnectionError) -> Loss {
    Loss::Other(match error {
        ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) if is_closing(error) => {
            return Loss::Closed;
        }
        ConnectionError::Io(error) => error.to_string(),
        ConnectionError::Tls(error) => format!("TLS: {}", tls_in_words(error)),
        ConnectionError::Timeout(_) => "no answer to the attempt to connect".to_owned(),
        ConnectionError::ConnectionRefused(code) => format!("the broker refused the connection: {code:?}"),
        ConnectionError::MqttState(error) => match error {
            StateError::AwaitPingResp => "the broker does not answer pings".to_owned(),
            StateError::ConnectionAborted => return Loss::Closed,
            StateError::Deserialization(mqttbytes::Error::Io(error)) if is_closing(error) => return Loss::Closed,
            StateError::ServerDisconnect { reason_code: DisconnectReasonCode::SessionTakenOver, .. } => {
                return Loss::ClientIdTaken;
            }
            StateError::Deserialization(mqttbytes::Error::InvalidConnectReturnCode(code)) => {
                return Loss::Reason(*code);
            }
            StateError::ServerDisconnect { reason_code, .. } => {
                format!("the broker ended the connection: {reason_code:?}")
            }
            other => other.to_string(),
        },
        other => other.to_string(),
    })
}

/// What is read or written after the other end has closed.
fn is_closing(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// What is wrong with a certificate by the calendar is as often wrong with our clock: both are named.
fn tls_in_words(error: &TlsError) -> String {
    use rustls::Error::InvalidCertificate;
    let reason = match error {
        TlsError::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
        TlsError::TLS(error) => Some(error),
        _ => None,
    };
    let now = || humantime::format_rfc3339_seconds(SystemTime::now());
    match reason {
        Some(InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. })) => {
            format!("the broker's certificate is not valid yet (NotValidYet): the clock of this machine says {}", now())
        }
        Some(InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            format!("the broker's certificate has expired (Expired): the clock of this machine says {}", now())
        }
        _ => error.to_string().trim_start_matches("I/O: ").to_owned(),
    }
}
