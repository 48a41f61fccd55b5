//! The head of a request, from bytes: pure, and as strict as a server can be that only people and Prometheus ask.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use httparse::{EMPTY_HEADER, Status as Parsed};

use super::response::Status;

/// The longest head that is read.
pub(super) const MAX_HEAD_BYTES: usize = 8 * 1024;
/// The longest request line: method, target and version.
const MAX_LINE_BYTES: usize = 1024;
const MAX_HEADERS: usize = 64;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// HEAD: the answer without its body.
    pub(super) head_only: bool,
    /// The path without query.
    pub(super) path: String,
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is no HTTP.
    Malformed,
    /// It did not come in time.
    Late,
    /// Only GET and HEAD are served.
    Method,
    /// The request line is too long.
    LineTooLong,
    /// The head is too long.
    HeadTooLong,
    /// It is HTTP, but not 1.0 or 1.1.
    Version,
    /// It is meant for another host: a page elsewhere had its own name point here (DNS rebinding).
    Host,
}

impl Refusal {
    /// What the client is told.
    pub(super) const fn status(self) -> Status {
        match self {
            Self::Malformed => Status::BadRequest,
            Self::Late => Status::RequestTimeout,
            Self::Method => Status::MethodNotAllowed,
            Self::LineTooLong => Status::UriTooLong,
            Self::HeadTooLong => Status::RequestHeaderFieldsTooLarge,
            Self::Version => Status::HttpVersionNotSupported,
            Self::Host => Status::MisdirectedRequest,
        }
    }
}

/// The names under which this server may be asked.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    address: IpAddr,
    name: Option<String>,
}

impl Hosts {
    /// Loopback's names, the address that is listened on and one more name.
    pub(super) fn new(listen: SocketAddr, name: Option<&str>) -> Self {
        Self { address: listen.ip(), name: name.map(str::to_ascii_lowercase) }
    }

    /// Whether a Host header is one of ours; the port does not matter, so that tunnels work.
    fn allows(&self, host: &str) -> bool {
        let Some(name) = without_port(host) else { return false };
        let name = name.to_ascii_lowercase();
        let unbracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let address: Option<IpAddr> = match unbracketed {
            Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            None => name.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        };
        match address {
            Some(address) => {
                let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
                loopback.contains(&address) || (address == self.address && !address.is_unspecified())
            }
            None => name == "localhost" || Some(&name) == self.name.as_ref(),
        }
    }
}

/// The request at the beginning of `bytes`; `None` while its head is not whole.
///
/// # Errors
/// Why it is not answered; more bytes would not help.
pub(super) fn parse(bytes: &[u8], hosts: &Hosts) -> Result<Option<Request>, Refusal> {
    let line_bytes = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let parsed = head.parse(bytes).map_err(|error| match error {
        httparse::Error::TooManyHeaders => Refusal::HeadTooLong,
        httparse::Error::Version => Refusal::Version,
        _ => Refusal::Malformed,
    });
    if line_bytes > MAX_LINE_BYTES && head.method.is_some() {
        return Err(Refusal::LineTooLong);
    }
    if parsed? == Parsed::Partial {
        return if bytes.len() < MAX_HEAD_BYTES { Ok(None) } else { Err(Refusal::HeadTooLong) };
    }
    // A request before HTTP/1.1 needs no Host, but every browser and every scraper of today says it.
    let mut named = head.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    let (Some(host), None) = (named.next(), named.next()) else { return Err(Refusal::Malformed) };
    let host = std::str::from_utf8(host.value).map_err(|_| Refusal::Malformed)?;
    let target = head.path.unwrap_or_default();
    let (authority, path) = split(target).ok_or(Refusal::Malformed)?;
    if !hosts.allows(host) || !authority.is_none_or(|authority| hosts.allows(authority)) {
        return Err(Refusal::Host);
    }
    let head_only = match head.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(Refusal::Method),
    };
    let path = path.split(['?', '#']).next().unwrap_or(path);
    Ok(Some(Request { head_only, path: path.to_owned() }))
}

/// The authority, where the target names one (RFC 9112, 3.2.2), and the path.
fn split(target: &str) -> Option<(Option<&str>, &str)> {
    if target.starts_with('/') || target == "*" {
        return Some((None, target));
    }
    let rest = target.strip_prefix("http://")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    Some((Some(&rest[..end]), if rest[end..].starts_with('/') { &rest[end..] } else { "/" }))
}

fn without_port(host: &str) -> Option<&str> {
    let after_name = if host.starts_with('[') { host.find(']')? + 1 } else { host.find(':').unwrap_or(host.len()) };
    let (name, port) = host.split_at(after_name);
    let port_is_one = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    port_is_one.then_some(name)
}

