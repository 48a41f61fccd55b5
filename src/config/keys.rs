//! What every key may hold, and what to do when it does not.
//!
//! The table is in the order in which `check-config --print` prints; a test holds it equal to the file mirror.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use toml::Value;
use tracing_subscriber::EnvFilter;

/// One key of the configuration.
pub(super) struct Key {
    /// `section.key`.
    pub(super) name: &'static str,
    /// What it may hold.
    pub(super) allowed: Allowed,
    /// What to do when it holds something else, or what stands in when it is unset.
    pub(super) remedy: &'static str,
}

/// The values a key may hold.
pub(super) enum Allowed {
    /// A whole number from `.0` to `.1` of the unit `.2`.
    Whole(i64, i64, &'static str),
    /// `true` or `false`.
    Flag,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// An absolute path.
    AbsolutePath,
    /// The file of a secret: an absolute path, or the bare name of a service credential.
    SecretFile,
    /// Text that passes a test, and its description.
    Text(&'static str, fn(&str) -> bool),
    /// Millimetres per pixel on x and y.
    Spacing,
    /// Two numbers from `.0` to `.1` of the unit `.2`, the second not below the first.
    Range(f64, f64, &'static str),
}

const fn key(name: &'static str, allowed: Allowed, remedy: &'static str) -> Key {
    Key { name, allowed, remedy }
}

const SECRET_REMEDY: &str = "name a credential of the unit (LoadCredential=) or an absolute path to a file of mode 0600; the secret itself \
     never stands in the configuration";
const OWN_NORM: &str = "from where to where it is normal; it is read with a name of your own in measures.norms only";
const TOPIC_LEVEL: Allowed =
    Allowed::Text("one MQTT topic level of 1 to 64 characters without / + # $", is_topic_level);

/// Every key, in the order of the file mirror.
pub(super) const KEYS: &[Key] = &[
    key("site.name", TOPIC_LEVEL, "it is the third level of every topic, xr/v1/<site>/<device>/.."),
    key("site.device", TOPIC_LEVEL, "it is the fourth level of every topic, xr/v1/<site>/<device>/.."),
    key("acquisition.folder", Allowed::AbsolutePath, "give the absolute path of the folder that receives the films"),
    key(
        "acquisition.mount",
        Allowed::OneOf(&["remembered", "required", "ignored"]),
        "remembered notices that a share is gone; required is for a disk that is mounted on the folder",
    ),
    key("acquisition.recursive", Allowed::Flag, "false watches the folder itself only"),
    key("acquisition.rescan_s", Allowed::Whole(1, 3600, "seconds"), "30 suits most folders"),
    key(
        "acquisition.settle_ms",
        Allowed::Whole(100, 600_000, "milliseconds"),
        "leave it out for 2000 on local and 5000 on network file systems",
    ),
    key("acquisition.max_settle_s", Allowed::Whole(1, 86_400, "seconds"), "600 suits slow writers too"),
    key(
        "acquisition.done_marker",
        Allowed::Text("a suffix of 1 to 32 characters without /, such as \".done\"", is_suffix),
        "leave it out when the writer leaves no marker",
    ),
    key("acquisition.after", Allowed::OneOf(&["keep", "move", "delete"]), "keep leaves the folder untouched"),
    key("acquisition.after_folder", Allowed::AbsolutePath, "it is read with after = \"move\" only"),
    key("acquisition.max_file_mib", Allowed::Whole(1, 1024, "MiB"), "256 suits every film"),
    key("acquisition.max_megapixels", Allowed::Whole(1, 1000, "megapixels"), "100 suits every film"),
    key("acquisition.max_attempts", Allowed::Whole(1, 100, "tries"), "3 suits most sites"),
    key("acquisition.remember_days", Allowed::Whole(1, 3650, "days"), "90 suits most sites"),
    key(
        "acquisition.pixel_spacing_mm",
        Allowed::Spacing,
        "leave it out to report pixels only where a film states no scale",
    ),
    key("state.directory", Allowed::AbsolutePath, "/var/lib/landmarkd is what the unit provides"),
    key("state.warn_free_mib", Allowed::Whole(0, 1_048_576, "MiB"), "1024 leaves time to act"),
    key("state.stop_free_mib", Allowed::Whole(0, 1_048_576, "MiB"), "128 lets what was begun come to its end"),
    key("state.ballast_mib", Allowed::Whole(0, 1024, "MiB"), "16 hold the results of a few hundred films"),
    key("state.archive_days", Allowed::Whole(0, 3650, "days"), "30 outlasts most holidays of a subscriber"),
    key("state.archive_mib", Allowed::Whole(0, 65_536, "MiB"), "256 hold 100000 events"),
    key(
        "model.directory",
        Allowed::AbsolutePath,
        "leave it out to serve with what `landmarkd model activate` chose, or else with models/ceph19-nfdp here, beside \
         the program or below /usr/share/landmarkd",
    ),
    key(
        "inference.backend",
        Allowed::OneOf(&["auto", "cpu", "tensorrt"]),
        "auto uses TensorRT where it is there and computes what the processor computes; cpu never looks for it",
    ),
    key(
        "inference.build_timeout_s",
        Allowed::Whole(1, 86_400, "seconds"),
        "1800 suits every device; the processor serves meanwhile",
    ),
    key(
        "inference.build_memory_mib",
        Allowed::Whole(64, 1_048_576, "MiB"),
        "6144 suits every device of 8 GiB and more",
    ),
    key(
        "inference.answer_timeout_s",
        Allowed::Whole(1, 3_600, "seconds"),
        "300 leaves time to load an engine on the slowest device",
    ),
    key(
        "inference.retry_s",
        Allowed::Whole(1, 604_800, "seconds"),
        "3600 gives a hot or busy GPU time to come to itself",
    ),
    key("mqtt.host", Allowed::Text("a host name or address, without scheme or port", is_host), "the port is mqtt.port"),
    key("mqtt.port", Allowed::Whole(1, 65_535, "(TCP port)"), "leave it out for 8883 with TLS and 1883 without"),
    key(
        "mqtt.client_id",
        Allowed::Text("1 to 128 characters that are no control characters", is_client_id),
        "leave it out for landmarkd-<site>-<device>",
    ),
    key(
        "mqtt.username",
        Allowed::Text("1 to 256 characters that are no control characters", is_username),
        "leave it out for an anonymous connection",
    ),
    key("mqtt.password_file", Allowed::SecretFile, SECRET_REMEDY),
    key("mqtt.tls", Allowed::Flag, "true for every broker that is not on this machine"),
    key("mqtt.ca_file", Allowed::AbsolutePath, "leave it out for the authorities that the system trusts"),
    key("mqtt.client_cert_file", Allowed::AbsolutePath, "it is read with mqtt.client_key_file only"),
    key("mqtt.client_key_file", Allowed::SecretFile, SECRET_REMEDY),
    key("mqtt.allow_plaintext", Allowed::Flag, "true sends results and the password in the clear"),
    key("mqtt.keep_alive_s", Allowed::Whole(5, 3600, "seconds"), "30 finds a dead link within a minute"),
    key("mqtt.ack_timeout_s", Allowed::Whole(1, 3600, "seconds"), "30 suits most links"),
    key("mqtt.max_backoff_s", Allowed::Whole(1, 3600, "seconds"), "60 suits most brokers"),
    key("mqtt.max_packet_kib", Allowed::Whole(16, 1024, "KiB"), "128 holds every event (at most 64 KiB)"),
    key("mqtt.commands", Allowed::Flag, "true lets whoever may write to cmd/replay ask for delivered events again"),
    key("result.require_subscriber", Allowed::Flag, "true holds a result until somebody has taken it"),
    key("result.fresh_s", Allowed::Whole(1, 604_800, "seconds"), "300 suits most sites"),
    key("result.token_key_file", Allowed::SecretFile, SECRET_REMEDY),
    key(
        "measures.norms",
        Allowed::Text("\"isbi2015\", \"none\" or a name of your own of 1 to 64 characters", is_norms),
        "isbi2015 are the norms of the challenge that the measures are taken from; none leaves every value without a class",
    ),
    key("measures.sna", Allowed::Range(-180.0, 180.0, "degrees"), OWN_NORM),
    key("measures.snb", Allowed::Range(-180.0, 180.0, "degrees"), OWN_NORM),
    key("measures.anb", Allowed::Range(-180.0, 180.0, "degrees"), OWN_NORM),
    key("measures.odi", Allowed::Range(-360.0, 360.0, "degrees"), OWN_NORM),
    key("measures.apdi", Allowed::Range(-360.0, 540.0, "degrees"), OWN_NORM),
    key("measures.fhi", Allowed::Range(0.0, 10.0, "(a ratio)"), OWN_NORM),
    key("measures.fha", Allowed::Range(0.0, 180.0, "degrees"), OWN_NORM),
    key("measures.mw", Allowed::Range(0.0, 100.0, "mm"), OWN_NORM),
    key(
        "daemon.drain_s",
        Allowed::Whole(1, 600, "seconds"),
        "a film in hand and then the broker may take that long each: keep twice this and 3 s more below \
         TimeoutStopSec= of the unit",
    ),
    key(
        "daemon.budget_s",
        Allowed::Whole(1, 3600, "seconds"),
        "60 suits every film; a stage that hangs for longer is restarted by the watchdog of the unit",
    ),
    key(
        "daemon.canary_s",
        Allowed::Whole(0, 604_800, "seconds"),
        "3600 has the network tried on its golden film every hour that no film comes; 0 switches that off",
    ),
    key(
        "daemon.throttled_pause_s",
        Allowed::Whole(0, 3600, "seconds"),
        "10 lets a machine that is too hot recover between two films of the backlog; 0 switches that off",
    ),
    key(
        "health.listen",
        Allowed::Text("an IP address and a port such as \"127.0.0.1:9464\", or empty", is_listen),
        "empty switches the status page, the metrics and the health checks off",
    ),
    key(
        "health.host_name",
        Allowed::Text("a host name or address, without scheme or port", is_host),
        "leave it out where the page is opened as localhost or by its address",
    ),
    key("health.allow_remote", Allowed::Flag, "true shows state and pictures to everyone who reaches the port"),
    key("health.overlays", Allowed::Whole(0, 20, "pictures"), "20 fill the page; 0 makes none"),
    key("health.overlays_mib", Allowed::Whole(1, 256, "MiB"), "24 hold 20 pictures of most films"),
    key(
        "log.filter",
        Allowed::Text("an EnvFilter directive, such as \"info,landmarkd=debug\"", is_filter),
        "info suits",
    ),
    key("log.format", Allowed::OneOf(&["text", "json"]), "text is for people and journald"),
];

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The texts that tell of the device and its broker, and of nobody else.
const NAMES_NOBODY: &[&str] = &[
    "site.name",
    "site.device",
    "acquisition.done_marker",
    "state.directory",
    "model.directory",
    "mqtt.host",
    "mqtt.client_id",
    "mqtt.username",
    "mqtt.password_file",
    "mqtt.ca_file",
    "mqtt.client_cert_file",
    "mqtt.client_key_file",
    "result.token_key_file",
    "measures.norms",
    "health.listen",
    "health.host_name",
    "log.filter",
];

impl Key {
    /// Whether what it holds can be shown to others: a number, a word of a closed set, or a text known to be harmless.
    pub(super) fn names_nobody(&self) -> bool {
        match self.allowed {
            Allowed::Whole(..) | Allowed::Flag | Allowed::OneOf(_) | Allowed::Spacing | Allowed::Range(..) => true,
            Allowed::AbsolutePath | Allowed::SecretFile | Allowed::Text(..) => NAMES_NOBODY.contains(&self.name),
        }
    }

    /// The section and the key's name in it.
    pub(super) fn parts(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').expect("every name has a section")
    }
}

impl Allowed {
    /// Whether a value of the file or the environment may stand here.
    pub(super) fn accepts(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Whole(min, max, _), Value::Integer(n)) => (*min..=*max).contains(n),
            (Self::Flag, Value::Boolean(_)) => true,
            (Self::OneOf(words), Value::String(s)) => words.contains(&s.as_str()),
            (Self::AbsolutePath, Value::String(s)) => Path::new(s).is_absolute(),
            (Self::SecretFile, Value::String(s)) => Path::new(s).is_absolute() || is_bare_name(s),
            (Self::Text(_, test), Value::String(s)) => test(s),
            (Self::Spacing, Value::Array(pair)) => pair.len() == 2 && pair.iter().all(is_spacing),
            (Self::Range(min, max, _), Value::Array(pair)) => {
                let ends: Vec<_> = pair.iter().map(number).collect();
                matches!(ends[..], [Some(low), Some(high)] if *min <= low && low <= high && high <= *max)
            }
            _ => false,
        }
    }
}

impl std::fmt::Display for Allowed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(min, max, unit) => write!(f, "a whole number from {min} to {max} {unit}"),
            Self::Flag => f.write_str("true or false"),
            Self::OneOf(words) => {
                let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
                write!(f, "one of {}", quoted.join(", "))
            }
            Self::AbsolutePath => f.write_str("an absolute path"),
            Self::SecretFile => f.write_str("an absolute path or the name of a service credential"),
            Self::Text(description, _) => f.write_str(description),
            Self::Range(min, max, unit) => write!(f, "[least, greatest], each from {min} to {max} {unit}"),
            Self::Spacing => f.write_str("[x, y] in millimetres per pixel, each from 0.001 to 10"),
        }
    }
}

