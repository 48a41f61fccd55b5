//! Film to network input: an area-averaged reduction, then one bilinear similarity warp.
//!
//! The device and the trainer call the same two functions, so there is no difference between what the network was
//! trained on and what it sees in the clinic.

use super::Radiograph;
use crate::geometry::{Frame, Point, Similarity, Size};

/// Reduced-film pixels that one frame pixel should span: enough for a sharp bilinear sample, few enough not to alias.
const SAMPLES_PER_FRAME_PIXEL: f64 = 1.5;

/// A film reduced by an integer factor through area averages, ready to be warped into frames.
#[derive(Clone, Debug)]
pub struct Film {
    /// The size of the film it was made from, in source pixels.
    pub source: Size,
    /// Source pixels per film pixel.
    pub factor: u32,
    /// Columns and rows of `pixels`.
    pub size: Size,
    /// Gray values, row by row: 0 is black, 65535 is white.
    pub pixels: Vec<u16>,
}

/// What the network sees: 8-bit gray values and how they lie on the source.
#[derive(Clone, Debug)]
pub struct NetworkInput {
    /// The frame's columns and rows.
    pub size: Size,
    /// Gray values, row by row; the network reads each as `v / 255 - 0.5`.
    pub pixels: Vec<u8>,
    /// From source pixels to frame pixels.
    pub from_source: Similarity,
}

/// The network input of a film in `frame`, without augmentation.
#[must_use]
pub fn network_input(radiograph: &Radiograph, frame: Frame) -> NetworkInput {
    let film = Film::new(radiograph, reduction_factor(radiograph.size, frame));
    film.warp(&frame.place(radiograph.size), frame.size())
}

/// By how much to reduce a film before it is warped into `frame`.
#[must_use]
pub fn reduction_factor(film: Size, frame: Frame) -> u32 {
    let step = frame.step(film);
    // A film has at least one pixel, so the factor stays far below u32::MAX.
    ((step / SAMPLES_PER_FRAME_PIXEL).round() as u32).clamp(1, film.width.min(film.height).max(1))
}

impl Film {
    /// Averages `factor` x `factor` blocks; what is left over at the right and bottom is averaged over what is there.
    #[must_use]
    pub fn new(radiograph: &Radiograph, factor: u32) -> Self {
        let Size { width, height } = radiograph.size;
        let size = Size::new(width.div_ceil(factor), height.div_ceil(factor));
        let f = factor as usize;
        let mut pixels = Vec::with_capacity(size.area() as usize);
        let mut sums = vec![0u64; size.width as usize];
        for band in radiograph.pixels.chunks(f * width as usize) {
            sums.fill(0);
            let rows = band.len() / width as usize;
            for row in band.chunks_exact(width as usize) {
                for (sum, block) in sums.iter_mut().zip(row.chunks(f)) {
                    *sum += block.iter().map(|&v| u64::from(v)).sum::<u64>();
                }
            }
            for (i, &sum) in sums.iter().enumerate() {
                let columns = f.min(width as usize - i * f);
                let n = (rows * columns) as u64;
                pixels.push(((sum + n / 2) / n) as u16);
            }
        }
        Self { source: radiograph.size, factor, size, pixels }
    }

    /// Samples the film into a frame of `frame` pixels; outside the film the value is 0.
    ///
    /// `from_source` takes source pixels to frame pixels.
    #[must_use]
    pub fn warp(&self, from_source: &Similarity, frame: Size) -> NetworkInput {
        let mut pixels = Vec::with_capacity(frame.area() as usize);
        self.sample(from_source, frame, |value, _| pixels.push((value / 257.0).round() as u8));
        NetworkInput { size: frame, pixels, from_source: *from_source }
    }

    /// Calls `each` with the bilinear sample (0..=65535) of every frame pixel, row by row, and whether the pixel's
    /// centre lies on the film.
    pub fn sample(&self, from_source: &Similarity, frame: Size, each: impl FnMut(f32, bool)) {
        self.sample_displaced(from_source, frame, |_, _| Point::default(), each);
    }

    /// As [`sample`](Self::sample), each frame pixel (column, row) taken from where `displacement`, in frame pixels,
    /// points to.
    pub fn sample_displaced(
        &self,
        from_source: &Similarity,
        frame: Size,
        mut displacement: impl FnMut(u32, u32) -> Point,
        mut each: impl FnMut(f32, bool),
    ) {
        // Film pixel i averages source pixels f*i .. f*i + f - 1, whose centre is f*i + (f - 1) / 2.
        let factor = f64::from(self.factor);
        let half = (factor - 1.0) / 2.0;
        let to_film = Similarity::about(Point::new(half, half), Point::default(), 1.0 / factor, 0.0);
        let from_frame = to_film.after(&from_source.inverse());
        let step = from_frame.x_step();
        let (w, h) = (self.size.width as usize, self.size.height as usize);
        for row in 0..frame.height {
            let start = from_frame.apply(Point::new(0.0, f64::from(row)));
            for column in 0..frame.width {
                let by = displacement(column, row);
                let along = f64::from(column) + by.x;
                let x = (start.x + step.x * along - step.y * by.y) as f32;
                let y = (start.y + step.y * along + step.x * by.y) as f32;
                let inside = x >= -0.5 && y >= -0.5 && x < w as f32 - 0.5 && y < h as f32 - 0.5;
                each(self.bilinear(x, y, w, h), inside);
            }
        }
    }

