//! What a broker says to this device, asked without an effect on anybody else: for `landmarkd doctor`.
//!
//! A publication with QoS 2 has two halves: the broker judges it at PUBLISH and hands it on at PUBREL (MQTT 5.0, 4.3.3).
//! The probe sends the first half only, so the broker's access list answers for every topic and no subscriber hears
//! anything. A broker may also hand on at once; its subscribers then hear an empty message, which is no document.
//! rumqttc's client always sends the second half, so the packets are written and read here, by its codec.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::TlsConfiguration;
use rumqttc::tokio_rustls::TlsConnector;
use rumqttc::v5::mqttbytes::v5::{
    Connect, ConnectProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode, Filter, Login, Packet,
    PubAckReason, PubRecReason, Publish, Subscribe,
};
use rumqttc::v5::mqttbytes::{Error, QoS};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::bytes::BytesMut;

use super::options::check;
use super::tls;
use crate::config::MqttSettings;
use crate::report::{Channel, Topics};
use crate::secret;

/// For each step: to connect, to shake hands, and for each answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A broker that lets nobody read `$SYS` says nothing at all.
const VERSION_PATIENCE: Duration = Duration::from_secs(2);
/// Answers are small.
const MAX_PACKET_BYTES: u32 = 64 * 1024;
/// Where Mosquitto and others tell what they are.
const VERSION_TOPIC: &str = "$SYS/broker/version";

/// What the broker said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The largest packet it takes, where it says so.
    pub max_packet_bytes: Option<u32>,
    /// What it says to a publication on each of the device's topics that carry documents.
    pub topics: Vec<(Channel, Answer)>,
    /// What it says to an empty message on the metrics topic, which carries none.
    pub unheard: Answer,
    /// Its name and version, where it tells them.
    pub version: Option<String>,
}

/// The broker's word about a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It takes it.
    Taken,
    /// It takes it, and tells that nobody is subscribed (reason 16).
    NobodyListens,
    /// Its access list does not allow it (reason 135).
    Denied,
    /// It refuses for another reason, in its own word.
    Refused(String),
    /// It takes no QoS 2, and a lesser one would be heard.
    Untried,
}

/// Where the way to the broker ends.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The settings allow no connection.
    #[error(transparent)]
    Settings(#[from] super::MqttError),
    /// The port does not answer.
    #[error("no TCP connection to {host}:{port}: {source}")]
    Connect {
        /// The broker's host.
        host: String,
        /// Its port.
        port: u16,
        /// The system's reason.
        source: io::Error,
    },
    /// It answers, and no encrypted connection comes about.
    #[error("no TLS with {host}: {source}")]
    Tls {
        /// The broker's host.
        host: String,
        /// rustls's reason.
        source: io::Error,
    },
    /// It refuses the device.
    #[error("the broker refuses the connection: {}", refusal(*.0))]
    Refused(ConnectReturnCode),
    /// It ends the connection in the middle.
    #[error("the broker ended the conversation: {0}")]
    Ended(String),
}

/// What a refused connection means.
fn refusal(code: ConnectReturnCode) -> String {
    match code {
        ConnectReturnCode::BadUserNamePassword => "user name or password is wrong".to_owned(),
        ConnectReturnCode::NotAuthorized => "not authorized".to_owned(),
        ConnectReturnCode::UnsupportedProtocolVersion | ConnectReturnCode::RefusedProtocolVersion => {
            "it does not speak MQTT 5".to_owned()
        }
        other => format!("{other:?}"),
    }
}

impl ProbeError {
    /// Whether the device was let in and turned away by name.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// Connects as the device, under another client id, and asks what it may do; takes a few seconds at most.
///
/// # Errors
/// [`ProbeError`] where no conversation comes about.
pub async fn probe(settings: &MqttSettings, topics: &Topics) -> Result<Probe, ProbeError> {
    check(settings)?;
    let (host, port) = (settings.host.clone(), settings.port);
    let failed = |source| ProbeError::Connect { host: host.clone(), port, source };
    let connecting = timeout(PATIENCE, TcpStream::connect((settings.host.as_str(), port)));
    let stream = connecting.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed)?;
    let Some(tls) = &settings.tls else { return converse(stream, settings, topics).await };
    let failed = |source| ProbeError::Tls { host: host.clone(), source };
    let TlsConfiguration::Rustls(config) = tls::configuration(tls).map_err(super::MqttError::from)? else {
        return Err(failed(io::ErrorKind::Unsupported.into()));
    };
    let name = ServerName::try_from(host.clone()).map_err(|error| failed(io::Error::other(error)))?;
    let shaking = timeout(PATIENCE, TlsConnector::from(Arc::clone(&config)).connect(name, stream));
    let stream = shaking.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed)?;
    converse(stream, settings, topics).await
}

async fn converse<S>(stream: S, settings: &MqttSettings, topics: &Topics) -> Result<Probe, ProbeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut line = Line { stream, unread: BytesMut::new() };
    line.send(&Packet::Connect(connect(settings), None, login(settings)?)).await?;
    let Packet::ConnAck(answer) = line.receive(PATIENCE).await? else {
        return Err(ProbeError::Ended("it answers CONNECT with something else".to_owned()));
    };
    if answer.code != ConnectReturnCode::Success {
        return Err(ProbeError::Refused(answer.code));
    }
    let max_packet_bytes = answer.properties.as_ref().and_then(|properties| properties.max_packet_size);
    let takes_qos_2 = answer.properties.as_ref().and_then(|properties| properties.max_qos).is_none_or(|most| most >= 2);

    let mut answers = Vec::new();
    let mut pkid = 1;
    for channel in [Channel::Result, Channel::Error, Channel::Status, Channel::Info] {
        let answer = if takes_qos_2 {
            pkid += 1;
            line.first_half(topics.name(channel), pkid).await?
        } else {
            Answer::Untried
        };
        answers.push((channel, answer));
    }
    let unheard = line.publish(topics.name(Channel::Metrics)).await?;
    let version = line.version().await;
    // Whether it hears that or not, the conversation is over.
    let _told = line.send(&Packet::Disconnect(Disconnect::new(DisconnectReasonCode::NormalDisconnection))).await;
    Ok(Probe { max_packet_bytes, topics: answers, unheard, version })
}

