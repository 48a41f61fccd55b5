//! One door to every layout: where the films lie, which of them are meant, and what is said of them.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    AasceSplit, Dataset, DatasetError, HandPart, IsbiSplit, LabelledFilm, Reading, Truth, aasce, generic, hand,
    hold_out_groups, isbi,
};
use crate::geometry::Point;

/// The layouts that data sets are published in, and the one for a user's own films.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// ISBI 2015 cephalograms: RawImage/TrainingData, 400_senior, 400_junior.
    #[default]
    Isbi,
    /// AASCE 2019 spines: data/train, labels/train.
    Aasce,
    /// The Digital Hand Atlas: images, all.csv, cv/set1.
    Hand,
    /// A folder of images and a file of labels.
    Own,
}

impl Layout {
    /// As it is written on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Isbi => "isbi",
            Self::Aasce => "aasce",
            Self::Hand => "hand",
            Self::Own => "own",
        }
    }

    /// The parts it has, for people.
    #[must_use]
    pub const fn parts(self) -> &'static str {
        match self {
            Self::Isbi => "train, validation, test1 and test2",
            Self::Aasce | Self::Hand => "train, validation and test",
            Self::Own => "train and validation",
        }
    }
}

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Every film to train on, those that validate among them.
    Train,
    /// The films that a run with the same `hold_out_every` kept back.
    Validation,
    /// The test films of AASCE or of a fold of the hand atlas.
    Test,
    /// The first test set of ISBI 2015.
    Test1,
    /// The second test set of ISBI 2015.
    Test2,
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
            Self::Test1 => "test1",
            Self::Test2 => "test2",
        })
    }
}

/// A data set on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// How it is laid out.
    pub layout: Layout,
    /// Its root.
    pub root: PathBuf,
    /// For own films: the labels, CSV or COCO keypoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<PathBuf>,
    /// For ISBI: whose landmarks count as true.
    pub truth: Truth,
    /// For the hand atlas: the fold, 1 to 3.
    pub fold: u8,
}

impl Source {
    /// The films of a part, in order of name; `every`: as [`hold_out_groups`], for the validation films.
    ///
    /// # Errors
    /// When the layout has no such part, or a file or label is missing or malformed.
    pub fn films(&self, split: Split, every: usize) -> Result<Dataset, DatasetError> {
        self.read(split, every)?.whole()
    }

    /// The films of a part that are sound, and all that is wrong with the others; otherwise as [`films`](Self::films).
    ///
    /// # Errors
    /// When the layout has no such part, or a folder or a file that says what the films are is missing.
    pub fn read(&self, split: Split, every: usize) -> Result<Reading, DatasetError> {
        let none = || DatasetError::NoSuchPart { layout: self.layout, split };
        if split == Split::Validation {
            let Reading { dataset: all, faults } = self.read(Split::Train, every)?;
            return Ok(Reading { dataset: Dataset { films: hold_out_groups(all.films, every).1, ..all }, faults });
        }
        match (self.layout, split) {
            (Layout::Isbi, Split::Train) => isbi(&self.root, IsbiSplit::Train, self.truth),
            (Layout::Isbi, Split::Test1) => isbi(&self.root, IsbiSplit::Test1, self.truth),
            (Layout::Isbi, Split::Test2) => isbi(&self.root, IsbiSplit::Test2, self.truth),
            (Layout::Aasce, Split::Train) => aasce(&self.root, AasceSplit::Train),
            (Layout::Aasce, Split::Test) => aasce(&self.root, AasceSplit::Test),
            (Layout::Hand, Split::Train) => hand(&self.root, self.fold, HandPart::Train),
            (Layout::Hand, Split::Test) => hand(&self.root, self.fold, HandPart::Test),
            (Layout::Own, Split::Train) => match &self.labels {
                Some(labels) => generic(&self.root, labels),
                None => Err(DatasetError::NoLabels { path: self.root.clone() }),
            },
            _ => Err(none()),
        }
    }

    /// The films to train on and those that validate.
    ///
    /// # Errors
    /// As [`films`](Self::films).
    pub fn training(&self, every: usize) -> Result<(Dataset, Vec<LabelledFilm>), DatasetError> {
        let all = self.films(Split::Train, every)?;
        let (films, validation) = hold_out_groups(all.films, every);
        Ok((Dataset { films, ..all }, validation))
    }

