//! Films with their true landmarks, from the layouts that data sets are published in.

mod aasce;
mod aasce_table;
mod film;
mod generic;
mod generic_coco;
mod generic_csv;
mod hand;
mod isbi;
mod mat;
mod reading;
mod source;
mod vertebrae;

use std::path::{Path, PathBuf};

pub use aasce::{AasceSplit, aasce};
pub use film::{Dataset, LabelPlace, LabelledFilm, hold_out_groups};
pub use generic::generic;
pub use hand::{HAND_NAMES, HandPart, hand};
pub use isbi::{ISBI_MM_PER_PX, IsbiSplit, Truth, isbi};
pub use reading::Reading;
pub use source::{Layout, Source, Split};

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
    /// A film has no file of labels.
    #[error("{film}: film without labels: there is no {labels}")]
    Unlabelled {
        /// Which film.
        film: PathBuf,
        /// Where its labels should be.
        labels: PathBuf,
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
    /// An entry of a label file cannot be used.
    #[error("{path}: {entry}: {problem}; {remedy}")]
    Entry {
        /// Which file.
        path: PathBuf,
        /// Its line, annotation or other part.
        entry: String,
        /// What is wrong there, with the value found.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
    /// The layout has no such part.
    #[error("there is no split `{split}` in the layout `{}`; it has {}", layout.name(), layout.parts())]
    NoSuchPart {
        /// Which layout.
        layout: Layout,
        /// What was asked for.
        split: Split,
    },
    /// Own films without labels.
    #[error("{path}: own films need a file of labels, CSV or COCO keypoints; name it with --labels")]
    NoLabels {
        /// The films' folder.
        path: PathBuf,
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

impl DatasetError {
    /// The film, where nothing is wrong but that it has no labels.
    #[must_use]
    pub fn unlabelled(&self) -> Option<&Path> {
        match self {
            Self::Unlabelled { film, .. } => Some(film),
            _ => None,
        }
    }
}
