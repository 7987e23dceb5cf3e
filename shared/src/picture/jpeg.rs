//! JPEG files, strictly: where something is missing the `image` crate fills in grey, here it is an error.

use std::io::Cursor;

use image::RgbImage;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// The pixels of a JPEG file whose header says `width` and `height`.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn decode(bytes: &[u8], width: u32, height: u32) -> Result<RgbImage, String> {
    let scans = Scans::find(bytes).ok_or("it is cut off: its end marker is missing")?;
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(width as usize)
        .set_max_height(height as usize)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    // Behind an end marker the decoder makes up zeros for as many rows as the header promises. Where the file just ends,
    // it complains, but some bytes early since it reads ahead.
    let unmarked;
    let bytes = if scans.are_progressive {
        bytes
    } else {
        unmarked = [&bytes[..scans.end], &[0; 16]].concat();
        &unmarked
    };
    let pixels = JpegDecoder::new_with_options(Cursor::new(bytes), options).decode();
    let pixels = pixels.map_err(|error| format!("{error:?}"))?;
    RgbImage::from_raw(width, height, pixels).ok_or("it holds another number of pixels than it says".into())
}

/// Where the compressed pixels of a file end.
struct Scans {
    /// Position of the end marker behind the first scan; the one of an EXIF thumbnail does not count.
    end: usize,
    /// Whether there are several scans, each of which refines the whole picture.
    are_progressive: bool,
}

impl Scans {
    /// None when the file has no first scan or no end.
    fn find(bytes: &[u8]) -> Option<Self> {
        const PROGRESSIVE_FRAME: u8 = 0xc2;
        const START_OF_SCAN: u8 = 0xda;
        const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];
        let (mut at, mut are_progressive) = (2, false);
        loop {
            match *bytes.get(at..)? {
                [0xff, START_OF_SCAN, ref scan @ ..] => {
                    let end = at + 2 + scan.windows(2).position(|marker| marker == END_OF_IMAGE)?;
                    return Some(Self { end, are_progressive });
                }
                [0xff, marker, high, low, ..] if marker != 0xff => {
                    are_progressive |= marker == PROGRESSIVE_FRAME;
                    at += 2 + usize::from(u16::from_be_bytes([high, low]));
                }
                // Filling between two segments.
                [_, ..] => at += 1,
                [] => return None,
            }
        }
    }
}
