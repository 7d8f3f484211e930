//! Builders, a model of a host, and a cluster without threads, clocks and sockets. For `tests/` directories only.
//!
//! Nothing here decides anything: [`Cluster`] feeds events into a [`partita_core::Core`], keeps what comes out, and checks
//! every invariant after each event.

#![allow(clippy::unwrap_used, reason = "a failing expectation is how a test fails")]
#![allow(clippy::cast_possible_truncation, reason = "tests count a few thousand things at most")]

mod builders;
mod cluster;
mod host;
mod random;
mod reference;

pub use builders::{
    ArrayBuilder, JobBuilder, MODULE, all, array, dataset, each, fold, job, list, literal, policy, slice,
};
pub use cluster::Cluster;
pub use host::{HostModel, Run, runs_of};
pub use random::Random;
pub use reference::{Reference, size_of_output, uploaded};
