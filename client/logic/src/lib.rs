//! What a client's session decides, apart from its I/O: where a reader of events stands, and when to try again.
//!
//! The client library and the simulation of clusters use the same code. No I/O, no clock, no randomness, no async.

mod cursor;
mod retry;

pub use cursor::{Cursor, Verdict};
pub use retry::{Backoff, RetryPolicy};