/// More bytes change no answer, and no head is longer than is read.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    let hosts = Hosts::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 9464)), Some("ceph-1.clinic.example"));
    let bytes = &bytes[..bytes.len().min(MAX_HEAD_BYTES)];
    let whole = parse(bytes, &hosts);
    if bytes.len() == MAX_HEAD_BYTES {
        assert_ne!(whole, Ok(None), "who never ends is told so");
    }
    // A client's bytes come in pieces of any size.
    let first = &bytes[..bytes.len() / 2];
    if let Ok(Some(request)) = parse(first, &hosts) {
        assert_eq!(whole, Ok(Some(request)), "a head that was whole is another with what follows");
    }
    if let Ok(Some(request)) = whole {
        assert!(request.path.starts_with('/'), "{request:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Hosts {
        Hosts::new(SocketAddr::from(([192, 0, 2, 7], 9464)), Some("Ceph.clinic.example"))
    }

    fn get(path: &str) -> Result<Option<Request>, Refusal> {
        Ok(Some(Request { head_only: false, path: path.to_owned() }))
    }

    #[test]
    fn get_and_head_are_taken_with_their_path() {
        for (text, expected) in [
            ("GET /metrics HTTP/1.1\r\nHost: localhost:9464\r\n\r\n", get("/metrics")),
            ("GET / HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n", get("/")),
            ("GET /?a=/b#c HTTP/1.1\r\nHost: localhost\r\n\r\n", get("/")),
            ("GET http://localhost:1/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", get("/healthz")),
            ("GET http://localhost HTTP/1.1\r\nHost: localhost\r\n\r\n", get("/")),
            ("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n", Ok(Some(Request { head_only: true, path: "/".to_owned() }))),
            ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET /more HTTP/1.1\r\n", get("/")),
            ("GET / HTTP/1.1\r\nHost: localhost\r\n", Ok(None)),
            ("", Ok(None)),
        ] {
            assert_eq!(parse(text.as_bytes(), &hosts()), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused_for_what_it_is() {
        let long_line = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(1100));
        let unended_line = format!("GET /{}", "a".repeat(1100));
        let many = format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(70));
        let long = format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(MAX_HEAD_BYTES));
        for (text, expected) in [
            ("\u{16}\u{3}\u{1}\u{0}\u{1}tls", Refusal::Malformed),
            ("GET /\r\n\r\n", Refusal::Malformed),
            ("GET / HTTP/1.1\r\n\r\n", Refusal::Malformed),
            ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", Refusal::Malformed),
            ("GET metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", Refusal::Malformed),
            ("GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", Refusal::Malformed),
            ("GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", Refusal::Version),
            ("POST / HTTP/1.1\r\nHost: localhost\r\n\r\n", Refusal::Method),
            ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", Refusal::Method),
            ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", Refusal::Host),
            ("POST / HTTP/1.1\r\nHost: evil.example\r\n\r\n", Refusal::Host),
            ("GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", Refusal::Host),
            (&long_line, Refusal::LineTooLong),
            (&unended_line, Refusal::LineTooLong),
            (&many, Refusal::HeadTooLong),
            (&long, Refusal::HeadTooLong),
        ] {
            assert_eq!(parse(text.as_bytes(), &hosts()), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn only_our_own_names_are_answered() {
        for (host, ours) in [
            ("localhost", true),
            ("LOCALHOST:9464", true),
            ("127.0.0.1:80", true),
            ("[::1]:9464", true),
            ("[0:0:0:0:0:0:0:1]", true),
            ("192.0.2.7:9464", true),
            ("ceph.clinic.example", true),
            ("", false),
            ("localhost.", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("192.0.2.8", false),
            ("localhost:http", false),
            ("localhost:1:2", false),
            ("[::1", false),
            ("[::1]x", false),
            ("[127.0.0.1]", false),
            ("user@localhost", false),
        ] {
            assert_eq!(hosts().allows(host), ours, "{host:?}");
        }
        let everywhere = Hosts::new(SocketAddr::from(([0, 0, 0, 0], 9464)), None);
        assert!(!everywhere.allows("0.0.0.0") && everywhere.allows("localhost"));
    }

    #[test]
    fn a_request_cut_anywhere_waits_for_more_and_never_panics() {
        let whole = b"GET /status.json HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n";
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut], &hosts()), Ok(None), "{cut}");
        }
        for at in 0..whole.len() {
            for byte in 0..=255 {
                let mut changed = whole.to_vec();
                changed[at] = byte;
                let _ = parse(&changed, &hosts());
            }
        }
    }
}
