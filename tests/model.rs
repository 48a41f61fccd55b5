//! Model bundles from their archive to the store: the way of a good one, and why others are refused.

#[path = "support/bundles.rs"]
#[expect(dead_code, reason = "no daemon runs here")]
mod bundles;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bundles::{Device, NAME, comment, entry, files, json, outcome, passes, serves, serving_device, tar, tree};
use flate2::Compression;
use flate2::write::GzEncoder;
use landmarkd::model::{Limits, Moment, Policy, in_child};

#[test]
fn a_signed_bundle_is_installed_activated_listed_and_rolled_back() {
    let Some(device) = Device::new() else { return };
    assert!(device.registry().serve(&Moment::now(), Policy::default(), &passes).expect("nothing there").is_none());
    for version in ["1.0.0", "1.1.0", "1.10.0"] {
        let archive = device.signed(version, "good");
        let installed = json(&device.run(&["install", &archive.display().to_string(), "--json"]));
        assert_eq!(installed["version"], version);
        assert_eq!(installed["receipt"]["signed_by"], "maker");
        assert!(installed["receipt"]["self_test"]["off_px"].as_f64().is_some_and(|off| off < 0.01), "{installed}");
        let again = json(&device.run(&["install", &archive.display().to_string(), "--json"]));
        assert_eq!((&installed["already_installed"], &again["already_installed"]), (&false.into(), &true.into()));
        let activated = json(&device.run(&["activate", NAME, version, "--json"]));
        assert_eq!(activated["active"]["version"], version);
    }
    let list = json(&device.run(&["list", "--json"]));
    let versions: Vec<_> = list["installed"].as_array().expect("a list").iter().map(|b| &b["version"]).collect();
    assert_eq!(versions, ["1.1.0", "1.10.0"], "1.0.0 was collected");
    assert_eq!(serves(&device), "1.10.0");
    let back = json(&device.run(&["rollback", "--json"]));
    assert_eq!(
        (&back["active"]["version"], &back["previous"]["bundle"]["version"]),
        (&"1.1.0".into(), &"1.10.0".into())
    );
    assert_eq!(serves(&device), "1.1.0");
    let text = String::from_utf8(device.run(&["list"]).stdout).expect("text");
    println!("{text}");
    assert!(text.contains("1.1.0    active ") && text.contains("1.10.0   previous "), "{text}");
    let expected = [".lock", ".runs.json", ".selection.json", ".work", NAME];
    let mut names: Vec<_> = tree(&device.path("state/models")).into_iter().filter(|name| !name.contains('/')).collect();
    names.sort();
    assert_eq!(names, expected, "nothing is left over");
}

#[test]
fn what_nobody_trusted_signed_is_refused() {
    let Some(device) = serving_device() else { return };
    let archive = device.archive("1.1.0", &files("1.1.0", "good"));
    let path = archive.display().to_string();
    let refused = |code: i32, words: &str| {
        for command in ["install", "verify"] {
            let (found, text) = outcome(&device.run(&[command, &path]));
            assert_eq!(found, code, "{text}");
            assert!(text.contains(words), "{text}\ndoes not say {words}");
        }
        assert_eq!(serves(&device), "1.0.0");
        assert!(!device.path("state/models").join(NAME).join("1.1.0").exists());
    };
    refused(65, "there is no signature");
    device.sign(&archive, "stranger", &comment("1.1.0"), &[]);
    refused(65, "was made with a key that is not in");
    device.sign(&archive, "maker", &comment("1.1.0"), &["-l"]);
    refused(65, "legacy kind");
    device.sign(&archive, "maker", "timestamp:1700000000\tfile:test\thashed", &[]);
    refused(65, "has the trusted comment");
    device.sign(&archive, "maker", &comment("1.1.0"), &[]);
    let mut bytes = fs::read(&archive).expect("ours");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, bytes).expect("ours");
    refused(65, "is not what");
    fs::write(format!("{path}.minisig"), "nonsense\n").expect("ours");
    refused(65, "is no minisign signature");
    fs::remove_file(device.trust().join("maker.pub")).expect("ours");
    refused(78, "no key is trusted");
}

