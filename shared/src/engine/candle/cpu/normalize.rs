//! Functions of a whole row of numbers: softmax, norms, sums.

use super::math;
use super::parallel::{self, vectorised};
use crate::engine::Activation;

pub fn softmax(x: &[f32], out: &mut [f32]) {
    out.copy_from_slice(x);
    softmax_in_place(out);
}

pub fn softmax_in_place(x: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || {
            let max = math::max(x);
            x.iter_mut().for_each(|x| *x = math::exp(*x - max));
            let scale = (1.0 / math::sum(x, |x| x)) as f32;
            x.iter_mut().for_each(|x| *x *= scale);
        },
    );
}

pub fn log_softmax(x: &[f32], out: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || {
            let max = math::max(x);
            let log = math::sum(x, |x| math::exp(x - max)).ln() as f32;
            out.iter_mut().zip(x).for_each(|(out, x)| *out = x - max - log);
        },
    );
}

pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || {
            let (mean, scale) = moments(x, eps);
            for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                *out = (x - mean) * scale * weight + bias;
            }
        },
    );
}

/// One group: a weight and a bias for each of its channels.
pub fn group_norm(x: &[f32], [weight, bias]: [&[f32]; 2], eps: f32, activation: Activation, out: &mut [f32]) {
    let pixels = x.len() / weight.len();
    vectorised(
        #[inline(always)]
        || {
            let (mean, scale) = moments(x, eps);
            for (channel, (x, out)) in x.chunks(pixels).zip(out.chunks_mut(pixels)).enumerate() {
                let scale = scale * weight[channel];
                let offset = bias[channel];
                let norm = |x: f32| (x - mean) * scale + offset;
                match activation {
                    Activation::None => out.iter_mut().zip(x).for_each(|(out, &x)| *out = norm(x)),
                    Activation::Silu => out.iter_mut().zip(x).for_each(|(out, &x)| *out = math::silu(norm(x))),
                }
            }
        },
    );
}

/// Mean and `1 / √(variance + eps)`.
#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let mean = (math::sum(x, |x| x) / x.len() as f64) as f32;
    let variance = math::sum(x, |x| (x - mean) * (x - mean)) / x.len() as f64;
    (mean, (1.0 / (variance + f64::from(eps)).sqrt()) as f32)
}

/// Sums `[outer, length, inner]` over `length`.
pub fn sum(x: &[f32], [outer, length, inner]: [usize; 3]) -> Vec<f32> {
    let mut out = vec![0.0; outer * inner];
    parallel::chunks(&mut out, inner, |i, out| {
        let x = &x[i * length * inner..][..length * inner];
        if inner == 1 {
            out[0] = vectorised(
                #[inline(always)]
                || math::sum(x, |x| x),
            ) as f32;
            return;
        }
        let mut sums = vec![0.0; inner];
        for row in x.chunks(inner) {
            sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        }
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum as f32);
    });
    out
}
