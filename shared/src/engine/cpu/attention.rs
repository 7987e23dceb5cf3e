//! Multi-head attention in blocks of queries and keys, so that scores stay in the cache and are never written to memory.

use std::ops::Range;

use super::functions::exp_within;
use super::matrix::{Before, Matrix, Product};
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
/// Most queries at once.
const MOST: usize = 256;
/// Keys at once: with more, the scores would no longer stay in the cache.
const KEYS: usize = 256;
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
        // `[B, heads · width, keys]`: each block of queries would pack the values anew.
        let mut by_channel = vec![0.0; v.len()];
        parallel::chunks(&mut by_channel, width * keys, |i, out| {
            self.keys(v, i / heads, i % heads).transpose().copy_to(out, keys)
        });
        let block = (batch * queries).div_ceil(parallel::pieces(work)).clamp(FEWEST, MOST);
        let sequences = y.chunks_mut((queries * channels).max(1)).zip(normalizers.chunks_mut((queries * heads).max(1)));
        let tasks = sequences.enumerate().flat_map(|(batch, (y, normalizers))| {
            let blocks = y.chunks_mut(block * channels).zip(normalizers.chunks_mut(block * heads));
            blocks.enumerate().map(move |(i, (y, normalizers))| (batch, i * block, y, normalizers))
        });
        parallel::map_init(work, tasks.collect(), Lanes::default, |lanes, (batch, first, y, normalizers)| {
            let rows = y.len() / channels;
            // Nobody here sees a later key.
            let seen = if let Visible::Past = self.visible { keys.min(first + rows) } else { keys };
            for head in 0..heads {
                lanes.begin(self.queries(q, batch, head, first, rows));
                for start in (0..seen).step_by(KEYS) {
                    let count = KEYS.min(seen - start);
                    lanes.score(self.keys(k, batch, head).rows(start, count), self.scale());
                    self.hide(&mut lanes.scores, batch, first..first + rows, start);
                    lanes.weigh();
                    let v = &by_channel[(batch * heads + head) * width * keys + start..];
                    lanes.add(Matrix::strided(v, [width, count], [keys, 1]));
                }
                lanes.end(&mut y[head * width..], channels);
                let normalizers = normalizers[head..].iter_mut().step_by(heads);
                normalizers.zip(&lanes.highest).zip(&lanes.total).for_each(|((n, h), total)| *n = h + total.ln());
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

    /// Masks the scores `[keys, queries]` of keys from `start` on.
    fn hide(&self, scores: &mut [f32], batch: usize, queries: Range<usize>, start: usize) {
        for (key, scores) in (start..).zip(scores.chunks_exact_mut(queries.len())) {
            match self.visible {
                Visible::All => return,
                Visible::Past => scores[..key.saturating_sub(queries.start)].fill(f32::MIN),
                Visible::Scores(mask) => {
                    let mask = mask[batch * self.keys + key];
                    scores.iter_mut().for_each(|score| *score += mask);
                }
            }
        }
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

/// Some queries of a head on their way through its keys. They lie side by side, so that each has a lane of a vector to itself
/// and no lane waits for another.
#[derive(Debug, Default)]
struct Lanes {
    /// `[width, queries]`
    q: Vec<f32>,
    /// `[keys, queries]`, of some keys; then the weights that they become.
    scores: Vec<f32>,
    /// `[width, queries]`: the values that were seen so far, by their weights.
    y: Vec<f32>,
    /// Each query's highest score so far, by which its weights are scaled.
    highest: Vec<f32>,
    /// The sum of each query's weights so far.
    total: Vec<f32>,
    /// A number for each query.
    spare: Vec<f32>,
}

impl Lanes {
    /// Starts with queries `[queries, width]`.
    fn begin(&mut self, q: Matrix) {
        let [queries, width] = q.size();
        let fill = |numbers: &mut Vec<f32>, len: usize, number: f32| {
            numbers.clear();
            numbers.resize(len, number);
        };
        fill(&mut self.q, width * queries, 0.0);
        q.transpose().copy_to(&mut self.q, queries);
        fill(&mut self.y, width * queries, 0.0);
        // Not −∞: a difference to it might be no number.
        fill(&mut self.highest, queries, f32::MIN);
        fill(&mut self.total, queries, 0.0);
        fill(&mut self.spare, queries, 0.0);
    }

    /// Compares the queries with keys `[keys, width]`.
    fn score(&mut self, k: Matrix, scale: f32) {
        let ([keys, width], queries) = (k.size(), self.total.len());
        self.scores.resize(keys * queries, 0.0);
        let q = Matrix::new(&self.q, [width, queries]);
        Product::of(k, q).scaled(scale).write(&mut self.scores, queries, Before::Replace);
    }

    /// Makes weights of the scores.
    fn weigh(&mut self) {
        let Self { scores, y, highest, total, spare, .. } = self;
        let queries = total.len();
        wide(
            #[inline(always)]
            || {
                spare.copy_from_slice(highest);
                for scores in scores.chunks_exact(queries) {
                    for (highest, &score) in highest.iter_mut().zip(scores) {
                        *highest = if score > *highest { score } else { *highest };
                    }
                }
                // What was scaled by a lower score weighs less now.
                for ((factor, highest), total) in spare.iter_mut().zip(&*highest).zip(&mut *total) {
                    *factor = weight(*factor - highest);
                    *total *= *factor;
                }
                for y in y.chunks_exact_mut(queries) {
                    y.iter_mut().zip(&*spare).for_each(|(y, factor)| *y *= factor);
                }
                // Sums of sums: a long one would lose digits.
                spare.fill(0.0);
                for scores in scores.chunks_exact_mut(queries) {
                    for ((score, highest), sum) in scores.iter_mut().zip(&*highest).zip(&mut *spare) {
                        *score = weight(*score - highest);
                        *sum += *score;
                    }
                }
                total.iter_mut().zip(&*spare).for_each(|(total, sum)| *total += sum);
            },
        );
    }

    /// Adds values `[width, keys]` by the weights of their keys.
    fn add(&mut self, v: Matrix) {
        let ([_, keys], queries) = (v.size(), self.total.len());
        let weights = Matrix::new(&self.scores, [keys, queries]);
        Product::of(v, weights).write(&mut self.y, queries, Before::Add);
    }

    /// Writes the queries' results to rows that lie `stride` numbers apart.
    fn end(&mut self, y: &mut [f32], stride: usize) {
        let Self { y: sums, total, spare, .. } = self;
        let queries = total.len();
        spare.iter_mut().zip(&*total).for_each(|(scale, total)| *scale = total.recip());
        for sums in sums.chunks_exact_mut(queries) {
            sums.iter_mut().zip(&*spare).for_each(|(sum, scale)| *sum *= scale);
        }
        Matrix::new(sums, [sums.len() / queries, queries]).transpose().copy_to(y, stride);
    }
}

/// `e^x` of an x that is at most 0, give or take a rounding, and at least `e^−70`: scaled by a row's sum it stays a normal number.
/// Processors are slow with subnormal ones, and a product with hidden keys would be full of them.
#[inline(always)]
fn weight(x: f32) -> f32 {
    exp_within(if x < -70.0 { -70.0 } else { x })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than a block of queries, and of keys.
    const LONG: usize = 2 * KEYS + 37;

    fn numbers(n: usize, by: f32) -> Vec<f32> {
        (0..n).map(|i| 3.0 * (i as f32 * by).sin()).collect()
    }

    /// One score after the other, in f64.
    fn plain(of: &Attention, [q, k, v]: [&[f32]; 3]) -> Vec<f32> {
        let Attention { batch, queries, keys, heads, width, .. } = *of;
        let at = |x: &[f32], token: usize, head: usize, i: usize| f64::from(x[(token * heads + head) * width + i]);
        let mut y = Vec::new();
        for (b, query, head) in (0..batch).flat_map(|b| (0..queries * heads).map(move |i| (b, i / heads, i % heads))) {
            let weights = (0..keys).map(|key| {
                let product: f64 =
                    (0..width).map(|i| at(q, b * queries + query, head, i) * at(k, b * keys + key, head, i)).sum();
                let score = product / (width as f64).sqrt();
                match of.visible {
                    Visible::All => score.exp(),
                    Visible::Past => {
                        if key > query {
                            0.0
                        } else {
                            score.exp()
                        }
                    }
                    Visible::Scores(mask) => (score + f64::from(mask[b * keys + key])).exp(),
                }
            });
            let weights: Vec<f64> = weights.collect();
            let total: f64 = weights.iter().sum();
            y.extend((0..width).map(|i| {
                let sum: f64 = weights.iter().enumerate().map(|(key, w)| w * at(v, b * keys + key, head, i)).sum();
                (sum / total) as f32
            }));
        }
        y
    }

    #[test]
    fn blocks_give_what_every_score_alone_gives() {
        let [batch, heads, width] = [2, 2, 8];
        for (queries, keys) in [(1, 1), (3, LONG), (LONG, 5), (LONG, LONG)] {
            let hidden =
                |i: usize| if !i.is_multiple_of(keys) && i.is_multiple_of(3) { -1e4 } else { (i as f32).cos() };
            let by_key = Visible::Scores((0..batch * keys).map(hidden).collect());
            for visible in [&Visible::All, &Visible::Past, &by_key] {
                let attention = Attention { batch, queries, keys, heads, width, visible };
                let q = numbers(batch * queries * heads * width, 0.7);
                let [k, v] = [0.3, 1.1].map(|by| numbers(batch * keys * heads * width, by));
                let (y, _) = attention.forward([&q, &k, &v]);
                let furthest =
                    y.iter().zip(plain(&attention, [&q, &k, &v])).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(furthest < 2e-5, "{queries} queries, {keys} keys, {visible:?}: {furthest} apart");
            }
        }
    }

    #[test]
    fn keys_that_are_hidden_weigh_nothing() {
        // The first block has none that is seen.
        let mut mask = vec![-3e4; LONG];
        mask[LONG - 7] = 1.5;
        let attention =
            Attention { batch: 1, queries: 2, keys: LONG, heads: 1, width: 4, visible: &Visible::Scores(mask) };
        let [q, k, v] = [(2, 0.7), (LONG, 0.3), (LONG, 1.1)].map(|(n, by)| numbers(4 * n, by));
        let (y, _) = attention.forward([&q, &k, &v]);
        let seen = &v[4 * (LONG - 7)..][..4];
        assert_eq!(y, [seen, seen].concat());
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let attention = Attention { batch: 1, queries: 2, keys: LONG, heads: 1, width: 4, visible: &Visible::All };
        let [mut q, k, v] = [(2, 0.7), (LONG, 0.3), (LONG, 1.1)].map(|(n, by)| numbers(4 * n, by));
        q[5] = f32::NAN;
        let (y, _) = attention.forward([&q, &k, &v]);
        assert!(y[..4].iter().all(|y| y.is_finite()) && y[4..].iter().all(|y| y.is_nan()), "{y:?}");
    }
}
