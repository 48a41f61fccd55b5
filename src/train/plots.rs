//! Errors as pictures (SVG): the cumulative curve of one or more runs, and a box a landmark.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::canvas::{Area, Drawn, FINE, GRID, INK, mesh, plane, shown, svg, text, text_px};
use super::statistics::quantile;
use crate::geometry::LengthUnit;

/// Width of both pictures on display.
const WIDTH_PX: i32 = 820;
/// Height of the curve's picture on display.
const CURVE_HEIGHT_PX: i32 = 480;
/// The curve shows at least this much of the axis, in the errors' unit.
const LEAST_RANGE: f64 = 5.0;
/// A box picture's axis ends at most at this multiple of the longest whisker.
const MOST_WHISKERS: f64 = 2.0;
/// Points of a curve.
const CURVE_POINTS: u32 = 1500;
/// Height of a landmark's row on display.
const ROW_PX: i32 = 24;
const MARK: RGBColor = RGBColor(150, 150, 150);
const BOX: RGBColor = RGBColor(158, 202, 225);
/// Told apart with any colour vision (Okabe and Ito 2008), the darker ones first.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
];

/// A run in the picture of the cumulative error.
#[derive(Clone, Debug)]
pub struct ErrorCurve<'a> {
    /// What the legend calls it.
    pub name: &'a str,
    /// Radial errors, in any order.
    pub errors: Vec<f64>,
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// There is nothing to draw.
    #[error("{of} has no errors to draw")]
    Empty {
        /// Which run or picture.
        of: String,
    },
    /// An error is no distance.
    #[error("{of}: an error is {value}, expected a distance")]
    Value {
        /// Which run or landmark.
        of: String,
        /// What it is.
        value: f64,
    },
    /// There are not as many lists of errors as landmarks.
    #[error("there are errors of {found} landmarks, expected {expected}")]
    Landmarks {
        /// Lists of errors.
        found: usize,
        /// Landmarks.
        expected: usize,
    },
    /// The picture could not be drawn.
    #[error("drawing: {reason}")]
    Draw {
        /// The library's words.
        reason: String,
    },
}

