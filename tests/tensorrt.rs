//! The real daemon with a GPU that fails in every way it can: the processor computes, nothing is lost, and the status,
//! the metrics and `doctor` say why.

#[path = "support/bundle.rs"]
mod bundle;
#[path = "support/bundles.rs"]
#[expect(dead_code, reason = "the store of bundles is for other tests")]
mod bundles;
#[path = "support/daemon.rs"]
#[expect(dead_code, reason = "other tests crash it and write films slowly")]
mod daemon;
#[path = "support/films.rs"]
#[expect(dead_code, reason = "one container is enough here")]
mod films;
#[path = "support/mosquitto.rs"]
#[expect(dead_code, reason = "its certificates are for the tests of TLS")]
mod mosquitto;
#[path = "support/stand_in.rs"]
mod stand_in;
#[path = "support/witness.rs"]
#[expect(dead_code, reason = "the broker stays where it is")]
mod witness;

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;

use bundles::files;
use daemon::{Daemon, Home};
use films::{Kind, film, sha256};
use landmarkd::crash_point::ENGINE_MOMENTS;
use mosquitto::Mosquitto;
use rustix::process::Signal;
use serde_json::{Value, json};
use stand_in::{GOOD, StandIn};
use witness::Witness;

const PROGRAM: &str = env!("CARGO_BIN_EXE_landmarkd");
const SIGKILL: i32 = 9;
const SIGSEGV: i32 = 11;
/// The CUDA of the driver at first, and after an update.
const CUDA: &str = "12060";
const NEWER_CUDA: &str = "12080";

/// A device with a tiny bundle, a broker and somebody who listens there.
struct Site {
    home: Home,
    page: SocketAddr,
    witness: Witness,
    films: u32,
    _broker: Mosquitto,
}

impl Site {
    /// `None` where there is no broker; `keys` of `[inference]`.
    async fn new(keys: &str) -> Option<Self> {
        let broker = Mosquitto::start(|_| String::new())?;
        let home = Home::new(broker.port());
        fs::create_dir(home.path("bundle")).expect("ours");
        for (name, bytes) in files("1.0.0", "good") {
            fs::write(home.path("bundle").join(name), bytes).expect("ours");
        }
        let page = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        home.configure(&format!(
            "[model]\ndirectory = {:?}\n[health]\nlisten = \"{page}\"\n[inference]\n{keys}\n",
            home.path("bundle")
        ));
        let witness = Witness::new(&broker).await;
        Some(Self { home, page, witness, films: 0, _broker: broker })
    }

    /// Which backend read the next film, as its result says.
    async fn reads(&mut self) -> String {
        let bytes = film(Kind::Png, self.films);
        self.home.drop_film(&format!("{}.png", self.films), &bytes);
        self.films += 1;
        let id = sha256(&bytes);
        self.witness.result_of(&id).await;
        let results: Vec<&Value> = self.witness.results_of(&id).collect();
        assert_eq!(results.len(), 1, "once");
        results[0]["data"]["model"]["backend"].as_str().expect("a backend").to_owned()
    }

