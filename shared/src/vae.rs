//! Autoencoder: pictures to latents and back, `AutoencoderKL` of diffusers.
//!
//! Source: *High-Resolution Image Synthesis with Latent Diffusion Models*, arXiv 2112.10752; weights in diffusers' names.

use crate::config::VaeConfig;
use crate::engine::{ConvOptions, Engine, Mask, Tensor, attention};
use crate::unet::ResnetBlock;
use crate::weights::{Bias, Conv2d, GroupNorm, Linear, WeightError, Weights};

pub mod tiles;

/// eps of the autoencoder's group normalisations.
const NORM_EPS: f32 = 1e-6;

/// From picture to latents; its weights lie at `encoder` and `quant_conv`.
#[derive(Debug, Clone)]
pub struct VaeEncoder<E: Engine> {
    conv_in: Conv2d<E>,
    down_blocks: Vec<Level<E>>,
    mid_block: MidBlock<E>,
    conv_norm_out: GroupNorm<E>,
    conv_out: Conv2d<E>,
    quant_conv: Conv2d<E>,
    scaling_factor: f32,
}

/// From latents to picture; its weights lie at `decoder` and `post_quant_conv`.
#[derive(Debug, Clone)]
pub struct VaeDecoder<E: Engine> {
    post_quant_conv: Conv2d<E>,
    conv_in: Conv2d<E>,
    mid_block: MidBlock<E>,
    up_blocks: Vec<Level<E>>,
    conv_norm_out: GroupNorm<E>,
    conv_out: Conv2d<E>,
    scaling_factor: f32,
}

/// A normal distribution over latents, each `[B, C, H, W]`.
#[derive(Debug, Clone)]
pub struct LatentDistribution<E: Engine> {
    /// Mean, not yet scaled.
    pub mean: Tensor<E, 4>,
    /// Logarithm of the variance.
    pub logvar: Tensor<E, 4>,
}

impl<E: Engine> VaeEncoder<E> {
    /// Reads the encoder.
    ///
    /// # Errors
    /// A [`WeightError`] that names the tensor.
    pub fn new(weights: &Weights<'_, E>, config: &VaeConfig) -> Result<Self, WeightError> {
        let channels = &config.block_out_channels;
        let at = weights.at("encoder");
        let mut down_blocks = Vec::with_capacity(channels.len());
        for (level, &output) in channels.iter().enumerate() {
            let from = channels[level.saturating_sub(1)];
            let resample = (level + 1 < channels.len()).then_some(Resample::Down);
            let blocks = config.layers_per_block;
            down_blocks.push(Level::new(
                &at.at(format_args!("down_blocks.{level}")),
                config,
                blocks,
                [from, output],
                resample,
            )?);
        }
        let coarsest = channels[channels.len() - 1];
        let moments = config.latent_channels * 2;
        Ok(Self {
            conv_in: at.conv3x3("conv_in", [3, channels[0]])?,
            down_blocks,
            mid_block: MidBlock::new(&at.at("mid_block"), config)?,
            conv_norm_out: at.group_norm("conv_norm_out", config.norm_num_groups, coarsest, NORM_EPS)?,
            conv_out: at.conv3x3("conv_out", [coarsest, moments])?,
            quant_conv: weights.conv1x1("quant_conv", [moments, moments])?,
            scaling_factor: config.scaling_factor as f32,
        })
    }

    /// Pictures `[B, 3, H, W]` in −1…1 to a distribution over latents `[B, C, H/f, W/f]`.
    pub fn forward(&self, pictures: Tensor<E, 4>) -> LatentDistribution<E> {
        let x = self.conv_in.forward(pictures);
        let x = self.down_blocks.iter().fold(x, |x, level| level.forward(x));
        let x = self.mid_block.forward(x);
        let x = self.conv_out.forward(self.conv_norm_out.forward_silu(x));
        let [mean, logvar] = self.quant_conv.forward(x).kept().chunk(1);
        LatentDistribution { mean, logvar }
    }

    /// The distribution's mean, scaled as the U-Net expects latents.
    pub fn latents(&self, pictures: Tensor<E, 4>) -> Tensor<E, 4> {
        self.forward(pictures).mean.affine(self.scaling_factor, 0.0)
    }
}

impl<E: Engine> VaeDecoder<E> {
    /// Reads the decoder.
    ///
    /// # Errors
    /// A [`WeightError`] that names the tensor.
    pub fn new(weights: &Weights<'_, E>, config: &VaeConfig) -> Result<Self, WeightError> {
        let channels = &config.block_out_channels;
        let levels = channels.len();
        let at = weights.at("decoder");
        let mut up_blocks = Vec::with_capacity(levels);
        for i in 0..levels {
            let level = levels - 1 - i;
            let from = channels[(level + 1).min(levels - 1)];
            let resample = (level > 0).then_some(Resample::Up);
            let blocks = config.layers_per_block + 1;
            up_blocks.push(Level::new(
                &at.at(format_args!("up_blocks.{i}")),
                config,
                blocks,
                [from, channels[level]],
                resample,
            )?);
        }
        let latents = config.latent_channels;
        Ok(Self {
            post_quant_conv: weights.conv1x1("post_quant_conv", [latents, latents])?,
            conv_in: at.conv3x3("conv_in", [latents, channels[levels - 1]])?,
            mid_block: MidBlock::new(&at.at("mid_block"), config)?,
            up_blocks,
            conv_norm_out: at.group_norm("conv_norm_out", config.norm_num_groups, channels[0], NORM_EPS)?,
            conv_out: at.conv3x3("conv_out", [channels[0], 3])?,
            scaling_factor: config.scaling_factor as f32,
        })
    }

