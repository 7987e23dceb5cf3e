//! Zip files: many pictures as one file, and back.
//!
//! Written are stored entries, since pictures are compressed already. What is read may come from anywhere: a list is taken
//! only if it lies within the file, its entries have room beside each other, and none claims more than it may.

use crate::checksum::crc32;

/// Bytes at a file's end among which its end record is: the record and the longest comment.
pub const TAIL: usize = END + 0xffff;
/// Bytes of an entry's own header, without name.
pub const HEADER: usize = 30;
/// Most entries.
const MAX_ENTRIES: usize = 20_000;
/// Largest entry that is read.
pub const MAX_ENTRY_BYTES: u32 = 96 << 20;
/// Most bytes of a file's list.
const MAX_LIST_BYTES: usize = 8 << 20;
/// Largest file: beyond, the format has other records.
const MAX_FILE_BYTES: u64 = u32::MAX as u64;
const END: usize = 22;
const LISTED: usize = 46;
/// That names are UTF-8.
const UTF8: u16 = 1 << 11;
/// That an entry is encrypted.
const ENCRYPTED: u16 = 1;

/// Why a zip file is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ZipError {
    /// It is none, or a torn one.
    #[error("it is no zip file, or not a whole one")]
    NoZip,
    /// It claims to hold more than it can.
    #[error("it claims to hold more than it does")]
    Overlapping,
    /// It has too many or too large entries.
    #[error("it holds more than is read here")]
    TooMuch,
    /// Something in it cannot be read here.
    #[error("it is encrypted, or compressed in an unusual way")]
    Unusual,
}

/// How an entry is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// As it is.
    Stored,
    /// With deflate.
    Deflated,
}

/// An entry of a zip file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name, folders included.
    pub name: String,
    /// Where its header begins.
    pub offset: u64,
    /// Bytes in the file.
    pub packed: u32,
    /// Bytes when unpacked.
    pub size: u32,
    /// CRC-32 of what is unpacked.
    pub crc: u32,
    /// How it is stored.
    pub method: Method,
}

/// Writes a zip file, piece by piece.
#[derive(Debug, Default)]
pub struct Writer {
    list: Vec<u8>,
    entries: u16,
    offset: u64,
}

/// A time as zip files have it: year, month, day, hour, minute, second.
pub type Time = [u16; 6];

impl Writer {
    /// What comes before an entry's bytes. `None` if the file would be larger than the format allows.
    pub fn header(&mut self, name: &str, bytes: &[u8], time: Time) -> Option<Vec<u8>> {
        let [year, month, day, hour, minute, second] = time;
        let date = (year.clamp(1980, 2107) - 1980) << 9 | month << 5 | day;
        let time = hour << 11 | minute << 5 | (second / 2);
        let offset = self.offset as u32;
        self.offset += (HEADER + name.len() + bytes.len()) as u64;
        self.entries = self.entries.checked_add(1)?;
        if self.offset + (self.list.len() + LISTED + name.len() + END) as u64 >= MAX_FILE_BYTES {
            return None;
        }
        let mut about = Vec::new();
        let numbers = [20, UTF8, 0, time, date];
        about.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        let size = bytes.len() as u32;
        about.extend([crc32(&[bytes]), size, size].iter().flat_map(|number| number.to_le_bytes()));
        about.extend((name.len() as u16).to_le_bytes());
        about.extend([0, 0]);
        self.list.extend(b"PK\x01\x02\x14\0");
        self.list.extend(&about);
        // No comment, the first disk, no attributes.
        self.list.extend([0; 10]);
        self.list.extend(offset.to_le_bytes());
        self.list.extend(name.as_bytes());
        Some([b"PK\x03\x04", about.as_slice(), name.as_bytes()].concat())
    }

    /// What comes last.
    pub fn end(self) -> Vec<u8> {
        let mut end = self.list;
        let length = end.len() as u32;
        end.extend(b"PK\x05\x06\0\0\0\0");
        end.extend([self.entries; 2].iter().flat_map(|number| number.to_le_bytes()));
        end.extend(length.to_le_bytes());
        end.extend((self.offset as u32).to_le_bytes());
        end.extend([0, 0]);
        end
    }
}

