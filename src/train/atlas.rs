//! The atlas film: the landmark-aligned mean of many films, which shows the anatomy and no person.
//!
//! Its landmarks are known exactly, and it may be handed on where the films may not, so it is a bundle's golden film.
//! The mean shape comes from generalized Procrustes analysis (Gower, Psychometrika 40, 1975: similarities only), the
//! warp of each film onto it from a thin-plate spline through the landmarks (Bookstein, IEEE TPAMI 11(6), 1989).

use image::{ExtendedColorType, ImageEncoder, codecs::png};

use super::spline::ThinPlate;
use crate::disposition::Disposition;
use crate::geometry::{Point, Similarity, Size};
use crate::radiograph::{Film, Radiograph};

/// Rounds of aligning all shapes to their mean; it stands still after three or four.
const PROCRUSTES_ROUNDS: usize = 8;
/// Weight of the bending energy, in units of the canvas height: the warp may miss a landmark by a fraction of a pixel
/// rather than fold over the readers' disagreement.
const BENDING: f64 = 1e-4;
/// Share of the gray values that the stretch to black and to white may clip.
const CLIPPED: f64 = 0.002;

/// A mean film and where its landmarks are.
#[derive(Clone, Debug)]
pub struct Atlas {
    /// Columns and rows.
    pub size: Size,
    /// Gray values, row by row.
    pub pixels: Vec<u8>,
    /// The mean shape, in pixels of the atlas.
    pub landmarks: Vec<Point>,
}

/// Why there is no atlas.
#[derive(Debug, thiserror::Error)]
pub enum AtlasError {
    /// Nothing to average.
    #[error("there is no film on which every landmark is visible: nothing to make a mean film of")]
    Empty,
    /// The shapes do not match.
    #[error("film {film} has {found} landmarks, the first one has {expected}")]
    Landmarks {
        /// Its index.
        film: usize,
        /// Those of the first film.
        expected: usize,
        /// Its own.
        found: usize,
    },
    /// The landmarks lie on a line or in one point.
    #[error("the mean shape is degenerate")]
    Degenerate,
    /// A film cannot be had.
    #[error("film {film}: {source}")]
    Film {
        /// Its index.
        film: usize,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl AtlasError {
    /// Always fatal: an atlas is asked for by a person, who must see it fail.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        Disposition::Fatal
    }
}

/// The mean film of `shapes.len()` films, `height` pixels high.
///
/// `shapes[i]` are the landmarks of film `i` in its pixels, of which it has `sizes[i]`; `film` decodes one film at a
/// time, so that a large set needs little memory. The atlas shows what the average film shows: films of any size count
/// as if they were equally high, and the canvas has their mean aspect ratio.
///
/// # Errors
/// When there are too few films or landmarks, their numbers differ, or a film fails.
pub fn atlas<E>(
    sizes: &[Size],
    shapes: &[Vec<Point>],
    height: u32,
    mut film: impl FnMut(usize) -> Result<Radiograph, E>,
) -> Result<Atlas, AtlasError>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let scale = |size: &Size| f64::from(height) / f64::from(size.height);
    // Pixel centres are integers: a film scales about the corner at -1/2.
    let to_canvas = |size: &Size| Similarity::about(Point::new(-0.5, -0.5), Point::new(-0.5, -0.5), scale(size), 0.0);
    let on_canvas: Vec<Vec<Point>> = shapes
        .iter()
        .zip(sizes)
        .map(|(shape, size)| shape.iter().map(|&p| to_canvas(size).apply(p)).collect())
        .collect();
    // Fewer than three landmarks bend nothing: films are laid over each other as they are.
    let bends = on_canvas.first().is_some_and(|shape| shape.len() >= 3);
    let landmarks = match on_canvas.as_slice() {
        [] => return Err(AtlasError::Empty),
        shapes if bends => mean_shape(shapes)?,
        shapes => average(shapes.iter().cloned(), shapes.len()),
    };
    let widths: f64 = sizes.iter().map(|size| f64::from(size.width) * scale(size)).sum();
    let size = Size::new((widths / sizes.len() as f64).round().max(1.0) as u32, height);
    let spline =
        if bends { Some(ThinPlate::new(&landmarks, size, BENDING).ok_or(AtlasError::Degenerate)?) } else { None };
    let pixels = size.area() as usize;
    let (mut sums, mut counts) = (vec![0f64; pixels], vec![0u32; pixels]);
    for (i, shape) in shapes.iter().enumerate() {
        let radiograph = film(i).map_err(|e| AtlasError::Film { film: i, source: e.into() })?;
        let reduced = Film::new(&radiograph, (1.0 / scale(&radiograph.size)).round().max(1.0) as u32);
        let to_film = |p: Point| reduced_pixel(&reduced, p);
        let shape: Vec<Point> = shape.iter().map(|&p| to_film(p)).collect();
        let warp = match &spline {
            Some(spline) => Some(spline.warp_to(&shape).ok_or(AtlasError::Degenerate)?),
            None => None,
        };
        let from_canvas = to_canvas(&radiograph.size).inverse();
        let columns = size.width as usize;
        let straight = |at: usize| Point::new((at % columns) as f64, (at / columns) as f64);
        for (at, (sum, count)) in sums.iter_mut().zip(&mut counts).enumerate() {
            let on_film = match &warp {
                Some(warp) => warp.apply(at),
                None => to_film(from_canvas.apply(straight(at))),
            };
            if let Some(value) = bilinear(&reduced, on_film) {
                *sum += value;
                *count += 1;
            }
        }
    }
    let means: Vec<f64> = sums.iter().zip(&counts).map(|(s, &n)| if n == 0 { 0.0 } else { s / f64::from(n) }).collect();
    Ok(Atlas { size, pixels: stretched(&means), landmarks })
}

