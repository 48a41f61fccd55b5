//! A small HTTP server for people and Prometheus: GET and HEAD, one request a connection, and a limit on everything.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, error, warn};

use super::request::{Hosts, MAX_HEAD_BYTES, Refusal, Request, parse};
use super::response::Response;
use super::routes::Health;
use crate::disposition::Disposition;

/// After this much without a connection to accept (no file descriptors, say) the next attempt is made.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The least time between two log lines about connections that cannot be accepted (R15).
const SAY_AGAIN: Duration = Duration::from_secs(300);
/// What a client may still send after its request; the rest is cut off.
const MAX_LINGER_BYTES: usize = 64 * 1024;

/// Where the server listens and who may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// A name besides `localhost` and the address itself under which browsers reach it.
    pub host_name: Option<String>,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The port is in use, or the address is not this machine's.
    #[error("cannot listen on {address}")]
    Listen {
        /// What was configured.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
}

impl HttpError {
    /// A person must choose another address; starting again does not help.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        match self {
            Self::Listen { .. } => Disposition::Fatal,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    connections: usize,
    /// From the connection to the end of the head.
    head: Duration,
    /// For the whole answer.
    answer: Duration,
    /// For the client to close after it.
    linger: Duration,
    /// For answers under way when a stop is asked for.
    stop: Duration,
}

const LIMITS: Limits = Limits {
    connections: 32,
    head: Duration::from_secs(5),
    answer: Duration::from_secs(10),
    linger: Duration::from_secs(1),
    stop: Duration::from_secs(1),
};

/// The server, listening but not yet answering.
#[derive(Debug)]
pub struct HealthServer {
    listener: TcpListener,
    address: SocketAddr,
    limits: Limits,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    hosts: Hosts,
    health: Health,
}

impl HealthServer {
    /// Listens. Clients that connect wait until [`serve`](Self::serve).
    ///
    /// # Errors
    /// [`HttpError::Listen`].
    pub async fn bind(options: &HttpOptions, health: Health) -> Result<Self, HttpError> {
        let failed = |source| HttpError::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let hosts = Hosts::new(address, options.host_name.as_deref());
        Ok(Self { listener, address, limits: LIMITS, shared: Arc::new(Shared { hosts, health }) })
    }

    /// Where it listens; with port 0 configured, the port that was free.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown`; answers under way are finished, within a second.
    ///
    /// Above the limit of connections clients wait in the system's queue: each connection ends by itself soon, so a
    /// scraper is late at worst, where a refusal would look like an outage.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Self { listener, limits, shared, .. } = self;
        let mut connections = JoinSet::new();
        let mut said: Option<Instant> = None;
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(ended) = connections.join_next(), if !connections.is_empty() => say_panic(ended),
                accepted = listener.accept(), if connections.len() < limits.connections => match accepted {
                    Ok((stream, _)) => {
                        let shared = Arc::clone(&shared);
                        connections.spawn(async move { shared.connection(stream, limits).await });
                    }
                    Err(error) => {
                        if said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
                            said = Some(Instant::now());
                            warn!("the status page cannot accept connections: {error}");
                        }
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        let finish = async {
            while let Some(ended) = connections.join_next().await {
                say_panic(ended);
            }
        };
        if timeout(limits.stop, finish).await.is_err() {
            debug!("the status page stops without waiting longer for its clients");
        }
    }

    #[cfg(test)]
    fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }
}

/// A request that panics costs its client the answer and nobody else anything.
fn say_panic(ended: Result<(), tokio::task::JoinError>) {
    if ended.is_err() {
        // Not its message, which could quote what was to be shown (R31).
        error!("a request for the status page panicked; its client got no answer");
    }
}

impl Shared {
    /// One connection from its first byte to its last.
    async fn connection(&self, mut stream: TcpStream, limits: Limits) {
        let (response, head_only) = match timeout(limits.head, read_head(&mut stream, &self.hosts)).await {
            Ok(Ok(Some(Request { head_only, path }))) => (self.health.answer(&path), head_only),
            // It went away without asking: a port check, or a browser that was faster than its user.
            Ok(Ok(None)) => return,
            Ok(Err(refusal)) => (Response::status(refusal.status()), false),
            Err(_) => (Response::status(Refusal::Late.status()), false),
        };
        self.health.metrics.http_requests.add();
        let answered = timeout(limits.answer, write(&mut stream, &response, head_only)).await;
        if let Ok(Ok(())) = answered {
            // Closing with unread bytes would reset the connection and could take the answer with it.
            let _ = timeout(limits.linger, drain(&mut stream)).await;
        }
    }
}

/// The request, or `None` when the client closes before its head is whole.
async fn read_head(stream: &mut TcpStream, hosts: &Hosts) -> Result<Option<Request>, Refusal> {
    let mut head = Vec::with_capacity(1024);
    loop {
        let room = MAX_HEAD_BYTES - head.len();
        match (&mut *stream).take(room as u64).read_buf(&mut head).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(_) => {}
        }
        if let Some(request) = parse(&head, hosts)? {
            return Ok(Some(request));
        }
    }
}

async fn write(stream: &mut TcpStream, response: &Response, head_only: bool) -> io::Result<()> {
    stream.write_all(response.head().as_bytes()).await?;
    if !head_only {
        stream.write_all(response.body.bytes()).await?;
    }
    stream.shutdown().await
}

/// Reads and forgets what the client still sends, until it closes.
async fn drain(stream: &mut TcpStream) -> io::Result<()> {
    let mut scrap = [0; 4096];
    let mut left = MAX_LINGER_BYTES;
    while left > 0 {
        match stream.read(&mut scrap).await? {
            0 => break,
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
