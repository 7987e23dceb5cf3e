//! Attention in blocks of queries, so that scores stay in the cache and are never written to memory.

use super::matmul::{Before, Matrix, Threads, product};
use super::simd::{exp, largest, sum, sum_2, wide};
use super::{Array, Kernel, parallel};

/// Multi-head attention of q `[B, Tq, C]`, k and v `[B, Tk, C]`, to `[B, Tq, C]`.
#[derive(Debug, Clone)]
pub struct Attention {
    /// Number of heads.
    pub heads: usize,
    /// Which keys a query sees.
    pub visible: Visible,
}

/// [`Mask`](crate::engine::Mask) in host memory.
#[derive(Debug, Clone)]
pub enum Visible {
    /// All keys.
    All,
    /// Keys up to the query's own place.
    Past,
    /// `[B, Tk]`, added to the scores.
    Scores(Vec<f32>),
}

/// Queries of a block.
const BLOCK: usize = 64;

/// The place of one head of one sequence.
#[derive(Clone, Copy)]
struct Head {
    batch: usize,
    queries: usize,
    keys: usize,
    channels: usize,
    size: usize,
    index: usize,
    scale: f32,
}

impl Kernel<3> for Attention {
    fn forward(&self, [q, k, v]: [&Array; 3]) -> (Array, Vec<f32>) {
        let heads = self.heads(q, k);
        let [b, tq, c] = q.shape();
        let results = parallel::map(q.data().len() * 16, heads, |head| {
            let mut output = vec![0.0; head.queries * head.size];
            let mut normalizers = vec![0.0; head.queries];
            let (k, v) = (head.keys(k), head.keys(v));
            let mut scores = vec![0.0; BLOCK.min(head.queries) * head.keys];
            for (block, (output, normalizers)) in
                output.chunks_mut(BLOCK * head.size).zip(normalizers.chunks_mut(BLOCK)).enumerate()
            {
                let first = block * BLOCK;
                let scores = &mut scores[..normalizers.len() * head.keys];
                self.scores(scores, &head, q, k, first);
                for (row, normalizer) in scores.chunks_exact_mut(head.keys).zip(normalizers.iter_mut()) {
                    *normalizer = softmax(row);
                }
                let p = Matrix::new(scores, normalizers.len(), head.keys);
                product(output, head.size, Before::Replace, (1.0, p, v), Threads::One);
            }
            (output, normalizers)
        });
        let (outputs, normalizers): (Vec<_>, Vec<_>) = results.into_iter().unzip();
        (Array::new(self.join(&outputs, b, tq, c), [b, tq, c]), normalizers.concat())
    }

    fn backward(&self, [q, k, v]: [&Array; 3], saved: &[f32], gradient: &Array, _: [bool; 3]) -> [Option<Array>; 3] {
        let heads = self.heads(q, k);
        let ([b, tq, c], [_, tk, _]) = (q.shape(), k.shape());
        let results = parallel::map(q.data().len() * 16, heads, |head| {
            let mut dq = vec![0.0; head.queries * head.size];
            let (mut dk, mut dv) = (vec![0.0; head.keys * head.size], vec![0.0; head.keys * head.size]);
            let block_len = BLOCK.min(head.queries) * head.keys;
            let (mut p, mut ds) = (vec![0.0; block_len], vec![0.0; block_len]);
            let normalizers = &saved[head.number(self.heads) * head.queries..][..head.queries];
            for (block, (dq, normalizers)) in
                dq.chunks_mut(BLOCK * head.size).zip(normalizers.chunks(BLOCK)).enumerate()
            {
                let (first, rows) = (block * BLOCK, normalizers.len());
                let (p, ds) = (&mut p[..rows * head.keys], &mut ds[..rows * head.keys]);
                let dy = head.queries(gradient, first, rows);
                self.scores(p, &head, q, head.keys(k), first);
                product(ds, head.keys, Before::Replace, (1.0, dy, head.keys(v).transpose()), Threads::One); // dP
                for ((p, ds), &normalizer) in
                    p.chunks_exact_mut(head.keys).zip(ds.chunks_exact_mut(head.keys)).zip(normalizers)
                {
                    wide(
                        #[inline(always)]
                        || {
                            for p in p.iter_mut() {
                                *p = exp(*p - normalizer);
                            }
                            let mean = sum_2(p, ds, |p, dp| p * dp);
                            for (ds, p) in ds.iter_mut().zip(p) {
                                *ds = *p * (*ds - mean);
                            }
                        },
                    );
                }
                let (p, ds) = (Matrix::new(p, rows, head.keys), Matrix::new(ds, rows, head.keys));
                let q = head.queries(q, first, rows);
                product(dq, head.size, Before::Replace, (head.scale, ds, head.keys(k)), Threads::One);
                product(&mut dk, head.size, Before::Add, (head.scale, ds.transpose(), q), Threads::One);
                product(&mut dv, head.size, Before::Add, (1.0, p.transpose(), dy), Threads::One);
            }
            [dq, dk, dv]
        });
        let part = |i: usize, t: usize| {
            let parts: Vec<_> = results.iter().map(|parts| parts[i].as_slice()).collect();
            Some(Array::new(self.join(&parts, b, t, c), [b, t, c]))
        };
        [part(0, tq), part(1, tk), part(2, tk)]
    }
}

