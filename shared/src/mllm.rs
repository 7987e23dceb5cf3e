//! Language model: a MAGNETO decoder over words and pictures.
//!
//! Source: *Kosmos-G*, section 2.1.

use crate::config::MllmConfig;
use crate::engine::{Engine, Mask, Tensor};
use crate::magneto::{Layer, LayerSizes};
use crate::weights::{LayerNorm, Vocabulary, WeightError, Weights};

/// The language model; its weights lie at `gpt_model.decoder`.
#[derive(Debug, Clone)]
pub struct Mllm<E: Engine> {
    embed_tokens: Vocabulary<E>,
    layers: Vec<Layer<E>>,
    layer_norm: LayerNorm<E>,
    dim: usize,
}

/// Sequences of words and picture places, padded to one length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBatch {
    /// Token ids, `[B, T]` row-major.
    pub tokens: Vec<u32>,
    /// Which positions a picture's embeddings take, `[B, T]` row-major.
    pub image_mask: Vec<bool>,
    /// Number of sequences, `B`.
    pub batch: usize,
    /// Id that fills up shorter sequences.
    pub pad: u32,
}

impl TokenBatch {
    /// Which positions only fill up, `[B, T]` row-major.
    pub fn padding(&self) -> Vec<bool> {
        self.tokens.iter().map(|&token| token == self.pad).collect()
    }

    /// Tokens of each sequence, `T`.
    pub fn len(&self) -> usize {
        self.tokens.len() / self.batch
    }

    /// Whether the sequences have no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

impl<E: Engine> Mllm<E> {
    /// Reads the language model.
    ///
    /// # Errors
    /// A [`WeightError`] that names the tensor.
    pub fn new(weights: &Weights<'_, E>, config: &MllmConfig) -> Result<Self, WeightError> {
        let &MllmConfig { vocab_size, dim, layers, heads, ffn_dim } = config;
        let sizes = LayerSizes { dim, heads, ffn_dim };
        Ok(Self {
            embed_tokens: weights.vocabulary("embed_tokens.weight", vocab_size, dim)?,
            layers: weights.stack("layers", layers, |at| Layer::new(at, sizes))?,
            layer_norm: weights.layer_norm("layer_norm", dim)?,
            dim,
        })
    }

    /// Hidden states `[B, T, D]` of a batch. `images` `[N, L, D]` are the resampler's embeddings of all its pictures in
    /// order: as many embeddings as the batch has marked positions.
    ///
    /// # Errors
    /// [`WeightError::Unreadable`] if the words' embeddings stayed in a file that cannot be read.
    ///
    /// # Panics
    /// If there are more or fewer embeddings than marked positions.
    pub fn forward(&self, batch: &TokenBatch, images: Option<Tensor<E, 3>>) -> Result<Tensor<E, 3>, WeightError> {
        let (b, t) = (batch.batch, batch.len());
        let x = self.embed(batch, images)?.affine((self.dim as f32).sqrt(), 0.0).reshape([b, t, self.dim]);
        let positions = sinusoidal_positions(batch, self.dim);
        let x = x.clone() + Tensor::from_host(positions, [b, t, self.dim], &x.device());
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x, &Mask::Causal));
        Ok(self.layer_norm.forward(x))
    }

    /// Scores of every token id: `[B, T, D]` to `[B, T, vocabulary]`. The output projection is the embedding table.
    ///
    /// # Errors
    /// As of [`forward`](Self::forward).
    pub fn logits(&self, hidden: Tensor<E, 3>) -> Result<Tensor<E, 3>, WeightError> {
        let [b, t, dim] = hidden.shape();
        let table = self.embed_tokens.table()?;
        let [vocabulary, _] = table.shape();
        Ok(hidden.reshape([b * t, dim]).matmul(table.permute([1, 0])).reshape([b, t, vocabulary]))
    }

    /// Token embeddings `[B·T, D]`, with the pictures' in their places.
    fn embed(&self, batch: &TokenBatch, images: Option<Tensor<E, 3>>) -> Result<Tensor<E, 2>, WeightError> {
        let words = self.embed_tokens.rows(&batch.tokens)?;
        let places = batch.image_mask.iter().filter(|&&image| image).count();
        let Some(images) = images else {
            assert_eq!(places, 0, "picture places without pictures");
            return Ok(words);
        };
        let [n, latents, dim] = images.shape();
        assert_eq!(n * latents, places, "{n} pictures of {latents} embeddings for {places} picture places");
        let mut next_image = batch.tokens.len() as u32;
        let sources: Vec<u32> = (0..)
            .zip(&batch.image_mask)
            .map(|(word, &image)| {
                let source = if image { next_image } else { word };
                next_image += u32::from(image);
                source
            })
            .collect();
        Ok(Tensor::cat(vec![words, images.reshape([n * latents, dim])], 0).rows(&sources))
    }
}

/// fairseq's sinusoidal positions, `[B, T, dim]`: sines in the first half, cosines in the second. The first token has
/// position 2; padding has zeros and does not count.
fn sinusoidal_positions(batch: &TokenBatch, dim: usize) -> Vec<f32> {
    let half = dim / 2;
    let frequencies: Vec<f64> =
        (0..half).map(|j| libm::exp(-(j as f64) * libm::log(10_000.0) / (half as f64 - 1.0))).collect();
    let mut table = Vec::with_capacity(batch.len() * dim);
    for position in (2..).take(batch.len()).map(f64::from) {
        table.extend(frequencies.iter().map(|w| libm::sin(position * w) as f32));
        table.extend(frequencies.iter().map(|w| libm::cos(position * w) as f32));
        table.resize(table.len() + dim % 2, 0.0);
    }
    let mut positions = vec![0.0; batch.tokens.len() * dim];
    for (tokens, places) in batch.tokens.chunks(batch.len()).zip(positions.chunks_mut(batch.len() * dim)) {
        let words = tokens.iter().zip(places.chunks_mut(dim)).filter(|&(&token, _)| token != batch.pad);
        words.zip(table.chunks(dim)).for_each(|((_, place), values)| place.copy_from_slice(values));
    }
    positions
}
