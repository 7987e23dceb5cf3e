//! Pictures: from files to the numbers that networks take, and back.

pub use decode::PictureError;
pub use recipe::{Recipe, RecipeError, version};
pub use resize::Filter;

mod decode;
mod jpeg;
mod recipe;
mod resize;

/// A picture in 8-bit RGB, never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    /// Row by row, `3 · width · height` bytes.
    rgb: Vec<u8>,
}

impl Picture {
    /// A picture of the bytes, red, green and blue for each pixel, row by row.
    ///
    /// # Errors
    /// [`PictureError::Size`] unless there are `3 · width · height` bytes, and at least one pixel.
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self, PictureError> {
        if rgb.is_empty() || rgb.len() as u128 != 3 * u128::from(width) * u128::from(height) {
            return Err(PictureError::Size { width, height, bytes: rgb.len() });
        }
        Ok(Self { width, height, rgb })
    }

    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Number of rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Red, green and blue of each pixel, row by row.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The middle square after the shorter side was resized to `size` pixels.
    ///
    /// # Panics
    /// When `size` is 0.
    pub fn square(&self, size: u32, filter: Filter) -> Picture {
        self.covering([size; 2], filter)
    }

    /// The middle of the picture, `[width, height]`, after it was resized so that it covers just that.
    ///
    /// # Panics
    /// When `width` or `height` is 0.
    pub fn covering(&self, size: [u32; 2], filter: Filter) -> Picture {
        assert!(!size.contains(&0), "a picture has at least one pixel");
        resize::cover(self, size, filter)
    }

    /// The vision tower's input `[3, size, size]`, reference section 3.
    pub fn pixels_for_encoder(&self, size: u32) -> Vec<f32> {
        const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
        const STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];
        self.square(size, Filter::Bicubic).normalized(MEAN, STD)
    }

    /// The VAE's input `[3, size, size]` in -1…1, reference section 3.
    pub fn pixels_for_vae(&self, size: u32) -> Vec<f32> {
        self.square(size, Filter::Bilinear).normalized([0.5; 3], [0.5; 3])
    }

    /// A ControlNet's hint `[3, height, width]` in 0…1: the middle after the picture was resized to cover that.
    ///
    /// # Panics
    /// When `height` or `width` is 0.
    pub fn pixels_for_controlnet(&self, [height, width]: [u32; 2]) -> Vec<f32> {
        self.covering([width, height], Filter::Bilinear).normalized([0.0; 3], [1.0; 3])
    }

    /// The picture of the VAE's output `[3, H, W]`; what lies outside -1…1 is clipped.
    ///
    /// # Panics
    /// When there are not `3 · width · height` values, or none.
    pub fn from_vae(pixels: &[f32], width: u32, height: u32) -> Self {
        let plane = width as usize * height as usize;
        assert!(plane > 0 && pixels.len() == 3 * plane, "{} values for {width} x {height}", pixels.len());
        let byte = |value: f32| ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
        let rgb = (0..plane).flat_map(|index| [0, 1, 2].map(|channel| byte(pixels[channel * plane + index]))).collect();
        Self { width, height, rgb }
    }

    /// A PNG file, with the recipe of the picture inside where there is one.
    pub fn to_png(&self, recipe: Option<&Recipe>) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_png(&mut bytes, recipe).expect("a picture of the right size is always written to memory");
        bytes
    }

    /// Peak signal-to-noise ratio against a picture of the same size, in dB; infinite for an equal one.
    ///
    /// # Panics
    /// When the sizes differ.
    pub fn psnr(&self, other: &Self) -> f64 {
        let size = |picture: &Self| (picture.width, picture.height);
        assert_eq!(size(self), size(other), "pictures of different sizes cannot be compared");
        let squares = self.rgb.iter().zip(&other.rgb).map(|(&a, &b)| f64::from(a.abs_diff(b)).powi(2));
        let mean = squares.sum::<f64>() / self.rgb.len() as f64;
        10.0 * (255.0 * 255.0 / mean).log10()
    }

    /// `[3, H, W]` of `(x / 255 - mean) / std`.
    fn normalized(&self, mean: [f32; 3], std: [f32; 3]) -> Vec<f32> {
        let channel = |channel: usize| {
            let values = self.rgb.iter().skip(channel).step_by(3);
            values.map(move |&value| (f32::from(value) / 255.0 - mean[channel]) / std[channel])
        };
        (0..3).flat_map(channel).collect()
    }

    fn write_png(&self, bytes: &mut Vec<u8>, recipe: Option<&Recipe>) -> Result<(), png::EncodingError> {
        let mut encoder = png::Encoder::new(bytes, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        if let Some(recipe) = recipe {
            recipe.write(&mut encoder)?;
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.rgb)?;
        writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        assert!(Picture::new(2, 2, vec![0; 12]).is_ok());
        for (width, height, bytes) in [(0, 0, 0), (2, 2, 11), (0, 5, 0), (u32::MAX, u32::MAX, 3)] {
            let error = Picture::new(width, height, vec![0; bytes]).unwrap_err();
            assert_eq!(error, PictureError::Size { width, height, bytes });
        }
    }

    #[test]
    fn the_networks_see_channels_first() {
        let picture = Picture::new(2, 2, vec![255, 0, 51, 255, 0, 51, 255, 0, 51, 255, 0, 51]).unwrap();
        let vae = picture.pixels_for_vae(2);
        assert_eq!(vae, [[1.0; 4], [-1.0; 4], [-0.6; 4]].concat());
        assert_eq!(Picture::from_vae(&vae, 2, 2), picture);
        assert_eq!(Picture::from_vae(&[7.0, -7.0, f32::NAN], 1, 1).rgb, [255, 0, 0]);
        let encoder = picture.pixels_for_encoder(2);
        assert!((encoder[0] - 1.930_336_3).abs() < 1e-6 && (encoder[4] + 1.752_097_3).abs() < 1e-6);
    }

    #[test]
    fn psnr_is_in_decibels() {
        let black = Picture::new(2, 1, vec![0; 6]).unwrap();
        let grey = Picture::new(2, 1, vec![0, 0, 0, 0, 0, 6]).unwrap();
        assert_eq!(black.psnr(&black), f64::INFINITY);
        assert!((black.psnr(&grey) - 10.0 * (255.0f64 * 255.0 / 6.0).log10()).abs() < 1e-12);
    }
}
