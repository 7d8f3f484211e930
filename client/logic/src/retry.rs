//! When to try again: capped exponential back-off with jitter, without a clock and without a source of randomness.

use std::time::Duration;

/// How often and how soon a call that may be repeated is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts altogether; 1 never repeats.
    pub attempts: u32,
    /// The longest wait before the second attempt. Later ones double.
    pub first_wait: Duration,
    /// No wait is longer.
    pub longest_wait: Duration,
}

impl RetryPolicy {
    /// For calls that somebody waits for: four attempts within about a second.
    pub const CALL: Self =
        Self { attempts: 4, first_wait: Duration::from_millis(100), longest_wait: Duration::from_secs(1) };

    /// For streams that should outlive a restart of the scheduler: about two minutes of attempts without progress.
    pub const STREAM: Self =
        Self { attempts: 60, first_wait: Duration::from_millis(100), longest_wait: Duration::from_secs(3) };

    /// Never repeat.
    pub const NEVER: Self = Self { attempts: 1, first_wait: Duration::ZERO, longest_wait: Duration::ZERO };
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::CALL
    }
}

/// Counts the attempts of one call.
#[derive(Debug, Clone)]
pub struct Backoff {
    policy: RetryPolicy,
    made: u32,
}

impl Backoff {
    /// Nothing was tried but the first time.
    #[must_use]
    pub const fn new(policy: RetryPolicy) -> Self {
        Self { policy, made: 1 }
    }

    /// Forgets the attempts made so far, because there was progress.
    pub fn reset(&mut self) {
        self.made = 1;
    }

    /// How long to wait before the next attempt, or `None` if there were enough. `random` spreads the waits of many
    /// clients over the second half of the interval.
    pub fn next(&mut self, random: u64) -> Option<Duration> {
        if self.made >= self.policy.attempts {
            return None;
        }
        let doublings = (self.made - 1).min(20);
        self.made += 1;
        let interval = self.policy.first_wait.saturating_mul(1 << doublings).min(self.policy.longest_wait);
        let half = interval / 2;
        let span = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
        Some(half + Duration::from_micros(random % span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy =
        RetryPolicy { attempts: 5, first_wait: Duration::from_millis(100), longest_wait: Duration::from_millis(300) };

    #[test]
    fn waits_double_up_to_the_cap_and_end() {
        let mut backoff = Backoff::new(POLICY);
        let waits: Vec<_> = std::iter::from_fn(|| backoff.next(0)).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits, [50, 100, 150, 150], "with no jitter a wait is half its interval");
    }

    #[test]
    fn jitter_stays_within_the_second_half_of_the_interval() {
        for random in [0, 1, 49_999, 50_000, 50_001, u64::MAX] {
            let wait = Backoff::new(POLICY).next(random).unwrap();
            assert!((50..=100).contains(&wait.as_millis()), "{random} gave {wait:?}");
        }
    }

    #[test]
    fn progress_starts_the_count_again() {
        let mut backoff = Backoff::new(POLICY);
        while backoff.next(0).is_some() {}
        backoff.reset();
        assert_eq!(backoff.next(0), Some(Duration::from_millis(50)));
    }

    #[test]
    fn never_means_one_attempt() {
        assert_eq!(Backoff::new(RetryPolicy::NEVER).next(7), None);
    }
}
