//! The daemon's end of one executor process.

use partita_types::{Cause, CpuTime, Failure, FunctionInfo};

use crate::{AttemptEnd, Batch, RunControl, RunEnd};

/// A confined process that holds one module. Dropping it kills the process.
#[derive(Debug)]
pub struct Executor {
    pid: u32,
}

/// Reaches an executor from other threads, for as long as the process exists and without risk of hitting another one.
#[derive(Debug, Clone)]
pub struct ExecutorHandle {}

impl ExecutorHandle {
    /// Stops the process (SIGSTOP).
    pub fn stop(&self) {}

    /// Lets a stopped process go on (SIGCONT).
    pub fn resume(&self) {}

    /// Kills the process (SIGKILL).
    pub fn kill(&self) {}

    /// CPU time of the process by the kernel's clock; `None` once it has ended.
    #[must_use]
    pub fn cpu_time(&self) -> Option<CpuTime> {
        None
    }
}

impl Executor {
    /// The process id.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// A handle for other threads.
    #[must_use]
    pub fn handle(&self) -> ExecutorHandle {
        ExecutorHandle {}
    }

    /// Asks the module for its functions, in an instance of its own.
    ///
    /// # Errors
    /// If the module traps, takes too long or answers nonsense. The executor may be lost then.
    pub fn describe(&mut self) -> Result<Vec<FunctionInfo>, Failure> {
        Err(Failure::new(Cause::Crash, "executor is gone"))
    }

    /// Runs the attempts of `batch` one after the other, each in a fresh instance, and reports every end to `on_end`.
    ///
    /// Blocks the calling thread. CPU and wall limits are watched meanwhile; reaching one, or a cancellation of the
    /// attempt that runs, kills the executor, and the rest of the batch is left for another one.
    pub fn run(&mut self, batch: &Batch, _control: &RunControl, _on_end: &mut dyn FnMut(AttemptEnd)) -> RunEnd {
        if batch.attempts.is_empty() { RunEnd::Complete } else { RunEnd::ExecutorLost { next: 0 } }
    }
}
