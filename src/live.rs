//! Values that threads share: one that a reload may replace, and those behind a lock.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// The value behind `mutex`, also after a thread panicked with it: a panic leaves nothing half-done behind our locks.
pub fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets go of what [`hold`] gave, and holds it again once `changed` is told or the time is over; without a limit there
/// is no such time. As with any such wait, nothing may have changed.
pub fn wait<'a, T>(
    changed: &Condvar,
    held: MutexGuard<'a, T>,
    limit: Option<Duration>,
) -> MutexGuard<'a, T> {
    let woken = match limit {
        Some(limit) => changed.wait_timeout(held, limit).map(|(held, _)| held),
        None => return changed.wait(held).unwrap_or_else(PoisonError::into_inner),
    };
    woken.unwrap_or_else(|poisoned| poisoned.into_inner().0)
}

/// Whoever has asked keeps what they got; whoever asks later gets the new one.
#[derive(Debug)]
pub struct Live<T>(RwLock<Arc<T>>);

impl<T> Live<T> {
    pub fn new(value: T) -> Self {
        Self(RwLock::new(Arc::new(value)))
    }

    /// The value as of now.
    pub fn now(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another value in its place.
    pub fn replace(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
    }
}
