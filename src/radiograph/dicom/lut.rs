//! The lookup tables of the Modality and VOI LUT sequences (PS3.3 C.11.1.1 and C.11.2.1.1).

use dicom_dictionary_std::tags;

use super::attributes::{Attributes, wrong};
use crate::radiograph::DecodeError;

/// A lookup table: `entries[0]` is for input `first`, and inputs beyond either end get the entry there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lut {
    /// The input that the first entry is for.
    pub(super) first: i32,
    /// Outputs, each within `0..=max`.
    pub(super) entries: Vec<u16>,
    /// The largest output that the descriptor's bit depth allows.
    pub(super) max: u16,
}

impl Lut {
    /// The table in an item; `signed_input` says whether inputs can be negative.
    pub(super) fn read(item: Attributes<'_>, signed_input: bool) -> Result<Self, DecodeError> {
        let descriptor =
            item.words(tags::LUT_DESCRIPTOR).ok_or_else(|| wrong(tags::LUT_DESCRIPTOR, "three values", "none"))?;
        let &[count, first, bits] = &descriptor.words[..] else {
            return Err(wrong(tags::LUT_DESCRIPTOR, "three values", descriptor.words.len()));
        };
        let count = if count == 0 { 65_536 } else { usize::from(count) };
        // The VR of the descriptor (US or SS) follows the input's sign; an implicit VR does not tell it.
        let first = if descriptor.signed || signed_input { i32::from(first as i16) } else { i32::from(first) };
        if !(8..=16).contains(&bits) {
            return Err(wrong(tags::LUT_DESCRIPTOR, "8 to 16 bits an entry", bits));
        }
        let max = ((1u32 << bits) - 1) as u16;
        let data = item.words(tags::LUT_DATA).ok_or_else(|| wrong(tags::LUT_DATA, "16-bit words", "something else"))?;
        let mut entries = match data.bytes {
            // 8-bit entries, packed.
            Some(bytes) if bits == 8 && (bytes.len() == count || bytes.len() == count + 1) => {
                bytes.iter().map(|&b| b.into()).collect()
            }
            _ if bits == 8 && data.words.len() == count.div_ceil(2) && count > 1 => {
                data.words.iter().flat_map(|word| word.to_le_bytes()).map(u16::from).collect()
            }
            _ => data.words,
        };
        if entries.len() < count {
            return Err(wrong(tags::LUT_DATA, format!("{count} entries"), entries.len()));
        }
        entries.truncate(count);
        entries.iter_mut().for_each(|entry| *entry = (*entry).min(max));
        Ok(Self { first, entries, max })
    }

    /// The entry for an input; a fractional input is rounded.
    pub(super) fn get(&self, input: f64) -> u16 {
        let index = input.round() - f64::from(self.first);
        self.entries[index.clamp(0.0, (self.entries.len() - 1) as f64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_beyond_the_table_get_the_entry_at_that_end() {
        let lut = Lut { first: -2, entries: vec![10, 20, 30], max: 255 };
        for (input, output) in [(-2000.0, 10), (-2.0, 10), (-1.0, 20), (-0.6, 20), (0.0, 30), (9.0, 30)] {
            assert_eq!(lut.get(input), output, "{input}");
        }
    }
}
