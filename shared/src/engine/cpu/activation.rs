//! Activations, one pass over memory each.

use super::functions::{gelu, gelu_slope, normal, quick_gelu, quick_gelu_slope, silu, silu_slope};
use super::parallel;
use super::vector::wide;
use crate::engine::Unary;

/// Numbers that a task takes.
const TASK: usize = 1 << 12;

/// An activation among [`Unary`].
///
/// # Panics
/// If it is none.
pub fn activate(function: Unary, x: &[f32]) -> Vec<f32> {
    match function {
        Unary::Silu => map(x, silu),
        Unary::Gelu => map(x, gelu),
        Unary::QuickGelu => map(x, quick_gelu),
        other => unreachable!("{other:?} is no activation"),
    }
}

/// The derivative with respect to `x` of what [`activate`]'s result has the derivative `dy` of.
///
/// # Panics
/// As [`activate`].
pub fn activate_backward(function: Unary, x: &[f32], dy: &[f32]) -> Vec<f32> {
    match function {
        Unary::Silu => map_2(x, dy, |x, dy| dy * silu_slope(x)),
        Unary::Gelu => map_2(x, dy, |x, dy| dy * gelu_slope(x)),
        Unary::QuickGelu => map_2(x, dy, |x, dy| dy * quick_gelu_slope(x)),
        other => unreachable!("{other:?} is no activation"),
    }
}

/// GEGLU: `x · gelu(gate)` of rows of `2·n` numbers, x before gate, to rows of `n`.
pub fn geglu(x: &[f32], n: usize) -> Vec<f32> {
    let mut y = vec![0.0; x.len() / 2];
    let rows = rows(n);
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
    y
}

/// The derivative with respect to `x` of what [`geglu`]'s result has the derivative `dy` of.
pub fn geglu_backward(x: &[f32], n: usize, dy: &[f32]) -> Vec<f32> {
    let mut dx = vec![0.0; x.len()];
    let rows = rows(n);
    let inputs = x.chunks(rows * 2 * n).zip(dy.chunks(rows * n));
    parallel::map(x.len(), dx.chunks_mut(rows * 2 * n).zip(inputs).collect(), |(dx, (x, dy))| {
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
    dx
}

/// Rows of `n` numbers that a task takes.
fn rows(n: usize) -> usize {
    (TASK / n).max(1)
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
