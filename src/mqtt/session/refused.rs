//! What the broker does not take, and what becomes of it.

use std::time::SystemTime;

use tokio::time::Instant;
use tracing::error;

use super::{Work, slot};
use crate::mqtt::MqttError;
use crate::mqtt::commands::ANSWER_PAUSE;
use crate::mqtt::delivery::{Hold, Lane};
use crate::mqtt::link::Loss;
use crate::outbox::Head;
use crate::report::{EventKind, ReplayReason, ReplayState};

/// MQTT 5.0 reason code 16, No matching subscribers.
const NO_MATCHING_SUBSCRIBERS: u8 = 16;
/// MQTT 5.0 reason code 149, Packet too large: what we find ourselves before a broker would.
const PACKET_TOO_LARGE: u8 = 149;

impl Work {
    /// A packet that the broker would not take (R22): a result becomes a refusal, anything else waits for a broker
    /// that takes more.
    pub(super) async fn too_large(&mut self, lane: Lane, reason: String) -> Result<(), MqttError> {
        if matches!(lane, Lane::Answer | Lane::Replay) {
            return self.not_taken(lane, PACKET_TOO_LARGE);
        }
        let head = if lane == Lane::Result { self.heads[slot(lane)].take() } else { None };
        if let Some(Head { sequence, .. }) = head {
            error!("event {sequence} goes to the quarantine: {reason}");
            let refusal = reason.clone();
            self.write(move |outbox| outbox.refuse(EventKind::Result, sequence, &refusal, SystemTime::now())).await?;
            // The refusal goes before the errors above it.
            self.heads = [None, None];
            return self.look();
        }
        let before = self.reasons();
        let now = Instant::now();
        self.delivery.refused(lane, PACKET_TOO_LARGE, now);
        self.journal.held(&self.topic(lane), Hold::Rejected { code: PACKET_TOO_LARGE }, now);
        self.tell_changes(&before);
        Ok(())
    }

    /// What was asked for is not taken: who asked is told where that can be.
    pub(super) fn not_taken(&mut self, lane: Lane, code: u8) -> Result<(), MqttError> {
        let now = Instant::now();
        if lane == Lane::Answer {
            self.desk.answered();
            self.delivery.pace(Lane::Answer, ANSWER_PAUSE, now);
            self.journal.unanswered(code, now);
        } else {
            let reason =
                if code == NO_MATCHING_SUBSCRIBERS { ReplayReason::NoSubscriber } else { ReplayReason::Rejected };
            self.desk.end_replay(ReplayState::Ended, Some(reason), &self.publisher.outbox)?;
        }
        self.look()
    }

    /// The connection ended by an answer that was none: it is the answer to the packet under way, which would end every
    /// connection in the same way.
    pub(super) async fn answered_out_of_turn(&mut self, loss: &Loss) -> Result<(), MqttError> {
        let (&Loss::Reason(code), Some(lane)) = (loss, self.delivery.under_way()) else { return Ok(()) };
        if code == PACKET_TOO_LARGE {
            return self.too_large(lane, "the broker takes no packet this large".to_owned()).await;
        }
        match lane {
            Lane::Answer | Lane::Replay => self.not_taken(lane, code)?,
            _ => self.delivery.refused(lane, code, Instant::now()),
        }
        Ok(())
    }
}
