//! Clinical measures from landmarks: angles, ratios and distances with names of their own.
//!
//! Nothing here looks at a film: points go in, numbers come out, and with each number what it was measured between.
//! Points are in source pixels, x right, y down. What counts as normal is another question, and has another answer
//! elsewhere: [`Norms`].
//!
//! Some measures of the textbooks cannot be had of these landmarks and are in no set: inclinations of incisors (their
//! apices are not marked), Wits (the occlusal plane), the E-line (the tip of the nose).

mod cephalogram;
mod norms;
mod spine;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::geometry::{PixelSpacing, Point, Size};
use crate::landmark::CEPHALOGRAM_NAMES;

pub use norms::{Classed, ISBI2015, Norms};

/// Measures that belong together, over landmarks in a fixed order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MeasureSet {
    /// The eight analyses of the ISBI 2015 challenge, on its 19 landmarks.
    #[serde(rename = "cephalogram-isbi2015")]
    CephalogramIsbi2015,
    /// The three angles of the AASCE 2019 challenge, on the corners of 17 vertebrae.
    #[serde(rename = "spine-aasce2019")]
    SpineAasce2019,
}

/// One measure of a film.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// The field's name for it ("SNA").
    pub name: &'static str,
    /// Of the value.
    pub unit: Unit,
    /// The value, or why there is none.
    pub value: Result<f64, Absent>,
    /// For an angle of a spine: its end vertebrae, counted from the top from 1.
    pub vertebrae: Option<[u8; 2]>,
}

/// Of a measure's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Angles.
    Degrees,
    /// Distances.
    Millimetres,
    /// Quotients of two distances.
    Ratio,
}

/// Why a measure has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// Millimetres were asked of a film whose scale is unknown.
    NoScale,
    /// Two landmarks that a line goes through are one point.
    Degenerate,
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoScale => "the film's scale is unknown",
            Self::Degenerate => "landmarks that it is measured between coincide",
        })
    }
}

impl fmt::Display for MeasureSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CephalogramIsbi2015 => "cephalogram-isbi2015",
            Self::SpineAasce2019 => "spine-aasce2019",
        })
    }
}

impl MeasureSet {
    /// Every set.
    pub const ALL: [Self; 2] = [Self::CephalogramIsbi2015, Self::SpineAasce2019];

    /// Names of the landmarks it is taken from, in order.
    #[must_use]
    pub fn landmarks(self) -> Vec<String> {
        match self {
            Self::CephalogramIsbi2015 => CEPHALOGRAM_NAMES.map(str::to_owned).to_vec(),
            Self::SpineAasce2019 => spine::landmarks(),
        }
    }

    /// Every measure of the set, on landmarks in the set's order.
    ///
    /// Where pixels are not square, `spacing` makes them so before an angle is taken.
    ///
    /// # Panics
    /// When there are not as many points as [`landmarks`](Self::landmarks).
    #[must_use]
    pub fn of(self, points: &[Point], image: Size, spacing: Option<PixelSpacing>) -> Vec<Measure> {
        let [x, y] = spacing.map_or([1.0, 1.0], |spacing| [spacing.x_mm, spacing.y_mm]);
        let points: Vec<Point> = points.iter().map(|p| Point::new(p.x * x, p.y * y)).collect();
        match self {
            Self::CephalogramIsbi2015 => cephalogram::measure(&points, spacing.is_some()),
            Self::SpineAasce2019 => spine::measure(&points, f64::from(image.height) * y),
        }
    }
}

/// From one point to another.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Vector {
    x: f64,
    y: f64,
}

impl Vector {
    fn between(from: Point, to: Point) -> Self {
        Self { x: to.x - from.x, y: to.y - from.y }
    }

    fn length(self) -> f64 {
        self.x.hypot(self.y)
    }

    /// Positive when `other` is turned from this one as y is from x.
    fn cross(self, other: Self) -> f64 {
        self.x * other.y - self.y * other.x
    }

    /// The angle between the two directions, 0 to 180 degrees.
    fn angle(self, other: Self) -> Result<f64, Absent> {
        if self.length() == 0.0 || other.length() == 0.0 {
            return Err(Absent::Degenerate);
        }
        // Exact for small angles too, where the cosine is flat.
        let dot = self.x * other.x + self.y * other.y;
        Ok(self.cross(other).abs().atan2(dot).to_degrees())
    }
}