/// The share of landmarks with an error up to e, for each run, as SVG.
///
/// The axis goes from 0 to 5 or to the 99th percentile of the worst run, in `unit`. `thresholds` are marked where they
/// lie on it. The curve counts an error equal to e. Colours repeat after seven runs.
///
/// # Errors
/// When there is no run, or a run has no error or one that is no distance.
pub fn cumulative_error_svg(
    runs: &[ErrorCurve<'_>],
    thresholds: &[f64],
    unit: LengthUnit,
) -> Result<String, PlotError> {
    if runs.is_empty() {
        return Err(PlotError::Empty { of: "the picture of the cumulative error".to_owned() });
    }
    let sorted: Vec<Vec<f64>> =
        runs.iter().map(|run| in_order(run.name, run.errors.clone())).collect::<Result<_, _>>()?;
    let range = sorted.iter().map(|errors| quantile(errors, 0.99)).fold(LEAST_RANGE, f64::max);
    let mut marks: Vec<f64> = thresholds.iter().copied().filter(|t| (0.0..=range).contains(t)).collect();
    marks.sort_by(f64::total_cmp);
    let size = (WIDTH_PX, CURVE_HEIGHT_PX);
    let names: Vec<String> = runs.iter().map(|run| shown(run.name)).collect();

    svg(size, |root| {
        let mut plane = plane(root, 34, 60, 24, (0.0..range, 0.0..100.0))?;
        mesh(&mut plane, &format!("radial error ({unit})"), "share of landmarks within it (%)", true)?;
        for &mark in &marks {
            let line = [(mark, 0.0), (mark, 100.0)].map(|p| plane.backend_coord(&p));
            root.draw(&PathElement::new(line, MARK.stroke_width(FINE as u32)))?;
        }
        let places: Vec<(f64, f64)> =
            marks.iter().map(|&t| (t, f64::from(plane.backend_coord(&(t, 100.0)).0) / f64::from(FINE))).collect();
        let (_, top) = plane.backend_coord(&(0.0, 100.0));
        for (label, middle_px) in mark_labels(&places, unit) {
            let middle = (middle_px * f64::from(FINE)) as i32;
            root.draw_text(&label, &text(13, HPos::Center, VPos::Bottom), (middle, top - 4 * FINE))?;
        }
        for (errors, colour) in sorted.iter().zip(COLOURS.iter().cycle()) {
            let share = |e: f64| 100.0 * errors.partition_point(|&v| v <= e) as f64 / errors.len() as f64;
            let at = |e: f64| plane.backend_coord(&(e, share(e)));
            let line = (0..=CURVE_POINTS).map(|i| at(range * f64::from(i) / f64::from(CURVE_POINTS)));
            root.draw(&PathElement::new(line.collect::<Vec<_>>(), colour.stroke_width(2 * FINE as u32)))?;
            for &mark in &marks {
                root.draw(&Circle::new(at(mark), 4 * FINE, colour.filled()))?;
            }
        }
        legend(root, plane.backend_coord(&(range, 0.0)), &names)
    })
    .map_err(|e| PlotError::Draw { reason: e.to_string() })
}

/// The radial error of each landmark as a box, as SVG, in the order of `landmarks`; `errors` holds one list a landmark.
///
/// A box goes from the first to the third quartile, with a line at the median; its whiskers go to the outermost errors
/// within 1.5 times the box's length, and errors beyond are dots. The axis ends at twice the longest whisker at most, so
/// that a gross error does not shrink the boxes; errors beyond it are counted at its end.
///
/// # Errors
/// When there is no landmark, not one list a landmark, a landmark without an error, or an error that is no distance.
pub fn box_plot_svg(landmarks: &[&str], errors: &[Vec<f64>], unit: LengthUnit) -> Result<String, PlotError> {
    if landmarks.is_empty() || errors.is_empty() {
        return Err(PlotError::Empty { of: "the picture of the landmarks".to_owned() });
    }
    let expected = landmarks.len();
    if errors.len() != expected {
        return Err(PlotError::Landmarks { found: errors.len(), expected });
    }
    let of_landmark = |(name, errors): (&&str, &Vec<f64>)| in_order(name, errors.clone());
    let sorted: Vec<Vec<f64>> = landmarks.iter().zip(errors).map(of_landmark).collect::<Result<_, _>>()?;
    let boxes: Vec<Whiskers> = sorted.iter().map(|errors| Whiskers::of(errors)).collect();
    let longest = boxes.iter().map(|b| b.high).fold(0.0, f64::max);
    let largest = sorted.iter().filter_map(|errors| errors.last().copied()).fold(0.0, f64::max);
    let end = if largest > MOST_WHISKERS * longest && longest > 0.0 { MOST_WHISKERS * longest } else { largest };
    let range = if end > 0.0 { end * 1.02 } else { 1.0 };
    let names: Vec<String> = landmarks.iter().map(|name| shown(name)).collect();
    let left = 16 + names.iter().map(|name| text_px(name)).fold(0.0, f64::max) as i32;
    let right = if largest > end { 140 } else { 24 };
    let size = (left + WIDTH_PX - 140, ROW_PX * expected as i32 + 70);

    svg(size, |root| {
        let mut plane = plane(root, 12, left, right, (0.0..range, expected as f64..0.0))?;
        mesh(&mut plane, &format!("radial error ({unit})"), "", false)?;
        for (k, ((name, errors), whiskers)) in names.iter().zip(&sorted).zip(&boxes).enumerate() {
            let row = k as f64 + 0.5;
            let at = |e: f64| plane.backend_coord(&(e, row));
            let (x, y) = at(0.0);
            root.draw_text(name, &text(14, HPos::Right, VPos::Center), (x - 8 * FINE, y))?;
            whiskers.draw(root, at)?;
            for &error in errors.iter().filter(|&&e| (e < whiskers.low || e > whiskers.high) && e <= end) {
                root.draw(&Circle::new(at(error), 5 * FINE / 2, INK.mix(0.45).filled()))?;
            }
            let beyond = errors.iter().filter(|&&e| e > end).count();
            if let (1.., Some(worst)) = (beyond, errors.last()) {
                let (x, y) = at(range);
                let tip = [(3, -4), (10, 0), (3, 4)].map(|(dx, dy)| (x + dx * FINE, y + dy * FINE));
                root.draw(&Polygon::new(tip, INK.filled()))?;
                let words = format!("+{beyond}, up to {worst:.1}");
                root.draw_text(&words, &text(12, HPos::Left, VPos::Center), (x + 14 * FINE, y))?;
            }
        }
        Ok(())
    })
    .map_err(|e| PlotError::Draw { reason: e.to_string() })
}

/// The five numbers of a box.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Whiskers {
    low: f64,
    quartiles: [f64; 3],
    high: f64,
}

