//! Numbers, times and foreign text in the form in which the page shows them.

use std::fmt::{self, Display, Formatter};
use std::time::{Duration, SystemTime};

use crate::report::rfc3339;

/// Text that stands in HTML as itself, between tags and in quoted attributes.
pub(super) struct Escaped<T>(pub(super) T);

impl<T: AsRef<str>> Display for Escaped<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let text = self.0.as_ref();
        let mut from = 0;
        for (at, byte) in text.bytes().enumerate() {
            let safe = match byte {
                b'&' => "&amp;",
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'"' => "&quot;",
                b'\'' => "&#39;",
                _ => continue,
            };
            f.write_str(&text[from..at])?;
            f.write_str(safe)?;
            from = at + 1;
        }
        f.write_str(&text[from..])
    }
}

/// A number of bytes in the unit that suits it.
pub(super) struct Bytes(pub(super) u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
        let mut value = self.0 as f64;
        let mut unit = 0;
        while value >= 1023.5 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        let digits = usize::from(unit > 0 && value < 9.95);
        write!(f, "{value:.digits$} {}", UNITS[unit])
    }
}

/// A span of time in one unit, as one would say it.
pub(super) struct Span(pub(super) Duration);

impl Display for Span {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let s = self.0.as_secs_f64();
        match s {
            _ if s < 0.9995 => write!(f, "{:.0} ms", s * 1e3),
            _ if s < 9.95 => write!(f, "{s:.1} s"),
            _ if s < 119.5 => write!(f, "{s:.0} s"),
            _ if s < 7170.0 => write!(f, "{:.0} min", s / 60.0),
            _ if s < 172_000.0 => write!(f, "{:.0} h", s / 3600.0),
            _ => write!(f, "{:.0} days", s / 86_400.0),
        }
    }
}

/// A time that the script turns into the reader's own; without it, UTC.
pub(super) struct Time(pub(super) SystemTime);

impl Display for Time {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let stamp = rfc3339(self.0);
        // `2026-11-18T11:05:40.000Z`: date and time without the fraction.
        let (date, time) = (&stamp[..10], &stamp[11..19]);
        write!(f, "<time datetime=\"{stamp}\">{date} {time} UTC</time>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_html_would_take_as_its_own_is_escaped() {
        for (text, expected) in [
            ("plain – ü", "plain – ü"),
            ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
            ("\" onload='x' &amp;", "&quot; onload=&#39;x&#39; &amp;amp;"),
            ("", ""),
        ] {
            assert_eq!(Escaped(text).to_string(), expected);
        }
    }

    #[test]
    fn bytes_have_two_or_three_digits_and_a_unit() {
        for (bytes, expected) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (10 << 20, "10 MiB"),
            ((1 << 30) - 1, "1.0 GiB"),
            (1536 << 20, "1.5 GiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), expected, "{bytes}");
        }
    }

    #[test]
    fn spans_are_said_in_one_unit() {
        for (ms, expected) in [
            (0, "0 ms"),
            (705, "705 ms"),
            (1000, "1.0 s"),
            (59_900, "60 s"),
            (150_000, "2 min"),
            (7_200_000, "2 h"),
            (259_200_000, "3 days"),
        ] {
            assert_eq!(Span(Duration::from_millis(ms)).to_string(), expected, "{ms}");
        }
    }

    #[test]
    fn a_time_is_readable_without_the_script() {
        let time = Time(SystemTime::UNIX_EPOCH + Duration::from_millis(1_500));
        let expected = "<time datetime=\"1970-01-01T00:00:01.500Z\">1970-01-01 00:00:01 UTC</time>";
        assert_eq!(time.to_string(), expected);
    }
}
