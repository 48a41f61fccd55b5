//! Whole films of every format, built from the input and cut, or with zeros behind the cut as a pre-allocated file has
//! them: no part of a film is ever judged complete.
#![no_main]

use std::io::Write;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use landmarkd::acquisition::{Completeness, completeness};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&[kind, width, height, variant, high, low], content)) = input.split_first_chunk() else { return };
    let film = Film { width: 1 + u16::from(width % 64), height: 1 + u16::from(height % 64), variant, content };
    let bytes = match kind % 5 {
        0 => film.bmp(),
        1 => film.png(),
        2 => film.tiff(),
        3 => film.jpeg(),
        _ => film.dicom(),
    };
    let whole = completeness(&bytes);
    assert!(matches!(whole, Completeness::Complete | Completeness::ZeroTail), "kind {}: {whole:?}", kind % 5);
    let cut = usize::from(u16::from_be_bytes([high, low])) % bytes.len();
    let part = completeness(&bytes[..cut]);
    assert!(matches!(part, Completeness::Incomplete { .. }), "kind {}, {cut} of {}: {part:?}", kind % 5, bytes.len());
    let rest = &bytes[cut..];
    // A file system allocates blocks; fewer zeros than that may be pixels.
    if rest.len() >= 512 && rest.iter().any(|&byte| byte != 0) {
        let mut allocated = bytes[..cut].to_vec();
        allocated.resize(bytes.len(), 0);
        let part = completeness(&allocated);
        assert_ne!(part, Completeness::Complete, "kind {}, zeros from {cut} of {}", kind % 5, bytes.len());
    }
});

struct Film<'a> {
    width: u16,
    height: u16,
    variant: u8,
    content: &'a [u8],
}

