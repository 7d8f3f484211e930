//! The host daemon: runs frames of tasks in confined executors, keeps their partitions, and serves them to other hosts.
//!
//! ```text
//! scheduler ══ session ══► prepare ──► engine (queue) ──► lanes ──► executors of the sandbox
//!     ▲           │           │ modules, fetch, dataset       │
//!     └── report ◄┴───────────┼───────────────────────────────┤ ends
//!                             └────────── store ◄─────────────┘ outputs
//!                                           ▲
//!                          other hosts ══ peer
//! ```
//!
//! The host dials the scheduler, never the other way round. It decides nothing about jobs: which frame goes where is the
//! scheduler's business, only the order among tenants on its own cores is the host's (`partita_host_logic`). It neither compiles nor
//! runs tenant code in its own process, and gives no partition to anybody without a ticket.
//!
//! Tokio carries what waits for the network. Lanes are plain threads, one for each core lease, and meet the rest at two
//! locks: the queue (a few times per frame) and the report (once per attempt).

mod config;
mod copies;
mod copying;
mod dataset;
mod engine;
mod enroll;
mod error;
mod executors;
mod fetch;
mod host;
mod inspect;
mod lanes;
mod logs;
mod metrics;
mod modules;
mod payload;
mod peer;
mod pieces;
mod prepare;
mod relay;
mod report;
mod running;
mod session;
mod store;
mod sync;
mod uplink;

pub use config::{ConfigError, HostConfig};
pub use enroll::EnrollError;
pub use metrics::HostCounters;
pub use running::{HostError, Running, StartError, start};
