//! Colour and alpha to one gray value a pixel.

/// Gray values of 16 bits from 8 bits: 0 stays black, 255 becomes 65535.
pub(super) fn widen(gray: &[u8]) -> Vec<u16> {
    gray.iter().map(|&v| u16::from(v) * 257).collect()
}

/// Rec. 601 luminance of red, green and blue: 0.299 R + 0.587 G + 0.114 B, rounded.
pub(super) fn luminance([r, g, b]: [u16; 3]) -> u16 {
    // The weights sum to 1000, so the result is at most 65535.
    ((299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b) + 500) / 1000) as u16
}

/// A gray value of opacity `alpha` (0..=65535) over black.
pub(super) fn over_black(gray: u16, alpha: u16) -> u16 {
    ((u32::from(gray) * u32::from(alpha) + 32_767) / 65_535) as u16
}

/// Gray values from interleaved 8-bit samples, `N` a pixel: gray and alpha, RGB, or RGB and alpha.
pub(super) fn from_u8<const N: usize>(samples: &[u8]) -> Vec<u16> {
    samples.as_chunks::<N>().0.iter().map(|pixel| gray_of(pixel.map(|v| u16::from(v) * 257))).collect()
}

/// Gray values from interleaved 16-bit samples, `N` a pixel, as [`from_u8`].
pub(super) fn from_u16<const N: usize>(samples: &[u16]) -> Vec<u16> {
    samples.as_chunks::<N>().0.iter().map(|&pixel| gray_of(pixel)).collect()
}

fn gray_of<const N: usize>(pixel: [u16; N]) -> u16 {
    match pixel[..] {
        [gray, alpha] => over_black(gray, alpha),
        [r, g, b] => luminance([r, g, b]),
        [r, g, b, alpha] => over_black(luminance([r, g, b]), alpha),
        _ => unreachable!("two to four samples a pixel"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gray_in_colour_keeps_its_value() {
        for v in [0, 1, 127, 254, 255] {
            let wide = u16::from(v) * 257;
            assert_eq!(widen(&[v]), [wide]);
            assert_eq!(from_u8::<3>(&[v; 3]), [wide]);
            assert_eq!(from_u8::<4>(&[v, v, v, 255]), [wide]);
            assert_eq!(from_u8::<2>(&[v, 255]), [wide]);
        }
    }

    #[test]
    fn the_weights_are_those_of_rec_601() {
        assert_eq!(luminance([65_535, 0, 0]), 19_595);
        assert_eq!(luminance([0, 65_535, 0]), 38_469);
        assert_eq!(luminance([0, 0, 65_535]), 7_471);
    }

    #[test]
    fn what_is_transparent_is_black() {
        assert_eq!(from_u16::<2>(&[60_000, 0, 60_000, 65_535, 60_000, 32_768]), [0, 60_000, 30_000]);
    }
}
