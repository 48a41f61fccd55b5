//! `doctor --gpu`: the machine under the network, how fast and how well it computes, and what serves on it.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::measure::{Agreement, RunFacts, Runs, measure, timed};
use super::tensorrt::{Ready, ready};
use super::{Check, Report, Verdict, model};
use crate::cli::bench::peak_rss;
use crate::cli::{Exit, Failure, chain};
use crate::config::{self, Backend};
use crate::geometry::Point;
use crate::inference::tensorrt::{Fault, MAX_PX, MEDIAN_PX, TensorRtError, watched};
use crate::inference::{Localizer, SELF_TEST_TOLERANCE_PX};
use crate::landmark::Landmark;
use crate::model::Bundle;
use crate::radiograph::{Limits, Radiograph, decode};
use crate::telemetry::{CpuClock, Machine, Memory, Prober, Root};

/// The first release of TensorRT that the network runs on.
const OLDEST_TENSORRT: u32 = 10;
/// JetPack 6.1 has it.
const UPDATE: &str = "update to JetPack 6.1 or later, which has TensorRT 10";

/// What is measured, and with what.
pub(super) struct Question<'a> {
    /// Where the configuration is, if there is one; it names the bundle.
    pub(super) config: &'a Path,
    /// The bundle, where it is named.
    pub(super) bundle: Option<PathBuf>,
    /// How often each network runs.
    pub(super) runs: u16,
    /// One JSON object instead of a table.
    pub(super) json: bool,
}

/// What was found, for programs.
#[derive(Serialize)]
struct Facts {
    /// In one word: `ready`, `cpu` or `broken`.
    state: &'static str,
    is_jetson: bool,
    before: Machine,
    after: Machine,
    model: Option<String>,
    loading_ms: Option<u64>,
    tract: Option<RunFacts>,
    self_test_px: Option<f64>,
    tensorrt_version: Option<String>,
    engine_build_s: Option<f64>,
    tensorrt: Option<RunFacts>,
    agreement: Option<Agreement>,
    peak_rss_bytes: Option<u64>,
}

/// [`Report`] with the numbers.
#[derive(Serialize)]
struct GpuReport {
    #[serde(flatten)]
    report: Report,
    facts: Facts,
}

/// Measures and prints.
///
/// # Errors
/// [`Exit::Config`] where the bundle is broken or its network fails its self-test, [`Exit::Io`] when printing fails.
pub(super) fn doctor(question: &Question<'_>) -> Result<(), Failure> {
    let GpuReport { report, facts } = examine(question);
    let failed = report.checks.iter().find(|check| check.verdict == Verdict::Fail).map(|check| check.words.clone());
    let mut out = io::stdout().lock();
    if question.json {
        let text = serde_json::to_string(&GpuReport { report, facts }).map_err(|e| Failure::new(Exit::Bug, e))?;
        writeln!(out, "{text}")?;
    } else {
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        out.write_all(report.table(colours).as_bytes())?;
    }
    failed.map_or(Ok(()), |words| Err(Failure::new(Exit::Config, words)))
}

fn examine(question: &Question<'_>) -> GpuReport {
    let root = Root::of_this_machine();
    let mut prober = Prober::new(root.clone());
    let before = prober.look();
    let mut checks = machine(&before);
    let mut facts = Facts {
        state: "broken",
        is_jetson: before.board.is_jetson(),
        before: before.clone(),
        after: before,
        model: None,
        loading_ms: None,
        tract: None,
        self_test_px: None,
        tensorrt_version: None,
        engine_build_s: None,
        tensorrt: None,
        agreement: None,
        peak_rss_bytes: None,
    };
    let networks = networks(question, &root, &mut checks, &mut facts);
    facts.after = prober.look();
    facts.peak_rss_bytes = peak_rss().ok();
    checks.push(memory(&facts));
    checks.extend(load(&facts));
    checks.push(conclusion(networks, &mut facts));
    GpuReport { report: Report::new(checks), facts }
}

