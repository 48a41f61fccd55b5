//! A check and its forms for people and programs.

use serde::Serialize;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and somebody should look at it.
    Warn,
    /// It cannot work so.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at; the same word in every version.
    pub name: &'static str,
    /// How it went.
    pub verdict: Verdict,
    /// What was found.
    pub words: String,
    /// What to do, where something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// All checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The program's version.
    pub version: &'static str,
    /// The worst of the checks.
    pub verdict: Verdict,
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

impl Check {
    /// As it should be.
    pub(super) fn ok(name: &'static str, words: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, words: words.into(), remedy: None }
    }

    /// It works, and somebody should look at it.
    pub(super) fn warn(name: &'static str, words: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warn, words: words.into(), remedy: Some(remedy.into()) }
    }

    /// It cannot work so.
    pub(super) fn fail(name: &'static str, words: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Fail, words: words.into(), remedy: Some(remedy.into()) }
    }
}

impl Report {
    /// The checks and the worst of their verdicts.
    #[must_use]
    pub fn new(checks: Vec<Check>) -> Self {
        let verdict = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
        Self { version: env!("CARGO_PKG_VERSION"), verdict, checks }
    }

    /// One line a check, and one for what to do; with colours for a terminal.
    #[must_use]
    pub fn table(&self, colours: bool) -> String {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for Check { name, verdict, words, remedy } in &self.checks {
            let (word, colour) = match verdict {
                Verdict::Ok => ("ok", "32"),
                Verdict::Warn => ("warn", "33"),
                Verdict::Fail => ("FAIL", "31"),
            };
            let padded = format!("{word:<4}");
            let word = if colours { format!("\x1b[{colour}m{padded}\x1b[0m") } else { padded };
            let indent = width + 8;
            text.push_str(&format!("{word}  {name:<width$}  {}\n", under(words, indent)));
            if let Some(remedy) = remedy {
                text.push_str(&format!("{:indent$}-> {}\n", "", under(remedy, indent + 3)));
            }
        }
        text
    }
}

/// Text of several lines, each after the first below the first.
fn under(text: &str, indent: usize) -> String {
    text.replace('\n', &format!("\n{:indent$}", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report::new(vec![
            Check::ok("clock", "in step"),
            Check::fail("configuration", "two\nmistakes", "mend them"),
            Check::warn("gpu", "hot", "cool it"),
        ])
    }

    #[test]
    fn the_worst_check_is_the_verdict_and_the_table_says_what_to_do() {
        assert_eq!(report().verdict, Verdict::Fail);
        let expected = "\
ok    clock          in step
FAIL  configuration  two
                     mistakes
                     -> mend them
warn  gpu            hot
                     -> cool it
";
        assert_eq!(report().table(false), expected);
        assert!(report().table(true).contains("\x1b[31mFAIL\x1b[0m  configuration"));
    }

    #[test]
    fn programs_get_the_same_as_json() {
        let json = serde_json::to_value(report()).expect("plain data");
        assert_eq!(json["verdict"], "fail");
        assert_eq!(json["checks"][0], serde_json::json!({"name": "clock", "verdict": "ok", "words": "in step"}));
        assert_eq!(json["checks"][2]["remedy"], "cool it");
    }
}
