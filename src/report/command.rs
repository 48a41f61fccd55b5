//! What a device may be asked on `cmd/replay` and `cmd/ping`, and what it answers (off unless `mqtt.commands` is set).
//!
//! A request names where its answer goes by MQTT 5's Response Topic and Correlation Data; without them the answer goes
//! to the command's own topic with `/answer` behind it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A request that is larger is refused unread.
pub const MAX_REQUEST_BYTES: usize = 4 * 1024;

/// What a device does for those who may write to its command topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Sends delivered events again: a [`ReplayRequest`], answered by [`ReplayAnswer`]s.
    Replay,
    /// Says that it is there, and how far it has counted: any payload, answered by a [`PingAnswer`].
    Ping,
}

impl Command {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Replay, Self::Ping];
}

/// Asks for the events `from` to `to` of an epoch, both included, once more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    /// Which epoch's numbers are meant, as in the events and the `info` document.
    pub epoch: String,
    /// The first number, decimal digits.
    #[serde(with = "digits")]
    #[schemars(with = "String", regex(pattern = "^[0-9]{1,20}$"))]
    pub from: u64,
    /// The last number, decimal digits; a number that was not given out yet ends the range there.
    #[serde(with = "digits")]
    #[schemars(with = "String", regex(pattern = "^[0-9]{1,20}$"))]
    pub to: u64,
}

/// What becomes of a request for a replay: one answer when it comes, another when an accepted one has ended.
///
/// The events themselves come on the topics they came on before, with the same ids and numbers and `historical` true,
/// after everything that is new. Those that still wait to be delivered at all come by themselves and are not counted in
/// `sent`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayAnswer {
    /// What becomes of it.
    pub state: ReplayState,
    /// Why it was refused, why an accepted one ended early, or `pruned` when the device has a part of it only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<ReplayReason>,
    /// The device's epoch: its numbers are the only ones that can be had.
    pub epoch: String,
    /// The lowest number that can be had, 20 decimal digits; the ones below are gone for good.
    #[serde(with = "digits")]
    #[schemars(with = "String", regex(pattern = "^[0-9]{20}$"))]
    pub oldest: u64,
    /// The last number that was given out, 20 decimal digits; 0 before the first.
    #[serde(with = "digits")]
    #[schemars(with = "String", regex(pattern = "^[0-9]{20}$"))]
    pub last: u64,
    /// The first number of what is sent; absent when nothing is.
    #[serde(default, with = "digits::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = "^[0-9]{20}$"))]
    pub from: Option<u64>,
    /// The last number of what is sent; absent when nothing is.
    #[serde(default, with = "digits::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = "^[0-9]{20}$"))]
    pub to: Option<u64>,
    /// How many events were sent so far.
    pub sent: u64,
}

/// What becomes of a request for a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplayState {
    /// The events come.
    Accepted,
    /// Nothing comes.
    Refused,
    /// All that were accepted were sent, and the broker had a taker for each.
    Done,
    /// It ended before that; ask again for the rest.
    Ended,
}

/// Why a replay is not, or not wholly, what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplayReason {
    /// The request is not the document it should be.
    Malformed,
    /// The answer would go to a topic that is no answer's.
    ResponseTopic,
    /// The range is empty, or begins with 0.
    Range,
    /// The epoch is not this device's: its state directory is another one.
    UnknownEpoch,
    /// The numbers were not given out yet.
    NotYet,
    /// The events are too old: the device has them no longer.
    Pruned,
    /// Another replay is under way; ask again when it has ended.
    Busy,
    /// Nobody is subscribed to what would be sent.
    NoSubscriber,
    /// The broker refuses what would be sent.
    Rejected,
}

/// A device's sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PingAnswer {
    /// When it was said, RFC 3339.
    pub time: String,
    /// The daemon's version.
    pub version: String,
    /// Which run of the daemon speaks, as in the `status` document.
    pub boot_id: String,
    /// The epoch of the numbers.
    pub epoch: String,
    /// The last number that was given out, 20 decimal digits; 0 before the first. Who has fewer and hears no more asks
    /// for a replay.
    #[serde(with = "digits")]
    #[schemars(with = "String", regex(pattern = "^[0-9]{20}$"))]
    pub last: u64,
    /// Events that wait for the broker.
    pub queue_length: u64,
}

/// Numbers as 20 decimal digits, as in events: JSON's own numbers lose digits in many a program. Fewer are read too.
mod digits {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{number:020}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        let is_number = (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_number);
        number.ok_or_else(|| D::Error::custom("1 to 20 decimal digits of an unsigned 64-bit number are expected"))
    }

    pub(super) mod optional {
        use super::{Deserializer, Serializer};

        // The signature is serde's.
        #[expect(clippy::ref_option, reason = "serde calls it with a reference to the field")]
        pub(in super::super) fn serialize<S: Serializer>(
            number: &Option<u64>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match number {
                Some(number) => super::serialize(number, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<u64>, D::Error> {
            super::deserialize(deserializer).map(Some)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_is_meant_or_not_at_all() {
        let read = |text: &str| serde_json::from_str::<ReplayRequest>(text).ok();
        let request = |from, to| Some(ReplayRequest { epoch: "e".to_owned(), from, to });
        for (text, expected) in [
            (r#"{"epoch":"e","from":"1","to":"20"}"#, request(1, 20)),
            (r#"{"epoch":"e","from":"00000000000000000001","to":"18446744073709551615"}"#, request(1, u64::MAX)),
            (r#"{"epoch":"e","from":1,"to":"2"}"#, None),
            (r#"{"epoch":"e","from":"+1","to":"2"}"#, None),
            (r#"{"epoch":"e","from":"","to":"2"}"#, None),
            (r#"{"epoch":"e","from":"1","to":"18446744073709551616"}"#, None),
            (r#"{"epoch":"e","from":"1"}"#, None),
            (r#"{"epoch":"e","from":"1","to":"2","topic":"x"}"#, None),
            ("[]", None),
            ("", None),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn numbers_are_written_as_in_events() {
        let answer = ReplayAnswer {
            state: ReplayState::Accepted,
            reason: Some(ReplayReason::Pruned),
            epoch: "e".to_owned(),
            oldest: 5,
            last: 9,
            from: Some(5),
            to: None,
            sent: 0,
        };
        let json = serde_json::json!({
            "state": "accepted", "reason": "pruned", "epoch": "e", "oldest": "00000000000000000005",
            "last": "00000000000000000009", "from": "00000000000000000005", "sent": 0,
        });
        assert_eq!(serde_json::to_value(&answer).expect("serializable"), json);
        assert_eq!(serde_json::from_value::<ReplayAnswer>(json).expect("its own form"), answer);
    }
}
