//! The running daemon, asked over its status port.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// It answers at once, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest answer is the page of metrics.
const MAX_ANSWER_BYTES: u64 = 4 << 20;

/// The text of a page of the daemon that listens at `address`, as `health.listen` has it.
///
/// # Errors
/// When nobody answers, or with something else than 200 and text.
pub(super) fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let address = SocketAddr::new(reachable(address.ip()), address.port());
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        status => Err(io::Error::other(format!("{path} is answered with {}", status.unwrap_or("nonsense")))),
    }
}

/// Who listens on every address is asked over the loopback.
fn reachable(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn only_a_page_that_is_there_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let serving = thread::spawn(move || {
            for status in ["200 OK", "404 Not Found"] {
                let (mut stream, _) = listener.accept().expect("a client");
                let mut request = [0; 512];
                let length = stream.read(&mut request).expect("a request");
                assert!(request[..length].starts_with(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:"));
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nhi").expect("it reads");
            }
        });
        let mapped = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
        assert_eq!(get(mapped, "/metrics").expect("a page"), "hi");
        assert!(get(address, "/metrics").is_err_and(|error| error.to_string().contains("404")));
        serving.join().expect("it saw what it should");
    }
}
