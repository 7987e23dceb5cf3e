//! Data is drawn while the device computes.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

/// The values of `source` at these numbers, in order, computed ahead on all cores but one.
pub(super) fn prefetch<B: Send + 'static>(
    numbers: Range<u64>,
    source: impl Fn(u64) -> B + Send + Sync + 'static,
) -> impl Iterator<Item = B> {
    const AHEAD: usize = 2;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = (cores - 1).max(1);
    let source = Arc::new(source);
    let start = |first| {
        let (sender, receiver) = sync_channel(AHEAD);
        let (source, numbers) = (source.clone(), numbers.clone());
        thread::spawn(move || {
            // Nobody listens any more once the run has ended early.
            numbers.skip(first).step_by(threads).try_for_each(|number| sender.send(source(number)))
        });
        receiver
    };
    let receivers: Vec<Receiver<B>> = (0..threads).map(start).collect();
    (0..threads).cycle().map_while(move |thread| receivers[thread].recv().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_come_in_order() {
        let squares: Vec<_> = prefetch(2..9, |i| i * i).collect();
        assert_eq!(squares, [4, 9, 16, 25, 36, 49, 64]);
    }
}
