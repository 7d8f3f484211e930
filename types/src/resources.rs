//! What a task may use, and what a host has.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ByteSize, CpuTime};

/// What one attempt may use. Every limit is finite; a guest that reaches one ends with the cause of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskLimits {
    /// All linear memories and tables of the guest together.
    pub memory: ByteSize,
    /// CPU time of the executor while the attempt runs.
    pub cpu_time: CpuTime,
    /// Time from start to end, waiting included.
    pub wall_time: Duration,
    /// All outputs together.
    pub output: ByteSize,
    /// Log lines together; what is beyond is cut and counted, the task goes on.
    pub log: ByteSize,
}

impl Default for TaskLimits {
    /// 256 MiB of memory, one minute of CPU, ten minutes of wall time, 256 MiB of output, 64 KiB of log.
    fn default() -> Self {
        Self {
            memory: ByteSize::mib(256),
            cpu_time: CpuTime::from_micros(60_000_000),
            wall_time: Duration::from_secs(600),
            output: ByteSize::mib(256),
            log: ByteSize::kib(64),
        }
    }
}

/// What a job asks for per attempt. What it leaves open is filled in from the tenant's policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct LimitRequest {
    /// See [`TaskLimits::memory`].
    pub memory: Option<ByteSize>,
    /// See [`TaskLimits::cpu_time`].
    pub cpu_time: Option<CpuTime>,
    /// See [`TaskLimits::wall_time`].
    pub wall_time: Option<Duration>,
    /// See [`TaskLimits::output`].
    pub output: Option<ByteSize>,
    /// See [`TaskLimits::log`].
    pub log: Option<ByteSize>,
}

impl LimitRequest {
    /// What is asked for, completed with `defaults`.
    #[must_use]
    pub fn or(self, defaults: TaskLimits) -> TaskLimits {
        TaskLimits {
            memory: self.memory.unwrap_or(defaults.memory),
            cpu_time: self.cpu_time.unwrap_or(defaults.cpu_time),
            wall_time: self.wall_time.unwrap_or(defaults.wall_time),
            output: self.output.unwrap_or(defaults.output),
            log: self.log.unwrap_or(defaults.log),
        }
    }
}

impl From<TaskLimits> for LimitRequest {
    /// Asks for exactly `limits`.
    fn from(limits: TaskLimits) -> Self {
        Self {
            memory: Some(limits.memory),
            cpu_time: Some(limits.cpu_time),
            wall_time: Some(limits.wall_time),
            output: Some(limits.output),
            log: Some(limits.log),
        }
    }
}

/// What a host offers to tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCapacity {
    /// Core leases: how many executors may run at once.
    pub cores: u32,
    /// Memory for running guests, together.
    pub memory: ByteSize,
    /// Memory for stored partitions.
    pub partitions: ByteSize,
}

/// How strongly a host confines its executors, weakest first. Measured by the host, not configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// The Wasm sandbox in a process of its own, nothing more.
    Process,
    /// And seccomp: only the system calls that running a guest needs.
    Seccomp,
    /// And Landlock: no path and no network, even if seccomp failed.
    Full,
}

impl Isolation {
    /// The name used in policies and listings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Seccomp => "seccomp",
            Self::Full => "full",
        }
    }
}