impl Attention {
    fn heads(&self, q: &Array, k: &Array) -> Vec<Head> {
        let ([b, queries, channels], [_, keys, _]) = (q.shape(), k.shape());
        let size = channels / self.heads;
        let scale = (size as f32).sqrt().recip();
        let head = |i| Head { batch: i / self.heads, queries, keys, channels, size, index: i % self.heads, scale };
        (0..b * self.heads).map(head).collect()
    }

    /// `[rows, keys]`: the masked scores of a block of queries.
    fn scores(&self, scores: &mut [f32], head: &Head, q: &Array, k: Matrix, first: usize) {
        let rows = scores.len() / head.keys;
        let q = head.queries(q, first, rows);
        product(scores, head.keys, Before::Replace, (head.scale, q, k.transpose()), Threads::One);
        for (i, row) in scores.chunks_exact_mut(head.keys).enumerate() {
            match &self.visible {
                Visible::All => (),
                Visible::Past => row[first + i + 1..].fill(f32::NEG_INFINITY),
                Visible::Scores(mask) => {
                    let mask = &mask[head.batch * head.keys..][..head.keys];
                    row.iter_mut().zip(mask).for_each(|(score, mask)| *score += mask);
                }
            }
        }
    }

    /// Heads `[B · heads, T, C / heads]` to `[B, T, C]`.
    fn join(&self, heads: &[impl AsRef<[f32]>], b: usize, t: usize, c: usize) -> Vec<f32> {
        let size = c / self.heads;
        let mut y = Vec::with_capacity(b * t * c);
        for batch in heads.chunks_exact(self.heads) {
            for token in 0..t {
                batch.iter().for_each(|head| y.extend_from_slice(&head.as_ref()[token * size..][..size]));
            }
        }
        y
    }
}

impl Head {
    fn number(&self, heads: usize) -> usize {
        self.batch * heads + self.index
    }

    /// `[rows, size]`
    fn queries<'a>(&self, q: &'a Array, first: usize, rows: usize) -> Matrix<'a> {
        let start = (self.batch * self.queries + first) * self.channels + self.index * self.size;
        Matrix::strided(&q.data()[start..], rows, self.size, self.channels)
    }

    /// `[keys, size]`
    fn keys<'a>(&self, k: &'a Array) -> Matrix<'a> {
        let start = self.batch * self.keys * self.channels + self.index * self.size;
        Matrix::strided(&k.data()[start..], self.keys, self.size, self.channels)
    }
}

/// In place; returns the logarithm of what the exponentials were divided by.
fn softmax(row: &mut [f32]) -> f32 {
    wide(
        #[inline(always)]
        || {
            let largest = largest(row);
            for x in row.iter_mut() {
                *x = exp(*x - largest);
            }
            let total = sum(row, |x| x);
            let scale = total.recip();
            for x in row.iter_mut() {
                *x *= scale;
            }
            largest + total.ln()
        },
    )
}
