//! From the file mirror to the settings: what is required, what goes together, and the units of the program.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::defaults::{MQTT_PORT, MQTT_TLS_PORT};
use super::error::{ConfigError, ConfigErrors, Origin};
use super::file::{
    AcquisitionSection, After, ConfigFile, DaemonSection, HealthSection, InferenceSection, LogFormatName, LogSection,
    MeasuresSection, ModelSection, MqttSection, ResultSection, SiteSection, StateSection,
};
use super::keys;
use super::layers::Merged;
use super::load::Surroundings;
use super::norms::{Conflict, norms};
use super::settings::{
    AcquisitionSettings, AfterPublish, CredentialSettings, DaemonSettings, HealthSettings, InferenceSettings,
    LogFormat, LogSettings, ModelSettings, MqttSettings, ResultSettings, Settings, SiteSettings, StateSettings,
    TlsSettings,
};
use crate::geometry::{PixelSpacing, SpacingSource};
use crate::measure::Norms;

/// The settings that a merged configuration stands for.
///
/// Pure: whether a folder or file exists is for those who use it to find out, since it may come later (R16, R40).
///
/// # Errors
/// Every missing key and every conflict between keys.
pub fn validate(merged: &Merged, surroundings: &Surroundings) -> Result<Settings, ConfigErrors> {
    let mut check = Check { merged, surroundings, errors: Vec::new() };
    let ConfigFile { site, acquisition, state, model, inference, mqtt, result, measures, daemon, health, log } =
        &merged.file;
    let site = check.site(site);
    let settings = Settings {
        acquisition: check.acquisition(acquisition),
        state: check.state(state, acquisition),
        model: check.model(model),
        inference: inference_settings(inference),
        mqtt: check.mqtt(mqtt, &site),
        result: check.result(result),
        measures: check.measures(measures),
        daemon: daemon_settings(daemon),
        health: check.health(health),
        log: log_settings(log),
        site,
    };
    if check.errors.is_empty() { Ok(settings) } else { Err(ConfigErrors(check.errors)) }
}

struct Check<'a> {
    merged: &'a Merged,
    surroundings: &'a Surroundings,
    errors: Vec<ConfigError>,
}

