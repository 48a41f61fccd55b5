//! TensorBoard's event files: scalars over steps.
//!
//! A record is its length (u64), a masked CRC-32C of these eight bytes, a protocol buffer (`tensorflow.Event`), and a
//! masked CRC-32C of that; all little-endian (TensorFlow, `core/lib/io/record_writer`, `core/util/event.proto`).

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crc::{CRC_32_ISCSI, Crc};
use prost::Message;

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
const VERSION: &str = "brain.Event:2";
/// `SessionLog.START`: what lies at this step or later, in older files of the folder, no longer counts.
const START: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, tag = "2")]
    simple_value: f32,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// An event file of its own for each start of a run; TensorBoard reads all of a folder.
#[derive(Debug)]
pub struct EventFile {
    file: File,
}

impl EventFile {
    /// Starts a file in `folder`; what older files say of `step` and later no longer counts.
    ///
    /// # Errors
    /// When the folder or disk refuses.
    pub fn start(folder: &Path, step: usize) -> io::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Ordered by name as by time; the second figure keeps two starts within a second apart.
        let name = format!("events.out.tfevents.{:010}.{:09}.landmark-train", now.as_secs(), now.subsec_nanos());
        let mut events = Self { file: File::create_new(folder.join(name))? };
        let empty = Event { wall_time: now.as_secs_f64(), ..Event::default() };
        events.append(&Event { file_version: Some(VERSION.to_owned()), ..empty.clone() })?;
        events.append(&Event { step: step as i64, session_log: Some(SessionLog { status: START }), ..empty })?;
        Ok(events)
    }

    /// Adds scalars at a step; they are in the file when this returns, though not yet synced.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn scalars(&mut self, step: usize, values: &[(&str, f64)]) -> io::Result<()> {
        let value = |&(tag, value): &(&str, f64)| Value { tag: tag.to_owned(), simple_value: value as f32 };
        let wall_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let summary = Some(Summary { value: values.iter().map(value).collect() });
        self.append(&Event { wall_time, step: step as i64, summary, ..Event::default() })
    }

    fn append(&mut self, event: &Event) -> io::Result<()> {
        self.file.write_all(&record(&event.encode_to_vec()))
    }
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let [length_crc, data_crc] = [length.as_slice(), data].map(|bytes| masked(CRC.checksum(bytes)).to_le_bytes());
    [length.as_slice(), &length_crc, data, &data_crc].concat()
}

/// A CRC of data that hold CRCs themselves would be weak: they are stored turned and shifted.
const fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn events(bytes: &[u8]) -> Vec<Event> {
        let mut rest = bytes;
        let mut events = Vec::new();
        while let Some((length, _)) = rest.split_first_chunk::<8>() {
            let n = u64::from_le_bytes(*length) as usize;
            let whole = record(&rest[12..12 + n]);
            assert_eq!(rest[..whole.len()], whole, "both checksums hold");
            events.push(Event::decode(&rest[12..12 + n]).expect("an event"));
            rest = &rest[whole.len()..];
        }
        events
    }

    #[test]
    fn the_checksum_is_the_standards() {
        // RFC 3720, B.4: 32 bytes of zeros; and the usual check value.
        assert_eq!(CRC.checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(CRC.checksum(b"123456789"), 0xe306_9283);
        assert_eq!(masked(0), 0xa282_ead8);
        assert_eq!(masked(0x8000), 0xa282_ead9);
    }

    #[test]
    fn scalars_come_back_with_their_step() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut file = EventFile::start(folder.path(), 40).expect("a fresh folder");
        file.scalars(41, &[("loss", -3.25), ("validation/mre", 1.5)]).expect("a fresh folder");
        let path = fs::read_dir(folder.path()).expect("the folder").next().expect("a file").expect("its entry").path();
        let found = events(&fs::read(path).expect("the file"));
        assert_eq!(found[0].file_version.as_deref(), Some("brain.Event:2"));
        assert_eq!((found[1].step, found[1].session_log.as_ref().map(|log| log.status)), (40, Some(START)));
        let values = &found[2].summary.as_ref().expect("scalars").value;
        let pairs: Vec<(&str, f32)> = values.iter().map(|v| (v.tag.as_str(), v.simple_value)).collect();
        assert_eq!((found[2].step, pairs), (41, vec![("loss", -3.25), ("validation/mre", 1.5)]));
    }
}