#[test]
fn an_old_version_cannot_be_passed_off_as_a_new_one() {
    let Some(device) = serving_device() else { return };
    let old = device.signed("0.9.0", "good");
    let (code, text) = outcome(&device.run(&["install", &old.display().to_string()]));
    assert_eq!(code, 65, "{text}");
    assert!(text.contains("is older than test-nfdp 1.0.0, which serves"), "{text}");
    // Both files renamed, as somebody would who hands them out as the latest.
    let new = device.path("inbox").join(format!("{NAME}-2.0.0.tar.gz"));
    let signature = |path: &Path| format!("{}.minisig", path.display());
    fs::rename(&old, &new).expect("ours");
    fs::rename(signature(&old), signature(&new)).expect("ours");
    let (code, text) = outcome(&device.run(&["install", &new.display().to_string()]));
    assert_eq!(code, 65, "{text}");
    assert!(text.contains("was signed as test-nfdp 0.9.0, whose file is called test-nfdp-0.9.0.tar.gz"), "{text}");
    // The signature of one version beside the file of another.
    let other = device.signed("2.1.0", "good");
    fs::copy(signature(&other), signature(&new)).expect("ours");
    let (code, text) = outcome(&device.run(&["install", &new.display().to_string()]));
    assert_eq!(code, 65, "{text}");
    assert!(text.contains("is not what"), "{text}");
    // Even the maker cannot by mistake.
    let mislabelled = device.archive("3.0.0", &files("0.8.0", "good"));
    device.sign(&mislabelled, "maker", &comment("3.0.0"), &[]);
    let (code, text) = outcome(&device.run(&["install", &mislabelled.display().to_string()]));
    assert_eq!(code, 65, "{text}");
    assert!(text.contains("was signed as test-nfdp 3.0.0, and its manifest says test-nfdp 0.8.0"), "{text}");
    // A second file under a version that is installed.
    let twin = device.signed("1.0.0", "good, but another");
    let (code, text) = outcome(&device.run(&["install", &twin.display().to_string()]));
    assert_eq!(code, 65, "{text}");
    assert!(text.contains("is installed from another archive"), "{text}");
    assert_eq!(serves(&device), "1.0.0");
}

#[test]
fn what_a_trusted_key_signed_is_still_unpacked_as_if_by_a_stranger() {
    let Some(device) = serving_device() else { return };
    let sound = files("1.1.0", "good");
    let with = |more: Vec<u8>| [more, tar(&sound)].concat();
    let replaced = |name: &str, content: &[u8]| {
        let mut files = sound.clone();
        files.iter_mut().filter(|(n, _)| n == name).for_each(|(_, c)| *c = content.to_vec());
        tar(&files)
    };
    let large = vec![0; (1 << 20) + 1];
    let mut misnamed = sound.clone();
    misnamed[1].0 = "other.onnx".to_owned();
    let mut bad_sum = tar(&sound);
    bad_sum[0] = b'x';
    let long_name = entry("././@LongLink", b'L', 16, b"very/long/name\0\0");
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("path upwards", with(entry("../escaped", b'0', 3, b"bad")), "holds ../escaped, which is no plain file name"),
        ("absolute path", with(entry("/tmp/escaped", b'0', 3, b"bad")), "which is no plain file name"),
        ("folder", with(entry("sub/", b'5', 0, b"")), "holds sub/, which is no plain file;"),
        ("hidden file", with(entry(".receipt.json", b'0', 2, b"{}")), "which is no plain file name"),
        ("symbolic link", with(entry("network.onnx", b'2', 0, b"")), "which is no plain file;"),
        ("hard link", with(entry("network.onnx", b'1', 0, b"")), "which is no plain file;"),
        ("FIFO", with(entry("golden.png", b'6', 0, b"")), "which is no plain file;"),
        ("device", with(entry("golden.png", b'3', 0, b"")), "which is no plain file;"),
        ("sparse file", with(entry("golden.png", b'S', 3, b"bad")), "which is no plain file;"),
        ("long name", with(long_name), "which is no plain file;"),
        ("pax header", with(entry("pax", b'x', 16, b"16 path=../bad\n\0")), "which is no plain file;"),
        ("twice", with(entry("README.md", b'0', 3, b"one")), "holds README.md, twice"),
        (
            "fifth file",
            [&tar(&sound)[..tar(&sound).len() - 1024], &entry("x", b'0', 1, b"x"), &[0; 1024]].concat(),
            "holds x, one file too many",
        ),
        ("wrong size", with(entry("large.bin", b'0', 1 << 30, b"")), "holds large.bin, of 1073741824 bytes, more than"),
        ("large text", replaced("README.md", &large), "holds README.md, of 1048577 bytes, more than the 1048576"),
        ("missing file", tar(&sound[..3]), "README.md"),
        ("no manifest", tar(&sound[1..]), "manifest.json"),
        ("other name", tar(&misnamed), "network.onnx"),
        ("wrong digest", replaced("network.onnx", b"tampered"), "has SHA-256"),
        ("wrong manifest", replaced("manifest.json", b"{\"format\": 1}"), "holds no sound bundle"),
        ("size beyond the end", entry("manifest.json", b'0', 600, b"short"), "no archive that can be unpacked"),
        ("something behind the end", [tar(&sound), vec![1; 512]].concat(), "something follows its end"),
        ("no tar", b"not a tar".repeat(100), "no archive that can be unpacked"),
        ("bad checksum", bad_sum, "no archive that can be unpacked"),
    ];
    for (what, bytes, words) in cases {
        let archive = device.archive_of("1.1.0", &bytes);
        device.sign(&archive, "maker", &comment("1.1.0"), &[]);
        let before = tree(device.path("").as_path());
        let (code, text) = outcome(&device.run(&["install", &archive.display().to_string()]));
        assert_eq!(code, 65, "{what}: {text}");
        assert!(text.contains(words), "{what}: {text}\ndoes not say {words}");
        assert_eq!(tree(device.path("").as_path()), before, "{what}: something was left or changed");
    }
    assert_eq!(serves(&device), "1.0.0");
}

