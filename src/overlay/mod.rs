//! A film with its landmarks drawn on it, for a person to judge at a glance.
//!
//! Above the film stands what found the landmarks, below it a scale bar and the legend; the film itself carries a dot
//! and a name a landmark and the ellipse of two sigmas. Names stand beside their dot where there is room and on a
//! leader line where there is not; they never cover each other.

mod canvas;
mod labels;
mod scale_bar;

use embedded_graphics::mono_font::MonoFont;
use embedded_graphics::mono_font::ascii::{FONT_7X13_BOLD, FONT_9X15_BOLD, FONT_10X20};
use image::imageops::{self, FilterType};
use image::{GrayImage, ImageBuffer, Luma, Rgb, RgbImage};

use self::canvas::{Canvas, text_size};
use self::labels::{Anchor, Rect, place};
use self::scale_bar::ScaleBar;
use crate::geometry::{PixelSpacing, Point, Size};
use crate::landmark::Landmark;
use crate::radiograph::Radiograph;

/// The long side that a film is drawn with, in picture pixels.
const LONG_SIDE: f64 = 1440.0;
/// Small films are enlarged, but no pixel becomes larger than this.
const MAX_ENLARGEMENT: f64 = 4.0;
/// Narrow films get margins, so that the names and the title have room.
const MIN_WIDTH: u32 = 960;
const HEADER: u32 = 40;
const FOOTER: u32 = 56;
const MARGIN: f64 = 16.0;
/// From this many landmarks on the names are set small.
const CROWD: usize = 32;

const BACKGROUND: Rgb<u8> = Rgb([14, 16, 19]);
const INK: Rgb<u8> = Rgb([236, 239, 244]);
const FAINT: Rgb<u8> = Rgb([150, 158, 170]);
const WARNING: Rgb<u8> = Rgb([255, 190, 92]);
/// A dot, its name, ellipse and leader share a colour; neighbours in the list differ.
const PALETTE: [Rgb<u8>; 6] = [
    Rgb([255, 209, 102]),
    Rgb([102, 217, 255]),
    Rgb([160, 240, 130]),
    Rgb([255, 150, 130]),
    Rgb([210, 170, 255]),
    Rgb([255, 160, 215]),
];

/// The film with its landmarks, at most 1440 picture pixels of it on the long side.
///
/// `landmarks` are in source pixels; `spacing` is the scale of the bar (without one it counts pixels); `title` says
/// what found the landmarks and must not name a patient, since the picture may be shown anywhere.
#[must_use]
pub fn draw(radiograph: &Radiograph, landmarks: &[Landmark], spacing: Option<PixelSpacing>, title: &str) -> RgbImage {
    let film = shrink(radiograph);
    let view = View::new(radiograph.size, film.dimensions());
    let mut canvas = Canvas::new(view.canvas, BACKGROUND);
    for (x, y, &Luma([v])) in film.enumerate_pixels() {
        canvas.image.put_pixel(x + view.left, y + HEADER, Rgb([v; 3]));
    }
    draw_landmarks(&mut canvas, &view, landmarks);
    draw_header(&mut canvas, title);
    draw_footer(&mut canvas, &view, spacing, !landmarks.is_empty());
    canvas.image
}

/// From source pixels to picture pixels.
struct View {
    canvas: Size,
    left: u32,
    film: (u32, u32),
    scale: [f64; 2],
}

impl View {
    fn new(source: Size, (width, height): (u32, u32)) -> Self {
        let canvas = Size::new(width.max(MIN_WIDTH), height + HEADER + FOOTER);
        let scale = [f64::from(width) / f64::from(source.width), f64::from(height) / f64::from(source.height)];
        Self { canvas, left: (canvas.width - width) / 2, film: (width, height), scale }
    }

    /// Pixel centres are at integers on both sides, so borders, not centres, coincide.
    fn point(&self, p: Point) -> Point {
        let along = |v: f64, scale: f64| (v + 0.5) * scale - 0.5;
        Point::new(along(p.x, self.scale[0]) + f64::from(self.left), along(p.y, self.scale[1]) + f64::from(HEADER))
    }

