//! A hard limit of CPU as a token bucket, like the CPU bandwidth control of Linux (Turner, Rao, Rao, "CPU bandwidth control
//! for CFS", Linux Symposium 2010), but with debt: what was used beyond the bucket is paid back before anything more runs,
//! so that the limit holds exactly over any longer time though clocks are read only now and then.

use partita_types::{MilliCpu, Timestamp};

use crate::leases::SLICE_MICROS;

/// What a bucket holds at most, in slices per core of its limit, but at least so many slices.
const BURST_SLICES: u64 = 2;
/// Longest time for which a tenant pays back. Debt beyond it comes only of a host that stood still for long.
const DEBT_SECONDS: u64 = 1;

/// Tokens are thousandths of a microsecond of CPU time, so that a limit in thousandths of a core fills in whole ones.
#[derive(Debug)]
pub(crate) struct Bucket {
    limit: MilliCpu,
    level: i64,
    filled: Timestamp,
    dry: bool,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(limit: MilliCpu) -> Self {
        let mut bucket = Self { limit, level: 0, filled: Timestamp::default(), dry: false };
        bucket.level = bucket.burst();
        bucket
    }

    pub(crate) fn limit(&self) -> MilliCpu {
        self.limit
    }

    /// Changes the limit. What is in the bucket stays there, as far as it fits.
    pub(crate) fn set_limit(&mut self, limit: MilliCpu) {
        self.limit = limit;
        self.level = self.level.min(self.burst());
    }

    /// The most that can be used at once.
    fn burst(&self) -> i64 {
        tokens(BURST_SLICES * SLICE_MICROS).max(signed((BURST_SLICES * SLICE_MICROS).saturating_mul(self.limit.0)))
    }

    pub(crate) fn charge(&mut self, micros: u64) {
        let debt = -signed(self.limit.0.saturating_mul(DEBT_SECONDS * 1_000_000));
        self.level = self.level.saturating_sub(tokens(micros)).max(debt);
    }

    /// Fills in what has come by `now`, and says whether anything may run; `pending` microseconds were probably used, but not
    /// charged yet. To be called after the charges of the same time, or what overflows meanwhile would be lost.
    ///
    /// A dry bucket stays so until it holds a slice: otherwise processes would be stopped and continued all the time.
    pub(crate) fn fill(&mut self, now: Timestamp, pending: u64) -> bool {
        let passed = u64::try_from(now.since(self.filled).as_micros()).unwrap_or(u64::MAX);
        self.filled = self.filled.max(now);
        self.level = self.level.saturating_add(signed(passed.saturating_mul(self.limit.0))).min(self.burst());
        let left = self.level.saturating_sub(tokens(pending));
        self.dry = left <= 0 || (self.dry && left < tokens(SLICE_MICROS));
        !self.dry
    }

    /// Whether nothing may run, as of the last look.
    pub(crate) fn is_dry(&self) -> bool {
        self.dry
    }

    /// Microseconds until it is not dry any more, counted from when it was filled last.
    pub(crate) fn dry_for(&self) -> u64 {
        let missing = tokens(SLICE_MICROS).saturating_sub(self.level).max(0).unsigned_abs();
        missing.div_ceil(self.limit.0.max(1))
    }

    /// Microseconds for which so many executors can run before it is dry, and `pending` as with [`fill`](Self::fill).
    pub(crate) fn lasts_for(&self, executors: usize, pending: u64) -> u64 {
        let left = self.level.saturating_sub(tokens(pending)).max(0).unsigned_abs() / 1_000;
        left / u64::try_from(executors.max(1)).unwrap_or(u64::MAX)
    }
}

fn tokens(micros: u64) -> i64 {
    signed(micros.saturating_mul(1_000))
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn half_a_core_gets_half_of_the_time_whenever_it_is_looked_at() {
        for step in [700, 1_000, 4_999, 20_000] {
            let (mut bucket, mut used, mut now) = (Bucket::new(MilliCpu(500)), 0, 0);
            while now < 10_000_000 {
                now += step;
                if !bucket.is_dry() {
                    bucket.charge(step);
                    used += step;
                }
                bucket.fill(at(now), 0);
            }
            let burst = BURST_SLICES * SLICE_MICROS;
            assert!((now / 2 - step..=now / 2 + burst + step).contains(&used), "{used} of {now} with steps of {step}");
        }
    }

    #[test]
    fn what_is_not_used_is_kept_up_to_the_burst() {
        let mut bucket = Bucket::new(MilliCpu(2_000));
        assert!(bucket.fill(at(3_600_000_000), 0));
        assert_eq!(bucket.lasts_for(1, 0), 2 * BURST_SLICES * SLICE_MICROS);
        assert_eq!(bucket.lasts_for(4, 0), BURST_SLICES * SLICE_MICROS / 2);
        bucket.set_limit(MilliCpu(10));
        assert_eq!(bucket.lasts_for(1, 0), BURST_SLICES * SLICE_MICROS, "a lower limit takes the rest away");
    }

    #[test]
    fn a_dry_bucket_says_when_it_holds_a_slice_again() {
        let mut bucket = Bucket::new(MilliCpu(250));
        assert!(bucket.fill(at(0), 0));
        bucket.charge(12_000);
        assert!(!bucket.fill(at(0), 0));
        assert_eq!(bucket.dry_for(), 4 * 7_000, "two of debt and five for the slice");
        assert!(!bucket.fill(at(27_999), 0));
        assert!(bucket.fill(at(28_000), 0));
    }

    #[test]
    fn what_was_probably_used_counts_until_it_is_known() {
        let mut bucket = Bucket::new(MilliCpu(1));
        assert!(bucket.fill(at(0), 9_999));
        assert!(!bucket.fill(at(0), 10_000));
        assert_eq!(bucket.lasts_for(1, 9_000), 1_000);
    }

    #[test]
    fn a_host_that_stood_still_does_not_hold_a_tenant_up_for_ever() {
        let mut bucket = Bucket::new(MilliCpu(500));
        bucket.charge(u64::MAX);
        assert!(!bucket.fill(at(0), 0));
        assert_eq!(bucket.dry_for(), 1_000_000 + 10_000);
    }
}
