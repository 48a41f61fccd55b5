//! The GPU beside the processor: prepared in the background while films are read, and given up at the first doubt.
//!
//! ```text
//! libraries, GPU ──► key ──► engine in the cache? ──no──► built in a child
//!                                  │ yes ◄───────────────────┘
//!                                  ▼
//!                       golden film as on the processor? ──► handed to the worker ──► it fails: the processor's again
//! ```
//!
//! Nothing here holds up a film, and no failure here ends the daemon but a driver that crashes in its process: the next
//! run leaves that one alone. Each is told in the journal, the status, the metrics and on the status page.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::condition::ConditionBoard;
use super::visible::Visible;
use crate::analysis::{AnalysisError, Golden};
use crate::config::{Backend, InferenceSettings};
use crate::geometry::{Frame, Point};
use crate::health::AcceleratorFault;
use crate::inference::tensorrt::{
    self, Agreement, BuildLimits, EngineCache, Fault, Guarded, Handover, Key, Mark, Progress, TensorRt,
    TensorRtDetector, TensorRtError, build_in_child, watched,
};
use crate::inference::{Detector, Localizer};
use crate::model::{Bundle, OWN_PROGRAM};
use crate::report::{Accelerator, AcceleratorState};
use crate::telemetry::{Board, Root};

/// What the building of an engine must leave of the machine's memory, for the daemon beside it.
const LEAVE_MIB: u64 = 256;
/// A driver may come up after the daemon: a GPU that is not found is looked for again after these, and then as one that
/// failed.
const LATE: [Duration; 4] =
    [Duration::from_secs(10), Duration::from_secs(30), Duration::from_secs(60), Duration::from_secs(300)];
/// A GPU that fails is tried so often in all.
const TRIES: u32 = 3;

/// What is needed for a GPU to take over from a bundle's network on the processor.
pub(super) struct Candidate {
    handover: Handover,
    given_up: Receiver<String>,
    exam: Exam,
}

/// A network, and the film on which a GPU has to show that it computes the same.
#[derive(Clone)]
struct Exam {
    /// The bundle's directory.
    model: PathBuf,
    network_sha256: String,
    frame: Frame,
    names: Vec<String>,
    golden: Golden,
    /// What the processor found on it.
    reference: Vec<Point>,
}

/// The half of a [`Candidate`] that is there before its bundle is known to be right.
pub(super) struct Prepared(Handover, Receiver<String>);

impl Candidate {
    /// What is to be laid over the processor's detector, and what to make a candidate of.
    pub(super) fn guard(state: &Path) -> (impl FnOnce(Box<dyn Detector>) -> Box<dyn Detector> + use<>, Prepared) {
        let handover = Handover::default();
        let (sender, given_up) = channel();
        let (offered, mark) = (handover.clone(), EngineCache::below(state).mark());
        let guard = move |processor| {
            let tell = move |why: &str| {
                error!("the GPU is given up, the processor computes: {why}");
                // With nobody to hear it there is nothing left to do about it.
                let _ = sender.send(why.to_owned());
            };
            Box::new(Guarded::new(processor, offered, Box::new(tell), mark)) as Box<dyn Detector>
        };
        (guard, Prepared(handover, given_up))
    }

    /// For the bundle in `model`, on whose golden film the processor finds `reference`.
    pub(super) fn new(
        Prepared(handover, given_up): Prepared,
        bundle: &Bundle,
        model: PathBuf,
        golden: Golden,
        reference: Vec<Point>,
    ) -> Self {
        let manifest = bundle.manifest();
        let network_sha256 = bundle.network_sha256().to_owned();
        let (frame, names) = (manifest.network.frame, manifest.landmarks.clone());
        Self { handover, given_up, exam: Exam { model, network_sha256, frame, names, golden, reference } }
    }
}

