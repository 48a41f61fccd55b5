//! Thin-plate splines: the smoothest map of the plane that takes given points to given points.
//!
//! Bookstein, IEEE TPAMI 11(6), 1989: `f(p) = a + b x + c y + sum_i w_i U(|p - p_i|)` with `U(r) = r^2 ln r`; the weights
//! are free of any affine part and solve one linear system a coordinate.

use crate::geometry::{Point, Size};

/// The affine terms beside the landmarks' own.
const AFFINE: usize = 3;

/// Splines that all start from the same points, prepared for every pixel of one canvas.
///
/// The terms `U(|p - p_i|)` depend on those points alone, so they are computed once and shared by every film.
pub(super) struct ThinPlate {
    sources: Vec<[f64; 2]>,
    bending: f64,
    unit: f64,
    terms: usize,
    /// `terms` values a pixel: U of each source point, then 1, x, y.
    basis: Vec<f32>,
}

/// One map, ready to be applied to the canvas.
pub(super) struct Warp<'a> {
    plate: &'a ThinPlate,
    x: Vec<f32>,
    y: Vec<f32>,
}

impl ThinPlate {
    /// Splines from `sources` on a canvas of `size`; `bending` weighs smoothness against meeting the targets.
    ///
    /// `None` when there are fewer than three points.
    pub(super) fn new(sources: &[Point], size: Size, bending: f64) -> Option<Self> {
        if sources.len() < AFFINE {
            return None;
        }
        // In units of the canvas the terms stay near 1, which f32 and the solver like.
        let unit = f64::from(size.height.max(size.width)).max(1.0);
        let sources: Vec<_> = sources.iter().map(|p| [p.x / unit, p.y / unit]).collect();
        let terms = sources.len() + AFFINE;
        let mut basis = Vec::with_capacity(size.area() as usize * terms);
        for row in 0..size.height {
            for column in 0..size.width {
                let p = [f64::from(column) / unit, f64::from(row) / unit];
                basis.extend(terms_at(&sources, p).map(|v| v as f32));
            }
        }
        Some(Self { sources, bending, unit, terms, basis })
    }

    /// The map of each source point to its target. `None` when the source points lie on a line.
    pub(super) fn warp_to(&self, targets: &[Point]) -> Option<Warp<'_>> {
        let n = self.sources.len();
        let mut matrix = vec![0.0; self.terms * self.terms];
        for (i, &p) in self.sources.iter().enumerate() {
            for (j, value) in terms_at(&self.sources, p).enumerate() {
                matrix[i * self.terms + j] = value;
                if j >= n {
                    matrix[j * self.terms + i] = value;
                }
            }
            matrix[i * self.terms + i] += self.bending;
        }
        let mut sides = vec![[0.0; 2]; self.terms];
        for (side, target) in sides.iter_mut().zip(targets) {
            *side = [target.x / self.unit, target.y / self.unit];
        }
        let weights = solve(matrix, sides)?;
        let axis = |axis: usize| weights.iter().map(|w| (w[axis] * self.unit) as f32).collect();
        Some(Warp { plate: self, x: axis(0), y: axis(1) })
    }
}

impl Warp<'_> {
    /// Where the canvas pixel of index `pixel`, counted row by row, lands.
    pub(super) fn apply(&self, pixel: usize) -> Point {
        let terms = self.plate.terms;
        let basis = &self.plate.basis[pixel * terms..(pixel + 1) * terms];
        let dot = |weights: &[f32]| basis.iter().zip(weights).map(|(b, w)| b * w).sum::<f32>();
        Point::new(f64::from(dot(&self.x)), f64::from(dot(&self.y)))
    }
}

fn terms_at(sources: &[[f64; 2]], p: [f64; 2]) -> impl Iterator<Item = f64> + '_ {
    let radial = move |q: &[f64; 2]| {
        let square = (p[0] - q[0]).powi(2) + (p[1] - q[1]).powi(2);
        // r^2 ln r = r^2 ln(r^2) / 2, and 0 at r = 0.
        if square > 0.0 { 0.5 * square * square.ln() } else { 0.0 }
    };
    sources.iter().map(radial).chain([1.0, p[0], p[1]])
}