impl Atlas {
    /// The film as an 8-bit gray PNG.
    #[must_use]
    pub fn png(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let encoder =
            png::PngEncoder::new_with_quality(&mut bytes, png::CompressionType::Best, png::FilterType::Adaptive);
        encoder
            .write_image(&self.pixels, self.size.width, self.size.height, ExtendedColorType::L8)
            .expect("the buffer has a byte a pixel, and memory takes every write");
        bytes
    }
}

/// The shape to which all shapes, moved, turned and scaled, are closest; it lies, on average, where they lie.
///
/// # Errors
/// When there are no shapes, fewer than three landmarks, or shapes of different lengths.
pub fn mean_shape(shapes: &[Vec<Point>]) -> Result<Vec<Point>, AtlasError> {
    let expected = shapes.first().map_or(0, Vec::len);
    if expected < 3 {
        return Err(AtlasError::Empty);
    }
    if let Some((film, shape)) = shapes.iter().enumerate().find(|(_, s)| s.len() != expected) {
        return Err(AtlasError::Landmarks { film, expected, found: shape.len() });
    }
    let plain = average(shapes.iter().cloned(), shapes.len());
    let mut mean = plain.clone();
    for _ in 0..PROCRUSTES_ROUNDS {
        let moved = shapes.iter().map(|shape| aligned(shape, &mean));
        // Alignment shrinks the mean a little each round: put it back over the plain average.
        mean = aligned(&average(moved, shapes.len()), &plain);
    }
    Ok(mean)
}

/// `shape` under the similarity that brings it closest to `onto`, in the sense of least squares.
pub(super) fn aligned(shape: &[Point], onto: &[Point]) -> Vec<Point> {
    let (from, to) = (centroid(shape), centroid(onto));
    let (mut dot, mut cross, mut square) = (0.0, 0.0, 0.0);
    for (p, q) in shape.iter().zip(onto) {
        let (px, py, qx, qy) = (p.x - from.x, p.y - from.y, q.x - to.x, q.y - to.y);
        dot += px * qx + py * qy;
        cross += px * qy - py * qx;
        square += px * px + py * py;
    }
    let similarity = Similarity::about(from, to, dot.hypot(cross) / square, cross.atan2(dot));
    shape.iter().map(|&p| similarity.apply(p)).collect()
}

fn centroid(shape: &[Point]) -> Point {
    let n = shape.len() as f64;
    let (x, y) = shape.iter().fold((0.0, 0.0), |(x, y), p| (x + p.x, y + p.y));
    Point::new(x / n, y / n)
}

