//! Reading picture files that may be anything.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use super::{Picture, jpeg};

/// Why there is no picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// The file has no bytes.
    #[error("the picture file is empty")]
    Empty,
    /// The file does not begin like any picture.
    #[error("this is not a picture file: PNG, JPEG and WebP can be read")]
    Unknown,
    /// It is a picture in another format.
    #[error("the picture's format is {0}, and only PNG, JPEG and WebP can be read: convert it first")]
    Unsupported(&'static str),
    /// The file says that it holds more pixels than are allowed.
    #[error(
        "the {format} picture says that it is {width} x {height}, and at most {max_pixels} pixels are allowed: make it \
         smaller first"
    )]
    TooLarge {
        /// Name of the format.
        format: &'static str,
        /// Pixels in a row.
        width: u32,
        /// Number of rows.
        height: u32,
        /// Allowed number of pixels.
        max_pixels: u64,
    },
    /// The file is cut off, or what it holds is not what it says.
    #[error("the {format} picture is damaged: {reason}")]
    Damaged {
        /// Name of the format.
        format: &'static str,
        /// What the decoder met.
        reason: String,
    },
    /// Width, height and number of bytes do not fit each other, or one of them is 0.
    #[error("{bytes} bytes are no RGB picture of {width} x {height}")]
    Size {
        /// Pixels in a row.
        width: u32,
        /// Number of rows.
        height: u32,
        /// Number of bytes.
        bytes: usize,
    },
}

impl Picture {
    /// Pixels that a file may hold: 64 million.
    pub const MAX_PIXELS: u64 = 64_000_000;

    /// Reads a PNG, JPEG or WebP file of any colour type, turned as its EXIF says, transparency on white.
    ///
    /// # Errors
    /// When the file is none of these, is damaged, or says that it holds more than [`Picture::MAX_PIXELS`].
    pub fn decode(bytes: &[u8]) -> Result<Self, PictureError> {
        Self::decode_within(bytes, Self::MAX_PIXELS)
    }

    /// Like [`Picture::decode`], with another limit. It is checked before any pixel is decoded.
    ///
    /// # Errors
    /// As for [`Picture::decode`].
    pub fn decode_within(bytes: &[u8], max_pixels: u64) -> Result<Self, PictureError> {
        if bytes.is_empty() {
            return Err(PictureError::Empty);
        }
        let format = image::guess_format(bytes).map_err(|_| PictureError::Unknown)?;
        let name = format_name(format);
        if !matches!(format, ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP) {
            return Err(PictureError::Unsupported(name));
        }
        let damaged = |reason: String| PictureError::Damaged { format: name, reason };
        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        let mut limits = Limits::no_limits();
        // The widest pixel has four times 16 bits; the decoders' own buffers come on top.
        limits.max_alloc = Some(max_pixels.saturating_mul(8).saturating_add(64 << 20));
        reader.limits(limits);
        let mut decoder = reader.into_decoder().map_err(|error| damaged(reason(&error)))?;
        let (width, height) = decoder.dimensions();
        if u64::from(width) * u64::from(height) > max_pixels {
            return Err(PictureError::TooLarge { format: name, width, height, max_pixels });
        }
        // A picture with damaged EXIF is still a picture.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mut image = match format {
            ImageFormat::Jpeg => jpeg::decode(bytes, width, height).map_err(damaged)?.into(),
            _ => DynamicImage::from_decoder(decoder).map_err(|error| damaged(reason(&error)))?,
        };
        image.apply_orientation(orientation);
        let rgb = on_white(image);
        Self::new(rgb.width(), rgb.height(), rgb.into_raw())
    }
}

/// 8 bits of red, green and blue, transparent pixels mixed with white.
fn on_white(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let rgba = image.into_rgba8();
    let mix = |value: u8, alpha: u8| {
        let sum = u32::from(value) * u32::from(alpha) + 255 * (255 - u32::from(alpha));
        ((sum + 127) / 255) as u8
    };
    RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [red, green, blue, alpha] = rgba.get_pixel(x, y).0;
        image::Rgb([red, green, blue].map(|value| mix(value, alpha)))
    })
}

fn reason(error: &image::ImageError) -> String {
    match error {
        image::ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "it is cut off: it ends too early".into()
        }
        error => error.to_string(),
    }
}

fn format_name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        ImageFormat::Avif => "AVIF",
        ImageFormat::Ico => "ICO",
        ImageFormat::Pnm => "PNM",
        ImageFormat::Dds => "DDS",
        ImageFormat::Hdr => "HDR",
        ImageFormat::OpenExr => "OpenEXR",
        ImageFormat::Farbfeld => "farbfeld",
        ImageFormat::Qoi => "QOI",
        _ => "another one",
    }
}

