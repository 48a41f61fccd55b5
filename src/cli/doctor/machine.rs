//! The machine: its clock, the service manager's unit, its GPUs.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Check;
use crate::config::{AfterPublish, Settings};
use crate::report::rfc3339;
use crate::telemetry::{Prober, Root};

/// The program is not older: a clock before this has never been set.
const WRITTEN_S: u64 = 1_767_225_600; // 2026-01-01
/// A clock twenty years ahead is as wrong.
const FUTURE_S: u64 = WRITTEN_S + 20 * 31_556_952;
/// A service manager that hangs is a finding, not a reason to hang too.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a program prints, where it is there and answers in time and well.
pub(in crate::cli) fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let mut stdout = child.stdout.take()?;
    let (sender, printed) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = std::io::Read::read_to_end(&mut stdout, &mut bytes);
        // Nobody waits any more where it took too long.
        let _sent = sender.send(read.map(|_| bytes));
    });
    let printed = printed.recv_timeout(PATIENCE);
    if printed.is_err() {
        // It may have ended by itself.
        let _killed = child.kill();
    }
    let is_well = child.wait().is_ok_and(|status| status.success());
    let bytes = printed.ok()?.ok()?;
    is_well.then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether the time can be right.
pub(super) fn clock() -> Check {
    let synchronised = ask("timedatectl", &["show", "-p", "NTPSynchronized", "--value"]);
    judged(SystemTime::now(), synchronised.as_deref().map(str::trim))
}

fn judged(now: SystemTime, synchronised: Option<&str>) -> Check {
    let (name, time) = ("clock", rfc3339(now));
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let remedy = "set up time synchronization (systemd-timesyncd or chrony): without the right time TLS refuses valid \
                  certificates, and events carry wrong times; films are taken all the same";
    if !(WRITTEN_S..FUTURE_S).contains(&seconds) {
        return Check::fail(name, format!("{time} cannot be"), remedy);
    }
    match synchronised {
        Some("yes") => Check::ok(name, format!("{time}, synchronized")),
        Some("no") => Check::warn(name, format!("{time}, not synchronized"), remedy),
        _ => Check::ok(name, format!("{time}; whether it is synchronized is not known here")),
    }
}

/// What the service manager knows of the unit.
pub(super) fn unit(unit: &str, settings: Option<&Settings>) -> Check {
    const PROPERTIES: &str =
        "LoadState,ActiveState,SubState,Result,NRestarts,WatchdogUSec,Restart,RestartPreventExitStatus,ReadWritePaths";
    if !Path::new("/run/systemd/system").exists() {
        return Check::ok("unit", "no systemd here: something else must start the daemon again when it ends");
    }
    let shown = ask("systemctl", &["show", unit, "-p", PROPERTIES]);
    let needs_writing = settings.is_some_and(|settings| settings.acquisition.after != AfterPublish::Keep);
    match shown {
        Some(shown) => properties(unit, &shown, needs_writing),
        None => Check::warn("unit", "systemctl does not answer", "systemctl status says why"),
    }
}

fn properties(unit: &str, shown: &str, needs_writing: bool) -> Check {
    let name = "unit";
    let value = |key: &str| {
        let line = shown.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default()
    };
    if value("LoadState") != "loaded" {
        let remedy = "install systemd/usr/lib/systemd/system/landmarkd.service, or name the unit with --unit";
        return Check::warn(name, format!("{unit} is not installed"), remedy);
    }
    let words = format!(
        "{unit}: {} ({}), {} restarts, watchdog {}, Restart={}",
        value("ActiveState"),
        value("SubState"),
        value("NRestarts"),
        value("WatchdogUSec"),
        value("Restart")
    );
    if value("ActiveState") == "failed" {
        let remedy =
            format!("journalctl -u {unit} says why (Result={}); then systemctl restart {unit}", value("Result"));
        return Check::fail(name, words, remedy);
    }
    let mut missing = Vec::new();
    if value("Restart") != "always" {
        missing.push("Restart=always");
    }
    if matches!(value("WatchdogUSec"), "" | "0" | "infinity") {
        missing.push("WatchdogSec=60");
    }
    if !value("RestartPreventExitStatus").split_whitespace().any(|status| status == "78") {
        missing.push("RestartPreventExitStatus=78");
    }
    if needs_writing && value("ReadWritePaths").is_empty() {
        missing.push("ReadWritePaths= for acquisition.after");
    }
    if missing.is_empty() {
        Check::ok(name, words)
    } else {
        Check::warn(name, words, format!("the unit should say {}", missing.join(", ")))
    }
}

/// Which GPUs there are; without any the network runs on the CPU.
pub(super) fn gpu() -> Check {
    let gpus = Prober::new(Root::of_this_machine()).look().gpus;
    if gpus.is_empty() {
        return Check::ok("gpu", "none; the network runs on the CPU");
    }
    Check::ok("gpu", gpus.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    const SHOWN: &str = "Restart=always\nWatchdogUSec=1min\nRestartPreventExitStatus=78\nReadWritePaths=\n\
                         LoadState=loaded\nActiveState=active\nSubState=running\nResult=success\nNRestarts=2\n";

    #[test]
    fn a_unit_is_judged_by_what_keeps_the_daemon_alive() {
        let check = properties("landmarkd.service", SHOWN, false);
        let expected = "landmarkd.service: active (running), 2 restarts, watchdog 1min, Restart=always";
        assert_eq!(check, Check::ok("unit", expected));
        for (from, to, needs_writing, verdict, words) in [
            ("Restart=always", "Restart=no", false, Verdict::Warn, "Restart=always"),
            ("WatchdogUSec=1min", "WatchdogUSec=0", false, Verdict::Warn, "WatchdogSec=60"),
            ("ExitStatus=78", "ExitStatus=", false, Verdict::Warn, "RestartPreventExitStatus=78"),
            ("NRestarts=2", "NRestarts=3", true, Verdict::Warn, "ReadWritePaths="),
            ("ActiveState=active", "ActiveState=failed", false, Verdict::Fail, "journalctl"),
            ("LoadState=loaded", "LoadState=not-found", false, Verdict::Warn, "install"),
        ] {
            let check = properties("landmarkd.service", &SHOWN.replace(from, to), needs_writing);
            assert!(check.verdict == verdict && check.remedy.as_ref().is_some_and(|r| r.contains(words)), "{check:?}");
        }
    }

    #[test]
    fn a_clock_that_was_never_set_is_told() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(judged(at(0), Some("no")).verdict, Verdict::Fail);
        assert_eq!(judged(at(WRITTEN_S - 1), Some("yes")).verdict, Verdict::Fail);
        assert_eq!(judged(at(WRITTEN_S), Some("yes")).verdict, Verdict::Ok);
        assert_eq!(judged(at(WRITTEN_S), Some("no")).verdict, Verdict::Warn);
        assert_eq!(judged(at(WRITTEN_S), None).verdict, Verdict::Ok);
        assert_eq!(judged(at(FUTURE_S), Some("yes")).verdict, Verdict::Fail);
    }

    #[test]
    fn a_program_that_fails_or_is_not_there_answers_nothing() {
        assert_eq!(ask("echo", &["a", "b"]), Some("a b\n".to_owned()));
        assert_eq!(ask("false", &[]), None);
        assert_eq!(ask("/nonexistent/program", &[]), None);
    }
}
