//! Real matrices in MATLAB's Level 5 MAT-files, as far as data sets of landmarks need them.
//!
//! "MAT-File Format", The MathWorks: a header of 128 bytes, then elements of a tag (type, length) and data. Written on a
//! little-endian machine, as every file since the PowerPC is. Why not a crate: those at hand bring several others for
//! what `flate2`, which decodes DICOM here too, does in a line.

use std::io::Read;

use flate2::read::ZlibDecoder;

const HEADER_BYTES: usize = 128;
/// A matrix of landmarks needs kilobytes; a damaged or hostile file may unpack to anything.
const MAX_UNPACKED_BYTES: u64 = 16 << 20;

const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;

/// A real matrix.
#[derive(Debug, PartialEq)]
pub(super) struct Matrix {
    /// Rows and columns, or more.
    pub(super) size: Vec<usize>,
    /// Column by column.
    pub(super) values: Vec<f64>,
}

/// The matrix called `name`; nothing if the file has none of that name.
///
/// # Errors
/// With what is wrong, in a few words.
pub(super) fn matrix(file: &[u8], name: &str) -> Result<Option<Matrix>, String> {
    let (header, mut rest) = file.split_at_checked(HEADER_BYTES).ok_or("it is shorter than a header")?;
    if header[124..] != [0x00, 0x01, b'I', b'M'] {
        return Err("it is no little-endian MATLAB 5 file".to_owned());
    }
    while !rest.is_empty() {
        let element = Element::take(&mut rest)?;
        let mut unpacked = Vec::new();
        let element = if element.kind == COMPRESSED {
            let packed = ZlibDecoder::new(element.data).take(MAX_UNPACKED_BYTES);
            { packed }.read_to_end(&mut unpacked).map_err(|e| format!("a compressed array is damaged: {e}"))?;
            Element::take(&mut unpacked.as_slice())?
        } else {
            element
        };
        if element.kind == MATRIX
            && let Some(matrix) = named(element.data, name)?
        {
            return Ok(Some(matrix));
        }
    }
    Ok(None)
}

/// A tag and what it counts.
struct Element<'a> {
    kind: u32,
    data: &'a [u8],
}

impl<'a> Element<'a> {
    /// Takes the first element and the bytes that fill it up to a multiple of 8.
    fn take(rest: &mut &'a [u8]) -> Result<Self, String> {
        const CUT: &str = "it ends within an element";
        let (tag, after) = rest.split_first_chunk::<8>().ok_or(CUT)?;
        let [low, high] = [0, 4].map(|i| u32::from_le_bytes([tag[i], tag[i + 1], tag[i + 2], tag[i + 3]]));
        // The small form: up to four bytes of data within the tag.
        if low >> 16 != 0 {
            let data = rest.get(4..4 + (low >> 16) as usize).filter(|data| data.len() <= 4).ok_or(CUT)?;
            *rest = after;
            return Ok(Self { kind: low & 0xffff, data });
        }
        let len = high as usize;
        let data = after.get(..len).ok_or(CUT)?;
        // A compressed element is not filled up; the last of a file need not be.
        let step = if low == COMPRESSED { len } else { len.next_multiple_of(8) };
        *rest = after.get(step..).unwrap_or_default();
        Ok(Self { kind: low, data })
    }

    /// Its numbers, whatever type they are stored as.
    fn numbers(&self) -> Result<Vec<f64>, String> {
        fn each<const N: usize>(data: &[u8], read: fn([u8; N]) -> f64) -> Vec<f64> {
            data.as_chunks::<N>().0.iter().map(|&bytes| read(bytes)).collect()
        }
        Ok(match self.kind {
            1 => each(self.data, |b| i8::from_le_bytes(b).into()),
            2 => each(self.data, |b| u8::from_le_bytes(b).into()),
            3 => each(self.data, |b| i16::from_le_bytes(b).into()),
            4 => each(self.data, |b| u16::from_le_bytes(b).into()),
            5 => each(self.data, |b| i32::from_le_bytes(b).into()),
            6 => each(self.data, |b| u32::from_le_bytes(b).into()),
            7 => each(self.data, |b| f32::from_le_bytes(b).into()),
            9 => each(self.data, f64::from_le_bytes),
            kind => return Err(format!("its numbers are of type {kind}, which is not read here")),
        })
    }
}

