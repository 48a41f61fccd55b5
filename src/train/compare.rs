//! Whether one model is better than another: a paired bootstrap over the films that both were measured on.
//!
//! Landmarks of one film go astray together, so films are drawn, not landmarks (Efron and Tibshirani, An Introduction
//! to the Bootstrap, 1993, chapter 13: the percentile interval).

use std::fmt;

use chacha20::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::report::{Evaluation, FilmErrors};
use super::statistics::{mean, percent_within, quantile, rounded};
use crate::geometry::LengthUnit;

/// How often the films are drawn anew.
pub const RESAMPLES: usize = 10_000;
/// Fewer films prove nothing: five differences of one sign are chance in 2 of 32 cases.
pub const LEAST_FILMS: usize = 6;

/// The shares of the drawn differences that bound the 95 % interval.
const INTERVAL: [f64; 2] = [0.025, 0.975];

/// Why two evaluations cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// They do not measure the same thing.
    #[error("{field} differs: A has {a}, B has {b}")]
    Differs {
        /// The first field that differs (`per_film[3].film`).
        field: String,
        /// What A says.
        a: String,
        /// What B says.
        b: String,
    },
    /// There are too few films for the bootstrap.
    #[error("films is {found}, expected {LEAST_FILMS} or more: fewer show no difference by any interval")]
    TooFew {
        /// Films in both.
        found: usize,
    },
}

/// What the interval says of B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The whole interval is on the better side of 0.
    Better,
    /// The whole interval is on the worse side of 0.
    Worse,
    /// The interval holds 0: these films do not tell, which does not mean that the models are equal.
    NoDifferenceShown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Better => "B is better",
            Self::Worse => "B is worse",
            Self::NoDifferenceShown => "no difference shown",
        })
    }
}

/// One figure of both models and its difference, B minus A.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// A's figure.
    pub a: f64,
    /// B's figure.
    pub b: f64,
    /// Mean over the films of B minus A.
    pub difference: f64,
    /// The interval that holds 95 % of the differences of the drawn films: its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// What the interval says of B.
    pub verdict: Verdict,
}

/// Two models on the same films.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// A's name.
    pub a: String,
    /// B's name.
    pub b: String,
    /// Of the mean radial error.
    pub unit: LengthUnit,
    /// Films in both.
    pub films: usize,
    /// How often they were drawn anew.
    pub resamples: usize,
    /// Of the draw.
    pub seed: u64,
    /// The mean radial error, in `unit`; less is better.
    pub mre: Difference,
    /// The distance of the detection rate, in `unit`: the first of A's.
    pub within: f64,
    /// The detection rate, in per cent and percentage points; more is better.
    pub sdr_percent: Difference,
}

/// Compares `b` with `a`; the same seed gives the same intervals.
///
/// # Errors
/// When protocol, data, truth, unit, landmarks or films differ, with the first that does, or the films are too few.
pub fn compare(a: &Evaluation, b: &Evaluation, seed: u64) -> Result<Comparison, CompareError> {
    check_same(a, b)?;
    let films = a.per_film.len();
    if films < LEAST_FILMS {
        return Err(CompareError::TooFew { found: films });
    }
    // A film counts once, however many of its landmarks are visible; where all are, that is the mean of all.
    let mre = [a, b].map(|e| per_film(e, mean));
    let within = a.sdr[0].within;
    let sdr = [a, b].map(|e| per_film(e, |errors| percent_within(errors, within, e.setting.protocol)));
    let [mre_drawn, sdr_drawn] = draw([&differences(&mre), &differences(&sdr)], seed);
    Ok(Comparison {
        a: a.setting.model.clone(),
        b: b.setting.model.clone(),
        unit: a.setting.unit,
        films,
        resamples: RESAMPLES,
        seed,
        mre: difference(&mre, &mre_drawn, true),
        within,
        sdr_percent: difference(&sdr, &sdr_drawn, false),
    })
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { a, b, unit, films, resamples, seed, mre, within, sdr_percent } = self;
        writeln!(f, "A: {a}\nB: {b}\n{films} films, drawn {resamples} times with seed {seed}; B - A, 95 % interval\n")?;
        let Difference { a, b, difference, low, high, verdict } = mre;
        let name = format!("MRE {unit}");
        writeln!(f, "{name:<10}  A {a:7.3}  B {b:7.3}  B - A {difference:+8.3}  {low:+8.3} .. {high:+8.3}  {verdict}")?;
        let Difference { a, b, difference, low, high, verdict } = sdr_percent;
        let name = format!("SDR {within} {unit} %");
        write!(f, "{name:<10}  A {a:7.2}  B {b:7.2}  B - A {difference:+8.2}  {low:+8.2} .. {high:+8.2}  {verdict}")
    }
}

