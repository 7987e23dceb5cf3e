//! Group and layer normalisation, with what follows fused in.

use super::functions::{silu, silu_slope};
use super::linear::sum_rows;
use super::parallel;
use super::vector::{sum, sum_2, wide};
use crate::engine::Activation;

/// Group normalisation of pictures `[B, C, H, W]`, then an activation.
#[derive(Debug, Clone, Copy)]
pub struct GroupNorm<'a> {
    /// Number of groups.
    pub groups: usize,
    /// `[C]`
    pub weight: &'a [f32],
    /// `[C]`
    pub bias: &'a [f32],
    /// `H · W`
    pub pixels: usize,
    /// Added to the variance.
    pub eps: f32,
    /// What follows.
    pub activation: Activation,
}

/// Mean, and one over the standard deviation.
type Statistics = [f32; 2];

impl<'a> GroupNorm<'a> {
    /// The result, and the [`Statistics`] of each group.
    pub fn forward(&self, x: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let n = self.channels() * self.pixels;
        let mut y = vec![0.0; x.len()];
        let tasks = y.chunks_mut(n).zip(x.chunks(n)).enumerate().collect();
        let statistics = parallel::map(x.len(), tasks, |(i, (y, x)): (usize, (&mut [f32], &[f32]))| {
            let affine = self.affine(i);
            wide(
                #[inline(always)]
                || self.normalize(affine, x, y),
            )
        });
        (y, statistics.into_flattened())
    }

    /// The derivatives with respect to x, weight and bias, of what the result has the derivative `dy` of.
    pub fn backward(&self, x: &[f32], statistics: &[f32], dy: &[f32]) -> [Vec<f32>; 3] {
        let (c, channels) = (self.weight.len(), self.channels());
        let n = channels * self.pixels;
        let batch = x.len() / (c * self.pixels);
        let mut dx = vec![0.0; x.len()];
        let (mut dweight, mut dbias) = (vec![0.0; batch * c], vec![0.0; batch * c]); // [B, C]
        let tasks = dx.chunks_mut(n).zip(dweight.chunks_mut(channels)).zip(dbias.chunks_mut(channels));
        parallel::map(x.len(), tasks.enumerate().collect(), |(i, ((dx, dweight), dbias))| {
            let affine = self.affine(i);
            let (x, dy) = (&x[i * n..][..n], &dy[i * n..][..n]);
            let statistics = [statistics[2 * i], statistics[2 * i + 1]];
            wide(
                #[inline(always)]
                || self.differentiate(affine, statistics, (x, dy), (dx, dweight, dbias)),
            );
        });
        [dx, sum_rows(&dweight, c), sum_rows(&dbias, c)]
    }

    /// Channels of a group.
    fn channels(&self) -> usize {
        self.weight.len() / self.groups
    }

    /// Weight and bias of group `i` of all pictures' groups.
    fn affine(&self, i: usize) -> [&'a [f32]; 2] {
        let first = i % self.groups * self.channels();
        [self.weight, self.bias].map(|x| &x[first..][..self.channels()])
    }

    /// `x` and `y` are the planes of the group's channels.
    #[inline(always)]
    fn normalize(&self, [weight, bias]: [&[f32]; 2], x: &[f32], y: &mut [f32]) -> Statistics {
        let [mean, scale] = statistics(x, self.eps);
        let planes = x.chunks_exact(self.pixels).zip(y.chunks_exact_mut(self.pixels));
        for (((x, y), &weight), &bias) in planes.zip(weight).zip(bias) {
            let scale = scale * weight;
            match self.activation {
                Activation::None => {
                    for (&x, y) in x.iter().zip(y) {
                        *y = (x - mean) * scale + bias;
                    }
                }
                Activation::Silu => {
                    for (&x, y) in x.iter().zip(y) {
                        *y = silu((x - mean) * scale + bias);
                    }
                }
            }
        }
        [mean, scale]
    }