/// What it is and what is installed on it.
fn machine(machine: &Machine) -> Vec<Check> {
    let board = &machine.board;
    let told = |text: &Option<String>| text.clone().unwrap_or_else(|| "not told".to_owned());
    let jetpack = match (&board.l4t, board.jetpack) {
        (Some(l4t), Some(jetpack)) => format!("{jetpack} (Jetson Linux {l4t})"),
        (Some(l4t), None) => format!("not known here (Jetson Linux {l4t})"),
        (None, _) => "none: /etc/nv_tegra_release is not there".to_owned(),
    };
    let gpus: Vec<_> = machine.gpus.iter().map(ToString::to_string).collect();
    let mut checks = vec![
        Check::ok("board", board.model.clone().unwrap_or_else(|| "no name in /proc/device-tree/model".to_owned())),
        Check::ok("jetpack", jetpack),
        Check::ok("driver", told(&board.driver)),
        Check::ok("gpu", if gpus.is_empty() { "none".to_owned() } else { gpus.join("; ") }),
        installed(board.tensorrt.as_deref()),
        Check::ok("power mode", power_mode(machine)),
    ];
    if !machine.silent.is_empty() {
        let sources: Vec<_> = machine.silent.iter().map(|source| source.word()).collect();
        let remedy = "a driver or a bus of this machine hangs: see dmesg, and restart the machine";
        checks.push(Check::warn("telemetry", format!("no answer in time from: {}", sources.join(", ")), remedy));
    }
    checks
}

fn installed(version: Option<&str>) -> Check {
    let name = "tensorrt";
    match version {
        None => Check::ok(name, "not installed"),
        Some(version) => {
            let major: Option<u32> = version.split('.').next().and_then(|major| major.parse().ok());
            if major.is_some_and(|major| major < OLDEST_TENSORRT) {
                return Check::warn(name, format!("{version}, too old for the network"), UPDATE);
            }
            Check::ok(name, version)
        }
    }
}

fn power_mode(machine: &Machine) -> String {
    let mode = machine.board.power_mode.as_deref().unwrap_or("none known");
    let ghz = |hz: u64| hz as f64 / 1e9;
    let clocks = machine.cpu.map(|CpuClock { limit_hz, top_hz }| {
        format!("; the processor runs at most at {:.2} of {:.2} GHz", ghz(limit_hz), ghz(top_hz))
    });
    format!("{mode}{}", clocks.unwrap_or_default())
}

/// What runs the network, in the end.
enum Served {
    /// TensorRT, so fast.
    TensorRt { p50_ms: f64 },
    /// tract, for this reason.
    Cpu(String),
    /// Nothing, for this reason.
    Nothing(String),
}

fn networks(question: &Question<'_>, root: &Root, checks: &mut Vec<Check>, facts: &mut Facts) -> Served {
    let broken = |checks: &mut Vec<Check>, words: String| {
        checks.push(Check::fail("model", words.clone(), "install the bundle again, or name another with --model DIR"));
        Served::Nothing(words)
    };
    let directory = question.bundle.clone().unwrap_or_else(|| serving(question.config));
    let bundle = match Bundle::open(&directory) {
        Ok(bundle) => bundle,
        Err(error) => return broken(checks, format!("{}: {}", directory.display(), chain(&error))),
    };
    let manifest = bundle.manifest();
    facts.model = Some(format!("{} {}", manifest.name, manifest.version));
    checks.push(Check::ok("model", format!("{} {} in {}", manifest.name, manifest.version, directory.display())));
    let film = match golden(&bundle) {
        Ok(film) => film,
        Err(words) => return broken(checks, words),
    };
    let (loaded, loading) = timed(|| Localizer::new(&bundle));
    let tract =
        loaded.map_err(|e| chain(&e)).and_then(|mut tract| measure(&mut tract, &film, question.runs, root, || {}));
    let Runs { landmarks, facts: ran } = match tract {
        Ok(runs) => runs,
        Err(words) => return broken(checks, words),
    };
    let off_px = off(&landmarks, &manifest.golden.expected_px);
    (facts.loading_ms, facts.self_test_px) = (Some(ms(loading)), Some(off_px));
    let words = format!("{}; its network loads in {} ms", latency(&ran), ms(loading));
    facts.tract = Some(ran);
    checks.push(Check::ok("tract", words));
    // Also where a coordinate is no number.
    if off_px.is_nan() || off_px > SELF_TEST_TOLERANCE_PX {
        let words = format!("off by {off_px:.2} px on its golden film, {SELF_TEST_TOLERANCE_PX} px are allowed");
        let remedy = "install the bundle again; if it fails still, this machine computes wrongly: try another";
        checks.push(Check::fail("self-test", words.clone(), remedy));
        return Served::Nothing(words);
    }
    checks.push(Check::ok("self-test", format!("within {off_px:.3} px of {SELF_TEST_TOLERANCE_PX} px allowed")));
    let settings = config::load(question.config).ok().map(|loaded| loaded.settings);
    let is_unwanted = settings.as_ref().is_some_and(|settings| settings.inference.backend == Backend::Cpu);
    match ready(&bundle, &directory, settings.as_ref()) {
        Ok(ready) => match accelerated(ready, &film, &landmarks, question.runs, root, checks, facts) {
            Served::TensorRt { .. } if is_unwanted => Served::Cpu("inference.backend is \"cpu\"".to_owned()),
            served => served,
        },
        Err(why) => {
            for name in ["engine", "tensorrt latency", "agreement"] {
                checks.push(Check::ok(name, format!("none: {why}")));
            }
            Served::Cpu(why)
        }
    }
}

