//! The broker: one MQTT 5 connection that empties the outbox and tells how the device is.
//!
//! ```text
//!  outbox ──► publisher ──► link (rumqttc) ──► broker
//!    ▲           │ delivery: the rules            │
//!    └───────────┴◄──────── PUBACK and its reason ┘
//! ```
//!
//! With `mqtt.commands` the device can be asked for delivered events again and for a sign of life; answers and replays
//! go the same way, after what is new.
//!
//! rumqttc is used as a pipe, never as a queue: one packet is under way at a time, a connection that fails is thrown
//! away with its client, and what was not acknowledged is read from the outbox again. The outbox is the only thing the
//! publisher shares with the rest of the daemon, so a broker that hangs keeps no film waiting (R23).

pub mod ask;
mod backoff;
mod commands;
mod delivery;
mod journal;
mod link;
pub mod loopback_broker;
mod options;
mod probe;
mod publisher;
mod seldom;
mod session;
#[cfg(test)]
mod tests;
mod tls;

#[cfg(feature = "fuzzing")]
pub(crate) use commands::fuzz;
pub use delivery::Hold;
pub use options::check;
pub use probe::{Answer, Probe, ProbeError, probe};
pub use publisher::{LinkEvent, LinkObserver, LinkState, MqttError, Publisher};
pub use tls::TlsError;
