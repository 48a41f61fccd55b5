//! The last films with their landmarks drawn, as PNG pictures in memory: bounded in number and in bytes.

use std::collections::VecDeque;
use std::io::Cursor;
use std::sync::{Arc, Mutex, PoisonError};

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, RgbImage, imageops};

/// A picture that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The encoder refused it.
    #[error("the picture cannot be encoded")]
    Encode(#[from] image::ImageError),
}

/// The last pictures, by the number of their film's event.
#[derive(Debug)]
pub struct Overlays {
    max_count: usize,
    max_bytes: usize,
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    /// Oldest first.
    pictures: VecDeque<(u64, Arc<[u8]>)>,
    bytes: usize,
}

impl Overlays {
    /// At most `max_count` pictures and `max_bytes` bytes of them; with either 0 none is kept.
    #[must_use]
    pub fn new(max_count: usize, max_bytes: usize) -> Self {
        Self { max_count, max_bytes, ring: Mutex::default() }
    }

    /// Keeps the picture of event `number` and lets go of the oldest ones that no longer fit beside it.
    ///
    /// A picture that would not fit even alone is not kept, and nothing is let go for it.
    pub fn keep(&self, number: u64, png: Vec<u8>) {
        if self.max_count == 0 || png.len() > self.max_bytes {
            return;
        }
        self.with(|ring| {
            ring.remove(number);
            while ring.pictures.len() >= self.max_count || ring.bytes + png.len() > self.max_bytes {
                ring.pop();
            }
            ring.bytes += png.len();
            ring.pictures.push_back((number, png.into()));
        });
    }

    /// The picture of event `number`.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<Arc<[u8]>> {
        self.with(|ring| ring.pictures.iter().find(|(known, _)| *known == number).map(|(_, png)| Arc::clone(png)))
    }

    /// Whether there is a picture of event `number`.
    #[must_use]
    pub fn has(&self, number: u64) -> bool {
        self.get(number).is_some()
    }

    /// Lets go of all of them: the disk is nearly full or memory is wanted.
    pub fn clear(&self) {
        self.with(|ring| *ring = Ring::default());
    }

    /// How many there are, and their bytes.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        self.with(|ring| (ring.pictures.len(), ring.bytes))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Ring) -> T) -> T {
        // Nothing in the critical sections can panic half way.
        work(&mut self.ring.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Ring {
    fn pop(&mut self) {
        if let Some((_, png)) = self.pictures.pop_front() {
            self.bytes -= png.len();
        }
    }

    fn remove(&mut self, number: u64) {
        if let Some(place) = self.pictures.iter().position(|(known, _)| *known == number) {
            let (_, png) = self.pictures.remove(place).expect("the place was just found");
            self.bytes -= png.len();
        }
    }
}

/// A picture as PNG, made smaller where its long side has more than `long_side_px`.
///
/// # Errors
/// [`PictureError::Encode`], which no picture with pixels meets.
pub fn to_png(picture: &RgbImage, long_side_px: u32) -> Result<Vec<u8>, PictureError> {
    let (width, height) = picture.dimensions();
    let long_side = width.max(height);
    if long_side > long_side_px {
        let scaled = |n: u32| (u64::from(n) * u64::from(long_side_px)).div_ceil(u64::from(long_side)).max(1) as u32;
        return encode(&imageops::thumbnail(picture, scaled(width), scaled(height)));
    }
    encode(picture)
}

fn encode(picture: &RgbImage) -> Result<Vec<u8>, PictureError> {
    let mut png = Cursor::new(Vec::new());
    let encoder = PngEncoder::new_with_quality(&mut png, CompressionType::Fast, FilterType::Adaptive);
    encoder.write_image(picture.as_raw(), picture.width(), picture.height(), ExtendedColorType::Rgb8)?;
    Ok(png.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(overlays: &Overlays) -> Vec<u64> {
        (0..100).filter(|&number| overlays.has(number)).collect()
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let overlays = Overlays::new(3, 1000);
        (1..=5).for_each(|number| overlays.keep(number, vec![0; 10]));
        assert_eq!(kept(&overlays), [3, 4, 5]);
        assert_eq!(overlays.size(), (3, 30));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_bytes() {
        let overlays = Overlays::new(20, 100);
        overlays.keep(1, vec![0; 50]);
        overlays.keep(2, vec![0; 50]);
        overlays.keep(3, vec![0; 60]);
        assert_eq!((kept(&overlays), overlays.size()), (vec![3], (1, 60)));
        overlays.keep(4, vec![0; 101]);
        assert_eq!((kept(&overlays), overlays.size()), (vec![3], (1, 60)), "one that never fits changes nothing");
        overlays.keep(5, vec![0; 40]);
        assert_eq!((kept(&overlays), overlays.size()), (vec![3, 5], (2, 100)));
    }

    #[test]
    fn the_same_number_again_replaces_the_picture() {
        let overlays = Overlays::new(20, 100);
        overlays.keep(1, vec![1; 60]);
        overlays.keep(1, vec![2; 70]);
        assert_eq!(overlays.size(), (1, 70));
        assert_eq!(overlays.get(1).expect("the newer one")[0], 2);
        overlays.clear();
        assert_eq!((overlays.get(1), overlays.size()), (None, (0, 0)));
    }

    #[test]
    fn zero_keeps_none() {
        for overlays in [Overlays::new(0, 100), Overlays::new(20, 0)] {
            overlays.keep(1, vec![0; 10]);
            assert_eq!(overlays.size(), (0, 0));
        }
    }

    #[test]
    fn a_large_picture_is_made_smaller_and_a_small_one_is_left_alone() {
        for (picture, expected) in
            [((1440, 1161), (800, 645)), ((960, 1536), (500, 800)), ((300, 200), (300, 200)), ((2000, 1), (800, 1))]
        {
            let png = to_png(&RgbImage::new(picture.0, picture.1), 800).expect("a picture with pixels");
            let read = image::load_from_memory(&png).expect("a PNG");
            assert_eq!((read.width(), read.height()), expected, "{picture:?}");
        }
    }
}