/// The same on TensorRT.
fn accelerated(
    ready: Ready,
    film: &Radiograph,
    from_tract: &[Landmark],
    runs: u16,
    root: &Root,
    checks: &mut Vec<Check>,
    facts: &mut Facts,
) -> Served {
    let Ready { version, build_s, not_kept, patience, mut localizer } = ready;
    let whose = not_kept.map_or("the daemon's".to_owned(), |why| format!("for this once ({why})"));
    checks.push(Check::ok("engine", format!("built in {build_s:.1} s by {version}, {whose}")));
    (facts.tensorrt_version, facts.engine_build_s) = (Some(version), Some(build_s));
    let (film, root) = (film.clone(), root.clone());
    let measured = watched(patience, move |progress| {
        let measured = measure(&mut localizer, &film, runs, &root, || progress.begins("the golden film"));
        measured.map_err(|reason| TensorRtError::Native { fault: Fault::Cuda, reason })
    });
    let Runs { landmarks, facts: ran } = match measured {
        Ok(ran) => ran,
        Err(why) => {
            let why = why.to_string();
            let remedy = "the network runs on the CPU meanwhile; landmarkd diag makes an archive for whoever helps";
            checks.push(Check::warn("tensorrt latency", why.clone(), remedy));
            return Served::Cpu(why);
        }
    };
    let p50_ms = ran.latency_ms.p50;
    checks.push(Check::ok("tensorrt latency", latency(&ran)));
    facts.tensorrt = Some(ran);
    facts.agreement = Agreement::of(from_tract, &landmarks);
    match facts.agreement {
        Some(Agreement { median_px, most_px }) => {
            let words = format!("tract and TensorRT: median {median_px:.3} px, at most {most_px:.3} px apart");
            if most_px <= MAX_PX && median_px <= MEDIAN_PX {
                checks.push(Check::ok("agreement", words));
                return Served::TensorRt { p50_ms };
            }
            let remedy = format!("{MEDIAN_PX} and {MAX_PX} px are allowed; the network stays on the CPU");
            checks.push(Check::warn("agreement", words.clone(), remedy));
            Served::Cpu(words)
        }
        None => {
            let words = "TensorRT finds another number of landmarks than tract";
            checks.push(Check::warn("agreement", words, "the network stays on the CPU; install the bundle again"));
            Served::Cpu(words.to_owned())
        }
    }
}

/// The bundle that the daemon takes at its next start; without a configuration the default one.
fn serving(file: &Path) -> PathBuf {
    let configured = config::load(file).ok().and_then(|loaded| model::serving(&loaded.settings).ok());
    configured.map_or_else(config::default_model_directory, |(directory, _)| directory)
}

fn golden(bundle: &Bundle) -> Result<Radiograph, String> {
    let limits = Limits { max_pixels: bundle.manifest().golden.size.area(), ..Limits::default() };
    decode(bundle.golden(), &limits).map_err(|error| format!("the golden film: {}", chain(&error)))
}

