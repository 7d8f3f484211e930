//! How the program ends: exit codes, and errors told so that the reader knows what to do next.

use std::io;
use std::process::ExitCode;

use partita_client::{Code, Error, jobfile::JobFileError};

use crate::config::ConfigError;
use crate::output::Output;

/// How a command ended. The numbers are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// What was asked for happened.
    Done = 0,
    /// A job failed, or something else did that was not the caller's mistake.
    Failed = 1,
    /// The command line, the configuration or a file is wrong.
    Usage = 2,
    /// The cluster refused.
    Refused = 3,
    /// The cluster cannot be reached.
    Unreachable = 4,
    /// Stopped from the keyboard, as shells number it.
    Interrupted = 130,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome as u8)
    }
}

/// A mistake of the caller that only this program can know.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// Makes a [`UsageError`].
pub(crate) fn usage(text: impl Into<String>) -> anyhow::Error {
    UsageError(text.into()).into()
}

/// What kind of error it is, by the first of its causes that tells.
pub(crate) fn classify(error: &anyhow::Error) -> Outcome {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<Error>() {
            return classify_call(error);
        }
        let mistake = cause.is::<UsageError>()
            || cause.is::<ConfigError>()
            || cause.is::<JobFileError>()
            || cause.is::<partita_client::ConnectError>()
            || cause.is::<partita_policy::PolicyErrors>()
            || cause.is::<partita_scheduler::ConfigError>()
            || cause.is::<partita_host::ConfigError>();
        if mistake {
            return Outcome::Usage;
        }
    }
    Outcome::Failed
}

fn classify_call(error: &Error) -> Outcome {
    match error {
        Error::Unreachable { .. } | Error::Deadline { .. } => Outcome::Unreachable,
        Error::Refused { code: Code::Unavailable, .. } => Outcome::Unreachable,
        Error::Refused { .. } => Outcome::Refused,
        Error::Job(_) | Error::LocalData { .. } => Outcome::Usage,
        Error::Follow { source, .. } => classify_call(source),
        Error::Malformed { .. } | Error::Task(_) | Error::TooLarge { .. } => Outcome::Failed,
    }
}

/// What the reader can do about it, where that is known.
fn advice(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
        if let Some(ConfigError::Nothing) = cause.downcast_ref() {
            return Some("start a cluster here with `partita dev`, or name the configuration of one with --config");
        }
        match cause.downcast_ref::<Error>()? {
            Error::Unreachable { .. } => Some(
                "is the scheduler running, and is the address of the context right? `partita dev` starts a cluster",
            ),
            Error::Refused { code: Code::Unauthenticated, .. } => {
                Some("get a new token with `partita token issue`; `partita token inspect` shows what is in the old one")
            }
            Error::Refused { code: Code::PermissionDenied, .. } => {
                Some("another context may have the right role: see --context and `partita token inspect`")
            }
            _ => None,
        }
    })
}

/// Prints an error and says how the program ends. A reader that went away is no error.
pub(crate) fn report(error: &anyhow::Error, output: &Output) -> Outcome {
    let gone = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(gone) {
        return Outcome::Done;
    }
    let outcome = classify(error);
    output.error(&text(error), advice(error));
    if output.json {
        // If standard output is gone too, nobody is left to tell.
        let _ = output.json_line(&serde_json::json!({ "error": flat(error), "exit_code": outcome as u8 }));
    }
    outcome
}

/// The error and, on lines of their own, the causes that add something.
fn text(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str("\n  because: ");
            text.push_str(&cause.replace('\n', "\n    "));
        }
    }
    text
}

/// The same in one line.
fn flat(error: &anyhow::Error) -> String {
    text(error).replace("\n  because: ", ": ")
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    fn refused(code: Code) -> Error {
        Error::Refused { operation: "submit the job", code, text: "no".into() }
    }

    #[test]
    fn exit_codes_follow_the_cause_however_deep_it_is() {
        let outcome = |error: anyhow::Error| classify(&error.context("cannot run the job"));
        assert_eq!(outcome(refused(Code::Unauthenticated).into()), Outcome::Refused);
        assert_eq!(outcome(refused(Code::InvalidArgument).into()), Outcome::Refused);
        assert_eq!(outcome(refused(Code::Unavailable).into()), Outcome::Unreachable);
        assert_eq!(outcome(ConfigError::Nothing.into()), Outcome::Usage);
        assert_eq!(outcome(usage("no")), Outcome::Usage);
        assert_eq!(outcome(io::Error::other("disk").into()), Outcome::Failed);
    }

    #[test]
    fn causes_that_repeat_are_told_once() {
        let error = anyhow::Error::from(refused(Code::NotFound)).context("cannot submit the job: no");
        assert_eq!(text(&error), "cannot submit the job: no");
        let error = Err::<(), _>(io::Error::other("the disk is full")).context("cannot write").unwrap_err();
        assert_eq!(text(&error), "cannot write\n  because: the disk is full");
        assert_eq!(flat(&error), "cannot write: the disk is full");
    }

    #[test]
    fn whoever_has_no_cluster_is_told_how_to_get_one() {
        assert!(advice(&ConfigError::Nothing.into()).unwrap().contains("partita dev"));
    }
}
