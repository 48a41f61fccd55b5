//! The house rules that a compiler does not hold: which room may know which, and how large a file grows.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every Rust file below `src`, with its text.
fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).expect("a source folder") {
            let path = entry.expect("a source file").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("a source file is UTF-8");
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 50, "only {} files found: the walk is broken", found.len());
    found
}

/// The first component below `src`: the room.
fn room(path: &Path) -> String {
    let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("a source file");
    let first = below.components().next().expect("a file name").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The rooms that a text names through `crate::`, outside comments.
fn named(text: &str) -> Vec<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut names = Vec::new();
    for after in code.split("crate::").skip(1) {
        let list = after.strip_prefix('{').map(|rest| rest.split('}').next().unwrap_or(rest));
        let firsts: Vec<&str> = match list {
            Some(list) => list.split(',').map(str::trim).collect(),
            None => vec![after],
        };
        for name in firsts {
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
            names.push(name[..end].to_owned());
        }
    }
    names
}

/// What each room may know; `*` is everything. A room that is not listed fails the test: say here where it stands.
fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    let mut allowed: BTreeMap<&str, &[&str]> = BTreeMap::new();
    for vocabulary in ["geometry", "disposition", "crash_point", "pulse"] {
        allowed.insert(vocabulary, &[]);
    }
    allowed.insert("landmark", &["geometry"]);
    allowed.insert("config", &["disposition", "geometry", "measure"]);
    allowed.insert("secret", &["disposition"]);
    allowed.insert("radiograph", &["disposition", "geometry"]);
    allowed.insert("measure", &["geometry", "landmark"]);
    allowed.insert("model", &["crash_point", "disposition", "geometry", "measure"]);
    allowed.insert("inference", &["disposition", "geometry", "landmark", "model", "radiograph"]);
    allowed.insert("report", &["disposition", "geometry", "measure"]);
    allowed.insert(
        "analysis",
        &["disposition", "geometry", "inference", "landmark", "measure", "model", "radiograph", "report"],
    );
    allowed.insert("overlay", &["geometry", "landmark", "radiograph"]);
    // These three move films and events; of what is in them they know the published documents at most.
    allowed.insert("acquisition", &["config", "crash_point", "disposition", "pulse", "report"]);
    allowed.insert("store", &["crash_point", "disposition", "pulse", "report", "secret"]);
    allowed.insert("outbox", &["crash_point", "disposition", "report", "store"]);
    allowed.insert("mqtt", &["config", "crash_point", "disposition", "outbox", "pulse", "report", "secret", "store"]);
    // What the machine says of itself; the words for why it throttles are the published ones.
    allowed.insert("telemetry", &["report"]);
    allowed.insert("health", &["disposition", "report", "telemetry"]);
    allowed.insert("daemon", &["*"]);
    allowed.insert("cli", &["*"]);
    // The trainer shares the device's geometry and decoding, and nothing that serves.
    let trainer =
        &["disposition", "geometry", "inference", "landmark", "measure", "model", "network", "radiograph", "train"];
    allowed.insert("train", trainer);
    allowed.insert("network", &["geometry", "train"]);
    for root in ["lib", "main", "bin", "build", "fuzzing"] {
        allowed.insert(root, &["*"]);
    }
    allowed
}

#[test]
fn every_room_knows_only_what_lies_below_it() {
    let allowed = allowed();
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let room = room(&path);
        let Some(may) = allowed.get(room.as_str()) else {
            wrong.push(format!("{}: the room `{room}` has no place in tests/tidy.rs", path.display()));
            continue;
        };
        // Tests may build what they need from anywhere.
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(&text);
        if may.contains(&"*") || path.ends_with("tests.rs") {
            continue;
        }
        for name in named(code) {
            if name != room && !may.contains(&name.as_str()) && name.chars().next().is_some_and(char::is_lowercase) {
                wrong.push(format!("{}: `{room}` must not know `{name}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_framework_leaves_its_room() {
    for (framework, home) in [("tract_onnx", "inference"), ("tch", "network"), ("rumqttc", "mqtt"), ("redb", "")] {
        for (path, text) in sources() {
            let room = room(&path);
            let homes: &[&str] = match framework {
                "redb" => &["store", "outbox", "acquisition", "daemon"],
                // The exporter writes ONNX with the message types that tract reads it with.
                "tract_onnx" => &["inference", "train"],
                _ => &[home],
            };
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let word = |line: &str| {
                line.match_indices(framework)
                    .any(|(at, _)| !line[..at].ends_with(is_word) && !line[at + framework.len()..].starts_with(is_word))
            };
            let uses = code.filter(|line| word(line)).count();
            assert!(uses == 0 || homes.contains(&room.as_str()), "{}: {framework} outside {homes:?}", path.display());
        }
    }
}

#[test]
fn the_programs_stay_thin_and_no_file_outgrows_its_reader() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        let limit = if path.ends_with("src/main.rs") || path.ends_with("bin/landmark-train.rs") { 80 } else { 480 };
        assert!(lines <= limit, "{}: {lines} lines, more than {limit}", path.display());
    }
}

#[test]
fn the_crate_doc_names_every_room() {
    let map = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("the crate doc");
    let doc: String = map.lines().filter(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n");
    for line in map.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        let room = line.trim_end_matches(';');
        assert!(
            doc.contains(&format!("[`{room}`]")) || doc.contains(&format!("`{room}` (feature")),
            "src/lib.rs does not say what `{room}` is"
        );
    }
    assert!(
        map.lines().all(|line| !line.starts_with("fn ") && !line.starts_with("impl ")),
        "the crate doc holds no code"
    );
}

/// What makes something durable, or takes it away, stands in a step that `tests/crash.rs` kills the daemon at.
#[test]
fn every_durable_step_has_a_name() {
    let durable = ["sync_all()", "sync_data()", "fsync(", "fs::rename(", "renameat_with(", "tx.commit()", "unlinkat("];
    // Where each room's own tests walk (`model`), or a person's copy is written and read back (`cli`).
    let rooms = ["acquisition", "daemon", "mqtt", "outbox", "store"];
    let mut wrong = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| rooms.contains(&room(path).as_str())) {
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // The backend passes redb's own calls on: they are steps where they are asked for.
        let is_test = path.components().any(|part| part.as_os_str() == "tests");
        if is_test || ["tests.rs", "writes.rs", "backend.rs"].contains(&file.as_str()) {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(&text);
        let lines: Vec<&str> = code.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let is_durable = durable.iter().any(|call| line.contains(call)) && !line.trim_start().starts_with("//");
            let near = lines[number.saturating_sub(1)..(number + 3).min(lines.len())].join(" ");
            if is_durable && !near.contains("crash_point::step(") && !UNDONE.contains(&line.trim()) {
                wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "outside crash_point::step:\n{}", wrong.join("\n"));
}

/// What takes an unfinished copy back: after a crash it lies there, under a name of its own.
const UNDONE: [&str; 1] = ["unlinkat(to, free, AtFlags::empty())?;"];
