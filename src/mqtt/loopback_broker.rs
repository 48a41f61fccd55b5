//! A small MQTT 5 broker on 127.0.0.1 for `landmarkd demo`, `landmarkd bench` and tests; never for a clinic.
//!
//! It knows what this package and an ordinary subscriber use: QoS 0 and 1, retained messages, last wills, wildcards,
//! PUBACK reason 16 when nobody is subscribed. It has no sessions, no persistence, no passwords and no TLS, and a
//! subscriber that does not read is dropped. [`Faults`] make it misbehave as real brokers do.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnAckProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode, LastWill, Packet, PingResp,
    PubAck, PubAckReason, Publish, SubAck, Subscribe, SubscribeReasonCode, UnsubAck, UnsubAckReason, Unsubscribe,
};
use rumqttc::v5::mqttbytes::{Error, QoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::bytes::{Bytes, BytesMut};
use tokio_util::task::AbortOnDropHandle;

/// Larger packets end the connection.
const MAX_PACKET_BYTES: u32 = 1024 * 1024;
/// Messages a subscriber may be behind.
const QUEUE: usize = 1024;

/// A running broker; dropping it ends it and every connection.
#[derive(Debug)]
pub struct LoopbackBroker {
    address: SocketAddr,
    hub: Arc<Hub>,
    _accepting: AbortOnDropHandle<()>,
}

/// What a subscriber gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Where it was published.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// Whether it was kept from before the subscription.
    pub retained: bool,
}

/// How the broker misbehaves; the default is not at all.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// CONNECT is answered with this.
    pub refuse_connect: Option<ConnectReturnCode>,
    /// CONNACK states this Maximum Packet Size.
    pub max_packet_bytes: Option<u32>,
    /// Publications on topics that match a filter are not delivered but answered with its reason.
    pub answers: Vec<(String, PubAckReason)>,
    /// So many publications on topics that match the filter are delivered but not acknowledged.
    pub swallow_pubacks: Option<(String, u32)>,
    /// Nothing is read, so nothing is answered, and the connection stays open: a half-open link.
    pub mute: bool,
}

#[derive(Debug, Default)]
struct Hub {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    faults: Faults,
    retained: BTreeMap<Bytes, Bytes>,
    subscriptions: Vec<Subscription>,
    connections: u64,
}

#[derive(Debug)]
struct Subscription {
    /// 0 within the process, else the connection.
    owner: u64,
    filter: String,
    sender: mpsc::Sender<Publish>,
}

/// Why a connection ended.
enum Closed {
    /// With DISCONNECT: the last will is forgotten.
    Cleanly,
    /// Any other way: the last will is published.
    Broken,
}

impl LoopbackBroker {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let hub = Arc::new(Hub::default());
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept(listener, Arc::clone(&hub))));
        Ok(Self { address, hub, _accepting: accepting })
    }

    /// The port it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.address.port()
    }

    /// Subscribes within the process: retained messages first, then every publication that matches, while the
    /// receiver lives.
    #[must_use]
    pub fn subscribe(&self, filter: &str) -> Subscriber {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.hub.lock().subscribe(0, filter, sender);
        Subscriber { receiver }
    }

    /// Changes how the broker misbehaves from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.hub.lock().faults = faults;
    }

    /// How many connections were made since the start, refused ones included.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.hub.lock().connections
    }
}

/// A subscription within the process.
#[derive(Debug)]
pub struct Subscriber {
    receiver: mpsc::Receiver<Publish>,
}

