//! The store of model bundles through crashes, full disks and bad starts: what serves is always whole, and known.

#[path = "support/bundles.rs"]
#[expect(dead_code, reason = "no daemon runs here")]
mod bundles;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use bundles::{Device, NAME, json, outcome, passes, serves, serving_device, tree};
use landmarkd::crash_point::MODEL_MOMENTS;
use landmarkd::model::{Bundle, BundleId, End, Moment, Policy, Registry, RegistryError, SelfTest, SelfTestError};

fn id(version: &str) -> BundleId {
    BundleId::new(NAME, version).expect("sound")
}

/// What a command killed at a point leaves: one whole selection, whole bundles, and the next command works.
#[test]
fn a_command_killed_at_any_point_leaves_the_old_or_the_new_bundle_serving_whole() {
    let mut walked = 0;
    for point in MODEL_MOMENTS {
        // `serve` is the daemon's, and has its own test.
        if point.starts_with("runs.") || point == "model.serving" {
            continue;
        }
        let Some(device) = serving_device() else { return };
        // Something to collect: 0.1.0 is neither active nor previous after the next activation.
        for (version, activate) in [("0.1.0", false), ("1.1.0", true)] {
            let archive = device.signed(version, "good").display().to_string();
            let more: &[&str] = if activate { &["--activate"] } else { &[] };
            let arguments = [&["install", "--allow-older", &archive], more].concat();
            let mut command = device.command(&arguments);
            if activate {
                command.env("LANDMARKD_CRASH_POINT", point);
            }
            let output = command.output().expect("the program starts");
            if !activate {
                assert!(output.status.success(), "{}", outcome(&output).1);
            } else if point == "model.testing" {
                let (code, text) = outcome(&output);
                assert_eq!(code, 65, "{text}");
                assert!(text.contains("died of signal 9"), "the child is killed, its parent is not: {text}");
            } else {
                assert_eq!(output.status.signal(), Some(9), "{point} was not reached: {}", outcome(&output).1);
            }
        }
        let switched = ["selection.renamed", "selection.synced", "model.condemned", "model.removed"].contains(&point);
        let expected = if switched { "1.1.0" } else { "1.0.0" };
        assert_eq!(serves(&device), expected, "after a crash at {point}");
        for installed in device.registry().installed().expect("readable") {
            Bundle::open(&installed.directory).unwrap_or_else(|e| panic!("half a bundle after {point}: {e}"));
            assert!(installed.receipt.is_some(), "no receipt after {point}");
        }
        // The same command again ends as if nothing had happened.
        let archive = device.path("inbox").join(format!("{NAME}-1.1.0.tar.gz")).display().to_string();
        json(&device.run(&["install", &archive, "--activate", "--json"]));
        assert_eq!(serves(&device), "1.1.0", "again, after a crash at {point}");
        let list = json(&device.run(&["list", "--json"]));
        assert_eq!(list["previous"]["bundle"]["version"], "1.0.0", "after a crash at {point}");
        let left: Vec<_> = tree(&device.path("state/models"))
            .into_iter()
            .filter(|p| p.contains(".old-") || p.contains(".new") || p.contains("0.1.0"))
            .collect();
        assert_eq!(left, Vec::<String>::new(), "left over after a crash at {point}");
        walked += 1;
    }
    assert_eq!(walked, MODEL_MOMENTS.len() - 4);
}

/// The daemon's part, in a process of its own that a point can kill: started by the test below.
#[test]
fn child_that_serves() {
    let Some(state) = std::env::var_os("LANDMARKD_TEST_STATE") else { return };
    let registry = Registry::new(Path::new(&state));
    registry.serve(&Moment::now(), Policy::default(), &passes).expect("something can serve").expect("active");
    registry.ended(End::Clean).expect("space");
}

/// Starts the daemon's part to be killed at a point.
fn killed_while_serving(device: &Device, point: &str) {
    let myself = std::env::current_exe().expect("a test's program");
    let killed = Command::new(myself)
        .args(["--exact", "child_that_serves", "--nocapture"])
        .env("LANDMARKD_TEST_STATE", device.state())
        .env("LANDMARKD_CRASH_POINT", point)
        .output()
        .expect("it starts");
    assert_eq!(killed.status.signal(), Some(9), "{point} was not reached: {killed:?}");
}

#[test]
fn a_daemon_killed_at_any_point_of_its_start_serves_at_the_next() {
    for point in MODEL_MOMENTS.into_iter().filter(|point| point.starts_with("runs.") || *point == "model.serving") {
        let Some(device) = serving_device() else { return };
        killed_while_serving(&device, point);
        assert_eq!(serves(&device), "1.0.0", "after a crash at {point}");
    }
}

