//! `[measures]`: whose norms, and their ranges.

use super::file::MeasuresSection;
use super::keys;
use crate::measure::{ISBI2015, Norms};

/// `measures.norms` where no value is to have a class.
const NO_NORMS: &str = "none";

/// A key that does not go together with another.
#[derive(Debug)]
pub(super) struct Conflict {
    /// `section.key`.
    pub(super) key: &'static str,
    /// As a person would write it.
    pub(super) value: String,
    /// What is wrong with it.
    pub(super) problem: String,
    /// What to do.
    pub(super) remedy: &'static str,
}

/// The norms that a section stands for.
pub(super) fn norms(section: &MeasuresSection) -> Result<Norms, Conflict> {
    let MeasuresSection { norms, sna, snb, anb, odi, apdi, fhi, fha, mw } = section;
    // In the order of Norms::MEASURES.
    let ranges = [*sna, *snb, *anb, *odi, *apdi, *fhi, *fha, *mw];
    let given = Norms::MEASURES.into_iter().zip(ranges).find_map(|(name, range)| Some((name, range?)));
    match (norms.as_str(), given) {
        (ISBI2015, None) => Ok(Norms::default()),
        (NO_NORMS, None) => Ok(Norms::of(norms.clone(), [None; Norms::MEASURES.len()])),
        (ISBI2015 | NO_NORMS, Some((name, [low, high]))) => Err(Conflict {
            key: keys::find(&format!("measures.{}", name.to_lowercase())).expect("every measure has a key").name,
            value: format!("[{low}, {high}]"),
            problem: format!("stands with measures.norms = {norms:?}"),
            remedy: "results say whose norms they were classed by: give yours a name, or remove the range",
        }),
        (_, None) => Err(Conflict {
            key: "measures.norms",
            value: format!("{norms:?}"),
            problem: "stands without a range".to_owned(),
            remedy: "give the measures their ranges, such as sna = [79.4, 83.2], or take isbi2015 or none",
        }),
        (_, Some(_)) => Ok(Norms::of(norms.clone(), ranges)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Norms, Conflict> {
        norms(&toml::from_str(text).expect("the section's keys"))
    }

    #[test]
    fn each_measure_has_its_own_range() {
        let keys = Norms::MEASURES.map(str::to_lowercase);
        let line = |(i, key): (usize, &String)| format!("{key} = [{i}, {}]\n", i + 1);
        let lines: String = keys.iter().enumerate().map(line).collect();
        let given = read(&format!("norms = \"ours\"\n{lines}")).expect("norms");
        let expected = Norms::MEASURES.into_iter().enumerate().map(|(i, name)| (name, [i as f64, i as f64 + 1.0]));
        assert_eq!(given.ranges().collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        // Under the challenge's name or none every one of them is refused, by its own key.
        for (line, key) in lines.lines().zip(keys) {
            for name in [ISBI2015, NO_NORMS] {
                let conflict = read(&format!("norms = {name:?}\n{line}")).expect_err("a range of somebody else");
                assert_eq!(conflict.key, format!("measures.{key}"));
            }
        }
    }

    #[test]
    fn without_ranges_a_known_name_is_enough_and_another_is_not() {
        assert_eq!(read("").expect("the default"), Norms::default());
        assert_eq!(read("norms = \"none\"").expect("none").ranges().count(), 0);
        assert_eq!(read("norms = \"ours\"").expect_err("no range").key, "measures.norms");
    }
}
