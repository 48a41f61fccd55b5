//! Files that are made to hurt: small ones that promise or unfold to far more than a film, and films with broken bytes.

use std::io::Write;

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

/// What the bombs unfold to: more than the daemon may ever hold.
const BOMB_BYTES: usize = 1 << 30;

/// A raw deflate stream of that many zeros (a multiple of 1 MiB); deflated once and repeated.
fn deflated_zeros(bytes: usize) -> Vec<u8> {
    let mut deflater = DeflateEncoder::new(Vec::new(), Compression::best());
    deflater.write_all(&vec![0; 1 << 20]).expect("a Vec takes everything");
    deflater.flush().expect("a Vec takes everything");
    let block = deflater.get_ref().clone();
    // An empty final block.
    [block.repeat(bytes >> 20), vec![3, 0]].concat()
}

/// The same with the header and the checksum of zlib (RFC 1950).
fn zlib_zeros(bytes: usize) -> Vec<u8> {
    let adler = (bytes as u64 % 65_521) << 16 | 1;
    [&[0x78, 0xDA][..], &deflated_zeros(bytes), &u32::try_from(adler).expect("two halves").to_be_bytes()].concat()
}

fn chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut crc = Crc::new();
    crc.update(name);
    crc.update(body);
    let length = u32::try_from(body.len()).expect("small").to_be_bytes();
    [&length[..], name, body, &crc.sum().to_be_bytes()].concat()
}

fn png(width: u32, height: u32, extra: &[u8], pixels: &[u8]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    let chunks = [chunk(b"IHDR", &header), extra.to_vec(), chunk(b"IDAT", pixels), chunk(b"IEND", &[])];
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunks.concat()].concat()
}

/// A TIFF of one strip of deflate data (compression 8).
fn tiff(width: u32, height: u32, pixels: &[u8]) -> Vec<u8> {
    let strip = u32::try_from(pixels.len()).expect("small");
    let entries: [(u16, u16, u32); 9] = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 8),
        (259, 3, 8),
        (262, 3, 1),
        (273, 4, 8 + 2 + 9 * 12 + 4),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, strip),
    ];
    let mut bytes = b"II*\0\x08\0\0\0\x09\0".to_vec();
    for (tag, kind, value) in entries {
        bytes.extend([&tag.to_le_bytes()[..], &kind.to_le_bytes(), &[1, 0, 0, 0], &value.to_le_bytes()].concat());
    }
    bytes.extend([0; 4]);
    bytes.extend(pixels);
    bytes
}

/// A deflated DICOM data set of one endless text; with `film`, the attributes of a film stand before it.
fn dicom(film: bool) -> Vec<u8> {
    const SYNTAX: &[u8; 22] = b"1.2.840.10008.1.2.1.99";
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM\x02\0\x10\0UI\x16\0");
    bytes.extend(SYNTAX);
    let mut head = Vec::new();
    if film {
        for (element, value) in [(2_u8, 1_u16), (0x10, 64), (0x11, 64)] {
            head.extend([0x28, 0, element, 0, b'U', b'S', 2, 0]);
            head.extend(value.to_le_bytes());
        }
    }
    // Pixel Data, or a private element of unlimited text, of a length that the zeros fill.
    let tag = if film { [0xE0, 0x7F, 0x10, 0] } else { [0x09, 0, 0x10, 0x10] };
    head.extend(tag);
    head.extend(if film { *b"OB\0\0" } else { *b"UT\0\0" });
    head.extend(u32::try_from(BOMB_BYTES).expect("1 GiB").to_le_bytes());
    let mut deflater = DeflateEncoder::new(Vec::new(), Compression::best());
    deflater.write_all(&head).expect("a Vec takes everything");
    deflater.flush().expect("a Vec takes everything");
    bytes.extend(deflater.get_ref());
    bytes.extend(deflated_zeros(BOMB_BYTES));
    bytes
}

/// Bombs by what they are, and whether a film is in them all the same: what stands beside or behind it is passed over.
pub(crate) fn bombs() -> Vec<(&'static str, bool, Vec<u8>)> {
    let (side, gib) = (20_000, zlib_zeros(BOMB_BYTES));
    let text = chunk(b"zTXt", &[b"Comment\0\0", &gib[..]].concat());
    let profile = chunk(b"iCCP", &[b"profile\0\0", &gib[..]].concat());
    vec![
        ("PNG of 400 megapixels", false, png(side, side, &[], &zlib_zeros(400 << 20))),
        ("PNG with more pixels than its header says", true, png(1000, 1000, &[], &gib)),
        ("PNG with endless text", true, png(64, 64, &text, &zlib_zeros(1 << 20))),
        ("PNG with an endless colour profile", true, png(64, 64, &profile, &zlib_zeros(1 << 20))),
        ("TIFF of 400 megapixels", false, tiff(side, side, &zlib_zeros(400 << 20))),
        ("TIFF with more pixels than its header says", true, tiff(1000, 1000, &gib)),
        ("deflated DICOM with endless text", false, dicom(false)),
        ("deflated DICOM with endless pixels", false, dicom(true)),
    ]
}

/// Numbers by Marsaglia's xorshift, the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % end
    }
}

/// The film with one to eight bytes of its first kilobytes changed, or with its end cut off, or with some bytes twice:
/// what a bad cable, a bad disk or a bad program makes of it.
pub(crate) fn mutated(film: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = film.to_vec();
    let head = bytes.len().min(2500);
    match random.below(8) {
        0 => bytes.truncate(132 + random.below(bytes.len() - 132)),
        1 => {
            let at = 132 + random.below(head - 132);
            let again = bytes[at..(at + 1 + random.below(64)).min(bytes.len())].to_vec();
            bytes.splice(at..at, again);
        }
        _ => {
            for _ in 0..[1, 2, 4, 8][random.below(4)] {
                let at = 132 + random.below(head - 132);
                bytes[at] = [0, 1, 0xFF, u8::try_from(random.below(256)).expect("a byte")][random.below(4)];
            }
        }
    }
    bytes
}
