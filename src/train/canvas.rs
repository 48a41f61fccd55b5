//! What every picture shares: the canvas, the plane with its axes, and text.

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Canvas units a pixel of display: the backend draws on whole units only.
pub(super) const FINE: i32 = 4;
/// Characters of a name that are shown.
const MOST_CHARACTERS: usize = 44;
/// Width of a character on display, in a wide sans-serif; only room is left by it, nothing is placed.
const CHARACTER_PX: i32 = 8;

/// Of text, axes and boxes.
pub(super) const INK: RGBColor = RGBColor(40, 40, 40);
/// Of lines behind everything.
pub(super) const GRID: RGBColor = RGBColor(226, 226, 226);

/// The whole canvas.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// Axes on it.
pub(super) type Plane<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
/// What drawing yields.
pub(super) type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// A picture of `size` pixels on display, drawn on a finer canvas.
pub(super) fn svg(
    size: (i32, i32),
    draw: impl FnOnce(&Area<'_>) -> Drawn,
) -> Result<String, DrawingAreaErrorKind<std::io::Error>> {
    let canvas = ((size.0 * FINE) as u32, (size.1 * FINE) as u32);
    let mut picture = String::new();
    {
        let root = SVGBackend::with_string(&mut picture, canvas).into_drawing_area();
        root.fill(&WHITE).and_then(|()| draw(&root)).and_then(|()| root.present())?;
    }
    let fine = format!(r#"width="{}" height="{}""#, canvas.0, canvas.1);
    Ok(picture.replacen(&fine, &format!(r#"width="{}" height="{}""#, size.0, size.1), 1))
}

/// An empty plane with room for `head`, `left` and `right` pixels around it.
pub(super) fn plane<'a, 'b>(
    root: &'a Area<'b>,
    head: i32,
    left: i32,
    right: i32,
    (x, y): (std::ops::Range<f64>, std::ops::Range<f64>),
) -> Result<Plane<'a, 'b>, DrawingAreaErrorKind<std::io::Error>> {
    ChartBuilder::on(root)
        .margin_top(head * FINE)
        .margin_right(right * FINE)
        .margin_left(8 * FINE)
        .x_label_area_size(52 * FINE)
        .y_label_area_size(left * FINE)
        .build_cartesian_2d(x, y)
}

/// Draws grid, ticks and the names of the axes; without `y_axis` the rows are the caller's to name.
pub(super) fn mesh(plane: &mut Plane<'_, '_>, x: &str, y: &str, y_axis: bool) -> Drawn {
    let style = |px: i32| ("sans-serif", points(px)).into_font().color(&INK);
    // As short as it goes: 0.5, 1, 1.5.
    let plain = |v: &f64| ((v * 1000.0).round() / 1000.0).to_string();
    let mut mesh = plane.configure_mesh();
    mesh.max_light_lines(0)
        .bold_line_style(GRID.stroke_width(FINE as u32))
        .axis_style(INK.stroke_width(FINE as u32))
        .set_all_tick_mark_size(5 * FINE)
        .label_style(style(13))
        .axis_desc_style(style(14))
        .x_label_formatter(&plain)
        .y_label_formatter(&plain)
        .x_labels(11)
        .x_desc(x)
        .y_desc(y);
    if !y_axis {
        mesh.y_labels(0).disable_y_mesh().disable_y_axis();
    }
    mesh.draw()
}

/// Text of `px` pixels on display, held at the point `h`, `v` of its box.
pub(super) fn text<'a>(px: i32, h: HPos, v: VPos) -> TextStyle<'a> {
    ("sans-serif", points(px)).into_font().color(&INK).pos(Pos::new(h, v))
}

/// The library's size of a font that is `px` pixels on display: its SVG backend divides by 1.24.
fn points(px: i32) -> f64 {
    f64::from(px * FINE) * 1.24
}

/// The room that a text takes on display, at most as a rule.
pub(super) fn text_px(text: &str) -> f64 {
    f64::from(CHARACTER_PX) * text.chars().count() as f64
}

/// A name in one line of limited length, without characters that XML forbids.
pub(super) fn shown(name: &str) -> String {
    let clean: Vec<char> = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if clean.len() <= MOST_CHARACTERS {
        return clean.into_iter().collect();
    }
    clean[..MOST_CHARACTERS - 1].iter().chain(&['…']).collect()
}