    fn label_area(&self) -> Rect {
        let (width, height) = (f64::from(self.canvas.width), f64::from(self.film.1));
        Rect { x: 4.0, y: f64::from(HEADER) + 4.0, width: width - 8.0, height: height - 8.0 }
    }
}

/// The film in 8 bits at the size in which it is drawn.
fn shrink(radiograph: &Radiograph) -> GrayImage {
    let Size { width, height } = radiograph.size;
    let gray: Vec<u8> = radiograph.pixels.iter().map(|&v| (v / 257) as u8).collect();
    let film: GrayImage =
        ImageBuffer::from_raw(width, height, gray).expect("a radiograph has width x height gray values");
    let scale = (LONG_SIDE / f64::from(width.max(height))).min(MAX_ENLARGEMENT);
    let scaled = |n: u32| (f64::from(n) * scale).round().max(1.0) as u32;
    if scale > 1.0 {
        imageops::resize(&film, scaled(width), scaled(height), FilterType::CatmullRom)
    } else {
        imageops::thumbnail(&film, scaled(width), scaled(height))
    }
}

fn draw_landmarks(canvas: &mut Canvas, view: &View, landmarks: &[Landmark]) {
    let font: &MonoFont = if landmarks.len() < CROWD { &FONT_9X15_BOLD } else { &FONT_7X13_BOLD };
    let names: Vec<_> = landmarks.iter().map(|landmark| landmark.name.replace('_', " ")).collect();
    let points: Vec<_> = landmarks.iter().map(|landmark| view.point(landmark.point)).collect();
    let radii: Vec<_> = landmarks
        .iter()
        .map(|landmark| [0, 1].map(|axis| 2.0 * landmark.sigma_px[axis].abs() * view.scale[axis]))
        .collect();
    let anchors: Vec<_> = std::iter::zip(&points, &radii)
        .zip(&names)
        .map(|((&point, &[rx, ry]), name)| {
            let (width, height) = text_size(name, font);
            Anchor { point, clear: rx.max(ry).clamp(6.0, 18.0), width, height }
        })
        .collect();
    let labels = place(&anchors, view.label_area());

    for (i, (&point, &[rx, ry])) in std::iter::zip(&points, &radii).enumerate() {
        let colour = PALETTE[i % PALETTE.len()];
        if rx.is_finite() && ry.is_finite() {
            canvas.ellipse_fill(point, [rx, ry], colour, 0.12);
            canvas.ellipse(point, [rx, ry], 1.5, colour, 0.85);
        }
        if let Some(leader) = labels[i].as_ref().and_then(|label| label.leader) {
            canvas.segment(point, leader, 3.0, BACKGROUND, 0.45);
            canvas.segment(point, leader, 1.2, colour, 0.85);
        }
    }
    for (i, &point) in points.iter().enumerate() {
        canvas.disc(point, 4.6, BACKGROUND, 0.8);
        canvas.disc(point, 3.2, PALETTE[i % PALETTE.len()], 1.0);
    }
    for (i, (label, name)) in std::iter::zip(&labels, &names).enumerate() {
        if let Some(label) = label {
            canvas.text(label.rect.x, label.rect.y, name, font, PALETTE[i % PALETTE.len()]);
        }
    }
}

fn draw_header(canvas: &mut Canvas, title: &str) {
    let note = "NOT FOR DIAGNOSIS";
    let (width, height) = text_size(note, &FONT_10X20);
    let y = (f64::from(HEADER) - height) / 2.0;
    let right = f64::from(canvas.size().width) - MARGIN - width;
    let room = ((right - 3.0 * MARGIN) / 10.0) as usize;
    let title: String = title.chars().take(room).collect();
    canvas.text(MARGIN, y, &title, &FONT_10X20, INK);
    canvas.text(right, y, note, &FONT_10X20, WARNING);
}

