//! The self-test in a process of its own: whatever a bundle does to its runtime, the daemon goes on.
//!
//! The parent starts this program again as `landmarkd model self-test DIR`, waits with a time limit, and takes exit
//! code and signal for the reason. The child sets its own limits on memory and processor time before it looks at the
//! bundle, gives way to the daemon in everything, and dies with its parent.

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{self as system, Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};

use super::child::{Waited, signal_name, wait_while};

/// This very program, even when an update has replaced its file.
pub const OWN_PROGRAM: &str = "/proc/self/exe";
/// Exit code of a child whose bundle cannot be used, that of a wrong configuration.
pub const UNUSABLE: u8 = 78;
/// Exit code of a child whose network misses the golden film, that of bad input.
pub const OFF: u8 = 65;
/// Exit code of a child that could not confine itself, that of a service that is away.
pub const NOT_CONFINED: u8 = 69;
/// Exit code of a child that panicked.
const PANICKED: i32 = 70;

const MAX_ANSWER_BYTES: u64 = 4096;

/// What a self-test may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Address space; a bundle of the usual size needs less than 300 MiB.
    pub memory_mib: u64,
    /// Processor time.
    pub cpu_s: u64,
    /// By the clock on the wall.
    pub wall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_mib: 2048, cpu_s: 120, wall: Duration::from_secs(180) }
    }
}

/// A self-test that went well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passed {
    /// How far a landmark of the golden film lies at most from where it should, in pixels of that film.
    pub off_px: f64,
    /// What computed ("tract-cpu").
    pub backend: String,
}

/// Why a bundle did not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelfTestError {
    /// There is no child, or its end cannot be waited for.
    #[error("the self-test could not be run ({0}): try again when the machine has processes and memory to spare")]
    NotRun(String),
    /// Bundle or network cannot be used.
    #[error("the self-test refused the bundle: {0}")]
    Unusable(String),
    /// The network runs, and is wrong.
    #[error("the self-test failed: {0}; have the bundle made again, or this machine's processor looked at")]
    Off(String),
    /// It took too long.
    #[error(
        "the self-test was still running after {0} s and was ended; the bundle is too slow for this machine, or hangs"
    )]
    TimedOut(u64),
    /// It computed too long.
    #[error("the self-test used more than {0} s of processor time; the bundle is too slow for this machine, or loops")]
    ProcessorTime(u64),
    /// It wanted too much.
    #[error("the self-test wanted more than {0} MiB of memory; the bundle is too large for this machine")]
    Memory(u64),
    /// It died.
    #[error("the self-test died of signal {signal} ({name}): the bundle crashes the runtime on this machine")]
    Crashed {
        /// The number.
        signal: i32,
        /// In words.
        name: &'static str,
    },
    /// It ended in a way that is our fault.
    #[error("the self-test ended with {end}: {reason}; report this with the bundle's name and version")]
    Unexpected {
        /// "exit code 70", ..
        end: String,
        /// What it said last.
        reason: String,
    },
}

/// Runs the self-test of the bundle in `directory` in a process of its own, as `program model self-test ..`; see
/// [`OWN_PROGRAM`].
///
/// # Errors
/// The reason why the bundle must not serve.
pub fn in_child(program: &Path, directory: &Path, limits: &Limits) -> Result<Passed, SelfTestError> {
    let not_run = |error: io::Error| SelfTestError::NotRun(error.to_string());
    let mut child = Command::new(program)
        .arg0("landmarkd")
        .args(["model", "self-test", "--memory-mib", &limits.memory_mib.to_string()])
        .args(["--cpu-s", &limits.cpu_s.to_string()])
        .arg("--")
        .arg(directory)
        // One line is read; a backtrace could fill the pipe, and the child would wait for ever.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(not_run)?;
    let waited = wait_while(&mut child, limits.wall, limits.wall, |_| true);
    // Does nothing where the child has ended; where it has not, its answer is of no interest any more.
    let _ = child.kill();
    let status = child.wait().map_err(not_run)?;
    if waited.map_err(not_run)? != Waited::Ended {
        return Err(SelfTestError::TimedOut(limits.wall.as_secs()));
    }
    let answer = said(child.stdout.take());
    let reason = said(child.stderr.take());
    if status.success() {
        let garbled =
            |_| SelfTestError::Unexpected { end: "an answer that is none".to_owned(), reason: answer.clone() };
        return serde_json::from_str(&answer).map_err(garbled);
    }
    Err(explain(status, reason, limits))
}

/// To be called first in the child: sets its limits, and lets it die with its parent.
///
/// # Errors
/// When the system refuses.
pub fn confine(memory_mib: u64, cpu_s: u64) -> io::Result<()> {
    let limit = |resource, soft: u64, hard: u64| {
        // What was limited before from outside stays so.
        let outer = system::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let rlimit = Rlimit { current: Some(soft.min(outer)), maximum: Some(hard.min(outer)) };
        system::setrlimit(resource, rlimit)
    };
    let memory = memory_mib.saturating_mul(1 << 20);
    system::set_parent_process_death_signal(Some(Signal::KILL))?;
    limit(Resource::As, memory, memory)?;
    // SIGXCPU at the soft limit tells the reason; SIGKILL at the hard one, should it be ignored.
    limit(Resource::Cpu, cpu_s, cpu_s + 5)?;
    limit(Resource::Core, 0, 0)?;
    // Both are courtesies to the daemon beside it: last in the queue for the processor, first when memory runs out.
    let _ = system::nice(10);
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    Ok(())
}

