//! The only conversions between messages and `partita-types`.
//!
//! From types to messages they cannot fail. From messages to types they check everything that the types promise, so
//! that nobody checks again; sizes are bounded by the size of the message, which the transport limits.

mod features;
mod job;
mod log;
mod partition;
mod session;
mod work;

pub use features::{features_from_wire, features_to_wire};

use partita_types::{ArrayIndex, AttemptNumber, FeatureError, JobId, NameError, ParseIdError, TenantId};

/// A message that does not mean anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A part that must be there is not.
    #[error("{message} has no {field}")]
    Missing {
        /// The kind of message.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
    /// Columns that belong together have different lengths.
    #[error("{message} has {found} values of {field}, expected {expected}")]
    Columns {
        /// The kind of message.
        message: &'static str,
        /// The column that is too long or too short.
        field: &'static str,
        /// Its length.
        found: usize,
        /// The length of the other columns.
        expected: usize,
    },
    /// A number outside the values it may have.
    #[error("{message} has {field} {value}, which is out of range")]
    Range {
        /// The kind of message.
        message: &'static str,
        /// The field.
        field: &'static str,
        /// The value.
        value: u64,
    },
    /// An id of the wrong form.
    #[error(transparent)]
    Id(#[from] ParseIdError),
    /// A name of the wrong form.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Labels or resources that cannot be.
    #[error(transparent)]
    Features(#[from] FeatureError),
}

/// Checks that a column is as long as those it belongs to.
fn column(message: &'static str, field: &'static str, found: usize, expected: usize) -> Result<(), DecodeError> {
    if found == expected { Ok(()) } else { Err(DecodeError::Columns { message, field, found, expected }) }
}

fn require<T>(message: &'static str, field: &'static str, value: Option<T>) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Missing { message, field })
}

fn attempt_number(message: &'static str, value: u32) -> Result<AttemptNumber, DecodeError> {
    AttemptNumber::from_wire(value).ok_or(DecodeError::Range { message, field: "attempt", value: 0 })
}

const fn job_id(tenant: u32, number: u32) -> JobId {
    JobId { tenant: TenantId(tenant), number }
}

/// Milliseconds of a duration, staying at the largest value.
fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A length for the wire; everything counted here is far below the bound of `u32`.
fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

const fn array(index: u32) -> ArrayIndex {
    ArrayIndex(index)
}
