//! How a picture looks while it is being made: a linear guess at the autoencoder, one pixel per latent, for almost nothing.

use serde::{Deserialize, Serialize};

use crate::picture::Picture;

/// From a latent to a pixel: `rgb = bias + Σ latent[c] · weights[c]`, where −1 is black and 1 full brightness.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PreviewFactors {
    /// What each channel of the latents, as the U-Net sees them, adds to red, green and blue.
    pub weights: Vec<[f32; 3]>,
    /// Red, green and blue of a latent of zeros.
    #[serde(default)]
    pub bias: [f32; 3],
}

impl PreviewFactors {
    /// The widely used fit to Stable Diffusion 1's autoencoder.
    pub fn stable_diffusion() -> Self {
        let weights = vec![
            [0.3512, 0.2297, 0.3227],
            [0.3250, 0.4974, 0.2350],
            [-0.2829, 0.1762, 0.2721],
            [-0.2120, -0.2616, -0.7177],
        ];
        Self { weights, bias: [0.0; 3] }
    }

    /// The picture of latents `[C, H, W]`, `W` × `H` pixels; `None` if these factors are for another number of channels.
    ///
    /// # Panics
    /// If there are not `C · H · W` latents.
    pub fn picture(&self, latents: &[f32], [channels, height, width]: [usize; 3]) -> Option<Picture> {
        assert_eq!(latents.len(), channels * height * width, "latents of {channels} × {height} × {width}");
        if channels != self.weights.len() {
            return None;
        }
        let plane = height * width;
        let pixel = |index: usize| {
            [0, 1, 2].map(|color| {
                let channels = latents.iter().skip(index).step_by(plane).zip(&self.weights);
                let value = channels.fold(self.bias[color], |sum, (latent, weights)| sum + latent * weights[color]);
                ((value + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8
            })
        };
        let rgb = (0..plane).flat_map(pixel).collect();
        Picture::new(width as u32, height as u32, rgb).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_latent_is_a_pixel() {
        let factors = PreviewFactors { weights: vec![[1.0, 0.0, 0.5], [0.0, -1.0, 0.5]], bias: [0.0, 0.0, -0.5] };
        let latents = [0.0, 1.0, -9.0, 0.0, 1.0, 0.5];
        let picture = factors.picture(&latents, [2, 1, 3]).unwrap();
        assert_eq!((picture.width(), picture.height()), (3, 1));
        assert_eq!(picture.rgb(), [128, 128, 64, 255, 0, 191, 0, 64, 0]);
        assert_eq!(PreviewFactors::stable_diffusion().picture(&latents, [2, 1, 3]), None);
    }
}
