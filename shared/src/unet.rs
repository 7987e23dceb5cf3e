//! The denoiser: Stable Diffusion's U-Net, `UNet2DConditionModel` of diffusers with the block types of version 1.5.
//!
//! Source: *High-Resolution Image Synthesis with Latent Diffusion Models*, arXiv 2112.10752; weights in diffusers' names.

use crate::config::{UNetConfig, UpBlockType};
use crate::engine::{Engine, Tensor};
use crate::weights::{Conv2d, GroupNorm, WeightError, Weights};

pub use encoder::{Encoded, UNetEncoder};
use level::{Level, LevelSizes, Scale};
pub(crate) use resnet::ResnetBlock;

mod encoder;
mod level;
mod resnet;
mod transformer;

/// The U-Net.
#[derive(Debug, Clone)]
pub struct UNet<E: Engine> {
    encoder: UNetEncoder<E>,
    up_blocks: Vec<Level<E>>,
    conv_norm_out: GroupNorm<E>,
    conv_out: Conv2d<E>,
}

impl<E: Engine> UNet<E> {
    /// Reads the U-Net.
    ///
    /// # Errors
    /// A [`WeightError`] that names the tensor.
    pub fn new(weights: &Weights<'_, E>, config: &UNetConfig) -> Result<Self, WeightError> {
        let channels = &config.block_out_channels;
        let levels = channels.len();
        let mut up_blocks = Vec::with_capacity(levels);
        for (i, kind) in config.up_block_types.iter().enumerate() {
            let level = levels - 1 - i;
            let output = channels[level];
            let below = channels[(level + 1).min(levels - 1)];
            let skipped = channels[level.saturating_sub(1)];
            // Each block takes what comes from before it and one skip connection; the last skip is the finer level's.
            let layers = config.layers_per_block.at(level);
            let inputs = (0..=layers).map(|layer| {
                let from_before = if layer == 0 { below } else { output };
                from_before + if layer == layers { skipped } else { output }
            });
            let sizes = LevelSizes {
                inputs: inputs.collect(),
                output,
                heads: (*kind == UpBlockType::CrossAttnUpBlock2D).then(|| config.attention_head_dim.at(level)),
                scale: if level > 0 { Scale::Up } else { Scale::Keep },
            };
            up_blocks.push(Level::new(&weights.at(format_args!("up_blocks.{i}")), config, &sizes)?);
        }
        Ok(Self {
            encoder: UNetEncoder::new(weights, config)?,
            up_blocks,
            conv_norm_out: weights.group_norm("conv_norm_out", config.norm_num_groups, channels[0], config.norm_eps)?,
            conv_out: weights.conv3x3("conv_out", [channels[0], config.out_channels])?,
        })
    }

    /// The prediction, `[B, C, H, W]`, for noisy latents `sample` `[B, C, H, W]`, one timestep (0…999, fractions allowed)
    /// per row of the batch, and a condition `[B, T, D]`. `extra`, a [`ControlNet`](crate::controlnet::ControlNet)'s, is
    /// added to the skip connections and to the middle.
    ///
    /// # Panics
    /// If `timesteps` are not one a row.
    pub fn forward(
        &self,
        sample: Tensor<E, 4>,
        timesteps: &[f32],
        condition: &Tensor<E, 3>,
        extra: Option<Encoded<E>>,
    ) -> Tensor<E, 4> {
        let time = self.encoder.time(timesteps, &sample.device()).kept();
        let condition = &condition.clone().kept();
        let sample = self.encoder.conv_in.forward(sample);
        let mut encoded = self.encoder.forward(sample, &time, condition);
        if let Some(extra) = extra {
            encoded = encoded + extra;
        }
        let Encoded { mut skips, middle: mut x } = encoded;
        for level in &self.up_blocks {
            x = level.up(x, &mut skips, &time, condition);
        }
        self.conv_out.forward(self.conv_norm_out.forward_silu(x))
    }
}
