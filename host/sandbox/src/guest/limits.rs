//! What a guest may take: one account for all its memories and tables together.

use partita_types::{ByteSize, Cause};
use wasmtime::{Error, ResourceLimiter, Result, bail};

/// Most linear memories of one attempt: a component made of parts has one per part.
pub(crate) const MEMORIES_MAX: u32 = 4;
/// Most tables of one attempt.
pub(crate) const TABLES_MAX: u32 = 16;
/// Most core instances of one attempt: the module, its adapters and the shims between them.
pub(crate) const INSTANCES_MAX: u32 = 32;
/// Most elements of one table. Large interpreters have about 10,000 functions in theirs.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 20_000;
/// Most times that memories and tables may be asked to grow, refusals included. Page by page to 4 GiB is 65,536.
const GROWS_MAX: u32 = 100_000;
/// What one table element costs the process.
const TABLE_ELEMENT_BYTES: u64 = 8;

/// Counts what a guest has taken and refuses what is beyond its limit.
#[derive(Debug)]
pub(crate) struct Limiter {
    limit: u64,
    used: u64,
    peak: u64,
    grows: u32,
    refused: Option<Refusal>,
}

/// The latest growth that was refused. A guest may cope with it; a trap that follows is blamed on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// So many bytes in all were asked for.
    Memory { wanted: u64, limit: u64 },
    /// A table of so many elements was asked for.
    Table { wanted: u64 },
    /// Asked too often.
    Grows,
}

impl Refusal {
    pub(crate) const fn cause(self) -> Cause {
        match self {
            Self::Memory { .. } => Cause::Memory,
            Self::Table { .. } | Self::Grows => Cause::SandboxLimit,
        }
    }

    pub(crate) fn message(self) -> String {
        match self {
            Self::Memory { wanted, limit } => {
                format!("the guest asked for {} of memory, its limit is {}", ByteSize(wanted), ByteSize(limit))
            }
            Self::Table { wanted } => {
                format!("the guest asked for a table of {wanted} elements, the limit is {TABLE_ELEMENTS_MAX}")
            }
            Self::Grows => format!("the guest grew memories and tables more than {GROWS_MAX} times"),
        }
    }
}

impl Limiter {
    pub(crate) const fn new(limit: ByteSize) -> Self {
        Self { limit: limit.0, used: 0, peak: 0, grows: 0, refused: None }
    }

    /// Most bytes taken at once.
    pub(crate) const fn peak(&self) -> ByteSize {
        ByteSize(self.peak)
    }

    pub(crate) const fn refused(&self) -> Option<Refusal> {
        self.refused
    }

    /// Accounts for `more` bytes, or refuses them.
    fn take(&mut self, more: u64) -> bool {
        let wanted = self.used.saturating_add(more);
        if wanted > self.limit {
            self.refused = Some(Refusal::Memory { wanted, limit: self.limit });
            return false;
        }
        self.used = wanted;
        self.peak = self.peak.max(wanted);
        true
    }

    /// Counts a request to grow. Endless requests end the attempt rather than returning an error to the guest.
    fn count(&mut self) -> Result<()> {
        self.grows += 1;
        if self.grows > GROWS_MAX {
            self.refused = Some(Refusal::Grows);
            bail!("too many requests to grow");
        }
        Ok(())
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        self.count()?;
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        Ok(self.take(desired.saturating_sub(current) as u64))
    }

    fn memory_grow_failed(&mut self, error: Error) -> Result<()> {
        // The kernel or the pool had no room: for the guest the same as its limit.
        if self.refused.is_none() {
            self.refused = Some(Refusal::Memory { wanted: self.used, limit: self.limit });
        }
        drop(error);
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        self.count()?;
        if desired > TABLE_ELEMENTS_MAX {
            self.refused = Some(Refusal::Table { wanted: desired as u64 });
            return Ok(false);
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        Ok(self.take((desired.saturating_sub(current) as u64).saturating_mul(TABLE_ELEMENT_BYTES)))
    }

    fn instances(&self) -> usize {
        // Component instances are counted too.
        INSTANCES_MAX as usize * 2
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_and_tables_share_one_limit() {
        let mut limiter = Limiter::new(ByteSize(100_000));
        assert!(limiter.memory_growing(0, 65_536, None).unwrap());
        assert!(!limiter.memory_growing(0, 65_536, None).unwrap());
        assert_eq!(limiter.refused(), Some(Refusal::Memory { wanted: 131_072, limit: 100_000 }));
        assert!(limiter.table_growing(0, 4_000, None).unwrap());
        assert!(!limiter.table_growing(4_000, 8_400, None).unwrap());
        assert_eq!(limiter.peak(), ByteSize(65_536 + 32_000));
    }

    #[test]
    fn growing_without_end_becomes_an_error() {
        let mut limiter = Limiter::new(ByteSize::ZERO);
        for _ in 0..GROWS_MAX {
            assert!(!limiter.memory_growing(0, 1, None).unwrap());
        }
        assert!(limiter.memory_growing(0, 1, None).is_err());
        assert_eq!(limiter.refused(), Some(Refusal::Grows));
    }
}