fn off(found: &[Landmark], expected: &[Point]) -> f64 {
    std::iter::zip(found, expected).map(|(found, expected)| found.point.distance(*expected)).fold(0.0, f64::max)
}

fn latency(ran: &RunFacts) -> String {
    let RunFacts { backend, runs, latency_ms, machine } = ran;
    let power = match (machine.mean_mw, machine.most_mw) {
        (Some(mean), Some(most)) => {
            format!(", drawing {:.1} W on average and {:.1} W at most", mean as f64 / 1e3, most as f64 / 1e3)
        }
        _ => String::new(),
    };
    format!("{backend}: median {:.1} ms, p95 {:.1} ms of {runs} runs{power}", latency_ms.p50, latency_ms.p95)
}

fn memory(facts: &Facts) -> Check {
    let mib = |bytes: u64| bytes >> 20;
    let own = facts.peak_rss_bytes.map(|bytes| format!("{} MiB at most here", mib(bytes)));
    let all = facts.after.memory.map(|Memory { total_bytes, available_bytes }| {
        format!("{} of {} MiB available", mib(available_bytes), mib(total_bytes))
    });
    let words: Vec<_> = own.into_iter().chain(all).collect();
    Check::ok("memory", if words.is_empty() { "not told".to_owned() } else { words.join(", ") })
}

/// Power, heat and throttling, before, while and after.
fn load(facts: &Facts) -> Vec<Check> {
    let Facts { before, after, .. } = facts;
    let watts = |machine: &Machine| machine.drawn_mw().map(|milliwatts| format!("{:.1} W", milliwatts as f64 / 1e3));
    let degrees = |machine: &Machine| machine.hottest().map(|known| format!("{:.1} °C", known.celsius));
    let during: Vec<_> = facts.tract.iter().chain(&facts.tensorrt).map(|ran| &ran.machine).collect();
    let both = |before: Option<String>, after: Option<String>| match (before, after) {
        (Some(before), Some(after)) => format!("{before} before, {after} after"),
        _ => "not told".to_owned(),
    };
    let hottest = during.iter().filter_map(|load| load.hottest_c).fold(f64::NEG_INFINITY, f64::max);
    let mut heat = both(degrees(before), degrees(after));
    if hottest.is_finite() {
        heat = format!("{heat}, {hottest:.1} °C at most");
    }
    if let Some(limit) = after.hottest().and_then(|known| known.throttles_at_c) {
        heat = format!("{heat}; it throttles from {limit:.0} °C");
    }
    let mut causes = &before.throttled_by | &after.throttled_by;
    causes.extend(during.iter().flat_map(|load| &load.throttled_by));
    let throttling = if causes.is_empty() {
        Check::ok("throttling", "none, neither before nor while it ran")
    } else {
        let words: Vec<_> = causes.iter().map(|cause| cause.words()).collect();
        let remedy = "see to its fan, its vents and its power supply, or choose a lower power mode with nvpmodel; what \
                      was measured here is slower than this machine can";
        Check::warn("throttling", format!("it slows itself down: {}", words.join(", ")), remedy)
    };
    vec![Check::ok("power", both(watts(before), watts(after))), Check::ok("temperature", heat), throttling]
}

/// The last line.
fn conclusion(served: Served, facts: &mut Facts) -> Check {
    let name = "verdict";
    let (jetson, board) = (facts.is_jetson, facts.before.board.model.clone());
    match served {
        Served::Nothing(why) => {
            Check::fail(name, format!("not ready: {why}"), "mend what is marked FAIL above; no film can be read before")
        }
        Served::TensorRt { p50_ms } => {
            facts.state = "ready";
            Check::ok(name, format!("ready: TensorRT takes {p50_ms:.1} ms for a film"))
        }
        Served::Cpu(why) if jetson => {
            facts.state = "cpu";
            let remedy = "films are read all the same, but slower; install the package for this JetPack";
            Check::warn(name, format!("serving on the CPU because {why}"), remedy)
        }
        Served::Cpu(why) => {
            facts.state = "cpu";
            let board = board.map(|board| format!(" ({board})")).unwrap_or_default();
            Check::ok(name, format!("not a Jetson{board}: serving on the CPU because {why}"))
        }
    }
}

fn ms(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}
