//! What a lane hands to an executor and what it gets back.

use bytes::Bytes;
use partita_types::{Failure, LogLine, OutputInfo, TaskLimits, Timestamp, Usage};

use crate::payload::Payload;

/// Attempts that an executor runs one after the other: same function, same limits, same number of outputs.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The function to call.
    pub function: String,
    /// What each attempt may use. Memory above what the executor was forked for is cut to that.
    pub limits: TaskLimits,
    /// How many outputs each attempt writes.
    pub outputs: u32,
    /// Where the guest's clocks stand when an attempt starts.
    pub submitted_at: Timestamp,
    /// The argument of every attempt that has none of its own.
    pub common_arguments: Bytes,
    /// The attempts, in the order in which they run. A position in this list names an attempt until the batch ends.
    pub attempts: Vec<BatchAttempt>,
}

/// One attempt of a [`Batch`].
#[derive(Debug, Clone)]
pub struct BatchAttempt {
    /// Source of the guest's random numbers.
    pub seed: [u8; 32],
    /// Its argument, if it has its own.
    pub arguments: Option<Bytes>,
    /// Its inputs: one list per edge of the array, in order.
    pub inputs: Vec<Vec<Payload>>,
}

/// How one attempt ended.
#[derive(Debug)]
pub struct AttemptEnd {
    /// Which: its position in the batch.
    pub position: usize,
    /// Its outputs, as many as the batch says, or why there are none.
    pub result: Result<Vec<Output>, Failure>,
    /// What it used; bounded by what the kernel saw and by its limits.
    pub usage: Usage,
    /// What it logged, up to its log limit. Text is one line each, without control characters.
    pub log: Vec<LogLine>,
}

/// One output of an attempt.
#[derive(Debug, Clone)]
pub struct Output {
    /// The bytes.
    pub payload: Payload,
    /// Their size and hash, computed by the host and not by the executor.
    pub info: OutputInfo,
}

/// How a run over a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// Every attempt was reported; the executor can take the next batch.
    Complete,
    /// The executor is gone: it was killed for a limit or a cancellation, or it died.
    ExecutorLost {
        /// The first position that was not started. Every position before it was reported.
        next: usize,
    },
}
