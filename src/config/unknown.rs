//! Names that are not in the table: what was probably meant, and secrets where they must not stand.

use super::error::{ConfigError, Origin, Suggestion};
use super::keys::{Allowed, KEYS};
use super::layers::ENVIRONMENT_PREFIX;

/// How alike two names must be (Jaro-Winkler, 0..=1) to ask "did you mean".
const ALIKE: f64 = 0.8;

/// Whether there is a section of this name.
pub(super) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.parts().0 == name)
}

/// A variable that begins as ours do and has no `__`, in lower case and without the prefix as `rest`.
///
/// Other variables of ours look like that too; only a forgotten second underscore is worth a word.
pub(super) fn unknown_variable(variable: &str, rest: &str, origin: Origin) -> Option<ConfigError> {
    let (section, name) = rest.split_once('_').filter(|(section, _)| is_section(section))?;
    if is_secret(name) {
        return Some(secret(format!("{section}.{name}"), origin));
    }
    let suggestion = Suggestion::DidYouMean(format!("{ENVIRONMENT_PREFIX}{section}__{name}").to_uppercase());
    Some(ConfigError::Unknown { origin, what: "variable", name: variable.to_owned(), suggestion })
}

/// A key that its section does not have.
pub(super) fn unknown_key(section: &str, name: &str, origin: Origin) -> ConfigError {
    if is_secret(name) {
        return secret(format!("{section}.{name}"), origin);
    }
    let full = format!("{section}.{name}");
    // The right key in its own section first, then the same word anywhere.
    let nearest = KEYS.iter().map(|key| {
        let (of, key_name) = key.parts();
        let inside = if of == section { strsim::jaro_winkler(name, key_name) } else { 0.0 };
        let elsewhere = if name == key_name { 0.95 } else { 0.9 * strsim::jaro_winkler(&full, key.name) };
        (inside.max(elsewhere), key.name)
    });
    let suggestion = match nearest.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((score, key)) if score >= ALIKE => Suggestion::DidYouMean(key.to_owned()),
        _ => Suggestion::Known(
            KEYS.iter().filter(|key| key.parts().0 == section).map(|key| key.name.to_owned()).collect(),
        ),
    };
    ConfigError::Unknown { origin, what: "key", name: full, suggestion }
}

/// A section that does not exist, or a key before the first section.
pub(super) fn unknown_at_top(name: &str, is_table: bool, origin: Origin) -> ConfigError {
    if !is_table && is_secret(name) {
        return secret(name.to_owned(), origin);
    }
    if !is_table && let Some(key) = KEYS.iter().find(|key| key.parts().1 == name) {
        let suggestion = Suggestion::DidYouMean(key.name.to_owned());
        return ConfigError::Unknown { origin, what: "key", name: name.to_owned(), suggestion };
    }
    let mut sections: Vec<_> = KEYS.iter().map(|key| format!("[{}]", key.parts().0)).collect();
    sections.dedup();
    let alike = |section: &String| strsim::jaro_winkler(name, section.trim_matches(['[', ']']));
    let nearest = sections.iter().map(|section| (alike(section), section)).max_by(|a, b| a.0.total_cmp(&b.0));
    let suggestion = match nearest {
        Some((score, section)) if score >= ALIKE => Suggestion::DidYouMean(section.clone()),
        _ => Suggestion::Known(sections),
    };
    let what = if is_table { "section" } else { "key" };
    ConfigError::Unknown { origin, what, name: name.to_owned(), suggestion }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    let words = ["password", "passwd", "passphrase", "secret", "token", "key"];
    !name.ends_with("_file") && name.split('_').any(|part| words.contains(&part))
}

fn secret(name: String, origin: Origin) -> ConfigError {
    let files = KEYS.iter().filter(|key| matches!(key.allowed, Allowed::SecretFile)).map(|key| key.name);
    ConfigError::Secret { origin, name, instead: files.collect::<Vec<_>>().join(", ") }
}
