//! Places of which nobody may have many at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

/// So many places for each.
#[derive(Debug)]
pub(crate) struct Shares<K> {
    each: usize,
    taken: Mutex<HashMap<K, Arc<Semaphore>>>,
}

impl<K: Eq + Hash> Shares<K> {
    /// `each` has so many.
    pub(crate) fn new(each: usize) -> Self {
        Self { each, taken: Mutex::default() }
    }

    /// Those of `key`.
    pub(crate) fn of(&self, key: K) -> Arc<Semaphore> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        // Who has none, and waits for none, begins anew.
        taken.retain(|_, places| Arc::strong_count(places) > 1);
        Arc::clone(taken.entry(key).or_insert_with(|| Arc::new(Semaphore::new(self.each))))
    }
}
