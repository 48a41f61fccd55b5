//! The same film in other bytes, for measurements that need many films of one kind.

use image::ImageFormat;

/// A copy of a film file that holds `number` where its format keeps remarks; the pixels are untouched.
///
/// JPEG: a COM segment after SOI (ITU-T T.81 B.2.4.5). PNG: a `tEXt` chunk after IHDR (PNG 11.3.3.2). DICOM: the
/// preamble (PS3.10 7.1). BMP: the two reserved words of the file header. TIFF: bytes behind the last that an offset
/// points to. `None` for anything else.
pub(super) fn variant(film: &[u8], number: u32) -> Option<Vec<u8>> {
    let tag = number.to_be_bytes();
    let mut copy = film.to_vec();
    if film.get(128..132) == Some(b"DICM") {
        copy[..4].copy_from_slice(&tag);
        return Some(copy);
    }
    match image::guess_format(film).ok()? {
        ImageFormat::Jpeg => insert(&mut copy, 2, &[&[0xFF, 0xFE, 0, 6], &tag[..]].concat()),
        ImageFormat::Png => {
            let body = [&b"tEXt"[..], b"run\0", format!("{number:08}").as_bytes()].concat();
            let length = (body.len() as u32 - 4).to_be_bytes();
            // After the signature (8) and the IHDR chunk (25).
            insert(&mut copy, 33, &[&length[..], &body, &crc32(&body).to_be_bytes()].concat())
        }
        ImageFormat::Bmp if film.len() >= 10 => {
            copy[6..10].copy_from_slice(&tag);
            Some(copy)
        }
        ImageFormat::Tiff => {
            copy.extend(tag.map(|byte| byte | 0x80));
            Some(copy)
        }
        _ => None,
    }
}

fn insert(copy: &mut Vec<u8>, at: usize, bytes: &[u8]) -> Option<Vec<u8>> {
    (copy.len() >= at).then(|| {
        copy.splice(at..at, bytes.iter().copied());
        std::mem::take(copy)
    })
}

/// The CRC of a PNG chunk (PNG annex D).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { 0xEDB8_8320 ^ (crc >> 1) } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, GrayImage, Luma};

    use super::*;

    #[test]
    fn the_crc_has_its_published_check_value() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn variants_differ_in_bytes_and_not_in_pixels() {
        let film = GrayImage::from_fn(31, 17, |x, y| Luma([(x * 7 + y) as u8]));
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff] {
            let mut bytes = Cursor::new(Vec::new());
            DynamicImage::from(film.clone()).write_to(&mut bytes, format).expect("a format that is built in");
            let bytes = bytes.into_inner();
            let pixels = |bytes: &[u8]| image::load_from_memory(bytes).expect("still a film").into_luma8();
            let (first, second) = (variant(&bytes, 1).expect("room"), variant(&bytes, 300).expect("room"));
            assert!(first != second && first != bytes, "{format:?}");
            assert_eq!(pixels(&first), pixels(&bytes), "{format:?}");
            assert_eq!(pixels(&second), pixels(&bytes), "{format:?}");
        }
    }

    #[test]
    fn only_the_preamble_of_a_dicom_file_changes() {
        let mut film = vec![0; 128];
        film.extend(b"DICM and the rest");
        let copy = variant(&film, 7).expect("a preamble");
        assert_ne!(copy[..128], film[..128]);
        assert_eq!(copy[128..], film[128..]);
        assert_eq!(variant(b"GIF89a", 1), None);
    }
}
