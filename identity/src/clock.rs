//! The wall clock. Every other part of the program receives time as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

use partita_types::Timestamp;

/// The current time: the only place that reads the wall clock.
///
/// A clock that stands before 1970 reads as 1970, so that every certificate and token is refused as not yet valid.
#[must_use]
pub fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX))
}
