//! Films with their true landmarks, from the layouts that data sets are published in.

mod isbi;

use std::path::PathBuf;

pub use isbi::{IsbiSplit, Truth, isbi};

use crate::geometry::Point;

/// A film on disk and where its landmarks are.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledFilm {
    /// The film's name in its data set.
    pub name: String,
    /// The image file.
    pub path: PathBuf,
    /// In source pixels, in the data set's order.
    pub landmarks: Vec<Point>,
}

/// Why a data set could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file or folder could not be read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A label file does not hold what it should.
    #[error("{path}:{line}: expected {expected}, found `{found}`")]
    Label {
        /// Which file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What should stand there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A film could not be decoded.
    #[error("{path}: {reason}")]
    Film {
        /// Which film.
        path: PathBuf,
        /// The decoder's words.
        reason: String,
    },
    /// There is no film at all.
    #[error("{path} holds no film; expected {expected}")]
    Empty {
        /// Where they were looked for.
        path: PathBuf,
        /// What the layout looks like.
        expected: &'static str,
    },
}

/// Splits films into training and validation: every `n`th film, by order of name, validates.
///
/// The test set has no part in it.
#[must_use]
pub fn hold_out(films: Vec<LabelledFilm>, every: usize) -> (Vec<LabelledFilm>, Vec<LabelledFilm>) {
    let (mut train, mut validation) = (Vec::new(), Vec::new());
    for (i, film) in films.into_iter().enumerate() {
        if every > 0 && i % every == every - 1 { validation.push(film) } else { train.push(film) }
    }
    (train, validation)
}
