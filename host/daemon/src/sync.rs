//! Locks. A panic while one is held is a bug elsewhere; what the lock guards is whole between statements, so the host
//! goes on instead of failing everywhere.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, whether or not somebody panicked with the lock held.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
