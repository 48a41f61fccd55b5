//! From the settings to the options of one connection.

use std::net::IpAddr;
use std::time::Duration;

use rumqttc::v5::MqttOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::LastWill;
use rumqttc::{NetworkOptions, Transport};

use super::{MqttError, tls};
use crate::config::MqttSettings;
use crate::secret;

/// rumqttc refuses a shorter keep-alive.
const SHORTEST_KEEP_ALIVE: Duration = Duration::from_secs(5);
/// MQTT counts it in seconds in 16 bits.
const LONGEST_KEEP_ALIVE: Duration = Duration::from_secs(u16::MAX as u64);
/// From the first SYN to the CONNACK.
const CONNECT_TIMEOUT_S: u64 = 10;
/// What the broker may send us is small; what we allow must not be smaller than what we send.
const HEADROOM_BYTES: u32 = 4 * 1024;

/// Whether a connection could be tried with these settings: every file is there and readable, and nothing
/// contradicts.
///
/// # Errors
/// What [`Publisher::run`](super::Publisher::run) would stumble over at every try.
pub fn check(settings: &MqttSettings) -> Result<(), MqttError> {
    options(settings, None).map(|_| ())
}

/// The options of the next connection: clean start, no session, one packet under way (decide 1 of the design).
///
/// Certificates and the password are read here, at each connection.
pub(super) fn options(settings: &MqttSettings, will: Option<(String, Vec<u8>)>) -> Result<MqttOptions, MqttError> {
    if !(SHORTEST_KEEP_ALIVE..=LONGEST_KEEP_ALIVE).contains(&settings.keep_alive) {
        return Err(MqttError::KeepAlive { found: settings.keep_alive });
    }
    if settings.tls.is_none() && !settings.allow_plaintext && !is_loopback(&settings.host) {
        return Err(MqttError::Plaintext { host: settings.host.clone() });
    }
    // The port is appended with a colon, so the address of IP version 6 needs its brackets.
    let is_v6 = settings.tls.is_none() && settings.host.parse::<std::net::Ipv6Addr>().is_ok();
    let host = if is_v6 { format!("[{}]", settings.host) } else { settings.host.clone() };
    let mut options = MqttOptions::new(&settings.client_id, host, settings.port);
    options.set_keep_alive(settings.keep_alive);
    options.set_connection_timeout(CONNECT_TIMEOUT_S);
    options.set_clean_start(true);
    options.set_session_expiry_interval(Some(0));
    options.set_outgoing_inflight_upper_limit(1);
    options.set_max_packet_size(Some(settings.max_packet_bytes.saturating_add(HEADROOM_BYTES)));
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    if let Some(tls) = &settings.tls {
        options.set_transport(Transport::tls_with_config(tls::configuration(tls)?));
    }
    if let Some(credentials) = &settings.credentials {
        options.set_credentials(&credentials.username, secret::read_text(&credentials.password_file)?);
    }
    if let Some((topic, message)) = will {
        options.set_last_will(LastWill::new(topic, message, QoS::AtLeastOnce, true, None));
    }
    Ok(options)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CredentialSettings, TlsSettings};
    use crate::mqtt::tests::settings;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn plain_tcp_leaves_the_machine_only_when_allowed() {
        for (host, allow, ok) in [
            ("localhost", false, true),
            ("127.0.0.1", false, true),
            ("127.9.9.9", false, true),
            ("::1", false, true),
            ("broker.example", false, false),
            ("192.0.2.1", false, false),
            ("localhost.example", false, false),
            ("broker.example", true, true),
        ] {
            let settings = MqttSettings { host: host.to_owned(), allow_plaintext: allow, ..settings(1883) };
            let found = check(&settings);
            assert_eq!(found.is_ok(), ok, "{host} {allow}");
            if let Err(error) = found {
                assert!(error.to_string().contains("allow_plaintext"), "{error}");
            }
        }
        let tls = Some(TlsSettings { ca_file: Some("/nonexistent/ca.pem".into()), client: None });
        let error = check(&MqttSettings { tls, ..settings(1883) }).expect_err("no such file");
        assert!(matches!(error, MqttError::Tls(_)), "{error}");
    }

    #[test]
    fn a_keep_alive_the_client_cannot_keep_is_refused() {
        for (s, ok) in [(0, false), (4, false), (5, true), (65_535, true), (65_536, false)] {
            let settings = MqttSettings { keep_alive: Duration::from_secs(s), ..settings(1883) };
            assert_eq!(check(&settings).is_ok(), ok, "{s} s");
        }
    }

    #[test]
    fn the_password_is_read_at_each_connection_and_shows_in_no_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let password_file = directory.path().join("password");
        let credentials = CredentialSettings { username: "device".to_owned(), password_file: password_file.clone() };
        let settings = MqttSettings { credentials: Some(credentials), ..settings(1883) };
        let write = |password: &str, mode| {
            fs::write(&password_file, password).expect("writable");
            fs::set_permissions(&password_file, fs::Permissions::from_mode(mode)).expect("ours");
        };
        for password in ["first\n", "second\n"] {
            write(password, 0o600);
            let login = options(&settings, None).expect("usable").credentials().expect("a login");
            assert_eq!((login.username.as_str(), login.password.as_str()), ("device", password.trim_end()));
        }
        write("hunter2", 0o644);
        let error = anyhow::Error::from(check(&settings).expect_err("exposed"));
        let text = format!("{error:#} {error:?}");
        assert!(text.contains("chmod 600") && !text.contains("hunter2"), "{text}");
    }
}
