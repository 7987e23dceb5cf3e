//! The residual block of U-Net and autoencoder.

use crate::config::{UNetConfig, VaeConfig};
use crate::engine::{Engine, Tensor};
use crate::weights::{Bias, Conv2d, GroupNorm, Linear, WeightError, Weights};

/// `x + conv2(silu(norm2(conv1(silu(norm1(x))) + time)))`.
#[derive(Debug, Clone)]
pub(crate) struct ResnetBlock<E: Engine> {
    norm1: GroupNorm<E>,
    conv1: Conv2d<E>,
    time_emb_proj: Option<Linear<E>>,
    norm2: GroupNorm<E>,
    conv2: Conv2d<E>,
    conv_shortcut: Option<Conv2d<E>>,
}

/// What the residual blocks of one network share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResnetStyle {
    groups: usize,
    eps: f32,
    /// Width of the time embedding; an autoencoder knows no time.
    time_dim: Option<usize>,
}

impl From<&UNetConfig> for ResnetStyle {
    fn from(config: &UNetConfig) -> Self {
        let time_dim = Some(config.block_out_channels[0] * 4);
        Self { groups: config.norm_num_groups, eps: config.norm_eps, time_dim }
    }
}

impl From<&VaeConfig> for ResnetStyle {
    fn from(config: &VaeConfig) -> Self {
        Self { groups: config.norm_num_groups, eps: 1e-6, time_dim: None }
    }
}

impl<E: Engine> ResnetBlock<E> {
    pub fn new(weights: &Weights<'_, E>, style: ResnetStyle, [input, output]: [usize; 2]) -> Result<Self, WeightError> {
        let ResnetStyle { groups, eps, time_dim } = style;
        Ok(Self {
            norm1: weights.group_norm("norm1", groups, input, eps)?,
            conv1: weights.conv3x3("conv1", [input, output])?,
            time_emb_proj: match time_dim {
                Some(time_dim) => Some(weights.linear("time_emb_proj", [time_dim, output], Bias::Yes)?),
                None => None,
            },
            norm2: weights.group_norm("norm2", groups, output, eps)?,
            conv2: weights.conv3x3("conv2", [output, output])?,
            conv_shortcut: match input == output {
                true => None,
                false => Some(weights.conv1x1("conv_shortcut", [input, output])?),
            },
        })
    }

    /// `x` `[B, C, H, W]` and a time embedding `[B, 4·C₀]` to `[B, C', H, W]`.
    pub fn forward(&self, x: Tensor<E, 4>, time: Option<&Tensor<E, 2>>) -> Tensor<E, 4> {
        E::checkpoint(self, (x, time.cloned()), Self::compute)
    }

    fn compute(&self, (x, time): (Tensor<E, 4>, Option<Tensor<E, 2>>)) -> Tensor<E, 4> {
        let mut h = self.conv1.forward(self.norm1.forward_silu(x.clone()));
        if let (Some(proj), Some(time)) = (&self.time_emb_proj, time) {
            let time = proj.forward(time.silu());
            let [b, c] = time.shape();
            h = h + time.reshape([b, c, 1, 1]);
        }
        let h = self.conv2.forward(self.norm2.forward_silu(h));
        match &self.conv_shortcut {
            Some(shortcut) => shortcut.forward(x) + h,
            None => x + h,
        }
    }
}
