//! Resampler: a picture's features in a few embeddings of the language model's width.
//!
//! Source: *Kosmos-G*, section 2.1 (there "Perceiver-style resampler"); the published one is a single cross-attention.

use crate::engine::{Engine, Mask, Tensor};
use crate::magneto::{Attention, InnerNorm};
use crate::weights::{Bias, Linear, WeightError, Weights};

/// The resampler; its weights lie at `img_connector`.
#[derive(Debug, Clone)]
pub struct Resampler<E: Engine> {
    dense: Linear<E>,
    latent_query: Tensor<E, 2>,
    x_attn: Attention<E>,
}

/// Sizes of a [`Resampler`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResamplerSizes {
    /// Width of the vision tower's features.
    pub vision_width: usize,
    /// Hidden size `D` of the language model.
    pub dim: usize,
    /// Attention heads.
    pub heads: usize,
    /// Embeddings per picture, `L`.
    pub latent_queries: usize,
}

impl<E: Engine> Resampler<E> {
    /// Reads the resampler.
    ///
    /// # Errors
    /// A [`WeightError`] that names the tensor.
    pub fn new(weights: &Weights<'_, E>, sizes: ResamplerSizes) -> Result<Self, WeightError> {
        let ResamplerSizes { vision_width, dim, heads, latent_queries } = sizes;
        Ok(Self {
            dense: weights.linear("dense", [vision_width, dim], Bias::Yes)?,
            latent_query: weights.tensor("latent_query", [latent_queries, dim])?,
            x_attn: Attention::new(&weights.at("x_attn"), dim, heads, InnerNorm::No)?,
        })
    }

    /// Features `[B, P, vision width]` to embeddings `[B, L, D]`.
    pub fn forward(&self, features: Tensor<E, 3>) -> Tensor<E, 3> {
        let [b, _, _] = features.shape();
        let [latent_queries, dim] = self.latent_query.shape();
        let y = self.dense.forward(features);
        let latents = self.latent_query.clone().reshape([1, latent_queries, dim]).repeat_batch(b);
        let context = Tensor::cat(vec![y, latents.clone()], 1); // [B, P + L, D]
        self.x_attn.forward(latents, context, &Mask::None)
    }
}