fn is_topic_level(s: &str) -> bool {
    let fits = (1..=64).contains(&s.chars().count());
    fits && !s.chars().any(|c| c.is_control() || matches!(c, '/' | '+' | '#' | '$'))
}

fn is_suffix(s: &str) -> bool {
    (1..=32).contains(&s.len()) && !s.chars().any(|c| c.is_control() || c == '/')
}

fn is_bare_name(s: &str) -> bool {
    !s.is_empty() && !matches!(s, "." | "..") && !s.contains('/')
}

fn is_host(s: &str) -> bool {
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    s.parse::<IpAddr>().is_ok() || ((1..=253).contains(&s.len()) && s.chars().all(name))
}

fn is_listen(s: &str) -> bool {
    s.is_empty() || s.parse::<SocketAddr>().is_ok()
}

fn is_client_id(s: &str) -> bool {
    (1..=128).contains(&s.chars().count()) && !s.chars().any(char::is_control)
}

fn is_username(s: &str) -> bool {
    (1..=256).contains(&s.chars().count()) && !s.chars().any(char::is_control)
}

fn is_filter(s: &str) -> bool {
    !s.trim().is_empty() && EnvFilter::builder().parse(s).is_ok()
}

fn is_norms(s: &str) -> bool {
    (1..=64).contains(&s.chars().count()) && !s.chars().any(char::is_control)
}

