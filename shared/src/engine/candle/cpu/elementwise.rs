//! Functions of numbers that stand in the same place.

use crate::engine::cpu::parallel;
use crate::engine::cpu::vector::wide;

/// Numbers that a thread takes.
const PIECE: usize = 1 << 14;

/// Numbers read in the order of some shape; a stride of 0 repeats a dimension.
pub struct View<'a> {
    pub numbers: &'a [f32],
    pub strides: Vec<usize>,
}

/// `function` of each number of `x`, row-major.
pub fn map(shape: &[usize], x: View, function: impl Fn(f32) -> f32 + Sync + Send) -> Vec<f32> {
    each_run(shape, [&x.strides], |out, [x_at], [x_stride]| {
        let x = &x.numbers[x_at..];
        wide(
            #[inline(always)]
            || match x_stride {
                1 => out.iter_mut().zip(x).for_each(|(out, &x)| *out = function(x)),
                stride => out.iter_mut().enumerate().for_each(|(i, out)| *out = function(x[i * stride])),
            },
        );
    })
}

/// `function` of each pair from `a` and `b`, row-major.
pub fn zip(shape: &[usize], a: View, b: View, function: impl Fn(f32, f32) -> f32 + Sync + Send) -> Vec<f32> {
    each_run(shape, [&a.strides, &b.strides], |out, [a_at, b_at], strides| {
        let (a, b) = (&a.numbers[a_at..], &b.numbers[b_at..]);
        wide(
            #[inline(always)]
            || match strides {
                [1, 1] => out.iter_mut().zip(a).zip(b).for_each(|((out, &a), &b)| *out = function(a, b)),
                [1, 0] => out.iter_mut().zip(a).for_each(|(out, &a)| *out = function(a, b[0])),
                [0, 1] => out.iter_mut().zip(b).for_each(|(out, &b)| *out = function(a[0], b)),
                [by_a, by_b] => {
                    out.iter_mut().enumerate().for_each(|(i, out)| *out = function(a[i * by_a], b[i * by_b]));
                }
            },
        );
    })
}

/// Numbers of that shape, made in runs along which each of `N` views has one stride.
/// `run` gets a run's place in the result, each view's first number, and each view's stride.
fn each_run<const N: usize>(
    shape: &[usize],
    strides: [&[usize]; N],
    run: impl Fn(&mut [f32], [usize; N], [usize; N]) + Sync + Send,
) -> Vec<f32> {
    let dims = merge(shape, strides);
    let (&(length, step), outer) = dims.split_last().expect("at least one dimension");
    let mut out = vec![0.0; shape.iter().product()];
    parallel::chunks(&mut out, PIECE, |piece, mut out| {
        let mut at = piece * PIECE;
        while !out.is_empty() {
            let (mut rest, within) = (at / length, at % length);
            let mut first = step.map(|step| step * within);
            for (size, steps) in outer.iter().rev() {
                first.iter_mut().zip(steps).for_each(|(first, step)| *first += rest % size * step);
                rest /= size;
            }
            let here = out.len().min(length - within);
            let (head, tail) = out.split_at_mut(here);
            run(head, first, step);
            (at, out) = (at + here, tail);
        }
    });
    out
}

/// Sizes and strides of the fewest dimensions that describe the same order, outermost first.
fn merge<const N: usize>(shape: &[usize], strides: [&[usize]; N]) -> Vec<(usize, [usize; N])> {
    let mut dims: Vec<(usize, [usize; N])> = Vec::with_capacity(shape.len());
    for (dim, &size) in shape.iter().enumerate().filter(|&(_, &size)| size != 1) {
        let steps = strides.map(|strides| strides[dim]);
        match dims.last_mut() {
            Some((outer, outer_steps)) if (0..N).all(|i| outer_steps[i] == steps[i] * size) => {
                (*outer, *outer_steps) = (*outer * size, steps);
            }
            _ => dims.push((size, steps)),
        }
    }
    if dims.is_empty() {
        dims.push((1, [1; N]));
    }
    dims
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_that_continue_each_other_merge() {
        assert_eq!(merge(&[2, 3, 4], [&[12, 4, 1]]), [(24, [1])]);
        assert_eq!(merge(&[2, 1, 4], [&[4, 9, 1]]), [(8, [1])]);
        assert_eq!(merge(&[2, 3, 4], [&[12, 1, 3]]), [(2, [12]), (3, [1]), (4, [3])]);
        assert_eq!(merge(&[2, 3, 4, 5], [&[60, 20, 5, 1], &[3, 1, 0, 0]]), [(6, [20, 1]), (20, [1, 0])]);
        assert_eq!(merge(&[1, 1], [&[7, 7]]), [(1, [1])]);
    }
}
