//! Anti-aliased lines, discs and ellipses on an RGB image, and text with a dark halo.

use std::convert::Infallible;

use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::BinaryColor;
use embedded_graphics::prelude::{Dimensions, DrawTarget, Drawable, Pixel, Point as TextPoint, Size as TextSize};
use embedded_graphics::primitives::Rectangle;
use embedded_graphics::text::{Baseline, Text};
use image::{Rgb, RgbImage};

use crate::geometry::{Point, Size};

const HALO: Rgb<u8> = Rgb([8, 9, 11]);
/// How far the halo of a text reaches, in picture pixels.
const HALO_REACH: i32 = 3;
/// How dark the halo is at a distance of 0, 1, 2 and 3 picture pixels from the text.
const HALO_OPACITY: [f64; 4] = [0.9, 0.85, 0.55, 0.2];

/// The picture that is drawn on. What lies outside it is cut off.
pub(super) struct Canvas {
    pub(super) image: RgbImage,
}

/// Width and height of a line of text, in picture pixels.
pub(super) fn text_size(text: &str, font: &MonoFont) -> (f64, f64) {
    let TextSize { width, height } = font.character_size;
    (f64::from(width) * text.chars().count() as f64, f64::from(height))
}

impl Canvas {
    pub(super) fn new(size: Size, background: Rgb<u8>) -> Self {
        Self { image: RgbImage::from_pixel(size.width, size.height, background) }
    }

    pub(super) fn size(&self) -> Size {
        Size::new(self.image.width(), self.image.height())
    }

    /// A line with round ends.
    pub(super) fn segment(&mut self, a: Point, b: Point, width: f64, colour: Rgb<u8>, opacity: f64) {
        let reach = width / 2.0 + 1.0;
        let (from, to) = (Point::new(a.x.min(b.x), a.y.min(b.y)), Point::new(a.x.max(b.x), a.y.max(b.y)));
        self.shade(from, to, reach, colour, opacity, |p| width / 2.0 - distance_to_segment(p, a, b));
    }

    pub(super) fn disc(&mut self, centre: Point, radius: f64, colour: Rgb<u8>, opacity: f64) {
        self.shade(centre, centre, radius + 1.0, colour, opacity, |p| radius - p.distance(centre));
    }

    /// The outline of an ellipse with semi-axes `radii` on x and y.
    pub(super) fn ellipse(&mut self, centre: Point, radii: [f64; 2], width: f64, colour: Rgb<u8>, opacity: f64) {
        let reach = radii[0].max(radii[1]) + width;
        self.shade(centre, centre, reach, colour, opacity, |p| width / 2.0 - outside_ellipse(p, centre, radii).abs());
    }

    /// The inside of an ellipse.
    pub(super) fn ellipse_fill(&mut self, centre: Point, radii: [f64; 2], colour: Rgb<u8>, opacity: f64) {
        let reach = radii[0].max(radii[1]) + 1.0;
        self.shade(centre, centre, reach, colour, opacity, |p| -outside_ellipse(p, centre, radii));
    }

    /// A line of text with its top left corner at (`x`, `y`).
    pub(super) fn text(&mut self, x: f64, y: f64, text: &str, font: &MonoFont, colour: Rgb<u8>) {
        let mask = Mask::of(text, font);
        let (x, y) = (x.round() as i32, y.round() as i32);
        for row in -HALO_REACH..mask.height + HALO_REACH {
            for column in -HALO_REACH..mask.width + HALO_REACH {
                if let Some(distance) = mask.distance(column, row) {
                    self.blend(x + column, y + row, HALO, HALO_OPACITY[distance]);
                }
            }
        }
        for row in 0..mask.height {
            for column in 0..mask.width {
                if mask.is_set(column, row) {
                    self.blend(x + column, y + row, colour, 1.0);
                }
            }
        }
    }

    /// Blends every pixel of a box by how far `inside` says it lies inside a shape, in pixels.
    fn shade(
        &mut self,
        from: Point,
        to: Point,
        reach: f64,
        colour: Rgb<u8>,
        opacity: f64,
        inside: impl Fn(Point) -> f64,
    ) {
        if ![from.x, from.y, to.x, to.y, reach].iter().all(|v| v.is_finite()) {
            return;
        }
        let Size { width, height } = self.size();
        let range = |low: f64, high: f64, n: u32| {
            let last = f64::from(n) - 1.0;
            ((low - reach).floor().max(0.0) as i32, (high + reach).ceil().min(last) as i32)
        };
        let ((x0, x1), (y0, y1)) = (range(from.x, to.x, width), range(from.y, to.y, height));
        for y in y0..=y1 {
            for x in x0..=x1 {
                let coverage = (inside(Point::new(f64::from(x), f64::from(y))) + 0.5).clamp(0.0, 1.0);
                if coverage > 0.0 {
                    self.blend(x, y, colour, opacity * coverage);
                }
            }
        }
    }

    fn blend(&mut self, x: i32, y: i32, colour: Rgb<u8>, opacity: f64) {
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { return };
        if let Some(pixel) = self.image.get_pixel_mut_checked(x, y) {
            for (below, above) in pixel.0.iter_mut().zip(colour.0) {
                let mixed = f64::from(*below) * (1.0 - opacity) + f64::from(above) * opacity;
                *below = mixed.round() as u8;
            }
        }
    }
}

