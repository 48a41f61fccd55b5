//! The augmentation of NFDP's training films: one random frame and gray curve a film.

use chacha20::ChaCha8Rng;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::geometry::{BOX_ENLARGEMENT, Point, Similarity, Size};
use crate::radiograph::Film;

/// Ranges of the augmentation; the defaults are the paper's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Share of films whose box is cropped at random.
    pub crop_probability: f64,
    /// The smallest share of width and height that a crop keeps.
    pub crop_min: f64,
    /// Largest change of brightness, in 8-bit gray levels (applied half of the time).
    pub brightness: f64,
    /// Largest relative change of contrast (applied half of the time).
    pub contrast: f64,
    /// Factor on the box: smallest and largest.
    pub scale: [f64; 2],
    /// Largest rotation either way, in degrees (applied half of the time).
    pub rotation_deg: f64,
    /// Largest shift either way, as a share of the box (x and y, each half of the time).
    pub shift: f64,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self {
            crop_probability: 0.5,
            crop_min: 0.9,
            brightness: 24.0,
            contrast: 0.2,
            scale: [0.75, 1.3],
            rotation_deg: 30.0,
            shift: 0.15,
        }
    }
}

/// One drawn augmentation: where the film goes and how its gray values change.
#[derive(Clone, Copy, Debug)]
pub struct Augmentation {
    /// From source pixels to frame pixels.
    pub from_source: Similarity,
    /// Factor on gray values.
    pub contrast: f32,
    /// Added after the factor, in 8-bit gray levels.
    pub brightness: f32,
}

impl AugmentConfig {
    /// Draws an augmentation for a film of `film` source pixels.
    pub fn draw(&self, rng: &mut ChaCha8Rng, film: Size, frame: Size) -> Augmentation {
        let coin = |rng: &mut ChaCha8Rng| rng.random_bool(0.5);
        let between = |rng: &mut ChaCha8Rng, low: f64, high: f64| low + (high - low) * rng.random::<f64>();
        let [w, h] = [film.width, film.height].map(f64::from);
        let [fw, fh] = [frame.width, frame.height].map(f64::from);
        let (mut centre, mut size) = (Point::new(w / 2.0, h / 2.0), [w, h]);
        if rng.random_bool(self.crop_probability) {
            // Both shares lie within 0.9..1, so the crop keeps the film's own aspect to within a tenth.
            let kept = [between(rng, self.crop_min, 1.0), between(rng, self.crop_min, 1.0)];
            size = [w * kept[0], h * kept[1]];
            centre = Point::new(
                size[0] / 2.0 + between(rng, 0.0, w - size[0]),
                size[1] / 2.0 + between(rng, 0.0, h - size[1]),
            );
        }
        let contrast = if coin(rng) { between(rng, 1.0 - self.contrast, 1.0 + self.contrast) } else { 1.0 };
        let brightness = if coin(rng) { between(rng, -self.brightness, self.brightness) } else { 0.0 };
        let scale = between(rng, self.scale[0], self.scale[1]);
        let angle = if coin(rng) { between(rng, -self.rotation_deg, self.rotation_deg) } else { 0.0 };
        for (axis, length) in [(0, size[0]), (1, size[1])] {
            let shift = if coin(rng) { between(rng, -self.shift, self.shift) * length } else { 0.0 };
            if axis == 0 {
                centre.x += shift;
            } else {
                centre.y += shift;
            }
        }
        let box_width = size[0].max(size[1] * fw / fh) * BOX_ENLARGEMENT * scale;
        let to = Point::new(fw / 2.0, fh / 2.0);
        Augmentation {
            from_source: Similarity::about(centre, to, fw / box_width, angle.to_radians()),
            contrast: contrast as f32,
            brightness: brightness as f32,
        }
    }
}

impl Augmentation {
    /// Writes the film's frame behind `pixels`; the border stays black.
    pub fn render(&self, film: &Film, frame: Size, pixels: &mut Vec<u8>) {
        film.sample(&self.from_source, frame, |value, inside| {
            let gray = value / 257.0 * self.contrast + self.brightness;
            pixels.push(if inside { gray.round().clamp(0.0, 255.0) as u8 } else { 0 });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn draws_stay_within_their_ranges_and_use_them() {
        let config = AugmentConfig::default();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (film, frame) = (Size::new(1935, 2400), Size::new(512, 512));
        let plain = 512.0 / (2400.0 * 1.25);
        let (mut smallest, mut largest, mut turned) = (f64::MAX, 0f64, 0);
        for _ in 0..2000 {
            let drawn = config.draw(&mut rng, film, frame);
            let scale = drawn.from_source.scale() / plain;
            assert!((1.0 / 1.3 - 1e-9..=1.0 / 0.75 / 0.9 + 1e-9).contains(&scale), "{scale}");
            smallest = smallest.min(scale);
            largest = largest.max(scale);
            let step = drawn.from_source.x_step();
            let angle = step.y.atan2(step.x).to_degrees();
            assert!(angle.abs() <= 30.0 + 1e-9);
            turned += usize::from(angle != 0.0);
            assert!(drawn.brightness.abs() <= 24.0 && (0.8..=1.2).contains(&drawn.contrast));
        }
        assert!(smallest < 0.8 && largest > 1.35, "{smallest}..{largest}");
        assert!((900..1100).contains(&turned), "{turned} of 2000 are turned");
    }

    #[test]
    fn without_ranges_the_frame_is_the_devices() {
        let config = AugmentConfig {
            crop_probability: 0.0,
            crop_min: 1.0,
            brightness: 0.0,
            contrast: 0.0,
            scale: [1.0, 1.0],
            rotation_deg: 0.0,
            shift: 0.0,
        };
        let (film, frame) = (Size::new(1400, 3000), Size::new(256, 512));
        let drawn = config.draw(&mut ChaCha8Rng::seed_from_u64(2), film, frame);
        assert_eq!(drawn.from_source, crate::geometry::nfdp_frame(film, frame));
    }
}