/// What prepares a GPU, on a thread of its own.
pub(super) struct Accelerate {
    pub(super) settings: InferenceSettings,
    /// The state directory.
    pub(super) state: PathBuf,
    /// What computes otherwise ("tract-cpu").
    pub(super) processor: String,
    /// The daemon ended again and again: perhaps because of the GPU.
    pub(super) is_safe: bool,
    pub(super) candidate: Candidate,
    pub(super) condition: Arc<ConditionBoard>,
    pub(super) visible: Arc<Visible>,
    pub(super) shutdown: CancellationToken,
}

impl Accelerate {
    /// Begins, unless only the processor is wanted; ends soon after what is returned is dropped.
    pub(super) fn start(self) -> Accelerating {
        let stop = self.shutdown.child_token();
        let accelerating = Accelerating { stop: stop.clone(), mark: EngineCache::below(&self.state).mark() };
        if self.settings.backend != Backend::Cpu {
            let this = Self { shutdown: stop, ..self };
            let started = std::thread::Builder::new().name("accelerator".into()).spawn(move || this.run());
            if let Err(why) = started {
                error!("no GPU, since there is no thread for it: {why}");
            }
        }
        accelerating
    }

    fn run(self) {
        if self.is_safe {
            // The end of safe mode starts this anew.
            let why = "the daemon ended again and again: in safe mode the GPU is left alone";
            return self.tell(AcceleratorState::Withheld, Some(why.to_owned()));
        }
        if EngineCache::below(&self.state).mark().take() {
            let why = TensorRtError::Died;
            return self.unavailable(&why, state_of(&why, false));
        }
        self.tell(AcceleratorState::Preparing, None);
        let (mut has_served, mut failures) = (false, 0);
        let mut late = LATE.into_iter();
        let mut told = None;
        loop {
            let pause = match self.examined() {
                Ok((detector, agreement)) => {
                    self.candidate.handover.offer(detector);
                    self.serves(agreement);
                    (has_served, told) = (true, None);
                    // The worker ends with the daemon or its settings, and hangs up then.
                    let Ok(why) = self.candidate.given_up.recv() else { return };
                    self.visible.accelerator_failed(AcceleratorFault::Run);
                    self.tell(AcceleratorState::Failed, Some(why));
                    failures += 1;
                    self.settings.retry
                }
                Err(TensorRtError::Stopped) => return,
                Err(why) => {
                    let state = state_of(&why, has_served);
                    // Told once, however often it is found.
                    if told.as_ref() != Some(&why) {
                        self.unavailable(&why, state);
                    }
                    if !why.may_pass() {
                        return;
                    }
                    failures += u32::from(!why.is_absence());
                    told = Some(why);
                    if state == AcceleratorState::Absent {
                        late.next().unwrap_or(self.settings.retry)
                    } else {
                        self.settings.retry
                    }
                }
            };
            if failures >= TRIES {
                return warn!("the GPU failed {failures} times and is not tried again until the next start");
            }
            if !self.rests(pause) {
                return;
            }
        }
    }

    /// A detector that has proven itself. A driver that hangs keeps the thread that called it, and nothing else.
    fn examined(&self) -> Result<Proven, TensorRtError> {
        let examiner = Examiner {
            settings: self.settings.clone(),
            state: self.state.clone(),
            exam: self.candidate.exam.clone(),
            visible: Arc::clone(&self.visible),
            mark: EngineCache::below(&self.state).mark(),
            shutdown: self.shutdown.clone(),
        };
        watched(self.settings.answer_timeout, move |progress| examiner.prepare(progress))
    }

    /// Whether it is to go on after so long: not when the worker has ended meanwhile, which hangs up.
    fn rests(&self, time: Duration) -> bool {
        matches!(self.candidate.given_up.recv_timeout(time), Err(RecvTimeoutError::Timeout))
    }

    fn unavailable(&self, why: &TensorRtError, state: AcceleratorState) {
        self.visible.accelerator_failed(fault(why));
        let degraded = self.is_missed(state, why);
        if degraded {
            error!("the processor computes, and not the GPU: {why}");
        } else {
            info!("the processor computes: {why}");
        }
        self.say(Accelerator::new(state, Some(why.to_string())), degraded);
    }

