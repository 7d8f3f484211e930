//! Counts identifiers.

/// Does nothing.
#[partita::task]
fn noop() {}

partita::module!(noop);
