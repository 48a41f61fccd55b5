//! The parties over a network that goes wrong while it serves.

use std::io::Cursor;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::accelerate::Candidate;
use super::super::start::{State, open};
use super::super::visible::Waiting;
use super::*;
use crate::acquisition::FilmId;
use crate::analysis::{Analyst, AnalystOptions, Golden};
use crate::config::{Backend, Merged, Settings, Surroundings, validate};
use crate::geometry::{Frame, Point, Size};
use crate::inference::{Detector, FrameLandmark, InferenceError, Localizer};
use crate::measure::Norms;
use crate::model::Bundle;
use crate::radiograph::NetworkInput;
use crate::report::{Reason, Topics};
use crate::store::DiskRoom;

/// Far beyond anything that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const SIZE: Size = Size::new(40, 50);

/// Finds every landmark in the middle of the film, or beside it as often as it is told to.
struct Drifting {
    landmarks: usize,
    /// How far off, in frame pixels, it is at each call; the last holds for all that follow.
    off_px: &'static [f64],
    calls: Arc<AtomicUsize>,
}

impl Detector for Drifting {
    fn frame(&self) -> Frame {
        Frame::new(128, 128)
    }

    fn backend(&self) -> &'static str {
        "drifting"
    }

    fn detect(&mut self, _: &NetworkInput) -> Result<Vec<FrameLandmark>, InferenceError> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let off_px = self.off_px.get(call).or(self.off_px.last()).expect("some");
        let point = Point::new(64.0 + off_px, 64.0);
        Ok(vec![FrameLandmark { point, sigma_px: [1.0; 2], score: 1.0 }; self.landmarks])
    }
}

fn settings(home: &Path) -> Settings {
    let file = home.join("landmarkd.toml");
    let (films, state) = (home.join("films"), home.join("state"));
    std::fs::create_dir(&films).expect("a fresh directory");
    // Nobody listens on port 1.
    let text = format!(
        "[site]\nname = \"s\"\ndevice = \"d\"\n[acquisition]\nfolder = {films:?}\n[state]\ndirectory = {state:?}\n\
         [mqtt]\nhost = \"127.0.0.1\"\nport = 1\n[daemon]\ndrain_s = 1\n[health]\nlisten = \"\"\n"
    );
    std::fs::write(&file, text).expect("a fresh directory");
    let surroundings = Surroundings { credentials: "/run/c".into(), default_model: "/m".into() };
    let merged = Merged::read(&file, []).expect("right");
    let mut settings = validate(&merged, &surroundings).expect("right");
    settings.daemon.canary = Some(Duration::from_millis(5));
    settings.inference.backend = Backend::Cpu;
    settings
}

fn golden_bytes() -> Vec<u8> {
    let mut film = Cursor::new(Vec::new());
    let gray = image::GrayImage::new(SIZE.width, SIZE.height);
    gray.write_to(&mut film, image::ImageFormat::Png).expect("a Vec takes everything");
    film.into_inner()
}

/// Whose names and measures are used, and whose network is not.
fn bundle() -> Bundle {
    Bundle::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/models/ceph19-nfdp"))).expect("the repository's own")
}

fn serving(settings: Settings, state: &State, off_px: &'static [f64], calls: &Arc<AtomicUsize>) -> Serving {
    let bundle = bundle();
    let names = bundle.manifest().landmarks.clone();
    let detector = Drifting { landmarks: names.len(), off_px, calls: Arc::clone(calls) };
    let options = AnalystOptions {
        max_pixels: settings.acquisition.max_pixels,
        pixel_spacing: None,
        norms: Norms::default(),
        token_key: state.store.token_key().clone(),
    };
    let analyst = Analyst::with_localizer(Localizer::with_detector(Box::new(detector), names), &bundle, options);
    let middle = Point::new(f64::from(SIZE.width) / 2.0, f64::from(SIZE.height) / 2.0);
    let golden = Golden::new(golden_bytes(), SIZE, vec![middle; bundle.manifest().landmarks.len()]);
    let topics = Topics::new(&settings.site.site, &settings.site.device).expect("right");
    let (_, prepared) = Candidate::guard(Path::new("/nowhere"));
    let candidate = Candidate::new(prepared, &bundle, "/nowhere".into(), golden.clone(), Vec::new());
    Serving { settings, topics, analyst, golden, candidate, rolled_back: None, safe_until: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_network_that_goes_wrong_is_told_once_and_ends_the_daemon_when_it_stays_so() {
    let home = tempfile::tempdir().expect("a directory");
    let settings = settings(home.path());
    let state = open(&settings, DiskRoom::impatient()).expect("usable");
    let calls = Arc::new(AtomicUsize::new(0));
    // Once is a passing fault; only the last two are in a row. A frame pixel is half a pixel of the film.
    let serving = serving(settings, &state, &[0.0, 2.0, 0.0, 2.0, 3.0], &calls);
    let condition = Arc::new(ConditionBoard::new(serving.analyst.model().clone()));
    let visible = Arc::new(Visible::new(&serving.settings.health, Waiting::default()));
    let links = watch::Sender::new(LinkState::default());
    let (_keep, mut reloads) = mpsc::channel(1);
    let shutdown = CancellationToken::new();
    let ended = supervise(serving, &state, &condition, &visible, &links, &mut reloads, &shutdown);
    let ended = timeout(PATIENCE, ended).await.expect("it ends by itself");
    let Err(error) = ended else { panic!("nobody asked it to end") };
    let fault = error.downcast_ref::<WorkerError>().expect("the worker's");
    assert!(matches!(fault, WorkerError::Canary(_)) && fault.is_the_models(), "{error:#}");
    let off = visible.metrics.canary_px.get().expect("it was found somewhere");
    assert!(format!("{error:#}").contains(&format!("{off:.2} px from where it should be")), "{error:#}");
    assert_eq!(calls.load(Ordering::Relaxed), 5);
    assert!(condition.subscribe().borrow().reasons.contains(&Reason::CanaryFailed));

    // Nothing of it is a film.
    assert_eq!(state.outbox.len().expect("readable"), 0);
    let ledger = state.ledger.snapshot().expect("readable");
    assert!(ledger.film(FilmId::of(&golden_bytes())).expect("readable").is_none());
    assert!(condition.subscribe().borrow().last_film.is_none());
    assert_eq!(visible.metrics.counts(), crate::health::Counts::default());
}