impl Whiskers {
    /// Of at least one error, in order of size.
    fn of(sorted: &[f64]) -> Self {
        let quartiles @ [first, _, third] = [0.25, 0.5, 0.75].map(|share| quantile(sorted, share));
        let reach = 1.5 * (third - first);
        // Quartiles may lie between errors, and the outermost error within reach then inside the box.
        let low = sorted.iter().copied().find(|&e| e >= first - reach).unwrap_or(first).min(first);
        let high = sorted.iter().copied().rfind(|&e| e <= third + reach).unwrap_or(third).max(third);
        Self { low, quartiles, high }
    }

    fn draw(&self, root: &Area<'_>, at: impl Fn(f64) -> (i32, i32)) -> Drawn {
        let Self { low, quartiles: [first, median, third], high } = *self;
        let line = |from: (f64, i32), to: (f64, i32), width: i32| {
            let end = |(e, dy): (f64, i32)| (at(e).0, at(e).1 + dy * FINE);
            PathElement::new([end(from), end(to)], INK.stroke_width((width * FINE / 2) as u32))
        };
        let corner = |e: f64, dy: i32| (at(e).0, at(e).1 + dy * FINE);
        root.draw(&Rectangle::new([corner(first, -7), corner(third, 7)], BOX.filled()))?;
        for (from, to, width) in [
            ((low, 0), (first, 0), 2),
            ((third, 0), (high, 0), 2),
            ((low, -4), (low, 4), 2),
            ((high, -4), (high, 4), 2),
            ((first, -7), (first, 7), 2),
            ((third, -7), (third, 7), 2),
            ((first, -7), (third, -7), 2),
            ((first, 7), (third, 7), 2),
            ((median, -7), (median, 7), 5),
        ] {
            root.draw(&line(from, to, width))?;
        }
        Ok(())
    }
}

/// A box with every curve's name, its lower right end at `corner`.
fn legend(root: &Area<'_>, corner: (i32, i32), names: &[String]) -> Drawn {
    let (right, floor) = (corner.0 - 10 * FINE, corner.1 - 10 * FINE);
    let longest = names.iter().map(|name| text_px(name)).fold(0.0, f64::max) as i32;
    let row = |i: usize| floor - (14 + 20 * (names.len() - 1 - i) as i32) * FINE;
    let paper = [(right - (longest + 56) * FINE, row(0) - 14 * FINE), (right, floor)];
    root.draw(&Rectangle::new(paper, WHITE.filled()))?;
    let [(x0, y0), (x1, y1)] = paper;
    root.draw(&PathElement::new([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], GRID.stroke_width(FINE as u32)))?;
    for (i, (name, colour)) in names.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let (x, y) = (right - 10 * FINE, row(i));
        root.draw(&PathElement::new([(x - 24 * FINE, y), (x, y)], colour.stroke_width(3 * FINE as u32)))?;
        root.draw_text(name, &text(13, HPos::Right, VPos::Center), (x - 32 * FINE, y))?;
    }
    Ok(())
}