impl Check<'_> {
    fn site(&mut self, section: &SiteSection) -> SiteSettings {
        let SiteSection { name, device } = section;
        SiteSettings { site: self.required("site.name", name), device: self.required("site.device", device) }
    }

    fn acquisition(&mut self, section: &AcquisitionSection) -> AcquisitionSettings {
        let folder = self.required("acquisition.folder", &section.folder);
        let settle = section.settle_ms.map(Duration::from_millis);
        let max_settle = Duration::from_secs(section.max_settle_s);
        if let Some(settle) = settle.filter(|&settle| settle >= max_settle) {
            let problem = format!("is not below acquisition.max_settle_s = {} s", section.max_settle_s);
            let remedy = "a film would be given up before it could be whole: raise max_settle_s";
            self.conflict("acquisition.settle_ms", settle.as_millis(), problem, remedy);
        }
        let after = match (section.after, &section.after_folder) {
            (After::Keep, None) => AfterPublish::Keep,
            (After::Delete, None) => AfterPublish::Delete,
            (After::Move, Some(to)) => {
                if to.starts_with(&folder) && section.folder.is_some() {
                    let problem = format!("lies in the watched folder {}", folder.display());
                    self.conflict("acquisition.after_folder", quoted(to), problem, "name a folder outside it");
                }
                AfterPublish::Move(to.clone())
            }
            (After::Move, None) => {
                let problem = "needs acquisition.after_folder".to_owned();
                self.conflict("acquisition.after", "\"move\"", problem, "name the folder to move published films to");
                AfterPublish::Keep
            }
            (After::Keep | After::Delete, Some(to)) => {
                let problem = "stands without acquisition.after = \"move\"".to_owned();
                self.conflict("acquisition.after_folder", quoted(to), problem, "set after = \"move\" or remove it");
                AfterPublish::Keep
            }
        };
        AcquisitionSettings {
            folder,
            mount: section.mount,
            recursive: section.recursive,
            rescan: Duration::from_secs(section.rescan_s),
            settle,
            max_settle,
            done_marker: section.done_marker.clone(),
            after,
            max_file_bytes: section.max_file_mib << 20,
            max_pixels: section.max_megapixels * 1_000_000,
            max_attempts: section.max_attempts,
            remember: Duration::from_secs(section.remember_days * 86_400),
            pixel_spacing: section.pixel_spacing_mm.map(|[x_mm, y_mm]| PixelSpacing {
                x_mm,
                y_mm,
                source: SpacingSource::Config,
            }),
        }
    }

    fn state(&mut self, section: &StateSection, acquisition: &AcquisitionSection) -> StateSettings {
        let StateSection { directory, warn_free_mib, stop_free_mib, ballast_mib, archive_days, archive_mib } = section;
        if stop_free_mib > warn_free_mib {
            let problem = format!("is above state.warn_free_mib = {warn_free_mib}");
            let remedy = "a warning that comes after films have stopped is none: raise warn_free_mib";
            self.conflict("state.stop_free_mib", stop_free_mib, problem, remedy);
        }
        if let Some(folder) = acquisition.folder.as_deref().filter(|folder| directory.starts_with(folder)) {
            let problem = format!("lies in the watched folder {}", folder.display());
            self.conflict("state.directory", quoted(directory), problem, "the watched folder is not ours to write in");
        }
        StateSettings {
            directory: directory.clone(),
            warn_free_bytes: warn_free_mib << 20,
            stop_free_bytes: stop_free_mib << 20,
            ballast_bytes: ballast_mib << 20,
            archive_age: Duration::from_secs(archive_days * 86_400),
            archive_bytes: archive_mib << 20,
        }
    }

    fn model(&self, section: &ModelSection) -> ModelSettings {
        let ModelSection { directory } = section;
        ModelSettings { directory: directory.clone(), packaged: self.surroundings.default_model.clone() }
    }

    fn mqtt(&mut self, section: &MqttSection, site: &SiteSettings) -> MqttSettings {
        let tls = self.tls(section);
        if tls.is_none() && !section.allow_plaintext && !is_loopback(&section.host) {
            let problem = "is not this machine, and mqtt.tls is false".to_owned();
            let remedy = "set mqtt.tls = true, or mqtt.allow_plaintext = true where the network itself is trusted";
            self.conflict("mqtt.host", format!("{:?}", section.host), problem, remedy);
        }
        let credentials = match (&section.username, &section.password_file) {
            (None, None) => None,
            (Some(username), Some(file)) => {
                Some(CredentialSettings { username: username.clone(), password_file: self.secret(file) })
            }
            (Some(username), None) => {
                let problem = "stands without mqtt.password_file".to_owned();
                self.conflict(
                    "mqtt.username",
                    format!("{username:?}"),
                    problem,
                    "name the file that holds the password",
                );
                None
            }
            (None, Some(file)) => {
                let problem = "stands without mqtt.username".to_owned();
                self.conflict("mqtt.password_file", quoted(file), problem, "name the user too");
                None
            }
        };
        let port = section.port.unwrap_or(if tls.is_some() { MQTT_TLS_PORT } else { MQTT_PORT });
        let own_id = || format!("landmarkd-{}-{}", site.site, site.device);
        MqttSettings {
            host: section.host.clone(),
            port,
            client_id: section.client_id.clone().unwrap_or_else(own_id),
            tls,
            allow_plaintext: section.allow_plaintext,
            credentials,
            keep_alive: Duration::from_secs(section.keep_alive_s),
            ack_timeout: Duration::from_secs(section.ack_timeout_s),
            max_backoff: Duration::from_secs(section.max_backoff_s),
            max_packet_bytes: section.max_packet_kib << 10,
            commands: section.commands,
        }
    }

    fn tls(&mut self, section: &MqttSection) -> Option<TlsSettings> {
        let files = [
            ("mqtt.ca_file", &section.ca_file),
            ("mqtt.client_cert_file", &section.client_cert_file),
            ("mqtt.client_key_file", &section.client_key_file),
        ];
        if !section.tls {
            for (key, file) in files {
                if let Some(file) = file {
                    let problem = "stands without mqtt.tls = true".to_owned();
                    self.conflict(key, quoted(file), problem, "set mqtt.tls = true or remove it");
                }
            }
            return None;
        }
        let client = match (&section.client_cert_file, &section.client_key_file) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), self.secret(key))),
            (Some(file), None) => {
                let problem = "stands without mqtt.client_key_file".to_owned();
                self.conflict("mqtt.client_cert_file", quoted(file), problem, "name the certificate's key too");
                None
            }
            (None, Some(file)) => {
                let problem = "stands without mqtt.client_cert_file".to_owned();
                self.conflict("mqtt.client_key_file", quoted(file), problem, "name the key's certificate too");
                None
            }
            (None, None) => None,
        };
        Some(TlsSettings { ca_file: section.ca_file.clone(), client })
    }

    fn result(&self, section: &ResultSection) -> ResultSettings {
        let ResultSection { require_subscriber, fresh_s, token_key_file } = section;
        ResultSettings {
            require_subscriber: *require_subscriber,
            fresh: Duration::from_secs(*fresh_s),
            token_key_file: token_key_file.as_deref().map(|file| self.secret(file)),
        }
    }

    fn measures(&mut self, section: &MeasuresSection) -> Norms {
        norms(section).unwrap_or_else(|Conflict { key, value, problem, remedy }| {
            self.conflict(key, value, problem, remedy);
            Norms::default()
        })
    }

    fn health(&mut self, section: &HealthSection) -> HealthSettings {
        let HealthSection { listen, host_name, allow_remote, overlays, overlays_mib } = section;
        // Empty is nowhere, and anything else that is no address does not get past the table of keys.
        let address: Option<SocketAddr> = listen.parse().ok();
        if address.is_some_and(|address| !address.ip().is_loopback()) && !allow_remote {
            let problem = "is reachable from other machines, and health.allow_remote is false".to_owned();
            let remedy =
                "listen on 127.0.0.1, or set health.allow_remote = true where everyone on the network may see films";
            self.conflict("health.listen", format!("{listen:?}"), problem, remedy);
        }
        let overlays_bytes = overlays_mib << 20;
        HealthSettings { listen: address, host_name: host_name.clone(), overlays: *overlays, overlays_bytes }
    }

    /// The file of a secret; a bare name is one of the service manager's credentials (an absolute path stays).
    fn secret(&self, file: &Path) -> PathBuf {
        self.surroundings.credentials.join(file)
    }

    fn required<T: Clone + Default>(&mut self, name: &'static str, value: &Option<T>) -> T {
        value.clone().unwrap_or_else(|| {
            let key = keys::find(name).expect("a required key is a key");
            let (path, allowed) = (self.merged.path.clone(), key.allowed.to_string());
            self.errors.push(ConfigError::Missing { path, key: key.name, allowed, remedy: key.remedy });
            T::default()
        })
    }

    fn conflict(&mut self, key: &'static str, value: impl ToString, problem: String, remedy: &'static str) {
        let origin = match self.merged.origin(key) {
            // A default is at odds with something written: the main file is where to mend it.
            Origin::Default => Origin::File { path: self.merged.path.clone(), line: 1 },
            origin => origin,
        };
        self.errors.push(ConfigError::Conflict { origin, key, value: value.to_string(), problem, remedy });
    }
}

