//! What the fuzz targets ask of the parsers of films.

use super::codestream;
use super::jpeg_extended;
use super::structure::{self, Encoding, PixelData};
use crate::radiograph::jpeg::{self, FrameHeader};
use crate::radiograph::jpeg_scan;

/// Larger films are not decoded, as the limits of a real one do.
const MAX_PIXELS: usize = 1 << 20;

/// All that is handed on lies inside the file.
pub(crate) fn dicom_structure(bytes: &[u8]) {
    for encoding in [Encoding::ImplicitLittle, Encoding::ExplicitLittle, Encoding::ExplicitBig] {
        let Ok(set) = structure::split(bytes, encoding) else { continue };
        assert!(set.head.len() <= bytes.len(), "elements are copied once");
        let pixels = match set.pixel_data {
            PixelData::Native { value, .. } => value.len(),
            PixelData::Encapsulated(fragments) => fragments.iter().map(|fragment| fragment.len()).sum(),
        };
        assert!(set.head.len() + pixels <= bytes.len(), "no byte is in two elements");
    }
    if let Ok(header) = codestream::jpeg_header(bytes) {
        let _ends = codestream::ends(bytes, header.scan_at);
    }
    let _size = codestream::jpeg_2000_size(bytes);
    let _is_film = super::looks_like_a_data_set(bytes);
}

/// A film of 12 bits has the size that its header states.
pub(crate) fn jpeg_scan(bytes: &[u8]) {
    let _whole = jpeg_scan::check(bytes);
    let Ok(header) = FrameHeader::read(bytes) else { return };
    assert!(header.scan_at <= bytes.len(), "the scan lies inside the file");
    let _ends = jpeg::ends(bytes, header.scan_at);
    let pixels = usize::from(header.width) * usize::from(header.height);
    if pixels <= MAX_PIXELS
        && let Ok(samples) = jpeg_extended::decode(bytes)
    {
        assert_eq!(samples.len(), pixels, "every pixel has a sample");
        assert!(samples.iter().all(|&sample| sample < 4096), "12 bits");
    }
}
