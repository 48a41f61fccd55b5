//! From the bytes of a file to gray values, whatever the container.

use std::panic::catch_unwind;

use super::{DecodeError, Format, Radiograph, dicom, jpeg, raster};

/// What one film may cost. Both are checked against the file's headers before the pixels are allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Columns times rows.
    pub max_pixels: u64,
    /// Bytes held at once while decoding: the file itself, the decoder's buffers and the film.
    pub max_alloc_bytes: u64,
}

impl Default for Limits {
    /// 100 megapixels and 448 MiB: with the network and what the allocator keeps, the whole daemon then stays below 768 MiB,
    /// whatever it is given (`tests/ingest.rs` holds it to that).
    fn default() -> Self {
        Self { max_pixels: 100_000_000, max_alloc_bytes: 448 << 20 }
    }
}

/// The film in `bytes`.
///
/// The container is told by its content ([`Format::of`]). Colour becomes Rec. 601 luminance, alpha is laid over black,
/// and 8-bit gray `v` becomes `257 v`, so that 0 is black and 65535 is white whatever the depth.
///
/// # Errors
/// Every way in which the file is not a whole film within `limits`; a decoder's panic is one of them.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Radiograph, DecodeError> {
    let format = Format::of(bytes)?;
    catch_unwind(|| match format {
        Format::Png | Format::Tiff | Format::Bmp => raster::decode(bytes, format, limits),
        Format::Jpeg => jpeg::decode(bytes, limits),
        Format::Dicom => dicom::decode(bytes, limits),
    })
    .unwrap_or(Err(DecodeError::DecoderPanicked { format }))
}

impl Limits {
    /// Whether a film of `width` by `height` pixels may be decoded in `buffers` bytes besides `file` and the film.
    pub(super) fn admit(
        &self,
        format: Format,
        [width, height]: [u64; 2],
        file: usize,
        buffers: u64,
    ) -> Result<(), DecodeError> {
        if width == 0 || height == 0 {
            return Err(DecodeError::damaged(format, format!("expected pixels, found {width} x {height}")));
        }
        let pixels = width.saturating_mul(height);
        if pixels > self.max_pixels {
            return Err(DecodeError::TooManyPixels { format, width, height, limit: self.max_pixels });
        }
        let needed = (file as u64).saturating_add(pixels.saturating_mul(2)).saturating_add(buffers);
        if needed > self.max_alloc_bytes {
            return Err(DecodeError::TooMuchMemory { format, needed, limit: self.max_alloc_bytes });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_count_the_file_the_buffers_and_the_film() {
        let limits = Limits { max_pixels: 100, max_alloc_bytes: 500 };
        assert!(limits.admit(Format::Png, [10, 10], 200, 100).is_ok());
        assert!(matches!(
            limits.admit(Format::Png, [10, 10], 200, 101),
            Err(DecodeError::TooMuchMemory { needed: 501, .. })
        ));
        assert!(matches!(limits.admit(Format::Png, [101, 1], 0, 0), Err(DecodeError::TooManyPixels { .. })));
        assert!(matches!(limits.admit(Format::Png, [u64::MAX, 2], 0, 0), Err(DecodeError::TooManyPixels { .. })));
        assert!(matches!(limits.admit(Format::Png, [0, 9], 0, 0), Err(DecodeError::Damaged { .. })));
    }
}
