//! A subscriber that misses nothing, to be copied: rumqttc, serde_json and the standard library.
//!
//!   subscriber --device xr/v1/clinic/ceph-1 --state FILE [--host H] [--port P] [--client-id ID]
//!              [--username U --password-file F] [--ca FILE [--cert FILE --key FILE]]
//!              [--ping SECONDS] [--until N] [--within SECONDS]
//!
//! Prints results and refusals on standard output, one JSON document a line, in the order of their numbers: each once,
//! or again after a crash between printing and remembering (the same `id` tells). How it gets there:
//!
//! - Its session outlives its connection, so the broker keeps what comes while it is away.
//! - It acknowledges an event when it has remembered it: (epoch, next number) lie in a file that is written under
//!   another name, flushed and renamed.
//! - Numbers have no gaps, so a gap is a loss: it holds back what is above, asks the device on `cmd/replay` and goes on
//!   when the gap is filled, or when the device says that the events are gone for good.
//! - The last events can be lost without a gap: now and then it asks on `cmd/ping` how far the device has counted.
//!
//! With `--until N` it ends when it has come to N: with 0 when 1 to N are complete, else with 1 and the numbers that
//! are missing on standard error.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, PublishProperties};
use rumqttc::v5::{Client, Connection, Event, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use serde_json::{Value, json};

/// The device is asked again when nothing has come for so long.
const SILENCE: Duration = Duration::from_secs(5);
/// Events above a gap that are held back; those beyond are dropped, for the replay brings them again.
const HELD_BACK: usize = 10_000;
/// For how long the broker keeps our session while we are away.
const SESSION_S: u32 = 30 * 24 * 3600;

/// What survives a crash.
struct Progress {
    file: PathBuf,
    epoch: String,
    /// The lowest number that was not printed yet.
    next: u64,
    /// Numbers that the device no longer has.
    missing: Vec<u64>,
}

impl Progress {
    fn read(file: &Path) -> io::Result<Self> {
        let text = match fs::read(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => b"{}".to_vec(),
            Err(error) => return Err(error),
        };
        let value: Value = serde_json::from_slice(&text)?;
        let missing = value["missing"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        let epoch = value["epoch"].as_str().unwrap_or_default().to_owned();
        Ok(Self { file: file.to_owned(), epoch, next: value["next"].as_u64().unwrap_or(1), missing })
    }

    /// Returns when it is on the disk.
    fn remember(&self) -> io::Result<()> {
        let new = self.file.with_extension("new");
        let mut file = File::create(&new)?;
        let text = json!({"epoch": self.epoch, "next": self.next, "missing": self.missing});
        file.write_all(text.to_string().as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.file)?;
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

struct Subscriber {
    client: Client,
    device: String,
    id: String,
    progress: Progress,
    /// What lies above a gap.
    held_back: BTreeMap<u64, Vec<u8>>,
    /// The last number that the device is known to have given out.
    last: u64,
    /// When the device is asked for what is missing.
    ask_at: Option<Instant>,
    /// When the last event came.
    heard_at: Instant,
    /// Events that came, those of them that had come before, and those that say they are late.
    heard: usize,
    again: usize,
    replayed: usize,
}

impl Subscriber {
    fn hear(&mut self, publish: &Publish) -> io::Result<()> {
        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
        let document: Value = serde_json::from_slice(&publish.payload).unwrap_or_default();
        match topic.strip_prefix(&self.device) {
            Some("/result" | "/error") => self.event(&document, &publish.payload)?,
            Some("/cmd/replay/answer" | "/cmd/ping/answer") if self.is_ours(publish) => self.answer(&document)?,
            _ => {}
        }
        // It is printed and remembered, or it can be had again.
        self.client.try_ack(publish).map_err(io::Error::other)
    }

    fn is_ours(&self, publish: &Publish) -> bool {
        let correlation = publish.properties.as_ref().and_then(|properties| properties.correlation_data.as_ref());
        correlation.is_some_and(|bytes| bytes.as_ref() == self.id.as_bytes())
    }

    fn event(&mut self, event: &Value, text: &[u8]) -> io::Result<()> {
        let (Some(epoch), Some(number)) = (event["epoch"].as_str(), number(&event["sequence"])) else {
            eprintln!("not an event: {event}");
            return Ok(());
        };
        if self.progress.epoch != epoch {
            // The device has a new state directory and counts from 1 again; what it had before is gone with the old one.
            eprintln!("epoch {epoch}, after {:?}", self.progress.epoch);
            let file = self.progress.file.clone();
            self.progress = Progress { file, epoch: epoch.to_owned(), next: 1, missing: Vec::new() };
            self.held_back.clear();
            self.last = 0;
        }
        self.last = self.last.max(number);
        self.heard += 1;
        self.again += usize::from(number < self.progress.next || self.held_back.contains_key(&number));
        self.replayed += usize::from(event["historical"] == true);
        let room = self.held_back.len() < HELD_BACK || number == self.progress.next;
        if number >= self.progress.next && room {
            self.held_back.insert(number, text.to_vec());
        }
        self.release()?;
        self.heard_at = Instant::now();
        if !self.is_behind() {
            self.ask_at = None;
        } else if event["historical"] == true {
            // A replay may be under way.
            self.ask_at = Some(self.heard_at + SILENCE);
        } else if !self.held_back.is_empty() {
            self.ask_at = self.ask_at.or(Some(self.heard_at));
        }
        Ok(())
    }

    /// Prints and remembers what has no gap before it.
    fn release(&mut self) -> io::Result<()> {
        let before = self.progress.next;
        let mut out = io::stdout().lock();
        while let Some(text) = self.held_back.remove(&self.progress.next) {
            out.write_all(&text)?;
            out.write_all(b"\n")?;
            self.progress.next += 1;
        }
        out.flush()?;
        if self.progress.next > before { self.progress.remember() } else { Ok(()) }
    }

    /// Whether numbers were given out that we do not have.
    fn is_behind(&self) -> bool {
        self.last >= self.progress.next
    }

    fn answer(&mut self, answer: &Value) -> io::Result<()> {
        if self.progress.epoch.is_empty() {
            answer["epoch"].as_str().unwrap_or_default().clone_into(&mut self.progress.epoch);
        }
        if answer["epoch"] != self.progress.epoch.as_str() {
            return Ok(()); // Its events will say so.
        }
        self.last = self.last.max(number(&answer["last"]).unwrap_or(0));
        let now = Instant::now();
        let at = match (answer["state"].as_str(), answer["reason"].as_str()) {
            (_, Some("pruned")) => {
                self.give_up_below(number(&answer["oldest"]).unwrap_or(0))?;
                now + SILENCE
            }
            (Some("accepted"), _) => now + SILENCE,
            (Some(state @ ("refused" | "ended")), reason) => {
                eprintln!("replay {state}: {}", reason.unwrap_or_default());
                now + Duration::from_secs(1)
            }
            // What is missing after a replay is asked for at once.
            (Some(_), _) => now,
            // A sign of life: what it counts may be on its way.
            (None, _) => self.ask_at.unwrap_or_else(|| now.max(self.heard_at + SILENCE)),
        };
        self.ask_at = self.is_behind().then_some(at);
        Ok(())
    }

    /// The device no longer has what lies below `oldest`.
    fn give_up_below(&mut self, oldest: u64) -> io::Result<()> {
        while self.progress.next < oldest {
            if !self.held_back.contains_key(&self.progress.next) {
                eprintln!("number {} is gone for good", self.progress.next);
                self.progress.missing.push(self.progress.next);
                self.progress.next += 1;
                self.progress.remember()?;
            }
            self.release()?;
        }
        self.release()
    }

    /// Asks for what is missing.
    fn ask(&mut self) {
        self.ask_at = Some(Instant::now() + SILENCE);
        let to = self.held_back.keys().next().map_or(self.last, |&number| number - 1);
        let (from, to) = (self.progress.next.to_string(), to.to_string());
        self.command("replay", &json!({"epoch": self.progress.epoch, "from": from, "to": to}));
    }

    /// Asks how far the device has counted.
    fn ping(&self) {
        self.command("ping", &json!({}));
    }

    fn command(&self, command: &str, request: &Value) {
        let topic = format!("{}/cmd/{command}", self.device);
        let properties = PublishProperties {
            response_topic: Some(format!("{topic}/answer")),
            correlation_data: Some(self.id.clone().into()),
            ..PublishProperties::default()
        };
        let text = request.to_string();
        // One that does not get through is asked again.
        let _full = self.client.try_publish_with_properties(topic, QoS::AtLeastOnce, false, text, properties);
    }
}

/// 20 digits.
fn number(value: &Value) -> Option<u64> {
    value.as_str()?.parse().ok()
}

/// The command line: pairs of `--name` and value.
struct Options(BTreeMap<String, String>);

impl Options {
    fn read() -> Result<Self, String> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let pair = |pair: &[String]| match pair {
            [name, value] if name.starts_with("--") => Ok((name[2..].to_owned(), value.clone())),
            _ => Err(format!("expected --name value, found {pair:?}")),
        };
        Ok(Self(words.chunks(2).map(pair).collect::<Result<_, _>>()?))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Result<Option<u64>, String> {
        self.get(name).map(|text| text.parse().map_err(|_| format!("--{name} {text}: not a number"))).transpose()
    }

    fn file(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        self.get(name).map(|path| fs::read(path).map_err(|error| format!("{path}: {error}"))).transpose()
    }
}

fn connect(options: &Options, id: &str) -> Result<(Client, Connection), String> {
    let host = options.get("host").unwrap_or("127.0.0.1");
    let ca = options.file("ca")?;
    let port = options.number("port")?.unwrap_or(if ca.is_some() { 8883 } else { 1883 });
    let mut mqtt = MqttOptions::new(id, host, u16::try_from(port).map_err(|_| format!("--port {port}"))?);
    mqtt.set_keep_alive(Duration::from_secs(10)).set_manual_acks(true);
    mqtt.set_clean_start(false).set_session_expiry_interval(Some(SESSION_S));
    mqtt.set_max_packet_size(Some(256 * 1024));
    if let (Some(user), Some(password)) = (options.get("username"), options.file("password-file")?) {
        mqtt.set_credentials(user, String::from_utf8_lossy(&password).trim_end());
    }
    if let Some(ca) = ca {
        // The first provider of cryptography that is installed stays.
        let _present = rumqttc::tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let client_auth = options.file("cert")?.zip(options.file("key")?);
        mqtt.set_transport(Transport::tls_with_config(TlsConfiguration::Simple { ca, alpn: None, client_auth }));
    }
    Ok(Client::new(mqtt, HELD_BACK))
}

/// What the broker sends, from a thread of its own: a connection that is polled with a timeout loses bytes.
fn listen(mut connection: Connection) -> Receiver<Packet> {
    let (sender, packets) = sync_channel(100);
    std::thread::spawn(move || {
        for event in connection.iter() {
            match event {
                Ok(Event::Incoming(packet)) => {
                    if sender.send(packet).is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    eprintln!("no connection: {error}");
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
        }
    });
    packets
}

fn run() -> Result<ExitCode, String> {
    let options = Options::read()?;
    let device = options.get("device").ok_or("--device is missing")?.to_owned();
    let state = options.get("state").ok_or("--state is missing")?;
    let progress = Progress::read(Path::new(state)).map_err(|error| format!("{state}: {error}"))?;
    let id = options.get("client-id").unwrap_or("subscriber").to_owned();
    let ping = Duration::from_secs(options.number("ping")?.unwrap_or(10));
    let until = options.number("until")?;
    let deadline = options.number("within")?.map(|s| Instant::now() + Duration::from_secs(s));
    let (client, connection) = connect(&options, &id)?;
    let packets = listen(connection);
    let mut subscriber = Subscriber {
        client,
        device,
        id,
        progress,
        held_back: BTreeMap::new(),
        last: 0,
        ask_at: None,
        heard_at: Instant::now(),
        heard: 0,
        again: 0,
        replayed: 0,
    };
    let mut ping_at = Instant::now() + ping;
    while until.is_none_or(|until| subscriber.progress.next <= until) {
        let now = Instant::now();
        if deadline.is_some_and(|deadline| now >= deadline) {
            break;
        }
        if ping_at <= now {
            subscriber.ping();
            ping_at = now + ping;
        }
        if subscriber.ask_at.is_some_and(|at| at <= now) {
            subscriber.ask();
        }
        let wake_at = [Some(ping_at), subscriber.ask_at, deadline].into_iter().flatten().min().unwrap_or(ping_at);
        match packets.recv_timeout(wake_at.saturating_duration_since(Instant::now())) {
            Ok(Packet::ConnAck(_)) => {
                for topic in ["result", "error", "cmd/replay/answer", "cmd/ping/answer"] {
                    let topic = format!("{}/{topic}", subscriber.device);
                    subscriber.client.try_subscribe(topic, QoS::AtLeastOnce).map_err(|error| error.to_string())?;
                }
                eprintln!("connected, waiting for number {}", subscriber.progress.next);
            }
            Ok(Packet::Publish(publish)) => subscriber.hear(&publish).map_err(|error| error.to_string())?,
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err("the connection's thread ended".to_owned()),
        }
    }
    let Subscriber { heard, again, replayed, .. } = subscriber;
    eprintln!("{heard} events came, {again} of them had come before, {replayed} were historical");
    let Progress { next, missing, .. } = &subscriber.progress;
    let lost = missing.iter().copied().chain(*next..=until.unwrap_or(0));
    let lost: Vec<u64> = lost.filter(|number| !subscriber.held_back.contains_key(number)).collect();
    if lost.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("missing: {lost:?}");
    Ok(ExitCode::FAILURE)
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("subscriber: {error}");
        ExitCode::from(2)
    })
}
