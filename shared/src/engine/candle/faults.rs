//! Running out of memory at a chosen operation, for tests alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Error;

use super::CandleDevice;
use super::failure::Failure;

/// How many operations are left until one fails, that one included; 0 is none. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Countdown(Arc<AtomicUsize>);

impl Countdown {
    /// Lets the operation of that number fail, counted from 1; 0 is none.
    pub fn set(&self, operations: usize) {
        self.0.store(operations, Ordering::SeqCst);
    }

    /// What is left of it.
    pub fn left(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    pub(super) fn count(&self) -> Result<(), Failure> {
        let before = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if before == Ok(1) { Err(Error::Msg("out of memory, as a test wants it".into()).into()) } else { Ok(()) }
    }
}

impl CandleDevice {
    /// What decides when it fails.
    pub fn faults(&self) -> &Countdown {
        &self.faults
    }
}
