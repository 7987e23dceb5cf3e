//! Multi-head attention in blocks of queries, so that scores stay in the cache and are never written to memory.

use super::matrix::{Before, Matrix, Product};
use super::norm::{softmax, weight};
use super::parallel;
use super::vector::{sum_2, wide};

/// Attention of q `[B, queries, heads · width]`, k and v `[B, keys, heads · width]`, to q's shape.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// Number of sequences.
    pub batch: usize,
    /// Tokens of a sequence of q.
    pub queries: usize,
    /// Tokens of a sequence of k and v.
    pub keys: usize,
    /// Number of heads.
    pub heads: usize,
    /// Channels of a head.
    pub width: usize,
    /// Which keys a query sees.
    pub visible: &'a Visible,
}

/// [`Mask`](crate::engine::Mask) in host memory.
#[derive(Debug, Clone)]
pub enum Visible {
    /// All keys.
    All,
    /// Keys up to the query's own place.
    Past,
    /// `[B, keys]`, added to the scores.
    Scores(Vec<f32>),
}

/// Fewest queries at once that are worth a matrix product.
const FEWEST: usize = 32;
/// Most queries at once: more would push the scores out of the cache, fewer would pack keys and values too often.
const MOST: usize = 256;
/// Queries at once of the derivative, which needs two blocks of scores.
const BACKWARD: usize = 64;

