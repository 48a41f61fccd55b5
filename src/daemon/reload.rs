//! The configuration read again: whole and tried before anything is given up for it (R37).

use tracing::warn;

use super::start::{PANICKED, Serving, State, prepare, ready};
use crate::config::Settings;

/// Readies what serves under the new settings while the old ones still do: topics, the broker's files, the bundle and
/// its self-test; nothing that may fail comes after a bundle is chosen but the bundle itself. Where there is no error the old parties can be stopped and new ones started.
///
/// # Errors
/// In words, why the old settings stay.
pub(super) async fn renew(
    old: &Settings,
    new: Result<Settings, String>,
    state: &State,
) -> Result<Box<Serving>, String> {
    let new = new?;
    if let Some(key) = needs_restart(old, &new) {
        return Err(format!("{key} cannot change while the daemon runs: restart it (systemctl restart landmarkd)"));
    }
    if old.log != new.log || old.health != new.health {
        warn!("log.* and health.* hold from the next start on");
    }
    let settings = new.clone();
    let prepared = tokio::task::spawn_blocking(move || prepare(&settings)).await.map_err(|_| PANICKED)?;
    let prepared = prepared.map_err(|error| format!("{error:#}"))?;
    let serving = ready(new, prepared, state).await.map_err(|error| error.to_string())?;
    Ok(Box::new(serving))
}

/// Whether subscribers see the same device through the same connection: then the next publisher takes over without a
/// goodbye of this one.
pub(super) fn is_same_device(old: &Settings, new: &Settings) -> bool {
    old.site == new.site && old.mqtt == new.mqtt
}

/// The first key whose new value holds from a restart on: the state stays open, and with it its keys.
fn needs_restart(old: &Settings, new: &Settings) -> Option<&'static str> {
    if old.state.directory != new.state.directory {
        Some("state.directory")
    } else if old.result.token_key_file != new.result.token_key_file {
        Some("result.token_key_file")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Merged, Surroundings, validate};

    fn settings(extra: &str) -> Settings {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("landmarkd.toml");
        let text = format!("[site]\nname = \"s\"\ndevice = \"d\"\n[acquisition]\nfolder = \"/srv/films\"\n{extra}");
        std::fs::write(&file, text).expect("writable");
        let surroundings = Surroundings { credentials: "/run/c".into(), default_model: "/m".into() };
        validate(&Merged::read(&file, []).expect("right"), &surroundings).expect("right")
    }

    #[test]
    fn only_what_is_kept_open_needs_a_restart() {
        let old = settings("");
        for (extra, expected) in [
            ("", None),
            ("[state]\narchive_days = 1", None),
            ("rescan_s = 5\n[mqtt]\nport = 1\n[model]\ndirectory = \"/m2\"\n[daemon]\ndrain_s = 1", None),
            ("[state]\ndirectory = \"/var/lib/other\"", Some("state.directory")),
            ("[result]\ntoken_key_file = \"token-key\"", Some("result.token_key_file")),
        ] {
            assert_eq!(needs_restart(&old, &settings(extra)), expected, "{extra}");
        }
    }

    #[test]
    fn another_folder_is_the_same_device_and_another_port_is_not() {
        let old = settings("");
        assert!(is_same_device(&old, &settings("recursive = false\n[result]\nfresh_s = 5")));
        assert!(!is_same_device(&old, &settings("[mqtt]\nport = 1")));
    }
}
