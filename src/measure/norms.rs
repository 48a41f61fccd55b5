//! Where a measure lies in somebody's norms.
//!
//! Norms are of a population and of an opinion, so they have a name, which goes with every class into the result, and a
//! site can give its own. What lies below and above them has the names of the ISBI 2015 challenge (Wang et al., Medical
//! Image Analysis 31, 2016, table 2).

use super::Measure;

/// The name of the challenge's norms.
pub const ISBI2015: &str = "isbi2015";

/// An overjet has a third way to be outside, and the challenge has no name for one between 0 mm and its norm.
const OVERJET: &str = "MW";

/// Overjets below it are edge to edge: the challenge gives no width, and a tenth of a millimetre is what its films resolve.
const EDGE_TO_EDGE_MM: f64 = 0.05;

/// A measure with the challenge's norm and the names of what is below, within and above it.
type Row = (&'static str, [f64; 2], [&'static str; 3]);

const ROWS: [Row; 8] = [
    ("SNA", [79.4, 83.2], ["retrognathic maxilla", "normal", "prognathic maxilla"]),
    ("SNB", [74.6, 78.7], ["retrognathic mandible", "normal", "prognathic mandible"]),
    ("ANB", [3.2, 5.7], ["class III", "class I", "class II"]),
    ("ODI", [68.4, 80.5], ["open bite tendency", "normal", "deep bite tendency"]),
    ("APDI", [77.6, 85.2], ["class II tendency", "normal", "class III tendency"]),
    ("FHI", [0.65, 0.75], ["long face tendency", "normal", "short face tendency"]),
    ("FHA", [26.8, 31.4], ["low angle tendency", "normal", "high angle tendency"]),
    (OVERJET, [2.0, 4.5], ["anterior crossbite", "normal", "large overjet"]),
];

/// Norms of one source: ranges of the normal, both ends included, in the measures' own units.
#[derive(Clone, Debug, PartialEq)]
pub struct Norms {
    source: String,
    ranges: [Option<[f64; 2]>; ROWS.len()],
}

/// A value in the norms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Classed<'a> {
    /// Whose norms.
    pub source: &'a str,
    /// From where to where is normal, both included.
    pub range: [f64; 2],
    /// What the value is called there; not every value has a name.
    pub class: Option<&'static str>,
}

impl Default for Norms {
    /// The challenge's.
    fn default() -> Self {
        Self { source: ISBI2015.to_owned(), ranges: ROWS.map(|(_, range, _)| Some(range)) }
    }
}

impl Norms {
    /// The measures that norms can be given for.
    pub const MEASURES: [&'static str; ROWS.len()] = {
        let mut names = [""; ROWS.len()];
        let mut i = 0;
        while i < ROWS.len() {
            names[i] = ROWS[i].0;
            i += 1;
        }
        names
    };

    /// A site's own, in the order of [`MEASURES`](Self::MEASURES); what has no range gets no class. Without any range,
    /// no measure has one.
    #[must_use]
    pub const fn of(source: String, ranges: [Option<[f64; 2]>; ROWS.len()]) -> Self {
        Self { source, ranges }
    }

    /// Each measure that has a range, with it.
    pub fn ranges(&self) -> impl Iterator<Item = (&'static str, [f64; 2])> {
        Self::MEASURES.into_iter().zip(self.ranges).filter_map(|(name, range)| Some((name, range?)))
    }

    /// Whose they are.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Where a measure lies, if it has a value and they a range for it.
    #[must_use]
    pub fn classify(&self, measure: &Measure) -> Option<Classed<'_>> {
        let row = ROWS.iter().position(|(name, ..)| *name == measure.name)?;
        let (range, value) = (self.ranges[row]?, measure.value.ok()?);
        let ([low, high], (name, _, [below, within, above])) = (range, ROWS[row]);
        let class = match value {
            _ if (low..=high).contains(&value) => Some(within),
            _ if name == OVERJET && value.abs() < EDGE_TO_EDGE_MM => Some("edge to edge"),
            _ if name == OVERJET && (0.0..low).contains(&value) => None,
            _ if value < low => Some(below),
            _ => Some(above),
        };
        Some(Classed { source: &self.source, range, class })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Absent, Unit};
    use super::*;

    fn measure(name: &'static str, value: Result<f64, Absent>) -> Measure {
        Measure { name, unit: Unit::Degrees, value, vertebrae: None }
    }

    fn class(norms: &Norms, name: &'static str, value: f64) -> Option<&'static str> {
        norms.classify(&measure(name, Ok(value))).expect("a range").class
    }

    #[test]
    fn both_ends_of_a_norm_are_normal_and_what_is_beyond_has_its_name() {
        let norms = Norms::default();
        for (name, [low, high], [below, within, above]) in ROWS {
            if name != OVERJET {
                assert_eq!(class(&norms, name, low - 0.01), Some(below), "{name}");
            }
            assert_eq!([low, high].map(|value| class(&norms, name, value)), [Some(within); 2], "{name}");
            assert_eq!(class(&norms, name, high + 0.01), Some(above), "{name}");
        }
    }

    #[test]
    fn an_overjet_has_five_places_and_a_name_for_four() {
        let found = [-5.0, -0.04, 0.04, 1.9, 2.0, 4.6].map(|mm| class(&Norms::default(), "MW", mm));
        let edge = Some("edge to edge");
        assert_eq!(found, [Some("anterior crossbite"), edge, edge, None, Some("normal"), Some("large overjet")]);
    }

    #[test]
    fn a_site_s_own_norms_class_what_they_have_a_range_for() {
        let mut ranges = [None; ROWS.len()];
        ranges[0] = Some([80.0, 84.0]);
        let norms = Norms::of("clinic 2026".to_owned(), ranges);
        let classed = norms.classify(&measure("SNA", Ok(83.5))).expect("a range");
        assert_eq!((classed.source, classed.range, classed.class), ("clinic 2026", [80.0, 84.0], Some("normal")));
        assert_eq!(class(&Norms::default(), "SNA", 83.5), Some("prognathic maxilla"));
        assert_eq!(norms.classify(&measure("SNB", Ok(76.0))), None);
        assert_eq!(norms.classify(&measure("SNA", Err(Absent::Degenerate))), None);
        assert_eq!(norms.classify(&measure("cobb_1", Ok(40.0))), None);
        assert_eq!(norms.ranges().collect::<Vec<_>>(), [("SNA", [80.0, 84.0])]);
        ranges[ROWS.len() - 1] = Some([0.0, 3.0]);
        let norms = Norms::of("clinic 2026".to_owned(), ranges);
        assert_eq!([0.0, 0.02, 3.0].map(|mm| class(&norms, "MW", mm)), [Some("normal"); 3]);
    }
}
