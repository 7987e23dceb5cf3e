//! Functions along one dimension.

use crate::engine::cpu::functions::exp;
use crate::engine::cpu::parallel;
use crate::engine::cpu::vector::{self, max, wide};

/// Softmax of rows of `width` numbers.
pub fn softmax(x: &[f32], width: usize) -> Vec<f32> {
    rows(x, width, |x, out| {
        wide(
            #[inline(always)]
            || {
                let max = max(x);
                out.iter_mut().zip(x).for_each(|(out, x)| *out = exp(x - max));
                let scale = (vector::sum(out, |x| x) as f32).recip();
                out.iter_mut().for_each(|out| *out *= scale);
            },
        );
    })
}

/// Logarithm of the softmax of rows of `width` numbers.
pub fn log_softmax(x: &[f32], width: usize) -> Vec<f32> {
    rows(x, width, |x, out| {
        wide(
            #[inline(always)]
            || {
                let max = max(x);
                let log = vector::sum(x, |x| exp(x - max)).ln() as f32;
                out.iter_mut().zip(x).for_each(|(out, x)| *out = x - max - log);
            },
        );
    })
}

/// As many numbers as `x`, each row of `width` made by `function` from the one in `x`.
fn rows(x: &[f32], width: usize, function: impl Fn(&[f32], &mut [f32]) + Sync + Send) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    parallel::chunks(&mut out, width, |i, out| function(&x[i * width..][..width], out));
    out
}

/// Sums `[outer, length, inner]` over `length`.
pub fn sum(x: &[f32], [outer, length, inner]: [usize; 3]) -> Vec<f32> {
    let mut out = vec![0.0; outer * inner];
    parallel::chunks(&mut out, inner, |i, out| {
        let x = &x[i * length * inner..][..length * inner];
        if inner == 1 {
            out[0] = wide(
                #[inline(always)]
                || vector::sum(x, |x| x),
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