impl Film<'_> {
    /// As many bytes of the content, over and over.
    fn fill(&self, length: usize) -> Vec<u8> {
        let content: &[u8] = if self.content.is_empty() { &[7] } else { self.content };
        content.iter().copied().cycle().take(length).collect()
    }

    fn bmp(&self) -> Vec<u8> {
        let bits = [1u16, 4, 8, 16, 24, 32][usize::from(self.variant) % 6];
        let row = (usize::from(self.width) * usize::from(bits)).div_ceil(32) * 4;
        let mut bytes = b"BM".to_vec();
        bytes.extend([0; 8]);
        for number in [54u32, 40, self.width.into(), self.height.into(), 1 | u32::from(bits) << 16, 0] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend([0; 20]);
        bytes.extend(self.fill(row * usize::from(self.height)));
        bytes
    }

    fn png(&self) -> Vec<u8> {
        let chunk = |name: &[u8; 4], body: &[u8]| {
            let length = u32::try_from(body.len()).expect("small").to_be_bytes();
            [&length[..], name, body, &[1, 2, 3, 4]].concat()
        };
        let mut bytes = b"\x89PNG\r\n\x1A\n".to_vec();
        bytes.extend(chunk(b"IHDR", &[0; 13]));
        for part in self.fill(usize::from(self.width) * 16).chunks(usize::from(self.variant) + 1) {
            bytes.extend(chunk(b"IDAT", part));
        }
        bytes.extend(chunk(b"IEND", &[]));
        bytes
    }

    /// The directory in front of the strips or behind them, in either byte order.
    fn tiff(&self) -> Vec<u8> {
        let (big, behind) = (self.variant & 1 == 1, self.variant & 2 == 2);
        let short = |number: u16| if big { number.to_be_bytes() } else { number.to_le_bytes() };
        let long = |number: u32| if big { number.to_be_bytes() } else { number.to_le_bytes() };
        let strips = u32::from(self.height);
        let strip = u32::from(self.width);
        let directory_bytes = 2 + 2 * 12 + 4;
        let tables_bytes = 8 * strips;
        let (directory, pixels) = match behind {
            true => (8 + strips * strip, 8),
            false => (8, 8 + directory_bytes + tables_bytes),
        };
        let mut head = short(2).to_vec();
        for (tag, table) in [(273, directory + directory_bytes), (279, directory + directory_bytes + 4 * strips)] {
            head.extend([short(tag), short(4)].concat());
            // A single value stands in the entry itself.
            let value = match (strips, tag) {
                (1, 273) => pixels,
                (1, _) => strip,
                _ => table,
            };
            head.extend([long(strips), long(value)].concat());
        }
        head.extend(long(0));
        head.extend((0..strips).flat_map(|i| long(pixels + i * strip)));
        head.extend((0..strips).flat_map(|_| long(strip)));
        let mut bytes = if big { b"MM\0*".to_vec() } else { b"II*\0".to_vec() };
        bytes.extend(long(directory));
        let pixels = self.fill((strips * strip) as usize);
        bytes.extend(if behind { [pixels, head].concat() } else { [head, pixels].concat() });
        // What a directory of one strip does not point to is no part of the film.
        if strips == 1 {
            let end = if behind { bytes.len() - 8 } else { bytes.len() };
            bytes.truncate(end);
        }
        bytes
    }

    fn jpeg(&self) -> Vec<u8> {
        let segment = |code: u8, body: &[u8]| {
            let length = u16::try_from(body.len() + 2).expect("small").to_be_bytes();
            [&[0xFF, code][..], &length, body].concat()
        };
        let mut bytes = vec![0xFF, 0xD8];
        bytes.extend(segment(0xE1, &self.fill(self.variant.into())));
        for scan in 0..1 + self.variant % 3 {
            bytes.extend(segment(0xDA, &[scan; 4]));
            for byte in self.fill(usize::from(self.width) * usize::from(self.height)) {
                bytes.push(byte);
                if byte == 0xFF {
                    bytes.push(if self.variant & 4 == 4 { 0xD0 + scan } else { 0 });
                }
            }
        }
        bytes.extend([0xFF, 0xD9]);
        bytes
    }

    fn dicom(&self) -> Vec<u8> {
        const SYNTAXES: [&str; 5] = [
            "1.2.840.10008.1.2",
            "1.2.840.10008.1.2.1",
            "1.2.840.10008.1.2.2",
            "1.2.840.10008.1.2.1.99",
            "1.2.840.10008.1.2.4.90",
        ];
        let which = usize::from(self.variant) % SYNTAXES.len();
        let (explicit, big, encapsulated) = (which != 0, which == 2, which == 4);
        let short = |number: u16| if big { number.to_be_bytes() } else { number.to_le_bytes() };
        let long = |number: u32| if big { number.to_be_bytes() } else { number.to_le_bytes() };
        let number = |element: u16, value: u16| {
            let mut bytes = [short(0x28), short(element)].concat();
            match explicit {
                true => bytes.extend([*b"US", short(2)].concat()),
                false => bytes.extend(long(2)),
            }
            bytes.extend(short(value));
            bytes
        };
        let mut set = Vec::new();
        for (element, value) in [(2, 1), (0x10, self.height), (0x11, self.width), (0x100, 16)] {
            set.extend(number(element, value));
        }
        set.extend([short(0x7FE0), short(0x10)].concat());
        if explicit {
            set.extend(b"OW\0\0");
        }
        let pixels = self.fill(usize::from(self.width) * usize::from(self.height) * 2);
        if encapsulated {
            set.extend([0xFF; 4]);
            let fragments = pixels.chunks(512).map(|part| (0xE000u16, part));
            for (element, part) in std::iter::once((0xE000, &[][..])).chain(fragments).chain([(0xE0DD, &[][..])]) {
                set.extend([short(0xFFFE), short(element)].concat());
                set.extend(long(u32::try_from(part.len()).expect("small")));
                set.extend(part);
            }
        } else {
            set.extend(long(u32::try_from(pixels.len()).expect("small")));
            set.extend(pixels);
        }
        if which == 3 {
            let mut deflater = DeflateEncoder::new(Vec::new(), Compression::fast());
            deflater.write_all(&set).expect("a Vec takes everything");
            set = deflater.finish().expect("a Vec takes everything");
        }
        let mut uid = SYNTAXES[which].as_bytes().to_vec();
        uid.resize(uid.len().next_multiple_of(2), 0);
        let mut bytes = vec![0; 128];
        bytes.extend(b"DICM\x02\0\x10\0UI");
        bytes.extend(u16::try_from(uid.len()).expect("small").to_le_bytes());
        bytes.extend(uid);
        bytes.extend(set);
        bytes
    }
}
