//! The broker: connection, publisher, backoff.

/// Placeholder for the embedded broker.
#[derive(Debug)]
pub struct LoopbackBroker;

/// A message that the broker took.
#[derive(Debug)]
pub struct Received {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// When the broker acknowledged it.
    pub acknowledged: std::time::Instant,
}

impl LoopbackBroker {
    /// # Errors
    /// Never.
    pub async fn start() -> std::io::Result<Self> {
        Ok(Self)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        0
    }

    /// The next message.
    pub async fn next(&mut self) -> Option<Received> {
        std::future::pending().await
    }
}
