//! Vision tower: CLIP's vision transformer, with every token kept and set to unit length.
//!
//! Source: *Kosmos-G*, section 2.1; CLIP, arXiv 2103.00020.

use crate::config::VisionConfig;
use crate::engine::{ConvOptions, Engine, Mask, Tensor, Unary};
use crate::magneto::{Attention, InnerNorm};
use crate::weights::{Bias, Conv2d, LayerNorm, Linear, WeightError, Weights};

/// The vision tower; its weights lie at `img_model.visual`.
#[derive(Debug, Clone)]
pub struct VisionTower<E: Engine> {
    conv1: Conv2d<E>,
    class_embedding: Tensor<E, 1>,
    positional_embedding: Tensor<E, 2>,
    ln_pre: LayerNorm<E>,
    resblocks: Vec<ResidualBlock<E>>,
    ln_post: LayerNorm<E>,
}

impl<E: Engine> VisionTower<E> {
    /// Reads the tower.
    ///
    /// # Errors
    /// A [`WeightError`] that names the tensor.
    pub fn new(weights: &Weights<'_, E>, config: &VisionConfig) -> Result<Self, WeightError> {
        let &VisionConfig { image_size, patch_size, width, layers, heads, mlp_ratio } = config;
        let tokens = (image_size / patch_size).pow(2) + 1;
        let patches = ConvOptions { stride: patch_size, padding: 0 };
        Ok(Self {
            conv1: weights.conv2d("conv1", [3, width], patch_size, patches, Bias::No)?,
            class_embedding: weights.tensor("class_embedding", [width])?,
            positional_embedding: weights.tensor("positional_embedding", [tokens, width])?,
            ln_pre: weights.layer_norm("ln_pre", width)?,
            resblocks: weights
                .stack("transformer.resblocks", layers, |at| ResidualBlock::new(at, width, heads, width * mlp_ratio))?,
            ln_post: weights.layer_norm("ln_post", width)?,
        })
    }

    /// Pixels `[B, 3, S, S]`, normalised as CLIP's, to features `[B, 1 + (S / patch)², width]`, the class token first.
    pub fn forward(&self, pixels: Tensor<E, 4>) -> Tensor<E, 3> {
        let x = self.conv1.forward(pixels);
        let [b, width, h, w] = x.shape();
        let patches = x.reshape([b, width, h * w]).permute([0, 2, 1]); // [B, H·W, width]
        let class = self.class_embedding.clone().reshape([1, 1, width]).repeat_batch(b);
        let x = Tensor::cat(vec![class, patches], 1) + self.positional_embedding.clone().reshape([1, h * w + 1, width]);
        let x = self.ln_pre.forward(x);
        let x = self.resblocks.iter().fold(x, |x, block| block.forward(x));
        let x = self.ln_post.forward(x);
        let length = (x.clone() * x.clone()).sum(2).map(Unary::Sqrt);
        x / length
    }
}

#[derive(Debug, Clone)]
struct ResidualBlock<E: Engine> {
    ln_1: LayerNorm<E>,
    ts_attn: Attention<E>,
    ln_2: LayerNorm<E>,
    c_fc: Linear<E>,
    c_proj: Linear<E>,
}

impl<E: Engine> ResidualBlock<E> {
    fn new(weights: &Weights<'_, E>, width: usize, heads: usize, inner: usize) -> Result<Self, WeightError> {
        Ok(Self {
            ln_1: weights.layer_norm("ln_1", width)?,
            ts_attn: Attention::new(&weights.at("ts_attn"), width, heads, InnerNorm::No)?,
            ln_2: weights.layer_norm("ln_2", width)?,
            c_fc: weights.linear("mlp.c_fc", [width, inner], Bias::Yes)?,
            c_proj: weights.linear("mlp.c_proj", [inner, width], Bias::Yes)?,
        })
    }

    fn forward(&self, x: Tensor<E, 3>) -> Tensor<E, 3> {
        E::checkpoint(self, x, Self::compute)
    }

    fn compute(&self, x: Tensor<E, 3>) -> Tensor<E, 3> {
        let normed = self.ln_1.forward(x.clone());
        let x = x + self.ts_attn.forward(normed.clone(), normed, &Mask::None);
        let inner = self.c_fc.forward(self.ln_2.forward(x.clone())).map(Unary::QuickGelu);
        x + self.c_proj.forward(inner)
    }
}