fn check_same(a: &Evaluation, b: &Evaluation) -> Result<(), CompareError> {
    let differs = |field: String, a: &str, b: &str| CompareError::Differs { field, a: a.to_owned(), b: b.to_owned() };
    let of = |e: &Evaluation| {
        let setting = &e.setting;
        [
            ("protocol", setting.protocol.to_string()),
            ("unit", setting.unit.to_string()),
            ("data", format!("`{}`", setting.data)),
            ("truth", format!("`{}`", setting.truth)),
        ]
    };
    for ((field, a), (_, b)) in of(a).into_iter().zip(of(b)) {
        if a != b {
            return Err(differs(format!("setting.{field}"), &a, &b));
        }
    }
    let films = |e: &Evaluation| e.per_film.iter().map(|film| film.film.clone()).collect::<Vec<_>>();
    let landmarks = |e: &Evaluation| e.landmarks().into_iter().map(str::to_owned).collect::<Vec<_>>();
    for (list, name, a, b) in
        [("per_landmark", "landmark", landmarks(a), landmarks(b)), ("per_film", "film", films(a), films(b))]
    {
        let words = |names: &[String], i: usize| names.get(i).map_or("none".to_owned(), |name| format!("`{name}`"));
        if let Some(i) = (0..a.len().max(b.len())).find(|&i| a.get(i) != b.get(i)) {
            return Err(differs(format!("{list}[{i}].{name}"), &words(&a, i), &words(&b, i)));
        }
    }
    Ok(())
}

fn per_film(evaluation: &Evaluation, figure: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let visible = |film: &FilmErrors| film.errors.iter().copied().flatten().collect::<Vec<_>>();
    evaluation.per_film.iter().map(visible).filter(|errors| !errors.is_empty()).map(|errors| figure(&errors)).collect()
}

fn differences([a, b]: &[Vec<f64>; 2]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| b - a).collect()
}

/// The means of each figure over films drawn with replacement, in order of size; all figures see the same draws.
fn draw<const N: usize>(figures: [&[f64]; N], seed: u64) -> [Vec<f64>; N] {
    let films = figures.first().map_or(0, |figure| figure.len());
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut means: [Vec<f64>; N] = std::array::from_fn(|_| Vec::with_capacity(RESAMPLES));
    for _ in 0..RESAMPLES {
        let mut sums = [0.0; N];
        for _ in 0..films {
            let film = rng.random_range(0..films);
            sums.iter_mut().zip(figures).for_each(|(sum, figure)| *sum += figure[film]);
        }
        means.iter_mut().zip(sums).for_each(|(means, sum)| means.push(sum / films as f64));
    }
    means.iter_mut().for_each(|means| means.sort_by(f64::total_cmp));
    means
}

