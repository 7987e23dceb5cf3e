//! The U-Net's way down and its middle, which a ControlNet has too.

use std::ops;

use super::level::{Level, LevelSizes, Scale};
use super::resnet::ResnetBlock;
use super::transformer::SpatialTransformer;
use crate::config::{DownBlockType, UNetConfig};
use crate::engine::{Engine, Tensor};
use crate::weights::{Bias, Conv2d, Linear, WeightError, Weights};

/// Time embedding, way down and middle.
#[derive(Debug, Clone)]
pub struct UNetEncoder<E: Engine> {
    time_embedding: [Linear<E>; 2],
    pub(crate) conv_in: Conv2d<E>,
    down_blocks: Vec<Level<E>>,
    mid_resnets: [ResnetBlock<E>; 2],
    mid_attention: SpatialTransformer<E>,
    config: UNetConfig,
}

/// What the way down hands to the way up.
#[derive(Debug, Clone)]
pub struct Encoded<E: Engine> {
    /// Skip connections `[B, C, H, W]`, from the finest.
    pub skips: Vec<Tensor<E, 4>>,
    /// The middle's output `[B, C, H, W]`.
    pub middle: Tensor<E, 4>,
}

impl<E: Engine> ops::Add for Encoded<E> {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let skips = self.skips.into_iter().zip(other.skips).map(|(a, b)| a + b).collect();
        Self { skips, middle: self.middle + other.middle }
    }
}

impl<E: Engine> UNetEncoder<E> {
    /// Reads the encoder.
    ///
    /// # Errors
    /// A [`WeightError`] that names the tensor.
    pub fn new(weights: &Weights<'_, E>, config: &UNetConfig) -> Result<Self, WeightError> {
        let channels = &config.block_out_channels;
        let (finest, coarsest) = (channels[0], channels[channels.len() - 1]);
        let time_dim = finest * 4;
        let mut down_blocks = Vec::with_capacity(channels.len());
        for (level, kind) in config.down_block_types.iter().enumerate() {
            let output = channels[level];
            let above = channels[level.saturating_sub(1)];
            let sizes = LevelSizes {
                inputs: (0..config.layers_per_block.at(level))
                    .map(|layer| if layer == 0 { above } else { output })
                    .collect(),
                output,
                heads: (*kind == DownBlockType::CrossAttnDownBlock2D).then(|| config.attention_head_dim.at(level)),
                scale: if level + 1 < channels.len() { Scale::Down } else { Scale::Keep },
            };
            down_blocks.push(Level::new(&weights.at(format_args!("down_blocks.{level}")), config, &sizes)?);
        }
        let mid = weights.at("mid_block");
        let heads = config.attention_head_dim.at(channels.len() - 1);
        let mid_resnet = |name| ResnetBlock::new(&mid.at(name), config.into(), [coarsest; 2]);
        Ok(Self {
            time_embedding: [
                weights.linear("time_embedding.linear_1", [finest, time_dim], Bias::Yes)?,
                weights.linear("time_embedding.linear_2", [time_dim, time_dim], Bias::Yes)?,
            ],
            conv_in: weights.conv3x3("conv_in", [config.in_channels, finest])?,
            down_blocks,
            mid_resnets: [mid_resnet("resnets.0")?, mid_resnet("resnets.1")?],
            mid_attention: SpatialTransformer::new(&mid.at("attentions.0"), config, coarsest, heads)?,
            config: config.clone(),
        })
    }

    /// The embedding `[B, 4·C]` of one timestep per row.
    pub fn time(&self, timesteps: &[f32], device: &E::Device) -> Tensor<E, 2> {
        let dim = self.config.block_out_channels[0];
        let x = Tensor::from_host(sinusoids(timesteps, dim, &self.config), [timesteps.len(), dim], device);
        let [linear_1, linear_2] = &self.time_embedding;
        linear_2.forward(linear_1.forward(x).silu())
    }

    /// From the first convolution's output `x` `[B, C, H, W]`, a time embedding `time` `[B, 4·C]` and a condition
    /// `[B, T, D]` to the middle `[B, C', H', W']`, each side halved between two levels, and the skip connections before it.
    ///
    /// # Panics
    /// If `time` has another batch size.
    pub fn forward(&self, x: Tensor<E, 4>, time: &Tensor<E, 2>, condition: &Tensor<E, 3>) -> Encoded<E> {
        assert_eq!(x.shape()[0], time.shape()[0], "one timestep per row of the batch");
        let mut x = x.kept();
        let mut skips = vec![x.clone()];
        for level in &self.down_blocks {
            x = level.down(x, &mut skips, time, condition);
        }
        let x = self.mid_resnets[0].forward(x, Some(time));
        let x = self.mid_attention.forward(x, condition);
        Encoded { skips, middle: self.mid_resnets[1].forward(x, Some(time)) }
    }
}

/// Sines and cosines of each timestep, `[B, dim]`, in f32 whatever the weights are: a timestep of 999 has no exact f16. Each
/// step rounds as diffusers' does, since an angle of 999 feels the last bit of its frequency.
fn sinusoids(timesteps: &[f32], dim: usize, config: &UNetConfig) -> Vec<f32> {
    let half = dim / 2;
    let span = (half as f64 - config.freq_shift) as f32;
    let frequency = |i: usize| libm::expf(-libm::log(10_000.0) as f32 * i as f32 / span);
    let mut embedding = Vec::with_capacity(timesteps.len() * dim);
    for &timestep in timesteps {
        let angle = |i| timestep * frequency(i);
        let sines = (0..half).map(|i| libm::sinf(angle(i)));
        let cosines = (0..half).map(|i| libm::cosf(angle(i)));
        if config.flip_sin_to_cos {
            embedding.extend(cosines.chain(sines));
        } else {
            embedding.extend(sines.chain(cosines));
        }
        embedding.resize(embedding.len() + dim % 2, 0.0);
    }
    embedding
}
