//! Is a predicted sigma true? Observed errors against predicted ones, as a picture (SVG).

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::calibration::{Case, ONE_SIGMA};
use super::canvas::{FINE, INK, mesh, plane, svg, text};
use super::plots::PlotError;
use super::statistics::{mean, quantile};

/// Points of the picture: as many groups of equally many errors.
const GROUPS: usize = 10;
const SIDE_PX: i32 = 520;
const POINT: RGBColor = RGBColor(0, 114, 178);
const IDEAL: RGBColor = RGBColor(150, 150, 150);

/// One group of errors whose predicted sigmas are alike.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Group {
    /// Mean predicted sigma, in pixels.
    predicted: f64,
    /// What 68.3 % of its errors lie within, in pixels.
    observed: f64,
}

/// What 68.3 % of the errors on x and y lie within, against the sigma that was predicted for them, in ten groups of
/// equally many by predicted sigma. Points on the diagonal are true; above it the network is too sure of itself.
///
/// # Errors
/// When there are fewer errors than groups.
pub fn reliability_svg(cases: &[Case]) -> Result<String, PlotError> {
    let groups = groups(cases);
    if groups.is_empty() {
        return Err(PlotError::Empty { of: "the picture of the reliability".to_owned() });
    }
    let range = groups.iter().map(|g| g.predicted.max(g.observed)).fold(0.0, f64::max).max(f64::MIN_POSITIVE) * 1.08;
    svg((SIDE_PX + 40, SIDE_PX), |root| {
        let mut plane = plane(root, 24, 60, 24, (0.0..range, 0.0..range))?;
        mesh(&mut plane, "predicted sigma (px)", "68.3 % of errors lie within (px)", true)?;
        let line = [(0.0, 0.0), (range, range)].map(|p| plane.backend_coord(&p));
        root.draw(&PathElement::new(line, IDEAL.stroke_width(FINE as u32)))?;
        let points: Vec<(i32, i32)> = groups.iter().map(|g| plane.backend_coord(&(g.predicted, g.observed))).collect();
        root.draw(&PathElement::new(points.clone(), POINT.stroke_width(2 * FINE as u32)))?;
        for point in points {
            root.draw(&Circle::new(point, 5 * FINE, POINT.filled()))?;
        }
        let (x, y) = plane.backend_coord(&(range, 0.0));
        let words = format!("{} errors in {GROUPS} groups", 2 * cases.len());
        root.draw_text(&words, &text(13, HPos::Right, VPos::Bottom).color(&INK), (x - 10 * FINE, y - 10 * FINE))
    })
    .map_err(|e| PlotError::Draw { reason: e.to_string() })
}

/// In order of predicted sigma; none where there are fewer errors than groups.
fn groups(cases: &[Case]) -> Vec<Group> {
    let mut pairs: Vec<(f64, f64)> =
        cases.iter().flat_map(|case| std::iter::zip(case.sigma, case.error.map(f64::abs))).collect();
    if pairs.len() < GROUPS {
        return Vec::new();
    }
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let group = |i: usize| {
        let members = &pairs[i * pairs.len() / GROUPS..(i + 1) * pairs.len() / GROUPS];
        let predicted: Vec<f64> = members.iter().map(|(sigma, _)| *sigma).collect();
        let mut errors: Vec<f64> = members.iter().map(|(_, error)| *error).collect();
        errors.sort_by(f64::total_cmp);
        Group { predicted: mean(&predicted), observed: quantile(&errors, ONE_SIGMA) }
    };
    (0..GROUPS).map(group).collect()
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha8Rng;
    use rand::SeedableRng;
    use rand_distr::{Distribution, StandardNormal};

    use super::*;

    #[test]
    fn true_sigmas_lie_on_the_diagonal_and_small_ones_above_it() {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let mut cases = |told: f64| -> Vec<Case> {
            let mut case = |i: usize| {
                let sigma = 1.0 + (i % 50) as f64 / 10.0;
                let mut normal = || -> f64 { StandardNormal.sample(&mut rng) };
                Case { error: [sigma * normal(), sigma * normal()], sigma: [sigma * told; 2] }
            };
            (0..20_000).map(&mut case).collect()
        };
        let (honest, sure) = (groups(&cases(1.0)), groups(&cases(0.5)));
        assert_eq!(honest.len(), GROUPS);
        for (honest, sure) in honest.iter().zip(&sure) {
            assert!((honest.observed / honest.predicted - 1.0).abs() < 0.06, "{honest:?}");
            assert!((sure.observed / sure.predicted - 2.0).abs() < 0.12, "{sure:?}");
        }
        assert!(honest.windows(2).all(|pair| pair[0].predicted < pair[1].predicted));
    }

    #[test]
    fn the_picture_has_a_point_a_group() {
        let case = |i: u32| Case { error: [f64::from(i), 1.0], sigma: [f64::from(i + 1), 2.0] };
        let svg = reliability_svg(&(0..30).map(case).collect::<Vec<_>>()).expect("a picture");
        assert_eq!(svg.matches("<circle").count(), GROUPS);
        assert!(svg.contains("60 errors in 10 groups") && svg.contains("predicted sigma (px)"));
        let few = reliability_svg(&[case(1)]).expect_err("two errors").to_string();
        assert_eq!(few, "the picture of the reliability has no errors to draw");
    }
}