#[test]
fn a_bomb_is_refused_before_it_fills_anything() {
    let Some(device) = serving_device() else { return };
    // 400 MiB of zeros in 2 MiB, behind a header that says even more, and behind a whole bundle.
    let sound = files("1.1.0", "good");
    for (size, words) in [(1_200_000_000_u64, "more than the"), (8, "something follows its end")] {
        let path = device.path("inbox").join(format!("{NAME}-1.1.0.tar.gz"));
        let file = File::create(&path).expect("ours");
        let mut gzip = GzEncoder::new(file, Compression::fast());
        if size == 8 {
            gzip.write_all(&tar(&sound)).expect("space");
        } else {
            gzip.write_all(&entry("network.onnx", b'0', size, b"")).expect("space");
        }
        let zeros = vec![0; 1 << 20];
        (0..400).for_each(|_| gzip.write_all(&zeros).expect("space"));
        gzip.finish().expect("space");
        assert!(fs::read(&path).expect("ours").len() < 16 << 20, "it is small as long as it is packed");
        device.sign(&path, "maker", &comment("1.1.0"), &[]);
        let (code, text) = outcome(&device.run(&["install", &path.display().to_string()]));
        assert_eq!(code, 65, "{text}");
        assert!(text.contains(words), "{text}");
    }
    // A network of zeros that is as large as one may be, and a bit.
    let (code, text) = {
        let mut tar = entry("network.onnx", b'0', 200 << 20, b"");
        tar.extend(vec![0; 200 << 20]);
        tar.extend(entry("golden.png", b'0', 100 << 20, b""));
        tar.extend(vec![0; 100 << 20]);
        let archive = device.archive_of("1.1.0", &tar);
        device.sign(&archive, "maker", &comment("1.1.0"), &[]);
        outcome(&device.run(&["install", &archive.display().to_string()]))
    };
    assert_eq!(code, 65, "{text}");
    assert!(text.contains("holds golden.png, of 104857600 bytes, more than the 75497472 it may have"), "{text}");
    assert_eq!(tree(&device.path("state/models")).iter().filter(|name| name.contains(".new")).count(), 0);
    assert_eq!(serves(&device), "1.0.0");
}

#[test]
fn a_bundle_that_fails_its_self_test_is_not_installed() {
    let Some(device) = serving_device() else { return };
    for (behaviour, words) in [
        ("off", "a landmark is 2.00 px from where it should be"),
        ("greedy", "ended with a panic"),
        ("unusable", "cannot use the network"),
    ] {
        let archive = device.signed("1.1.0", behaviour);
        let (code, text) = outcome(&device.run(&["install", &archive.display().to_string()]));
        assert_eq!(code, 65, "{behaviour}: {text}");
        assert!(text.contains(words), "{behaviour}: {text}\ndoes not say {words}");
        assert_eq!(serves(&device), "1.0.0");
        assert!(!device.path("state/models").join(NAME).join("1.1.0").exists());
        assert!(!device.path("state/models/.new").exists());
    }
}

