//! What a text must not name.

use std::path::Path;

use crate::config::{AfterPublish, Settings};

/// Paths that people chose after their own habits, a patient's name among them, and what stands in their place.
#[derive(Clone, Debug)]
pub struct Withheld {
    paths: Vec<(String, &'static str)>,
}

impl Withheld {
    /// The folders of a configuration that films come from and go to.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let mut withheld = Self { paths: Vec::new() };
        withheld.add(&settings.acquisition.folder, "<acquisition.folder>");
        if let AfterPublish::Move(target) = &settings.acquisition.after {
            withheld.add(target, "<acquisition.after_folder>");
        }
        // The longest first: one may lie in the other.
        withheld.paths.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        withheld
    }

    fn add(&mut self, path: &Path, token: &'static str) {
        let shown = path.display().to_string();
        // As errors quote it, and as the system knows it.
        let quoted = format!("{path:?}");
        let quoted = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(&quoted).to_owned();
        let real = path.canonicalize().map(|path| path.display().to_string()).unwrap_or_else(|_| shown.clone());
        for form in [shown, quoted, real] {
            let form = form.trim_end_matches('/').to_owned();
            if !form.is_empty() && !self.paths.iter().any(|(known, _)| *known == form) {
                self.paths.push((form, token));
            }
        }
    }

    /// The text with a token for each such path; what follows below one is withheld with the rest of its line, for a
    /// file's name may hold anything.
    #[must_use]
    pub fn hide(&self, text: &str) -> String {
        let mut hidden = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            hidden.push_str(&self.hide_line(line));
        }
        hidden
    }

    fn hide_line(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for (path, token) in &self.paths {
            let mut from = 0;
            while let Some(at) = line[from..].find(path.as_str()).map(|at| from + at) {
                let rest = &line[at + path.len()..];
                if rest.starts_with('/') {
                    let end = if rest.ends_with('\n') { "\n" } else { "" };
                    line = format!("{}{token}/..{end}", &line[..at]);
                    break;
                }
                line = format!("{}{token}{rest}", &line[..at]);
                from = at + token.len();
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_withheld_in_every_form_with_all_below_it() {
        let mut withheld = Withheld { paths: Vec::new() };
        withheld.add(Path::new("/srv/DOE \"Jane\"/done"), "<b>");
        withheld.add(Path::new("/srv/DOE \"Jane\""), "<a>");
        for (text, expected) in [
            ("watching /srv/DOE \"Jane\" now\n", "watching <a> now\n"),
            ("cannot read \"/srv/DOE \\\"Jane\\\"\": gone", "cannot read \"<a>\": gone"),
            ("a\n/srv/DOE \"Jane\"/x ray/doe.dcm: cut\nb\n", "a\n<a>/..\nb\n"),
            ("to /srv/DOE \"Jane\"/done, from /srv/DOE \"Jane\"", "to <b>, from <a>"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(withheld.hide(text), expected, "{text}");
        }
    }
}
