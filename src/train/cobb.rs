//! How far the Cobb angles of found spines are from those of the true ones: the figure of the AASCE 2019 challenge.

use serde::{Deserialize, Serialize};

use crate::geometry::{Point, Size};
use crate::measure::MeasureSet;

/// The three angles of a film in degrees, on true and on found landmarks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Angles {
    /// On the true landmarks.
    pub truth: [f64; 3],
    /// On the found ones.
    pub found: [f64; 3],
}

impl Angles {
    /// On a film of `size` pixels; nothing where the landmarks are not those of a spine or a line is degenerate.
    #[must_use]
    pub fn of(landmarks: &[String], truth: &[Point], found: &[Point], size: Size) -> Option<Self> {
        if landmarks != MeasureSet::SpineAasce2019.landmarks() {
            return None;
        }
        let angles = |points: &[Point]| -> Option<[f64; 3]> {
            let measures = MeasureSet::SpineAasce2019.of(points, size, None);
            let values: Vec<f64> = measures.into_iter().filter_map(|measure| measure.value.ok()).collect();
            values.try_into().ok()
        };
        Some(Self { truth: angles(truth)?, found: angles(found)? })
    }
}

/// `mean over films of sum |truth - found| / sum (truth + found)`, times 100: SMAPE as the challenge takes it.
#[must_use]
pub fn smape_percent(films: &[Angles]) -> Option<f64> {
    let of_film = |Angles { truth, found }: &Angles| {
        let apart: f64 = truth.iter().zip(found).map(|(t, f)| (t - f).abs()).sum();
        let together: f64 = truth.iter().zip(found).map(|(t, f)| t + f).sum();
        // Two straight spines agree.
        if together > 0.0 { apart / together } else { 0.0 }
    };
    (!films.is_empty()).then(|| 100.0 * films.iter().map(of_film).sum::<f64>() / films.len() as f64)
}

/// The mean absolute difference of each of the three angles, in degrees.
#[must_use]
pub fn mean_differences_deg(films: &[Angles]) -> Option<[f64; 3]> {
    let mean = |i: usize| films.iter().map(|a| (a.truth[i] - a.found[i]).abs()).sum::<f64>() / films.len() as f64;
    (!films.is_empty()).then(|| [mean(0), mean(1), mean(2)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_worked_example() {
        let films = [
            Angles { truth: [30.0, 20.0, 10.0], found: [33.0, 17.0, 10.0] },
            Angles { truth: [10.0, 10.0, 0.0], found: [20.0, 10.0, 0.0] },
        ];
        // 6 / 120 and 10 / 50.
        let smape = smape_percent(&films).expect("two films");
        assert!((smape - 12.5).abs() < 1e-12, "{smape}");
        assert_eq!(mean_differences_deg(&films), Some([6.5, 1.5, 0.0]));
        assert_eq!((smape_percent(&[]), mean_differences_deg(&[])), (None, None));
    }

    #[test]
    fn angles_are_taken_on_spines_alone() {
        let names = MeasureSet::SpineAasce2019.landmarks();
        // Vertebrae turned by 2 degrees more each, from level.
        let spine = |step: f64| -> Vec<Point> {
            let corner = |i: usize| {
                let (vertebra, corner) = (i / 4, i % 4);
                let (sin, cos) = (step * vertebra as f64).to_radians().sin_cos();
                let [x, y] = [[-20.0, -8.0], [20.0, -8.0], [-20.0, 8.0], [20.0, 8.0]][corner];
                Point::new(100.0 + x * cos - y * sin, 30.0 + 25.0 * vertebra as f64 + x * sin + y * cos)
            };
            (0..68).map(corner).collect()
        };
        let size = Size::new(200, 500);
        let angles = Angles::of(&names, &spine(2.0), &spine(1.0), size).expect("a spine");
        assert!((angles.truth[0] - 32.0).abs() < 1e-9 && (angles.found[0] - 16.0).abs() < 1e-9, "{angles:?}");
        assert_eq!(Angles::of(&names[..67], &spine(2.0), &spine(1.0), size), None);
    }
}
