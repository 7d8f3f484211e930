//! Core scenarios: events in, consequences out. The names of the tests are what the scheduler promises.

#![allow(clippy::unwrap_used, reason = "a failing expectation is how a test fails")]
#![allow(clippy::cast_possible_truncation, reason = "the numbers here are small")]

mod admission;
mod budget;
mod compaction;
mod deadlines;
mod draining;
mod edges;
mod effort;
mod escalation;
mod failures;
mod hosts;
mod losses;
mod memoisation;
mod overcommit;
mod placement;
mod quotas;
mod rates;
mod reattach;
mod restart;
mod results;
mod shares;
mod speculation;
mod stealing;
