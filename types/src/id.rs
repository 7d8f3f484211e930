//! Identifiers. Numbers are compact because the scheduler keeps millions of them; names are what people write.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A name that does not follow `[a-z0-9][a-z0-9._-]{0,62}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} name {name:?} is not valid: use 1 to 63 of a-z, 0-9, '.', '_', '-', starting with a letter or digit")]
pub struct NameError {
    kind: &'static str,
    name: String,
}

/// Text that is not an id of the expected form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind}: expected {expected}")]
pub struct ParseIdError {
    kind: &'static str,
    text: String,
    expected: &'static str,
}

/// Longest text quoted back in an error, so that hostile input cannot fill a log.
const QUOTED_MAX: usize = 80;

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_MAX).collect()
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        ///
        /// One to 63 of `a-z 0-9 . _ -`, starting with a letter or digit. Cheap to clone.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and wraps a name.
            ///
            /// # Errors
            /// If `name` does not have the form described on the type.
            pub fn new(name: &str) -> Result<Self, NameError> {
                if is_name(name) { Ok(Self(name.into())) } else { Err(NameError { kind: $kind, name: quoted(name) }) }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }
    };
}

fn is_name(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    first
        && text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
}

name_type!(/// What people call a tenant, as in its policy and its tokens.
    TenantName, "tenant");
name_type!(/// What people call a host, as in its certificate.
    HostName, "host");
name_type!(/// The name of a dataset in a tenant's policy.
    DatasetName, "dataset");
name_type!(/// What people call tenants that lend to each other.
    CohortName, "cohort");
name_type!(/// The name of a label of hosts, such as `zone`.
    LabelName, "label");
name_type!(/// What a label says of a host.
    LabelValue, "label value");
name_type!(/// The name of something countable that hosts have, such as `gpu`.
    ResourceName, "resource");

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(/// A tenant inside the scheduler; given out in the order in which tenants were first seen, never reused.
    TenantId(u32));
number_id!(/// A host inside the scheduler; given out in the order in which hosts first attached, never reused.
    HostId(u32));
number_id!(/// The position of an array in its job, from 0.
    ArrayIndex(u32));
number_id!(/// One start of a host process. A later start has a larger number, so late messages can be told.
    Incarnation(u64));
number_id!(/// A run of tasks of one array that was handed to a host at once. Unique for the life of a scheduler process.
    FrameId(u64));
number_id!(/// An order to a host to copy partitions from another one. Unique for the life of a scheduler process, and grows over
    /// restarts of it.
    MoveId(u64));

/// A job of a tenant. The number counts the tenant's own jobs from 1, so it says nothing about other tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId {
    /// The owner.
    pub tenant: TenantId,
    /// Counts the owner's jobs from 1.
    pub number: u32,
}

impl fmt::Display for JobId {
    /// Prints only the number: the tenant is known from the context wherever an id is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(f)
    }
}

/// One task of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// The job.
    pub job: JobId,
    /// The array in the job.
    pub array: ArrayIndex,
    /// The position in the array, from 0.
    pub index: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.job, self.array, self.index)
    }
}

/// Counts the attempts of a task from 1. It only grows, so it also fences late replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptNumber(pub NonZeroU32);

impl AttemptNumber {
    /// The first attempt of a task.
    pub const FIRST: Self = Self(NonZeroU32::MIN);
    /// How many numbers each life of the scheduler has for a task. A life gives out only numbers above those of lives before.
    pub const PER_LIFE: u32 = 1_024;
    /// No number is greater.
    pub const LAST: Self = Self(NonZeroU32::MAX);

    /// The number after this one; stays at the largest number rather than wrapping.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// From the wire, where 0 means that the field was not set.
    #[must_use]
    pub fn from_wire(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// How many attempts the task had in the life of the scheduler that this one is of, this one included.
    #[must_use]
    pub const fn in_its_life(self) -> u32 {
        self.0.get() % Self::PER_LIFE
    }
}

/// For people: `2`, or `2 after restart 1`.
impl fmt::Display for AttemptNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get() / Self::PER_LIFE {
            0 => self.0.fmt(f),
            restarts => write!(f, "{} after restart {restarts}", self.in_its_life()),
        }
    }
}

/// One try at running a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// The task.
    pub task: TaskId,
    /// Which try.
    pub number: AttemptNumber,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.task, self.number.0)
    }
}

/// One output of one attempt: immutable bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId {
    /// The attempt that wrote it.
    pub attempt: AttemptId,
    /// Which output of the task, from 0.
    pub output: u32,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.attempt, self.output)
    }
}

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// From raw bytes, such as a field of a message.
            ///
            /// # Errors
            /// If there are not exactly 32 bytes.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, ParseIdError> {
                bytes.try_into().map(Self).map_err(|_| ParseIdError {
                    kind: $kind,
                    text: format!("{} bytes", bytes.len()),
                    expected: "32 bytes",
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), hex::encode(&self.0[..6]))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; 32];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseIdError {
                    kind: $kind,
                    text: quoted(text),
                    expected: "64 hexadecimal digits",
                })?;
                Ok(Self(bytes))
            }
        }
    };
}

hash_id!(/// A module, named by the SHA-256 of its component.
    ModuleId, "module id");
hash_id!(/// The BLAKE3 hash of a partition's bytes.
    ContentHash, "content hash");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_lowercase_and_never_paths() {
        for good in ["a", "team-1", "0.x_y"] {
            assert_eq!(TenantName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "A", "-a", ".a", "a/b", "a b", "ä", "a\0", &"x".repeat(64)] {
            assert!(TenantName::new(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_deserialised_name_is_checked_too() {
        assert!(serde_json::from_str::<HostName>("\"../etc\"").is_err());
    }

    #[test]
    fn hashes_survive_text_and_refuse_other_lengths() {
        let id = ModuleId([7; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("07".parse::<ModuleId>().is_err());
        assert!(ContentHash::from_slice(&[1; 31]).is_err());
    }

    #[test]
    fn attempts_are_counted_from_each_restart_for_people() {
        let shown = |number| AttemptNumber::from_wire(number).unwrap().to_string();
        assert_eq!(shown(3), "3");
        assert_eq!(shown(AttemptNumber::PER_LIFE + 1), "1 after restart 1");
        assert_eq!(shown(2 * AttemptNumber::PER_LIFE + 7), "7 after restart 2");
    }

    #[test]
    fn attempt_numbers_only_grow() {
        let last = AttemptNumber(NonZeroU32::MAX);
        assert_eq!(last.next(), last);
        assert!(AttemptNumber::FIRST.next() > AttemptNumber::FIRST);
    }
}
