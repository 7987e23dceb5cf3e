//! TensorBoard's event files: what `tensorboard --logdir RUN` shows.
//!
//! Source: TensorFlow's `event.proto`, `summary.proto` and `record_writer.cc`.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use prost::Message;

/// A file that gets an event for each step.
pub(super) struct Events(File);

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    /// Only in a file's first event.
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    /// 1 is START: what other files say of this step and later ones does not count.
    #[prost(int32, tag = "1")]
    status: i32,
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

impl Events {
    /// A new file in the folder `dir` for the steps after `step`. What older files of the folder say of these steps does
    /// not count any more.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(dir: &Path, step: u64) -> anyhow::Result<Self> {
        let now = wall_time();
        let path = dir.join(format!("events.out.tfevents.{:010}.{}.{step}", now as u64, std::process::id()));
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let mut events = Self(file.with_context(|| format!("cannot write {}", path.display()))?);
        let first = Event { wall_time: now, step: step as i64 + 1, ..Event::default() };
        events.write(&Event { file_version: Some("brain.Event:2".to_owned()), ..first.clone() })?;
        events.write(&Event { session_log: Some(SessionLog { status: 1 }), ..first })?;
        Ok(events)
    }

    /// Numbers of a step.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add<'a>(&mut self, step: u64, numbers: impl Iterator<Item = (&'a str, f64)>) -> anyhow::Result<()> {
        let value = |(tag, value): (&str, f64)| Value { tag: tag.to_owned(), simple_value: value as f32 };
        let summary = Some(Summary { value: numbers.map(value).collect() });
        self.write(&Event { wall_time: wall_time(), step: step as i64, summary, ..Event::default() })
    }

    fn write(&mut self, event: &Event) -> anyhow::Result<()> {
        self.0.write_all(&record(&event.encode_to_vec())).context("cannot write TensorBoard's events")
    }
}

/// Length, its checksum, the data, its checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &checksum(&length), data, &checksum(data)].concat()
}

/// CRC-32C, masked: a checksum of data that contains checksums would be weak.
fn checksum(data: &[u8]) -> [u8; 4] {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut events = Events::create(dir.path(), 4).unwrap();
        events.add(5, [("loss", 0.5), ("norm", 2.0)].into_iter()).unwrap();
        let path = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        let bytes = std::fs::read(path).unwrap();
        let (mut rest, mut read) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let data = &rest[12..12 + length];
            assert_eq!(rest[..16 + length], record(data));
            read.push(Event::decode(data).unwrap());
            rest = &rest[16 + length..];
        }
        assert_eq!(read[0].file_version.as_deref(), Some("brain.Event:2"));
        assert_eq!((read[1].step, read[1].session_log.as_ref().map(|log| log.status)), (5, Some(1)));
        let values = &read[2].summary.as_ref().unwrap().value;
        assert_eq!((read[2].step, values[0].tag.as_str(), values[1].simple_value), (5, "loss", 2.0));
    }

    /// `tf.summary`'s own first record begins with these bytes: length 24 and its masked CRC-32C.
    #[test]
    fn checksums_are_tensorflows() {
        assert_eq!(record(&[0; 24])[..12], [0x18, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]);
    }
}
