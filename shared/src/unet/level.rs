//! One level of the U-Net, on the way down or up: residual blocks, transformers, a change of scale.

use super::resnet::ResnetBlock;
use super::transformer::SpatialTransformer;
use crate::config::UNetConfig;
use crate::engine::{ConvOptions, Engine, Tensor};
use crate::weights::{Bias, Conv2d, WeightError, Weights};

#[derive(Debug, Clone)]
pub(super) struct Level<E: Engine> {
    resnets: Vec<ResnetBlock<E>>,
    /// One for each residual block, or none at all.
    attentions: Vec<SpatialTransformer<E>>,
    resample: Option<Conv2d<E>>,
}

/// Sizes of a [`Level`].
#[derive(Debug, Clone)]
pub(super) struct LevelSizes {
    /// Channels into each residual block.
    pub inputs: Vec<usize>,
    /// Channels out of each.
    pub output: usize,
    /// Attention heads, if the level has transformers.
    pub heads: Option<usize>,
    pub scale: Scale,
}

/// How a level changes the picture's size at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Keep,
    Down,
    Up,
}

impl<E: Engine> Level<E> {
    pub fn new(weights: &Weights<'_, E>, config: &UNetConfig, sizes: &LevelSizes) -> Result<Self, WeightError> {
        let output = sizes.output;
        let resnet = |(i, &input): (usize, &usize)| {
            ResnetBlock::new(&weights.at(format_args!("resnets.{i}")), config.into(), [input, output])
        };
        Ok(Self {
            resnets: sizes.inputs.iter().enumerate().map(resnet).collect::<Result<_, _>>()?,
            attentions: match sizes.heads {
                Some(heads) => weights
                    .stack("attentions", sizes.inputs.len(), |at| SpatialTransformer::new(at, config, output, heads))?,
                None => vec![],
            },
            resample: match sizes.scale {
                Scale::Keep => None,
                Scale::Down => {
                    let halve = ConvOptions { stride: 2, padding: 1 };
                    Some(weights.conv2d("downsamplers.0.conv", [output, output], 3, halve, Bias::Yes)?)
                }
                Scale::Up => Some(weights.conv3x3("upsamplers.0.conv", [output, output])?),
            },
        })
    }

    /// `[B, C, H, W]` to `[B, C', H/2, W/2]`; every output on the way is kept in `skips`.
    pub fn down(
        &self,
        mut x: Tensor<E, 4>,
        skips: &mut Vec<Tensor<E, 4>>,
        time: &Tensor<E, 2>,
        condition: &Tensor<E, 3>,
    ) -> Tensor<E, 4> {
        for i in 0..self.resnets.len() {
            x = self.block(i, x, time, condition);
            skips.push(x.clone());
        }
        if let Some(downsample) = &self.resample {
            x = downsample.forward(x).kept();
            skips.push(x.clone());
        }
        x
    }

    /// `[B, C, H, W]` to `[B, C', 2H, 2W]`; every residual block takes the last of `skips`.
    pub fn up(
        &self,
        mut x: Tensor<E, 4>,
        skips: &mut Vec<Tensor<E, 4>>,
        time: &Tensor<E, 2>,
        condition: &Tensor<E, 3>,
    ) -> Tensor<E, 4> {
        for i in 0..self.resnets.len() {
            let skip = skips.pop().expect("as many skip connections as residual blocks on the way up");
            x = self.block(i, Tensor::cat(vec![x, skip], 1), time, condition);
        }
        if let Some(upsample) = &self.resample {
            // The next skip's own size: an odd one was rounded up on the way down.
            let [_, _, h, w] = skips.last().expect("a finer level has skip connections").shape();
            x = upsample.forward(x.upsample([h, w]));
        }
        x
    }

    fn block(&self, i: usize, x: Tensor<E, 4>, time: &Tensor<E, 2>, condition: &Tensor<E, 3>) -> Tensor<E, 4> {
        let x = self.resnets[i].forward(x, Some(time));
        match self.attentions.get(i) {
            Some(attention) => attention.forward(x, condition),
            None => x,
        }
    }
}