    /// Whether somebody has to see to it. Most machines have no GPU, and are well; a Jetson has one.
    fn is_missed(&self, state: AcceleratorState, why: &TensorRtError) -> bool {
        let is_wanted = self.settings.backend == Backend::TensorRt;
        let is_there = !matches!(why, TensorRtError::NotBuilt) && Board::of(&Root::of_this_machine()).is_jetson();
        state != AcceleratorState::Absent || is_wanted || is_there
    }

    fn serves(&self, Agreement { max_px, median_px }: Agreement) {
        // A thousandth of a pixel is more than any screen shows.
        let rounded = |px: f64| Some((px * 1e3).round() / 1e3);
        let (max_px, median_px) = (rounded(max_px), rounded(median_px));
        self.say(Accelerator { max_px, median_px, ..Accelerator::new(AcceleratorState::Serving, None) }, false);
    }

    fn tell(&self, state: AcceleratorState, reason: Option<String>) {
        // Safe mode is a reason of its own.
        self.say(Accelerator::new(state, reason), state == AcceleratorState::Failed);
    }

    fn say(&self, accelerator: Accelerator, degraded: bool) {
        let serves = accelerator.state == AcceleratorState::Serving;
        let backend = if serves { tensorrt::BACKEND } else { &self.processor };
        // Of a configuration that was replaced meanwhile nothing is told.
        if !self.shutdown.is_cancelled() {
            self.condition.accelerator(accelerator, backend, degraded);
        }
    }
}

/// The GPU is looked for or serves; dropped once no film is computed any more.
pub(super) struct Accelerating {
    stop: CancellationToken,
    mark: Mark,
}

impl Drop for Accelerating {
    fn drop(&mut self) {
        self.stop.cancel();
        // An opening that was interrupted is no death.
        self.mark.take();
    }
}

/// A detector, and how far it is from the processor's on the golden film.
type Proven = (Box<dyn Detector>, Agreement);

/// What calls the driver: on a thread that may never come back.
struct Examiner {
    settings: InferenceSettings,
    state: PathBuf,
    exam: Exam,
    visible: Arc<Visible>,
    mark: Mark,
    shutdown: CancellationToken,
}

impl Examiner {
    /// Under the mark but for the building, which happens in another process: if the daemon dies of the driver, its next
    /// run leaves the GPU alone.
    fn prepare(&self, progress: &Progress) -> Result<Proven, TensorRtError> {
        self.mark.set();
        let prepared = self.prove(progress);
        self.mark.take();
        prepared
    }

    fn prove(&self, progress: &Progress) -> Result<Proven, TensorRtError> {
        let Exam { network_sha256, frame, names, golden, reference, .. } = &self.exam;
        let tensorrt = TensorRt::open()?;
        let (gpu, version) = (tensorrt.gpu(), tensorrt.version());
        let key = tensorrt.key(network_sha256);
        info!("{} with CUDA {} and {version}: engine {}", gpu.name, gpu.cuda_in_words(), key.digest());
        let cache = EngineCache::below(&self.state);
        let detector = match self.cached(&tensorrt, &cache, &key, progress) {
            Ok(Some(detector)) => detector,
            Ok(None) => self.built(&tensorrt, &cache, &key, progress)?,
            Err(why) if is_worth_building(&why) => {
                warn!("{why}; it is built anew");
                self.visible.accelerator_failed(fault(&why));
                cache.forget(&key)?;
                self.built(&tensorrt, &cache, &key, progress)?
            }
            Err(why) => return Err(why),
        };
        debug_assert_eq!(detector.frame(), *frame);
        let mut localizer = Localizer::with_detector(Box::new(detector), names.clone());
        progress.begins("the golden film");
        let began = Instant::now();
        let failed = |error: AnalysisError| TensorRtError::Native { fault: Fault::Cuda, reason: error.to_string() };
        let found = golden.found(&mut localizer).map_err(failed)?;
        let agreement = Agreement::of(&found, reference).check()?;
        let Agreement { max_px, median_px } = agreement;
        info!(
            "{version} computes from now on: the golden film in {:.0} ms, landmarks within {max_px:.3} px of the \
             processor's, median {median_px:.3} px",
            began.elapsed().as_secs_f64() * 1e3
        );
        Ok((localizer.into_detector(), agreement))
    }

