//! Why something that was asked of a cluster did not happen.
//!
//! Every error names the operation, keeps the gRPC code and the cluster's own words, and knows whether trying again can
//! help. Calls that may be repeated were already repeated by the time an error is seen here.

use std::sync::Arc;
use std::time::Duration;

use partita_types::{ByteSize, format_duration};
use tonic::{Code, Status};

use crate::builder::BuildError;
use crate::view::{JobState, TaskFailure};

/// Why a client could not be set up. Nothing was sent yet: connections are made by the first call.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is not `host:port`.
    #[error("{address:?} is not the address of a scheduler: write host:port, such as \"127.0.0.1:7600\"")]
    Address {
        /// What was given.
        address: String,
    },
    /// The certificate of the cluster's authority cannot be used.
    #[error("the certificate of the cluster's authority cannot be used")]
    Authority(#[source] partita_identity::tls::TlsError),
    /// The channel cannot be set up.
    #[error("cannot prepare a connection to {address}")]
    Dial {
        /// Where to.
        address: String,
        /// Why.
        #[source]
        source: partita_identity::dial::DialError,
    },
    /// The token has characters that a header cannot carry.
    #[error("the token is not valid: it has characters that no token has; is the token file complete and only that?")]
    Token,
}

/// Why a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster answered, and refused.
    #[error("cannot {operation}: {text}")]
    Refused {
        /// What was asked.
        operation: &'static str,
        /// The gRPC code.
        code: Code,
        /// What the cluster says.
        text: String,
    },
    /// There was no connection, or it broke.
    #[error("cannot {operation}: no connection to the cluster at {address}: {text}")]
    Unreachable {
        /// What was asked.
        operation: &'static str,
        /// Whom.
        address: Arc<str>,
        /// What the network says.
        text: String,
    },
    /// The deadline of the call passed.
    #[error("cannot {operation}: the cluster did not answer within {}", format_duration(*limit))]
    Deadline {
        /// What was asked.
        operation: &'static str,
        /// How long the answer was waited for.
        limit: Duration,
    },
    /// The answer is not one that this version understands.
    #[error("cannot {operation}: the answer of the cluster is not understood: {text}")]
    Malformed {
        /// What was asked.
        operation: &'static str,
        /// What is wrong with the answer.
        text: String,
    },
    /// The job was refused before it was sent.
    #[error("the job is not valid")]
    Job(#[source] BuildError),
    /// A task that was waited for did not succeed.
    #[error("{0}")]
    Task(#[source] Box<TaskError>),
    /// What was to be collected in memory is larger than a client collects.
    #[error("output {output} of task {index} is larger than {limit}, the most that is collected in memory: stream it")]
    TooLarge {
        /// The task.
        index: u32,
        /// Its output.
        output: u32,
        /// The bound.
        limit: ByteSize,
    },
    /// Reading the data that was to be sent failed.
    #[error("cannot {operation}: the local data cannot be read")]
    LocalData {
        /// What was asked.
        operation: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The events of the job ended with an error that all its futures share.
    #[error("the events of job {job} cannot be followed")]
    Follow {
        /// The job.
        job: u32,
        /// Why.
        #[source]
        source: Arc<Error>,
    },
}

impl Error {
    /// The gRPC code, where the cluster or the transport gave one.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Unreachable { .. } => Some(Code::Unavailable),
            Self::Deadline { .. } => Some(Code::DeadlineExceeded),
            Self::Follow { source, .. } => source.code(),
            Self::Malformed { .. } | Self::Job(_) | Self::Task(_) | Self::TooLarge { .. } | Self::LocalData { .. } => {
                None
            }
        }
    }

    /// Whether the same call may end differently a little later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        self.code().is_some_and(may_pass)
    }

    /// Turns what tonic reports into an error of `operation`.
    pub(crate) fn from_status(operation: &'static str, address: &Arc<str>, status: &Status) -> Self {
        let mut text = status.message().to_owned();
        let local = std::error::Error::source(status);
        append_chain(&mut text, local);
        if local.is_some() && matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal) {
            Self::Unreachable { operation, address: Arc::clone(address), text }
        } else {
            if text.is_empty() {
                text = status.code().description().to_lowercase();
            }
            Self::Refused { operation, code: status.code(), text }
        }
    }

    pub(crate) fn malformed(operation: &'static str, text: impl Into<String>) -> Self {
        Self::Malformed { operation, text: text.into() }
    }
}

/// Codes that speak of the moment and not of the request.
fn may_pass(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted)
}

/// Adds the messages of an error and its sources, without those that only repeat what is there already.
fn append_chain(text: &mut String, mut next: Option<&(dyn std::error::Error + 'static)>) {
    /// Longer chains say nothing more.
    const DEPTH: usize = 8;
    for _ in 0..DEPTH {
        let Some(error) = next else { return };
        let message = error.to_string();
        if !message.is_empty() && !text.contains(&message) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&message);
        }
        next = error.source();
    }
}

/// Why waiting for a task, an array or a job ended without its result.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The task failed for good.
    #[error("task {index} of array {array:?} of job {job} failed: {failure}")]
    Failed {
        /// The job.
        job: u32,
        /// The array.
        array: String,
        /// The task.
        index: u32,
        /// Of its last attempt.
        failure: TaskFailure,
    },
    /// The task will not run.
    #[error("task {index} of array {array:?} of job {job} {what}")]
    NotRun {
        /// The job.
        job: u32,
        /// The array.
        array: String,
        /// The task.
        index: u32,
        /// Why, such as `was cancelled`.
        what: &'static str,
    },
    /// The job ended before the task did, or the array never came.
    #[error("job {job} ended ({state}) without {what}")]
    JobEnded {
        /// The job.
        job: u32,
        /// How it ended.
        state: JobState,
        /// What was waited for.
        what: String,
    },
    /// The job has no such array or task.
    #[error("job {job} has no {what}")]
    Missing {
        /// The job.
        job: u32,
        /// What was asked for.
        what: String,
    },
    /// The reference comes from the builder of another job.
    #[error("array {array:?} belongs to another job than job {job}")]
    Foreign {
        /// The job asked.
        job: u32,
        /// The array referred to.
        array: String,
    },
}

impl From<TaskError> for Error {
    fn from(error: TaskError) -> Self {
        Self::Task(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> Arc<str> {
        "127.0.0.1:1".into()
    }

    #[test]
    fn a_refusal_keeps_the_code_and_the_words_of_the_cluster() {
        let status = Status::not_found("there is no job 7");
        let error = Error::from_status("show the job", &address(), &status);
        assert_eq!(error.to_string(), "cannot show the job: there is no job 7");
        assert_eq!(error.code(), Some(Code::NotFound));
        assert!(!error.retryable());
    }

    #[test]
    fn a_broken_connection_is_told_from_an_overloaded_cluster() {
        let broken = Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)));
        let error = Error::from_status("list jobs", &address(), &broken);
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
        let overloaded = Error::from_status("list jobs", &address(), &Status::unavailable("too many requests"));
        assert!(matches!(overloaded, Error::Refused { .. }) && overloaded.retryable());
    }

    #[test]
    fn an_empty_refusal_says_at_least_what_its_code_means() {
        let error = Error::from_status("list jobs", &address(), &Status::permission_denied(""));
        assert!(!error.to_string().ends_with(": "), "{error}");
    }
}
