//! The audit log: who changed what in a cluster, and who was refused.
//!
//! Lines in files of one directory, only ever appended. Each line begins with the hash of the line before it and of
//! itself, so that a line that was changed, removed or put in between shows: whoever noted one hash can tell that
//! everything up to it is what it was. This is the chain of Schneier and Kelsey ("Secure audit logs to support computer
//! forensics", 1999) without its encryption; it finds forgery by those who cannot write all later lines anew.
//!
//! The scheduler appends through [`AuditLog`]; [`read`] and [`verify`] look at the files, also beside it.

mod chain;
mod log;
mod reader;

use partita_types::Timestamp;
use serde::{Deserialize, Serialize};

pub use chain::{Fault, Hash, Line};
pub use log::{AuditError, AuditLog, Repair};
pub use reader::{Chain, Page, Verified, read, verify, verify_file};

/// Longest name of an object, and longest outcome, in bytes; what is longer is cut.
pub const TEXT_MAX: usize = 512;

/// Who did it, as far as that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Principal {
    /// The holder of a token that was verified.
    Token {
        /// For which tenant it speaks.
        tenant: String,
        /// Its holder.
        subject: String,
        /// What the holder is to the tenant.
        role: String,
        /// The id of the token.
        token: String,
    },
    /// A host, by its certificate.
    Host {
        /// Its name.
        name: String,
    },
    /// Nobody that could be verified.
    Unknown,
    /// The scheduler itself.
    Scheduler,
    /// Somebody at the scheduler's machine who may write its data directory.
    Local {
        /// The number of the user there.
        user: u32,
    },
}

/// What is to be noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub principal: Principal,
    /// Where the connection comes from; empty for what the scheduler does by itself.
    pub address: String,
    /// What, as in `Jobs/Submit`.
    pub action: String,
    /// To what, as in `job 7`; empty if it did not come so far.
    pub object: String,
    /// `ok`, or the code of the refusal.
    pub outcome: String,
    /// The version of the policies in force.
    pub policy: String,
}

/// A line, without its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its number; 1 is the first line of a log.
    pub sequence: u64,
    /// Microseconds since 1970.
    pub at_us: u64,
    /// Who.
    pub principal: Principal,
    /// See [`Draft::address`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// See [`Draft::action`].
    pub action: String,
    /// See [`Draft::object`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// See [`Draft::outcome`].
    pub outcome: String,
    /// See [`Draft::policy`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub policy: String,
    /// Refusals before this line that were only counted, because there were too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub suppressed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Entry {
    pub(crate) fn new(sequence: u64, suppressed: u64, draft: Draft) -> Self {
        let Draft { at, principal, address, action, object, outcome, policy } = draft;
        let (object, outcome) = (cut(object), cut(outcome));
        Self { sequence, at_us: at.micros, principal, address, action, object, outcome, policy, suppressed }
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_MAX));
    text
}
