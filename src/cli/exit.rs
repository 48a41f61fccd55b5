//! How the program ends: the exit codes of `sysexits.h`, and the failure that carries one.

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitCode;

/// Every exit code there is (R46).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All went well.
    Success = 0,
    /// The command line is wrong.
    Usage = 64,
    /// At least one film is no film, or is broken.
    BadInput = 65,
    /// No film could be opened, or there is no model.
    NoInput = 66,
    /// A service that is needed is away.
    Service = 69,
    /// The program is wrong.
    Bug = 70,
    /// Writing or reading failed.
    Io = 74,
    /// The configuration or the model is wrong; the service manager does not restart us (R36).
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a subcommand could not do its work, and with which code to say so.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// The reason; its text is printed after the program's name, with its sources.
    pub error: Box<dyn Error + Send + Sync>,
}

impl Failure {
    /// Ends with `exit` because of `error`.
    #[must_use]
    pub fn new(exit: Exit, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { exit, error: error.into() }
    }

    /// Whether whoever read our output has left (`landmarkd schema | head -1`): nothing to complain about.
    #[must_use]
    pub fn is_reader_gone(&self) -> bool {
        self.error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Writing to standard output failed.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Exit::Io, error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(self.error.as_ref()))
    }
}

impl Error for Failure {}

/// The error and its sources in one line; a source that the text before it already holds is not said twice.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read film.dcm")]
    struct Terse(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read film.dcm: {0}")]
    struct Telling(#[source] io::Error);

    #[test]
    fn each_source_is_said_once() {
        let cause = || io::Error::other("disk on fire");
        for failure in [Failure::new(Exit::Io, Terse(cause())), Failure::new(Exit::Io, Telling(cause()))] {
            assert_eq!(failure.to_string(), "cannot read film.dcm: disk on fire");
        }
    }

    #[test]
    fn a_closed_pipe_is_told_from_a_full_disk() {
        assert!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).is_reader_gone());
        assert!(!Failure::from(io::Error::from(io::ErrorKind::StorageFull)).is_reader_gone());
    }
}
