//! Group and layer normalisation, with what follows fused in.

use super::activation::silu_slope;
use super::simd::{sigmoid, sum, sum_2, wide};
use super::{Array, Kernel, parallel};
use crate::engine::Activation;

/// Group normalisation of `[B, C, H, W]` by weight and bias `[C]`, then an activation.
#[derive(Debug, Clone)]
pub struct GroupNorm {
    /// Number of groups.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
    /// What follows.
    pub activation: Activation,
}

/// Mean, and one over the standard deviation.
type Statistics = [f32; 2];

/// A group's channels.
#[derive(Clone, Copy)]
struct Group<'a> {
    /// Pixels of a channel.
    plane: usize,
    /// By channel, from the group's first on.
    weight: &'a [f32],
    /// Likewise.
    bias: &'a [f32],
}

impl Kernel<3> for GroupNorm {
    fn forward(&self, [x, weight, bias]: [&Array; 3]) -> (Array, Vec<f32>) {
        let [b, c, h, w] = x.shape();
        let (channels, plane) = (c / self.groups, h * w);
        let mut y = vec![0.0; x.data().len()];
        let tasks = y.chunks_mut(channels * plane).zip(x.data().chunks(channels * plane)).enumerate().collect();
        let statistics = parallel::map(b * c * plane, tasks, |(i, (y, x)): (usize, (&mut [f32], &[f32]))| {
            let first = i % self.groups * channels;
            let group = Group { plane, weight: &weight.data()[first..], bias: &bias.data()[first..] };
            wide(
                #[inline(always)]
                || self.normalize(group, x, y),
            )
        });
        (x.like(y), statistics.into_flattened())
    }

    fn backward(
        &self,
        [x, weight, bias]: [&Array; 3],
        saved: &[f32],
        gradient: &Array,
        _: [bool; 3],
    ) -> [Option<Array>; 3] {
        let [b, c, h, w] = x.shape();
        let (channels, plane) = (c / self.groups, h * w);
        let n = channels * plane;
        let mut dx = vec![0.0; x.data().len()];
        let (mut dweight, mut dbias) = (vec![0.0; b * c], vec![0.0; b * c]); // [B, C]
        let tasks = dx.chunks_mut(n).zip(dweight.chunks_mut(channels)).zip(dbias.chunks_mut(channels));
        parallel::map(b * c * plane, tasks.enumerate().collect(), |(i, ((dx, dweight), dbias))| {
            let first = i % self.groups * channels;
            let group = Group { plane, weight: &weight.data()[first..], bias: &bias.data()[first..] };
            let (x, dy) = (&x.data()[i * n..][..n], &gradient.data()[i * n..][..n]);
            let statistics = [saved[2 * i], saved[2 * i + 1]];
            wide(
                #[inline(always)]
                || self.differentiate(group, statistics, (x, dy), (dx, dweight, dbias)),
            );
        });
        let (dweight, dbias) = (sum_rows(&dweight, c), sum_rows(&dbias, c));
        [Some(x.like(dx)), Some(weight.like(dweight)), Some(bias.like(dbias))]
    }
}

impl GroupNorm {
    /// `x` and `y` are the planes of the group's channels.
    #[inline(always)]
    fn normalize(&self, Group { plane, weight, bias }: Group, x: &[f32], y: &mut [f32]) -> Statistics {
        let [mean, scale] = statistics(x, self.eps);
        for (channel, (x, y)) in x.chunks_exact(plane).zip(y.chunks_exact_mut(plane)).enumerate() {
            let scale = scale * weight[channel];
            let offset = bias[channel] - mean * scale;
            match self.activation {
                Activation::None => {
                    for (&x, y) in x.iter().zip(y) {
                        *y = x * scale + offset;
                    }
                }
                Activation::Silu => {
                    for (&x, y) in x.iter().zip(y) {
                        let z = x * scale + offset;
                        *y = z * sigmoid(z);
                    }
                }
            }
        }
        [mean, scale]
    }

