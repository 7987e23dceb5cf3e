//! Activations, one pass over memory each.

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