/// The matrix in an element's data, if that is its name: flags, size, name, real part.
fn named(mut data: &[u8], name: &str) -> Result<Option<Matrix>, String> {
    let [_flags, size, found] = [Element::take(&mut data)?, Element::take(&mut data)?, Element::take(&mut data)?];
    if found.data != name.as_bytes() {
        return Ok(None);
    }
    let size: Vec<usize> = size.numbers()?.into_iter().map(|n| n as usize).collect();
    let values = Element::take(&mut data)?.numbers()?;
    if size.iter().try_fold(1_usize, |product, &n| product.checked_mul(n)) != Some(values.len()) {
        return Err(format!("`{name}` is of size {size:?} and has {} values", values.len()));
    }
    Ok(Some(Matrix { size, values }))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use proptest::prelude::*;

    use super::*;

    fn element(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = [kind, data.len() as u32].map(u32::to_le_bytes).concat();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    /// A matrix of 2 x 3 whose name stands in a small element and whose numbers are stored as `kind`.
    fn array(name: &[u8; 2], kind: u32, numbers: &[u8]) -> Vec<u8> {
        let flags = [6_u32, 0].map(u32::to_le_bytes).concat();
        let size = [2_u32, 3].map(u32::to_le_bytes).concat();
        let small = [&[1, 0, 2, 0], name.as_slice(), &[0, 0]].concat();
        element(14, &[element(6, &flags), element(5, &size), small, element(kind, numbers)].concat())
    }

    fn file(elements: &[Vec<u8>]) -> Vec<u8> {
        let mut file = format!("{:124}", "MATLAB 5.0 MAT-file").into_bytes();
        file.extend_from_slice(&[0x00, 0x01, b'I', b'M']);
        file.extend(elements.concat());
        file
    }

    fn packed(array: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(array).expect("memory takes every write");
        let bytes = encoder.finish().expect("memory takes every write");
        [[15, bytes.len() as u32].map(u32::to_le_bytes).concat(), bytes].concat()
    }

    #[test]
    fn a_matrix_is_found_by_its_name_packed_or_not() {
        let doubles: Vec<u8> = [1.5_f64, -2.0, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let other = array(b"p1", 2, &[9; 6]);
        for file in [
            file(&[other.clone(), array(b"p2", 9, &doubles)]),
            file(&[packed(&other), packed(&array(b"p2", 9, &doubles))]),
        ] {
            let found = matrix(&file, "p2").expect("a sound file").expect("a matrix");
            assert_eq!(found, Matrix { size: vec![2, 3], values: vec![1.5, -2.0, 3.0, 4.0, 5.0, 6.0] });
            assert_eq!(matrix(&file, "p3"), Ok(None));
        }
    }

    #[test]
    fn numbers_are_read_as_they_are_stored() {
        let found = |kind, numbers: &[u8]| matrix(&file(&[array(b"p2", kind, numbers)]), "p2");
        let values = |kind, numbers: &[u8]| found(kind, numbers).expect("sound").expect("a matrix").values;
        assert_eq!(values(1, &[255, 1, 2, 3, 4, 5]), [-1.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(values(4, &[0, 1, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0])[..2], [256.0, 1.0]);
        assert_eq!(found(9, &[0; 40]), Err("`p2` is of size [2, 3] and has 5 values".to_owned()));
        assert_eq!(found(16, &[0; 6]), Err("its numbers are of type 16, which is not read here".to_owned()));
    }

    proptest! {
        #[test]
        fn damage_gives_an_error_or_a_matrix_and_never_a_panic(at in 0_usize..300, value: u8, cut in 0_usize..300) {
            let whole = file(&[array(b"p1", 2, &[1; 6]), packed(&array(b"p2", 9, &[0; 48]))]);
            let mut damaged = whole.clone();
            let at = at % damaged.len();
            damaged[at] = value;
            if let Ok(Some(found)) = matrix(&damaged, "p2") {
                prop_assert_eq!(found.size.iter().product::<usize>(), found.values.len());
            }
            prop_assert_ne!(matrix(&whole[..cut.min(HEADER_BYTES - 1)], "p2"), Ok(None));
        }
    }
}