/// Solves `matrix x = sides` by Gaussian elimination with row pivoting; `None` for a singular matrix.
fn solve(mut matrix: Vec<f64>, mut sides: Vec<[f64; 2]>) -> Option<Vec<[f64; 2]>> {
    let n = sides.len();
    let largest = matrix.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    for k in 0..n {
        let pivot = (k..n).max_by(|&a, &b| matrix[a * n + k].abs().total_cmp(&matrix[b * n + k].abs()))?;
        if matrix[pivot * n + k].abs() <= largest * 1e-12 {
            return None;
        }
        if pivot != k {
            (0..n).for_each(|j| matrix.swap(k * n + j, pivot * n + j));
            sides.swap(k, pivot);
        }
        for row in k + 1..n {
            let factor = matrix[row * n + k] / matrix[k * n + k];
            for j in k..n {
                matrix[row * n + j] -= factor * matrix[k * n + j];
            }
            (0..2).for_each(|axis| sides[row][axis] -= factor * sides[k][axis]);
        }
    }
    for k in (0..n).rev() {
        sides[k] = [0, 1].map(|axis| {
            let known: f64 = (k + 1..n).map(|j| matrix[k * n + j] * sides[j][axis]).sum();
            (sides[k][axis] - known) / matrix[k * n + k]
        });
    }
    Some(sides)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size::new(40, 30);

    fn sources() -> Vec<Point> {
        [(3.0, 4.0), (30.0, 5.0), (33.0, 25.0), (6.0, 22.0), (20.0, 15.0)].map(|(x, y)| Point::new(x, y)).to_vec()
    }

    fn pixel(p: Point) -> usize {
        p.y as usize * SIZE.width as usize + p.x as usize
    }

    #[test]
    fn an_affine_map_is_met_everywhere_whatever_the_bending() {
        let affine = |p: Point| Point::new(3.0 + 1.5 * p.x - 0.2 * p.y, -7.0 + 0.3 * p.x + 2.0 * p.y);
        for bending in [0.0, 1.0] {
            let plate = ThinPlate::new(&sources(), SIZE, bending).expect("five points");
            let targets: Vec<_> = sources().into_iter().map(affine).collect();
            let warp = plate.warp_to(&targets).expect("not on a line");
            for p in [Point::new(0.0, 0.0), Point::new(39.0, 29.0), Point::new(17.0, 3.0)] {
                assert!(warp.apply(pixel(p)).distance(affine(p)) < 1e-3, "bending {bending} at {p:?}");
            }
        }
    }

    #[test]
    fn without_bending_penalty_every_target_is_met() {
        let plate = ThinPlate::new(&sources(), SIZE, 0.0).expect("five points");
        let targets: Vec<_> = (0..5).map(|i| Point::new(f64::from(i * i), 40.0 - 3.0 * f64::from(i))).collect();
        let warp = plate.warp_to(&targets).expect("not on a line");
        for (source, target) in sources().into_iter().zip(targets) {
            assert!(warp.apply(pixel(source)).distance(target) < 1e-3);
        }
    }

    #[test]
    fn points_on_a_line_have_no_spline() {
        let line: Vec<_> = (0..5).map(|i| Point::new(f64::from(i), 2.0 * f64::from(i))).collect();
        let plate = ThinPlate::new(&line, SIZE, 0.0).expect("five points");
        assert!(plate.warp_to(&line).is_none());
        assert!(ThinPlate::new(&line[..2], SIZE, 0.0).is_none());
    }

    #[test]
    fn a_system_that_needs_pivoting_is_solved() {
        let matrix = vec![0.0, 2.0, 1.0, 1.0, 0.0, 0.0, 3.0, 0.0, 1.0];
        let solution = solve(matrix, vec![[7.0, 0.0], [1.0, 1.0], [6.0, 3.0]]).expect("regular");
        for (found, expected) in solution.iter().zip([[1.0, 1.0], [2.0, 0.0], [3.0, 0.0]]) {
            assert!((found[0] - expected[0]).abs() < 1e-12 && (found[1] - expected[1]).abs() < 1e-12, "{solution:?}");
        }
    }
}