fn draw_footer(canvas: &mut Canvas, view: &View, spacing: Option<PixelSpacing>, legend: bool) {
    let top = f64::from(HEADER + view.film.1);
    let bar = ScaleBar::choose(view.scale[0], spacing, f64::from(view.film.0) * 0.3);
    let (x, y) = (f64::from(view.left) + MARGIN, top + 38.0);
    let end = x + bar.length;
    canvas.segment(Point::new(x, y), Point::new(end, y), 2.0, INK, 1.0);
    for i in 0..=bar.divisions {
        let at = x + bar.length * f64::from(i) / f64::from(bar.divisions);
        let tick = if i == 0 || i == bar.divisions { 7.0 } else { 4.0 };
        canvas.segment(Point::new(at, y - tick), Point::new(at, y), 2.0, INK, 1.0);
    }
    canvas.text(x, top + 8.0, &bar.label, &FONT_9X15_BOLD, INK);
    if legend {
        let words = "ellipse: 2 sigma";
        let (width, height) = text_size(words, &FONT_9X15_BOLD);
        let right = f64::from(canvas.size().width) - MARGIN - width;
        let y = top + (f64::from(FOOTER) - height) / 2.0;
        canvas.ellipse(Point::new(right - 22.0, y + height / 2.0), [12.0, 7.0], 1.5, FAINT, 1.0);
        canvas.text(right, y, words, &FONT_9X15_BOLD, FAINT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::SpacingSource;
    use crate::radiograph::Format;

    fn black(width: u32, height: u32) -> Radiograph {
        let size = Size::new(width, height);
        Radiograph::gray(Format::Png, size, vec![0; size.area() as usize])
    }

    fn landmark(x: f64, y: f64) -> Landmark {
        Landmark {
            name: "sella".to_owned(),
            point: Point::new(x, y),
            sigma_px: [4.0, 9.0],
            radius95_px: None,
            score: 0.9,
        }
    }

    #[test]
    fn the_long_side_is_that_of_a_screen() {
        for (film, expected) in [
            ((1935, 2400), (1161, 1440)),
            ((3000, 1500), (1440, 720)),
            ((100, 100), (400, 400)),
            ((1, 4000), (1, 1440)),
        ] {
            assert_eq!(shrink(&black(film.0, film.1)).dimensions(), expected, "{film:?}");
        }
    }

    #[test]
    fn a_dot_lies_where_its_landmark_is() {
        let film = black(1440, 1440);
        let plain = draw(&film, &[], None, "model");
        let marked = draw(&film, &[landmark(700.0, 300.0)], None, "model");
        let at = (700, 300 + HEADER);
        assert_eq!(plain.get_pixel(at.0, at.1), &Rgb([0; 3]));
        assert_eq!(marked.get_pixel(at.0, at.1), &PALETTE[0]);
    }

    #[test]
    fn the_ellipse_has_two_sigmas_on_each_axis() {
        let film = black(1440, 1440);
        let mut far = landmark(700.0, 700.0);
        far.sigma_px = [20.0, 40.0];
        let picture = draw(&film, &[far], None, "model");
        let lit = |x: u32, y: u32| picture.get_pixel(x, y + HEADER).0.iter().any(|&v| v > 120);
        assert!(lit(700 - 40, 700) && lit(700, 700 - 80), "the outline at 2 sigma");
        assert!(!lit(700 - 46, 700) && !lit(700, 700 - 86), "nothing outside it");
        assert!(!lit(700 - 34, 700) && !lit(700, 700 - 74), "nothing but a tint inside it");
    }

    #[test]
    fn odd_films_and_landmarks_are_drawn_without_a_panic() {
        let mut odd = landmark(f64::NAN, f64::INFINITY);
        odd.sigma_px = [f64::NAN, -1.0];
        odd.name = "Ünknown name that is much too long for any picture of this size to show ".repeat(4);
        let outside = landmark(-5000.0, 1e9);
        let mut wide = landmark(1.0, 1.0);
        wide.sigma_px = [1e12, 1e-12];
        let spacing = PixelSpacing { x_mm: 0.0, y_mm: f64::NAN, source: SpacingSource::Config };
        for film in [black(1, 1), black(3, 4000), black(4000, 3), black(300, 300)] {
            let picture = draw(&film, &[odd.clone(), outside.clone(), wide.clone()], Some(spacing), &"t".repeat(500));
            assert!(picture.width() >= MIN_WIDTH);
        }
    }
}
