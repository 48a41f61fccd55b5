//! Where each document goes: `xr/v1/<site>/<device>/{status,info,result,error,metrics}`, and where the device is asked:
//! `cmd/{replay,ping}` below the same, answered on `cmd/{replay,ping}/answer`.

use super::Command;
use crate::disposition::Disposition;

/// A level longer than this is a mistake, and five of them must fit into MQTT's 65,535 bytes.
const MAX_LEVEL_BYTES: usize = 128;

/// The topics of one device; made once from the configuration, valid ever after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    site: String,
    device: String,
}

/// One of a device's topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// The retained [`Status`](super::Status), also the last will.
    Status,
    /// The retained [`Info`](super::Info).
    Info,
    /// Result events, not retained (R30).
    Result,
    /// Error events, not retained.
    Error,
    /// Telemetry.
    Metrics,
}

/// A site or device that cannot be a level of an MQTT topic.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} = {found:?} {reason}")]
pub struct TopicError {
    /// `site` or `device`.
    pub name: &'static str,
    /// What was configured.
    pub found: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl TopicError {
    /// Nothing can be published until the configuration is mended.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        Disposition::Fatal
    }
}

impl Channel {
    /// What the topic ends with.
    pub(super) const fn last_level(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Info => "info",
            Self::Result => "result",
            Self::Error => "error",
            Self::Metrics => "metrics",
        }
    }
}

impl Topics {
    /// The topics of `device` at `site`.
    ///
    /// # Errors
    /// When one of them is empty, too long, or has a character that MQTT gives a meaning (`/`, `+`, `#`, controls).
    pub fn new(site: &str, device: &str) -> Result<Self, TopicError> {
        Ok(Self { site: level("site", site)?, device: level("device", device)? })
    }

    /// The full topic name.
    #[must_use]
    pub fn name(&self, channel: Channel) -> String {
        format!("xr/v1/{}/{}/{}", self.site, self.device, channel.last_level())
    }

    /// The topic on which the device is asked.
    #[must_use]
    pub fn command(&self, command: Command) -> String {
        let last = match command {
            Command::Replay => "replay",
            Command::Ping => "ping",
        };
        format!("xr/v1/{}/{}/cmd/{last}", self.site, self.device)
    }

    /// Where the device answers unless it is told another topic.
    #[must_use]
    pub fn answer(&self, command: Command) -> String {
        format!("{}/answer", self.command(command))
    }

    /// The CloudEvents `source` of the device: a URI reference (RFC 3986), so its levels are percent-encoded.
    #[must_use]
    pub fn source(&self) -> String {
        format!("/xr/v1/{}/{}", percent_encoded(&self.site), percent_encoded(&self.device))
    }
}

fn level(name: &'static str, found: &str) -> Result<String, TopicError> {
    let reason = if found.is_empty() {
        "is empty"
    } else if found.len() > MAX_LEVEL_BYTES {
        "is longer than 128 bytes"
    } else if found.contains(['/', '+', '#']) {
        "has one of / + #, which divide or match MQTT topics"
    } else if found.contains(char::is_control) {
        "has a control character"
    } else {
        return Ok(found.to_owned());
    };
    Err(TopicError { name, found: found.to_owned(), reason })
}

fn percent_encoded(level: &str) -> String {
    let mut encoded = String::with_capacity(level.len());
    for byte in level.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_five_topics_and_a_source() {
        let topics = Topics::new("clinic", "ceph-1").expect("valid");
        let names = [Channel::Status, Channel::Info, Channel::Result, Channel::Error, Channel::Metrics]
            .map(|channel| topics.name(channel));
        assert_eq!(
            names,
            ["status", "info", "result", "error", "metrics"].map(|last| format!("xr/v1/clinic/ceph-1/{last}"))
        );
        assert_eq!(topics.source(), "/xr/v1/clinic/ceph-1");
        assert_eq!(topics.command(Command::Ping), "xr/v1/clinic/ceph-1/cmd/ping");
        assert_eq!(topics.answer(Command::Replay), "xr/v1/clinic/ceph-1/cmd/replay/answer");
        assert_eq!(Topics::new("Klinik Süd", "1").expect("valid").source(), "/xr/v1/Klinik%20S%C3%BCd/1");
    }

    #[test]
    fn what_mqtt_gives_a_meaning_is_no_level() {
        let long = "x".repeat(129);
        for (level, reason) in [
            ("", "empty"),
            ("a/b", "divide"),
            ("+", "divide"),
            ("a#", "divide"),
            ("a\0b", "control"),
            (&long, "longer"),
        ] {
            let error = Topics::new("site", level).expect_err(level);
            assert_eq!(error.name, "device");
            assert!(error.reason.contains(reason), "{level:?}: {error}");
            assert_eq!(Topics::new(level, "device").expect_err(level).name, "site");
        }
    }
}
