//! Picture files by their first bytes: what a file is called, and what a browser says of it, may be wrong.

use kosmosg::picture::Picture;

/// The formats that the model reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
    /// WebP.
    WebP,
}

impl Format {
    /// The format of a file. `None` for any other.
    pub fn of(file: &[u8]) -> Option<Self> {
        match file {
            [0x89, b'P', b'N', b'G', ..] => Some(Self::Png),
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::WebP),
            _ => None,
        }
    }

    /// Its name in the browser.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::WebP => "image/webp",
        }
    }
}

/// Whether a file may be decoded: it is of a format that the model reads, and not too large.
pub fn is_admitted(file: &[u8]) -> bool {
    Format::of(file).is_some() && !is_too_large(file)
}

/// Whether a file says that it holds more pixels than are decoded. A small file may say so, and a browser would try.
pub fn is_too_large(file: &[u8]) -> bool {
    size(file).is_some_and(|(width, height)| u64::from(width) * u64::from(height) > Picture::MAX_PIXELS)
}

/// Width and height as the file says, if it does so where they are expected.
fn size(file: &[u8]) -> Option<(u32, u32)> {
    match Format::of(file)? {
        Format::Png => Some((big_endian(file, 16, 4)?, big_endian(file, 20, 4)?)),
        Format::Jpeg => jpeg_size(file),
        Format::WebP => webp_size(file),
    }
}

fn jpeg_size(file: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        let marker = big_endian(file, at, 2)?;
        match marker {
            // A frame: all of these but three that only look like it.
            0xffc0..=0xffcf if !matches!(marker, 0xffc4 | 0xffc8 | 0xffcc) => {
                return Some((big_endian(file, at + 7, 2)?, big_endian(file, at + 5, 2)?));
            }
            // Fill bytes before a marker.
            0xffff => at += 1,
            0xff01..=0xfffe => at += 2 + big_endian(file, at + 2, 2)? as usize,
            _ => return None,
        }
    }
}

fn webp_size(file: &[u8]) -> Option<(u32, u32)> {
    let byte = |at: usize| file.get(at).map(|&byte| u32::from(byte));
    let word = |at: usize| Some(byte(at)? | byte(at + 1)? << 8);
    match file.get(12..16)? {
        b"VP8 " => Some((word(26)? & 0x3fff, word(28)? & 0x3fff)),
        b"VP8L" => {
            let bits = word(21)? | word(23)? << 16;
            Some(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
        }
        b"VP8X" => Some(((word(24)? | byte(26)? << 16) + 1, (word(27)? | byte(29)? << 16) + 1)),
        _ => None,
    }
}

fn big_endian(file: &[u8], at: usize, bytes: usize) -> Option<u32> {
    Some(file.get(at..at + bytes)?.iter().fold(0, |sum, &byte| sum << 8 | u32::from(byte)))
}

#[cfg(test)]
mod tests {
    use kosmosg::noise::Rng;

    use super::*;

    /// The beginning of a JPEG file: a comment, fill bytes, a table, and the frame.
    fn jpeg(width: u16, height: u16) -> Vec<u8> {
        let table = [&[0xff, 0xc4, 0, 5][..], &[1, 2, 3]].concat();
        let comment = [&[0xff, 0xfe, 0, 6][..], b"\xff\xc0xx"].concat();
        let frame = [&[0xff, 0xc2, 0, 11, 8][..], &height.to_be_bytes(), &width.to_be_bytes(), &[1, 1, 17, 0]].concat();
        [&[0xff, 0xd8][..], &comment, &[0xff, 0xff], &table, &frame].concat()
    }

    fn webp(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        [b"RIFF\0\0\0\0WEBP", &kind[..], &[0; 4], data].concat()
    }

    #[test]
    fn files_say_how_large_they_are() {
        let png = Picture::new(3, 2, vec![0; 18]).unwrap().to_png(None);
        assert_eq!((Format::of(&png), size(&png)), (Some(Format::Png), Some((3, 2))));
        assert_eq!(size(&jpeg(4000, 3000)), Some((4000, 3000)));
        let lossy = webp(b"VP8 ", &[0, 0, 0, 0x9d, 1, 0x2a, 0x40, 1, 0xf0, 0]);
        assert_eq!((Format::of(&lossy), size(&lossy)), (Some(Format::WebP), Some((320, 240))));
        let lossless: u32 = 319 | 239 << 14;
        assert_eq!(size(&webp(b"VP8L", &[&[0x2f][..], &lossless.to_le_bytes()].concat())), Some((320, 240)));
        assert_eq!(size(&webp(b"VP8X", &[0, 0, 0, 0, 0x3f, 1, 0, 0xef, 0, 0])), Some((320, 240)));
    }

    #[test]
    fn what_is_no_picture_has_no_format() {
        for file in [&b""[..], b"this is no picture", b"GIF89a", b"RIFF1234WAVE"] {
            assert_eq!((Format::of(file), is_too_large(file)), (None, false));
        }
    }

    #[test]
    fn a_small_file_that_speaks_of_many_pixels_is_found_out() {
        assert!(is_too_large(&jpeg(30_000, 30_000)) && !is_too_large(&jpeg(4000, 3000)));
        let png = Picture::new(1, 1, vec![0; 3]).unwrap().to_png(None);
        let lie = [&png[..16], &[0, 1, 0, 0, 0, 1, 0, 0], &png[24..]].concat();
        assert!(is_too_large(&lie) && !is_too_large(&png));
    }

    #[test]
    fn damaged_files_never_panic() {
        let mut rng = Rng::new(4, 0);
        let files = [jpeg(10, 10), webp(b"VP8X", &[0; 10]), webp(b"VP8L", &[9; 5])];
        for _ in 0..5000 {
            let mut file = rng.pick(&files).clone();
            for _ in 0..1 + rng.below(3) {
                let at = rng.below(file.len());
                file[at] = rng.below(256) as u8;
            }
            file.truncate(rng.below(file.len() + 1));
            let _ = is_too_large(&file);
        }
    }
}