impl Attention<'_> {
    /// The result, and by what the weights of each query and head were divided, `[B, queries, heads]`, as a logarithm.
    pub fn forward(&self, [q, k, v]: [&[f32]; 3]) -> (Vec<f32>, Vec<f32>) {
        let Self { batch, queries, keys, heads, width, .. } = *self;
        let channels = heads * width;
        let mut y = vec![0.0; batch * queries * channels];
        let mut normalizers = vec![0.0; batch * queries * heads];
        let work = 16 * y.len();
        let block = (batch * queries).div_ceil(parallel::pieces(work)).clamp(FEWEST, MOST);
        let sequences = y.chunks_mut((queries * channels).max(1)).zip(normalizers.chunks_mut((queries * heads).max(1)));
        let tasks = sequences.enumerate().flat_map(|(batch, (y, normalizers))| {
            let blocks = y.chunks_mut(block * channels).zip(normalizers.chunks_mut(block * heads));
            blocks.enumerate().map(move |(i, (y, normalizers))| (batch, i * block, y, normalizers))
        });
        parallel::map_init(work, tasks.collect(), Vec::new, |scores, (batch, first, y, normalizers)| {
            let rows = y.len() / channels;
            scores.resize(rows * keys, 0.0);
            for head in 0..heads {
                self.scores(scores, self.queries(q, batch, head, first, rows), self.keys(k, batch, head));
                for (i, scores) in scores.chunks_exact_mut(keys).enumerate() {
                    let seen = self.mask(scores, batch, first + i);
                    normalizers[i * heads + head] = softmax(&mut scores[..seen]);
                }
                let weights = Matrix::new(scores, [rows, keys]);
                Product::of(weights, self.keys(v, batch, head)).write(
                    &mut y[head * width..],
                    channels,
                    Before::Replace,
                );
            }
        });
        (y, normalizers)
    }

    /// The derivatives with respect to q, k and v, of what the result has the derivative `dy` of; `normalizers` are
    /// [`forward`](Self::forward)'s.
    pub fn backward(&self, [q, k, v]: [&[f32]; 3], normalizers: &[f32], dy: &[f32]) -> [Vec<f32>; 3] {
        let Self { batch, queries, keys, heads, width, .. } = *self;
        let every_head = (0..batch * heads).map(|i| (i / heads, i % heads)).collect();
        let scale = self.scale();
        let results = parallel::map(16 * q.len(), every_head, |(batch, head)| {
            let mut dq = vec![0.0; queries * width];
            let (mut dk, mut dv) = (vec![0.0; keys * width], vec![0.0; keys * width]);
            let block = BACKWARD.min(queries) * keys;
            let (mut p, mut ds) = (vec![0.0; block], vec![0.0; block]);
            let (k, v) = (self.keys(k, batch, head), self.keys(v, batch, head));
            for (block, dq) in dq.chunks_mut(BACKWARD * width).enumerate() {
                let (first, rows) = (block * BACKWARD, dq.len() / width);
                let (p, ds) = (&mut p[..rows * keys], &mut ds[..rows * keys]);
                let (q, dy) = (self.queries(q, batch, head, first, rows), self.queries(dy, batch, head, first, rows));
                self.scores(p, q, k);
                Product::of(dy, v.transpose()).write(ds, keys, Before::Replace); // dP
                for (i, (p, ds)) in p.chunks_exact_mut(keys).zip(ds.chunks_exact_mut(keys)).enumerate() {
                    let normalizer = normalizers[(batch * queries + first + i) * heads + head];
                    let seen = self.mask(p, batch, first + i);
                    ds[seen..].fill(0.0);
                    let (p, ds) = (&mut p[..seen], &mut ds[..seen]);
                    wide(
                        #[inline(always)]
                        || {
                            for p in p.iter_mut() {
                                *p = weight(*p - normalizer);
                            }
                            let mean = sum_2(p, ds, |p, dp| p * dp) as f32;
                            for (ds, p) in ds.iter_mut().zip(p) {
                                *ds = *p * (*ds - mean);
                            }
                        },
                    );
                }
                let (p, ds) = (Matrix::new(p, [rows, keys]), Matrix::new(ds, [rows, keys]));
                Product::of(ds, k).scaled(scale).write(dq, width, Before::Replace);
                Product::of(ds.transpose(), q).scaled(scale).write(&mut dk, width, Before::Add);
                Product::of(p.transpose(), dy).write(&mut dv, width, Before::Add);
            }
            [dq, dk, dv]
        });
        [(0, queries), (1, keys), (2, keys)].map(|(part, tokens)| {
            let mut joined = Vec::with_capacity(batch * tokens * heads * width);
            for heads in results.chunks_exact(heads) {
                for token in 0..tokens {
                    heads.iter().for_each(|head| joined.extend_from_slice(&head[part][token * width..][..width]));
                }
            }
            joined
        })
    }

    fn scale(&self) -> f32 {
        (self.width as f32).sqrt().recip()
    }

    /// `[rows, keys]`, without the mask.
    fn scores(&self, scores: &mut [f32], q: Matrix, k: Matrix) {
        Product::of(q, k.transpose()).scaled(self.scale()).write(scores, self.keys, Before::Replace);
    }

    /// Masks the scores of a query. Returns how many keys it sees, from the first on; the scores of the others are 0.
    fn mask(&self, scores: &mut [f32], batch: usize, query: usize) -> usize {
        match self.visible {
            Visible::All => self.keys,
            Visible::Past => {
                let seen = (query + 1).min(self.keys);
                scores[seen..].fill(0.0);
                seen
            }
            Visible::Scores(mask) => {
                scores.iter_mut().zip(&mask[batch * self.keys..]).for_each(|(score, mask)| *score += mask);
                self.keys
            }
        }
    }

    /// `[rows, width]`: queries of a head from `first` on.
    fn queries<'a>(&self, q: &'a [f32], batch: usize, head: usize, first: usize, rows: usize) -> Matrix<'a> {
        self.tokens(q, batch * self.queries + first, head, rows)
    }

    /// `[keys, width]`: the keys, or values, of a head.
    fn keys<'a>(&self, k: &'a [f32], batch: usize, head: usize) -> Matrix<'a> {
        self.tokens(k, batch * self.keys, head, self.keys)
    }

    fn tokens<'a>(&self, x: &'a [f32], first: usize, head: usize, count: usize) -> Matrix<'a> {
        let channels = self.heads * self.width;
        Matrix::strided(&x[first * channels + head * self.width..], [count, self.width], [channels, 1])
    }
}