    #[inline(always)]
    fn differentiate(
        &self,
        [weight, bias]: [&[f32]; 2],
        [mean, scale]: Statistics,
        (x, dy): (&[f32], &[f32]),
        (dx, dweight, dbias): (&mut [f32], &mut [f32], &mut [f32]),
    ) {
        // With x̂ the normalised input, ⟨⟩ the mean over the group and d the derivative by its name:
        // dx = scale · (dx̂ − ⟨dx̂⟩ − x̂ · ⟨x̂ · dx̂⟩).
        let plane = self.pixels;
        let (mut mean_d, mut mean_xd) = (0.0, 0.0);
        let planes = x.chunks_exact(plane).zip(dy.chunks_exact(plane)).zip(dx.chunks_exact_mut(plane));
        for (channel, ((x, dy), dx)) in planes.enumerate() {
            let (weight, bias) = (weight[channel], bias[channel]);
            let dz = match self.activation {
                Activation::None => dy,
                Activation::Silu => {
                    for ((dx, &dy), &x) in dx.iter_mut().zip(dy).zip(x) {
                        *dx = dy * silu_slope((x - mean) * scale * weight + bias);
                    }
                    &*dx
                }
            };
            dbias[channel] = sum(dz, |dz| dz) as f32;
            dweight[channel] = sum_2(x, dz, |x, dz| (x - mean) * dz) as f32 * scale;
            mean_d += weight * dbias[channel];
            mean_xd += weight * dweight[channel];
        }
        mean_d /= x.len() as f32;
        mean_xd /= x.len() as f32;
        let planes = x.chunks_exact(plane).zip(dy.chunks_exact(plane)).zip(dx.chunks_exact_mut(plane));
        for (channel, ((x, dy), dx)) in planes.enumerate() {
            let weight = weight[channel];
            let finish = |x: f32, dz: f32| scale * (weight * dz - mean_d - (x - mean) * scale * mean_xd);
            match self.activation {
                Activation::None => {
                    for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
                        *dx = finish(x, dy);
                    }
                }
                Activation::Silu => {
                    for (dx, &x) in dx.iter_mut().zip(x) {
                        *dx = finish(x, *dx);
                    }
                }
            }
        }
    }
}

/// Layer normalisation of rows.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm<'a> {
    /// As long as a row.
    pub weight: &'a [f32],
    /// As long as a row.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
}

/// Rows that a task of layer normalisation takes.
const ROWS: usize = 64;

impl LayerNorm<'_> {
    /// The result, and the [`Statistics`] of each row.
    pub fn forward(&self, x: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let Self { weight, bias, eps } = *self;
        let d = weight.len();
        let mut y = vec![0.0; x.len()];
        let mut saved = vec![0.0; x.len() / d * 2];
        let blocks = y.chunks_mut(ROWS * d).zip(x.chunks(ROWS * d)).zip(saved.chunks_mut(ROWS * 2));
        parallel::map(x.len(), blocks.collect(), |((y, x), saved): ((&mut [f32], &[f32]), &mut [f32])| {
            wide(
                #[inline(always)]
                || {
                    let rows = y.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(saved.chunks_exact_mut(2));
                    for ((y, x), saved) in rows {
                        let [mean, scale] = statistics(x, eps);
                        for (((y, &x), &weight), &bias) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                            *y = (x - mean) * scale * weight + bias;
                        }
                        saved.copy_from_slice(&[mean, scale]);
                    }
                },
            );
        });
        (y, saved)
    }

    /// The derivatives with respect to x, weight and bias, of what the result has the derivative `dy` of.
    pub fn backward(&self, x: &[f32], statistics: &[f32], dy: &[f32]) -> [Vec<f32>; 3] {
        let d = self.weight.len();
        let mut dx = vec![0.0; x.len()];
        let mut rest = dx.as_mut_slice();
        let tasks = parallel::runs(x.len(), x.len() / d).into_iter().map(|(start, length)| {
            let (dx, after) = std::mem::take(&mut rest).split_at_mut(length * d);
            rest = after;
            (start, dx)
        });
        let partial = parallel::map(x.len(), tasks.collect(), |(start, dx): (usize, &mut [f32])| {
            let (mut dweight, mut dbias) = (vec![0.0; d], vec![0.0; d]);
            let x = x[start * d..].chunks_exact(d).zip(dy[start * d..].chunks_exact(d));
            wide(
                #[inline(always)]
                || {
                    for ((dx, (x, dy)), statistics) in
                        dx.chunks_exact_mut(d).zip(x).zip(statistics[2 * start..].chunks_exact(2))
                    {
                        let (mean, scale) = (statistics[0], statistics[1]);
                        let sums = dweight.iter_mut().zip(&mut dbias).zip(self.weight);
                        for ((dx, (&x, &dy)), ((dweight, dbias), &weight)) in
                            dx.iter_mut().zip(x.iter().zip(dy)).zip(sums)
                        {
                            *dx = dy * weight;
                            *dbias += dy;
                            *dweight += dy * (x - mean) * scale;
                        }
                        let mean_d = sum(dx, |dx| dx) as f32 / d as f32;
                        let mean_xd = sum_2(x, dx, |x, dx| (x - mean) * dx) as f32 * scale / d as f32;
                        for (dx, &x) in dx.iter_mut().zip(x) {
                            *dx = scale * (*dx - mean_d - (x - mean) * scale * mean_xd);
                        }
                    }
                },
            );
            (dweight, dbias)
        });
        let (dweight, dbias): (Vec<_>, Vec<_>) = partial.into_iter().unzip();
        [dx, sum_rows(&dweight.concat(), d), sum_rows(&dbias.concat(), d)]
    }
}

#[inline(always)]
fn statistics(x: &[f32], eps: f32) -> Statistics {
    let n = x.len() as f64;
    let mean = (sum(x, |x| x) / n) as f32;
    let variance = sum(x, |x| (x - mean) * (x - mean)) / n;
    [mean, (1.0 / (variance + f64::from(eps)).sqrt()) as f32]
}