fn is_spacing(value: &Value) -> bool {
    number(value).is_some_and(|number| (0.001..=10.0).contains(&number))
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(v) => Some(*v),
        Value::Integer(v) => Some(*v as f64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::file::ConfigFile;
    use super::*;

    fn mirror_keys() -> BTreeSet<String> {
        let mirror = serde_json::to_value(ConfigFile::default()).expect("the mirror is plain data");
        let mut keys = BTreeSet::new();
        for (section, body) in mirror.as_object().expect("sections") {
            keys.extend(body.as_object().expect("keys").keys().map(|key| format!("{section}.{key}")));
        }
        keys
    }

    #[test]
    fn the_table_has_exactly_the_keys_of_the_mirror() {
        assert_eq!(KEYS.iter().map(|key| key.name.to_owned()).collect::<BTreeSet<_>>(), mirror_keys());
    }

    #[test]
    fn only_the_folders_of_films_are_withheld() {
        let withheld: Vec<_> = KEYS.iter().filter(|key| !key.names_nobody()).map(|key| key.name).collect();
        assert_eq!(withheld, ["acquisition.folder", "acquisition.after_folder"]);
        assert!(NAMES_NOBODY.iter().all(|name| find(name).is_some()), "a key of the list is there no more");
    }

    #[test]
    fn sections_stand_together() {
        let mut sections: Vec<_> = KEYS.iter().map(|key| key.parts().0).collect();
        sections.dedup();
        let distinct: BTreeSet<_> = sections.iter().collect();
        assert_eq!(sections.len(), distinct.len(), "{sections:?}");
    }

    #[test]
    fn the_mirror_takes_the_ends_of_every_range() {
        for key in KEYS {
            let ends: Vec<Value> = match key.allowed {
                Allowed::Whole(min, max, _) => vec![min.into(), max.into()],
                Allowed::OneOf(words) => words.iter().map(|&word| word.into()).collect(),
                Allowed::Range(min, max, _) => {
                    vec![Value::Array(vec![Value::Float(min), Value::Float(max)])]
                }
                Allowed::Spacing => vec![Value::Array(vec![1.into(), Value::Float(0.25)])],
                _ => continue,
            };
            let (section, name) = key.parts();
            for value in ends {
                assert!(key.allowed.accepts(&value), "{} = {value}", key.name);
                let body = toml::Table::from_iter([(name.to_owned(), value.clone())]);
                let table = toml::Table::from_iter([(section.to_owned(), Value::Table(body))]);
                table.try_into::<ConfigFile>().unwrap_or_else(|e| panic!("{} = {value}: {e}", key.name));
            }
        }
    }

    #[test]
    fn every_default_is_an_allowed_value() {
        let mirror = toml::Table::try_from(ConfigFile::default()).expect("the mirror is plain data");
        for key in KEYS {
            let (section, name) = key.parts();
            if let Some(value) = mirror[section].get(name) {
                assert!(key.allowed.accepts(value), "{} = {value}", key.name);
            }
        }
    }

    #[test]
    fn values_are_accepted_and_refused_key_by_key() {
        for (name, good, bad) in [
            ("site.name", r#""clinic-7""#, r#""a/b""#),
            ("site.device", r#""ceph 1""#, r#""""#),
            ("acquisition.folder", r#""/srv/films""#, r#""films""#),
            ("acquisition.rescan_s", "30", "0"),
            ("acquisition.settle_ms", "2000", r#""2s""#),
            ("acquisition.done_marker", r#"".done""#, r#""a/b""#),
            ("acquisition.after", r#""move""#, r#""remove""#),
            ("acquisition.pixel_spacing_mm", "[0.1, 1]", "[0.1]"),
            ("acquisition.pixel_spacing_mm", "[0.1, 0.1]", "[0.1, 0.0]"),
            ("measures.norms", r#""Tübingen 2026""#, r#""""#),
            ("measures.sna", "[79.4, 83]", "[83.2, 79.4]"),
            ("measures.mw", "[2, 4.5]", "[2, 4.5, 6]"),
            ("measures.fhi", "[0.65, 0.75]", "[65, 75]"),
            ("mqtt.host", r#""::1""#, r#""mqtt://broker""#),
            ("mqtt.host", r#""broker.example""#, r#""broker:1883""#),
            ("mqtt.port", "1883", "65536"),
            ("mqtt.password_file", r#""mqtt-password""#, r#""secrets/password""#),
            ("mqtt.tls", "true", "1"),
            ("log.filter", r#""info,landmarkd=debug""#, r#""=loud=""#),
            ("log.format", r#""json""#, r#""xml""#),
        ] {
            let value = |text: &str| {
                let table: toml::Table = format!("v = {text}").parse().expect("the row is TOML");
                table["v"].clone()
            };
            let key = find(name).expect("the row names a key");
            assert!(key.allowed.accepts(&value(good)), "{name} = {good}");
            assert!(!key.allowed.accepts(&value(bad)), "{name} = {bad}");
        }
    }
}
