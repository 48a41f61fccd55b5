//! The augmentation of NFDP's training films: one random frame and gray curve a film, and beside the paper an elastic
//! deformation.

use chacha20::ChaCha8Rng;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::geometry::{Frame, Point, Similarity, Size};
use crate::radiograph::Film;
use crate::train::elastic::Deformation;

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
    /// Largest elastic displacement either way of a control point, as a share of the frame's longer side; not in the
    /// paper, whose films keep their shape.
    pub elastic: f64,
    /// Share of films that are mirrored left to right; not in the paper. Only where landmarks have sides: see
    /// [`mirror_partners`](super::mirror_partners).
    pub mirror: f64,
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
            elastic: 0.0,
            mirror: 0.0,
        }
    }
}

/// One drawn augmentation: where the film goes and how its gray values change.
#[derive(Clone, Debug)]
pub struct Augmentation {
    /// From source pixels to frame pixels, before the elastic deformation.
    pub from_source: Similarity,
    /// Of frame pixels, where one was drawn.
    pub elastic: Option<Deformation>,
    /// The frame's last column, which the first one becomes, where the frame is mirrored at the end.
    pub mirrored: Option<u32>,
    /// Factor on gray values.
    pub contrast: f32,
    /// Added after the factor, in 8-bit gray levels.
    pub brightness: f32,
}

impl AugmentConfig {
    /// Whether films can be drawn like this.
    ///
    /// # Errors
    /// One sentence that names the key, its value and what it should be.
    pub fn check(&self) -> Result<(), String> {
        let [smallest, largest] = self.scale;
        for (key, value, [least, most], why) in [
            ("crop_probability", self.crop_probability, [0.0, 1.0], ", a share of the films"),
            ("crop_min", self.crop_min, [0.1, 1.0], ", a share of the film's sides"),
            ("brightness", self.brightness, [0.0, 255.0], " gray levels"),
            ("contrast", self.contrast, [0.0, 1.0], ""),
            ("scale[0]", smallest, [0.1, 1.0], ""),
            ("scale[1]", largest, [1.0, 10.0], ""),
            ("rotation_deg", self.rotation_deg, [0.0, 180.0], " degrees"),
            ("shift", self.shift, [0.0, 1.0], ", a share of the box"),
            ("elastic", self.elastic, [0.0, 0.1], "; beyond that the film folds over itself"),
            ("mirror", self.mirror, [0.0, 1.0], ", a share of the films"),
        ] {
            if !(least..=most).contains(&value) {
                return Err(format!("augment.{key} = {value}: must be {least} to {most}{why}"));
            }
        }
        Ok(())
    }

    /// Draws an augmentation for a film of `film` source pixels.
    pub fn draw(&self, rng: &mut ChaCha8Rng, film: Size, frame: Frame) -> Augmentation {
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
        let box_width = size[0].max(size[1] * fw / fh) * frame.enlargement * scale;
        let to = Point::new(fw / 2.0, fh / 2.0);
        Augmentation {
            from_source: Similarity::about(centre, to, fw / box_width, angle.to_radians()),
            // These are drawn last, so that a run without them sees the films it always saw.
            elastic: (self.elastic > 0.0).then(|| Deformation::draw(rng, frame.size(), self.elastic)),
            mirrored: (self.mirror > 0.0 && rng.random_bool(self.mirror)).then_some(frame.width - 1),
            contrast: contrast as f32,
            brightness: brightness as f32,
        }
    }
}

impl Augmentation {
    /// Writes the film's frame behind `pixels`; the border stays black.
    pub fn render(&self, film: &Film, frame: Size, pixels: &mut Vec<u8>) {
        let drawn = pixels.len();
        let push = |value: f32, inside: bool| {
            let gray = value / 257.0 * self.contrast + self.brightness;
            pixels.push(if inside { gray.round().clamp(0.0, 255.0) as u8 } else { 0 });
        };
        match &self.elastic {
            None => film.sample(&self.from_source, frame, push),
            Some(deformation) => {
                let mut rows = deformation.rows();
                film.sample_displaced(&self.from_source, frame, |column, row| rows.at(column, row), push);
            }
        }
        if self.mirrored.is_some() {
            pixels[drawn..].chunks_exact_mut(frame.width as usize).for_each(<[u8]>::reverse);
        }
    }

    /// Where a point of the film shows in the frame.
    #[must_use]
    pub fn apply(&self, source: Point) -> Point {
        let placed = self.from_source.apply(source);
        let shown = self.elastic.as_ref().map_or(placed, |deformation| deformation.invert(placed));
        self.mirrored.map_or(shown, |last| Point::new(f64::from(last) - shown.x, shown.y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::radiograph::{Format, Radiograph};
    use rand::SeedableRng;

    #[test]
    fn draws_stay_within_their_ranges_and_use_them() {
        let config = AugmentConfig::default();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (film, frame) = (Size::new(1935, 2400), Frame::new(512, 512));
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
    fn a_landmark_stays_on_its_anatomy_when_the_film_is_deformed_or_mirrored() {
        // One bright dot on a dark film: its centre of mass in the frame is where `apply` says.
        let (size, frame) = (Size::new(600, 700), Frame { enlargement: 1.0, ..Frame::new(192, 224) });
        let config =
            AugmentConfig { elastic: 0.04, mirror: 0.5, brightness: 0.0, contrast: 0.0, ..AugmentConfig::default() };
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let (mut farthest, mut mirrored) = (0f64, 0);
        for at in [Point::new(300.0, 350.0), Point::new(220.0, 420.0), Point::new(390.0, 300.0)] {
            let dot =
                |x: u32, y: u32| if at.distance(Point::new(f64::from(x), f64::from(y))) < 12.0 { 65535 } else { 0 };
            let pixels = (0..size.height).flat_map(|y| (0..size.width).map(move |x| dot(x, y))).collect();
            let film = Film::new(&Radiograph::gray(Format::Png, size, pixels), 2);
            for _ in 0..10 {
                let drawn = config.draw(&mut rng, size, frame);
                let mut pixels = Vec::new();
                drawn.render(&film, frame.size(), &mut pixels);
                let (mut x, mut y, mut mass) = (0.0, 0.0, 0.0);
                for (i, &v) in pixels.iter().enumerate() {
                    let (column, row) = (i as u32 % frame.width, i as u32 / frame.width);
                    (x, y, mass) =
                        (x + f64::from(column) * f64::from(v), y + f64::from(row) * f64::from(v), mass + f64::from(v));
                }
                if mass > 255.0 * 20.0 {
                    let seen = Point::new(x / mass, y / mass);
                    let said = drawn.apply(at);
                    assert!(seen.distance(said) < 0.35, "{seen:?} for {said:?}");
                    if drawn.mirrored.is_none() {
                        farthest = farthest.max(said.distance(drawn.from_source.apply(at)));
                    }
                    mirrored += usize::from(drawn.mirrored.is_some());
                }
            }
        }
        assert!(farthest > 2.0, "the deformation moves points: {farthest}");
        assert!((5..25).contains(&mirrored), "{mirrored} of 30");
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
            elastic: 0.0,
            mirror: 0.0,
        };
        let (film, frame) = (Size::new(1400, 3000), Frame::new(256, 512));
        let drawn = config.draw(&mut ChaCha8Rng::seed_from_u64(2), film, frame);
        assert_eq!(drawn.from_source, frame.place(film));
    }
}
