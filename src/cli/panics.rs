//! What a panic leaves in the journal: where it happened, and nothing of what it says.

use std::fmt::Display;
use std::io::Write;
use std::panic;

/// From now on a panic of any thread is told by its place in the source alone.
///
/// Its message may quote a film: decoders put what they read into theirs, and a panic that is caught was told by the
/// hook before (R31).
pub fn tell_places_only() {
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let text = line(journal, thread.name(), panic.location().map(|place| place as &dyn Display));
        // One write: no other line comes between. Where nobody reads there is nobody to tell.
        let _written = std::io::stderr().write_all(text.as_bytes());
    }));
}

fn line(journal: bool, thread: Option<&str>, place: Option<&dyn Display>) -> String {
    // 3 is an error to journald.
    let priority = if journal { "<3>" } else { "" };
    let thread = thread.unwrap_or("without a name");
    match place {
        Some(place) => format!("{priority}landmarkd: the thread {thread} panicked at {place}\n"),
        None => format!("{priority}landmarkd: the thread {thread} panicked\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const PATIENT: &str = "DOE^JANE";
    const IN_CHILD: &str = "PANICS_IN_CHILD";

    #[test]
    fn a_panic_tells_its_place_and_not_its_words() {
        if std::env::var_os(IN_CHILD).is_some() {
            tell_places_only();
            let caught = panic::catch_unwind(|| panic!("cannot read the name {PATIENT}"));
            assert!(caught.is_err());
            return;
        }
        // The hook is the process's, and this one runs other tests.
        let output = Command::new(std::env::current_exe().expect("we run"))
            .args(["--exact", "cli::panics::tests::a_panic_tells_its_place_and_not_its_words", "--nocapture"])
            .env(IN_CHILD, "1")
            .env("RUST_BACKTRACE", "1")
            .output()
            .expect("it can be run again");
        assert!(output.status.success());
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8_lossy(&told);
        assert!(told.contains("panicked at src/cli/panics.rs:"), "{told}");
        assert!(!told.contains(PATIENT) && !told.contains("cannot read"), "{told}");
    }

    #[test]
    fn a_line_for_journald_begins_with_its_priority() {
        assert_eq!(line(true, Some("t"), None), "<3>landmarkd: the thread t panicked\n");
        assert_eq!(line(false, None, Some(&"a.rs:1")), "landmarkd: the thread without a name panicked at a.rs:1\n");
    }
}
