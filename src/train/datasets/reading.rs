//! What a reader makes of a data set: the films that are sound and what is wrong with the others, so that a person sees
//! every fault at once while a training run refuses the first.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Dataset, DatasetError};

/// A data set as it was read.
#[derive(Debug)]
pub struct Reading {
    /// The films whose labels can be used.
    pub dataset: Dataset,
    /// Every label that cannot be used; its film is not among those above.
    pub faults: Vec<DatasetError>,
}

impl Reading {
    /// The data set, where nothing is wrong with it.
    ///
    /// # Errors
    /// With the first fault.
    pub fn whole(self) -> Result<Dataset, DatasetError> {
        match self.faults.into_iter().next() {
            Some(fault) => Err(fault),
            None => Ok(self.dataset),
        }
    }
}

/// The files of a folder whose names without ending are `wanted`, by that name; of two for one film the first counts.
pub(super) fn images(
    folder: &Path,
    wanted: impl Fn(&str) -> bool,
    faults: &mut Vec<DatasetError>,
) -> Result<BTreeMap<String, PathBuf>, DatasetError> {
    let io = |source| DatasetError::Io { path: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        paths.push(entry.map_err(io)?.path());
    }
    paths.sort();
    let mut images = BTreeMap::new();
    for path in paths {
        let stem = path.file_stem().and_then(|s| s.to_str()).filter(|stem| wanted(stem)).map(str::to_owned);
        let Some(stem) = stem else { continue };
        match images.entry(stem) {
            Entry::Vacant(place) => {
                place.insert(path);
            }
            Entry::Occupied(first) => faults.push(DatasetError::Entry {
                path,
                entry: format!("film `{}`", first.key()),
                problem: format!("{} is the same film", first.get().display()),
                remedy: "keep one of them".to_owned(),
            }),
        }
    }
    Ok(images)
}
