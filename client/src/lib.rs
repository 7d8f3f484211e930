//! The client library of Partita: push modules, build jobs, submit them, follow them, read results.
//!
//! A [`Client`] speaks to one cluster as one principal. A [`JobBuilder`] describes a job array by array; [`Client::submit`]
//! gives a [`JobHandle`], whose arrays and tasks are futures. The job belongs to the cluster: a program may end, and another
//! finds the job again by its number.
//!
//! ```no_run
//! use partita_client::{Client, Connection, JobBuilder};
//! use partita_types::ByteSize;
//! use serde_json::json;
//!
//! # async fn example(connection: Connection, wordfreq: Vec<u8>) -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(&connection)?;
//! let module = client.push_module("wordfreq", wordfreq).await?;
//!
//! let mut job = JobBuilder::new("wordfreq");
//! let map = job
//!     .array("map", module.function("map"))
//!     .dataset("crates", ByteSize::mib(8))
//!     .outputs(8)
//!     .args(&json!({ "min_length": 1 }))?
//!     .add();
//! let reduce = job.array("reduce", module.function("reduce")).slice(&map).add();
//! let top = job.array("top", module.function("top")).fold(&reduce, 8).args(&json!({ "n": 20 }))?.add();
//!
//! let handle = client.submit(job).await?;
//! let answer = handle.array(&top).last().await?;
//! println!("{}", String::from_utf8_lossy(&answer));
//! # Ok(())
//! # }
//! ```
//!
//! What is deliberately absent: hosts. A client sees their names in listings, and never speaks to one.

mod audit;
mod builder;
mod client;
mod error;
mod follow;
mod hosts;
mod job;
pub mod jobfile;
mod log;
mod outputs;
mod progress;
mod tokens;
mod transport;
mod view;
mod watch;

pub use audit::AuditPage;
pub use builder::{ArrayBuilder, ArrayRef, BuildError, Function, JobBuilder, Module, OutputOf, TaskRef};
pub use client::Client;
pub use error::{ConnectError, Error, TaskError};
pub use hosts::{HostArray, HostDetail, HostDrain};
pub use job::{ArrayHandle, JobHandle, Pending, TaskHandle};
pub use log::{AttemptLog, JobLog, LogLine};
pub use outputs::{OutputSelection, Outputs, Piece};
pub use partita_client_logic::{Cursor, RetryPolicy, Verdict};
pub use partita_identity::token::Token;
pub use partita_types as types;
pub use progress::{ArrayProgress, Progress};
pub use tokens::IssuedToken;
pub use tonic::Code;
pub use transport::Connection;
pub use view::{
    ArrayStatus, Event, Explanation, HostStatus, JobEvent, JobState, JobStatus, ModuleStatus, Principal, TaskCounts,
    TaskEnd, TaskFailure, TenantUsage, Totals,
};
pub use watch::Watch;
