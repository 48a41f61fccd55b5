//! A TCP proxy on a free loopback port before a broker: it passes, swallows, refuses or cuts, and counts who connects.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// What becomes of bytes, on connections that are open too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They arrive.
    Pass,
    /// They are read and lost, both ways, and the connection stays open: a half-open link.
    Swallow,
    /// There are none: a connection is closed as soon as it is made or says something.
    Refuse,
    /// After so many from the client the connection is cut, in the middle of a packet as may be.
    CutAfter(usize),
}

/// A running proxy; dropping it ends it and every connection.
pub(crate) struct Proxy {
    port: u16,
    mode: watch::Sender<Mode>,
    connects: Arc<AtomicU64>,
    _accepting: AbortOnDropHandle<()>,
}

impl Proxy {
    /// Stands before what listens on `port` of the loopback, and passes.
    pub(crate) async fn before(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let own = listener.local_addr().expect("bound").port();
        let (mode, seen) = watch::channel(Mode::Pass);
        let connects = Arc::new(AtomicU64::new(0));
        let accepting = tokio::spawn(accept(listener, port, seen, Arc::clone(&connects)));
        Self { port: own, mode, connects, _accepting: AbortOnDropHandle::new(accepting) }
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on this becomes of bytes.
    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// How many connections were made so far, refused ones included.
    pub(crate) fn connects(&self) -> u64 {
        self.connects.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, to: u16, mode: watch::Receiver<Mode>, connects: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.expect("a listener accepts");
                connects.fetch_add(1, Ordering::SeqCst);
                if *mode.borrow() != Mode::Refuse {
                    connections.spawn(carry_both(client, to, mode.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries both ways until one ends.
async fn carry_both(client: TcpStream, to: u16, mode: watch::Receiver<Mode>) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("a connected socket");
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = carry(from_client, to_server, mode.clone(), true) => {}
        () = carry(from_server, to_client, mode, false) => {}
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mode: watch::Receiver<Mode>, is_client: bool) {
    let mut buffer = vec![0; 16 * 1024];
    let mut carried = 0;
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        let pass = match *mode.borrow() {
            Mode::Pass => length,
            Mode::Swallow => 0,
            Mode::Refuse => return,
            Mode::CutAfter(limit) if is_client => length.min(limit.saturating_sub(carried)),
            Mode::CutAfter(_) => length,
        };
        let is_cut = is_client && pass < length && *mode.borrow() != Mode::Swallow;
        if to.write_all(&buffer[..pass]).await.is_err() || is_cut {
            return;
        }
        carried += pass;
    }
}
