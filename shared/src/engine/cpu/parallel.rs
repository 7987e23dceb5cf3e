//! Work on all threads, where there are threads.

/// Numbers to touch below which a second thread costs more than it saves.
#[cfg(feature = "threads")]
const WORTHWHILE: usize = 1 << 14;

/// How many pieces to cut `work` numbers into.
pub fn pieces(work: usize) -> usize {
    #[cfg(feature = "threads")]
    return if work < WORTHWHILE { 1 } else { rayon::current_num_threads() };
    #[cfg(not(feature = "threads"))]
    {
        let _ = work;
        1
    }
}

/// `f` of each task, in order, where all tasks together touch `work` numbers.
pub fn map<T: Send, R: Send>(work: usize, tasks: Vec<T>, f: impl Fn(T) -> R + Sync + Send) -> Vec<R> {
    map_init(work, tasks, || (), |(), task| f(task))
}

/// Like [`map`]; what `init` makes, such as memory to work in, goes through several tasks of a thread.
pub fn map_init<T: Send, S, R: Send>(
    work: usize,
    tasks: Vec<T>,
    init: impl Fn() -> S + Sync + Send,
    f: impl Fn(&mut S, T) -> R + Sync + Send,
) -> Vec<R> {
    #[cfg(feature = "threads")]
    if pieces(work) > 1 && tasks.len() > 1 {
        use rayon::prelude::*;
        let together = (tasks.len() / (4 * pieces(work))).max(1);
        return tasks.into_par_iter().with_min_len(together).map_init(init, f).collect();
    }
    let _ = work;
    let mut state = init();
    tasks.into_iter().map(|task| f(&mut state, task)).collect()
}

/// Calls `f` with the number of each chunk of `out`, and the chunk, `width` numbers long.
pub fn chunks(out: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync + Send) {
    let width = width.max(1);
    #[cfg(feature = "threads")]
    if out.len() > WORTHWHILE {
        use rayon::prelude::*;
        let chunks = out.par_chunks_mut(width).enumerate().with_min_len(WORTHWHILE.div_ceil(width));
        return chunks.for_each(|(i, out)| f(i, out));
    }
    out.chunks_mut(width).enumerate().for_each(|(i, out)| f(i, out));
}

/// Cuts `n` things into as many runs as are worthwhile: their starts and lengths.
pub fn runs(work: usize, n: usize) -> Vec<(usize, usize)> {
    let pieces = pieces(work).min(n).max(1);
    (0..pieces).map(|i| (n * i / pieces, n * (i + 1) / pieces - n * i / pieces)).collect()
}