    fn cached(
        &self,
        tensorrt: &TensorRt,
        cache: &EngineCache,
        key: &Key,
        progress: &Progress,
    ) -> Result<Option<TensorRtDetector>, TensorRtError> {
        let Some((plan, _)) = cache.plan(key)? else { return Ok(None) };
        progress.begins("the loading of its engine");
        tensorrt.detector(&plan, self.exam.frame, self.exam.names.len()).map(Some)
    }

    fn built(
        &self,
        tensorrt: &TensorRt,
        cache: &EngineCache,
        key: &Key,
        progress: &Progress,
    ) -> Result<TensorRtDetector, TensorRtError> {
        info!("the engine is built now, which takes minutes; the processor computes meanwhile");
        let InferenceSettings { build_timeout, build_memory_mib, .. } = self.settings;
        let limits = BuildLimits { wall: build_timeout, memory_mib: build_memory_mib, leave_mib: LEAVE_MIB };
        let is_stopped = || self.shutdown.is_cancelled();
        let model = &self.exam.model;
        progress.leaves_alone("the building of its engine");
        self.mark.take();
        let built = build_in_child(Path::new(OWN_PROGRAM), model, &self.state, key, &limits, &is_stopped)?;
        self.mark.set();
        info!("the engine was built in {:.1} s, {} MiB", built.build_s, built.plan_bytes >> 20);
        let missing = || TensorRtError::Build { reason: "it is not in the cache".to_owned() };
        self.cached(tensorrt, cache, key, progress)?.ok_or_else(missing)
    }
}

/// What is to be said of a GPU that does not serve: one that did, and now cannot even be found, has failed.
const fn state_of(why: &TensorRtError, has_served: bool) -> AcceleratorState {
    if why.is_absence() && !has_served { AcceleratorState::Absent } else { AcceleratorState::Failed }
}

/// Whether what is in the cache is only spoilt; what belongs to somebody else is left as it is.
const fn is_worth_building(why: &TensorRtError) -> bool {
    matches!(
        why,
        TensorRtError::Damaged { .. } | TensorRtError::Native { fault: Fault::Refused | Fault::Interface, .. }
    )
}

const fn fault(why: &TensorRtError) -> AcceleratorFault {
    match why {
        TensorRtError::NotBuilt => AcceleratorFault::NotBuilt,
        TensorRtError::Libraries { .. } => AcceleratorFault::Libraries,
        TensorRtError::Version { .. } => AcceleratorFault::Version,
        TensorRtError::Native { fault: Fault::NoGpu, .. } => AcceleratorFault::NoGpu,
        TensorRtError::Native { fault: Fault::OutOfMemory, .. } => AcceleratorFault::OutOfMemory,
        TensorRtError::Native { fault: Fault::Refused | Fault::Interface, .. } | TensorRtError::Network { .. } => {
            AcceleratorFault::Refused
        }
        TensorRtError::Native { fault: Fault::Cuda, .. } | TensorRtError::Died => AcceleratorFault::Run,
        TensorRtError::Foreign { .. } => AcceleratorFault::Foreign,
        TensorRtError::Damaged { .. } => AcceleratorFault::Damaged,
        TensorRtError::Cache { .. } => AcceleratorFault::Cache,
        TensorRtError::Build { .. } | TensorRtError::Stopped => AcceleratorFault::Build,
        TensorRtError::Differs { .. } => AcceleratorFault::Differs,
        TensorRtError::Hangs { .. } => AcceleratorFault::Hang,
    }
}
