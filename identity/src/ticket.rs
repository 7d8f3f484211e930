//! Tickets: the right of one host to fetch certain partitions from another.
//!
//! The scheduler makes them with a key that only it and the host holding the partitions know. A ticket is bound to
//! the host that may use it, to one tenant, and to a short time. It is not a secret of that tenant: a guest never
//! sees one.
//!
//! Form: 32 bytes of keyed BLAKE3 over the rest; then the version, tenant, expiry, destination, and the partitions
//! in groups that differ only in the task's index. Indexes are written as differences, so that a ticket for a large
//! shuffle has about one byte for each partition.

use std::fmt;
use std::num::NonZeroU32;

use partita_types::{
    ArrayIndex, AttemptId, AttemptNumber, HostName, JobId, PartitionId, TaskId, TenantId, Timestamp, format_duration,
};

use crate::random;

/// Most partitions of one ticket; a longer one is refused by [`open`].
pub const MAX_PARTITIONS: usize = 1 << 18;

/// Longest ticket that is looked at.
const TICKET_MAX: usize = 2 << 20;

const VERSION: u8 = 1;
const MAC_LENGTH: usize = 32;

/// Separates this use of the key from any other.
const CONTEXT: &str = "partita 2026-11 ticket for partitions, version 1";

/// The key of one host's tickets, known to the scheduler and that host.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKey(pub [u8; 32]);

impl TicketKey {
    /// A fresh key.
    #[must_use]
    pub fn generate() -> Self {
        Self(random())
    }

    fn mac(&self, body: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&blake3::derive_key(CONTEXT, &self.0), body)
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey([redacted])")
    }
}

/// What a ticket allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The owner of all the partitions.
    pub tenant: TenantId,
    /// The host that may use the ticket.
    pub destination: HostName,
    /// From this time on the ticket is worthless.
    pub expires: Timestamp,
    /// What may be fetched. The order does not matter and is not kept.
    pub partitions: Vec<PartitionId>,
}

/// A ticket that gives no right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Longer than any ticket.
    #[error("ticket has {size} bytes, the limit is {TICKET_MAX}")]
    TooLong {
        /// Its size.
        size: usize,
    },
    /// Not made with this key, or changed since.
    #[error("ticket is not genuine")]
    NotGenuine,
    /// Genuine, but of a form that this version does not know.
    #[error("ticket cannot be read: {problem}")]
    Malformed {
        /// What is wrong.
        problem: &'static str,
    },
    /// Too late.
    #[error("ticket expired {} ago", format_duration(now.since(*expired)))]
    Expired {
        /// When it expired.
        expired: Timestamp,
        /// When it was looked at.
        now: Timestamp,
    },
    /// A partition of somebody else.
    #[error("ticket of tenant {tenant} names partition {partition} of another tenant")]
    ForeignPartition {
        /// The ticket's tenant.
        tenant: TenantId,
        /// The partition.
        partition: PartitionId,
    },
    /// Used by another host than the one it was made for.
    #[error("ticket is for host {destination}, not for {caller}")]
    OtherHost {
        /// For whom it was made.
        destination: HostName,
        /// Who used it.
        caller: HostName,
    },
    /// The partition is not on it.
    #[error("ticket does not allow partition {partition}")]
    NotAllowed {
        /// What was asked for.
        partition: PartitionId,
    },
}

impl Claims {
    /// Whether `caller`, as named by its certificate, may fetch all of `wanted`.
    ///
    /// # Errors
    /// If the ticket is for another host or lacks one of the partitions.
    pub fn check(&self, caller: &HostName, wanted: &[PartitionId]) -> Result<(), TicketError> {
        if *caller != self.destination {
            return Err(TicketError::OtherHost { destination: self.destination.clone(), caller: caller.clone() });
        }
        let mut allowed: Vec<&PartitionId> = self.partitions.iter().collect();
        allowed.sort_unstable();
        match wanted.iter().find(|partition| allowed.binary_search(partition).is_err()) {
            Some(partition) => Err(TicketError::NotAllowed { partition: *partition }),
            None => Ok(()),
        }
    }
}

/// Makes a ticket.
///
/// The caller sees to it that all partitions belong to `claims.tenant` and number at most [`MAX_PARTITIONS`];
/// [`open`] refuses the ticket otherwise.
#[must_use]
pub fn mint(key: &TicketKey, claims: &Claims) -> Vec<u8> {
    let mut ticket = vec![0; MAC_LENGTH];
    ticket.push(VERSION);
    put(&mut ticket, u64::from(claims.tenant.0));
    put(&mut ticket, claims.expires.micros);
    put(&mut ticket, claims.destination.as_str().len() as u64);
    ticket.extend_from_slice(claims.destination.as_str().as_bytes());
    put_partitions(&mut ticket, &claims.partitions);
    let (mac, body) = ticket.split_at_mut(MAC_LENGTH);
    mac.copy_from_slice(key.mac(body).as_bytes());
    ticket
}

