//! Running out of memory when a test wants it, for tests alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use candle_core::Error;

use super::CandleDevice;
use super::failure::Failure;

/// When operations fail. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Plan>);

#[derive(Debug, Default)]
struct Plan {
    /// Operations until one fails, that one included; 0 is none.
    left: AtomicUsize,
    /// Whether all fail after that one.
    lasts: AtomicBool,
    has_failed: AtomicBool,
    /// Most tensors; 0 is no limit.
    room: AtomicUsize,
    most: AtomicUsize,
}

impl Faults {
    /// Lets the operation of that number fail, counted from 1; 0 is none.
    pub fn set(&self, operations: usize) {
        self.plan(operations, false);
    }

    /// Lets the operation of that number and all after it fail, until something else is set.
    pub fn set_lasting(&self, operations: usize) {
        self.plan(operations, true);
    }

    /// Lets operations fail while there are more than so many tensors, those that are being computed included; 0 is no
    /// limit.
    pub fn set_room(&self, tensors: usize) {
        self.0.room.store(tensors, Ordering::SeqCst);
    }

    /// How many operations are left until one fails.
    pub fn left(&self) -> usize {
        self.0.left.load(Ordering::SeqCst)
    }

    /// The most tensors that there were at an operation since this was asked last.
    pub fn take_most(&self) -> usize {
        self.0.most.swap(0, Ordering::SeqCst)
    }

    fn plan(&self, operations: usize, lasts: bool) {
        self.0.has_failed.store(false, Ordering::SeqCst);
        self.0.lasts.store(lasts, Ordering::SeqCst);
        self.0.left.store(operations, Ordering::SeqCst);
    }

    pub(super) fn count(&self) -> Result<(), Failure> {
        let plan = &*self.0;
        // Each tensor has its device with it.
        let tensors = Arc::strong_count(&self.0);
        plan.most.fetch_max(tensors, Ordering::SeqCst);
        let before = plan.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if before == Ok(1) {
            plan.has_failed.store(true, Ordering::SeqCst);
        }
        let room = plan.room.load(Ordering::SeqCst);
        let fails = before == Ok(1)
            || plan.lasts.load(Ordering::SeqCst) && plan.has_failed.load(Ordering::SeqCst)
            || room > 0 && tensors > room;
        if fails { Err(Error::Msg("out of memory, as a test wants it".into()).into()) } else { Ok(()) }
    }
}

impl CandleDevice {
    /// What decides when it fails.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }
}
