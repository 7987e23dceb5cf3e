//! Data is drawn while the device computes.

use std::ops::Range;
use std::sync::mpsc::sync_channel;
use std::thread;

/// The values of `source` at these numbers, in order, computed ahead on a thread of their own.
pub(super) fn prefetch<B: Send + 'static>(
    numbers: Range<u64>,
    source: Box<dyn Fn(u64) -> B + Send>,
) -> impl Iterator<Item = B> {
    const AHEAD: usize = 3;
    let (sender, receiver) = sync_channel(AHEAD);
    thread::spawn(move || {
        // Nobody listens any more once the run has ended early.
        numbers.map(source).try_for_each(|batch| sender.send(batch))
    });
    receiver.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_come_in_order() {
        let squares: Vec<_> = prefetch(2..9, Box::new(|i| i * i)).collect();
        assert_eq!(squares, [4, 9, 16, 25, 36, 49, 64]);
    }
}
