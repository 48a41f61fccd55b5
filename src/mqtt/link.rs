//! One connection to the broker, from CONNECT to its end; it is never mended, the next one is new.

use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnAck, Packet, PubAckReason, Publish, PublishProperties};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// A publication and a DISCONNECT.
const REQUESTS: usize = 2;
/// How long the broker may take to close after DISCONNECT.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A live connection. Dropping it closes the socket without a DISCONNECT: the broker then publishes the last will.
pub(super) struct Link {
    client: AsyncClient,
    signals: mpsc::Receiver<Signal>,
    pump: AbortOnDropHandle<()>,
    max_packet_bytes: Option<u32>,
}

/// What a connection tells.
#[derive(Debug)]
pub(super) enum Signal {
    /// The broker answered the packet under way.
    Acknowledged(PubAckReason),
    /// It is over; why, in words for the journal.
    Lost(String),
}

/// What to publish.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) retain: bool,
    pub(super) content_type: &'static str,
    pub(super) payload: Vec<u8>,
}

impl Message {
    fn properties(&self) -> PublishProperties {
        PublishProperties {
            payload_format_indicator: Some(1),
            content_type: Some(self.content_type.to_owned()),
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
    /// Connects and waits for the CONNACK; the error is words for the journal.
    pub(super) async fn open(options: MqttOptions) -> Result<Self, String> {
        let (client, mut event_loop) = AsyncClient::new(options, REQUESTS);
        let max_packet_bytes = loop {
            match event_loop.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(ConnAck { properties, .. }))) => {
                    break properties.and_then(|properties| properties.max_packet_size);
                }
                Ok(_) => {}
                Err(error) => return Err(in_words(&error)),
            }
        };
        let (sender, signals) = mpsc::channel(REQUESTS);
        // rumqttc's `poll` loses bytes when it is dropped half-way, so it runs where nothing selects over it.
        let pump = AbortOnDropHandle::new(tokio::spawn(pump(event_loop, sender)));
        Ok(Self { client, signals, pump, max_packet_bytes })
    }

    /// The largest packet the broker takes, where it says so (CONNACK's Maximum Packet Size).
    pub(super) const fn max_packet_bytes(&self) -> Option<u32> {
        self.max_packet_bytes
    }

    /// Hands a message to the connection with QoS 1; false when the connection is over.
    pub(super) fn publish(&self, message: Message) -> bool {
        let properties = message.properties();
        let Message { topic, retain, payload, .. } = message;
        self.client.try_publish_with_properties(topic, QoS::AtLeastOnce, retain, payload, properties).is_ok()
    }

    /// The next thing the connection tells.
    pub(super) async fn signal(&mut self) -> Signal {
        self.signals.recv().await.unwrap_or_else(|| Signal::Lost("the connection's task ended".to_owned()))
    }

    /// Says DISCONNECT, so that the last will is not published, and waits a little for the broker to close.
    pub(super) async fn close(self) {
        if self.client.try_disconnect().is_ok() {
            // Whether it closed in time or not, the connection is over.
            let _closed = timeout(CLOSE_TIMEOUT, self.pump).await;
        }
    }
}

async fn pump(mut event_loop: EventLoop, signals: mpsc::Sender<Signal>) {
    loop {
        let signal = match event_loop.poll().await {
            Ok(Event::Incoming(Packet::PubAck(acknowledgement))) => Signal::Acknowledged(acknowledgement.reason),
            Ok(_) => continue,
            Err(error) => Signal::Lost(in_words(&error)),
        };
        let over = matches!(signal, Signal::Lost(_));
        if signals.send(signal).await.is_err() || over {
            return;
        }
    }
}

/// rumqttc's words are for its debuggers; these are for an operator where they can be.
fn in_words(error: &ConnectionError) -> String {
    use rumqttc::v5::StateError;
    match error {
        ConnectionError::Io(error) => error.to_string(),
        ConnectionError::Tls(error) => format!("TLS: {}", error.to_string().trim_start_matches("I/O: ")),
        ConnectionError::Timeout(_) => "no answer to the attempt to connect".to_owned(),
        ConnectionError::ConnectionRefused(code) => format!("the broker refused the connection: {code:?}"),
        ConnectionError::MqttState(StateError::AwaitPingResp) => "the broker does not answer pings".to_owned(),
        ConnectionError::MqttState(StateError::ConnectionAborted) => "the broker closed the connection".to_owned(),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => {
            format!("the broker ended the connection: {reason_code:?}")
        }
        other => other.to_string(),
    }
}
