//! Work shared out to threads, and compiled for the widest vectors that the processor has.

use rayon::prelude::*;

/// Numbers below which handing work to another thread costs more than it saves.
const GRAIN: usize = 1 << 14;

/// Calls `work` with each number and chunk of `out`, `width` numbers long, on all threads.
pub fn chunks(out: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    let width = width.max(1);
    if out.len() <= GRAIN {
        out.chunks_mut(width).enumerate().for_each(|(i, out)| work(i, out));
    } else {
        let chunks = out.par_chunks_mut(width).enumerate();
        chunks.with_min_len(GRAIN.div_ceil(width)).for_each(|(i, out)| work(i, out));
    }
}

/// Like [`chunks`], for chunks that have no meaning of their own.
pub fn pieces(out: &mut [f32], work: impl Fn(usize, &mut [f32]) + Sync) {
    chunks(out, GRAIN, |i, out| work(i * GRAIN, out));
}

/// As many numbers as `x`: `work` makes each row of `width` from the row of that number in `x`.
pub fn rows(x: &[f32], width: usize, work: impl Fn(usize, &[f32], &mut [f32]) + Sync) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    chunks(&mut out, width, |i, out| work(i, &x[i * width..][..out.len()], out));
    out
}

/// Runs `work`, compiled once for each generation of processors.
#[inline(always)]
pub fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}
