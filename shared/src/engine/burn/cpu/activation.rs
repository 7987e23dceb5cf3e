//! Activations, one pass over memory each.

use ::burn::backend::TensorMetadata;

use super::simd::{normal, sigmoid, wide};
use super::{Array, Kernel, parallel};
use crate::engine::Unary;

/// An activation among [`Unary`]: of `[…]`, the same shape.
#[derive(Debug, Clone)]
pub struct Activate(pub Unary);

/// CLIP's approximation of GELU.
const QUICK_GELU: f32 = 1.702;

/// Numbers that a task takes.
const TASK: usize = 1 << 12;

impl Kernel<1> for Activate {
    fn forward(&self, [x]: [&Array; 1]) -> (Array, Vec<f32>) {
        let y = match self.0 {
            Unary::Silu => map(x.data(), |x| x * sigmoid(x)),
            Unary::Gelu => map(x.data(), |x| x * normal(x).0),
            Unary::QuickGelu => map(x.data(), |x| x * sigmoid(QUICK_GELU * x)),
            other => unreachable!("{other:?} is no activation"),
        };
        (x.like(y), vec![])
    }

    fn backward(&self, [x]: [&Array; 1], _: &[f32], gradient: &Array, _: [bool; 1]) -> [Option<Array>; 1] {
        let (data, gradient) = (x.data(), gradient.data());
        let dx = match self.0 {
            Unary::Silu => map_2(data, gradient, |x, dy| dy * silu_slope(x)),
            Unary::Gelu => map_2(data, gradient, |x, dy| {
                let (below, density) = normal(x);
                dy * (below + x * density)
            }),
            Unary::QuickGelu => map_2(data, gradient, |x, dy| dy * silu_slope(QUICK_GELU * x)),
            other => unreachable!("{other:?} is no activation"),
        };
        [Some(x.like(dx))]
    }
}

/// GEGLU: `x · gelu(gate)` of `[…, 2·n]`, x before gate, to `[…, n]`.
#[derive(Debug, Clone)]
pub struct Geglu;

impl Kernel<1> for Geglu {
    fn forward(&self, [x]: [&Array; 1]) -> (Array, Vec<f32>) {
        let (x, mut shape) = (x.data(), x.0.shape());
        let last = shape.num_dims() - 1;
        let n = shape[last] / 2;
        shape[last] = n;
        let mut y = vec![0.0; x.len() / 2];
        let rows = (TASK / n).max(1);
        parallel::map(x.len(), y.chunks_mut(rows * n).zip(x.chunks(rows * 2 * n)).collect(), |(y, x)| {
            let (y, x): (&mut [f32], &[f32]) = (y, x);
            wide(
                #[inline(always)]
                || {
                    for (y, x) in y.chunks_exact_mut(n).zip(x.chunks_exact(2 * n)) {
                        let (x, gate) = x.split_at(n);
                        for ((y, x), gate) in y.iter_mut().zip(x).zip(gate) {
                            *y = x * gate * normal(*gate).0;
                        }
                    }
                },
            );
        });
        (Array::new(y, shape), vec![])
    }

    fn backward(&self, [x]: [&Array; 1], _: &[f32], gradient: &Array, _: [bool; 1]) -> [Option<Array>; 1] {
        let shape = x.0.shape();
        let n = shape[shape.num_dims() - 1] / 2;
        let (numbers, dy) = (x.data(), gradient.data());
        let mut dx = vec![0.0; numbers.len()];
        let rows = (TASK / n).max(1);
        let inputs = numbers.chunks(rows * 2 * n).zip(dy.chunks(rows * n));
        parallel::map(numbers.len(), dx.chunks_mut(rows * 2 * n).zip(inputs).collect(), |(dx, (x, dy))| {
            let (dx, x, dy): (&mut [f32], &[f32], &[f32]) = (dx, x, dy);
            wide(
                #[inline(always)]
                || {
                    for ((dx, x), dy) in dx.chunks_exact_mut(2 * n).zip(x.chunks_exact(2 * n)).zip(dy.chunks_exact(n)) {
                        let ((dx, dgate), (x, gate)) = (dx.split_at_mut(n), x.split_at(n));
                        for ((((dx, dgate), x), gate), dy) in dx.iter_mut().zip(dgate).zip(x).zip(gate).zip(dy) {
                            let (below, density) = normal(*gate);
                            *dx = dy * gate * below;
                            *dgate = dy * x * (below + gate * density);
                        }
                    }
                },
            );
        });
        [Some(x.like(dx))]
    }
}

/// The derivative of SiLU.
#[inline(always)]
pub fn silu_slope(x: f32) -> f32 {
    let s = sigmoid(x);
    s * (1.0 + x * (1.0 - s))
}

fn map(x: &[f32], f: impl Fn(f32) -> f32 + Sync + Send) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    parallel::map(x.len(), y.chunks_mut(TASK).zip(x.chunks(TASK)).collect(), |(y, x): (&mut [f32], &[f32])| {
        wide(
            #[inline(always)]
            || {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = f(x);
                }
            },
        );
    });
    y
}

fn map_2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync + Send) -> Vec<f32> {
    let mut y = vec![0.0; a.len()];
    let tasks = y.chunks_mut(TASK).zip(a.chunks(TASK)).zip(b.chunks(TASK)).collect();
    parallel::map(a.len(), tasks, |((y, a), b): ((&mut [f32], &[f32]), &[f32])| {
        wide(
            #[inline(always)]
            || {
                for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
                    *y = f(a, b);
                }
            },
        );
    });
    y
}