#[test]
fn a_rollback_killed_at_any_point_by_hand_or_at_a_start_is_done_or_not_begun() {
    for point in MODEL_MOMENTS.into_iter().filter(|point| point.starts_with("selection.")) {
        for automatic in [false, true] {
            let Some(device) = serving_device() else { return };
            let archive = device.signed("1.1.0", "good").display().to_string();
            json(&device.run(&["install", &archive, "--activate", "--json"]));
            if automatic {
                for _ in 0..3 {
                    device.registry().serve(&Moment::now(), Policy::default(), &passes).expect("it can serve");
                }
                killed_while_serving(&device, point);
                // Not written: the next start comes to the same end.
                assert_eq!(serves(&device), "1.0.0", "after a crash at {point}");
            } else {
                let killed = device.command(&["rollback"]).env("LANDMARKD_CRASH_POINT", point).output();
                assert_eq!(killed.expect("the program starts").status.signal(), Some(9), "{point} was not reached");
                let expected = if point == "selection.written" { "1.1.0" } else { "1.0.0" };
                assert_eq!(serves(&device), expected, "after a crash at {point}");
            }
        }
    }
}

#[test]
fn a_disk_that_takes_no_more_leaves_the_store_as_it_was_and_the_daemon_serving() {
    let Some(device) = serving_device() else { return };
    let archive = device.signed("1.1.0", "good").display().to_string();
    let before = tree(&device.path("state/models"));
    // Every write to a file fails with EFBIG, as it would with ENOSPC on a full disk.
    let command = device.command(&["install", &archive]);
    let full = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .output();
    let (code, text) = outcome(&full.expect("a shell"));
    assert_eq!(code, 74, "{text}");
    assert!(text.contains("cannot write") && text.contains("manifest.json"), "{text}");
    assert_eq!(tree(&device.path("state/models")), before);
    // The daemon cannot note its runs either.
    let blocked = device.path("state/models/.runs.new");
    fs::create_dir(&blocked).expect("ours");
    let serving = device.registry().serve(&Moment::now(), Policy::default(), &passes).expect("it can serve");
    assert_eq!(serving.expect("active").id, id("1.0.0"));
    fs::remove_dir(blocked).expect("ours");
    json(&device.run(&["install", &archive, "--json"]));
}

#[test]
fn three_unclean_ends_or_one_failed_self_test_bring_the_previous_bundle_back() {
    let Some(device) = serving_device() else { return };
    let archive = device.signed("1.1.0", "good").display().to_string();
    json(&device.run(&["install", &archive, "--activate", "--json"]));
    let registry = device.registry();
    let start = |self_test: &SelfTest<'_>| {
        let serving = registry.serve(&Moment::now(), Policy::default(), self_test).expect("something can serve");
        let serving = serving.expect("something is active");
        (serving.id, serving.rolled_back)
    };
    for _ in 0..3 {
        assert_eq!(start(&passes), (id("1.1.0"), None), "and it is killed");
    }
    let (serving, rolled_back) = start(&passes);
    assert_eq!(serving, id("1.0.0"));
    let rolled_back = rolled_back.expect("told");
    assert_eq!(rolled_back.bundle, id("1.1.0"));
    assert_eq!(rolled_back.fault, "the daemon ended uncleanly 3 times in 24 h after the switch to it");
    registry.ended(End::Clean).expect("space");
    assert_eq!(start(&passes), (id("1.0.0"), Some(rolled_back)), "until somebody chooses");
    registry.ended(End::Clean).expect("space");
    let text = String::from_utf8(device.run(&["list"]).stdout).expect("text");
    println!("{text}");
    assert!(text.contains("out of service because the daemon ended uncleanly 3 times"), "{text}");
    let (code, text) = outcome(&device.run(&["rollback"]));
    assert_eq!(code, 66, "{text}");
    assert!(text.contains("activate it by name"), "{text}");

    // By name it may try again, and fails its self-test on this machine now.
    json(&device.run(&["activate", NAME, "1.1.0", "--json"]));
    let fails_new = |directory: &Path| {
        if directory.ends_with("1.1.0") { Err(SelfTestError::TimedOut(9)) } else { passes(directory) }
    };
    let (serving, rolled_back) = start(&fails_new);
    assert_eq!(serving, id("1.0.0"));
    assert!(rolled_back.expect("told").fault.contains("still running after 9 s"));
    registry.ended(End::Clean).expect("space");

    // When nothing can serve, that is said, and the next start tries again.
    fs::write(registry.directory(&id("1.0.0")).join("network.onnx"), "rotten").expect("ours");
    let error = registry.serve(&Moment::now(), Policy::default(), &passes).expect_err("neither can serve");
    assert!(matches!(&error, RegistryError::NothingServes { .. }), "{error}");
    let mended = device.path("inbox").join(format!("{NAME}-1.0.0.tar.gz"));
    json(&device.run(&["install", &mended.display().to_string(), "--json"]));
    assert_eq!(serves(&device), "1.0.0", "the same archive again mends it");
}

