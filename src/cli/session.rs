//! The whole way on one machine, for `demo` and `bench`: an embedded broker, the real daemon, a folder of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Exit, Failure};
use crate::config::{
    AcquisitionSettings, AfterPublish, Backend, DaemonSettings, HealthSettings, InferenceSettings, LogFormat,
    LogSettings, ModelSettings, MountRule, MqttSettings, ResultSettings, Settings, SiteSettings, StateSettings,
};
use crate::daemon;
use crate::measure::Norms;
use crate::mqtt::loopback_broker::{LoopbackBroker, Subscriber};

/// The daemon is ready, or a result is there, after this long, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running daemon with its broker; everything it wrote is removed when it is dropped.
pub(super) struct Session {
    root: TemporaryFolder,
    broker: LoopbackBroker,
    messages: Subscriber,
    daemon: JoinHandle<Result<(), Failure>>,
    shutdown: CancellationToken,
}

/// An event as the broker took it.
pub(super) struct Delivery {
    /// Its topic.
    pub(super) topic: String,
    /// The JSON document.
    pub(super) payload: Vec<u8>,
    /// When it came; the broker acknowledges in the same turn.
    pub(super) acknowledged: Instant,
}

impl Session {
    /// Starts broker and daemon and waits until the daemon says that it is online.
    ///
    /// # Errors
    /// When one of them does not start.
    pub(super) async fn start(model: PathBuf, settle: Duration) -> Result<Self, Failure> {
        let root = TemporaryFolder::new("landmarkd")?;
        fs::create_dir(root.path().join("films"))?;
        let broker = LoopbackBroker::start().await?;
        let messages = broker.subscribe("xr/#");
        let shutdown = CancellationToken::new();
        // Nobody changes its settings.
        let (_, reloads) = mpsc::channel(1);
        let running = daemon::run(settings(root.path(), model, settle, broker.port()), reloads, shutdown.clone());
        let daemon = tokio::spawn(async move { running.await.map_err(|e| Failure::new(Exit::Service, e)) });
        let mut session = Self { root, broker, messages, daemon, shutdown };
        session.next("/status").await?;
        Ok(session)
    }

    /// The watched folder.
    pub(super) fn folder(&self) -> PathBuf {
        self.root.path().join("films")
    }

    /// The port of the broker on the loopback.
    pub(super) fn port(&self) -> u16 {
        self.broker.port()
    }

    /// Puts a film into the watched folder in one step, and returns when that was.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(super) fn drop_film(&self, name: &str, bytes: &[u8]) -> io::Result<Instant> {
        let partial = self.root.path().join(name);
        fs::write(&partial, bytes)?;
        let closed = Instant::now();
        fs::rename(&partial, self.folder().join(name))?;
        Ok(closed)
    }

    /// The result or refusal of the next film.
    ///
    /// # Errors
    /// When none comes, or the daemon ends.
    pub(super) async fn next_event(&mut self) -> Result<Delivery, Failure> {
        self.next("/result").await
    }

    async fn next(&mut self, suffix: &str) -> Result<Delivery, Failure> {
        let service = |text: String| Failure::new(Exit::Service, text);
        let waiting = async {
            loop {
                tokio::select! {
                    message = self.messages.next() => {
                        let Some(message) = message else { return Err(service("the broker has ended".to_owned())) };
                        if message.topic.ends_with("/error") {
                            let text = String::from_utf8_lossy(&message.payload).into_owned();
                            return Err(Failure::new(Exit::BadInput, format!("the film was refused: {text}")));
                        }
                        if message.topic.ends_with(suffix) {
                            return Ok(Delivery { topic: message.topic, payload: message.payload, acknowledged: Instant::now() });
                        }
                    }
                    ended = &mut self.daemon => {
                        return Err(match ended {
                            Ok(Ok(())) => service("the daemon has ended".to_owned()),
                            Ok(Err(failure)) => failure,
                            Err(_) => Failure::new(Exit::Bug, "the daemon panicked"),
                        });
                    }
                }
            }
        };
        let seconds = PATIENCE.as_secs();
        timeout(PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| Err(service(format!("nothing came on {suffix} in {seconds} s"))))
    }

    /// Stops the daemon as SIGTERM would and waits for it.
    ///
    /// # Errors
    /// Why it ended, where not as told.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        self.shutdown.cancel();
        self.daemon.await.map_err(|_| Failure::new(Exit::Bug, "the daemon panicked"))?
    }
}

fn settings(root: &Path, model: PathBuf, settle: Duration, port: u16) -> Settings {
    Settings {
        site: SiteSettings { site: "demo".to_owned(), device: "here".to_owned() },
        acquisition: AcquisitionSettings {
            folder: root.join("films"),
            mount: MountRule::Ignored,
            recursive: false,
            rescan: Duration::from_secs(30),
            settle: Some(settle),
            max_settle: PATIENCE,
            done_marker: None,
            after: AfterPublish::Keep,
            max_file_bytes: super::film_files::MAX_FILE_BYTES,
            max_pixels: super::film_files::MAX_PIXELS,
            max_attempts: 1,
            remember: Duration::from_secs(86_400),
            pixel_spacing: None,
        },
        state: StateSettings {
            directory: root.join("state"),
            warn_free_bytes: 0,
            stop_free_bytes: 0,
            ballast_bytes: 0,
            archive_age: Duration::from_secs(86_400),
            archive_bytes: 1 << 20,
        },
        model: ModelSettings { directory: Some(model.clone()), packaged: model },
        inference: InferenceSettings {
            // What is shown is the same everywhere.
            backend: Backend::Cpu,
            build_timeout: Duration::ZERO,
            build_memory_mib: 0,
            answer_timeout: Duration::ZERO,
            retry: Duration::ZERO,
        },
        mqtt: MqttSettings {
            host: "127.0.0.1".to_owned(),
            port,
            client_id: "landmarkd-demo-here".to_owned(),
            tls: None,
            allow_plaintext: false,
            credentials: None,
            keep_alive: Duration::from_secs(30),
            ack_timeout: Duration::from_secs(30),
            max_backoff: Duration::from_secs(1),
            max_packet_bytes: 128 << 10,
            commands: false,
        },
        result: ResultSettings { require_subscriber: false, fresh: Duration::from_secs(300), token_key_file: None },
        daemon: DaemonSettings {
            drain: Duration::from_secs(5),
            budget: PATIENCE,
            canary: None,
            throttled_pause: Duration::ZERO,
        },
        measures: Norms::default(),
        health: HealthSettings { listen: None, host_name: None, overlays: 0, overlays_bytes: 0 },
        log: LogSettings { filter: "warn".to_owned(), format: LogFormat::Text },
    }
}

/// A folder below the system's temporary one, removed with all it holds when dropped.
pub(super) struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    /// A new folder that nobody else may enter; its name begins with `prefix`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn new(prefix: &str) -> Result<Self, Failure> {
        use std::os::unix::fs::DirBuilderExt;
        let [a, b, c, d, ..] = super::predict::throwaway_key()?;
        let path = std::env::temp_dir().join(format!("{prefix}-{a:02x}{b:02x}{c:02x}{d:02x}"));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: left behind: {e}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_folder_goes_with_all_it_holds() {
        let folder = TemporaryFolder::new("landmarkd-test").expect("a temporary folder");
        let path = folder.path().to_path_buf();
        fs::write(path.join("film"), "x").expect("it is ours");
        drop(folder);
        assert!(!path.exists());
    }
}