    /// Latents `[B, C, h, w]`, scaled as the U-Net leaves them, to pictures `[B, 3, f·h, f·w]` around −1…1.
    pub fn forward(&self, latents: Tensor<E, 4>) -> Tensor<E, 4> {
        let x = self.post_quant_conv.forward(latents.affine(self.scaling_factor.recip(), 0.0));
        let x = self.mid_block.forward(self.conv_in.forward(x));
        let x = self.up_blocks.iter().fold(x, |x, level| level.forward(x));
        self.conv_out.forward(self.conv_norm_out.forward_silu(x))
    }
}

#[derive(Debug, Clone, Copy)]
enum Resample {
    Down,
    Up,
}

/// Residual blocks and a change of scale.
#[derive(Debug, Clone)]
struct Level<E: Engine> {
    resnets: Vec<ResnetBlock<E>>,
    resample: Option<(Resample, Conv2d<E>)>,
}

impl<E: Engine> Level<E> {
    fn new(
        weights: &Weights<'_, E>,
        config: &VaeConfig,
        blocks: usize,
        [input, output]: [usize; 2],
        resample: Option<Resample>,
    ) -> Result<Self, WeightError> {
        let resnet = |i: usize| {
            let input = if i == 0 { input } else { output };
            ResnetBlock::new(&weights.at(format_args!("resnets.{i}")), config.into(), [input, output])
        };
        // The encoder pads right and below only, before a convolution without padding.
        let halve = ConvOptions { stride: 2, padding: 0 };
        let channels = [output, output];
        Ok(Self {
            resnets: (0..blocks).map(resnet).collect::<Result<_, _>>()?,
            resample: match resample {
                None => None,
                Some(Resample::Down) => {
                    let conv = weights.conv2d("downsamplers.0.conv", channels, 3, halve, Bias::Yes)?;
                    Some((Resample::Down, conv))
                }
                Some(Resample::Up) => Some((Resample::Up, weights.conv3x3("upsamplers.0.conv", channels)?)),
            },
        })
    }

    fn forward(&self, x: Tensor<E, 4>) -> Tensor<E, 4> {
        let x = self.resnets.iter().fold(x, |x, resnet| resnet.forward(x, None));
        match &self.resample {
            None => x,
            Some((Resample::Down, conv)) => conv.forward(x.pad([0, 1, 0, 1])),
            Some((Resample::Up, conv)) => {
                let [_, _, h, w] = x.shape();
                conv.forward(x.upsample([2 * h, 2 * w]))
            }
        }
    }
}

/// Two residual blocks and, between them, every pixel looking at every other.
#[derive(Debug, Clone)]
struct MidBlock<E: Engine> {
    resnets: [ResnetBlock<E>; 2],
    attention: Option<PixelAttention<E>>,
}

impl<E: Engine> MidBlock<E> {
    fn new(weights: &Weights<'_, E>, config: &VaeConfig) -> Result<Self, WeightError> {
        let channels = config.block_out_channels[config.block_out_channels.len() - 1];
        let resnet = |name| ResnetBlock::new(&weights.at(name), config.into(), [channels; 2]);
        Ok(Self {
            resnets: [resnet("resnets.0")?, resnet("resnets.1")?],
            attention: match config.mid_block_add_attention {
                true => Some(PixelAttention::new(&weights.at("attentions.0"), config, channels)?),
                false => None,
            },
        })
    }

    fn forward(&self, x: Tensor<E, 4>) -> Tensor<E, 4> {
        let x = self.resnets[0].forward(x, None);
        let x = match &self.attention {
            Some(attention) => attention.forward(x),
            None => x,
        };
        self.resnets[1].forward(x, None)
    }
}

#[derive(Debug, Clone)]
struct PixelAttention<E: Engine> {
    group_norm: GroupNorm<E>,
    to_q: Linear<E>,
    to_k: Linear<E>,
    to_v: Linear<E>,
    to_out: Linear<E>,
}

impl<E: Engine> PixelAttention<E> {
    fn new(weights: &Weights<'_, E>, config: &VaeConfig, channels: usize) -> Result<Self, WeightError> {
        let linear = |name| weights.linear(name, [channels, channels], Bias::Yes);
        Ok(Self {
            group_norm: weights.group_norm("group_norm", config.norm_num_groups, channels, NORM_EPS)?,
            to_q: linear("to_q")?,
            to_k: linear("to_k")?,
            to_v: linear("to_v")?,
            to_out: linear("to_out.0")?,
        })
    }

    fn forward(&self, x: Tensor<E, 4>) -> Tensor<E, 4> {
        let [b, c, h, w] = x.shape();
        let tokens = self.group_norm.forward(x.clone()).reshape([b, c, h * w]).permute([0, 2, 1]); // [B, H·W, C]
        let q = self.to_q.forward(tokens.clone());
        let k = self.to_k.forward(tokens.clone());
        let v = self.to_v.forward(tokens);
        let tokens = self.to_out.forward(attention(q, k, v, 1, &Mask::None));
        x + tokens.permute([0, 2, 1]).reshape([b, c, h, w])
    }
}
