//! Linear maps.

use super::matrix::{Before, Matrix, Product, Threads};
use super::parallel;
use super::vector::wide;

/// Rows below which they are not worth sharing out among threads.
const FEW: usize = 64;

/// `x · weight + bias`: rows x `[N, in]`, weight `[in, out]`, bias `[out]` to the rows of y `[N, out]`.
pub fn linear(x: Matrix, weight: Matrix, bias: Option<&[f32]>, y: &mut [f32]) {
    let ([rows, _], [_, output]) = (x.size(), weight.size());
    let before = if bias.is_some() { Before::Add } else { Before::Replace };
    let work = if rows < FEW { 0 } else { y.len() };
    let run = rows.div_ceil(parallel::pieces(work)).max(1);
    let tasks: Vec<_> = y.chunks_mut((run * output).max(1)).enumerate().collect();
    let threads = if tasks.len() > 1 { Threads::One } else { Threads::All };
    parallel::map(work, tasks, |(i, y): (usize, &mut [f32])| {
        if let Some(bias) = bias {
            y.chunks_exact_mut(output).for_each(|y| y.copy_from_slice(bias));
        }
        Product::of(x.rows(i * run, y.len() / output), weight).on(threads).write(y, output, before);
    });
}

/// `leftᵀ · right`, as a weight's derivative is of inputs and a result's derivatives, row by row.
pub fn sum_of_outer_products(left: Matrix, right: Matrix) -> Vec<f32> {
    let ([rows, m], [_, n]) = (left.size(), right.size());
    let work = rows * m.max(n);
    add_up(parallel::map(work, parallel::runs(work, rows), |(start, count)| {
        let mut sum = vec![0.0; m * n];
        let (left, right) = (left.rows(start, count), right.rows(start, count));
        Product::of(left.transpose(), right).write(&mut sum, n, Before::Replace);
        sum
    }))
}

/// The sum of several vectors.
pub fn add_up(partial: Vec<Vec<f32>>) -> Vec<f32> {
    let mut partial = partial.into_iter();
    let mut total = partial.next().unwrap_or_default();
    for other in partial {
        total.iter_mut().zip(other).for_each(|(total, other)| *total += other);
    }
    total
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
