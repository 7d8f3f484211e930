//! The zygote: a small process with a warm engine, from which executors are forked.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use partita_types::{ByteSize, Isolation};

use crate::{Artefact, Executor, Program};

/// How to start a zygote.
#[derive(Debug, Clone, Copy)]
pub struct ZygoteConfig {
    /// How long it may take until it is ready.
    pub start_timeout: Duration,
    /// How long a fork may take until the executor is ready, the loading of the artefact included.
    pub fork_timeout: Duration,
    /// How much lower than the daemon's the priority of executors is.
    pub nice: u8,
}

impl Default for ZygoteConfig {
    /// Ten seconds each, priority 5 lower.
    fn default() -> Self {
        Self { start_timeout: Duration::from_secs(10), fork_timeout: Duration::from_secs(10), nice: 5 }
    }
}

/// Why there is no zygote.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program could not be started.
    #[error("cannot start zygote {program:?}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It said what is wrong.
    #[error("zygote is not usable: {0}")]
    Unusable(String),
}

/// Why an executor could not be forked.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// The zygote is gone. A new one must be started.
    #[error("zygote has died")]
    ZygoteLost,
    /// The executor did not get ready.
    #[error("executor did not start: {0}")]
    Failed(String),
    /// The daemon has no descriptors or memory left.
    #[error("cannot prepare an executor")]
    Resources(#[source] io::Error),
}

/// A running zygote. Dropping it ends it and every executor that it forked.
#[derive(Debug)]
pub struct Zygote {
    isolation: Isolation,
}

impl Zygote {
    /// Starts a zygote and waits until it is ready.
    ///
    /// # Errors
    /// If it cannot be started or is not ready in time.
    pub fn start(program: &Program, _config: ZygoteConfig) -> Result<Self, StartError> {
        Err(StartError::Unusable(format!("{:?} has no zygote yet", program.path)))
    }

    /// How strongly its executors are confined, as a throw-away executor measured.
    #[must_use]
    pub const fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Whether it can still fork.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        false
    }

    /// Forks an executor for `artefact` whose guests may use up to `memory`.
    ///
    /// # Errors
    /// If the executor does not get ready in time.
    pub fn fork(&self, _artefact: &Artefact, _memory: ByteSize) -> Result<Executor, ForkError> {
        Err(ForkError::ZygoteLost)
    }
}

/// Entry point of the zygote process.
#[must_use]
pub fn zygote_main() -> ExitCode {
    ExitCode::FAILURE
}
