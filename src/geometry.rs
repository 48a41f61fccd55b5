//! Points, pixel spacing and the NFDP frame: pure geometry, no pixels.
//!
//! Coordinate frame everywhere in this package: the centre of pixel `k` is coordinate `k`, x grows to the right,
//! y grows downwards, and pairs are in the order (x, y).

use serde::{Deserialize, Serialize};

/// The factor by which the paper's box is enlarged: the film fills at most 1 / 1.25 = 80 % of the frame.
pub const BOX_ENLARGEMENT: f64 = 1.25;

/// A point in pixels of the image it belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// To the right, in pixels.
    pub x: f64,
    /// Downwards, in pixels.
    pub y: f64,
}

impl Point {
    /// The point at (`x`, `y`).
    #[must_use]
    pub const fn new(x: f64, y: f64) -> Self {
        Self { x, y }
    }

    /// Euclidean distance to `other`, in the unit of the two points.
    #[must_use]
    pub fn distance(self, other: Self) -> f64 {
        (self.x - other.x).hypot(self.y - other.y)
    }

    /// The point halfway between this one and `other`.
    #[must_use]
    pub fn midpoint(self, other: Self) -> Self {
        Self::new((self.x + other.x) / 2.0, (self.y + other.y) / 2.0)
    }
}

/// Width and height of an image in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Size {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Size {
    /// `width` columns by `height` rows.
    #[must_use]
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// The number of pixels.
    #[must_use]
    pub const fn area(self) -> u64 {
        self.width as u64 * self.height as u64
    }

    /// Whether the point lies on the image: from half a pixel before the first centre to half a pixel after the last.
    #[must_use]
    pub fn contains(self, point: Point) -> bool {
        let inside = |v: f64, n: u32| (-0.5..f64::from(n) - 0.5).contains(&v);
        inside(point.x, self.width) && inside(point.y, self.height)
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// The frame that a film is placed in before the network sees it: its sides in pixels and how much room it leaves.
///
/// Written as a table of `width`, `height` and, where it is not the paper's, `enlargement`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The box's sides in units of the smallest box of the frame's aspect ratio that holds the film; at least 1.
    #[serde(default = "paper_enlargement", skip_serializing_if = "is_paper_enlargement")]
    pub enlargement: f64,
}

const fn paper_enlargement() -> f64 {
    BOX_ENLARGEMENT
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_paper_enlargement(enlargement: &f64) -> bool {
    *enlargement == BOX_ENLARGEMENT
}

impl Frame {
    /// `width` columns by `height` rows, with the paper's enlargement.
    #[must_use]
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height, enlargement: BOX_ENLARGEMENT }
    }

    /// Columns and rows.
    #[must_use]
    pub const fn size(self) -> Size {
        Size::new(self.width, self.height)
    }

    /// Source pixels of a film of `film` pixels that one frame row or column spans, without augmentation.
    #[must_use]
    pub fn step(self, film: Size) -> f64 {
        1.0 / self.place(film).scale()
    }

    /// Where a film lies in the frame without augmentation: source pixels to frame pixels.
    ///
    /// The box is centred on the image, padded to the frame's aspect ratio and enlarged; the image's centre (w/2, h/2)
    /// lands on the frame's (W/2, H/2), as in the public NFDP code.
    ///
    /// # Examples
    /// ```
    /// use landmarkd::geometry::{Frame, Point, Size};
    /// let to_frame = Frame::new(512, 512).place(Size::new(1935, 2400));
    /// let centre = to_frame.apply(Point::new(967.5, 1200.0));
    /// assert_eq!((centre.x, centre.y), (256.0, 256.0));
    /// assert!((to_frame.scale() - 512.0 / (2400.0 * 1.25)).abs() < 1e-12);
    /// ```
    #[must_use]
    pub fn place(self, film: Size) -> Similarity {
        let [w, h] = [film.width, film.height].map(f64::from);
        let [fw, fh] = [self.width, self.height].map(f64::from);
        let box_width = w.max(h * fw / fh) * self.enlargement;
        Similarity::about(Point::new(w / 2.0, h / 2.0), Point::new(fw / 2.0, fh / 2.0), fw / box_width, 0.0)
    }
}

impl std::fmt::Display for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// The unit of a distance on a film.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LengthUnit {
    /// Millimetres.
    Mm,
    /// Pixels of the film.
    Px,
}

impl std::fmt::Display for LengthUnit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Mm => "mm",
            Self::Px => "px",
        })
    }
}

/// Where a pixel spacing comes from; without one of these no millimetres are reported (DICOM PS3.3 10.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpacingSource {
    /// Pixel Spacing (0028,0030) with a calibration stated, in the plane of the anatomy.
    Calibrated,
    /// Imager Pixel Spacing (0018,1164), at the detector plane: larger than the anatomy by the magnification.
    Detector,
    /// Imager Pixel Spacing divided by Estimated Radiographic Magnification Factor (0018,1114).
    ErmFactor,
    /// Stated in the daemon's configuration.
    Config,
}

/// The distance between neighbouring pixel centres, with its provenance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PixelSpacing {
    /// Between columns, in millimetres.
    pub x_mm: f64,
    /// Between rows, in millimetres.
    pub y_mm: f64,
    /// Where the two figures come from.
    pub source: SpacingSource,
}