fn distance_to_segment(p: Point, a: Point, b: Point) -> f64 {
    let (dx, dy) = (b.x - a.x, b.y - a.y);
    let squared = dx * dx + dy * dy;
    let t = if squared > 0.0 { (((p.x - a.x) * dx + (p.y - a.y) * dy) / squared).clamp(0.0, 1.0) } else { 0.0 };
    p.distance(Point::new(a.x + t * dx, a.y + t * dy))
}

/// The distance of `p` from the ellipse, negative inside, to first order: `f / |grad f|` of its implicit form.
fn outside_ellipse(p: Point, centre: Point, radii: [f64; 2]) -> f64 {
    let [rx, ry] = radii.map(|r| r.max(0.5));
    let (u, v) = ((p.x - centre.x) / rx, (p.y - centre.y) / ry);
    let norm = u.hypot(v);
    let slope = (u / rx).hypot(v / ry);
    if slope > 0.0 { norm * (norm - 1.0) / slope } else { -rx.min(ry) }
}

/// The set pixels of a line of text.
struct Mask {
    width: i32,
    height: i32,
    set: Vec<bool>,
}

impl Mask {
    fn of(text: &str, font: &MonoFont) -> Self {
        let (width, height) = text_size(text, font);
        let (width, height) = (width as i32, height as i32);
        let mut mask = Self { width, height, set: vec![false; (width * height) as usize] };
        let style = MonoTextStyle::new(font, BinaryColor::On);
        let drawn = Text::with_baseline(text, TextPoint::zero(), style, Baseline::Top).draw(&mut mask);
        drawn.expect("a mask takes every pixel");
        mask
    }

    fn is_set(&self, x: i32, y: i32) -> bool {
        let inside = (0..self.width).contains(&x) && (0..self.height).contains(&y);
        inside && self.set[(y * self.width + x) as usize]
    }

    /// The distance to the nearest set pixel, in pixels, if the halo reaches so far.
    fn distance(&self, x: i32, y: i32) -> Option<usize> {
        let squares = (-HALO_REACH..=HALO_REACH).flat_map(|dy| {
            (-HALO_REACH..=HALO_REACH).filter(move |dx| self.is_set(x + dx, y + dy)).map(move |dx| dx * dx + dy * dy)
        });
        let distance = f64::from(squares.min()?).sqrt().round() as usize;
        (distance < HALO_OPACITY.len()).then_some(distance)
    }
}

impl Dimensions for Mask {
    fn bounding_box(&self) -> Rectangle {
        Rectangle::new(TextPoint::zero(), TextSize::new(self.width.unsigned_abs(), self.height.unsigned_abs()))
    }
}

impl DrawTarget for Mask {
    type Color = BinaryColor;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<BinaryColor>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(at, colour) in pixels {
            if (0..self.width).contains(&at.x) && (0..self.height).contains(&at.y) {
                self.set[(at.y * self.width + at.x) as usize] = colour.is_on();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use embedded_graphics::mono_font::ascii::FONT_9X15_BOLD;

    use super::*;

    const WHITE: Rgb<u8> = Rgb([255; 3]);

    fn canvas() -> Canvas {
        Canvas::new(Size::new(40, 40), Rgb([100; 3]))
    }

    #[test]
    fn a_disc_covers_its_area() {
        let mut canvas = Canvas::new(Size::new(40, 40), Rgb([0; 3]));
        canvas.disc(Point::new(20.25, 19.5), 10.0, WHITE, 1.0);
        let area: f64 = canvas.image.pixels().map(|p| f64::from(p.0[0]) / 255.0).sum();
        assert!((area - 314.16).abs() < 2.0, "{area}");
    }

    #[test]
    fn the_first_order_distance_is_exact_on_the_axes() {
        let centre = Point::new(5.0, 5.0);
        for (p, expected) in
            [(Point::new(17.0, 5.0), 2.0), (Point::new(5.0, 7.0), -1.0), (Point::new(5.0, 9.0), 1.0), (centre, -3.0)]
        {
            assert!((outside_ellipse(p, centre, [10.0, 3.0]) - expected).abs() < 1e-9, "{p:?}");
        }
    }

    #[test]
    fn the_distance_to_a_segment_counts_its_ends() {
        let (a, b) = (Point::new(0.0, 0.0), Point::new(10.0, 0.0));
        for (p, expected) in [(Point::new(5.0, 3.0), 3.0), (Point::new(13.0, 4.0), 5.0), (Point::new(-2.0, 0.0), 2.0)] {
            assert_eq!(distance_to_segment(p, a, b), expected);
        }
        assert_eq!(distance_to_segment(Point::new(3.0, 4.0), a, a), 5.0);
    }

    #[test]
    fn text_is_light_on_a_dark_halo_and_cut_at_the_border() {
        let mut canvas = canvas();
        canvas.text(10.0, 10.0, "I", &FONT_9X15_BOLD, WHITE);
        assert!(canvas.image.pixels().any(|p| p.0 == [255; 3]), "the letter");
        assert!(canvas.image.pixels().any(|p| p.0[0] < 40), "its halo");
        canvas.text(-30.0, 35.0, "cut off", &FONT_9X15_BOLD, WHITE);
    }
}