/// The labels of thresholds and where their middles stand; neighbours that would touch share one ("2, 2.5 mm").
///
/// `places` are thresholds with their places on display, in order.
fn mark_labels(places: &[(f64, f64)], unit: LengthUnit) -> Vec<(String, f64)> {
    let label = |group: &[(f64, f64)]| {
        let list: Vec<String> = group.iter().map(|(threshold, _)| threshold.to_string()).collect();
        let ends = group.first().zip(group.last()).map_or(0.0, |((_, first), (_, last))| first + last);
        (format!("{} {unit}", list.join(", ")), ends / 2.0)
    };
    let touch = |left: &[(f64, f64)], right: &[(f64, f64)]| {
        let ((left, left_px), (right, right_px)) = (label(left), label(right));
        right_px - left_px < (text_px(&left) + text_px(&right)) / 2.0 + 8.0
    };
    let mut groups: Vec<Vec<(f64, f64)>> = Vec::new();
    for &place in places {
        let mut group = vec![place];
        // A label that grew may touch the one before it.
        while let Some(before) = groups.pop_if(|before| touch(before, &group)) {
            group.splice(0..0, before);
        }
        groups.push(group);
    }
    groups.iter().map(|group| label(group)).collect()
}

fn in_order(of: &str, mut errors: Vec<f64>) -> Result<Vec<f64>, PlotError> {
    if errors.is_empty() {
        return Err(PlotError::Empty { of: of.to_owned() });
    }
    if let Some(&value) = errors.iter().find(|e| !e.is_finite() || **e < 0.0) {
        return Err(PlotError::Value { of: of.to_owned(), value });
    }
    errors.sort_by(f64::total_cmp);
    Ok(errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiskers_end_at_errors_and_the_rest_are_dots() {
        // Quartiles 2, 3 and 4, so 1.5 boxes beyond them are -1 and 7: 7 is the last error within, 8 is a dot.
        let errors = [0.0, 2.0, 2.0, 3.0, 3.0, 3.0, 4.0, 7.0, 8.0];
        let Whiskers { low, quartiles, high } = Whiskers::of(&errors);
        assert_eq!((low, quartiles, high), (0.0, [2.0, 3.0, 4.0], 7.0));
        // Quartiles 0, 0 and 2.5 between two errors: the upper whisker does not end at 0, inside the box.
        assert_eq!(Whiskers::of(&[0.0, 0.0, 0.0, 10.0]), Whiskers { low: 0.0, quartiles: [0.0, 0.0, 2.5], high: 2.5 });
    }

    /// The numbers of every attribute of this name.
    fn numbers(svg: &str, attribute: &str) -> Vec<f64> {
        let start = format!(" {attribute}=\"");
        let values = svg.split(&start).skip(1);
        let text =
            values.map(|rest| rest.split('"').next().expect("split yields one part")).collect::<Vec<_>>().join(" ");
        text.split([' ', ',']).filter(|n| !n.is_empty()).map(|n| n.parse().expect("a number")).collect()
    }

    #[test]
    fn a_dot_stands_at_the_share_of_each_threshold() {
        // 0.5, 1, 2 and 4.5: a half up to 1.5, three quarters up to 2.
        let run = ErrorCurve { name: "run", errors: vec![0.5, 1.0, 2.0, 4.5] };
        let svg = cumulative_error_svg(&[run], &[2.0, 1.5], LengthUnit::Mm).expect("a picture");
        // A mark is a grey line from 0 to 100 %.
        let grey = svg.lines().filter(|line| line.contains("#969696")).map(|line| numbers(line, "points"));
        let marks: Vec<[f64; 4]> = grey.map(|mark| mark.try_into().expect("two ends")).collect();
        let (x, y) = (numbers(&svg, "cx"), numbers(&svg, "cy"));
        assert_eq!((marks.len(), x.len()), (2, 2));
        for (i, share) in [(0, 0.5), (1, 0.75)] {
            let [x0, floor, x1, top] = marks[i];
            assert_eq!((x[i], x[i]), (x0, x1));
            assert!((y[i] - (floor + share * (top - floor))).abs() <= 1.0, "{share}: {} in {floor}..{top}", y[i]);
        }
    }

    #[test]
    fn several_runs_share_the_axis_and_the_legend() {
        let run = |name, errors: [f64; 2]| ErrorCurve { name, errors: errors.to_vec() };
        let runs = [run("first", [0.5, 20.0]), run("a<b & c", [1.0, 2.0])];
        let svg = cumulative_error_svg(&runs, &[2.0, 3.0, 50.0], LengthUnit::Mm).expect("a picture");
        assert!(svg.starts_with(r#"<svg width="820" height="480" viewBox="0 0 3280 1920""#), "{svg}");
        assert!(svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<circle").count(), 4, "two runs at the two thresholds on the axis");
        for words in ["first", "a&lt;b &amp; c", "2, 3 mm", "radial error (mm)"] {
            assert!(svg.contains(words), "{words} is not in the picture");
        }
    }

    #[test]
    fn a_box_picture_names_every_landmark_and_counts_what_lies_beyond_it() {
        let even: Vec<f64> = (0..20).map(|i| f64::from(i) / 20.0).collect();
        let far: Vec<f64> = (0..20).map(|i| if i == 7 { 60.0 } else { 1.0 }).collect();
        let svg = box_plot_svg(&["sella", "posterior_nasal_spine"], &[even, far], LengthUnit::Px).expect("a picture");
        for words in ["sella", "posterior_nasal_spine", "radial error (px)", "+1, up to 60.0"] {
            assert!(svg.contains(words), "{words} is not in the picture");
        }
        assert!(!svg.contains("<circle"), "nothing lies between the whiskers and the axis' end");
    }

    #[test]
    fn what_cannot_be_drawn_is_named() {
        let none = ErrorCurve { name: "best", errors: Vec::new() };
        assert_eq!(
            cumulative_error_svg(&[none], &[2.0], LengthUnit::Mm).expect_err("no errors").to_string(),
            "best has no errors to draw"
        );
        let error = |errors: &[Vec<f64>]| {
            box_plot_svg(&["sella", "nasion"], errors, LengthUnit::Mm).expect_err("no picture").to_string()
        };
        assert_eq!(error(&[vec![1.0]]), "there are errors of 1 landmarks, expected 2");
        assert_eq!(error(&[vec![1.0], vec![]]), "nasion has no errors to draw");
        assert_eq!(error(&[vec![1.0], vec![f64::NAN]]), "nasion: an error is NaN, expected a distance");
    }

    #[test]
    fn labels_that_would_touch_become_one() {
        let far = [(2.0, 100.0), (2.5, 200.0)];
        assert_eq!(mark_labels(&far, LengthUnit::Mm), [("2 mm".to_owned(), 100.0), ("2.5 mm".to_owned(), 200.0)]);
        let near = [(2.0, 100.0), (2.5, 120.0), (3.0, 140.0), (10.0, 420.0)];
        assert_eq!(
            mark_labels(&near, LengthUnit::Mm),
            [("2, 2.5, 3 mm".to_owned(), 120.0), ("10 mm".to_owned(), 420.0)]
        );
        // The two on the right become one, which then touches the one on the left.
        let chain = [(2.0, 100.0), (2.5, 149.0), (3.0, 165.0)];
        assert_eq!(mark_labels(&chain, LengthUnit::Mm), [("2, 2.5, 3 mm".to_owned(), 132.5)]);
    }

    #[test]
    fn perfect_results_have_a_picture_too() {
        box_plot_svg(&["sella"], &[vec![0.0]], LengthUnit::Mm).expect("a box of no length");
        cumulative_error_svg(&[ErrorCurve { name: "all", errors: vec![0.0] }], &[], LengthUnit::Mm).expect("a step");
    }
}
