//! The transformer block that all of KOSMOS-G is made of: MAGNETO's, with its inner layer normalisations.
//!
//! `x += out_proj(inner_attn_ln(attention(self_attn_layer_norm(x))))`, then
//! `x += fc2(ffn_layernorm(gelu(fc1(final_layer_norm(x)))))`. Source: *Foundation Transformers*, arXiv 2210.06423,
//! section 2; *Kosmos-G*, section 2.1.

use crate::engine::{Engine, Mask, Tensor, attention};
use crate::weights::{Bias, LayerNorm, Linear, WeightError, Weights};

/// Whether an attention normalises before its output projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InnerNorm {
    /// MAGNETO's self-attention.
    Yes,
    /// CLIP's, the resampler's, and AlignerNet's cross-attention.
    No,
}

/// Multi-head attention with biases on all four projections.
#[derive(Debug, Clone)]
pub struct Attention<E: Engine> {
    q_proj: Linear<E>,
    k_proj: Linear<E>,
    v_proj: Linear<E>,
    out_proj: Linear<E>,
    inner_attn_ln: Option<LayerNorm<E>>,
    heads: usize,
}

impl<E: Engine> Attention<E> {
    /// Reads an attention of width `dim`.
    ///
    /// # Errors
    /// A [`WeightError`] that names the tensor.
    pub fn new(weights: &Weights<'_, E>, dim: usize, heads: usize, inner: InnerNorm) -> Result<Self, WeightError> {
        let proj = |name| weights.linear(name, [dim, dim], Bias::Yes);
        Ok(Self {
            q_proj: proj("q_proj")?,
            k_proj: proj("k_proj")?,
            v_proj: proj("v_proj")?,
            out_proj: proj("out_proj")?,
            inner_attn_ln: match inner {
                InnerNorm::Yes => Some(weights.layer_norm("inner_attn_ln", dim)?),
                InnerNorm::No => None,
            },
            heads,
        })
    }

    /// `x` `[B, Tq, D]` looks at `context` `[B, Tk, D]`: `[B, Tq, D]`.
    pub fn forward(&self, x: Tensor<E, 3>, context: Tensor<E, 3>, mask: &Mask<E>) -> Tensor<E, 3> {
        let q = self.q_proj.forward(x);
        let k = self.k_proj.forward(context.clone());
        let v = self.v_proj.forward(context);
        let mut x = attention(q, k, v, self.heads, mask);
        if let Some(norm) = &self.inner_attn_ln {
            x = norm.forward(x);
        }
        self.out_proj.forward(x)
    }
}

/// `fc2(ffn_layernorm(gelu(fc1(x))))`.
#[derive(Debug, Clone)]
pub struct FeedForward<E: Engine> {
    fc1: Linear<E>,
    ffn_layernorm: LayerNorm<E>,
    fc2: Linear<E>,
}

impl<E: Engine> FeedForward<E> {
    fn new(weights: &Weights<'_, E>, dim: usize, ffn_dim: usize) -> Result<Self, WeightError> {
        Ok(Self {
            fc1: weights.linear("fc1", [dim, ffn_dim], Bias::Yes)?,
            ffn_layernorm: weights.layer_norm("ffn_layernorm", ffn_dim)?,
            fc2: weights.linear("fc2", [ffn_dim, dim], Bias::Yes)?,
        })
    }

    fn forward(&self, x: Tensor<E, 3>) -> Tensor<E, 3> {
        self.fc2.forward(self.ffn_layernorm.forward(self.fc1.forward(x).gelu()))
    }
}

/// Sizes of a [`Layer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerSizes {
    /// Width `D`.
    pub dim: usize,
    /// Attention heads.
    pub heads: usize,
    /// Inner size of the feed-forward network.
    pub ffn_dim: usize,
}

/// One MAGNETO layer, with a cross-attention between its two halves or without.
#[derive(Debug, Clone)]
pub struct Layer<E: Engine> {
    self_attn_layer_norm: LayerNorm<E>,
    self_attn: Attention<E>,
    encoder_attn: Option<(LayerNorm<E>, Attention<E>)>,
    final_layer_norm: LayerNorm<E>,
    ffn: FeedForward<E>,
}

impl<E: Engine> Layer<E> {
    /// A layer of self-attention and feed-forward network.
    ///
    /// # Errors
    /// A [`WeightError`] that names the tensor.
    pub fn new(weights: &Weights<'_, E>, sizes: LayerSizes) -> Result<Self, WeightError> {
        let LayerSizes { dim, heads, ffn_dim } = sizes;
        Ok(Self {
            self_attn_layer_norm: weights.layer_norm("self_attn_layer_norm", dim)?,
            self_attn: Attention::new(&weights.at("self_attn"), dim, heads, InnerNorm::Yes)?,
            encoder_attn: None,
            final_layer_norm: weights.layer_norm("final_layer_norm", dim)?,
            ffn: FeedForward::new(&weights.at("ffn"), dim, ffn_dim)?,
        })
    }

    /// The same with a cross-attention.
    ///
    /// # Errors
    /// A [`WeightError`] that names the tensor.
    pub fn with_cross_attention(weights: &Weights<'_, E>, sizes: LayerSizes) -> Result<Self, WeightError> {
        let norm = weights.layer_norm("encoder_attn_layer_norm", sizes.dim)?;
        let cross = Attention::new(&weights.at("encoder_attn"), sizes.dim, sizes.heads, InnerNorm::No)?;
        Ok(Self { encoder_attn: Some((norm, cross)), ..Self::new(weights, sizes)? })
    }

    /// `x` `[B, T, D]` to `[B, T, D]`.
    pub fn forward(&self, x: Tensor<E, 3>, mask: &Mask<E>) -> Tensor<E, 3> {
        E::checkpoint(self, (x, mask.clone()), |layer, (x, mask)| {
            let x = layer.attend(x, &mask);
            layer.feed_forward(x)
        })
    }

    /// `x` `[B, Tq, D]`, looking at all of itself and at `context` `[B, Tk, D]` through `context_mask`.
    ///
    /// # Panics
    /// If the layer has no cross-attention.
    pub fn forward_cross(&self, x: Tensor<E, 3>, context: &Tensor<E, 3>, context_mask: &Mask<E>) -> Tensor<E, 3> {
        E::checkpoint(self, (x, context.clone(), context_mask.clone()), |layer, (x, context, mask)| {
            let (norm, cross) = layer.encoder_attn.as_ref().expect("a layer with cross-attention");
            let x = layer.attend(x, &Mask::None);
            let x = x.clone() + cross.forward(norm.forward(x), context, &mask);
            layer.feed_forward(x)
        })
    }

    fn attend(&self, x: Tensor<E, 3>, mask: &Mask<E>) -> Tensor<E, 3> {
        let normed = self.self_attn_layer_norm.forward(x.clone());
        x + self.self_attn.forward(normed.clone(), normed, mask)
    }

    fn feed_forward(&self, x: Tensor<E, 3>) -> Tensor<E, 3> {
        let normed = self.final_layer_norm.forward(x.clone());
        x + self.ffn.forward(normed)
    }
}
