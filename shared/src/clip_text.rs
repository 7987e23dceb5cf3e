//! CLIP's text model: what the decoder was trained to follow, and what AlignerNet learns to imitate.
//!
//! Source: CLIP, arXiv 2103.00020; weights in transformers' names.

use crate::config::{ClipActivation, ClipTextConfig};
use crate::engine::{Engine, Mask, Tensor, Unary};
use crate::magneto::{Attention, InnerNorm};
use crate::weights::{Bias, Embedding, LayerNorm, Linear, WeightError, Weights};

/// The text model; its weights lie at the root or at `text_model`.
#[derive(Debug, Clone)]
pub struct ClipText<E: Engine> {
    token_embedding: Embedding<E>,
    position_embedding: Embedding<E>,
    layers: Vec<EncoderLayer<E>>,
    final_layer_norm: LayerNorm<E>,
}

impl<E: Engine> ClipText<E> {
    /// Reads the text model.
    ///
    /// # Errors
    /// A [`WeightError`] that names the tensor.
    pub fn new(weights: &Weights<'_, E>, config: &ClipTextConfig) -> Result<Self, WeightError> {
        let prefixed = weights.at("text_model");
        let weights = if prefixed.has("embeddings.token_embedding.weight") { &prefixed } else { weights };
        let dim = config.hidden_size;
        let embeddings = weights.at("embeddings");
        Ok(Self {
            token_embedding: embeddings.embedding("token_embedding.weight", config.vocab_size, dim)?,
            position_embedding: embeddings.embedding(
                "position_embedding.weight",
                config.max_position_embeddings,
                dim,
            )?,
            layers: weights.stack("encoder.layers", config.num_hidden_layers, |at| EncoderLayer::new(at, config))?,
            final_layer_norm: weights.layer_norm("final_layer_norm", dim)?,
        })
    }

    /// Token ids `[B, T]`, row-major, to the last hidden state `[B, T, D]`.
    pub fn forward(&self, tokens: &[u32], batch: usize) -> Tensor<E, 3> {
        let t = tokens.len() / batch;
        let positions: Vec<u32> = (0..t as u32).collect();
        let positions = self.position_embedding.rows(&positions);
        let [_, dim] = positions.shape();
        let x = self.token_embedding.rows(tokens).reshape([batch, t, dim]) + positions.reshape([1, t, dim]);
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x));
        self.final_layer_norm.forward(x)
    }
}

#[derive(Debug, Clone)]
struct EncoderLayer<E: Engine> {
    layer_norm1: LayerNorm<E>,
    self_attn: Attention<E>,
    layer_norm2: LayerNorm<E>,
    fc1: Linear<E>,
    activation: Unary,
    fc2: Linear<E>,
}

impl<E: Engine> EncoderLayer<E> {
    fn new(weights: &Weights<'_, E>, config: &ClipTextConfig) -> Result<Self, WeightError> {
        let (dim, inner) = (config.hidden_size, config.intermediate_size);
        Ok(Self {
            layer_norm1: weights.layer_norm("layer_norm1", dim)?,
            self_attn: Attention::new(&weights.at("self_attn"), dim, config.num_attention_heads, InnerNorm::No)?,
            layer_norm2: weights.layer_norm("layer_norm2", dim)?,
            fc1: weights.linear("mlp.fc1", [dim, inner], Bias::Yes)?,
            activation: match config.hidden_act {
                ClipActivation::QuickGelu => Unary::QuickGelu,
                ClipActivation::Gelu => Unary::Gelu,
            },
            fc2: weights.linear("mlp.fc2", [inner, dim], Bias::Yes)?,
        })
    }

    fn forward(&self, x: Tensor<E, 3>) -> Tensor<E, 3> {
        E::checkpoint(self, x, Self::compute)
    }

    fn compute(&self, x: Tensor<E, 3>) -> Tensor<E, 3> {
        let normed = self.layer_norm1.forward(x.clone());
        let x = x + self.self_attn.forward(normed.clone(), normed, &Mask::Causal);
        let inner = self.fc1.forward(self.layer_norm2.forward(x.clone())).map(self.activation);
        x + self.fc2.forward(inner)
    }
}