    /// Waits until the daemon's run, counted from 1, says this of the GPU; the status that said it.
    async fn says(&mut self, start: u64, state: &str) -> Value {
        let run = format!("-{start}");
        let holds = |status: &Value| {
            status["boot_id"].as_str().is_some_and(|boot| boot.ends_with(&run))
                && status["accelerator"]["state"] == state
        };
        self.witness.until(state, |witness| witness.on("status").last().is_some_and(holds)).await;
        self.witness.on("status").last().expect("heard").clone()
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.page).expect("the page is served");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.page).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers and closes");
        answer
    }

    /// How often this fault was counted.
    fn faults(&self, cause: &str) -> u32 {
        let series = format!("landmarkd_accelerator_faults_total{{cause=\"{cause}\"}} ");
        let metrics = self.get("/metrics");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&series)).unwrap_or_else(|| panic!("{metrics}"));
        value.parse().expect("a number")
    }

    /// What `doctor` says of the GPU.
    fn doctor(&self, environment: &[(&'static str, OsString)]) -> String {
        let looked = Command::new(PROGRAM)
            .args(["doctor", "--json", "--config"])
            .arg(self.home.config())
            .envs(environment.iter().map(|(name, value)| (name, value)))
            // What it sends to find out about the broker is not for our witness.
            .env("LANDMARKD_SITE__DEVICE", "another")
            .output()
            .expect("the program starts");
        let report: Value = serde_json::from_slice(&looked.stdout).expect("JSON");
        let checks = report["checks"].as_array().expect("a list");
        let check = checks.iter().find(|check| check["name"] == "accelerator").expect("it looks at the GPU");
        format!("{}: {}", check["verdict"].as_str().expect("a word"), check["words"].as_str().expect("words"))
    }

    /// What `doctor --gpu` says, for programs.
    fn doctor_gpu(&self, environment: &[(&'static str, OsString)]) -> Value {
        let looked = Command::new(PROGRAM)
            .args(["doctor", "--gpu", "--json", "--runs", "3", "--config"])
            .arg(self.home.config())
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .output()
            .expect("the program starts");
        assert_eq!(looked.status.code(), Some(0), "{}", String::from_utf8_lossy(&looked.stderr));
        serde_json::from_slice(&looked.stdout).expect("JSON")
    }

    /// The plans in the cache.
    fn plans(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.home.state().join("engines")) else { return Vec::new() };
        let paths = entries.map(|entry| entry.expect("readable").path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "plan")).collect()
    }

    fn start(&self, environment: &[(&'static str, OsString)]) -> Daemon {
        self.home.start_in(environment)
    }
}

/// A GPU that cannot be had, and what is said of it.
struct Failure {
    stand_in: StandIn,
    does: &'static str,
    keys: &'static str,
    state: &'static str,
    reason: &'static str,
    cause: &'static str,
    /// What `doctor` says, which builds nothing.
    doctor: &'static str,
}

impl Failure {
    fn of(stand_in: StandIn, state: &'static str, reason: &'static str, cause: &'static str) -> Self {
        Self { stand_in, does: "", keys: "", state, reason, cause, doctor: reason }
    }

    /// Of what is whole, but fails so.
    fn doing(does: &'static str, keys: &'static str, reason: &'static str, cause: &'static str) -> Self {
        let doctor = "warn: Stand-in, CUDA 12.6, TensorRT 10.3.0";
        Self { does, keys, doctor, ..Self::of(StandIn::whole(), "failed", reason, cause) }
    }

    async fn survived(self) {
        let Self { stand_in, does, keys, state, reason, cause, doctor } = self;
        let Some(mut site) = Site::new(keys).await else { return };
        let environment = stand_in.environment(does, CUDA);
        let daemon = site.start(&environment);
        let status = site.says(1, state).await;
        let said = status["accelerator"]["reason"].as_str().expect("a reason");
        assert!(said.contains(reason), "{reason}: {said}");
        assert!(!said.contains(site.home.state().to_str().expect("text")), "{said}");
        let failed = state == "failed";
        let word = if failed { "degraded" } else { "online" };
        let reasons = if failed { json!(["accelerator_failed"]) } else { json!([]) };
        assert_eq!((&status["state"], &status["reasons"]), (&json!(word), &reasons), "{reason}");
        assert_eq!(status["backend"], "tract-cpu", "{reason}");
        assert_eq!((site.reads().await.as_str(), site.reads().await.as_str()), ("tract-cpu", "tract-cpu"));
        assert_eq!(site.faults(cause), 1, "{cause}");
        assert!(site.get("/metrics").contains(&format!("landmarkd_accelerator{{state=\"{state}\"}} 1")));
        assert!(site.get("/status.json").contains(reason), "{reason}");
        assert_eq!(daemon.stopped().code(), Some(0));
        let seen = site.doctor(&environment);
        assert!(seen.contains(doctor), "{doctor}: {seen}");
    }
}

#[tokio::test]
async fn without_driver_library_function_or_the_right_version_the_processor_computes_and_it_is_said_why() {
    let older = "TensorRT 8 is installed, 10.3 or a later 10 is needed: install JetPack 6.1";
    let no_builder = StandIn::bare().driver().tensorrt("libnvinfer.so.10", &[GOOD, "-DNO_BUILDER"]).parser();
    let old = StandIn::bare().driver().tensorrt("libnvinfer.so.10", &["-DVERSION=8601"]).parser();
    for failure in [
        Failure::of(StandIn::bare(), "absent", "libcuda.so.1: cannot open shared object file", "libraries"),
        Failure::of(StandIn::bare().driver(), "absent", "libnvinfer.so.10: cannot open", "libraries"),
        Failure::of(StandIn::bare().driver().tensorrt("libnvinfer.so.8", &[GOOD]), "absent", older, "version"),
        Failure::of(old, "absent", "TensorRT 8.6.1 is installed", "version"),
        Failure::of(no_builder, "absent", "libnvinfer.so.10 has no createInferBuilder_INTERNAL", "libraries"),
        Failure { does: "no_gpu", ..Failure::of(StandIn::whole(), "absent", "CUDA_ERROR_NO_DEVICE", "no_gpu") },
    ] {
        failure.survived().await;
    }
}

#[tokio::test]
async fn an_engine_that_cannot_be_built_opened_or_trusted_is_told_and_the_processor_computes() {
    for failure in [
        Failure::doing("crash", "", "signal 11 (memory fault)", "build"),
        Failure::doing("hang", "build_timeout_s = 1", "still being built after 1 s", "build"),
        Failure {
            // It has the plan by then, and hangs on it too.
            doctor: "the loading of its engine has not ended after 1 s",
            ..Failure::doing(
                "stuck",
                "answer_timeout_s = 1",
                "the loading of its engine has not ended after 1 s",
                "hang",
            )
        },
        Failure::doing("greedy", "build_memory_mib = 400", "400 are allowed, and was ended", "build"),
        Failure::doing("refuse", "", "TensorRT built no engine: no kernel for this layer", "build"),
        Failure::doing("full", "", "the GPU has no memory left: CUDA_ERROR_OUT_OF_MEMORY", "out_of_memory"),
        Failure::doing("differ", "", "1 and 0.1 px are allowed", "differs"),
    ] {
        failure.survived().await;
    }
}

#[tokio::test]
async fn an_engine_is_built_once_serves_and_is_built_anew_for_another_driver() {
    let Some(mut site) = Site::new("").await else { return };
    let stand_in = StandIn::whole();
    let environment = stand_in.environment("", CUDA);
    let mut daemon = site.start(&environment);
    daemon.until_said("the engine is built now");
    let status = site.says(1, "serving").await;
    assert_eq!((&status["state"], &status["backend"]), (&json!("online"), &json!("tensorrt")));
    let px = |field: &str| status["accelerator"][field].as_f64().unwrap_or_else(|| panic!("{status}"));
    assert!(px("median_px") <= px("max_px") && px("max_px") <= 1.0, "{status}");
    assert_eq!(site.reads().await, "tensorrt");
    assert_eq!(daemon.stopped().code(), Some(0));
    let plans = site.plans();
    assert_eq!(plans.len(), 1);
    let made = fs::metadata(&plans[0]).expect("there").mtime_nsec();
    let seen = site.doctor(&environment);
    assert!(seen.starts_with("ok: Stand-in") && seen.contains("landmarks 0.000 px apart at most"), "{seen}");

    let daemon = site.start(&environment);
    site.says(2, "serving").await;
    assert_eq!(site.reads().await, "tensorrt");
    assert_eq!(daemon.stopped().code(), Some(0));
    assert_eq!(fs::metadata(&plans[0]).expect("there").mtime_nsec(), made, "it was there");

    let updated = stand_in.environment("", NEWER_CUDA);
    assert!(site.doctor(&updated).contains("not built yet"));
    let mut daemon = site.start(&updated);
    daemon.until_said("the engine is built now");
    site.says(3, "serving").await;
    assert_eq!(site.reads().await, "tensorrt");
    assert_eq!(daemon.stopped().code(), Some(0));
    assert_eq!(site.plans().len(), 2);
}

#[tokio::test]
async fn a_gpu_that_fails_on_a_film_loses_no_film() {
    let Some(mut site) = Site::new("").await else { return };
    let stand_in = StandIn::whole();
    let daemon = site.start(&stand_in.environment("memory", CUDA));
    site.says(1, "serving").await;
    let read = [site.reads().await, site.reads().await, site.reads().await];
    assert_eq!(read, ["tensorrt", "tract-cpu", "tract-cpu"]);
    let status = site.says(1, "failed").await;
    let reason = status["accelerator"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("the GPU has no memory left: CUDA_ERROR_OUT_OF_MEMORY"), "{reason}");
    assert_eq!((&status["reasons"], &status["backend"]), (&json!(["accelerator_failed"]), &json!("tract-cpu")));
    assert_eq!(site.faults("run"), 1);
    assert_eq!(daemon.stopped().code(), Some(0));
}

#[tokio::test]
async fn the_doctor_measures_the_gpu_and_survives_one_that_fails_or_hangs() {
    let Some(mut site) = Site::new("answer_timeout_s = 1").await else { return };
    let stand_in = StandIn::whole();
    let well = stand_in.environment("", CUDA);
    let words = |report: &Value, name: &str| {
        let checks = report["checks"].as_array().expect("a list");
        let check = checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name}: {report}"));
        check["words"].as_str().expect("words").to_owned()
    };

    // Without an engine of the daemon's one is built for the moment, and not kept.
    let report = site.doctor_gpu(&well);
    let facts = &report["facts"];
    assert_eq!((&facts["state"], &facts["tensorrt_version"]), (&json!("ready"), &json!("TensorRT 10.3.0")));
    assert_eq!((&facts["tensorrt"]["backend"], &facts["tensorrt"]["runs"]), (&json!("tensorrt"), &json!(3)));
    assert_eq!((&facts["tract"]["backend"], &facts["tract"]["runs"]), (&json!("tract-cpu"), &json!(3)));
    let most_px = facts["agreement"]["most_px"].as_f64().expect("a number");
    assert!((0.0..=1.0).contains(&most_px), "{most_px}");
    assert!(words(&report, "engine").contains("for this once (the daemon has none yet)"), "{report}");
    assert!(site.plans().is_empty());

    let daemon = site.start(&well);
    site.says(1, "serving").await;
    assert_eq!(daemon.stopped().code(), Some(0));
    assert!(words(&site.doctor_gpu(&well), "engine").contains("the daemon's"));

    // What it could do is not what the daemon does.
    let unwanted = [well.clone(), vec![("LANDMARKD_INFERENCE__BACKEND", "cpu".into())]].concat();
    assert_eq!(site.doctor_gpu(&unwanted)["facts"]["state"], "cpu");
    // Not root's to load, though root may read it.
    let plan = site.plans().pop().expect("one");
    if chown(&plan, Some(12_345), None).is_ok() {
        assert!(words(&site.doctor_gpu(&well), "engine").contains("sudo -u landmarkd"));
        chown(&plan, Some(0), None).expect("root");
    } else {
        println!("skipped: only root gives files away");
    }

    for (does, name, expected) in [
        ("no_gpu", "engine", "no GPU: CUDA_ERROR_NO_DEVICE"),
        ("stuck", "engine", "the loading of its engine has not ended after 1 s"),
        ("memory", "tensorrt latency", "CUDA_ERROR_OUT_OF_MEMORY"),
        ("differ", "agreement", "px apart"),
    ] {
        let report = site.doctor_gpu(&stand_in.environment(does, CUDA));
        assert_eq!(report["facts"]["state"], "cpu", "{does}: {report}");
        assert!(words(&report, name).contains(expected), "{does}: {report}");
        assert_eq!(report["facts"]["tract"]["runs"], 3, "{does}");
    }
}

#[tokio::test]
async fn a_gpu_that_failed_is_tried_again_and_three_times_in_all() {
    let Some(mut site) = Site::new("retry_s = 1").await else { return };
    let stand_in = StandIn::whole();
    let mut daemon = site.start(&stand_in.environment("memory", CUDA));
    for failures in 1..=3 {
        site.says(1, "serving").await;
        assert_eq!([site.reads().await, site.reads().await], ["tensorrt", "tract-cpu"], "try {failures}");
        site.says(1, "failed").await;
        assert_eq!(site.faults("run"), failures);
    }
    daemon.until_said("failed 3 times and is not tried again");
    assert_eq!((site.reads().await.as_str(), site.faults("run")), ("tract-cpu", 3));
    let state = &site.witness.on("status").last().expect("heard")["accelerator"]["state"];
    assert_eq!(state, "failed");
    assert_eq!(daemon.stopped().code(), Some(0));
}

#[tokio::test]
async fn a_gpu_that_served_and_is_gone_has_failed() {
    let Some(mut site) = Site::new("retry_s = 1").await else { return };
    let stand_in = StandIn::whole();
    let mut daemon = site.start(&stand_in.environment("lose", CUDA));
    site.says(1, "serving").await;
    assert_eq!(site.reads().await, "tract-cpu", "the golden film was all it computed");
    // It is looked for again, and not found.
    daemon.until_said("no GPU: CUDA_ERROR_NO_DEVICE");
    assert_eq!(site.reads().await, "tract-cpu");
    let no_gpu = |status: &Value| {
        status["accelerator"]["reason"].as_str().is_some_and(|reason| reason.contains("CUDA_ERROR_NO_DEVICE"))
    };
    site.witness.until("the reason", |witness| witness.on("status").last().is_some_and(no_gpu)).await;
    let status = site.says(1, "failed").await;
    assert_eq!((&status["state"], &status["reasons"]), (&json!("degraded"), &json!(["accelerator_failed"])));
    assert_eq!((site.faults("run"), site.faults("no_gpu"), daemon.stopped().code()), (1, 1, Some(0)));
}

#[tokio::test]
async fn an_engine_for_which_there_is_no_memory_is_kept() {
    let Some(mut site) = Site::new("").await else { return };
    let stand_in = StandIn::whole();
    let daemon = site.start(&stand_in.environment("", CUDA));
    site.says(1, "serving").await;
    assert_eq!(daemon.stopped().code(), Some(0));
    let made = |site: &Site| fs::metadata(&site.plans()[0]).expect("there").mtime_nsec();
    let before = made(&site);
    // TensorRT itself only returns nothing.
    let daemon = site.start(&stand_in.environment("full_says_the_log", CUDA));
    let status = site.says(2, "failed").await;
    let reason = status["accelerator"]["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("the GPU has no memory left") && reason.contains("out of memory"), "{reason}");
    assert_eq!((site.faults("out_of_memory"), site.faults("refused"), made(&site)), (1, 0, before));
    assert_eq!(site.reads().await, "tract-cpu");
    assert_eq!(daemon.stopped().code(), Some(0));
}

#[tokio::test]
async fn a_film_that_the_daemon_dies_of_on_the_gpu_is_read_by_the_processor_at_the_next_start() {
    let Some(mut site) = Site::new("").await else { return };
    let stand_in = StandIn::whole();
    let environment = stand_in.environment("die", CUDA);
    let daemon = site.start(&environment);
    site.says(1, "serving").await;
    let deadly = film(Kind::Png, 99);
    site.home.drop_film("deadly.png", &deadly);
    assert_eq!(daemon.ended().signal(), Some(SIGSEGV));

    let daemon = site.start(&environment);
    let status = site.says(2, "failed").await;
    let reason = status["accelerator"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("the daemon died while the GPU was opened or computed a film"), "{reason}");
    let id = sha256(&deadly);
    site.witness.result_of(&id).await;
    let backends: Vec<&Value> = site.witness.results_of(&id).map(|event| &event["data"]["model"]["backend"]).collect();
    assert_eq!(backends, [&json!("tract-cpu")]);
    assert_eq!((site.faults("run"), site.reads().await.as_str()), (1, "tract-cpu"));
    assert_eq!(daemon.stopped().code(), Some(0));

    let daemon = site.start(&stand_in.environment("", CUDA));
    site.says(3, "serving").await;
    assert_eq!(site.reads().await, "tensorrt", "it is tried again");
    assert_eq!(daemon.stopped().code(), Some(0));
}

#[tokio::test]
async fn a_gpu_that_the_daemon_dies_of_while_it_is_opened_is_left_alone_at_the_next_start() {
    let Some(mut site) = Site::new("").await else { return };
    let stand_in = StandIn::whole();
    let environment = stand_in.environment("die_open", CUDA);
    assert_eq!(site.start(&environment).ended().signal(), Some(SIGSEGV));
    let daemon = site.start(&environment);
    let status = site.says(2, "failed").await;
    let reason = status["accelerator"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("the daemon died while the GPU was opened"), "{reason}");
    assert_eq!(site.reads().await, "tract-cpu");
    assert_eq!(daemon.stopped().code(), Some(0));

    // A stop while it is opened is no death.
    let mut daemon = site.start(&stand_in.environment("stuck", CUDA));
    site.says(3, "preparing").await;
    daemon.until_said("engine");
    assert_eq!(daemon.stopped().code(), Some(0));
    let daemon = site.start(&stand_in.environment("", CUDA));
    site.says(4, "serving").await;
    assert_eq!(daemon.stopped().code(), Some(0));

    // Nor does an engine that is there already, and so is not built first, kill it twice.
    assert_eq!(site.start(&environment).ended().signal(), Some(SIGSEGV));
    let daemon = site.start(&environment);
    site.says(6, "failed").await;
    assert_eq!(daemon.stopped().code(), Some(0));
}

#[tokio::test]
async fn a_gpu_whose_driver_comes_up_after_the_daemon_serves() {
    let Some(mut site) = Site::new("").await else { return };
    let stand_in = StandIn::bare();
    let daemon = site.start(&stand_in.environment("", CUDA));
    site.says(1, "absent").await;
    assert_eq!(site.reads().await, "tract-cpu");
    let _whole = stand_in.driver().tensorrt("libnvinfer.so.10", &[GOOD]).parser();
    site.says(1, "serving").await;
    assert_eq!(site.reads().await, "tensorrt");
    assert_eq!((site.faults("libraries"), daemon.stopped().code()), (1, Some(0)));
}

#[tokio::test]
async fn a_jetson_whose_gpu_is_missing_or_broken_says_so_loudly() {
    let jetson = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(jetson.path().join("etc")).expect("ours");
    fs::write(jetson.path().join("etc/nv_tegra_release"), "# R36 (release), REVISION: 4.3, GCID: 38968081\n")
        .expect("ours");
    for (stand_in, does, state) in [
        (StandIn::bare(), "", "absent"),
        (StandIn::whole(), "no_gpu", "absent"),
        (StandIn::whole(), "broken", "failed"),
    ] {
        let Some(mut site) = Site::new("").await else { return };
        let machine = vec![("LANDMARKD_MACHINE_ROOT", jetson.path().into())];
        let daemon = site.start(&[stand_in.environment(does, CUDA), machine].concat());
        let status = site.says(1, state).await;
        assert_eq!(
            (&status["state"], &status["reasons"]),
            (&json!("degraded"), &json!(["accelerator_failed"])),
            "{does}"
        );
        assert_eq!(site.reads().await, "tract-cpu");
        assert_eq!(daemon.stopped().code(), Some(0));
    }
}

#[tokio::test]
async fn after_a_crash_loop_the_gpu_is_left_alone() {
    let Some(mut site) = Site::new("").await else { return };
    let stand_in = StandIn::whole();
    let environment = stand_in.environment("", CUDA);
    for start in 1..=5 {
        let daemon = site.start(&environment);
        site.says(start, "serving").await;
        daemon.signal(Signal::KILL);
        assert_eq!(daemon.ended().signal(), Some(SIGKILL));
    }
    let daemon = site.start(&environment);
    let status = site.says(6, "withheld").await;
    let reason = status["accelerator"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("in safe mode the GPU is left alone"), "{reason}");
    assert_eq!((&status["reasons"], &status["backend"]), (&json!(["safe_mode"]), &json!("tract-cpu")));
    assert_eq!(site.reads().await, "tract-cpu");
    assert_eq!(daemon.stopped().code(), Some(0));

    // A clean end is the end of the loop.
    let daemon = site.start(&environment);
    site.says(7, "serving").await;
    assert_eq!(site.reads().await, "tensorrt");
    assert_eq!(daemon.stopped().code(), Some(0));
}

#[tokio::test]
async fn a_damaged_engine_is_built_anew_and_one_of_somebody_else_is_not_touched() {
    let Some(mut site) = Site::new("").await else { return };
    let stand_in = StandIn::whole();
    let environment = stand_in.environment("", CUDA);
    let daemon = site.start(&environment);
    site.says(1, "serving").await;
    assert_eq!(daemon.stopped().code(), Some(0));
    let plan = site.plans().remove(0);
    let whole = fs::read(&plan).expect("ours");
    fs::write(&plan, b"a plan of nobody").expect("ours");
    let seen = site.doctor(&environment);
    assert!(seen.starts_with("warn: ") && seen.contains("the engine in the cache is damaged"), "{seen}");
    let mut daemon = site.start(&environment);
    daemon.until_said("the engine in the cache is damaged");
    site.says(2, "serving").await;
    assert_eq!((site.faults("damaged"), site.reads().await.as_str()), (1, "tensorrt"));
    assert_eq!(daemon.stopped().code(), Some(0));
    assert_eq!(fs::read(&plan).expect("ours"), whole);

    if chown(&plan, Some(12_345), None).is_err() {
        assert!(std::env::var_os("CI").is_none(), "only root can give a file away");
        println!("skipped: only root can give a file away");
        return;
    }
    let daemon = site.start(&environment);
    let status = site.says(3, "failed").await;
    let reason = status["accelerator"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("is not the daemon's own (user 12345)"), "{reason}");
    assert_eq!((site.faults("foreign"), site.reads().await.as_str()), (1, "tract-cpu"));
    assert_eq!(daemon.stopped().code(), Some(0));
    assert!(site.doctor(&environment).contains("is not the daemon's own (user 12345)"));
    assert_eq!(fs::metadata(&plan).expect("still there").uid(), 12_345);
}

#[tokio::test]
async fn what_the_configuration_asks_for_is_done_and_its_lack_is_told() {
    let Some(mut site) = Site::new("backend = \"tensorrt\"").await else { return };
    let stand_in = StandIn::bare();
    let environment = stand_in.environment("", CUDA);
    let daemon = site.start(&environment);
    let status = site.says(1, "absent").await;
    assert_eq!((&status["state"], &status["reasons"]), (&json!("degraded"), &json!(["accelerator_failed"])));
    assert_eq!(site.reads().await, "tract-cpu");
    assert_eq!(daemon.stopped().code(), Some(0));
    assert!(site.doctor(&environment).starts_with("warn: not used: "));

    let Some(mut site) = Site::new("backend = \"cpu\"").await else { return };
    let stand_in = StandIn::whole();
    let environment = stand_in.environment("", CUDA);
    let daemon = site.start(&environment);
    assert_eq!(site.reads().await, "tract-cpu");
    let statuses: Vec<&Value> = site.witness.on("status").collect();
    assert!(!statuses.is_empty() && statuses.iter().all(|status| status["accelerator"].is_null()));
    assert_eq!(daemon.stopped().code(), Some(0));
    assert!(site.plans().is_empty());
    assert!(site.doctor(&environment).starts_with("ok: none is looked for"));

    // A build without it says so, one with it that the driver is not there.
    let Some(mut site) = Site::new("").await else { return };
    let daemon = site.start(&[]);
    let status = site.says(1, "absent").await;
    let reason = status["accelerator"]["reason"].as_str().expect("a reason");
    let expected = if cfg!(feature = "tensorrt") { "libcuda.so.1" } else { "built without TensorRT" };
    assert!(reason.contains(expected), "{reason}");
    assert_eq!(daemon.stopped().code(), Some(0));
}

#[test]
fn a_building_that_is_killed_leaves_no_half_engine() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [bundle, state] = ["bundle", "state"].map(|name| folder.path().join(name));
    fs::create_dir(&bundle).expect("ours");
    fs::create_dir(&state).expect("ours");
    for (name, bytes) in files("1.0.0", "good") {
        fs::write(bundle.join(name), bytes).expect("ours");
    }
    let stand_in = StandIn::whole();
    let build = |environment: &[(&str, OsString)]| {
        Command::new(PROGRAM)
            .args(["engine", "build", "--json", "--model"])
            .arg(&bundle)
            .arg("--state")
            .arg(&state)
            .envs(stand_in.environment("", CUDA))
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .output()
            .expect("the program starts")
    };
    let files = || {
        let mut names: Vec<String> = fs::read_dir(state.join("engines"))
            .expect("made")
            .map(|entry| entry.expect("readable").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        names
    };
    for moment in ENGINE_MOMENTS {
        let killed = build(&[("LANDMARKD_CRASH_POINT", moment.into())]);
        assert_eq!(killed.status.signal(), Some(SIGKILL), "{moment}: {}", String::from_utf8_lossy(&killed.stderr));
        // The note comes last, and with it the engine.
        let has_note = files().iter().any(|name| name.ends_with(".json"));
        assert_eq!(has_note, matches!(moment, "engine.note-renamed" | "engine.note-synced"), "{moment}");
        let built = build(&[]);
        assert!(built.status.success(), "{moment}: {}", String::from_utf8_lossy(&built.stderr));
        let built: Value = serde_json::from_slice(&built.stdout).expect("JSON");
        let engine = built["engine"].as_str().expect("a digest");
        assert_eq!(files(), [format!("{engine}.json"), format!("{engine}.plan")], "{moment}");
        fs::remove_dir_all(state.join("engines")).expect("ours");
    }
}

/// The shipped network through the real parser and builder: TensorRT-RTX, which needs neither GPU nor driver. Its
/// libraries lie in the directory that `LANDMARKD_TEST_TENSORRT_RTX` names.
#[cfg(feature = "tensorrt")]
#[test]
fn the_real_parser_and_builder_take_every_shipped_network() {
    let Some(libraries) = std::env::var_os("LANDMARKD_TEST_TENSORRT_RTX") else {
        assert!(std::env::var_os("CI").is_none(), "LANDMARKD_TEST_TENSORRT_RTX names no directory");
        println!("skipped: LANDMARKD_TEST_TENSORRT_RTX names no directory");
        return;
    };
    let shipped = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models");
    let bundles: Vec<PathBuf> = fs::read_dir(shipped)
        .expect("ours")
        .map(|entry| entry.expect("ours").path())
        .filter(|path| path.is_dir())
        .collect();
    assert!(bundles.contains(&bundle::directory()));
    for bundle in bundles {
        let checked = Command::new(PROGRAM)
            .args(["engine", "check", "--json"])
            .arg(&bundle)
            .env("LD_LIBRARY_PATH", &libraries)
            .env_remove("LANDMARKD_TENSORRT_SHIM")
            .output()
            .expect("the program starts");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        let checked: Value = serde_json::from_slice(&checked.stdout).expect("JSON");
        println!("{}: {checked}", bundle.display());
        assert!(checked["tensorrt"].as_str().is_some_and(|name| name.starts_with("TensorRT-RTX 1.")));
        let bytes = |place: usize| checked["engines"][place]["plan_bytes"].as_u64().expect("a number");
        assert_eq!(
            (&checked["engines"][0]["precision"], &checked["engines"][1]["precision"]),
            (&json!("mixed"), &json!("f32"))
        );
        // Half the bytes a weight is what mixed precision is for.
        assert!(bytes(0) > 1 << 20 && bytes(0) * 3 < bytes(1) * 2, "{checked}");
    }
}
