//! Over real sockets on loopback.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use super::super::overlays::Overlays;
use super::super::view::StatusView;
use super::super::view::tests::quiet;
use super::*;

/// Short enough to wait for, long enough for a busy machine.
const SHORT: Limits = Limits {
    connections: 32,
    head: Duration::from_millis(300),
    answer: Duration::from_millis(300),
    linger: Duration::from_millis(100),
    stop: Duration::from_secs(1),
};

struct Running {
    address: SocketAddr,
    health: Health,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn start_with(limits: Limits, look: impl Fn() -> StatusView + Send + Sync + 'static) -> Running {
    let overlays = Arc::new(Overlays::new(20, 64 << 20));
    let health = Health { metrics: Arc::default(), overlays, look: Arc::new(look) };
    let options = HttpOptions { listen: SocketAddr::from(([127, 0, 0, 1], 0)), host_name: None };
    let server = HealthServer::bind(&options, health.clone()).await.expect("a free port").with_limits(limits);
    let (address, stop) = (server.address(), CancellationToken::new());
    let task = tokio::spawn(server.serve(stop.clone().cancelled_owned()));
    Running { address, health, stop, task }
}

async fn start(limits: Limits) -> Running {
    start_with(limits, quiet).await
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("it listens")
    }

    /// Sends `bytes` and reads until the server closes.
    async fn ask(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        // The server may have answered and closed before all was sent.
        let _ = stream.write_all(bytes.as_ref()).await;
        rest(&mut stream).await
    }

    async fn get(&self, path: &str) -> String {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address)).await
    }

    async fn stopped(self) {
        self.stop.cancel();
        self.task.await.expect("it does not panic");
    }
}

/// What comes until the connection ends, in whatever way it ends.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

fn status(answer: &str) -> &str {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or("none")
}

#[tokio::test]
async fn every_path_is_answered_whole_and_guarded() {
    let server = start(LIMITS).await;
    server.health.overlays.keep(7, vec![b'p'; 3_000_000]);
    for (path, begins) in [
        ("/", "<!doctype html>"),
        ("/page.css", ":root"),
        ("/page.js", "// Keeps"),
        ("/icon.svg", "<svg"),
        ("/status.json", "{\"state\":\"online\""),
        ("/metrics", "# HELP landmarkd_build_info"),
        ("/healthz", "ok\n"),
        ("/readyz", "ready\n"),
        ("/overlays/7.png", "ppp"),
    ] {
        let answer = server.get(path).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert_eq!(status(&answer), "200", "{path}");
        assert!(body.starts_with(begins), "{path}: {body:.60}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{path}: {head}");
        for guard in ["Content-Security-Policy: default-src 'none'", "X-Content-Type-Options: nosniff", "no-store"] {
            assert!(head.contains(guard), "{path}: {head}");
        }
    }
    server.stopped().await;
}

