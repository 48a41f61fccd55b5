//! The three angles of the AASCE 2019 challenge, by the rule behind the data set's own figures.
//!
//! The second and third angle are not reliably "proximal thoracic" and "lumbar", although they are taken for it: each
//! angle is said with its two end vertebrae. The first of the 17 vertebrae is usually T1; the labels do not prove it.

use super::{Absent, Measure, Unit, Vector};
use crate::geometry::Point;

const VERTEBRAE: usize = 17;
const CORNERS: [&str; 4] = ["top_left", "top_right", "bottom_left", "bottom_right"];
const NAMES: [&str; 3] = ["cobb_1", "cobb_2", "cobb_3"];

/// `vertebra_1_top_left` and so on, from top to bottom.
pub(super) fn landmarks() -> Vec<String> {
    (1..=VERTEBRAE).flat_map(|i| CORNERS.map(|corner| format!("vertebra_{i}_{corner}"))).collect()
}

/// `points` on square pixels, `height` that of the image in the same unit.
pub(super) fn measure(points: &[Point], height: f64) -> Vec<Measure> {
    assert_eq!(points.len(), 4 * VERTEBRAE, "landmarks");
    let angles = cobb(points.as_chunks::<4>().0, height);
    let measure = |(i, name): (usize, &'static str)| Measure {
        name,
        unit: Unit::Degrees,
        value: angles.map(|angles| angles[i].0),
        vertebrae: angles.ok().map(|angles| angles[i].1.map(|vertebra| vertebra as u8 + 1)),
    };
    NAMES.into_iter().enumerate().map(measure).collect()
}

/// Each angle in degrees and its two end vertebrae, counted from 0.
type Angles = [(f64, [usize; 2]); 3];

fn cobb(vertebrae: &[[Point; 4]], height: f64) -> Result<Angles, Absent> {
    // From the middle of the left side to that of the right one.
    let lines: Vec<Vector> =
        vertebrae.iter().map(|[tl, tr, bl, br]| Vector::between(tl.midpoint(*bl), tr.midpoint(*br))).collect();
    if lines.iter().any(|line| line.length() == 0.0) {
        return Err(Absent::Degenerate);
    }
    let angle = |i: usize, j: usize| lines[i].angle(lines[j]).unwrap_or(0.0);
    // The largest angle that vertebra `i` makes with one of `others`; the first of several.
    let largest = |i: usize, others: std::ops::RangeInclusive<usize>| {
        others.map(|j| (angle(i, j), j)).fold((-1.0, i), |best, this| if this.0 > best.0 { this } else { best })
    };
    let last = VERTEBRAE - 1;
    let (first, [a, b]) = (0..=last)
        .map(|i| {
            let (angle, j) = largest(i, i..=last);
            (angle, [i, j])
        })
        .fold((-1.0, [0, 0]), |best, this| if this.0 > best.0 { this } else { best });
    let edges: Vec<[Point; 2]> =
        vertebrae.iter().map(|[tl, tr, bl, br]| [tl.midpoint(*tr), bl.midpoint(*br)]).collect();
    let (second, third) = if !is_s_shaped(edges.as_flattened()) {
        ((angle(0, a), [0, a]), (angle(b, last), [b, last]))
    } else if edges[a][1].y + edges[b][1].y < height {
        // The main curve lies high.
        let ((second, i), (third, j)) = (largest(a, 0..=a), largest(b, b..=last));
        ((second, [i, a]), (third, [b, j]))
    } else {
        let (second, u) = largest(a, 0..=a);
        let (third, t) = largest(u, 0..=u);
        ((second, [u, a]), (third, [t, u]))
    };
    Ok([(first, [a, b]), second, third])
}

/// Whether the midline crosses the line between its ends.
fn is_s_shaped(midline: &[Point]) -> bool {
    let (first, last) = (midline[0], midline[midline.len() - 1]);
    let off = midline[..midline.len() - 2]
        .iter()
        .map(|p| (p.y - last.y) / (first.y - last.y) - (p.x - last.x) / (first.x - last.x));
    let (sum, absolute) = off.fold((0.0, 0.0), |(sum, absolute), d| (sum + d, absolute + d.abs()));
    // A midline whose ends lie above each other has no such line in this form; the figures are then not finite.
    absolute * absolute - sum * sum >= 1e-4
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vertebrae 40 wide and 20 high, 30 apart, each turned by an angle of its own (positive: right side down), their
    /// centres at `x`.
    fn spine(tilt: impl Fn(usize) -> f64, x: impl Fn(usize) -> f64) -> Vec<Point> {
        (0..VERTEBRAE)
            .flat_map(|i| {
                let (sin, cos) = tilt(i).to_radians().sin_cos();
                let centre = Point::new(x(i), 100.0 + 30.0 * i as f64);
                [[-20.0, -10.0], [20.0, -10.0], [-20.0, 10.0], [20.0, 10.0]]
                    .map(|[dx, dy]| Point::new(centre.x + dx * cos - dy * sin, centre.y + dx * sin + dy * cos))
            })
            .collect()
    }

    fn check(measures: &[Measure], expected: [(f64, [u8; 2]); 3]) {
        for (measure, (degrees, vertebrae)) in measures.iter().zip(expected) {
            let found = measure.value.expect("a value");
            assert!((found - degrees).abs() < 1e-9, "{measure:?}, {degrees} was expected");
            assert_eq!(measure.vertebrae, Some(vertebrae), "{measure:?}");
        }
    }

    #[test]
    fn a_spine_with_one_curve_has_its_angles_above_and_below() {
        // A bow to the right: tilts rise to 20 degrees at vertebra 5 and fall to -15 at vertebra 13.
        let tilt = |i: usize| match i {
            0..=4 => 5.0 * i as f64,
            5..=12 => 20.0 - 35.0 / 8.0 * (i - 4) as f64,
            _ => -15.0 + 2.0 * (i - 12) as f64,
        };
        let x = |i: usize| 300.0 + i as f64 + 40.0 * (std::f64::consts::PI * i as f64 / 16.0).sin();
        check(&measure(&spine(tilt, x), 700.0), [(35.0, [5, 13]), (20.0, [1, 5]), (8.0, [13, 17])]);
    }

    #[test]
    fn a_spine_with_two_curves_has_the_largest_on_either_side_of_a_high_one() {
        let tilt = |i: usize| {
            [0.0, 6.0, 3.0, -4.0, -18.0, -9.0, 0.0, 12.0, 22.0, 15.0, 8.0, 1.0, -5.0, -7.0, -6.0, -3.0, 0.0][i]
        };
        let x = |i: usize| 300.0 + i as f64 + 30.0 * (std::f64::consts::TAU * i as f64 / 16.0).sin();
        let points = spine(tilt, x);
        // High on a tall image, low on a short one.
        check(&measure(&points, 2000.0), [(40.0, [5, 9]), (24.0, [2, 5]), (29.0, [9, 14])]);
        check(&measure(&points, 400.0), [(40.0, [5, 9]), (24.0, [2, 5]), (6.0, [1, 2])]);
    }

    #[test]
    fn there_are_68_names() {
        let names = landmarks();
        assert_eq!(names.len(), 68);
        assert_eq!((names[0].as_str(), names[67].as_str()), ("vertebra_1_top_left", "vertebra_17_bottom_right"));
    }

    #[test]
    fn a_vertebra_without_width_is_said() {
        let mut points = spine(|_| 0.0, |i| i as f64);
        points[9] = points[8];
        points[11] = points[10];
        assert!(measure(&points, 700.0).iter().all(|m| m.value == Err(Absent::Degenerate) && m.vertebrae.is_none()));
    }
}
