//! Data sets written by hand, byte by byte.

use super::*;
use crate::acquisition::completeness::bytes::Order;

const ROWS_4_COLUMNS_6: [(u32, &str, &[u8]); 4] = [
    (ROWS, "US", &[4, 0]),
    (COLUMNS, "US", &[6, 0]),
    (BITS_ALLOCATED, "US", &[8, 0]),
    (SAMPLES_PER_PIXEL, "US", &[1, 0]),
];

fn tag(order: Order, tag: u32) -> Vec<u8> {
    let (group, number) = ((tag >> 16) as u16, tag as u16);
    match order {
        Order::Little => [group.to_le_bytes(), number.to_le_bytes()].concat(),
        Order::Big => [group.to_be_bytes(), number.to_be_bytes()].concat(),
    }
}

fn number(order: Order, value: u32) -> [u8; 4] {
    if order == Order::Little { value.to_le_bytes() } else { value.to_be_bytes() }
}

/// An element with a stated length; `value` holds numbers in little endian order and is turned for big endian.
fn element(syntax: Syntax, id: u32, representation: &str, value: &[u8], length: u32) -> Vec<u8> {
    let mut bytes = tag(syntax.order, id);
    if !syntax.explicit {
        bytes.extend(number(syntax.order, length));
    } else if matches!(representation, "OB" | "OW" | "SQ" | "UN") {
        bytes.extend(representation.as_bytes());
        bytes.extend([0, 0]);
        bytes.extend(number(syntax.order, length));
    } else {
        bytes.extend(representation.as_bytes());
        let length = length as u16;
        bytes.extend(if syntax.order == Order::Little { length.to_le_bytes() } else { length.to_be_bytes() });
    }
    let mut value = value.to_vec();
    if syntax.order == Order::Big && representation == "US" {
        value.reverse();
    }
    bytes.extend(value);
    bytes
}

fn file(syntax: Syntax, uid: &str, elements: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM");
    let mut uid = uid.as_bytes().to_vec();
    if uid.len() % 2 == 1 {
        uid.push(0);
    }
    bytes.extend(element(Syntax::EXPLICIT_LITTLE, TRANSFER_SYNTAX_UID, "UI", &uid, uid.len() as u32));
    bytes.extend(data_set(syntax, elements));
    bytes
}

fn data_set(syntax: Syntax, elements: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = element(syntax, 0x0008_0005, "CS", b"ISO_IR 100", 10);
    for (id, representation, value) in ROWS_4_COLUMNS_6 {
        bytes.extend(element(syntax, id, representation, value, value.len() as u32));
    }
    bytes.extend(elements.concat());
    bytes
}

const NATIVE: [(Syntax, &str); 3] = [
    (Syntax::IMPLICIT_LITTLE, "1.2.840.10008.1.2"),
    (Syntax::EXPLICIT_LITTLE, "1.2.840.10008.1.2.1"),
    (Syntax::EXPLICIT_BIG, "1.2.840.10008.1.2.2"),
];

#[test]
fn native_pixel_data_must_be_as_long_as_rows_and_columns_say() {
    let short = incomplete("the pixel data of the DICOM file is shorter than its rows and columns");
    for (syntax, uid) in NATIVE {
        let pixels = element(syntax, PIXEL_DATA, "OW", &[5; 24], 24);
        let after = element(syntax, 0xFFFC_FFFC, "OB", &[0; 600], 600);
        for (name, elements, expected) in [
            ("whole", vec![pixels.clone()], Completeness::Complete),
            ("a byte short", vec![pixels[..pixels.len() - 1].to_vec()], ENDS_EARLY),
            ("fewer than stated", vec![element(syntax, PIXEL_DATA, "OW", &[5; 22], 22)], short),
            ("two frames, one there", vec![element(syntax, NUMBER_OF_FRAMES, "IS", b"2 ", 2), pixels.clone()], short),
            ("padding after the pixels", vec![pixels.clone(), after.clone()], Completeness::Complete),
            ("padding cut", vec![pixels.clone(), after[..99].to_vec()], ENDS_EARLY),
            ("zeros after the pixels", vec![pixels.clone(), vec![0; 600]], Completeness::ZeroTail),
            ("no pixels", vec![], incomplete("the DICOM file ends before its pixel data")),
            (
                "zeros for pixels",
                vec![vec![0; 99]],
                incomplete("the DICOM file has zeros where a data element should be"),
            ),
        ] {
            assert_eq!(walk(&file(syntax, uid, &elements)), expected, "{name}, {syntax:?}");
            if elements.iter().any(|e| !e.is_empty()) {
                assert_eq!(walk(&data_set(syntax, &elements)), expected, "{name}, no meta, {syntax:?}");
            }
        }
    }
}

#[test]
fn a_black_last_row_waits() {
    let syntax = Syntax::EXPLICIT_LITTLE;
    let rows = element(syntax, ROWS, "US", &[0, 2], 2);
    let pixels = element(syntax, PIXEL_DATA, "OW", &[vec![5; 2560], vec![0; 512]].concat(), 3072);
    let bytes = file(syntax, "1.2.840.10008.1.2.1", &[rows, pixels]);
    assert_eq!(walk(&bytes), Completeness::ZeroTail);
}