/// A similarity transform: rotation, uniform scale and shift, `p' = [a -b; b a] p + t`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    a: f64,
    b: f64,
    tx: f64,
    ty: f64,
}

impl Similarity {
    /// The transform that leaves every point where it is.
    pub const IDENTITY: Self = Self { a: 1.0, b: 0.0, tx: 0.0, ty: 0.0 };

    /// Scales by `scale` and turns by `angle_rad` (positive from x towards y) about `from`, which lands on `to`.
    #[must_use]
    pub fn about(from: Point, to: Point, scale: f64, angle_rad: f64) -> Self {
        let (sin, cos) = angle_rad.sin_cos();
        let (a, b) = (scale * cos, scale * sin);
        Self { a, b, tx: to.x - (a * from.x - b * from.y), ty: to.y - (b * from.x + a * from.y) }
    }

    /// Where `point` lands.
    #[must_use]
    pub fn apply(&self, point: Point) -> Point {
        Point::new(self.a * point.x - self.b * point.y + self.tx, self.b * point.x + self.a * point.y + self.ty)
    }

    /// The exact inverse.
    ///
    /// A scale of zero has none; every transform made here has a positive scale.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let det = self.a * self.a + self.b * self.b;
        let (a, b) = (self.a / det, -self.b / det);
        Self { a, b, tx: -(a * self.tx - b * self.ty), ty: -(b * self.tx + a * self.ty) }
    }

    /// This transform after `first`: `(self.after(first)).apply(p) == self.apply(first.apply(p))`.
    #[must_use]
    pub fn after(&self, first: &Self) -> Self {
        let t = self.apply(Point::new(first.tx, first.ty));
        Self { a: self.a * first.a - self.b * first.b, b: self.b * first.a + self.a * first.b, tx: t.x, ty: t.y }
    }

    /// Destination pixels per source pixel.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.a.hypot(self.b)
    }

    /// How far the destination moves for one step to the right in the source.
    #[must_use]
    pub const fn x_step(&self) -> Point {
        Point::new(self.a, self.b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(a: Point, b: Point, tolerance: f64) -> bool {
        a.distance(b) <= tolerance
    }

    #[test]
    fn a_quarter_turn_takes_right_to_down() {
        let turn = Similarity::about(Point::default(), Point::default(), 2.0, std::f64::consts::FRAC_PI_2);
        assert!(close(turn.apply(Point::new(1.0, 0.0)), Point::new(0.0, 2.0), 1e-12));
    }

    #[test]
    fn a_wide_film_fills_the_width_and_a_tall_one_the_height() {
        for (film, frame, expected) in [
            (Size::new(1000, 500), Frame::new(512, 512), 512.0 / 1250.0),
            (Size::new(500, 1000), Frame::new(512, 512), 512.0 / 1250.0),
            (Size::new(500, 1500), Frame::new(256, 512), 512.0 / (1500.0 * 1.25)),
            (Size::new(500, 1500), Frame { enlargement: 1.0, ..Frame::new(256, 512) }, 512.0 / 1500.0),
        ] {
            assert!((frame.place(film).scale() - expected).abs() < 1e-12, "{film} in {frame}");
        }
    }

    #[test]
    fn the_papers_enlargement_is_not_written_and_another_one_is() {
        let json = |frame: Frame| serde_json::to_string(&frame).expect("plain fields");
        let (paper, tight) = (Frame::new(512, 640), Frame { enlargement: 1.04, ..Frame::new(512, 640) });
        assert_eq!(json(paper), r#"{"width":512,"height":640}"#);
        assert_eq!(json(tight), r#"{"width":512,"height":640,"enlargement":1.04}"#);
        for frame in [paper, tight] {
            assert_eq!(serde_json::from_str::<Frame>(&json(frame)).expect("what was written"), frame);
        }
    }

    #[test]
    fn the_border_of_an_image_is_half_a_pixel_outside_its_centres() {
        let size = Size::new(10, 20);
        assert!(size.contains(Point::new(-0.5, 19.4)));
        assert!(!size.contains(Point::new(9.5, 0.0)));
    }

    proptest! {
        #[test]
        fn the_frame_inverts_exactly(
            w in 32u32..9000, h in 32u32..9000, fw in 64u32..1024, fh in 64u32..1024,
            x in -100.0..9000.0, y in -100.0..9000.0,
        ) {
            let forward = Frame::new(fw, fh).place(Size::new(w, h));
            let p = Point::new(x, y);
            prop_assert!(close(forward.inverse().apply(forward.apply(p)), p, 1e-8));
        }

        #[test]
        fn transforms_compose(
            angle in -3.0..3.0, scale in 0.1..10.0, cx in -50.0..50.0, cy in -50.0..50.0,
            x in -100.0..100.0, y in -100.0..100.0,
        ) {
            let f = Similarity::about(Point::new(cx, cy), Point::new(3.0, -4.0), scale, angle);
            let g = Similarity::about(Point::new(1.0, 2.0), Point::new(cy, cx), 0.5, -angle);
            let p = Point::new(x, y);
            prop_assert!(close(g.after(&f).apply(p), g.apply(f.apply(p)), 1e-9));
        }
    }
}