fn difference(figures: &[Vec<f64>; 2], drawn: &[f64], less_is_better: bool) -> Difference {
    // Differences that cancel leave noise of 1e-17, which must not decide.
    let [low, high] = INTERVAL.map(|share| rounded(quantile(drawn, share)));
    let (less, more) = (high < 0.0, low > 0.0);
    let (better, worse) = if less_is_better { (less, more) } else { (more, less) };
    let verdict = if better {
        Verdict::Better
    } else if worse {
        Verdict::Worse
    } else {
        Verdict::NoDifferenceShown
    };
    let [a, b] = figures.each_ref().map(|figure| rounded(mean(figure)));
    Difference { a, b, difference: rounded(mean(&differences(figures))), low, high, verdict }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::reference::Protocol;
    use crate::train::report::Setting;

    /// An evaluation of two landmarks, both with the error `error(i)` on film i.
    fn evaluation(films: usize, error: impl Fn(usize) -> f64) -> Evaluation {
        let setting = Setting {
            model: "a".into(),
            sha256: "0".repeat(64),
            protocol: Protocol::Exact,
            data: "test".into(),
            truth: "mean".into(),
            unit: LengthUnit::Mm,
        };
        let film = |i| FilmErrors { film: format!("{i:03}"), errors: vec![Some(error(i)); 2], angles: None };
        let landmarks = ["sella".to_owned(), "nasion".to_owned()];
        Evaluation::new(setting, &landmarks, (0..films).map(film).collect(), &[2.0]).expect("sound input")
    }

    #[test]
    fn the_interval_is_that_of_the_binomial_distribution() {
        // B is 0.2 mm worse on every other of 400 films: the drawn mean is 0.2 / 400 times Binomial(400, 1/2), whose
        // 2.5 and 97.5 % quantiles are 180 and 220. One film more or less is 0.0005 mm.
        let a = evaluation(400, |_| 1.9);
        let b = evaluation(400, |i| if i % 2 == 0 { 2.1 } else { 1.9 });
        let Comparison { mre, sdr_percent, .. } = compare(&a, &b, 1).expect("the same films");
        assert!((mre.difference - 0.1).abs() < 1e-9, "{mre:?}");
        assert!((mre.low - 0.09).abs() < 0.000_6 && (mre.high - 0.11).abs() < 0.000_6, "{mre:?}");
        assert_eq!(mre.verdict, Verdict::Worse);
        // The same films fall out of 2 mm: 100 to 50 %, one film is 0.25 points.
        assert!((sdr_percent.difference + 50.0).abs() < 1e-9, "{sdr_percent:?}");
        assert!((sdr_percent.low + 55.0).abs() < 0.3 && (sdr_percent.high + 45.0).abs() < 0.3, "{sdr_percent:?}");
        assert_eq!(sdr_percent.verdict, Verdict::Worse);
    }

    #[test]
    fn pairing_sees_a_small_difference_between_unequal_films() {
        // Films differ by millimetres, the models by 0.05 mm on each film: the interval is one point.
        let a = evaluation(50, |i| 0.5 + i as f64 / 10.0);
        let b = evaluation(50, |i| 0.45 + i as f64 / 10.0);
        let Comparison { mre, .. } = compare(&a, &b, 1).expect("the same films");
        assert!((mre.low + 0.05).abs() < 1e-9 && (mre.high + 0.05).abs() < 1e-9, "{mre:?}");
        assert_eq!(mre.verdict, Verdict::Better);
        assert_eq!(compare(&b, &a, 1).expect("the same films").mre.verdict, Verdict::Worse);
    }

    #[test]
    fn a_balanced_difference_is_not_shown() {
        let a = evaluation(100, |_| 1.0);
        let b = evaluation(100, |i| if i % 2 == 0 { 1.3 } else { 0.7 });
        let comparison = compare(&a, &b, 1).expect("the same films");
        assert_eq!(comparison.mre.verdict, Verdict::NoDifferenceShown);
        // Nothing crosses 2 mm: the interval is exactly 0.
        let Difference { low, high, verdict, .. } = comparison.sdr_percent;
        assert_eq!((low, high, verdict), (0.0, 0.0, Verdict::NoDifferenceShown));
        assert!(comparison.to_string().ends_with("+0.00 ..    +0.00  no difference shown"), "{comparison}");
    }

    #[test]
    fn rounding_noise_decides_nothing() {
        let figures = [vec![1.0], vec![1.0]];
        assert_eq!(difference(&figures, &[1e-17, 0.5], false).low, 0.0125);
        assert_eq!(difference(&figures, &[1e-17; 9], false).verdict, Verdict::NoDifferenceShown);
        assert_eq!(difference(&figures, &[-1e-17; 9], false).verdict, Verdict::NoDifferenceShown);
    }

    #[test]
    fn the_same_seed_draws_the_same_films() {
        let a = evaluation(30, |i| 1.0 + (i % 7) as f64 / 10.0);
        let b = evaluation(30, |i| 1.0 + (i % 5) as f64 / 10.0);
        let with = |seed| compare(&a, &b, seed).expect("the same films");
        assert_eq!(with(3), with(3));
        assert_ne!(with(3).mre, with(4).mre);
    }

    #[test]
    fn the_first_difference_is_named() {
        let a = evaluation(8, |_| 1.0);
        let changed = |change: fn(&mut Evaluation)| {
            let mut b = a.clone();
            change(&mut b);
            compare(&a, &b, 0).expect_err("something differs").to_string()
        };
        for (change, expected) in [
            (
                (|b| b.per_film[3].film = "x".into()) as fn(&mut Evaluation),
                "per_film[3].film differs: A has `003`, B has `x`",
            ),
            (|b| b.per_film.truncate(7), "per_film[7].film differs: A has `007`, B has none"),
            (|b| b.per_landmark.swap(0, 1), "per_landmark[0].landmark differs: A has `sella`, B has `nasion`"),
            (|b| b.setting.truth = "senior".into(), "setting.truth differs: A has `mean`, B has `senior`"),
            (|b| b.setting.protocol = Protocol::Reference, "setting.protocol differs: A has exact, B has reference"),
        ] {
            assert_eq!(changed(change), expected);
        }
    }

    #[test]
    fn a_handful_of_films_proves_nothing() {
        let error = compare(&evaluation(5, |_| 1.0), &evaluation(5, |_| 0.5), 0).expect_err("five films");
        assert!(error.to_string().starts_with("films is 5, expected 6 or more"), "{error}");
    }
}