#[test]
fn a_child_that_could_not_be_started_speaks_against_no_bundle() {
    let Some(device) = serving_device() else { return };
    let no_memory = |_: &Path| Err(SelfTestError::NotRun("no memory".to_owned()));
    let serving = device.registry().serve(&Moment::now(), Policy::default(), &no_memory).expect("it can serve");
    assert_eq!(serving.expect("active").id, id("1.0.0"));
}

#[test]
fn a_selection_that_cannot_be_read_is_told_and_mended_by_choosing_again() {
    let Some(device) = serving_device() else { return };
    let path = device.path("state/models/.selection.json");
    for damaged in ["", "{}", r#"{"format":1,"generation":1,"active":{"name":"../../etc","version":"1.0.0"}}"#] {
        fs::write(&path, damaged).expect("ours");
        let (code, text) = outcome(&device.run(&["list"]));
        assert_eq!(code, 78, "{text}");
        assert!(text.contains("landmarkd model activate NAME VERSION"), "{text}");
        let error = device.registry().serve(&Moment::now(), Policy::default(), &passes).expect_err("not known which");
        assert!(matches!(error, RegistryError::Damaged { .. }), "{error}");
        json(&device.run(&["activate", NAME, "1.0.0", "--json"]));
        assert_eq!(serves(&device), "1.0.0");
    }
    fs::write(device.path("state/models/.runs.json"), "{").expect("ours");
    assert_eq!(serves(&device), "1.0.0", "a lost history keeps nobody from serving");
}

/// An installation whose self-test never ends.
fn hanging(device: &Device, archive: &str) -> Command {
    let mut command = device.command(&["install", archive]);
    command.env("LANDMARKD_HANG_POINT", "model.testing");
    command
}

#[test]
fn two_commands_at_once_are_told_apart_and_the_daemon_waits_for_neither() {
    let Some(device) = serving_device() else { return };
    let archive = device.signed("1.1.0", "good").display().to_string();
    let mut first = hanging(&device, &archive).spawn().expect("the program starts");
    while !device.path("state/models/.new/manifest.json").exists() {
        std::thread::yield_now();
    }
    let (code, text) = outcome(&device.run(&["activate", NAME, "1.0.0"]));
    assert_eq!(code, 69, "{text}");
    assert!(text.contains("another landmarkd model command is at work"), "{text}");
    assert_eq!(serves(&device), "1.0.0", "while the first is still at its self-test");
    assert!(first.try_wait().expect("ours").is_none(), "it still is");
    first.kill().expect("it runs");
    first.wait().expect("it ended");
}

#[test]
fn a_child_dies_with_its_parent() {
    let Some(device) = serving_device() else { return };
    let archive = device.signed("1.1.0", "good");
    let mut parent = hanging(&device, &archive.display().to_string()).spawn().expect("the program starts");
    let children = format!("/proc/{0}/task/{0}/children", parent.id());
    let child = loop {
        let child = fs::read_to_string(&children).expect("it runs").trim().to_owned();
        // Its own name shows that it is past exec; its limit on core files, that it has confined itself.
        let limits = fs::read_to_string(format!("/proc/{child}/limits")).unwrap_or_default();
        if limits.lines().any(|line| line.starts_with("Max address space") && line.contains("2147483648")) {
            break child;
        }
        std::thread::yield_now();
    };
    parent.kill().expect("it runs");
    parent.wait().expect("it ended");
    // Gone, or a zombie that nobody has waited for yet.
    let alive = || fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while alive() {
        assert!(std::time::Instant::now() < deadline, "the child outlived its parent");
        std::thread::yield_now();
    }
    assert_eq!(serves(&device), "1.0.0");
}

#[test]
fn only_the_owner_of_the_state_changes_it_and_anybody_who_can_read_it_lists_it() {
    let Some(device) = serving_device() else { return };
    if std::os::unix::fs::chown(device.state(), Some(65_534), Some(65_534)).is_err() {
        println!("skipped: this user cannot give a directory away");
        return;
    }
    let (code, text) = outcome(&device.run(&["rollback"]));
    assert_eq!(code, 78, "{text}");
    assert!(text.contains("belongs to user 65534, and this runs as user 0"), "{text}");
    assert_eq!(json(&device.run(&["list", "--json"]))["active"]["version"], "1.0.0");
}
