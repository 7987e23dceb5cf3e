//! The U-Net's transformer: pixels look at each other and at the condition.

use crate::config::UNetConfig;
use crate::engine::{Engine, Mask, Tensor, attention};
use crate::weights::{Bias, GroupNorm, LayerNorm, Linear, WeightError, Weights};

/// diffusers' `Transformer2DModel` with one `BasicTransformerBlock`.
#[derive(Debug, Clone)]
pub(super) struct SpatialTransformer<E: Engine> {
    norm: GroupNorm<E>,
    proj_in: Linear<E>,
    norm1: LayerNorm<E>,
    attn1: Attention<E>,
    norm2: LayerNorm<E>,
    attn2: Attention<E>,
    norm3: LayerNorm<E>,
    ff_in: Linear<E>,
    ff_out: Linear<E>,
    proj_out: Linear<E>,
}

impl<E: Engine> SpatialTransformer<E> {
    pub fn new(
        weights: &Weights<'_, E>,
        config: &UNetConfig,
        channels: usize,
        heads: usize,
    ) -> Result<Self, WeightError> {
        let proj = |name| match config.use_linear_projection {
            true => weights.linear(name, [channels, channels], Bias::Yes),
            false => weights.pointwise(name, [channels, channels], Bias::Yes),
        };
        let block = weights.at("transformer_blocks.0");
        let inner = channels * 4;
        Ok(Self {
            norm: weights.group_norm("norm", config.norm_num_groups, channels, 1e-6)?,
            proj_in: proj("proj_in")?,
            norm1: block.layer_norm("norm1", channels)?,
            attn1: Attention::new(&block.at("attn1"), channels, channels, heads)?,
            norm2: block.layer_norm("norm2", channels)?,
            attn2: Attention::new(&block.at("attn2"), channels, config.cross_attention_dim, heads)?,
            norm3: block.layer_norm("norm3", channels)?,
            ff_in: block.linear("ff.net.0.proj", [channels, inner * 2], Bias::Yes)?,
            ff_out: block.linear("ff.net.2", [inner, channels], Bias::Yes)?,
            proj_out: proj("proj_out")?,
        })
    }

    /// `x` `[B, C, H, W]` and a condition `[B, T, D]` to `[B, C, H, W]`.
    pub fn forward(&self, x: Tensor<E, 4>, condition: &Tensor<E, 3>) -> Tensor<E, 4> {
        E::checkpoint(self, (x, condition.clone()), Self::compute)
    }

    fn compute(&self, (x, condition): (Tensor<E, 4>, Tensor<E, 3>)) -> Tensor<E, 4> {
        let [b, c, h, w] = x.shape();
        let tokens = self.norm.forward(x.clone()).reshape([b, c, h * w]).permute([0, 2, 1]); // [B, H·W, C]
        let tokens = self.proj_in.forward(tokens);
        let normed = self.norm1.forward(tokens.clone());
        let tokens = tokens + self.attn1.forward(normed.clone(), normed);
        let normed = self.norm2.forward(tokens.clone());
        let tokens = tokens + self.attn2.forward(normed, condition);
        let normed = self.norm3.forward(tokens.clone());
        let tokens = tokens + self.feed_forward(normed);
        let tokens = self.proj_out.forward(tokens);
        x + tokens.permute([0, 2, 1]).reshape([b, c, h, w])
    }

    fn feed_forward(&self, x: Tensor<E, 3>) -> Tensor<E, 3> {
        self.ff_out.forward(self.ff_in.forward(x).geglu())
    }
}

#[derive(Debug, Clone)]
struct Attention<E: Engine> {
    to_q: Linear<E>,
    to_k: Linear<E>,
    to_v: Linear<E>,
    to_out: Linear<E>,
    heads: usize,
}

impl<E: Engine> Attention<E> {
    fn new(weights: &Weights<'_, E>, dim: usize, context_dim: usize, heads: usize) -> Result<Self, WeightError> {
        Ok(Self {
            to_q: weights.linear("to_q", [dim, dim], Bias::No)?,
            to_k: weights.linear("to_k", [context_dim, dim], Bias::No)?,
            to_v: weights.linear("to_v", [context_dim, dim], Bias::No)?,
            to_out: weights.linear("to_out.0", [dim, dim], Bias::Yes)?,
            heads,
        })
    }

    fn forward(&self, x: Tensor<E, 3>, context: Tensor<E, 3>) -> Tensor<E, 3> {
        let q = self.to_q.forward(x);
        let k = self.to_k.forward(context.clone());
        let v = self.to_v.forward(context);
        self.to_out.forward(attention(q, k, v, self.heads, &Mask::None))
    }
}
