//! A film with its true landmarks, a data set of them, and the split that keeps together what belongs together.

use std::collections::BTreeSet;
use std::path::PathBuf;

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
    /// Which of them have a known place; where not, the point is the origin and says nothing.
    pub visible: Vec<bool>,
    /// What the film shares with others: a patient, a case. A split never cuts through a group.
    pub group: String,
    /// The side of a pixel, where the data set says it.
    pub mm_per_px: Option<f64>,
    /// Where its labels stand, for a person who mends them.
    pub labels: LabelPlace,
}

/// Where a film's labels stand.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum LabelPlace {
    /// It is not known.
    #[default]
    Unknown,
    /// In one entry of a file.
    Entry {
        /// Which file.
        path: PathBuf,
        /// Its line, annotation or array.
        entry: String,
    },
    /// In each of these files, a landmark a line from the first one on.
    Lines(Vec<PathBuf>),
}

impl LabelPlace {
    /// Where these landmarks stand, counted from 0: files and, where known, lines; without landmarks the files alone.
    #[must_use]
    pub fn of(&self, landmarks: &[usize]) -> Option<String> {
        match self {
            Self::Unknown => None,
            Self::Entry { path, entry } => Some(format!("{}: {entry}", path.display())),
            Self::Lines(paths) => {
                let places = paths.iter().flat_map(|path| {
                    let file = path.display();
                    let lines: Vec<String> = landmarks.iter().map(|k| format!("{file}:{}", k + 1)).collect();
                    if lines.is_empty() { vec![file.to_string()] } else { lines }
                });
                Some(places.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl LabelledFilm {
    /// A film on which every landmark is visible, in a group of its own, without a scale or a known place of its labels.
    #[must_use]
    pub fn new(name: String, path: PathBuf, landmarks: Vec<Point>) -> Self {
        Self {
            visible: vec![true; landmarks.len()],
            group: name.clone(),
            name,
            path,
            landmarks,
            mm_per_px: None,
            labels: LabelPlace::Unknown,
        }
    }
}

/// Films that carry the same landmarks.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Names of the landmarks, in the films' order.
    pub landmarks: Vec<String>,
    /// The films, in order of name.
    pub films: Vec<LabelledFilm>,
    /// What was mended or left out: sentences for people.
    pub notes: Vec<String>,
}

/// Splits films into training and validation: every `n`th group, by order of its name, validates; none where it is 0.
///
/// The films of a group are all on one side, and both sides keep the order of `films`.
#[must_use]
pub fn hold_out_groups(films: Vec<LabelledFilm>, every: usize) -> (Vec<LabelledFilm>, Vec<LabelledFilm>) {
    let groups: BTreeSet<&str> = films.iter().map(|film| film.group.as_str()).collect();
    let validating: BTreeSet<String> = match every.checked_sub(1) {
        Some(skipped) => groups.into_iter().skip(skipped).step_by(every).map(str::to_owned).collect(),
        None => BTreeSet::new(),
    };
    films.into_iter().partition(|film| !validating.contains(&film.group))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn films(groups: &[&str]) -> Vec<LabelledFilm> {
        let film = |(i, group): (usize, &&str)| {
            let film = LabelledFilm::new(format!("film {i}"), PathBuf::new(), Vec::new());
            LabelledFilm { group: (*group).to_owned(), ..film }
        };
        groups.iter().enumerate().map(film).collect()
    }

    fn names(films: &[LabelledFilm]) -> Vec<&str> {
        films.iter().map(|film| film.name.as_str()).collect()
    }

    #[test]
    fn a_place_names_files_and_the_lines_of_its_landmarks() {
        assert_eq!(LabelPlace::Unknown.of(&[0]), None);
        let entry = LabelPlace::Entry { path: "labels.csv".into(), entry: "line 3".to_owned() };
        assert_eq!(entry.of(&[0, 4]).as_deref(), Some("labels.csv: line 3"));
        let lines = LabelPlace::Lines(vec!["senior/1.txt".into(), "junior/1.txt".into()]);
        assert_eq!(lines.of(&[4]).as_deref(), Some("senior/1.txt:5, junior/1.txt:5"));
        assert_eq!(lines.of(&[]).as_deref(), Some("senior/1.txt, junior/1.txt"));
    }

    #[test]
    fn a_group_stays_on_one_side() {
        let (train, validation) = hold_out_groups(films(&["b", "a", "c", "b", "d", "a"]), 2);
        assert_eq!(names(&train), ["film 1", "film 2", "film 5"]);
        assert_eq!(names(&validation), ["film 0", "film 3", "film 4"]);
    }

    #[test]
    fn films_in_groups_of_their_own_are_split_one_by_one() {
        let (train, validation) = hold_out_groups(films(&["1", "2", "3", "4", "5", "6", "7"]), 3);
        assert_eq!(names(&train), ["film 0", "film 1", "film 3", "film 4", "film 6"]);
        assert_eq!(names(&validation), ["film 2", "film 5"]);
    }

    #[test]
    fn every_0th_group_is_none_and_every_1st_is_all() {
        let five = films(&["a", "b", "c", "d", "e"]);
        assert_eq!(hold_out_groups(five.clone(), 0), (five.clone(), Vec::new()));
        assert_eq!(hold_out_groups(five.clone(), 1), (Vec::new(), five));
    }
}