    #[inline(always)]
    fn differentiate(
        &self,
        Group { plane, weight, bias }: Group,
        [mean, scale]: Statistics,
        (x, dy): (&[f32], &[f32]),
        (dx, dweight, dbias): (&mut [f32], &mut [f32], &mut [f32]),
    ) {
        // With x̂ the normalised input, ⟨⟩ the mean over the group and d the derivative by its name:
        // dx = scale · (dx̂ − ⟨dx̂⟩ − x̂ · ⟨x̂ · dx̂⟩).
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
            dbias[channel] = sum(dz, |dz| dz);
            dweight[channel] = sum_2(x, dz, |x, dz| (x - mean) * dz) * scale;
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

/// Layer normalisation of `[…, D]` by weight and bias `[D]`.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// Added to the variance.
    pub eps: f32,
}

/// Rows that a task of layer normalisation takes.
const ROWS: usize = 64;

impl Kernel<3> for LayerNorm {
    fn forward(&self, [x, weight, bias]: [&Array; 3]) -> (Array, Vec<f32>) {
        let [d] = weight.shape();
        let mut y = vec![0.0; x.data().len()];
        let mut saved = vec![0.0; y.len() / d * 2];
        let blocks = y.chunks_mut(ROWS * d).zip(x.data().chunks(ROWS * d)).zip(saved.chunks_mut(ROWS * 2));
        parallel::map(x.data().len(), blocks.collect(), |((y, x), saved): ((&mut [f32], &[f32]), &mut [f32])| {
            wide(
                #[inline(always)]
                || {
                    let rows = y.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(saved.chunks_exact_mut(2));
                    for ((y, x), saved) in rows {
                        let [mean, scale] = statistics(x, self.eps);
                        for (((y, &x), &weight), &bias) in y.iter_mut().zip(x).zip(weight.data()).zip(bias.data()) {
                            *y = (x - mean) * scale * weight + bias;
                        }
                        saved.copy_from_slice(&[mean, scale]);
                    }
                },
            );
        });
        (x.like(y), saved)
    }

    fn backward(
        &self,
        [x, weight, bias]: [&Array; 3],
        saved: &[f32],
        gradient: &Array,
        _: [bool; 3],
    ) -> [Option<Array>; 3] {
        let [d] = weight.shape();
        let rows = x.data().len() / d;
        let mut dx = vec![0.0; x.data().len()];
        let runs = parallel::runs(x.data().len(), rows);
        let mut rest = dx.as_mut_slice();
        let tasks = runs.into_iter().map(|(start, length)| {
            let (dx, after) = std::mem::take(&mut rest).split_at_mut(length * d);
            rest = after;
            (start, dx)
        });
        let partial = parallel::map(x.data().len(), tasks.collect(), |(start, dx): (usize, &mut [f32])| {
            let (mut dweight, mut dbias) = (vec![0.0; d], vec![0.0; d]);
            let x = x.data()[start * d..].chunks_exact(d).zip(gradient.data()[start * d..].chunks_exact(d));
            wide(
                #[inline(always)]
                || {
                    for ((dx, (x, dy)), statistics) in
                        dx.chunks_exact_mut(d).zip(x).zip(saved[2 * start..].chunks_exact(2))
                    {
                        let (mean, scale) = (statistics[0], statistics[1]);
                        let sums = dweight.iter_mut().zip(&mut dbias).zip(weight.data());
                        for ((dx, (&x, &dy)), ((dweight, dbias), &weight)) in
                            dx.iter_mut().zip(x.iter().zip(dy)).zip(sums)
                        {
                            *dx = dy * weight;
                            *dbias += dy;
                            *dweight += dy * (x - mean) * scale;
                        }
                        let mean_d = sum(dx, |dx| dx) / d as f32;
                        let mean_xd = sum_2(x, dx, |x, dx| (x - mean) * dx) * scale / d as f32;
                        for (dx, &x) in dx.iter_mut().zip(x) {
                            *dx = scale * (*dx - mean_d - (x - mean) * scale * mean_xd);
                        }
                    }
                },
            );
            (dweight, dbias)
        });
        let (dweight, dbias): (Vec<_>, Vec<_>) = partial.into_iter().unzip();
        let (dweight, dbias) = (sum_rows(&dweight.concat(), d), sum_rows(&dbias.concat(), d));
        [Some(x.like(dx)), Some(weight.like(dweight)), Some(bias.like(dbias))]
    }
}

#[inline(always)]
fn statistics(x: &[f32], eps: f32) -> Statistics {
    let n = x.len() as f32;
    let mean = sum(x, |x| x) / n;
    let variance = sum(x, |x| (x - mean) * (x - mean)) / n;
    [mean, 1.0 / (variance + eps).sqrt()]
}

/// `[rows, n]` to `[n]`.
pub fn sum_rows(x: &[f32], n: usize) -> Vec<f32> {
    let mut total = vec![0.0; n];
    wide(
        #[inline(always)]
        || {
            for row in x.chunks_exact(n) {
                for (total, x) in total.iter_mut().zip(row) {
                    *total += x;
                }
            }
        },
    );
    total
}