#[test]
fn sequences_of_undefined_length_end_at_their_delimiters() {
    let order = Order::Little;
    let item = |length: u32| [tag(order, 0xFFFE_E000), number(order, length).to_vec()].concat();
    let item_end = [tag(order, 0xFFFE_E00D), vec![0; 4]].concat();
    let end = [tag(order, 0xFFFE_E0DD), vec![0; 4]].concat();
    for (syntax, uid) in &NATIVE[..2] {
        let pixels = element(*syntax, PIXEL_DATA, "OW", &[5; 24], 24);
        let icon = element(*syntax, PIXEL_DATA, "OW", &[5; 4], 4);
        let icons = element(*syntax, 0x0088_0200, "SQ", &[], u32::MAX);
        let nested =
            [icons.clone(), item(u32::MAX), icon.clone(), item_end.clone(), item(2), vec![1, 1], end.clone()].concat();
        let open = incomplete("the DICOM file ends inside a sequence or before the end of its fragments");
        for (name, elements, expected) in [
            ("an icon of its own", vec![nested.clone(), pixels.clone()], Completeness::Complete),
            ("the icon is not the film", vec![nested.clone()], incomplete("the DICOM file ends before its pixel data")),
            ("no delimiter", vec![nested[..nested.len() - 8].to_vec()], open),
        ] {
            assert_eq!(walk(&file(*syntax, uid, &elements)), expected, "{name}, {syntax:?}");
        }
        let deep = vec![[icons, item(u32::MAX)].concat(); MAX_DEPTH];
        assert_eq!(walk(&file(*syntax, uid, &deep)), Completeness::Unknown, "deeper than any film");
    }
}

#[test]
fn fragments_end_at_the_sequence_delimiter() {
    let (syntax, order) = (Syntax::EXPLICIT_LITTLE, Order::Little);
    let item =
        |value: &[u8]| [tag(order, 0xFFFE_E000), number(order, value.len() as u32).to_vec(), value.to_vec()].concat();
    let end = [tag(order, 0xFFFE_E0DD), vec![0; 4]].concat();
    let open = element(syntax, PIXEL_DATA, "OB", &[], u32::MAX);
    let whole = [open, item(&[]), item(&[7; 90]), item(&[8; 10]), end].concat();
    let bytes = file(syntax, "1.2.840.10008.1.2.4.50", std::slice::from_ref(&whole));
    assert_eq!(walk(&bytes), Completeness::Complete);
    for cut in 1..whole.len() {
        let verdict = walk(&bytes[..bytes.len() - cut]);
        assert!(matches!(verdict, Completeness::Incomplete { .. }), "{cut} bytes short: {verdict:?}");
        let zeros = [&bytes[..bytes.len() - cut], &vec![0; cut]].concat();
        if zeros != bytes {
            assert_ne!(walk(&zeros), Completeness::Complete, "{cut} zeros");
        }
    }
}

#[test]
fn a_deflated_data_set_ends_with_its_stream() {
    use std::io::Write;
    let data: Vec<u8> = (0..60_000u32).map(|i| (i * i % 251) as u8).collect();
    let mut writer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(&data).expect("a Vec takes everything");
    let stream = writer.finish().expect("a Vec takes everything");
    assert_eq!(deflated(&stream), Completeness::Complete);
    assert_eq!(deflated(&[&stream[..], &[0]].concat()), Completeness::Complete);
    for percent in [0, 10, 50, 90, 99] {
        let cut = &stream[..stream.len() * percent / 100];
        assert!(matches!(deflated(cut), Completeness::Incomplete { .. }), "cut at {percent} %");
        let mut zeros = stream.clone();
        zeros[stream.len() * percent / 100..].fill(0);
        assert!(matches!(deflated(&zeros), Completeness::Incomplete { .. }), "zeros from {percent} %");
    }
}

#[test]
fn zeros_that_read_as_the_end_of_a_deflate_stream_are_no_end() {
    // One final block of fixed Huffman codes (RFC 1951, 3.2.6): 1, 01 and eight bits a literal, the first bit first.
    let mut bits = vec![1, 1, 0];
    (0..4000u32).for_each(|i| bits.extend((0..8).rev().map(|bit| (0x30 + i * i % 144) >> bit & 1)));
    bits.extend([0; 7]);
    let stream: Vec<u8> =
        bits.chunks(8).map(|byte| (0..).zip(byte).map(|(at, bit)| (*bit as u8) << at).sum()).collect();
    assert_eq!(deflated(&stream), Completeness::Complete);
    for cut in [700, 2000, stream.len() - 512] {
        let mut zeros = stream.clone();
        zeros[cut..].fill(0);
        assert_eq!(deflated(&zeros), Completeness::ZeroTail, "zeros from {cut}");
    }
}
