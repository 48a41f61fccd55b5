//! The building of an engine in a process of its own: TensorRT may take minutes and gigabytes, and may crash.
//!
//! The child gives way to the daemon in everything, dies with it, and is ended when it takes too long or too much. What
//! it takes is looked at from here: a limit on its address space would refuse the ranges that CUDA reserves, and on a
//! Jetson the GPU's memory is the machine's and in no process's account, so the machine's own is watched too.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::native::plain;
use super::{Key, TensorRtError};
use crate::model::child::{Waited, signal_name, wait_while};

/// How often the child is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// A process that was killed is gone within this, but for one that hangs in the kernel.
const REAP: Duration = Duration::from_secs(10);

/// What the building of an engine may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildLimits {
    /// By the clock on the wall.
    pub wall: Duration,
    /// Resident memory of the child.
    pub memory_mib: u64,
    /// What must stay free of the machine's memory.
    pub leave_mib: u64,
}

/// An engine that was built and is in the cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Built {
    /// The key's digest.
    pub engine: String,
    /// The size of its plan.
    pub plan_bytes: u64,
    /// How long it took, in seconds.
    pub build_s: f64,
}

/// Has `program engine build` make the engine for `key` from the bundle in `model` and keep it in the cache of `state`,
/// until `is_stopped` says that nobody waits for it.
///
/// # Errors
/// [`TensorRtError::Build`] with the child's reason, or what it was ended for; [`TensorRtError::Stopped`].
pub fn build_in_child(
    program: &Path,
    model: &Path,
    state: &Path,
    key: &Key,
    limits: &BuildLimits,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Built, TensorRtError> {
    let failed = |reason: String| TensorRtError::Build { reason };
    let not_run = |error: io::Error| failed(format!("its process cannot be run ({error})"));
    let mut child = Command::new(program)
        .arg0("landmarkd")
        .args(["engine", "build", "--json", "--confined", "--key", &key.digest(), "--model"])
        .arg(model)
        .arg("--state")
        .arg(state)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(not_run)?;
    // Read while it runs: a full pipe would stop it.
    let said = [last_line(child.stdout.take()), last_line(child.stderr.take())];
    let mut why = None;
    let waited = wait_while(&mut child, limits.wall, LOOK, |child| {
        why = if is_stopped() { Some(TensorRtError::Stopped) } else { too_much(child, limits).map(failed) };
        why.is_none()
    });
    // Does nothing where the child has ended; where it has not, its answer is of no interest any more.
    let _ = child.kill();
    let ended = wait_while(&mut child, REAP, LOOK, |_| true).map_err(not_run)?;
    if ended != Waited::Ended {
        // It hangs in the driver. Whenever it ends, somebody has to have waited for it.
        std::thread::spawn(move || child.wait());
        return Err(TensorRtError::Hangs {
            what: "the process that builds its engine, killed,",
            seconds: REAP.as_secs(),
        });
    }
    let status = child.wait().map_err(not_run)?;
    let [answer, reason] = said.map(|lines| lines.join().unwrap_or_default());
    match (waited.map_err(not_run)?, why) {
        (Waited::Enough, Some(why)) => return Err(why),
        (Waited::TimedOut, _) => {
            let seconds = limits.wall.as_secs();
            return Err(failed(format!("it was still being built after {seconds} s and was ended")));
        }
        _ => {}
    }
    if status.success() {
        let garbled = |_| failed(format!("its process answered {answer:?}"));
        return serde_json::from_str(&answer).map_err(garbled);
    }
    Err(failed(explain(status, &reason)))
}

/// What the child has too much of, if anything.
fn too_much(child: &Child, limits: &BuildLimits) -> Option<String> {
    let mib = |path: &str, field: &str| {
        let text = fs::read_to_string(path).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(field))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? >> 10)
    };
    let BuildLimits { memory_mib, leave_mib, .. } = *limits;
    let used = mib(&format!("/proc/{}/status", child.id()), "VmRSS:");
    if let Some(used) = used.filter(|&used| used > memory_mib) {
        return Some(format!("it took {used} MiB of memory, {memory_mib} are allowed, and was ended"));
    }
    let left = mib("/proc/meminfo", "MemAvailable:").filter(|&left| left < leave_mib);
    left.map(|left| format!("it left the machine {left} MiB of memory, {leave_mib} are to stay, and was ended"))
}

