//! The text form of metrics that Prometheus reads, version 0.0.4.
//!
//! A family is a `# HELP` and a `# TYPE` line and its samples; a family without samples is left out whole.

use std::fmt::Write;

/// The media type of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family's numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only grows, from 0 at the start of the process.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts of observations by upper bound.
    Histogram,
}

/// One number of a family.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample<'a> {
    /// What follows the family's name: `_bucket`, `_sum`, `_count` or nothing.
    pub(super) suffix: &'static str,
    /// Names and values; values may hold any text.
    pub(super) labels: Vec<(&'a str, &'a str)>,
    /// The number.
    pub(super) value: f64,
}

/// The text so far.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

impl Exposition {
    /// Adds a family.
    pub(super) fn family<'a>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = Sample<'a>>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for Sample { suffix, labels, value } in samples {
            self.put(format_args!("{name}{suffix}"));
            for (place, (label, value)) in labels.iter().enumerate() {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                self.put(format_args!("{}{label}=\"{value}\"", if place == 0 { '{' } else { ',' }));
            }
            self.put(format_args!("{} {}\n", if labels.is_empty() { "" } else { "}" }, number(value)));
        }
    }

    /// The whole text.
    pub(super) fn into_text(self) -> String {
        self.text
    }

    fn put(&mut self, what: std::fmt::Arguments<'_>) {
        self.text.write_fmt(what).expect("a String takes everything");
    }
}

/// A number as Go's `ParseFloat` reads it.
pub(super) fn number(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".to_owned()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        // Rust writes whole numbers without a point, others with as many digits as tell them apart, and `NaN`.
        value.to_string()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What stands in a text: each sample's whole name with its labels, sorted, and its value.
    pub(in super::super) fn parse(text: &str) -> BTreeMap<String, f64> {
        let mut found = BTreeMap::new();
        let mut family: Option<(String, String)> = None;
        let mut helped = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                helped = help.split_once(' ').expect("a name and a text").0.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a name and a kind");
                assert_eq!(name, helped, "HELP stands before TYPE");
                family = Some((name.to_owned(), kind.to_owned()));
            } else {
                let (name, labels, value) = sample(line);
                let (of, kind) = family.as_ref().expect("TYPE stands before samples");
                let suffix = name.strip_prefix(of.as_str()).expect("families stand together");
                assert!(suffix.is_empty() || kind == "histogram", "{line}");
                let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let whole = format!("{name}[{}]", labels.join(","));
                assert!(found.insert(whole, value).is_none(), "twice: {line}");
            }
        }
        found
    }

    fn sample(line: &str) -> (String, Vec<(String, String)>, f64) {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let value = if value == "+Inf" { f64::INFINITY } else { value.parse().expect("a number") };
        let Some((name, rest)) = series.split_once('{') else {
            return (series.to_owned(), Vec::new(), value);
        };
        let mut rest = rest.strip_suffix('}').expect("braces close");
        let mut labels = Vec::new();
        while !rest.is_empty() {
            let (label, after) = rest.split_once("=\"").expect("a label");
            let mut text = String::new();
            let mut chars = after.char_indices();
            let end = loop {
                match chars.next().expect("the quotes close") {
                    (at, '"') => break at,
                    (_, '\\') => text.push(match chars.next().expect("an escaped character").1 {
                        'n' => '\n',
                        other => other,
                    }),
                    (_, other) => text.push(other),
                }
            };
            labels.push((label.to_owned(), text));
            rest = after[end + 1..].trim_start_matches(',');
        }
        (name.to_owned(), labels, value)
    }

    #[test]
    fn a_family_has_help_type_and_samples() {
        let mut text = Exposition::default();
        let samples = [
            Sample { suffix: "", labels: vec![], value: 3.0 },
            Sample { suffix: "", labels: vec![("a", "x"), ("b", "y")], value: 0.25 },
        ];
        text.family("films", Kind::Counter, "Films.", samples);
        text.family("none", Kind::Gauge, "Nothing is known of it.", []);
        let expected = "# HELP films Films.\n# TYPE films counter\nfilms 3\nfilms{a=\"x\",b=\"y\"} 0.25\n";
        assert_eq!(text.into_text(), expected);
    }

    #[test]
    fn what_is_special_in_the_text_is_escaped() {
        let mut text = Exposition::default();
        let hostile = "a\\b\"c\nd} 1";
        let sample = Sample { suffix: "", labels: vec![("v", hostile)], value: 1.0 };
        text.family("m", Kind::Gauge, "back\\slash\nline", [sample]);
        let text = text.into_text();
        assert_eq!(text, "# HELP m back\\\\slash\\nline\n# TYPE m gauge\nm{v=\"a\\\\b\\\"c\\nd} 1\"} 1\n");
        assert_eq!(parse(&text).into_keys().collect::<Vec<_>>(), [format!("m[v={hostile}]")]);
    }

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for (value, expected) in [
            (0.0, "0"),
            (1_234_567_890_123.0, "1234567890123"),
            (0.005, "0.005"),
            (1e-9, "0.000000001"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(number(value), expected);
        }
    }
}
