//! A smooth random deformation of a frame: a uniform cubic B-spline through random displacements of control points
//! (Rueckert et al., IEEE TMI 18(8), 1999, eq. 1).

use chacha20::ChaCha8Rng;
use rand::RngExt;

use crate::geometry::{Point, Size};

/// Spans of the control grid along the frame's longer side.
const SPANS: f64 = 4.0;
/// Rounds of the inversion; each shrinks the error by the displacement's slope, which the largest one keeps below a half.
const ROUNDS: usize = 24;

/// From frame pixels to where in the undeformed frame they are taken from.
#[derive(Clone, Debug)]
pub struct Deformation {
    /// Frame pixels between control points.
    spacing: f64,
    /// Control points a row.
    columns: usize,
    /// Displacements in frame pixels, row by row; the first lies one spacing left of and above pixel (0, 0).
    control: Vec<Point>,
}

impl Deformation {
    /// Control points displaced uniformly by up to `largest` of the frame's longer side on x and y.
    pub(super) fn draw(rng: &mut ChaCha8Rng, frame: Size, largest: f64) -> Self {
        let side = f64::from(frame.width.max(frame.height));
        let spacing = side / SPANS;
        let points = |side: u32| (f64::from(side) / spacing).ceil() as usize + 3;
        let (columns, rows) = (points(frame.width), points(frame.height));
        let mut between = || (2.0 * rng.random::<f64>() - 1.0) * largest * side;
        let control = (0..columns * rows).map(|_| Point::new(between(), between())).collect();
        Self { spacing, columns, control }
    }

    /// For pixel after pixel of a row: the rows of control points are blended once a row.
    pub(super) fn rows(&self) -> Rows<'_> {
        Rows { deformation: self, row: None, blended: vec![Point::default(); self.columns] }
    }

    /// The displacement at a point of the frame; outside it that of the frame's border.
    fn at(&self, point: Point) -> Point {
        let mut blended = vec![Point::default(); self.columns];
        self.blend_rows(point.y, &mut blended);
        self.blend_columns(point.x, &blended)
    }

    /// The frame pixel that shows what would lie at `placed` without the deformation.
    pub(super) fn invert(&self, placed: Point) -> Point {
        let mut point = placed;
        for _ in 0..ROUNDS {
            let by = self.at(point);
            point = Point::new(placed.x - by.x, placed.y - by.y);
        }
        point
    }

    fn blend_rows(&self, y: f64, blended: &mut [Point]) {
        let rows = self.control.len() / self.columns;
        let (first, weights) = self.support(y, rows);
        for (column, sum) in blended.iter_mut().enumerate() {
            let of = |i: usize| self.control[(first + i) * self.columns + column];
            *sum = weighted(weights, of);
        }
    }

    fn blend_columns(&self, x: f64, blended: &[Point]) -> Point {
        let (first, weights) = self.support(x, self.columns);
        weighted(weights, |i| blended[first + i])
    }

    /// The first of the four control points that reach a coordinate, and the shares of all four.
    fn support(&self, coordinate: f64, points: usize) -> (usize, [f64; 4]) {
        let spans = (points - 3) as f64;
        let at = (coordinate / self.spacing).clamp(0.0, spans);
        let first = at.floor().min(spans - 1.0);
        let t = at - first;
        let (t2, t3, u) = (t * t, t * t * t, 1.0 - t);
        let weights = [u * u * u / 6.0, (3.0 * t3 - 6.0 * t2 + 4.0) / 6.0, (3.0 * (t + t2 - t3) + 1.0) / 6.0, t3 / 6.0];
        (first as usize, weights)
    }
}

/// See [`Deformation::rows`].
#[derive(Debug)]
pub(super) struct Rows<'a> {
    deformation: &'a Deformation,
    row: Option<u32>,
    blended: Vec<Point>,
}

impl Rows<'_> {
    /// The displacement at a pixel; cheap as long as the row stays the same.
    pub(super) fn at(&mut self, column: u32, row: u32) -> Point {
        if self.row != Some(row) {
            self.deformation.blend_rows(f64::from(row), &mut self.blended);
            self.row = Some(row);
        }
        self.deformation.blend_columns(f64::from(column), &self.blended)
    }
}

fn weighted(weights: [f64; 4], point: impl Fn(usize) -> Point) -> Point {
    let add = |sum: Point, (i, weight): (usize, f64)| {
        let p = point(i);
        Point::new(sum.x + weight * p.x, sum.y + weight * p.y)
    };
    weights.into_iter().enumerate().fold(Point::default(), add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const FRAME: Size = Size::new(200, 320);

    fn drawn(seed: u64) -> Deformation {
        Deformation::draw(&mut ChaCha8Rng::seed_from_u64(seed), FRAME, 0.05)
    }

    #[test]
    fn equal_control_points_move_everything_alike() {
        let mut deformation = drawn(1);
        deformation.control.fill(Point::new(3.0, -2.0));
        for point in [Point::default(), Point::new(100.3, 7.0), Point::new(199.0, 319.0), Point::new(-50.0, 999.0)] {
            assert!(deformation.at(point).distance(Point::new(3.0, -2.0)) < 1e-12, "{point:?}");
        }
    }

    #[test]
    fn rows_and_points_agree_and_neighbours_move_alike() {
        let deformation = drawn(2);
        let mut rows = deformation.rows();
        let mut steepest = 0f64;
        for row in (0..320).step_by(7) {
            let mut last = None;
            for column in 0..200 {
                let by = rows.at(column, row);
                assert_eq!(by, deformation.at(Point::new(f64::from(column), f64::from(row))));
                assert!(by.x.abs() <= 16.0 && by.y.abs() <= 16.0, "{by:?}");
                if let Some(last) = last.replace(by) {
                    steepest = steepest.max(by.distance(last));
                }
            }
        }
        assert!(steepest > 0.01 && steepest < 0.5, "{steepest} px a pixel");
    }

    #[test]
    fn the_inverse_is_one() {
        for seed in 0..20 {
            let deformation = drawn(seed);
            for placed in [Point::new(10.0, 20.0), Point::new(100.0, 160.0), Point::new(190.0, 300.0)] {
                let point = deformation.invert(placed);
                let by = deformation.at(point);
                assert!(Point::new(point.x + by.x, point.y + by.y).distance(placed) < 1e-3, "seed {seed}");
            }
        }
    }
}
