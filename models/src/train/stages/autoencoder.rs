//! The trained autoencoder, as later stages use it.

use anyhow::Context as _;
use kosmosg::config::VaeConfig;
use kosmosg::engine::Tensor;
use kosmosg::engine::burn::Burn;
use kosmosg::vae::{VaeDecoder, VaeEncoder};

use super::Shared;
use crate::train::Stage;

/// Name of the file that stage 0a leaves its configuration in, with the measured `scaling_factor`.
pub(in crate::train) const VAE_CONFIG: &str = "config.json";

/// Whether a parameter of stage 0a takes part in making latents. The others only bring them back.
pub(in crate::train) fn makes_latents(name: &str) -> bool {
    name.starts_with("vae.encoder.") || name.starts_with("vae.quant_conv.")
}

/// Stage 0a's result, frozen.
pub(in crate::train) struct Autoencoder {
    encoder: VaeEncoder<Burn>,
    decoder: VaeDecoder<Burn>,
    config: VaeConfig,
    shared: Shared,
}

impl Autoencoder {
    /// Reads stage 0a's result.
    pub fn new(shared: &Shared) -> anyhow::Result<Self> {
        let config = vae_config(&shared.run)?;
        let (encoder, decoder) = shared.frozen(Stage::Vae)?.build(|weights| {
            let weights = weights.at("vae");
            Ok((VaeEncoder::new(&weights, &config)?, VaeDecoder::new(&weights, &config)?))
        })?;
        Ok(Self { encoder, decoder, config, shared: shared.clone() })
    }

    /// Channels, height and width of a picture's latents.
    pub fn latent_shape(&self) -> [usize; 3] {
        let side = self.shared.config.picture_size / self.config.downscale();
        [self.config.latent_channels, side, side]
    }

    /// Numbers in a picture's latents.
    pub fn latent_len(&self) -> usize {
        self.latent_shape().iter().product()
    }

    /// Pixels `[B, 3, S, S]`, row-major, to scaled latents `[B, C, H, W]`.
    pub fn latents(&self, pixels: Vec<f32>) -> Tensor<Burn, 4> {
        self.encoder.latents(self.shared.pixels(pixels, self.shared.config.picture_size))
    }

    /// Scaled latents `[B, C, H, W]` to pictures `[B, 3, S, S]`.
    pub fn decode(&self, latents: Tensor<Burn, 4>) -> Tensor<Burn, 4> {
        self.decoder.forward(latents)
    }
}

/// The autoencoder's configuration with the measured `scaling_factor`.
pub(in crate::train) fn vae_config(run: &std::path::Path) -> anyhow::Result<VaeConfig> {
    let path = run.join(Stage::Vae.name()).join(VAE_CONFIG);
    let json = std::fs::read(&path)
        .with_context(|| format!("stage {} is not trained yet: cannot read {}", Stage::Vae.name(), path.display()))?;
    serde_json::from_slice(&json).with_context(|| format!("{} is damaged", path.display()))
}
