//! The one place where refusals and failures become gRPC codes.

use partita_core::{Refusal, Reply};
use partita_protocol::DecodeError;
use tonic::{Code, Status};

use crate::driver::{NoReply, Stopped};

/// The code of a refusal: whether another try can help, and who must do something.
fn code(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::NotFound { .. } => Code::NotFound,
        Refusal::Spec(_)
        | Refusal::TaskLimit { .. }
        | Refusal::UnknownFunction { .. }
        | Refusal::Signature { .. }
        | Refusal::Module { .. } => Code::InvalidArgument,
        Refusal::Quota { .. } => Code::ResourceExhausted,
        Refusal::Dataset { .. } | Refusal::State { .. } | Refusal::Quarantined { .. } => Code::FailedPrecondition,
        Refusal::NoHost { .. } => Code::Unavailable,
        Refusal::Failed { .. } => Code::Aborted,
    }
}

/// Of a refusal of the core.
pub(crate) fn refused(refusal: &Refusal) -> Status {
    Status::new(code(refusal), refusal.to_string())
}

/// Of a reply of another kind than the request has; a fault of this program.
pub(crate) fn unexpected(reply: &Reply) -> Status {
    match reply {
        Reply::Refused(refusal) => refused(refusal),
        other => {
            tracing::error!(reply = ?std::mem::discriminant(other), "the core answered something else");
            Status::internal("the scheduler answered something else than was asked")
        }
    }
}

/// Of an object that does not exist, or is another tenant's: the same words for both.
pub(crate) fn not_found(what: impl std::fmt::Display) -> Status {
    Status::not_found(format!("{what} does not exist"))
}

/// Of a message that means nothing.
pub(crate) fn undecodable(error: &DecodeError) -> Status {
    Status::invalid_argument(error.to_string())
}

impl From<Stopped> for Status {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Ending => Self::unavailable(format!("{stopped}; try again")),
            // Another try right away is of no use.
            Stopped::DiskFull => Self::resource_exhausted(stopped.to_string()),
        }
    }
}

impl From<NoReply> for Status {
    fn from(error: NoReply) -> Self {
        match error {
            NoReply::Stopped(stopped) => stopped.into(),
            NoReply::Late(_) => Self::deadline_exceeded(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use partita_types::TenantName;

    use super::*;

    #[test]
    fn codes_say_whether_another_try_helps() {
        let tenant = TenantName::new("team").unwrap();
        let quota = Refusal::Quota { tenant, what: "queued tasks", limit: 1, value: 2 };
        for (refusal, code) in [
            (quota, Code::ResourceExhausted),
            (Refusal::NotFound { what: "job 3".to_owned() }, Code::NotFound),
            (Refusal::NoHost { what: "inspect a module" }, Code::Unavailable),
            (Refusal::State { what: "job 3".to_owned(), state: "has ended" }, Code::FailedPrecondition),
        ] {
            let status = refused(&refusal);
            assert_eq!(status.code(), code, "{refusal}");
            assert_eq!(status.message(), refusal.to_string());
        }
    }

    #[test]
    fn missing_and_foreign_objects_read_alike() {
        let core = refused(&Refusal::NotFound { what: "job 3".to_owned() });
        assert_eq!(core.message(), not_found("job 3").message());
    }
}
