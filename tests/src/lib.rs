//! Tests of the whole system, with the real program `partita` and real processes. This is what they have in common:
//! finding the program and the guests, starting clusters and stopping them, and looking at processes.
//!
//! Everything waits for something that happens, up to a deadline, and nothing for time to pass. Whatever goes wrong
//! here is a panic that says what was waited for, with the output of the process: these are tests.

pub mod chaos;
mod cluster;
mod process;
mod program;

pub use cluster::{Cluster, POLICY};
pub use process::{Family, Finished, Running, executors, open_files, wait_until, wait_until_gone};
pub use program::{example_job, guest, partita, repository};

use std::time::Duration;

/// How long anything may take on a slow and busy machine; what takes longer hangs.
pub const DEADLINE: Duration = Duration::from_secs(120);
