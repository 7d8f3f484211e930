//! Whole hosts against a scheduler that says what the test wants: real TLS, real executors, real transfers.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod enrolling;
mod guests;
mod leases;
mod running;
mod scheduler;
mod transfers;
