//! Multi-head attention over a block of queries at a time.

use rayon::prelude::*;

use super::normalize;
use super::product::{Matrix, Product, Start};

/// Most queries at once: more would push the scores out of the cache, fewer would pack keys and values too often.
const MOST: usize = 256;
/// Fewest queries at once that are worth a matrix product.
const FEWEST: usize = 32;

/// The sizes of an attention.
#[derive(Clone, Copy)]
pub struct Heads {
    pub batch: usize,
    pub queries: usize,
    pub keys: usize,
    pub heads: usize,
    /// Channels of one head.
    pub width: usize,
}

/// Which keys a query may look at.
#[derive(Clone, Copy)]
pub enum Mask<'a> {
    None,
    Causal,
    /// `[B, keys]`, added to the scores.
    Keys(&'a [f32]),
}

impl Heads {
    /// Query `[B, queries, heads·width]`, key and value `[B, keys, heads·width]` to the query's shape.
    pub fn attend(&self, [q, k, v]: [&[f32]; 3], mask: Mask) -> Vec<f32> {
        let Self { batch, queries, keys, heads, width } = *self;
        let channels = heads * width;
        let block = (batch * queries).div_ceil(rayon::current_num_threads()).clamp(FEWEST, MOST);
        let mut out = vec![0.0; batch * queries * channels];
        let blocks = out.par_chunks_mut((queries * channels).max(1)).enumerate().flat_map(|(batch, out)| {
            out.par_chunks_mut(block * channels).enumerate().map(move |(i, out)| (batch, i * block, out))
        });
        blocks.for_each_init(Vec::new, |scores, (batch, first, out)| {
            let rows = out.len() / channels;
            scores.resize(rows * keys, 0.0);
            for head in 0..heads {
                let channel = head * width;
                let q = &q[(batch * queries + first) * channels + channel..];
                let [k, v] = [k, v].map(|x| &x[batch * keys * channels + channel..]);
                let q = Matrix::new(q, [rows, width], [channels, 1]);
                let k = Matrix::new(k, [width, keys], [1, channels]);
                Product::of(q, k).scaled((width as f32).sqrt().recip()).write(scores, keys, Start::Zero);
                for (row, scores) in scores.chunks_exact_mut(keys).enumerate() {
                    weigh(scores, mask, batch, first + row);
                }
                let weights = Matrix::new(scores, [rows, keys], [keys, 1]);
                let v = Matrix::new(v, [keys, width], [channels, 1]);
                Product::of(weights, v).write(&mut out[channel..], channels, Start::Zero);
            }
        });
        out
    }
}

/// Turns a query's scores into weights.
fn weigh(scores: &mut [f32], mask: Mask, batch: usize, query: usize) {
    match mask {
        Mask::None => normalize::softmax_in_place(scores),
        Mask::Causal => {
            let (seen, hidden) = scores.split_at_mut((query + 1).min(scores.len()));
            normalize::softmax_in_place(seen);
            hidden.fill(0.0);
        }
        Mask::Keys(mask) => {
            let mask = &mask[batch * scores.len()..];
            scores.iter_mut().zip(mask).for_each(|(score, mask)| *score += mask);
            normalize::softmax_in_place(scores);
        }
    }
}
