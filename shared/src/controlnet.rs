//! ControlNet: a copy of the U-Net's way down that reads a picture and adds to the U-Net's skip connections.
//!
//! Source: *Adding Conditional Control to Text-to-Image Diffusion Models*, arXiv 2302.05543; weights in diffusers' names.

use crate::config::UNetConfig;
use crate::engine::{ConvOptions, Engine, Tensor};
use crate::picture::Picture;
use crate::unet::{Encoded, UNetEncoder};
use crate::weights::{Bias, Conv2d, WeightError, Weights};

/// Widths between picture and first level when the configuration does not say: diffusers' default.
const EMBEDDING_CHANNELS: [usize; 4] = [16, 32, 96, 256];
/// Channels of the picture when the configuration does not say: red, green and blue.
pub(crate) const HINT_CHANNELS: usize = 3;

/// A ControlNet.
#[derive(Debug, Clone)]
pub struct ControlNet<E: Engine> {
    encoder: UNetEncoder<E>,
    /// From the picture's pixels to the latents' grid, SiLU between the convolutions.
    controlnet_cond_embedding: Vec<Conv2d<E>>,
    controlnet_down_blocks: Vec<Conv2d<E>>,
    controlnet_mid_block: Conv2d<E>,
}

impl<E: Engine> ControlNet<E> {
    /// Reads the ControlNet.
    ///
    /// # Errors
    /// A [`WeightError`] that names the tensor.
    pub fn new(weights: &Weights<'_, E>, config: &UNetConfig) -> Result<Self, WeightError> {
        let channels = &config.block_out_channels;
        let mut skips = vec![channels[0]];
        for (level, &width) in channels.iter().enumerate() {
            let downsampled = usize::from(level + 1 < channels.len());
            skips.extend(vec![width; config.layers_per_block.at(level) + downsampled]);
        }
        let zero_conv =
            |(i, &width): (usize, &usize)| weights.conv1x1(&format!("controlnet_down_blocks.{i}"), [width, width]);
        let coarsest = channels[channels.len() - 1];
        Ok(Self {
            encoder: UNetEncoder::new(weights, config)?,
            controlnet_cond_embedding: embedding(&weights.at("controlnet_cond_embedding"), config)?,
            controlnet_down_blocks: skips.iter().enumerate().map(zero_conv).collect::<Result<_, _>>()?,
            controlnet_mid_block: weights.conv1x1("controlnet_mid_block", [coarsest, coarsest])?,
        })
    }

    /// Pixels of the picture per latent along each side.
    pub fn hint_scale(&self) -> usize {
        // Two convolutions at the ends, and pairs between them of which one halves the picture.
        1 << ((self.controlnet_cond_embedding.len() - 2) / 2)
    }

    /// What to add inside the U-Net for the same `sample` `[B, C, H, W]`, `timesteps` and `condition` `[B, T, D]`, given a
    /// picture `hint` `[B, 3, sH, sW]` in 0…1, `s` its [`ControlNet::hint_scale`]. `scale` is the conditioning scale, 1 for full strength.
    pub fn forward(
        &self,
        sample: Tensor<E, 4>,
        timesteps: &[f32],
        condition: &Tensor<E, 3>,
        hint: Tensor<E, 4>,
        scale: f32,
    ) -> Encoded<E> {
        let (last, first) = self.controlnet_cond_embedding.split_last().expect("an embedding has convolutions");
        let hint = last.forward(first.iter().fold(hint, |x, conv| conv.forward(x).silu()));
        let time = self.encoder.time(timesteps, &sample.device()).kept();
        let condition = &condition.clone().kept();
        let x = self.encoder.conv_in.forward(sample) + hint;
        let Encoded { skips, middle } = self.encoder.forward(x, &time, condition);
        let zero_conv = |(x, conv): (Tensor<E, 4>, &Conv2d<E>)| conv.forward(x).affine(scale, 0.0);
        Encoded {
            skips: skips.into_iter().zip(&self.controlnet_down_blocks).map(zero_conv).collect(),
            middle: zero_conv((middle, &self.controlnet_mid_block)),
        }
    }
}

/// A ControlNet and the picture that it follows.
#[derive(Debug, Clone)]
pub struct Control<E: Engine> {
    controlnet: ControlNet<E>,
    /// `[1, 3, sH, sW]`
    hint: Tensor<E, 4>,
    scale: f32,
}

impl<E: Engine> Control<E> {
    /// Follows `picture`, the middle of it that is as wide for its height, in making latents of `[height, width]`; `scale` is
    /// the conditioning scale.
    pub fn new(
        controlnet: ControlNet<E>,
        picture: &Picture,
        latents: [usize; 2],
        scale: f32,
        device: &E::Device,
    ) -> Self {
        let [height, width] = latents.map(|side| side * controlnet.hint_scale());
        let pixels = picture.pixels_for_controlnet([height as u32, width as u32]);
        let hint = Tensor::from_host(pixels, [1, HINT_CHANNELS, height, width], device);
        Self { controlnet, hint, scale }
    }

    /// See [`ControlNet::forward`].
    pub fn forward(&self, sample: Tensor<E, 4>, timesteps: &[f32], condition: &Tensor<E, 3>) -> Encoded<E> {
        let hint = self.hint.clone().repeat_batch(timesteps.len());
        self.controlnet.forward(sample, timesteps, condition, hint, self.scale)
    }
}

/// `conv_in`, pairs of a convolution that keeps the size and one that halves it, `conv_out`.
fn embedding<E: Engine>(weights: &Weights<'_, E>, config: &UNetConfig) -> Result<Vec<Conv2d<E>>, WeightError> {
    let channels = config.conditioning_embedding_out_channels.as_deref().unwrap_or(&EMBEDDING_CHANNELS);
    let mut convs =
        vec![weights.conv3x3("conv_in", [config.conditioning_channels.unwrap_or(HINT_CHANNELS), channels[0]])?];
    for (i, pair) in channels.windows(2).enumerate() {
        let halve = ConvOptions { stride: 2, padding: 1 };
        convs.push(weights.conv3x3(&format!("blocks.{}", 2 * i), [pair[0], pair[0]])?);
        convs.push(weights.conv2d(&format!("blocks.{}", 2 * i + 1), [pair[0], pair[1]], 3, halve, Bias::Yes)?);
    }
    convs.push(weights.conv3x3("conv_out", [channels[channels.len() - 1], config.block_out_channels[0]])?);
    Ok(convs)
}