/// A new session, forgotten with the connection, under a name that is nobody's: the daemon keeps its own.
fn connect(settings: &MqttSettings) -> Connect {
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = Some(0);
    let client_id = format!("{}-doctor-{}", settings.client_id, std::process::id());
    Connect { keep_alive: 60, client_id, clean_start: true, properties: Some(properties) }
}

fn login(settings: &MqttSettings) -> Result<Option<Login>, ProbeError> {
    let Some(credentials) = &settings.credentials else { return Ok(None) };
    let password = secret::read_text(&credentials.password_file).map_err(super::MqttError::from)?;
    Ok(Some(Login::new(&credentials.username, password)))
}

/// A connection that speaks in packets.
struct Line<S> {
    stream: S,
    unread: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    async fn send(&mut self, packet: &Packet) -> Result<(), ProbeError> {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, None).map_err(|error| ProbeError::Ended(error.to_string()))?;
        let sending = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        let sent = timeout(PATIENCE, sending).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        sent.map_err(|error| ProbeError::Ended(error.to_string()))
    }

    async fn receive(&mut self, patience: Duration) -> Result<Packet, ProbeError> {
        let receiving = async {
            loop {
                match Packet::read(&mut self.unread, Some(MAX_PACKET_BYTES)) {
                    Ok(Packet::Disconnect(goodbye)) => return Err(format!("{:?}", goodbye.reason_code)),
                    Ok(packet) => return Ok(packet),
                    Err(Error::InsufficientBytes(_)) => {}
                    Err(error) => return Err(error.to_string()),
                }
                match self.stream.read_buf(&mut self.unread).await {
                    Ok(0) => return Err("it closed the connection".to_owned()),
                    Ok(_) => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
        };
        let received = timeout(patience, receiving).await.unwrap_or_else(|_| Err("it does not answer".to_owned()));
        received.map_err(ProbeError::Ended)
    }

    /// PUBLISH with QoS 2, never released: judged, and not handed on.
    async fn first_half(&mut self, topic: String, pkid: u16) -> Result<Answer, ProbeError> {
        let publish = Publish { pkid, ..Publish::new(topic, QoS::ExactlyOnce, Vec::new(), None) };
        self.send(&Packet::Publish(publish)).await?;
        loop {
            if let Packet::PubRec(answer) = self.receive(PATIENCE).await?
                && answer.pkid == pkid
            {
                return Ok(match answer.reason {
                    PubRecReason::Success => Answer::Taken,
                    PubRecReason::NoMatchingSubscribers => Answer::NobodyListens,
                    PubRecReason::NotAuthorized => Answer::Denied,
                    other => Answer::Refused(format!("{other:?}")),
                });
            }
        }
    }

    /// An empty message with QoS 1, not retained.
    async fn publish(&mut self, topic: String) -> Result<Answer, ProbeError> {
        let publish = Publish { pkid: 1, ..Publish::new(topic, QoS::AtLeastOnce, Vec::new(), None) };
        self.send(&Packet::Publish(publish)).await?;
        loop {
            if let Packet::PubAck(answer) = self.receive(PATIENCE).await? {
                return Ok(match answer.reason {
                    PubAckReason::Success => Answer::Taken,
                    PubAckReason::NoMatchingSubscribers => Answer::NobodyListens,
                    PubAckReason::NotAuthorized => Answer::Denied,
                    other => Answer::Refused(format!("{other:?}")),
                });
            }
        }
    }

    /// What the broker calls itself, where it lets us read it.
    async fn version(&mut self) -> Option<String> {
        let mut subscribe = Subscribe::new(Filter::new(VERSION_TOPIC, QoS::AtMostOnce), None);
        subscribe.pkid = 1;
        self.send(&Packet::Subscribe(subscribe)).await.ok()?;
        let listening = async {
            loop {
                if let Packet::Publish(publish) = self.receive(PATIENCE).await.ok()?
                    && publish.topic == VERSION_TOPIC
                {
                    let text = String::from_utf8(publish.payload.to_vec()).ok()?;
                    return Some(text.chars().filter(|c| !c.is_control()).take(80).collect());
                }
            }
        };
        timeout(VERSION_PATIENCE, listening).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::loopback_broker::LoopbackBroker;
    use crate::mqtt::tests::settings;

    fn topics() -> Topics {
        Topics::new("clinic", "ceph-1").expect("levels")
    }

    #[tokio::test]
    async fn a_port_without_a_broker_and_one_that_refuses_are_told_apart() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let error = probe(&settings(free), &topics()).await.expect_err("nobody listens");
        assert!(matches!(error, ProbeError::Connect { .. }), "{error}");

        let broker = LoopbackBroker::start().await.expect("a port");
        broker.set_faults(crate::mqtt::loopback_broker::Faults {
            refuse_connect: Some(ConnectReturnCode::NotAuthorized),
            ..Default::default()
        });
        let error = probe(&settings(broker.port()), &topics()).await.expect_err("refused");
        assert!(error.is_refusal() && error.to_string().contains("not authorized"), "{error}");
    }
}
