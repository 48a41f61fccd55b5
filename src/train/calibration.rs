//! Sigma in a unit that means something, and radii that hold what they promise, from films the network did not learn.
//!
//! Split conformal prediction (Vovk et al. 2005; Angelopoulos and Bates 2023): the radius that holds the true landmark
//! in a share `p` of new cases is, up to `1/n`, the one that held it in that share of `n` held-out ones, whatever the
//! errors' distribution. A validation part of few films has too few cases of each landmark for its own 95 %: the
//! cases of all landmarks are pooled, each in units of its own calibrated sigma.

use crate::inference::root_mean_square;
use crate::model::Conformal;

/// The share of a normal distribution within one sigma.
pub(super) const ONE_SIGMA: f64 = 0.682_689_5;
/// How far a landmark's own scale is believed, against that of all: with few films it is itself uncertain.
const OWN: f64 = 0.5;

/// What was found of one landmark on one film: its error and its predicted sigma, both on x and y, in the same unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Case {
    /// Found less true.
    pub error: [f64; 2],
    /// As the network says, not yet calibrated.
    pub sigma: [f64; 2],
}

/// What makes a network's sigma true.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// Of each landmark: what its sigma is multiplied with.
    pub sigma_scale: Vec<f64>,
    /// In units of the calibrated sigma.
    pub conformal: Conformal,
}

/// From `films[film][landmark]`, none where a landmark is not visible; nothing when there are not two films, or a landmark
/// is not visible on two.
#[must_use]
pub fn calibrate(films: &[Vec<Option<Case>>]) -> Option<Calibration> {
    let seen = |k: usize| films.iter().filter(|film| film[k].is_some()).count();
    if films.len() < 2 || films[0].is_empty() || (0..films[0].len()).any(|k| seen(k) < 2) {
        return None;
    }
    // A film's own cases have no part in the scale they are judged by.
    let mut scores = Vec::new();
    for (left_out, film) in films.iter().enumerate() {
        let others: Vec<&Vec<Option<Case>>> =
            films.iter().enumerate().filter(|(i, _)| *i != left_out).map(|(_, f)| f).collect();
        let scales = sigma_scales(&others);
        scores.extend(film.iter().zip(&scales).filter_map(|(case, &scale)| Some(score(case.as_ref()?, scale))));
    }
    scores.sort_by(f64::total_cmp);
    let radius = |share: f64| {
        // The (n + 1) p-th smallest; for so few cases that there is none, the largest.
        let rank = ((scores.len() + 1) as f64 * share).ceil() as usize;
        scores[rank.min(scores.len()) - 1]
    };
    let conformal = Conformal { radius90: radius(0.90), radius95: radius(0.95) };
    Some(Calibration { sigma_scale: sigma_scales(&films.iter().collect::<Vec<_>>()), conformal })
}

/// Shares of `films` whose true landmark lies within the calibrated sigma (on x and y each) and within the two radii.
#[must_use]
pub fn coverage(films: &[Vec<Option<Case>>], calibration: &Calibration) -> Coverage {
    let Calibration { sigma_scale, conformal } = calibration;
    let (mut sigma, mut radius90, mut radius95, mut cases) = (0, 0, 0, 0);
    let visible = |(case, scale): (&'_ Option<Case>, &f64)| case.map(|case| (case, *scale));
    for (case, scale) in films.iter().flat_map(|film| film.iter().zip(sigma_scale)).filter_map(visible) {
        let case = &case;
        sigma += ratios(case).filter(|ratio| *ratio <= scale).count();
        radius90 += usize::from(score(case, scale) <= conformal.radius90);
        radius95 += usize::from(score(case, scale) <= conformal.radius95);
        cases += 1;
    }
    let share = |n: usize, of: usize| n as f64 / of.max(1) as f64;
    Coverage { sigma: share(sigma, 2 * cases), radius90: share(radius90, cases), radius95: share(radius95, cases) }
}

/// Of each landmark, the share of `films` whose true one lies within its 95 % radius; the promise is over all landmarks.
pub(super) fn within_radius95(films: &[Vec<Option<Case>>], calibration: &Calibration) -> Vec<f64> {
    let Calibration { sigma_scale, conformal } = calibration;
    let share = |(k, &scale): (usize, &f64)| {
        let cases: Vec<&Case> = films.iter().filter_map(|film| film[k].as_ref()).collect();
        cases.iter().filter(|case| score(case, scale) <= conformal.radius95).count() as f64 / cases.len().max(1) as f64
    };
    sigma_scale.iter().enumerate().map(share).collect()
}

/// Shares between 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coverage {
    /// Of errors on x and y within one sigma; 0.683 is right.
    pub sigma: f64,
    /// Of landmarks within the 90 % radius.
    pub radius90: f64,
    /// Of landmarks within the 95 % radius.
    pub radius95: f64,
}