    /// The digest of a set to train on, by which a run, a bundle and later films find out whether they are of one set:
    /// names and groups, which say what is held out, and of own films, whose names may be anybody's, the landmarks.
    #[must_use]
    pub fn films_sha256<'a>(&self, films: impl IntoIterator<Item = &'a LabelledFilm>) -> String {
        let mut films: Vec<_> = films.into_iter().collect();
        films.sort_by(|a, b| a.name.cmp(&b.name));
        let mut hash = Sha256::new();
        for LabelledFilm { name, group, landmarks, visible, .. } in films {
            hash.update(format!("{name}\0{group}\0"));
            if self.layout == Layout::Own {
                for (Point { x, y }, visible) in landmarks.iter().zip(visible) {
                    hash.update([x.to_le_bytes(), y.to_le_bytes()].concat());
                    hash.update([u8::from(*visible)]);
                }
            }
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The part that a bundle is measured on where nothing else is asked for.
    #[must_use]
    pub const fn default_split(&self) -> Split {
        match self.layout {
            Layout::Isbi => Split::Test1,
            Layout::Hand => Split::Test,
            // Its 128 test films are not handed out with their labels.
            Layout::Aasce | Layout::Own => Split::Validation,
        }
    }

    /// What a part is called in cards and evaluations.
    #[must_use]
    pub fn words(&self, split: Split, every: usize) -> String {
        let part = match split {
            Split::Train => "training".to_owned(),
            Split::Validation => format!("training, the one group in {every} that was held out"),
            Split::Test => "test".to_owned(),
            Split::Test1 => "Test1".to_owned(),
            Split::Test2 => "Test2".to_owned(),
        };
        match self.layout {
            Layout::Isbi => format!("ISBI 2015 {part}"),
            Layout::Aasce => format!("AASCE 2019 {part}"),
            Layout::Hand => format!("Digital Hand Atlas, fold {}, {part}", self.fold),
            Layout::Own => format!("own films, {part}"),
        }
    }

    /// Whose landmarks count as true, in words.
    #[must_use]
    pub const fn truth_words(&self) -> &'static str {
        match self.layout {
            Layout::Isbi => self.truth.words(),
            Layout::Aasce | Layout::Hand | Layout::Own => "the set's own labels",
        }
    }

    /// What its films show, in the plural.
    #[must_use]
    pub const fn anatomy(&self) -> &'static str {
        match self.layout {
            Layout::Isbi => "lateral cephalograms",
            Layout::Aasce => "anterior-posterior radiographs of the spine",
            Layout::Hand => "radiographs of the hand",
            Layout::Own => "the user's own films",
        }
    }

    /// The terms of weights that were trained on it.
    #[must_use]
    pub const fn licence(&self) -> &'static str {
        match self.layout {
            Layout::Isbi => "research use: trained on the ISBI 2015 cephalograms, whose terms allow research only",
            Layout::Aasce => {
                "research use: trained on the AASCE 2019 spine radiographs, whose terms allow research only"
            }
            Layout::Hand => "research use: trained on the Digital Hand Atlas, whose terms allow research only",
            Layout::Own => "that of the films it was trained on",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn own(films: usize) -> (tempfile::TempDir, Source) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut labels = "file,tip_x,tip_y\n".to_owned();
        for i in 0..films {
            image::GrayImage::new(40, 50).save(folder.path().join(format!("{i}.png"))).expect("a fresh folder");
            labels += &format!("{i}.png,{i},7\n");
        }
        let path = folder.path().join("labels.csv");
        fs::write(&path, labels).expect("a fresh folder");
        let root = folder.path().to_owned();
        (folder, Source { layout: Layout::Own, root, labels: Some(path), truth: Truth::Mean, fold: 1 })
    }

    #[test]
    fn training_and_validation_are_the_whole_without_overlap() {
        let (_folder, source) = own(7);
        let (train, validation) = source.training(3).expect("a sound data set");
        assert_eq!((train.films.len(), validation.len(), train.landmarks), (5, 2, vec!["tip".to_owned()]));
        let held_out = source.films(Split::Validation, 3).expect("a sound data set").films;
        assert_eq!(held_out, validation);
        assert!(train.films.iter().all(|film| !held_out.contains(film)));
        assert_eq!(source.films(Split::Train, 3).expect("a sound data set").films.len(), 7);
    }

    #[test]
    fn a_broken_label_is_read_as_a_fault_and_refuses_the_films() {
        let (folder, source) = own(3);
        let labels = folder.path().join("labels.csv");
        fs::write(&labels, "file,tip_x,tip_y\n0.png,1,7\n1.png,?,7\n2.png,1,?\n").expect("a fresh folder");
        let Reading { dataset, faults } = source.read(Split::Train, 0).expect("a table");
        assert_eq!((dataset.films.len(), faults.len()), (1, 2));
        for error in [source.films(Split::Train, 0).err(), source.training(2).err()] {
            let error = error.expect("a broken label").to_string();
            assert!(error.contains("labels.csv: line 3: `?` is no coordinate"), "{error}");
        }
    }

    #[test]
    fn a_part_that_the_layout_lacks_is_named() {
        let (_folder, source) = own(1);
        let error = source.films(Split::Test1, 3).expect_err("own films have no test set").to_string();
        assert_eq!(error, "there is no split `test1` in the layout `own`; it has train and validation");
        let without = Source { labels: None, ..source };
        assert!(without.films(Split::Train, 3).expect_err("no labels").to_string().ends_with("name it with --labels"));
    }
}