/// Checks and reads a ticket.
///
/// Says nothing about who may use it: see [`Claims::check`].
///
/// # Errors
/// If the ticket was not made with `key`, was changed, has expired, or names partitions of several tenants.
pub fn open(key: &TicketKey, ticket: &[u8], now: Timestamp) -> Result<Claims, TicketError> {
    if ticket.len() > TICKET_MAX {
        return Err(TicketError::TooLong { size: ticket.len() });
    }
    let (mac, body) = ticket.split_first_chunk::<MAC_LENGTH>().ok_or(TicketError::NotGenuine)?;
    // `blake3::Hash` compares in constant time.
    if key.mac(body) != *mac {
        return Err(TicketError::NotGenuine);
    }
    let claims = Reader { rest: body }.claims().map_err(|problem| TicketError::Malformed { problem })?;
    if claims.expires <= now {
        return Err(TicketError::Expired { expired: claims.expires, now });
    }
    match claims.partitions.iter().find(|partition| partition.attempt.task.job.tenant != claims.tenant) {
        Some(partition) => Err(TicketError::ForeignPartition { tenant: claims.tenant, partition: *partition }),
        None => Ok(claims),
    }
}

/// What the partitions of one group have in common: tenant, job, array, attempt, output.
type Group = (u32, u32, u32, u32, u32);

fn group_of(partition: &PartitionId) -> Group {
    let AttemptId { task, number } = partition.attempt;
    (task.job.tenant.0, task.job.number, task.array.0, number.0.get(), partition.output)
}

fn put_partitions(to: &mut Vec<u8>, partitions: &[PartitionId]) {
    let mut sorted: Vec<(Group, u32)> =
        partitions.iter().map(|partition| (group_of(partition), partition.attempt.task.index)).collect();
    sorted.sort_unstable();
    sorted.dedup();
    for group in sorted.chunk_by(|left, right| left.0 == right.0) {
        let (tenant, job, array, attempt, output) = group[0].0;
        for number in [tenant, job, array, attempt, output] {
            put(to, u64::from(number));
        }
        put(to, group.len() as u64);
        let mut previous = 0;
        for (_, index) in group {
            put(to, u64::from(index - previous));
            previous = *index;
        }
    }
}

/// Appends a number, seven bits to a byte, lowest first (LEB128).
fn put(to: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            to.push(low);
            return;
        }
        to.push(low | 0x80);
    }
}

/// Reads what [`mint`] wrote. The bytes are genuine, but may come from another version.
struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn claims(mut self) -> Result<Claims, &'static str> {
        if self.byte()? != VERSION {
            return Err("unknown version");
        }
        let tenant = TenantId(self.small()?);
        let expires = Timestamp::from_micros(self.number()?);
        let destination = self.name()?;
        let mut partitions = Vec::new();
        while !self.rest.is_empty() {
            self.group(&mut partitions)?;
        }
        Ok(Claims { tenant, destination, expires, partitions })
    }

    fn group(&mut self, partitions: &mut Vec<PartitionId>) -> Result<(), &'static str> {
        let job = JobId { tenant: TenantId(self.small()?), number: self.small()? };
        let array = ArrayIndex(self.small()?);
        let number = AttemptNumber(NonZeroU32::new(self.small()?).ok_or("attempt 0")?);
        let output = self.small()?;
        let count = self.small()? as usize;
        // Each index takes a byte at least, so the memory taken is bounded by what was sent.
        if count > self.rest.len() || partitions.len() + count > MAX_PARTITIONS {
            return Err("too many partitions");
        }
        partitions.reserve(count);
        let mut index = 0_u32;
        for _ in 0..count {
            index = index.checked_add(self.small()?).ok_or("index too large")?;
            let task = TaskId { job, array, index };
            partitions.push(PartitionId { attempt: AttemptId { task, number }, output });
        }
        Ok(())
    }

    fn name(&mut self) -> Result<HostName, &'static str> {
        let length = self.small()? as usize;
        let (name, rest) = self.rest.split_at_checked(length).ok_or("cut short")?;
        self.rest = rest;
        std::str::from_utf8(name).ok().and_then(|name| HostName::new(name).ok()).ok_or("not a host name")
    }

    fn small(&mut self) -> Result<u32, &'static str> {
        u32::try_from(self.number()?).map_err(|_| "number too large")
    }

    fn number(&mut self) -> Result<u64, &'static str> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err("number too large");
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("number too long")
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        let (byte, rest) = self.rest.split_first().ok_or("cut short")?;
        self.rest = rest;
        Ok(*byte)
    }
}