#[tokio::test]
async fn head_gets_the_same_head_and_no_body() {
    let server = start(LIMITS).await;
    let host = server.address;
    let get = server.get("/page.css").await;
    let head = server.ask(format!("HEAD /page.css HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    let (expected, body) = get.split_once("\r\n\r\n").expect("a head");
    assert!(!body.is_empty());
    assert_eq!(head, format!("{expected}\r\n\r\n"));
    server.stopped().await;
}

#[tokio::test]
async fn what_is_wrong_is_refused_for_what_it_is() {
    let server = start(SHORT).await;
    let localhost = "Host: localhost\r\n\r\n";
    for (request, expected) in [
        (format!("GET /nothing HTTP/1.1\r\n{localhost}"), "404"),
        (format!("POST / HTTP/1.1\r\nContent-Length: 3\r\n{localhost}abc"), "405"),
        (format!("BREW / HTTP/1.1\r\n{localhost}"), "405"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\nHost: rebound.example\r\n\r\n".to_owned(), "421"),
        (format!("GET /{} HTTP/1.1\r\n{localhost}", "a".repeat(2000)), "414"),
        (format!("GET / HTTP/1.1\r\nCookie: {}\r\n{localhost}", "a".repeat(9000)), "431"),
        (format!("GET / HTTP/1.1\r\nCookie: {}", "a".repeat(500_000)), "431"),
        (format!("GET / HTTP/3.0\r\n{localhost}"), "505"),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}".to_owned(), "400"),
        ("\0".repeat(20_000), "400"),
        ("\r\n\r\n\r\n hello?".to_owned(), "400"),
    ] {
        let answer = server.ask(&request).await;
        assert_eq!(status(&answer), expected, "{request:.60?} gives {answer}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn what_follows_a_request_is_neither_answered_nor_in_the_way() {
    let server = start(LIMITS).await;
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
    let again = server.ask(request.repeat(50)).await;
    assert_eq!((status(&again), again.matches("HTTP/1.1").count()), ("200", 1));
    let junk = [request.as_bytes(), &[0xff; 40_000]].concat();
    assert!(server.ask(junk).await.ends_with("\r\n\r\nok\n"));
    let flood = [request.as_bytes(), &vec![0xff; 4_000_000]].concat();
    assert_eq!(status(&server.ask(flood).await), "200");
    server.stopped().await;
}

#[tokio::test]
async fn a_slow_client_is_told_so_and_holds_nobody_up() {
    let server = start(SHORT).await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET / HTTP/1.1\r\nHost: loc").await.expect("it listens");
    let mut silent = server.connect().await;
    assert_eq!(status(&server.get("/healthz").await), "200", "beside the slow ones");
    assert_eq!(status(&rest(&mut slow).await), "408");
    assert_eq!(status(&rest(&mut silent).await), "408");
    server.stopped().await;
}

#[tokio::test]
async fn a_head_in_single_bytes_is_read() {
    let server = start(LIMITS).await;
    let mut stream = server.connect().await;
    stream.set_nodelay(true).expect("a TCP socket");
    for byte in b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" {
        stream.write_all(&[*byte]).await.expect("it reads");
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&rest(&mut stream).await), "200");
    server.stopped().await;
}

#[tokio::test]
async fn clients_above_the_limit_wait_for_their_turn_and_get_it() {
    let server = start(Limits { connections: 3, ..SHORT }).await;
    let mut slow = Vec::new();
    for _ in 0..3 {
        slow.push(server.connect().await);
    }
    assert_eq!(status(&server.get("/healthz").await), "200");
    // Its turn came when a slow one's had ended, not before.
    let mut told = [0; 64];
    let ended = slow.iter().filter(|stream| stream.try_read(&mut told).is_ok_and(|bytes| bytes > 0)).count();
    assert!(ended >= 1, "{ended} of the slow ones were told 408");
    server.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_at_once_are_all_answered() {
    let server = Arc::new(start(LIMITS).await);
    let mut clients = JoinSet::new();
    for _ in 0..200 {
        let server = Arc::clone(&server);
        clients.spawn(async move { server.get("/metrics").await });
    }
    while let Some(answer) = clients.join_next().await {
        assert_eq!(status(&answer.expect("no panic")), "200");
    }
    assert_eq!(server.health.metrics.http_requests.get(), 200);
    Arc::into_inner(server).expect("the clients are gone").stopped().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_place() {
    let server = start(Limits { connections: 1, ..SHORT }).await;
    server.health.overlays.keep(7, vec![0; 32 << 20]);
    let mut deaf = server.connect().await;
    deaf.write_all(b"GET /overlays/7.png HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it listens");
    deaf.readable().await.expect("the answer begins");
    assert_eq!(status(&server.get("/healthz").await), "200");
    drop(deaf);
    server.stopped().await;
}

#[tokio::test]
async fn clients_that_only_knock_leave_nothing_behind() {
    let server = start(Limits { connections: 2, head: Duration::from_secs(3600), ..SHORT }).await;
    for _ in 0..20 {
        drop(server.connect().await);
    }
    assert_eq!(status(&server.get("/healthz").await), "200");
    assert_eq!(server.health.metrics.http_requests.get(), 1);
    server.stopped().await;
}

#[tokio::test]
async fn a_request_that_panics_costs_nobody_else_anything() {
    let broken = AtomicBool::new(true);
    let server = start_with(LIMITS, move || {
        assert!(!broken.swap(false, Ordering::Relaxed), "once");
        quiet()
    })
    .await;
    assert_eq!(server.get("/status.json").await, "");
    assert_eq!(status(&server.get("/status.json").await), "200");
    server.stopped().await;
}

#[tokio::test]
async fn a_stop_finishes_what_is_under_way_and_then_nobody_listens() {
    let server = start(LIMITS).await;
    server.health.overlays.keep(7, vec![b'p'; 16 << 20]);
    let address = server.address;
    let mut client = server.connect().await;
    client.write_all(b"GET /overlays/7.png HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it listens");
    client.readable().await.expect("the answer begins");
    let stopped = tokio::spawn(server.stopped());
    assert!(rest(&mut client).await.len() > 16 << 20);
    drop(client);
    stopped.await.expect("it does not panic");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_silent_client() {
    let server = start(Limits { head: Duration::from_secs(3600), stop: Duration::from_millis(50), ..LIMITS }).await;
    let mut silent = server.connect().await;
    assert_eq!(status(&server.get("/healthz").await), "200", "so the silent one, who came first, is being served");
    server.stopped().await;
    assert_eq!(rest(&mut silent).await, "");
}

#[tokio::test]
async fn a_port_in_use_is_a_persons_affair() {
    let server = start(LIMITS).await;
    let options = HttpOptions { listen: server.address, host_name: None };
    let error = HealthServer::bind(&options, server.health.clone()).await.expect_err("the port is in use");
    assert_eq!(error.disposition(), Disposition::Fatal);
    assert_eq!(error.to_string(), format!("cannot listen on {}", server.address));
    server.stopped().await;
}
