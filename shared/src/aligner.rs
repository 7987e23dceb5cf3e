//! AlignerNet: from the language model's output to the space of CLIP's text encoder, which the decoder understands.
//!
//! M reads a sequence of any length with 77 learned queries; N goes the way back and serves only the alignment training.
//! Source: *Kosmos-G*, section 2.2 and figure 3.

use crate::config::AlignerConfig;
use crate::engine::{Engine, Mask, Tensor};
use crate::magneto::{Layer, LayerSizes};
use crate::weights::{Bias, Embedding, LayerNorm, Linear, WeightError, Weights};

/// The first row of a position table that is used: fairseq keeps rows 0 and 1 for padding.
const FIRST_POSITION: u32 = 2;

/// AlignerNet's M, which inference uses; its weights lie at `aligner`.
#[derive(Debug, Clone)]
pub struct Aligner<E: Engine> {
    embed_tokens: Linear<E>,
    queries: usize,
    /// None if there is only a linear map.
    stacks: Option<Stacks<E>>,
}

#[derive(Debug, Clone)]
struct Stacks<E: Engine> {
    encoder_proj: Bidirectional<E>,
    encoder_query: Tensor<E, 2>,
    encoder: Querying<E>,
}

/// AlignerNet's N, which only the alignment training uses; its weights lie at `aligner` too.
#[derive(Debug, Clone)]
pub struct AlignerDecoder<E: Engine> {
    decoder_query: Embedding<E>,
    decoder: Querying<E>,
    decoder_proj: Bidirectional<E>,
    output_projection: Linear<E>,
}

impl<E: Engine> Aligner<E> {
    /// Reads M; `mllm_dim` is the language model's hidden size `D`.
    ///
    /// # Errors
    /// A [`WeightError`] that names the tensor.
    pub fn new(weights: &Weights<'_, E>, config: &AlignerConfig, mllm_dim: usize) -> Result<Self, WeightError> {
        let encoder_proj = weights.at("encoder_proj");
        let stacks = || {
            Ok(Stacks {
                encoder_proj: Bidirectional::new(&encoder_proj, config)?,
                encoder_query: weights.tensor("encoder_query", [config.queries, config.dim])?,
                encoder: Querying::new(&weights.at("encoder"), config)?,
            })
        };
        Ok(Self {
            embed_tokens: encoder_proj.linear("embed_tokens", [mllm_dim, config.dim], Bias::Yes)?,
            queries: config.queries,
            stacks: (config.layers > 0).then(stacks).transpose()?,
        })
    }

    /// Hidden states `[B, T, D]` to a condition `[B, queries, d]`. `padding`, `[B, T]` row-major, marks positions that only
    /// fill up.
    pub fn forward(&self, hidden: Tensor<E, 3>, padding: &[bool]) -> Tensor<E, 3> {
        let [b, t, _] = hidden.shape();
        let device = hidden.device();
        let mask = Mask::hide(padding, b, &device);
        let mut x = self.embed_tokens.forward(hidden);
        if let Some(stacks) = &self.stacks {
            x = stacks.encoder_proj.add_positions(x);
        }
        if let Mask::Keys(_) = mask {
            let kept = padding.iter().map(|&pad| if pad { 0.0 } else { 1.0 }).collect();
            x = x * Tensor::from_host(kept, [b, t, 1], &device);
        }
        match &self.stacks {
            Some(stacks) => stacks.forward(x, &mask),
            None => first_positions(x, self.queries),
        }
    }
}

impl<E: Engine> Stacks<E> {
    fn forward(&self, x: Tensor<E, 3>, mask: &Mask<E>) -> Tensor<E, 3> {
        let x = self.encoder_proj.forward(x, mask);
        let [queries, dim] = self.encoder_query.shape();
        let query = self.encoder_query.clone().reshape([1, queries, dim]).repeat_batch(x.shape()[0]);
        self.encoder.forward(query, &x, mask)
    }
}

/// The first `count` of the positions, `[B, T, d]`, with zeros for those that are not there.
fn first_positions<E: Engine>(x: Tensor<E, 3>, count: usize) -> Tensor<E, 3> {
    let [b, t, dim] = x.shape();
    if t >= count {
        return x.narrow(1, 0, count);
    }
    let zeros = Tensor::zeros([b, count - t, dim], &x.device());
    Tensor::cat(vec![x, zeros], 1)
}

impl<E: Engine> AlignerDecoder<E> {
    /// Reads N; `mllm_dim` is the language model's hidden size `D`.
    ///
    /// # Errors
    /// A [`WeightError`] that names the tensor.
    pub fn new(weights: &Weights<'_, E>, config: &AlignerConfig, mllm_dim: usize) -> Result<Self, WeightError> {
        let decoder_proj = weights.at("decoder_proj");
        Ok(Self {
            decoder_query: weights.embedding("decoder_query", config.max_positions, config.dim)?,
            decoder: Querying::new(&weights.at("decoder"), config)?,
            decoder_proj: Bidirectional::new(&decoder_proj, config)?,
            output_projection: decoder_proj.linear("output_projection", [config.dim, mllm_dim], Bias::Yes)?,
        })
    }

