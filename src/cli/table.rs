//! A film's landmarks as a table for people.

use std::fmt::Write;

use crate::geometry::{PixelSpacing, SpacingSource};
use crate::measure::Unit;
use crate::report::{FilmResult, LandmarkResult, MeasureResult, NormResult};

/// The table of one film, under a line about the film; ends with a line break.
pub(super) fn film_table(file: &str, result: &FilmResult) -> String {
    let FilmResult { image, landmarks, measures, model, timing } = result;
    let mut text = format!(
        "{file}  {}, {}x{} px, {}\n{} {} ({}): decode {:.0} ms, frame {:.0} ms, inference {:.0} ms\n\n",
        image.format,
        image.width_px,
        image.height_px,
        scale(image.spacing.as_ref()),
        model.name,
        model.version,
        model.backend,
        timing.decode_ms,
        timing.frame_ms,
        timing.inference_ms,
    );
    let in_mm = landmarks.iter().any(|landmark| landmark.x_mm.is_some());
    let width = landmarks.iter().map(|landmark| landmark.name.chars().count()).max().unwrap_or(0).max(8);
    let mm = if in_mm { format!("{:>9}{:>9}", "x mm", "y mm") } else { String::new() };
    line(
        &mut text,
        format_args!(
            "{:width$}{:>9}{:>9}{mm}{:>14}{:>8}{:>8}",
            "landmark", "x px", "y px", "sigma px", "r95 px", "score"
        ),
    );
    for landmark in landmarks {
        let LandmarkResult { name, x_px, y_px, x_mm, y_mm, sigma_px: [sx, sy], radius95_px, score, .. } = landmark;
        let mm = match (x_mm, y_mm) {
            (Some(x), Some(y)) => format!("{x:>9.2}{y:>9.2}"),
            _ if in_mm => " ".repeat(18),
            _ => String::new(),
        };
        let sigma = format!("{sx:.1} {sy:.1}");
        let radius = radius95_px.map_or_else(|| "-".to_owned(), |radius| format!("{radius:.1}"));
        line(&mut text, format_args!("{name:width$}{x_px:>9.1}{y_px:>9.1}{mm}{sigma:>14}{radius:>8}{score:>8.3}"));
    }
    if !measures.is_empty() {
        line(&mut text, format_args!("\n{:width$}{:>9}", "measure", "value"));
    }
    for measure in measures {
        let MeasureResult { name, unit, value, absent, class, norm, vertebrae } = measure;
        let value = match (value, unit) {
            (Some(value), Unit::Degrees) => format!("{value:>9.1} deg"),
            (Some(value), Unit::Millimetres) => format!("{value:>9.1} mm "),
            (Some(value), Unit::Ratio) => format!("{value:>9.3}    "),
            (None, _) => format!("{:>9}    {}", "-", absent.as_deref().unwrap_or_default()),
        };
        let vertebrae = vertebrae.map(|[a, b]| format!("vertebrae {a} and {b}")).unwrap_or_default();
        let class = class.as_deref().unwrap_or_default();
        let norm = norm.as_ref().map(|NormResult { source, low, high }| format!(" ({low} to {high}, {source})"));
        let norm = norm.unwrap_or_default();
        line(&mut text, format_args!("{}", format!("{name:width$}{value}  {class}{norm}{vertebrae}").trim_end()));
    }
    text
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("writing to a string");
}

fn scale(spacing: Option<&PixelSpacing>) -> String {
    let Some(PixelSpacing { x_mm, y_mm, source }) = spacing else { return "no scale stated".to_owned() };
    let plane = match source {
        SpacingSource::Calibrated => "calibrated",
        SpacingSource::Detector => "at the detector",
        SpacingSource::ErmFactor => "by the estimated magnification",
        SpacingSource::Config => "as configured",
    };
    if x_mm == y_mm { format!("{x_mm:.4} mm/px {plane}") } else { format!("{x_mm:.4} x {y_mm:.4} mm/px {plane}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{ImageInfo, ModelInfo, Timing};

    fn result(spacing: Option<PixelSpacing>) -> FilmResult {
        let mm = |px: f64| spacing.map(|spacing| px * spacing.x_mm);
        let landmark = |name: &str, x_px: f64, y_px: f64| LandmarkResult {
            name: name.to_owned(),
            x_px,
            y_px,
            x_mm: mm(x_px),
            y_mm: mm(y_px),
            sigma_px: [4.04, 11.26],
            radius95_px: (name == "sella").then_some(20.64),
            radius95_mm: None,
            score: 0.98765,
        };
        FilmResult {
            image: ImageInfo {
                sha256: "00".to_owned(),
                format: "jpeg".to_owned(),
                width_px: 1935,
                height_px: 2400,
                spacing,
                dicom: None,
            },
            landmarks: vec![landmark("sella", 835.25, 996.0), landmark("anterior_nasal_spine", 1.0, 2.0)],
            measures: Vec::new(),
            model: ModelInfo {
                name: "ceph".to_owned(),
                version: "1".to_owned(),
                sha256: "11".to_owned(),
                backend: "tract-cpu".to_owned(),
            },
            timing: Timing { decode_ms: 31.4, frame_ms: 8.0, inference_ms: 402.6 },
        }
    }

    #[test]
    fn measures_follow_with_their_class_or_why_there_is_none() {
        let measure = |name: &str, unit, value| MeasureResult {
            name: name.to_owned(),
            unit,
            value,
            absent: value.is_none().then(|| "the film's scale is unknown".to_owned()),
            class: (unit == Unit::Ratio).then(|| "normal".to_owned()),
            norm: (unit == Unit::Ratio).then(|| NormResult { source: "ours".to_owned(), low: 0.65, high: 0.7 }),
            vertebrae: (name == "cobb_1").then_some([5, 13]),
        };
        let measures = vec![
            measure("cobb_1", Unit::Degrees, Some(35.04)),
            measure("FHI", Unit::Ratio, Some(0.6667)),
            measure("MW", Unit::Millimetres, None),
        ];
        let table = film_table("a.jpg", &FilmResult { measures, ..result(None) });
        let expected = "
measure                 value
cobb_1                   35.0 deg  vertebrae 5 and 13
FHI                     0.667      normal (0.65 to 0.7, ours)
MW                          -    the film's scale is unknown
";
        assert!(table.ends_with(expected), "{table}");
    }

    #[test]
    fn columns_are_aligned_and_millimetres_stand_where_they_are_known() {
        let spacing = PixelSpacing { x_mm: 0.1, y_mm: 0.1, source: SpacingSource::Config };
        assert_eq!(
            film_table("a.jpg", &result(Some(spacing))),
            "\
a.jpg  jpeg, 1935x2400 px, 0.1000 mm/px as configured
ceph 1 (tract-cpu): decode 31 ms, frame 8 ms, inference 403 ms

landmark                 x px     y px     x mm     y mm      sigma px  r95 px   score
sella                   835.2    996.0    83.53    99.60      4.0 11.3    20.6   0.988
anterior_nasal_spine      1.0      2.0     0.10     0.20      4.0 11.3       -   0.988
"
        );
        let without = film_table("a.jpg", &result(None));
        assert!(without.contains("no scale stated"), "{without}");
        assert!(!without.contains(" mm\n") && !without.contains("x mm"), "{without}");
    }
}