impl Subscriber {
    /// The next message; `None` when the broker has ended or the subscriber was dropped for being behind.
    pub async fn next(&mut self) -> Option<Delivered> {
        let publish = self.receiver.recv().await?;
        Some(Delivered {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload.to_vec(),
            retained: publish.retain,
        })
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock half-way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn subscribe(&mut self, owner: u64, filter: &str, sender: mpsc::Sender<Publish>) {
        for (topic, payload) in &self.retained {
            if matches(topic, filter) {
                let mut kept = Publish::new("", QoS::AtLeastOnce, payload.clone(), None);
                kept.topic = topic.clone();
                kept.retain = true;
                // A queue that is full so early belongs to a subscriber that will be dropped.
                let _full = sender.try_send(kept);
            }
        }
        self.subscriptions.retain(|kept| kept.owner == 0 || kept.owner != owner || kept.filter != filter);
        self.subscriptions.push(Subscription { owner, filter: filter.to_owned(), sender });
    }

    /// Delivers and yields the reason of the PUBACK.
    fn publish(&mut self, publish: &Publish) -> PubAckReason {
        let answer = self.faults.answers.iter().find(|(filter, _)| matches(&publish.topic, filter));
        if let Some(&(_, reason)) = answer {
            return reason;
        }
        if publish.retain {
            if publish.payload.is_empty() {
                self.retained.remove(&publish.topic);
            } else {
                self.retained.insert(publish.topic.clone(), publish.payload.clone());
            }
        }
        let mut live = publish.clone();
        live.retain = false;
        live.dup = false;
        let mut delivered = false;
        self.subscriptions.retain(|subscription| {
            if !matches(&publish.topic, &subscription.filter) {
                return !subscription.sender.is_closed();
            }
            let taken = subscription.sender.try_send(live.clone()).is_ok();
            delivered |= taken;
            taken
        });
        if delivered { PubAckReason::Success } else { PubAckReason::NoMatchingSubscribers }
    }

    /// Whether the acknowledgement of this publication is to be lost.
    fn swallows(&mut self, topic: &[u8]) -> bool {
        match &mut self.faults.swallow_pubacks {
            Some((filter, left)) if *left > 0 && matches(topic, filter) => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }
}

async fn accept(listener: TcpListener, hub: Arc<Hub>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream, Arc::clone(&hub)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves one connection to its end, then publishes its last will if it broke.
async fn serve(stream: TcpStream, hub: Arc<Hub>) {
    let owner = {
        let mut inner = hub.lock();
        inner.connections += 1;
        inner.connections
    };
    let mut will = None;
    let closed = converse(stream, &hub, owner, &mut will).await;
    let mut inner = hub.lock();
    inner.subscriptions.retain(|subscription| subscription.owner != owner);
    if let (Closed::Broken, Some(will)) = (closed, will) {
        let LastWill { topic, message, qos, retain, .. } = will;
        inner.publish(&Publish { qos, retain, topic, payload: message, ..Publish::default() });
    }
}

async fn converse(mut stream: TcpStream, hub: &Hub, owner: u64, will: &mut Option<LastWill>) -> Closed {
    let (sender, mut queue) = mpsc::channel::<Publish>(QUEUE);
    let mut incoming = BytesMut::with_capacity(64 * 1024);
    let mut last_id = 0u16;
    loop {
        let packet = tokio::select! {
            packet = read_packet(&mut stream, &mut incoming) => packet,
            Some(mut publish) = queue.recv() => {
                last_id = last_id % u16::MAX + 1;
                publish.pkid = last_id;
                publish.qos = QoS::AtLeastOnce;
                if write_packet(&mut stream, &Packet::Publish(publish)).await.is_err() {
                    return Closed::Broken;
                }
                continue;
            }
        };
        if hub.lock().faults.mute {
            return std::future::pending().await;
        }
        let answer = match packet {
            Ok(Packet::Connect(_, last_will, _)) => {
                let faults = hub.lock().faults.clone();
                *will = last_will.filter(|_| faults.refuse_connect.is_none());
                Some(connack(&faults))
            }
            Ok(Packet::Publish(publish)) => acknowledge(hub, &publish),
            Ok(Packet::Subscribe(subscribe)) => Some(subscribed(hub, owner, subscribe, &sender)),
            Ok(Packet::Unsubscribe(unsubscribe)) => Some(unsubscribed(hub, owner, unsubscribe)),
            Ok(Packet::PingReq(_)) => Some(Packet::PingResp(PingResp)),
            Ok(Packet::PubAck(_)) => None,
            Ok(Packet::Disconnect(_)) => return Closed::Cleanly,
            Ok(_) | Err(_) => return Closed::Broken,
        };
        if let Some(answer) = answer
            && write_packet(&mut stream, &answer).await.is_err()
        {
            return Closed::Broken;
        }
    }
}

fn connack(faults: &Faults) -> Packet {
    let properties = faults.max_packet_bytes.map(|limit| ConnAckProperties {
        max_packet_size: Some(limit),
        session_expiry_interval: None,
        receive_max: None,
        max_qos: None,
        retain_available: None,
        assigned_client_identifier: None,
        topic_alias_max: None,
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: None,
        shared_subscription_available: None,
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    });
    let code = faults.refuse_connect.unwrap_or(ConnectReturnCode::Success);
    Packet::ConnAck(ConnAck { session_present: false, code, properties })
}

fn acknowledge(hub: &Hub, publish: &Publish) -> Option<Packet> {
    let mut inner = hub.lock();
    let reason = inner.publish(publish);
    if publish.qos == QoS::AtMostOnce || inner.swallows(&publish.topic) {
        return None;
    }
    Some(Packet::PubAck(PubAck { pkid: publish.pkid, reason, properties: None }))
}

fn subscribed(hub: &Hub, owner: u64, subscribe: Subscribe, sender: &mpsc::Sender<Publish>) -> Packet {
    let mut inner = hub.lock();
    let return_codes = subscribe
        .filters
        .iter()
        .map(|filter| {
            inner.subscribe(owner, &filter.path, sender.clone());
            SubscribeReasonCode::Success(QoS::AtLeastOnce)
        })
        .collect();
    Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes, properties: None })
}

fn unsubscribed(hub: &Hub, owner: u64, unsubscribe: Unsubscribe) -> Packet {
    let gone = |kept: &Subscription| kept.owner == owner && unsubscribe.filters.contains(&kept.filter);
    hub.lock().subscriptions.retain(|kept| !gone(kept));
    let reasons = unsubscribe.filters.iter().map(|_| UnsubAckReason::Success).collect();
    Packet::UnsubAck(UnsubAck { pkid: unsubscribe.pkid, reasons, properties: None })
}

/// Reads one packet; dropping it half-way loses nothing, for what was read stays in `incoming`.
async fn read_packet(stream: &mut TcpStream, incoming: &mut BytesMut) -> Result<Packet, Error> {
    loop {
        // The codec takes no DISCONNECT without a reason code, the form most clients send (MQTT 5.0, 3.14.2.1).
        if incoming.starts_with(&[0xe0, 0x00]) {
            *incoming = incoming.split_off(2);
            return Ok(Packet::Disconnect(Disconnect::new(DisconnectReasonCode::NormalDisconnection)));
        }
        match Packet::read(incoming, Some(MAX_PACKET_BYTES)) {
            Err(Error::InsufficientBytes(_)) => {}
            done => return done,
        }
        if stream.read_buf(incoming).await? == 0 {
            return Err(Error::Io(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

async fn write_packet(stream: &mut TcpStream, packet: &Packet) -> Result<(), Error> {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, None)?;
    stream.write_all(&bytes).await?;
    Ok(())
}

/// Whether a topic matches a filter (MQTT 5.0, 4.7).
fn matches(topic: &[u8], filter: &str) -> bool {
    let mut levels = topic.split(|&byte| byte == b'/');
    if topic.first() == Some(&b'$') && filter.starts_with(['+', '#']) {
        return false;
    }
    for pattern in filter.split('/') {
        match (pattern, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (pattern, Some(level)) if pattern.as_bytes() == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_the_standard_says() {
        for (topic, filter, expected) in [
            ("a/b/c", "a/b/c", true),
            ("a/b/c", "a/+/c", true),
            ("a/b/c", "a/#", true),
            ("a", "a/#", true),
            ("a/b/c", "#", true),
            ("a/b/c", "a/+", false),
            ("a", "a/+", false),
            ("a/", "a/+", true),
            ("a/b", "a/b/c", false),
            ("$SYS/x", "#", false),
            ("$SYS/x", "$SYS/#", true),
            ("ä/b", "+/b", true),
        ] {
            assert_eq!(matches(topic.as_bytes(), filter), expected, "{topic} {filter}");
        }
    }
}
