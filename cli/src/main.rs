//! The program `partita`: the command line, the scheduler and host processes, and the helper processes of a host.
//!
//! Thin on purpose: what a cluster can do is in `partita-client`, what it is in `partita-scheduler` and `partita-host`.

mod app;
mod arguments;
mod cluster;
mod commands;
mod config;
mod environment;
mod files;
mod outcome;
mod output;
mod process;
mod progress;
mod summary;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Helper processes confine and fork themselves, so nothing may happen before them: no thread, no runtime, no log.
    match commands::internal::requested() {
        Some(role) => role.run(),
        None => app::run(),
    }
}