    /// A condition `[B, queries, d]` to a guess at the `tokens` hidden states that it came from, `[B, T, D]`.
    pub fn forward(&self, condition: Tensor<E, 3>, tokens: usize) -> Tensor<E, 3> {
        let [b, _, dim] = condition.shape();
        let rows: Vec<u32> = (0..tokens as u32).collect();
        let query = self.decoder_query.rows(&rows).reshape([1, tokens, dim]).repeat_batch(b);
        let x = self.decoder.forward(query, &condition, &Mask::None);
        let x = self.decoder_proj.forward(self.decoder_proj.add_positions(x), &Mask::None);
        self.output_projection.forward(x)
    }
}

/// Layers in which every position sees every other, over learned positions.
#[derive(Debug, Clone)]
struct Bidirectional<E: Engine> {
    embed_positions: Embedding<E>,
    layers: Vec<Layer<E>>,
    layer_norm: LayerNorm<E>,
}

impl<E: Engine> Bidirectional<E> {
    fn new(weights: &Weights<'_, E>, config: &AlignerConfig) -> Result<Self, WeightError> {
        Ok(Self {
            embed_positions: weights.embedding("embed_positions.weight", config.max_positions, config.dim)?,
            layers: weights
                .stack("layers", config.sequence_layers.unwrap_or(config.layers), |at| Layer::new(at, sizes(config)))?,
            layer_norm: weights.layer_norm("layer_norm", config.dim)?,
        })
    }

    fn add_positions(&self, x: Tensor<E, 3>) -> Tensor<E, 3> {
        let [_, t, dim] = x.shape();
        let rows: Vec<u32> = (FIRST_POSITION..FIRST_POSITION + t as u32).collect();
        x + self.embed_positions.rows(&rows).reshape([1, t, dim])
    }

    fn forward(&self, x: Tensor<E, 3>, mask: &Mask<E>) -> Tensor<E, 3> {
        self.layer_norm.forward(self.layers.iter().fold(x, |x, layer| layer.forward(x, mask)))
    }
}

/// Layers in which queries look at each other and at a sequence.
#[derive(Debug, Clone)]
struct Querying<E: Engine> {
    layers: Vec<Layer<E>>,
    layer_norm: LayerNorm<E>,
}

impl<E: Engine> Querying<E> {
    fn new(weights: &Weights<'_, E>, config: &AlignerConfig) -> Result<Self, WeightError> {
        Ok(Self {
            layers: weights.stack("layers", config.layers, |at| Layer::with_cross_attention(at, sizes(config)))?,
            layer_norm: weights.layer_norm("layer_norm", config.dim)?,
        })
    }

    fn forward(&self, query: Tensor<E, 3>, context: &Tensor<E, 3>, mask: &Mask<E>) -> Tensor<E, 3> {
        let context = &context.clone().kept();
        let x = self.layers.iter().fold(query, |x, layer| layer.forward_cross(x, context, mask));
        self.layer_norm.forward(x)
    }
}

fn sizes(config: &AlignerConfig) -> LayerSizes {
    LayerSizes { dim: config.dim, heads: config.heads, ffn_dim: config.ffn_dim }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KosmosGConfig;
    use crate::engine::burn::{Burn, BurnDevice};
    use crate::weights::{HostTensor, load};
    use std::collections::BTreeMap;

    #[test]
    fn without_layers_each_position_is_mapped_by_itself() {
        let config = AlignerConfig { dim: 2, layers: 0, queries: 3, ..KosmosGConfig::published().aligner };
        let weights = BTreeMap::from([
            ("encoder_proj.embed_tokens.weight".to_owned(), HostTensor::from_f32(vec![2, 1], &[2.0, 3.0])),
            ("encoder_proj.embed_tokens.bias".to_owned(), HostTensor::from_f32(vec![2], &[0.5, 0.0])),
        ]);
        let device = BurnDevice::cpu();
        let aligner = load::<Burn, _>(&weights, &device, |weights| Aligner::new(weights, &config, 1)).unwrap();
        let condition = |states: &[f32], padding: &[bool]| {
            let hidden = Tensor::from_host(states.to_vec(), [1, states.len(), 1], &device);
            pollster::block_on(aligner.forward(hidden, padding).to_host()).unwrap()
        };
        assert_eq!(condition(&[1.0, -1.0], &[false; 2]), [2.5, 3.0, -1.5, -3.0, 0.0, 0.0]);
        assert_eq!(condition(&[1.0, 7.0], &[false, true]), [2.5, 3.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(condition(&[1.0, 0.0, 0.0, 7.0], &[false; 4]), [2.5, 3.0, 0.5, 0.0, 0.5, 0.0]);
    }
}
