//! The scheduler process: gRPC over TLS, timers and configuration around the core.
//!
//! Clients and hosts reach the services through one gate (`auth`); the services ask the core through the driver
//! (`driver`), whose threads own the core and the journal; what the core wants to happen happens in the order in which
//! it said so. Nothing here decides about jobs, and nothing here interprets the bytes of partitions.

mod audit;
mod auth;
mod cluster;
mod config;
mod driver;
mod enrollment;
mod guard;
mod http;
mod hub;
mod issued;
mod issuers;
mod jobs;
mod keys;
mod lines;
mod logs;
mod metrics;
mod module_files;
mod modules;
mod offline;
mod policies;
mod relay;
mod result;
mod revocations;
pub mod rights;
mod router;
mod scope;
mod session;
mod sessions;
mod space;
mod start;
mod status;
mod tickets;
mod upload;
mod watch;
mod wire;

pub use config::{ConfigError, DISK_RESERVE, SchedulerConfig, issued_path, revoked_path};
pub use driver::Failed;
pub use issued::{Issued, TokenHolder, note_issued};
pub use issuers::IssuersError;
pub use lines::LinesError;
pub use metrics::MetricsError;
pub use offline::note_offline;
pub use revocations::{Revoked, revoke};
pub use start::{Running, StartError, start};

/// An error and all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