fn average(shapes: impl Iterator<Item = Vec<Point>>, count: usize) -> Vec<Point> {
    let mut sum: Vec<Point> = Vec::new();
    for shape in shapes {
        if sum.is_empty() {
            sum = vec![Point::default(); shape.len()];
        }
        for (s, p) in sum.iter_mut().zip(shape) {
            *s = Point::new(s.x + p.x, s.y + p.y);
        }
    }
    let n = count as f64;
    sum.iter().map(|p| Point::new(p.x / n, p.y / n)).collect()
}

/// A source pixel in pixels of the reduced film: film pixel `i` averages source pixels `f i .. f i + f - 1`.
fn reduced_pixel(film: &Film, p: Point) -> Point {
    let factor = f64::from(film.factor);
    let at = |v: f64| (v - (factor - 1.0) / 2.0) / factor;
    Point::new(at(p.x), at(p.y))
}

/// The film's gray value between four pixel centres; none outside them.
fn bilinear(film: &Film, p: Point) -> Option<f64> {
    let (w, h) = (film.size.width as usize, film.size.height as usize);
    let (x0, y0) = (p.x.floor(), p.y.floor());
    if !(x0 >= 0.0 && y0 >= 0.0 && x0 + 1.0 < w as f64 && y0 + 1.0 < h as f64) {
        return None;
    }
    let (fx, fy) = (p.x - x0, p.y - y0);
    let at = y0 as usize * w + x0 as usize;
    let row = |at: usize| {
        let (left, right) = (f64::from(film.pixels[at]), f64::from(film.pixels[at + 1]));
        left + fx * (right - left)
    };
    let (upper, lower) = (row(at), row(at + w));
    Some(upper + fy * (lower - upper))
}

