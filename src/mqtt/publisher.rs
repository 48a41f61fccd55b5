//! What the daemon gives the publisher and what it gets back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::TlsError;
use super::delivery::Hold;
use super::session::Work;
use crate::config::MqttSettings;
use crate::disposition::Disposition;
use crate::outbox::{Outbox, OutboxError};
use crate::pulse::Pulse;
use crate::report::{Condition, EventKind, Info, Topics};
use crate::secret::SecretError;

/// How long the packet under way may hold up the next publisher; it sends the event again.
const HAND_OVER: Duration = Duration::from_secs(2);

/// What happened on the way to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The broker accepted us.
    Made,
    /// A connection could not be made.
    Failed,
    /// A connection broke or was closed.
    Lost,
    /// The broker answered a publication of any kind with this reason code.
    Acknowledged {
        /// MQTT 5.0, 3.4.2.1.
        code: u8,
    },
    /// An event left the outbox, for the broker has it.
    Delivered {
        /// Its kind.
        kind: EventKind,
        /// Its number.
        sequence: u64,
        /// From sending to the answer.
        took: Duration,
    },
}

/// Whoever wants to know what happens; called on the publisher's own task, so it must not wait.
#[derive(Clone)]
pub struct LinkObserver(Arc<dyn Fn(LinkEvent) + Send + Sync>);

impl LinkObserver {
    /// Calls `tell` with everything that happens.
    pub fn new(tell: impl Fn(LinkEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub(super) fn tell(&self, event: LinkEvent) {
        (self.0)(event);
    }
}

impl Default for LinkObserver {
    /// Nobody.
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl std::fmt::Debug for LinkObserver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinkObserver")
    }
}

/// Everything the publisher needs; [`run`](Self::run) consumes it.
#[derive(Debug)]
pub struct Publisher {
    /// The broker and how to reach it.
    pub settings: MqttSettings,
    /// Hold a result that the broker accepted but no subscriber took (R19).
    pub require_subscriber: bool,
    /// A result published later than this after acquisition is historical (R29).
    pub fresh: Duration,
    /// Where each document goes.
    pub topics: Topics,
    /// Which run of the daemon speaks.
    pub boot_id: String,
    /// What the device is.
    pub info: Info,
    /// What is to be delivered.
    pub outbox: Arc<Outbox>,
    /// Busy with the outbox; to wait for the broker is no work.
    pub pulse: Pulse,
    /// Hears of connections and publications.
    pub observer: LinkObserver,
    /// When it is cancelled, another publisher of the same device takes over: this one leaves without a word, as soon
    /// as the packet under way is acknowledged.
    pub hand_over: CancellationToken,
}

/// How the connection is, for the daemon's own eyes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Whether the broker has accepted us.
    pub connected: bool,
    /// How often a connection was tried since the start.
    pub session: u64,
    /// Why the last connection ended or was not made; `None` while one is up.
    pub error: Option<String>,
    /// Why events wait although the broker is there.
    pub hold: Option<Hold>,
    /// Another client with our id threw us out, and no connection has lasted since.
    pub client_id_taken: bool,
}

/// Why nothing can be published.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    /// Results would travel in the clear.
    #[error(
        "mqtt.host = {host:?} is another machine and mqtt.tls is false: set it to true, or mqtt.allow_plaintext = true"
    )]
    Plaintext {
        /// The host.
        host: String,
    },
    /// The keep-alive cannot be kept.
    #[error("mqtt.keep_alive_s = {found:?} must be 5 s to 65535 s")]
    KeepAlive {
        /// What was configured.
        found: Duration,
    },
    /// The settings of TLS cannot be used.
    #[error("mqtt.tls cannot be used")]
    Tls(#[from] TlsError),
    /// The password cannot be had.
    #[error("no password for the broker")]
    Password(#[from] SecretError),
    /// The queue cannot go on.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

impl MqttError {
    /// Settings are fatal when they are checked at the start; later, files can come back.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Plaintext { .. } | Self::KeepAlive { .. } => Disposition::Fatal,
            Self::Tls(_) | Self::Password(_) => Disposition::Retry,
            Self::Outbox(error) => error.disposition(),
        }
    }
}

impl Publisher {
    /// Publishes until `shutdown`, then gives every waiting event one more try, at most for `drain`, says goodbye and
    /// disconnects. Cancel `shutdown` when nothing will be appended any more.
    ///
    /// A broker that is away or refuses is never an error: it is tried again, and `link` tells.
    ///
    /// # Errors
    /// When the outbox cannot be read or written. Nothing is lost by it: what was not acknowledged is still queued.
    pub async fn run(
        self,
        condition: watch::Receiver<Condition>,
        link: watch::Sender<LinkState>,
        shutdown: CancellationToken,
        drain: Duration,
    ) -> Result<(), MqttError> {
        let (outbox, hand_over) = (Arc::clone(&self.outbox), self.hand_over.clone());
        let mut work = Work::new(self, condition, link, shutdown.clone());
        let deadline = async {
            tokio::select! {
                () = shutdown.cancelled() => sleep(drain).await,
                () = hand_over.cancelled() => sleep(HAND_OVER.min(drain)).await,
            }
        };
        tokio::select! {
            ended = work.connect_and_serve() => ended?,
            () = deadline => {}
        }
        work.ended();
        outbox.save()?;
        let waiting = outbox.len()?;
        if waiting > 0 && shutdown.is_cancelled() {
            warn!("{waiting} events stay in the outbox; they are delivered after the next start");
        }
        Ok(())
    }
}