#[test]
fn a_self_test_that_takes_too_much_is_ended_under_its_limits() {
    let program = Path::new(env!("CARGO_BIN_EXE_landmarkd"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (kind, cpu_s, wall_s, expected) in [
        ("slow", 60, 1, "was still running after 1 s"),
        ("slow", 1, 300, "more than 1 s of processor time"),
        // What the runtime does when the system has no memory for it.
        ("greedy", 60, 300, "ended with a panic"),
    ] {
        let directory = folder.path().join(format!("{kind}-{cpu_s}"));
        fs::create_dir(&directory).expect("ours");
        for (name, content) in files("1.0.0", kind) {
            fs::write(directory.join(name), content).expect("ours");
        }
        let limits = Limits { memory_mib: 512, cpu_s, wall: Duration::from_secs(wall_s) };
        let error = in_child(program, &directory, &limits).expect_err(kind).to_string();
        assert!(error.contains(expected), "{kind}: {error}");
    }
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let Some(device) = serving_device() else { return };
    let (code, text) = outcome(&device.run(&["activate", NAME, "7.0.0"]));
    assert_eq!(code, 66, "{text}");
    assert!(text.contains("test-nfdp 7.0.0 is not installed; there is test-nfdp 1.0.0"), "{text}");
    let (code, text) = outcome(&device.run(&["activate", "../etc", "1.0.0"]));
    assert_eq!(code, 64, "{text}");
    let (code, text) = outcome(&device.run(&["rollback"]));
    assert_eq!(code, 66, "{text}");
    assert!(text.contains("no other bundle has served before test-nfdp 1.0.0"), "{text}");
    let (code, text) = outcome(&device.run(&["verify", "/nowhere/a-1.0.0.tar.gz"]));
    assert_eq!(code, 66, "{text}");
    let nowhere = Command::new(env!("CARGO_BIN_EXE_landmarkd"))
        .args(["model", "activate", NAME, "1.0.0", "--state", "/nowhere"])
        .output()
        .expect("the program starts");
    assert_eq!(outcome(&nowhere).0, 78, "{}", outcome(&nowhere).1);
}

#[test]
fn who_names_a_bundle_in_the_configuration_is_told_that_it_serves_whatever_is_chosen() {
    let Some(device) = serving_device() else { return };
    for (model, told) in [("[model]\ndirectory = \"/srv/bundle\"\n", true), ("", false)] {
        let config = format!(
            "[site]\nname = \"s\"\ndevice = \"d\"\n[acquisition]\nfolder = \"/srv/films\"\n\
             [state]\ndirectory = {:?}\n{model}",
            device.state()
        );
        fs::write(device.path("landmarkd.toml"), config).expect("ours");
        let mut command = Command::new(env!("CARGO_BIN_EXE_landmarkd"));
        let list = command.args(["model", "list", "--config"]).arg(device.path("landmarkd.toml")).output();
        let (code, text) = outcome(&list.expect("the program starts"));
        assert_eq!((code, text.contains("model.directory = \"/srv/bundle\"")), (0, told), "{text}");
    }
}

#[test]
fn what_the_readme_tells_a_maker_to_do_makes_a_bundle_that_verifies() {
    let Some(device) = serving_device() else { return };
    let folder = device.path("maker");
    fs::create_dir(&folder).expect("ours");
    for (name, content) in files("1.1.0", "good") {
        fs::write(folder.join(name), content).expect("ours");
    }
    let script = format!(
        "tar --format=ustar -C maker -czf {NAME}-1.1.0.tar.gz manifest.json network.onnx golden.png README.md &&
         minisign -S -W -s keys/maker.key -m {NAME}-1.1.0.tar.gz -t 'landmarkd bundle {NAME} 1.1.0'"
    );
    let made = Command::new("sh").args(["-c", &script]).current_dir(device.path("")).output();
    let made = made.expect("a shell");
    assert!(made.status.success(), "{}", outcome(&made).1);
    let archive = device.path("").join(format!("{NAME}-1.1.0.tar.gz")).display().to_string();
    let verified = json(&device.run(&["verify", &archive, "--json"]));
    assert_eq!((&verified["version"], &verified["signed_by"]), (&"1.1.0".into(), &"maker".into()));
    let directory = json(&device.run(&["verify", &folder.display().to_string(), "--json"]));
    assert_eq!((&directory["version"], &directory["signed_by"]), (&"1.1.0".into(), &serde_json::Value::Null));
    fs::write(folder.join("golden.png"), "tampered").expect("ours");
    let (code, text) = outcome(&device.run(&["verify", &folder.display().to_string()]));
    assert_eq!(code, 65, "{text}");
}