/// The last line that comes out of a pipe, on a thread that ends with it.
fn last_line(pipe: Option<impl io::Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut last = String::new();
        let Some(pipe) = pipe else { return last };
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let line = plain(&String::from_utf8_lossy(&line));
            if !line.is_empty() {
                last = line.strip_prefix("landmarkd: ").unwrap_or(&line).to_owned();
            }
        }
        last
    })
}

fn explain(status: ExitStatus, reason: &str) -> String {
    match status.signal() {
        Some(signal) => format!("its process died of signal {signal} ({})", signal_name(signal)),
        None if reason.is_empty() => format!("its process ended with exit code {}", status.code().unwrap_or(-1)),
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;

    use super::super::key::tests::key;
    use super::*;

    const LIMITS: BuildLimits = BuildLimits { wall: Duration::from_secs(60), memory_mib: 64, leave_mib: 1 };

    fn outcome(script: &str, limits: &BuildLimits, stop: &dyn Fn() -> bool) -> Result<Built, String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let program = folder.path().join("child");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("ours");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("ours");
        loop {
            let built = build_in_child(&program, Path::new("/bundle"), Path::new("/state"), &key(), limits, stop);
            match built.map_err(|error| error.to_string()) {
                // Another test's child has not closed the script yet that it inherited open for writing.
                Err(reason) if reason.contains("Text file busy") => {}
                ended => return ended,
            }
        }
    }

    #[test]
    fn the_child_is_asked_for_the_engine_and_its_answer_is_taken() {
        let digest = key().digest();
        let script = format!(
            "[ \"$*\" = \"engine build --json --confined --key {digest} --model /bundle --state /state\" ] || exit 1\n\
             i=0; while [ $i -lt 20000 ]; do echo chatter of a library >&2; i=$((i+1)); done\n\
             echo '{{\"engine\":\"{digest}\",\"plan_bytes\":7,\"build_s\":1.5}}'"
        );
        let built = Built { engine: digest, plan_bytes: 7, build_s: 1.5 };
        assert_eq!(outcome(&script, &LIMITS, &|| false), Ok(built));
    }

    #[test]
    fn each_end_has_its_reason() {
        for (script, reason) in [
            ("echo noise >&2; echo 'landmarkd: TensorRT refuses: x' >&2; exit 69", "TensorRT refuses: x"),
            ("exit 3", "exit code 3"),
            ("kill -SEGV $$", "signal 11 (memory fault)"),
            ("kill -ABRT $$", "signal 6 (abort)"),
            ("echo nonsense", "answered \"nonsense\""),
        ] {
            let error = outcome(script, &LIMITS, &|| false).expect_err(script);
            assert!(error.starts_with("the engine was not built: ") && error.contains(reason), "{script}: {error}");
        }
    }

    #[test]
    fn what_takes_too_long_too_much_or_is_not_waited_for_is_ended() {
        let start = Instant::now();
        let hang = "exec sleep 600";
        let soon = BuildLimits { wall: Duration::from_millis(300), ..LIMITS };
        assert!(outcome(hang, &soon, &|| false).expect_err("hangs").contains("still being built after 0 s"));
        assert_eq!(outcome(hang, &LIMITS, &|| true), Err("stopped".to_owned()));
        let small = BuildLimits { memory_mib: 0, ..LIMITS };
        assert!(outcome(hang, &small, &|| false).expect_err("large").contains("0 are allowed, and was ended"));
        let crowded = BuildLimits { leave_mib: u64::MAX, ..LIMITS };
        assert!(outcome(hang, &crowded, &|| false).expect_err("large").contains("are to stay, and was ended"));
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}