/// What an ended child left in its pipe, as one line; the child may have written anything.
fn said(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // What could be read is told, even if not all could.
        let _ = pipe.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    let line: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.strip_prefix("landmarkd: ").unwrap_or(&line).to_owned()
}

fn explain(status: ExitStatus, reason: String, limits: &Limits) -> SelfTestError {
    let Some(signal) = status.signal() else {
        let code = status.code().unwrap_or(-1);
        return match code {
            c if c == i32::from(UNUSABLE) => SelfTestError::Unusable(reason),
            c if c == i32::from(OFF) => SelfTestError::Off(reason),
            c if c == i32::from(NOT_CONFINED) => SelfTestError::NotRun(reason),
            PANICKED => SelfTestError::Unexpected { end: "a panic".to_owned(), reason },
            code => SelfTestError::Unexpected { end: format!("exit code {code}"), reason },
        };
    };
    let of = |known: Signal| known.as_raw() == signal;
    if of(Signal::XCPU) {
        return SelfTestError::ProcessorTime(limits.cpu_s);
    }
    // What Rust says before it aborts because there is no more memory.
    if of(Signal::ABORT) && reason.contains("memory allocation of") {
        return SelfTestError::Memory(limits.memory_mib);
    }
    if of(Signal::SYS) {
        // A sandbox around us forbids what `confine` does; that says nothing about the bundle.
        return SelfTestError::NotRun("a SystemCallFilter= forbids prlimit, prctl or setpriority".to_owned());
    }
    SelfTestError::Crashed { signal, name: signal_name(signal) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;

    use super::*;

    const LIMITS: Limits = Limits { memory_mib: 64, cpu_s: 1, wall: Duration::from_millis(300) };

    /// What a program that does `script` makes of a self-test.
    fn outcome(script: &str, limits: &Limits) -> Result<Passed, SelfTestError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let program = folder.path().join("child");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("ours");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("ours");
        loop {
            match in_child(&program, Path::new("/the bundle"), limits) {
                // Another test's child has not closed the script yet that it inherited open for writing.
                Err(SelfTestError::NotRun(reason)) if reason.contains("Text file busy") => {}
                ended => return ended,
            }
        }
    }

    fn patient() -> Limits {
        Limits { wall: Duration::from_secs(60), ..LIMITS }
    }

    #[test]
    fn a_child_is_asked_for_the_bundle_under_the_limits_and_its_answer_is_taken() {
        let script = r#"[ "$*" = "model self-test --memory-mib 64 --cpu-s 1 -- /the bundle" ] || exit 1
                        echo '{"off_px":0.25,"backend":"tract-cpu"}'"#;
        assert_eq!(outcome(script, &patient()), Ok(Passed { off_px: 0.25, backend: "tract-cpu".to_owned() }));
    }

    #[test]
    fn each_end_of_a_child_has_its_reason() {
        let crashed = |signal, name| SelfTestError::Crashed { signal, name };
        let unexpected = |end: &str, reason: &str| {
            let (end, reason) = (end.to_owned(), reason.to_owned());
            SelfTestError::Unexpected { end, reason }
        };
        for (script, expected) in [
            ("echo 'landmarkd: no network' >&2; exit 78", SelfTestError::Unusable("no network".to_owned())),
            ("echo '9 px off' >&2; exit 65", SelfTestError::Off("9 px off".to_owned())),
            ("printf 'bang\\033[31m\\nline' >&2; exit 70", unexpected("a panic", "bang [31m line")),
            ("echo odd >&2; exit 3", unexpected("exit code 3", "odd")),
            ("echo '{}'", unexpected("an answer that is none", "{}")),
            ("kill -SEGV $$", crashed(11, "memory fault")),
            ("kill -ABRT $$", crashed(6, "abort")),
            ("echo 'memory allocation of 9 bytes failed' >&2; kill -ABRT $$", SelfTestError::Memory(64)),
            ("kill -XCPU $$", SelfTestError::ProcessorTime(1)),
            ("echo 'no limits here' >&2; exit 69", SelfTestError::NotRun("no limits here".to_owned())),
        ] {
            assert_eq!(outcome(script, &patient()), Err(expected), "{script}");
        }
    }

    #[test]
    fn a_child_that_hangs_is_ended_in_time() {
        let start = Instant::now();
        assert_eq!(outcome("exec sleep 600", &LIMITS), Err(SelfTestError::TimedOut(0)));
        assert!(start.elapsed() < Duration::from_secs(60));
        assert_eq!(outcome("exec yes", &LIMITS), Err(SelfTestError::TimedOut(0)), "its pipe is full");
    }

    #[test]
    fn a_program_that_is_not_there_is_told() {
        let error = in_child(Path::new("/nowhere/landmarkd"), Path::new("/"), &LIMITS).expect_err("no such program");
        assert!(matches!(error, SelfTestError::NotRun(_)), "{error}");
    }
}
