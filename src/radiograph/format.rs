//! Which container a file is, by its content; names and extensions are not looked at.

use std::fmt;

use super::{DecodeError, dicom};

/// The containers films come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Portable Network Graphics.
    Png,
    /// JPEG: baseline, extended or progressive, 8 bits.
    Jpeg,
    /// Tagged Image File Format: its first image.
    Tiff,
    /// Windows bitmap.
    Bmp,
    /// DICOM, with or without the preamble and file meta information.
    Dicom,
}

/// Signatures of formats that people drop in a film folder and that are not films.
const REFUSED: [(&[u8], &str); 12] = [
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"RIFF", "WebP or another RIFF file"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 file outside DICOM"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 codestream outside DICOM"),
    (b"\xff\x0a", "JPEG XL"),
    (b"qoif", "QOI"),
    (b"8BPS", "Photoshop"),
    (b"II\x2b\x00", "BigTIFF"),
];

impl Format {
    /// The container that `bytes` start.
    ///
    /// # Errors
    /// [`DecodeError::UnsupportedFormat`] with what it looks like instead.
    pub fn of(bytes: &[u8]) -> Result<Self, DecodeError> {
        let starts = |signature: &[u8]| bytes.starts_with(signature);
        // First of all: the 128 bytes of preamble may hold anything (PS3.10 7.1), and in real films hold a TIFF header.
        if bytes.get(128..132) == Some(b"DICM") {
            return Ok(Self::Dicom);
        }
        if starts(b"\x89PNG\r\n\x1a\n") {
            return Ok(Self::Png);
        }
        if starts(&[0xFF, 0xD8, 0xFF]) {
            return Ok(Self::Jpeg);
        }
        if starts(b"II\x2a\x00") || starts(b"MM\x00\x2a") {
            return Ok(Self::Tiff);
        }
        if starts(b"BM") {
            return Ok(Self::Bmp);
        }
        if let Some((_, found)) = REFUSED.iter().find(|(signature, _)| starts(signature)) {
            return Err(DecodeError::UnsupportedFormat { found });
        }
        if dicom::looks_like_a_data_set(bytes) {
            return Ok(Self::Dicom);
        }
        let found = if bytes.is_empty() {
            "an empty file"
        } else if bytes.iter().all(|&b| b == 0) {
            "nothing but zeros"
        } else {
            "an unknown signature"
        };
        Err(DecodeError::UnsupportedFormat { found })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Tiff => "tiff",
            Self::Bmp => "bmp",
            Self::Dicom => "dicom",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        let preamble = |start: &[u8]| {
            let mut bytes = start.to_vec();
            bytes.resize(128, 0);
            bytes.extend_from_slice(b"DICM");
            bytes
        };
        for (bytes, expected) in [
            (b"\x89PNG\r\n\x1a\n".to_vec(), Format::Png),
            (vec![0xFF, 0xD8, 0xFF, 0xE0], Format::Jpeg),
            (b"II\x2a\x00".to_vec(), Format::Tiff),
            (b"MM\x00\x2a".to_vec(), Format::Tiff),
            (b"BM".to_vec(), Format::Bmp),
            (preamble(b""), Format::Dicom),
            (preamble(b"BM"), Format::Dicom),
            (preamble(b"II\x2a\x00"), Format::Dicom),
        ] {
            assert_eq!(Format::of(&bytes).expect("known"), expected, "{:?}", &bytes[..2]);
        }
    }

    #[test]
    fn everything_else_is_named_and_refused() {
        for (bytes, name) in [
            (b"GIF89a\x01".as_slice(), "GIF"),
            (b"%PDF-1.7", "PDF"),
            (b"", "an empty file"),
            (&[0; 64], "nothing but zeros"),
            (b"hello, world, hello", "an unknown signature"),
        ] {
            let message = Format::of(bytes).expect_err("not a film").to_string();
            assert!(message.starts_with("unsupported format") && message.ends_with(name), "{message}");
        }
    }
}