#[cfg(test)]
mod tests {
    use image::codecs::jpeg::JpegEncoder;
    use image::codecs::webp::WebPEncoder;
    use image::{ExtendedColorType, ImageEncoder};

    use super::*;

    /// Three pixels by two, encoded as PNG in the given form.
    fn png(
        color: png::ColorType,
        depth: png::BitDepth,
        data: &[u8],
        more: &dyn Fn(&mut png::Encoder<&mut Vec<u8>>),
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 3, 2);
        encoder.set_color(color);
        encoder.set_depth(depth);
        more(&mut encoder);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(data).unwrap();
        writer.finish().unwrap();
        bytes
    }

    fn smooth(width: u32, height: u32) -> Picture {
        let row =
            |y: u32| (0..width).flat_map(move |x| [x * 255 / width, y * 255 / height, 128].map(|value| value as u8));
        Picture::new(width, height, (0..height).flat_map(row).collect()).unwrap()
    }

    fn jpeg(picture: &Picture, exif: Option<Vec<u8>>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 95);
        if let Some(exif) = exif {
            encoder.set_exif_metadata(exif).unwrap();
        }
        encoder.encode(&picture.rgb, picture.width, picture.height, ExtendedColorType::Rgb8).unwrap();
        bytes
    }

    fn webp(picture: &Picture) -> Vec<u8> {
        let mut bytes = Vec::new();
        let encoder = WebPEncoder::new_lossless(&mut bytes);
        encoder.write_image(&picture.rgb, picture.width, picture.height, ExtendedColorType::Rgb8).unwrap();
        bytes
    }

    /// A little-endian TIFF directory with nothing but the orientation.
    fn exif(orientation: u8) -> Vec<u8> {
        let entry = [0x12, 0x01, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0];
        [&b"II*\0\x08\0\0\0\x01\0"[..], &entry, &[0; 4]].concat()
    }

    #[test]
    fn every_colour_type_of_png_is_read() {
        use png::{BitDepth, ColorType};
        let plain = |_: &mut png::Encoder<&mut Vec<u8>>| {};
        let grey: Vec<u8> = [0, 50, 100, 150, 200, 255].into_iter().flat_map(|value| [value; 3]).collect();
        let decoded = |bytes: Vec<u8>| Picture::decode(&bytes).unwrap().rgb;

        assert_eq!(decoded(png(ColorType::Rgb, BitDepth::Eight, &grey, &plain)), grey);
        assert_eq!(decoded(png(ColorType::Grayscale, BitDepth::Eight, &[0, 50, 100, 150, 200, 255], &plain)), grey);
        let sixteen: Vec<u8> = grey.iter().flat_map(|&value| [value, value]).collect();
        assert_eq!(decoded(png(ColorType::Rgb, BitDepth::Sixteen, &sixteen, &plain)), grey);
        let bits = decoded(png(ColorType::Grayscale, BitDepth::One, &[0b1010_0000, 0b0100_0000], &plain));
        assert_eq!(bits, [255, 0, 255, 0, 255, 0].map(|value| [value; 3]).concat());

        let palette = |encoder: &mut png::Encoder<&mut Vec<u8>>| {
            encoder.set_palette(vec![255, 0, 0, 0, 0, 255]);
            encoder.set_trns(vec![255, 0]);
        };
        let indexed = decoded(png(ColorType::Indexed, BitDepth::Eight, &[0, 1, 0, 1, 0, 1], &palette));
        assert_eq!(indexed, [[255, 0, 0], [255; 3]].repeat(3).concat());
    }

    #[test]
    fn transparency_lies_on_white() {
        use png::{BitDepth, ColorType};
        let pixels = [[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128], [255, 0, 0, 51], [255; 4], [0; 4]].concat();
        let bytes = png(ColorType::Rgba, BitDepth::Eight, &pixels, &|_| {});
        let expected = [[10, 20, 30], [255; 3], [127; 3], [255, 204, 204], [255; 3], [255; 3]].concat();
        assert_eq!(Picture::decode(&bytes).unwrap().rgb, expected);

        let pixels = [[0, 255], [0, 0], [100, 255], [100, 0], [0, 51], [255, 51]].concat();
        let bytes = png(ColorType::GrayscaleAlpha, BitDepth::Eight, &pixels, &|_| {});
        let expected = [0, 255, 100, 255, 204, 255].map(|value| [value; 3]).concat();
        assert_eq!(Picture::decode(&bytes).unwrap().rgb, expected);
    }

    #[test]
    fn jpeg_and_webp_are_read_and_turned() {
        let picture = smooth(48, 32);
        assert_eq!(Picture::decode(&webp(&picture)).unwrap(), picture);
        let upright = Picture::decode(&jpeg(&picture, None)).unwrap();
        assert!(upright.psnr(&picture) > 35.0, "{}", upright.psnr(&picture));

        // 6: the camera was turned, so that the left edge of the file is the upper one of the picture.
        let turned = Picture::decode(&jpeg(&picture, Some(exif(6)))).unwrap();
        assert_eq!((turned.width, turned.height), (32, 48));
        assert_eq!(turned.rgb[..3], upright.rgb[3 * 48 * 31..][..3]);
        let mirrored = Picture::decode(&jpeg(&picture, Some(exif(2)))).unwrap();
        assert_eq!(mirrored.rgb[..3], upright.rgb[3 * 47..][..3]);
        let damaged = Picture::decode(&jpeg(&picture, Some(exif(99)))).unwrap();
        assert_eq!(damaged, upright);
    }

    #[test]
    fn a_cut_off_file_is_an_error_at_every_byte() {
        let picture = smooth(17, 13);
        let with_thumbnail = [&exif(1)[..], &[0xff, 0xd8, 0xff, 0xd9]].concat();
        for (format, bytes) in [
            ("PNG", picture.to_png(None)),
            ("JPEG", jpeg(&picture, None)),
            ("JPEG", jpeg(&picture, Some(with_thumbnail))),
            ("WebP", webp(&picture)),
        ] {
            assert!(Picture::decode(&bytes).is_ok());
            for length in 0..bytes.len() {
                match Picture::decode(&bytes[..length]) {
                    Err(PictureError::Empty) => assert_eq!(length, 0),
                    Err(PictureError::Unknown) => assert!(length < 12, "{format} {length}"),
                    Err(PictureError::Damaged { format: found, .. }) => assert_eq!(found, format),
                    // Everything but the end marker is there.
                    Ok(cut) => assert!(format == "PNG" && length + 12 >= bytes.len() && cut == picture, "{length}"),
                    Err(error) => panic!("{format} cut off at {length}: {error}"),
                }
            }
        }
    }

    #[test]
    fn damaged_files_never_panic() {
        let picture = smooth(17, 13);
        for bytes in [picture.to_png(None), jpeg(&picture, Some(exif(6))), webp(&picture)] {
            for index in 0..bytes.len() {
                for flip in [1, 0x80, 0xff] {
                    let mut bytes = bytes.clone();
                    bytes[index] ^= flip;
                    // Some changes are harmless; here only that it returns counts.
                    let _ = Picture::decode_within(&bytes, 1 << 20);
                }
            }
        }
    }

    #[test]
    fn a_header_that_lies_is_an_error() {
        let mut bytes = jpeg(&smooth(32, 32), None);
        let header = bytes.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
        bytes[header + 6] = 200;
        let error = Picture::decode(&bytes).unwrap_err();
        assert!(matches!(error, PictureError::Damaged { format: "JPEG", .. }), "{error}");

        let error = Picture::decode(&png_header(4000, 4000)).unwrap_err();
        assert!(matches!(error, PictureError::Damaged { format: "PNG", .. }), "{error}");
    }

    #[test]
    fn a_bomb_is_refused_by_its_header() {
        let error = Picture::decode(&png_header(60_000, 60_000)).unwrap_err().to_string();
        let expected = "the PNG picture says that it is 60000 x 60000, and at most 64000000 pixels are allowed: make it \
                        smaller first";
        assert_eq!(error, expected);

        let mut bytes = jpeg(&smooth(32, 32), None);
        let header = bytes.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
        bytes[header + 5..header + 9].fill(0xff);
        assert!(matches!(Picture::decode(&bytes), Err(PictureError::TooLarge { width: 65_535, .. })));
        assert!(matches!(
            Picture::decode_within(&smooth(32, 32).to_png(None), 1000),
            Err(PictureError::TooLarge { max_pixels: 1000, .. })
        ));
    }

    /// A PNG file that has pixels for the first rows only.
    fn png_header(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().unwrap();
        writer.write_chunk(png::chunk::IDAT, &[0x78, 0x9c, 1, 1, 0, 0xfe, 0xff, 0]).unwrap();
        drop(writer);
        bytes
    }

    #[test]
    fn other_files_are_named() {
        let message = |bytes: &[u8]| Picture::decode(bytes).unwrap_err().to_string();
        assert_eq!(message(b""), "the picture file is empty");
        assert!(message(b"x").contains("not a picture file"));
        assert!(message(b"<svg></svg>").contains("not a picture file"));
        assert!(message(b"GIF89a\x01\0\x01\0").contains("format is GIF"));
        assert!(message(b"\0\0\0\x1cftypavif\0\0\0\0").contains("format is AVIF"));
    }
}