/// The error's length in units of the calibrated sigma.
fn score(case: &Case, scale: f64) -> f64 {
    case.error[0].hypot(case.error[1]) / (scale * root_mean_square(case.sigma))
}

fn ratios(case: &Case) -> impl Iterator<Item = f64> {
    std::iter::zip(case.error, case.sigma).map(|(error, sigma)| error.abs() / sigma)
}

/// Of each landmark, the scale that 68 % of its errors lie within, drawn towards that of all landmarks together.
fn sigma_scales(films: &[&Vec<Option<Case>>]) -> Vec<f64> {
    let all = one_sigma(films.iter().flat_map(|film| film.iter().flatten()));
    let own = |k: usize| one_sigma(films.iter().filter_map(|film| film[k].as_ref()));
    (0..films[0].len()).map(|k| own(k).powf(OWN) * all.powf(1.0 - OWN)).collect()
}

fn one_sigma<'a>(cases: impl Iterator<Item = &'a Case>) -> f64 {
    let mut ratios: Vec<f64> = cases.flat_map(ratios).collect();
    ratios.sort_by(f64::total_cmp);
    // An exact hit on every film would make a scale of 0, and radii of 0 with it.
    ratios[(ratios.len() as f64 * ONE_SIGMA) as usize].max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha8Rng;
    use rand::SeedableRng;
    use rand_distr::{Distribution, StandardNormal};

    use super::*;

    /// Films of two landmarks whose errors are normal: sigma is told 4 times too small for the first, 8 times for the
    /// second.
    fn films(n: usize, seed: u64) -> Vec<Vec<Option<Case>>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut normal = || -> f64 { StandardNormal.sample(&mut rng) };
        let mut case = |sigma: f64, factor: f64| {
            Some(Case { error: [normal(), normal()].map(|z| z * sigma * factor), sigma: [sigma, sigma] })
        };
        (0..n).map(|i| vec![case(1.0 + i as f64 % 3.0, 4.0), case(0.5, 8.0)]).collect()
    }

    #[test]
    fn normal_errors_get_their_sigma_and_their_radii() {
        let calibration = calibrate(&films(4000, 1)).expect("films");
        // Half way, in ratio, between a landmark's own 4 or 8 and the scale of both, about 5.4.
        let [first, second] = calibration.sigma_scale[..] else { panic!("two landmarks") };
        assert!((second / first / f64::sqrt(2.0) - 1.0).abs() < 0.05, "{first} {second}");
        let Coverage { sigma, radius90, radius95 } = coverage(&films(4000, 2), &calibration);
        assert!((sigma - ONE_SIGMA).abs() < 0.02, "{sigma}");
        assert!((radius90 - 0.90).abs() < 0.015 && (radius95 - 0.95).abs() < 0.01, "{radius90} {radius95}");
        let each = within_radius95(&films(4000, 2), &calibration);
        assert!((each.iter().sum::<f64>() / 2.0 - radius95).abs() < 1e-9, "{each:?}");
        // Half way: the first landmark's radius is too large for it, the second's too small.
        assert!(each[0] > 0.96 && each[1] < 0.94, "{each:?}");
    }

    #[test]
    fn radii_hold_on_average_even_after_few_films() {
        let mean = (0..300)
            .map(|seed| {
                let calibration = calibrate(&films(18, seed)).expect("films");
                coverage(&films(200, 1000 + seed), &calibration).radius90
            })
            .sum::<f64>()
            / 300.0;
        // Of 36 cases the 34th: a new one lies below it 34 times in 37, and the scale is known a little less well.
        assert!((mean - 34.0 / 37.0).abs() < 0.015, "{mean}");
    }

    #[test]
    fn landmarks_that_are_not_visible_change_nothing() {
        let whole = films(50, 7);
        let mut more = whole.clone();
        more.push(vec![None, None]);
        // One more film to leave out is left out of nothing: scores and scales stay.
        assert_eq!(calibrate(&more), calibrate(&whole));
    }

    #[test]
    fn one_film_is_not_enough() {
        assert_eq!(calibrate(&films(1, 3)), None);
        assert_eq!(calibrate(&[]), None);
        let mut seldom = films(5, 3);
        seldom[1..].iter_mut().for_each(|film| film[1] = None);
        assert_eq!(calibrate(&seldom), None, "a landmark that one film shows");
    }
}
