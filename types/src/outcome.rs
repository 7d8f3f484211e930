//! How attempts end.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ByteSize, ContentHash, CpuTime};

/// Why an attempt failed. Exactly one per failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The function returned a permanent error.
    Failed,
    /// The function returned an error and asked for another attempt.
    Retry,
    /// The guest panicked, with message and location.
    Panic,
    /// The guest trapped: an illegal operation, found by the sandbox.
    Trap,
    /// The guest's call stack is exhausted.
    Stack,
    /// The guest asked for more memory than its limit and could not go on.
    Memory,
    /// The CPU time limit.
    CpuTime,
    /// The wall time limit.
    WallTime,
    /// More output than its limit.
    OutputSize,
    /// A limit of the sandbox on tables, instances, handles or host calls.
    SandboxLimit,
    /// The executor died without a limit being reached, such as by a forbidden system call.
    Crash,
    /// The module cannot be compiled or instantiated, or does not have the function.
    Module,
    /// An input could not be read: a dataset or a partition that no host has.
    Input,
    /// The host had no room for the outputs.
    Storage,
    /// The host was lost while it had the task; never counts against the task.
    HostLost,
    /// Taken back in favour of other work; never counts against the task.
    Preempted,
    /// The job was cancelled.
    Cancelled,
    /// No attached host could run it, for longer than the tenant's policy waits.
    Unrunnable,
    /// Its outputs are lost, and nothing can make them again; never counts against the task.
    DataLost,
}

impl Cause {
    /// The name used in listings, on the wire of tools and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Retry => "retry",
            Self::Panic => "panic",
            Self::Trap => "trap",
            Self::Stack => "stack",
            Self::Memory => "memory",
            Self::CpuTime => "cpu-time",
            Self::WallTime => "wall-time",
            Self::OutputSize => "output-size",
            Self::SandboxLimit => "sandbox-limit",
            Self::Crash => "crash",
            Self::Module => "module",
            Self::Input => "input",
            Self::Storage => "storage",
            Self::HostLost => "host-lost",
            Self::Preempted => "preempted",
            Self::Cancelled => "cancelled",
            Self::Unrunnable => "unrunnable",
            Self::DataLost => "data-lost",
        }
    }

    /// Every cause, in the order of their numbers on the wire.
    pub const ALL: [Self; 19] = [
        Self::Failed,
        Self::Retry,
        Self::Panic,
        Self::Trap,
        Self::Stack,
        Self::Memory,
        Self::CpuTime,
        Self::WallTime,
        Self::OutputSize,
        Self::SandboxLimit,
        Self::Crash,
        Self::Module,
        Self::Input,
        Self::Storage,
        Self::HostLost,
        Self::Preempted,
        Self::Cancelled,
        Self::Unrunnable,
        Self::DataLost,
    ];

    /// Whether the fault lies with the task. Only such failures use up its retries.
    #[must_use]
    pub const fn blames_task(self) -> bool {
        !matches!(
            self,
            Self::HostLost
                | Self::Preempted
                | Self::Cancelled
                | Self::Storage
                | Self::Input
                | Self::Unrunnable
                | Self::DataLost
        )
    }

    /// Whether another attempt may end differently. A permanent failure is not tried again.
    #[must_use]
    pub const fn worth_retrying(self) -> bool {
        !matches!(self, Self::Failed | Self::Module | Self::Cancelled | Self::Unrunnable | Self::DataLost)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A failed attempt: its cause and what the guest or the host said about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Why.
    pub cause: Cause,
    /// One line for people, naming the limit and the value where there is one.
    pub message: String,
    /// Wasm frames, innermost first; empty where there are none.
    pub backtrace: Vec<String>,
    /// The last log lines of the attempt.
    pub log_tail: Vec<String>,
}

impl Failure {
    /// A failure without backtrace and log.
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self { cause, message: message.into(), backtrace: Vec::new(), log_tail: Vec::new() }
    }
}

/// One output that an attempt wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputInfo {
    /// Length in bytes.
    pub size: ByteSize,
    /// BLAKE3 of the bytes.
    pub hash: ContentHash,
}

/// What an attempt used, measured by the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time of the executor.
    pub cpu: CpuTime,
    /// Most memory of the guest at once.
    pub peak_memory: ByteSize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_listed_once_in_wire_order() {
        for (position, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, position, "{cause}");
        }
    }

    #[test]
    fn a_lost_host_never_counts_against_a_task() {
        assert!(!Cause::HostLost.blames_task());
        assert!(Cause::HostLost.worth_retrying());
    }
}
