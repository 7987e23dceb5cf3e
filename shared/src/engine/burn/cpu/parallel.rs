//! Work on all cores, where there are threads.

/// Numbers to touch below which a second thread costs more than it saves.
#[cfg(feature = "burn-native")]
const WORTHWHILE: usize = 1 << 14;

/// How many pieces to cut `work` numbers into.
pub fn pieces(work: usize) -> usize {
    #[cfg(feature = "burn-native")]
    return if work < WORTHWHILE { 1 } else { rayon::current_num_threads() };
    #[cfg(not(feature = "burn-native"))]
    {
        let _ = work;
        1
    }
}

/// `f` of each task, in order, where all tasks together touch `work` numbers.
pub fn map<T: Send, R: Send>(work: usize, tasks: Vec<T>, f: impl Fn(T) -> R + Sync + Send) -> Vec<R> {
    #[cfg(feature = "burn-native")]
    if pieces(work) > 1 && tasks.len() > 1 {
        use rayon::prelude::*;
        let together = (tasks.len() / (4 * pieces(work))).max(1);
        return tasks.into_par_iter().with_min_len(together).map(f).collect();
    }
    let _ = work;
    tasks.into_iter().map(f).collect()
}

/// Cuts `n` things into as many runs as are worthwhile: their starts and lengths.
pub fn runs(work: usize, n: usize) -> Vec<(usize, usize)> {
    let pieces = pieces(work).min(n).max(1);
    (0..pieces).map(|i| (n * i / pieces, n * (i + 1) / pieces - n * i / pieces)).collect()
}
