//! What the long-running commands have in common: when to stop, whom to end with, where to log.

use anyhow::Context;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::environment::Environment;
use crate::outcome::usage;

/// Returns at the next Ctrl-C or SIGTERM. From the first call on, neither ends the process by itself.
pub(crate) async fn stop_requested() -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Ends this process, cleanly, when the process `parent` ends. Called before anything else is started.
pub(crate) fn die_with(parent: i32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM)).context("cannot tie this process to its parent")?;
    // The parent may have ended before the signal was ordered.
    if getppid().map(Pid::as_raw_pid) == Some(parent) {
        Ok(())
    } else {
        Err(usage(format!("process {parent} is not the parent of this one, or has ended")))
    }
}

/// Starts to log to standard error.
pub(crate) fn log(filter: Option<&str>, environment: &Environment, json: bool) -> anyhow::Result<()> {
    let filter = filter.or(environment.log.as_deref()).unwrap_or("info");
    let filter =
        EnvFilter::try_new(filter).map_err(|error| usage(format!("{filter:?} is not a log filter: {error}")))?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    let installed = if json { subscriber.json().try_init() } else { subscriber.try_init() };
    installed.map_err(|error| anyhow::anyhow!("cannot start to log: {error}"))
}