    fn bilinear(&self, x: f32, y: f32, w: usize, h: usize) -> f32 {
        let (x0, y0) = (x.floor(), y.floor());
        let (fx, fy) = (x - x0, y - y0);
        // Far outside values saturate in the cast and fail the bounds below.
        let (x0, y0) = (x0 as i32, y0 as i32);
        if x0 >= 0 && y0 >= 0 && (x0 as usize) + 1 < w && (y0 as usize) + 1 < h {
            let at = y0 as usize * w + x0 as usize;
            let top = &self.pixels[at..at + 2];
            let bottom = &self.pixels[at + w..at + w + 2];
            let upper = f32::from(top[0]) + fx * (f32::from(top[1]) - f32::from(top[0]));
            let lower = f32::from(bottom[0]) + fx * (f32::from(bottom[1]) - f32::from(bottom[0]));
            return upper + fy * (lower - upper);
        }
        let at = |x: i32, y: i32| -> f32 {
            let inside = x >= 0 && y >= 0 && (x as usize) < w && (y as usize) < h;
            if inside { f32::from(self.pixels[y as usize * w + x as usize]) } else { 0.0 }
        };
        if x0 < -1 || y0 < -1 || x0 >= w as i32 || y0 >= h as i32 {
            return 0.0;
        }
        let upper = at(x0, y0) * (1.0 - fx) + at(x0 + 1, y0) * fx;
        let lower = at(x0, y0 + 1) * (1.0 - fx) + at(x0 + 1, y0 + 1) * fx;
        upper * (1.0 - fy) + lower * fy
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::radiograph::Format;

    /// A film whose gray value is linear in x and y, so that averages and bilinear samples are known exactly.
    fn ramp(size: Size) -> Radiograph {
        let pixels =
            (0..size.height).flat_map(|y| (0..size.width).map(move |x| (1000 + 20 * x + 10 * y) as u16)).collect();
        Radiograph::gray(Format::Png, size, pixels)
    }

    #[test]
    fn blocks_are_averaged_and_the_rest_at_the_border_too() {
        let radiograph = Radiograph::gray(Format::Png, Size::new(3, 3), vec![0, 2, 7, 4, 6, 9, 10, 20, 30]);
        let film = Film::new(&radiograph, 2);
        assert_eq!(film.size, Size::new(2, 2));
        assert_eq!(film.pixels, [3, 8, 15, 30]);
    }

    #[test]
    fn a_reduced_ramp_is_sampled_at_the_source_coordinates() {
        let size = Size::new(400, 600);
        for factor in [1, 2, 3, 5] {
            let film = Film::new(&ramp(size), factor);
            let frame = Frame::new(64, 64);
            let map = frame.place(size);
            let mut values = Vec::new();
            film.sample(&map, frame.size(), |v, _| values.push(v));
            for (fx, fy) in [(32u32, 32u32), (20, 40), (40, 12)] {
                let p = map.inverse().apply(Point::new(f64::from(fx), f64::from(fy)));
                let expected = 1000.0 + 20.0 * p.x + 10.0 * p.y;
                let got = f64::from(values[(fy * 64 + fx) as usize]);
                assert!((got - expected).abs() < 1.5, "factor {factor} at {fx},{fy}: {got} for {expected}");
            }
        }
    }

    #[test]
    fn a_displaced_sample_is_the_one_displaced() {
        let (size, frame) = (Size::new(400, 600), Size::new(64, 64));
        let film = Film::new(&ramp(size), 2);
        let map = Similarity::about(Point::new(200.0, 300.0), Point::new(32.0, 32.0), 0.2, 0.4);
        let by = |column: u32, row: u32| Point::new(f64::from(row) / 10.0 - 3.0, f64::from(column) / 20.0);
        let mut values = Vec::new();
        film.sample_displaced(&map, frame, by, |v, _| values.push(v));
        for (column, row) in [(32u32, 32u32), (25, 40), (40, 20)] {
            let d = by(column, row);
            let p = map.inverse().apply(Point::new(f64::from(column) + d.x, f64::from(row) + d.y));
            let (expected, got) = (1000.0 + 20.0 * p.x + 10.0 * p.y, f64::from(values[(row * 64 + column) as usize]));
            assert!((got - expected).abs() < 1.5, "at {column},{row}: {got} for {expected}");
        }
    }

    #[test]
    fn outside_the_film_the_frame_is_black() {
        let white = Radiograph::gray(Format::Png, Size::new(300, 300), vec![65535; 90_000]);
        let input = network_input(&white, Frame::new(100, 100));
        assert_eq!(input.pixels[50 * 100 + 50], 255);
        assert_eq!(input.pixels[0], 0);
        let lit = input.pixels.iter().filter(|&&v| v > 127).count();
        assert!((6200..=6600).contains(&lit), "80 % by 80 % of the frame, got {lit} of 10000");
    }

    #[test]
    fn a_film_of_one_pixel_has_a_frame() {
        let dot = Radiograph::gray(Format::Png, Size::new(1, 1), vec![65535]);
        assert_eq!(network_input(&dot, Frame::new(64, 64)).pixels.len(), 4096);
    }
}
