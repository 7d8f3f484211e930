//! Errors as text: one line with all causes.

use std::error::Error;
use std::fmt::Write as _;

/// An error with everything that caused it.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // tonic's errors repeat their source.
        let next = error.to_string();
        if !text.ends_with(&next) {
            let _ = write!(text, ": {next}");
        }
        cause = error.source();
    }
    text
}

/// What a failed call says: the status's message, else the name of its code, and what caused it.
pub(crate) fn status(status: &tonic::Status) -> String {
    let message = if status.message().is_empty() { status.code().description() } else { status.message() };
    let cause = status.source().map(chain).filter(|cause| !message.contains(cause.as_str()));
    cause.map_or_else(|| message.to_owned(), |cause| format!("{message}: {cause}"))
}