/// Gray values over the whole range 0..=255, a few clipped at either end.
fn stretched(values: &[f64]) -> Vec<u8> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
    let (black, white) = (at(CLIPPED), at(1.0 - CLIPPED));
    let range = (white - black).max(f64::MIN_POSITIVE);
    values.iter().map(|v| ((v - black) / range * 255.0).round().clamp(0.0, 255.0) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::radiograph::Format;

    /// A shape without symmetry.
    fn shape() -> Vec<Point> {
        [(20.0, 15.0), (60.0, 22.0), (70.0, 70.0), (30.0, 80.0), (45.0, 40.0)].map(|(x, y)| Point::new(x, y)).to_vec()
    }

    fn moved(similarity: &Similarity) -> Vec<Point> {
        shape().iter().map(|&p| similarity.apply(p)).collect()
    }

    /// A black film with a bright spot on each landmark.
    fn spots(size: Size, shape: &[Point]) -> Radiograph {
        let value = |x: u32, y: u32| {
            let p = Point::new(f64::from(x), f64::from(y));
            let nearest = shape.iter().map(|q| p.distance(*q)).fold(f64::INFINITY, f64::min);
            (60_000.0 * (-nearest * nearest / 8.0).exp()) as u16
        };
        let pixels = (0..size.height).flat_map(|y| (0..size.width).map(move |x| value(x, y))).collect();
        Radiograph::gray(Format::Png, size, pixels)
    }

    #[test]
    fn the_mean_of_one_shape_moved_turned_and_scaled_is_that_shape() {
        let centre = centroid(&shape());
        let shapes: Vec<_> =
            [-0.2, 0.0, 0.2].map(|angle| moved(&Similarity::about(centre, centre, 1.0, angle))).into_iter().collect();
        let mean = mean_shape(&shapes).expect("three shapes");
        // Turns about the centroid that cancel leave the plain average a scaled copy: shape and place stay.
        let scale = (1.0 + 2.0 * 0.2_f64.cos()) / 3.0;
        for (found, expected) in mean.iter().zip(moved(&Similarity::about(centre, centre, scale, 0.0))) {
            assert!(found.distance(expected) < 1e-9, "{found:?} for {expected:?}");
        }
    }

    #[test]
    fn shapes_that_do_not_match_are_an_error() {
        assert!(matches!(mean_shape(&[]), Err(AtlasError::Empty)));
        let error = mean_shape(&[shape(), shape()[1..].to_vec()]).expect_err("refused");
        assert!(matches!(error, AtlasError::Landmarks { film: 1, expected: 5, found: 4 }));
    }

    #[test]
    fn spots_on_the_landmarks_of_many_films_meet_on_the_atlas() {
        let size = Size::new(100, 120);
        let bend = |i: usize, p: Point| Point::new(p.x + (p.y * 0.07 + i as f64).sin() * 3.0, p.y + i as f64);
        let shapes: Vec<Vec<Point>> = (0..6).map(|i| shape().iter().map(|&p| bend(i, p)).collect()).collect();
        let film = |i: usize| Ok::<_, std::io::Error>(spots(size, &shapes[i]));
        let atlas = atlas(&[size; 6], &shapes, 120, film).expect("six films");
        assert_eq!(atlas.size, size);
        for landmark in &atlas.landmarks {
            let at = landmark.y.round() as usize * 100 + landmark.x.round() as usize;
            assert!(atlas.pixels[at] > 200, "{} at {landmark:?}", atlas.pixels[at]);
        }
        let bright = atlas.pixels.iter().filter(|&&v| v > 128).count();
        assert!(bright < 5 * 30, "five sharp spots, not {bright} pixels");
    }

    #[test]
    fn a_smaller_atlas_has_its_landmarks_scaled_about_the_corner() {
        let size = Size::new(100, 120);
        let film = |_| Ok::<_, std::io::Error>(spots(size, &shape()));
        let atlas = atlas(&[size; 2], &[shape(), shape()], 60, film).expect("two films");
        assert_eq!(atlas.size, Size::new(50, 60));
        for (found, p) in atlas.landmarks.iter().zip(shape()) {
            assert!(found.distance(Point::new((p.x + 0.5) / 2.0 - 0.5, (p.y + 0.5) / 2.0 - 0.5)) < 1e-9);
        }
        let png = image::load_from_memory(&atlas.png()).expect("a PNG").into_luma8();
        assert_eq!((png.dimensions(), png.into_raw()), ((50, 60), atlas.pixels));
    }

    #[test]
    fn films_of_other_sizes_count_as_if_they_were_equally_high() {
        let (small, large) = (Size::new(100, 120), Size::new(240, 240));
        let doubled: Vec<Point> = shape().iter().map(|p| Point::new(2.0 * p.x + 0.5, 2.0 * p.y + 0.5)).collect();
        let film = |i: usize| {
            let (size, shape) = if i == 0 { (small, shape()) } else { (large, doubled.clone()) };
            Ok::<_, std::io::Error>(spots(size, &shape))
        };
        let atlas = atlas(&[small, large], &[shape(), doubled.clone()], 120, film).expect("two films");
        assert_eq!(atlas.size, Size::new(110, 120));
        for (found, p) in atlas.landmarks.iter().zip(shape()) {
            assert!(found.distance(p) < 1e-9, "{found:?} for {p:?}");
        }
    }

    #[test]
    fn films_with_two_landmarks_are_laid_over_each_other() {
        let size = Size::new(100, 120);
        let pair = shape()[..2].to_vec();
        let film = |_| Ok::<_, std::io::Error>(spots(size, &pair));
        let atlas = atlas(&[size; 3], &vec![pair.clone(); 3], 60, film).expect("three films");
        for (found, p) in atlas.landmarks.iter().zip(&pair) {
            assert!(found.distance(Point::new((p.x + 0.5) / 2.0 - 0.5, (p.y + 0.5) / 2.0 - 0.5)) < 1e-9);
            assert!(atlas.pixels[found.y.round() as usize * 50 + found.x.round() as usize] > 180, "{found:?}");
        }
    }

    #[test]
    fn a_film_that_fails_is_named() {
        let error = atlas(&[Size::new(100, 120); 2], &[shape(), shape()], 60, |i| match i {
            0 => Ok(spots(Size::new(100, 120), &shape())),
            _ => Err("not there"),
        });
        assert_eq!(error.expect_err("refused").to_string(), "film 1: not there");
    }
}
