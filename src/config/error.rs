//! What can be wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

use crate::disposition::Disposition;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: the default holds.
    Default,
    /// A line of a file, counted from 1.
    File {
        /// The main file or one of `conf.d`.
        path: PathBuf,
        /// The line of the key.
        line: usize,
    },
    /// An environment variable, by its name.
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// One thing that is wrong. Its text names the place, the key, the value, what is allowed and what to do; it never
/// repeats the value of an unknown key, which may be a secret written in the wrong place.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or folder of the configuration cannot be read.
    #[error("{}: cannot read the configuration: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not TOML.
    #[error("{origin}: this is not TOML: {message}")]
    Syntax {
        /// The line where reading stopped.
        origin: Origin,
        /// What the parser says, without the text itself.
        message: String,
    },
    /// A key or section that does not exist.
    #[error("{origin}: unknown {what} {name}{}", suggest(.suggestion))]
    Unknown {
        /// Where it is written.
        origin: Origin,
        /// "key", "section" or "variable".
        what: &'static str,
        /// As it is written.
        name: String,
        /// What was probably meant, or what there is.
        suggestion: Suggestion,
    },
    /// A secret where everybody can read it (R39).
    #[error("{origin}: {name} would put a secret where others can read it: use {instead}, the path of a file")]
    Secret {
        /// Where it is written.
        origin: Origin,
        /// The key or variable.
        name: String,
        /// The keys that name files of secrets.
        instead: String,
    },
    /// A value that its key does not take.
    #[error("{origin}: {key} = {value} is not allowed: it takes {allowed}; {remedy}")]
    Value {
        /// Where it is written.
        origin: Origin,
        /// `section.key`.
        key: &'static str,
        /// As TOML.
        value: String,
        /// What the key takes.
        allowed: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A key without which there is nothing to run.
    #[error("{}: {key} is missing: it takes {allowed}; {remedy}", path.display())]
    Missing {
        /// The main file.
        path: PathBuf,
        /// `section.key`.
        key: &'static str,
        /// What the key takes.
        allowed: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Values that are right each and wrong together.
    #[error("{origin}: {key} = {value} {problem}; {remedy}")]
    Conflict {
        /// Where the named key is written.
        origin: Origin,
        /// `section.key`.
        key: &'static str,
        /// As TOML.
        value: String,
        /// With what it conflicts.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
}

/// What to offer instead of an unknown name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suggestion {
    /// The nearest name.
    DidYouMean(String),
    /// Nothing is near: all there is.
    Known(Vec<String>),
}

fn suggest(suggestion: &Suggestion) -> String {
    match suggestion {
        Suggestion::DidYouMean(name) => format!(": did you mean {name}?"),
        Suggestion::Known(names) => format!(": there are {}", names.join(", ")),
    }
}

/// Everything that is wrong with a configuration, so that one look repairs it.
#[derive(Debug)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigErrors {
    /// Always fatal: the daemon never runs on a guess.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        Disposition::Fatal
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
