//! An answer and its form on the wire: every one says who may do what with it, and ends the connection.

use std::fmt::Write;
use std::sync::Arc;

/// What every answer tells the browser: nothing from elsewhere, nowhere else, and nothing kept.
const GUARDS: &str = "\
Content-Security-Policy: default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; \
connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
X-Content-Type-Options: nosniff\r\n\
X-Frame-Options: DENY\r\n\
Referrer-Policy: no-referrer\r\n\
Cross-Origin-Resource-Policy: same-origin\r\n\
Cross-Origin-Opener-Policy: same-origin\r\n\
Cache-Control: no-store\r\n\
Connection: close\r\n";

/// The media type of a few words.
const PLAIN: &str = "text/plain; charset=utf-8";

/// The outcome of a request (RFC 9110, 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok = 200,
    BadRequest = 400,
    NotFound = 404,
    MethodNotAllowed = 405,
    RequestTimeout = 408,
    UriTooLong = 414,
    MisdirectedRequest = 421,
    RequestHeaderFieldsTooLarge = 431,
    ServiceUnavailable = 503,
    HttpVersionNotSupported = 505,
}

impl Status {
    const fn words(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::BadRequest => "Bad Request",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::RequestTimeout => "Request Timeout",
            Self::UriTooLong => "URI Too Long",
            Self::MisdirectedRequest => "Misdirected Request",
            Self::RequestHeaderFieldsTooLarge => "Request Header Fields Too Large",
            Self::ServiceUnavailable => "Service Unavailable",
            Self::HttpVersionNotSupported => "HTTP Version Not Supported",
        }
    }
}

/// What an answer holds.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// A file of ours.
    File(&'static str),
    /// Made for this request.
    Text(String),
    /// A picture that others may be reading too.
    Picture(Arc<[u8]>),
}

impl Body {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::File(text) => text.as_bytes(),
            Self::Text(text) => text.as_bytes(),
            Self::Picture(bytes) => bytes,
        }
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) status: Status,
    pub(super) content_type: &'static str,
    pub(super) body: Body,
}

impl Response {
    /// 200.
    pub(super) const fn ok(content_type: &'static str, body: Body) -> Self {
        Self { status: Status::Ok, content_type, body }
    }

    /// A few words in plain text.
    pub(super) const fn words(status: Status, words: String) -> Self {
        Self { status, content_type: PLAIN, body: Body::Text(words) }
    }

    /// The status alone.
    pub(super) fn status(status: Status) -> Self {
        Self::words(status, format!("{}\n", status.words()))
    }

    /// The status line and the header fields, with the empty line that ends them.
    pub(super) fn head(&self) -> String {
        let Self { status, content_type, body } = self;
        let mut head = format!("HTTP/1.1 {} {}\r\n", *status as u16, status.words());
        let length = body.bytes().len();
        write!(head, "Content-Type: {content_type}\r\nContent-Length: {length}\r\n")
            .expect("a String takes everything");
        if *status == Status::MethodNotAllowed {
            head.push_str("Allow: GET, HEAD\r\n");
        }
        head + GUARDS + "\r\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_whole_and_says_the_bodys_length() {
        let head = Response::ok("image/png", Body::Picture(vec![1, 2, 3].into())).head();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 3\r\n"), "{head}");
        assert!(head.ends_with("Connection: close\r\n\r\n"), "{head}");
        assert_eq!(head.matches("\r\n\r\n").count(), 1);
        assert!(head.lines().skip(1).filter(|line| !line.is_empty()).all(|line| line.contains(": ")), "{head}");
    }

    #[test]
    fn refusals_are_guarded_too_and_say_what_is_allowed() {
        let head = Response::status(Status::MethodNotAllowed).head();
        for field in ["Allow: GET, HEAD", "Content-Security-Policy: default-src 'none';", "Cache-Control: no-store"] {
            assert!(head.contains(&format!("\r\n{field}")), "{field} in {head}");
        }
    }
}