fn daemon_settings(section: &DaemonSection) -> DaemonSettings {
    let DaemonSection { drain_s, budget_s, canary_s, throttled_pause_s } = section;
    DaemonSettings {
        drain: Duration::from_secs(*drain_s),
        budget: Duration::from_secs(*budget_s),
        canary: (*canary_s > 0).then(|| Duration::from_secs(*canary_s)),
        throttled_pause: Duration::from_secs(*throttled_pause_s),
    }
}

fn inference_settings(section: &InferenceSection) -> InferenceSettings {
    let InferenceSection { backend, build_timeout_s, build_memory_mib, answer_timeout_s, retry_s } = section;
    InferenceSettings {
        backend: *backend,
        build_timeout: Duration::from_secs(*build_timeout_s),
        build_memory_mib: *build_memory_mib,
        answer_timeout: Duration::from_secs(*answer_timeout_s),
        retry: Duration::from_secs(*retry_s),
    }
}

fn log_settings(section: &LogSection) -> LogSettings {
    let LogSection { filter, format } = section;
    let format = match format {
        LogFormatName::Text => LogFormat::Text,
        LogFormatName::Json => LogFormat::Json,
    };
    LogSettings { filter: filter.clone(), format }
}

fn is_loopback(host: &str) -> bool {
    host.parse::<IpAddr>().map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |address| address.is_loopback())
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SITE: &str = "[site]\nname = \"clinic\"\ndevice = \"ceph\"\n";
    const FOLDER: &str = "[acquisition]\nfolder = \"/srv/films\"\n";

    fn settings(text: &str) -> Result<Settings, String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("landmarkd.toml");
        std::fs::write(&path, text).expect("an empty folder");
        let merged = Merged::read(&path, []).map_err(|errors| errors.to_string())?;
        let surroundings = Surroundings { credentials: "/run/credentials/x".into(), default_model: "/m/ceph".into() };
        let place = format!("{}/", folder.path().display());
        validate(&merged, &surroundings).map_err(|errors| errors.to_string().replace(&place, ""))
    }

    #[test]
    fn three_keys_are_a_configuration() {
        let settings = settings(&format!("{SITE}{FOLDER}")).expect("nothing else is required");
        assert_eq!(settings.mqtt.client_id, "landmarkd-clinic-ceph");
        assert_eq!((settings.mqtt.host.as_str(), settings.mqtt.port), ("localhost", 1883));
        assert_eq!((settings.model.directory, settings.model.packaged.as_path()), (None, Path::new("/m/ceph")));
        assert_eq!(settings.acquisition.rescan, Duration::from_secs(30));
        assert_eq!(settings.acquisition.max_file_bytes, 268_435_456);
        assert_eq!(settings.acquisition.max_pixels, 100_000_000);
        assert_eq!(settings.acquisition.after, AfterPublish::Keep);
        assert_eq!(settings.acquisition.pixel_spacing, None);
        assert!(settings.result.require_subscriber);
    }

    #[test]
    fn units_become_those_of_the_program() {
        let text = format!(
            "{SITE}{FOLDER}settle_ms = 1500\nremember_days = 2\npixel_spacing_mm = [0.1, 0.2]\nafter = \"move\"\n\
             after_folder = \"/srv/done\"\n[mqtt]\nhost = \"broker.example\"\ntls = true\nusername = \"xr\"\n\
             password_file = \"mqtt-password\"\nclient_cert_file = \"/etc/xr.crt\"\nclient_key_file = \"/etc/xr.key\"\n\
             max_packet_kib = 64\n[log]\nformat = \"json\"\n"
        );
        let settings = settings(&text).expect("every key is right");
        assert_eq!(settings.acquisition.settle, Some(Duration::from_millis(1500)));
        assert_eq!(settings.acquisition.remember, Duration::from_secs(172_800));
        let spacing = PixelSpacing { x_mm: 0.1, y_mm: 0.2, source: SpacingSource::Config };
        assert_eq!(settings.acquisition.pixel_spacing, Some(spacing));
        assert_eq!(settings.acquisition.after, AfterPublish::Move("/srv/done".into()));
        assert_eq!((settings.mqtt.port, settings.mqtt.max_packet_bytes), (8883, 65_536));
        let credentials = settings.mqtt.credentials.expect("a user is named");
        assert_eq!(credentials.password_file, Path::new("/run/credentials/x/mqtt-password"));
        let tls = settings.mqtt.tls.expect("TLS is on");
        assert_eq!(tls.client, Some(("/etc/xr.crt".into(), "/etc/xr.key".into())));
        assert_eq!(settings.log.format, LogFormat::Json);
    }

    #[test]
    fn each_conflict_names_line_key_value_and_remedy() {
        for (text, expected) in [
            (FOLDER.to_owned(), "landmarkd.toml: site.name is missing: it takes one MQTT topic level"),
            (SITE.to_owned(), "landmarkd.toml: acquisition.folder is missing: it takes an absolute path; give the"),
            (
                format!("{SITE}{FOLDER}after = \"move\"\n"),
                "landmarkd.toml:6: acquisition.after = \"move\" needs acquisition.after_folder; name the folder",
            ),
            (
                format!("{SITE}{FOLDER}after_folder = \"/srv/done\"\n"),
                "landmarkd.toml:6: acquisition.after_folder = \"/srv/done\" stands without acquisition.after = \"move\"",
            ),
            (
                format!("{SITE}{FOLDER}after = \"move\"\nafter_folder = \"/srv/films/done\"\n"),
                "landmarkd.toml:7: acquisition.after_folder = \"/srv/films/done\" lies in the watched folder /srv/films",
            ),
            (
                format!("{SITE}{FOLDER}settle_ms = 60000\nmax_settle_s = 60\n"),
                "landmarkd.toml:6: acquisition.settle_ms = 60000 is not below acquisition.max_settle_s = 60 s; a film",
            ),
            (
                format!("{SITE}{FOLDER}[state]\ndirectory = \"/srv/films/state\"\n"),
                "landmarkd.toml:7: state.directory = \"/srv/films/state\" lies in the watched folder /srv/films; the",
            ),
            (
                format!("{SITE}{FOLDER}[state]\nwarn_free_mib = 64\n"),
                "landmarkd.toml:1: state.stop_free_mib = 128 is above state.warn_free_mib = 64; a warning that",
            ),
            (
                format!("{SITE}{FOLDER}[mqtt]\nhost = \"192.0.2.7\"\n"),
                "landmarkd.toml:7: mqtt.host = \"192.0.2.7\" is not this machine, and mqtt.tls is false; set mqtt.tls",
            ),
            (
                format!("{SITE}{FOLDER}[mqtt]\nusername = \"xr\"\n"),
                "landmarkd.toml:7: mqtt.username = \"xr\" stands without mqtt.password_file; name the file",
            ),
            (
                format!("{SITE}{FOLDER}[mqtt]\npassword_file = \"p\"\n"),
                "landmarkd.toml:7: mqtt.password_file = \"p\" stands without mqtt.username; name the user",
            ),
            (
                format!("{SITE}{FOLDER}[mqtt]\nca_file = \"/etc/ca.pem\"\n"),
                "landmarkd.toml:7: mqtt.ca_file = \"/etc/ca.pem\" stands without mqtt.tls = true; set",
            ),
            (
                format!("{SITE}{FOLDER}[mqtt]\ntls = true\nclient_cert_file = \"/c\"\n"),
                "landmarkd.toml:8: mqtt.client_cert_file = \"/c\" stands without mqtt.client_key_file; name",
            ),
            (
                format!("{SITE}{FOLDER}[measures]\nsna = [80, 84]\n"),
                "landmarkd.toml:7: measures.sna = [80, 84] stands with measures.norms = \"isbi2015\"; results say whose",
            ),
            (
                format!("{SITE}{FOLDER}[measures]\nnorms = \"ours\"\n"),
                "landmarkd.toml:7: measures.norms = \"ours\" stands without a range; give the measures their ranges",
            ),
            (
                format!("{SITE}{FOLDER}[mqtt]\ntls = true\nclient_key_file = \"/k\"\n"),
                "landmarkd.toml:8: mqtt.client_key_file = \"/k\" stands without mqtt.client_cert_file; name",
            ),
        ] {
            let errors = settings(&text).expect_err(&text);
            assert!(errors.starts_with(expected), "{text}\n gives {errors}\n for  {expected}");
        }
    }

    #[test]
    fn plain_tcp_is_for_loopback_or_by_word() {
        for host in ["localhost", "127.0.0.1", "127.8.8.8", "::1"] {
            assert!(settings(&format!("{SITE}{FOLDER}[mqtt]\nhost = \"{host}\"\n")).is_ok(), "{host}");
        }
        for line in ["tls = true", "allow_plaintext = true"] {
            assert!(settings(&format!("{SITE}{FOLDER}[mqtt]\nhost = \"broker\"\n{line}\n")).is_ok(), "{line}");
        }
    }

    #[test]
    fn only_what_changes_a_result_changes_the_hash() {
        let base = settings(&format!("{SITE}{FOLDER}")).expect("a configuration");
        // sha256sum of the line "landmarkd-config-1".
        assert_eq!(base.hash(), "ba7c8442ec5b0a3a52499aab4e70c0ccf28b897b087ce24dcee89113de96e8e3");
        let busy = settings(&format!("{SITE}{FOLDER}max_attempts = 9\n[log]\nfilter = \"debug\"\n")).expect("another");
        assert_eq!(base.hash(), busy.hash());
        let scaled = settings(&format!("{SITE}{FOLDER}pixel_spacing_mm = [0.1, 0.1]\n")).expect("a third");
        assert_ne!(base.hash(), scaled.hash());
        let by = |norms: &str| settings(&format!("{SITE}{FOLDER}[measures]\n{norms}\n")).expect("norms").hash();
        assert_eq!(by("norms = \"isbi2015\""), base.hash());
        let (none, mine) = (by("norms = \"none\""), by("norms = \"ours\"\nsna = [80, 84]"));
        let moved = by("norms = \"ours\"\nsna = [80, 85]");
        assert_eq!(BTreeSet::from([base.hash(), none, mine, moved]).len(), 4);
    }
}
