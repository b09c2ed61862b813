//! Workers that threads share: each call takes one for itself, so that calls from several threads run side by side.

use std::sync::{Mutex, PoisonError};

/// Idle workers, and the one that new ones are copies of.
pub struct Pool<T> {
    fresh: T,
    idle: Mutex<Vec<T>>,
}

impl<T: Clone> Pool<T> {
    pub fn new(fresh: T) -> Self {
        Pool { fresh, idle: Mutex::new(Vec::new()) }
    }

    /// Runs one call on an idle worker, or on a new one if there is none. There are never more workers than there were
    /// calls at once; each keeps its buffers.
    pub fn with<R>(&self, call: impl FnOnce(&mut T) -> R) -> R {
        let taken = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut worker = taken.unwrap_or_else(|| self.fresh.clone());
        let result = call(&mut worker);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
        result
    }
}
