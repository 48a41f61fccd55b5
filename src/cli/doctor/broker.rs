//! The broker: reached, trusted, and willing to take what this device says.

use super::Check;
use super::state::{Holder, holder};
use crate::cli::live;
use crate::config::Settings;
use crate::mqtt::{self, Answer, Probe, ProbeError};
use crate::report::{Channel, MAX_EVENT_BYTES, Topics};

/// What a PUBLISH has beside its payload, at most: its header, a topic of the longest levels, its properties.
const AROUND_AN_EVENT_BYTES: u32 = 1024;

/// The broker's checks: one that it is reached, and then one for each thing that it was asked.
pub(super) async fn check(settings: &Settings, insist: bool) -> Vec<Check> {
    let has_certificate = settings.mqtt.tls.as_ref().is_some_and(|tls| tls.client.is_some());
    let runs = matches!(holder(&settings.state.directory), Ok(Holder::Running(_)));
    if has_certificate && runs && !insist {
        return vec![told_by_the_daemon(settings)];
    }
    let topics = match Topics::new(&settings.site.site, &settings.site.device) {
        Ok(topics) => topics,
        Err(error) => return vec![Check::fail("broker", error.to_string(), "mend site.name and site.device")],
    };
    match mqtt::probe(&settings.mqtt, &topics).await {
        Ok(probe) => judged(settings, &probe),
        Err(error) => vec![unreached(&error)],
    }
}

/// A certificate may be one session to the broker, whatever the client id (Mosquitto's `use_username_as_clientid`), so
/// the running daemon is asked instead of thrown out.
fn told_by_the_daemon(settings: &Settings) -> Check {
    let remedy = "landmarkd doctor --probe-broker asks the broker itself; the daemon may lose its connection for a \
                  moment, and no result";
    let name = "broker";
    let Some(address) = settings.health.listen else {
        return Check::warn(name, "not asked: the daemon runs, and its certificate may have one session only", remedy);
    };
    let status = live::get(address, "/status.json").map_err(|error| error.to_string());
    let status = status.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).map_err(|e| e.to_string()));
    match status {
        Ok(status) if status["broker"]["connected"] == true => Check::ok(
            name,
            "the running daemon is connected; its certificate may have one session only, so it was asked",
        ),
        Ok(_) => Check::fail(name, "the running daemon is not connected", remedy),
        Err(error) => Check::warn(name, format!("the running daemon could not be asked: {error}"), remedy),
    }
}

fn unreached(error: &ProbeError) -> Check {
    let remedy = match error {
        ProbeError::Settings(_) => {
            "mend the [mqtt] section; a secret that is a credential of the unit is there only \
                                    while the unit runs"
        }
        ProbeError::Connect { .. } => "is the broker running, mqtt.host and mqtt.port right, the firewall open?",
        ProbeError::Tls { .. } => {
            "do mqtt.ca_file and the name in the broker's certificate fit, is it in date, is the \
                                   clock right, does the broker speak TLS on this port?"
        }
        ProbeError::Refused(_) => "look at user name and password, or at the certificate's name, in the broker's list",
        ProbeError::Ended(_) => "the broker's log says why; it must speak MQTT 5",
    };
    Check::fail("broker", crate::cli::chain(error), remedy)
}

fn judged(settings: &Settings, probe: &Probe) -> Vec<Check> {
    let how = match (&settings.mqtt.tls, &settings.mqtt.credentials) {
        (Some(tls), _) if tls.client.is_some() => "with TLS and a client certificate",
        (Some(_), Some(_)) => "with TLS and a password",
        (Some(_), None) => "with TLS, anonymously",
        (None, Some(_)) => "with a password, in the clear",
        (None, None) => "anonymously, in the clear",
    };
    let version = probe.version.as_ref().map(|version| format!(", {version}")).unwrap_or_default();
    let words = format!("reached {how}{version}");
    let reached = match &settings.mqtt.tls {
        None if settings.mqtt.allow_plaintext => {
            Check::warn("broker", words, "results and the password can be read on the way: set mqtt.tls = true")
        }
        _ => Check::ok("broker", words),
    };
    vec![reached, access(probe), packets(settings, probe), subscribers(settings, probe), persistence(probe)]
}

fn access(probe: &Probe) -> Check {
    let name = "access list";
    let word = |channel: &Channel| match channel {
        Channel::Status => "status",
        Channel::Info => "info",
        Channel::Result => "result",
        Channel::Error => "error",
        Channel::Metrics => "metrics",
    };
    let mut refused = Vec::new();
    let mut untried = 0;
    for (channel, answer) in &probe.topics {
        match answer {
            Answer::Taken | Answer::NobodyListens => {}
            Answer::Denied => refused.push(format!("{} is not authorized", word(channel))),
            Answer::Refused(reason) => refused.push(format!("{} is refused: {reason}", word(channel))),
            Answer::Untried => untried += 1,
        }
    }
    if !refused.is_empty() {
        let remedy = "allow the device to write its topics xr/v1/<site>/<device>/{status,info,result,error,metrics}";
        Check::fail(name, refused.join(", "), remedy)
    } else if untried > 0 {
        let remedy = "look at the status topic: the daemon says rejected when a topic is refused";
        Check::warn(name, "not tried: the broker takes no QoS 2, and a lesser one would reach subscribers", remedy)
    } else {
        Check::ok(name, "the device may write result, error, status and info")
    }
}

fn packets(settings: &Settings, probe: &Probe) -> Check {
    let name = "packet size";
    let needed = MAX_EVENT_BYTES as u32 + AROUND_AN_EVENT_BYTES;
    let own = settings.mqtt.max_packet_bytes;
    let most = probe.max_packet_bytes.map_or(own, |theirs| theirs.min(own));
    let theirs = probe.max_packet_bytes.map_or("no limit stated".to_owned(), |bytes| format!("{bytes} bytes"));
    let words = format!("broker: {theirs}, mqtt.max_packet_kib: {own} bytes; an event has {needed} at most");
    if most < needed {
        let remedy = "raise the lower of the two, or large results are refused (Mosquitto: max_packet_size 131072)";
        Check::warn(name, words, remedy)
    } else {
        Check::ok(name, words)
    }
}

fn subscribers(settings: &Settings, probe: &Probe) -> Check {
    let name = "subscribers";
    let matters = settings.result.require_subscriber;
    match &probe.unheard {
        Answer::NobodyListens if matters => {
            Check::ok(name, "the broker tells when nobody listens; results then wait here")
        }
        Answer::NobodyListens => Check::ok(name, "the broker tells when nobody listens; results do not wait for that"),
        Answer::Taken => Check::ok(
            name,
            "somebody listens to the metrics topic, or the broker does not tell when nobody does: then a result counts \
             as delivered when the broker has it",
        ),
        Answer::Denied | Answer::Refused(_) | Answer::Untried => Check::warn(
            name,
            "not tried: the broker refuses the metrics topic",
            "allow the device to write xr/v1/<site>/<device>/metrics",
        ),
    }
}

/// No broker tells over MQTT whether it keeps its queues on disk.
fn persistence(probe: &Probe) -> Check {
    let name = "persistence";
    match probe.version.as_deref() {
        Some(version) if version.to_lowercase().contains("mosquitto") => Check::ok(
            name,
            format!(
                "{version} does not tell whether it keeps what it has acknowledged: its configuration should say \
                 persistence true, autosave_on_changes true and a large max_queued_messages, as the shipped example does"
            ),
        ),
        _ => {
            Check::ok(name, "the broker does not tell whether it keeps what it has acknowledged: see its configuration")
        }
    }
}