/// Where the list lies in a file of `length` bytes, of which `tail` is the end: its first byte and its length.
///
/// # Errors
/// See [`ZipError`].
pub fn find_list(tail: &[u8], length: u64) -> Result<(u64, usize), ZipError> {
    let from = tail.windows(END).rposition(|record| record.starts_with(b"PK\x05\x06")).ok_or(ZipError::NoZip)?;
    let [entries, size, offset] = [(10, 2), (12, 4), (16, 4)].map(|(at, bytes)| number(&tail[from..], at, bytes));
    let record = length.checked_sub((tail.len() - from) as u64).ok_or(ZipError::NoZip)?;
    if u64::from(offset) + u64::from(size) > record {
        return Err(ZipError::NoZip);
    }
    if entries as usize > MAX_ENTRIES || size as usize > MAX_LIST_BYTES {
        return Err(ZipError::TooMuch);
    }
    Ok((u64::from(offset), size as usize))
}

/// The entries of a list that begins at `start` in its file. Folders are left out.
///
/// # Errors
/// See [`ZipError`].
pub fn read_list(mut list: &[u8], start: u64) -> Result<Vec<Listed>, ZipError> {
    let mut entries = Vec::new();
    let mut room = start;
    while list.len() >= LISTED {
        if !list.starts_with(b"PK\x01\x02") {
            return Err(ZipError::NoZip);
        }
        let [flags, method, crc, packed, size] =
            [(8, 2), (10, 2), (16, 4), (20, 4), (24, 4)].map(|(at, bytes)| number(list, at, bytes));
        let [name, extra, comment] = [28, 30, 32].map(|at| number(list, at, 2) as usize);
        let offset = u64::from(number(list, 42, 4));
        let next = list.get(LISTED + name + extra + comment..).ok_or(ZipError::NoZip)?;
        let name = String::from_utf8_lossy(&list[LISTED..LISTED + name]).into_owned();
        list = next;
        let bytes = u64::from(packed) + HEADER as u64 + name.len() as u64;
        // Entries that share their bytes would unpack to many times the file.
        room = room.checked_sub(bytes).filter(|_| offset + bytes <= start).ok_or(ZipError::Overlapping)?;
        if name.ends_with('/') {
            continue;
        }
        let method = match method {
            0 if packed == size => Method::Stored,
            8 => Method::Deflated,
            _ => return Err(ZipError::Unusual),
        };
        if flags as u16 & ENCRYPTED != 0 {
            return Err(ZipError::Unusual);
        }
        if size > MAX_ENTRY_BYTES || entries.len() == MAX_ENTRIES {
            return Err(ZipError::TooMuch);
        }
        entries.push(Listed { name, offset, packed, size, crc, method });
    }
    Ok(entries)
}

/// How far behind an entry's header its bytes begin; `header` is the header without name.
///
/// # Errors
/// [`ZipError::NoZip`] if it is none.
pub fn bytes_behind(header: &[u8]) -> Result<u64, ZipError> {
    if header.len() < HEADER || !header.starts_with(b"PK\x03\x04") {
        return Err(ZipError::NoZip);
    }
    Ok((HEADER as u64) + u64::from(number(header, 26, 2)) + u64::from(number(header, 28, 2)))
}

impl Listed {
    /// Whether these are its bytes.
    pub fn is(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.size as usize && crc32(&[bytes]) == self.crc
    }
}

/// A little-endian number that lies within `bytes`.
fn number(bytes: &[u8], at: usize, length: usize) -> u32 {
    bytes[at..at + length].iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte))
}

#[cfg(test)]
mod tests {
    use kosmosg::noise::Rng;

    use super::*;

    fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::default();
        let mut zip = Vec::new();
        for (name, bytes) in files {
            zip.extend(writer.header(name, bytes, [2026, 11, 28, 23, 59, 59]).unwrap());
            zip.extend_from_slice(bytes);
        }
        zip.extend(writer.end());
        zip
    }

    /// Reads it as the page does: the end, the list, and of each entry header and bytes.
    fn read(zip: &[u8]) -> Result<Vec<(String, Vec<u8>)>, ZipError> {
        let (start, length) = find_list(&zip[zip.len().saturating_sub(TAIL)..], zip.len() as u64)?;
        let list = read_list(&zip[start as usize..start as usize + length], start)?;
        let mut files = Vec::new();
        for listed in list {
            let at = listed.offset as usize;
            let behind = bytes_behind(zip.get(at..at + HEADER).ok_or(ZipError::NoZip)?)? as usize;
            let bytes = zip.get(at + behind..at + behind + listed.packed as usize).ok_or(ZipError::NoZip)?;
            if !listed.is(bytes) {
                return Err(ZipError::NoZip);
            }
            files.push((listed.name, bytes.to_vec()));
        }
        Ok(files)
    }

    #[test]
    fn what_is_written_is_read() {
        let files: [(&str, &[u8]); 3] = [("a.png", b"one"), ("ü/猫.png", b""), ("b", &[7; 300])];
        let owned: Vec<_> = files.iter().map(|&(name, bytes)| (name.to_owned(), bytes.to_vec())).collect();
        let zip = zip(&files);
        assert_eq!(read(&zip), Ok(owned));
        // 2026-11-28 23:59:58, as other programs read it.
        assert_eq!(zip[10..14], [0x7d, 0xbf, 0x7c, 0x5d]);
    }

    #[test]
    fn an_empty_zip_has_nothing() {
        assert_eq!(read(&zip(&[])), Ok(Vec::new()));
    }

    #[test]
    fn other_programs_read_it() {
        // Made by Info-ZIP's `zip -0 -X` of a file `a` with the two letters `hi`, and a folder `d/`.
        let foreign = b"PK\x03\x04\x0a\0\0\0\0\0\0\0!\0\xacA\x9d\xd8\x02\0\0\0\x02\0\0\0\x01\0\0\0ahiPK\x03\x04\x0a\0\0\0\0\0\0\0!\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\0\0\0d/PK\x01\x02\x1e\x03\x0a\0\0\0\0\0\0\0!\0\xacA\x9d\xd8\x02\0\0\0\x02\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\xa4\x81\0\0\0\0aPK\x01\x02\x1e\x03\x0a\0\0\0\0\0\0\0!\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\0\0\x10\0\xedA!\0\0\0d/PK\x05\x06\0\0\0\0\x02\0\x02\0_\0\0\0A\0\0\0\0\0";
        let crc = crc32(&[b"hi"]).to_le_bytes();
        let mut foreign = foreign.to_vec();
        for at in [14, 65 + 16] {
            foreign[at..at + 4].copy_from_slice(&crc);
        }
        assert_eq!(read(&foreign), Ok(vec![("a".into(), b"hi".to_vec())]));
    }

    #[test]
    fn hostile_zips_are_refused() {
        let good = zip(&[("a", &[1; 100]), ("b", &[2; 100])]);
        let (start, length) = find_list(&good, good.len() as u64).unwrap();
        let listed = |at: usize, bytes: &[u8]| {
            let mut list = good[start as usize..start as usize + length].to_vec();
            list[at..at + bytes.len()].copy_from_slice(bytes);
            read_list(&list, start)
        };
        assert_eq!(listed(8, &[1]), Err(ZipError::Unusual), "encrypted");
        assert_eq!(listed(10, &[12]), Err(ZipError::Unusual), "bzip2");
        assert_eq!(listed(20, &[150, 0, 0, 0, 150]), Err(ZipError::Overlapping));
        assert_eq!(listed(42, &[0xff, 0xff, 0, 0]), Err(ZipError::Overlapping));
        assert_eq!(
            listed(10, &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
            Err(ZipError::TooMuch)
        );
        assert_eq!(listed(0, b"XX"), Err(ZipError::NoZip));
        assert_eq!(listed(28, &[0xff, 0xff]), Err(ZipError::NoZip));
        // Entries that all are the same bytes.
        let list = good[start as usize..start as usize + length / 2].repeat(50);
        assert_eq!(read_list(&list, start), Err(ZipError::Overlapping));
        assert_eq!(find_list(b"", 0), Err(ZipError::NoZip));
        assert_eq!(find_list(&[0; TAIL], 1 << 40), Err(ZipError::NoZip));
        let mut many = Writer::default();
        for _ in 0..u16::MAX {
            many.header("", b"", [0; 6]).unwrap();
        }
        assert_eq!(many.header("", b"", [0; 6]), None);
        let end = many.end();
        assert_eq!(find_list(&end[end.len() - END..], 1 << 30), Err(ZipError::TooMuch));
    }

    #[test]
    fn whatever_happens_to_a_zip_it_is_read_or_refused() {
        let good = zip(&[("a.png", &[1; 40]), ("gallery.json", b"[]")]);
        let whole = read(&good).unwrap();
        let mut rng = Rng::new(4, 0);
        for _ in 0..5000 {
            let mut changed = good.clone();
            for _ in 0..=rng.below(3) {
                changed[rng.below(good.len())] = rng.below(256) as u8;
            }
            changed.truncate(good.len() - rng.below(2) * rng.below(60));
            if let Ok(files) = read(&changed) {
                assert!(files.iter().all(|(_, bytes)| whole.iter().any(|(_, known)| known == bytes)));
            }
        }
    }
}
