//! Logging, progress, what is left of the limits, and random numbers: what a task can ask for anywhere in its code.
//!
//! In the sandbox all of it goes to the host. Natively, as under `cargo test`, lines go to standard error and nothing
//! is limited.

use std::fmt;
use std::time::Duration;

use crate::host::ambient;

/// How serious a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// For whoever debugs the function.
    Debug,
    /// Worth knowing.
    Info,
    /// Went on, but somebody should look.
    Warn,
    /// Something failed.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        })
    }
}

/// Adds a line to the attempt's log. The macros [`debug!`](crate::debug), [`info!`](crate::info),
/// [`warn!`](crate::warn) and [`error!`](crate::error) are shorter.
///
/// ```
/// # extern crate partita_guest as partita;
/// partita::log(partita::Level::Warn, format_args!("{} rows have no price", 3));
/// ```
pub fn log(level: Level, message: fmt::Arguments<'_>) {
    match message.as_str() {
        Some(message) => ambient::log(level, message),
        None => ambient::log(level, &message.to_string()),
    }
}

/// Adds a line to the attempt's log, for whoever debugs the function. Takes a format string like `println!`.
///
/// ```
/// # extern crate partita_guest as partita;
/// partita::debug!("table of {} slots", 4096);
/// ```
#[macro_export]
macro_rules! debug {
    ($($message:tt)+) => { $crate::log($crate::Level::Debug, ::std::format_args!($($message)+)) };
}

/// Adds a line worth knowing to the attempt's log. Takes a format string like `println!`.
///
/// ```
/// # extern crate partita_guest as partita;
/// partita::info!("{} rows read", 249);
/// ```
#[macro_export]
macro_rules! info {
    ($($message:tt)+) => { $crate::log($crate::Level::Info, ::std::format_args!($($message)+)) };
}

/// Adds a line to the attempt's log that somebody should look at. Takes a format string like `println!`.
///
/// ```
/// # extern crate partita_guest as partita;
/// partita::warn!("{} rows have no region", 2);
/// ```
#[macro_export]
macro_rules! warn {
    ($($message:tt)+) => { $crate::log($crate::Level::Warn, ::std::format_args!($($message)+)) };
}

/// Adds a line about a failure to the attempt's log; the task goes on. Takes a format string like `println!`.
///
/// ```
/// # extern crate partita_guest as partita;
/// partita::error!("row {} cannot be read", 17);
/// ```
#[macro_export]
macro_rules! error {
    ($($message:tt)+) => { $crate::log($crate::Level::Error, ::std::format_args!($($message)+)) };
}

/// Says how far the task is: `done` of `total`, in whatever unit.
///
/// Costs a call into the host, so rather once per megabyte than once per row.
///
/// ```
/// # extern crate partita_guest as partita;
/// for row in 0..1_000_u64 {
///     if row % 500 == 0 {
///         partita::progress(row, 1_000);
///     }
/// }
/// ```
pub fn progress(done: u64, total: u64) {
    ambient::progress(done, total);
}

/// What is left of an attempt's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Memory in bytes.
    pub memory: u64,
    /// Time on a core.
    pub cpu_time: Duration,
    /// Time by the clock on the wall.
    pub wall_time: Duration,
}

/// What is left of the limits of this attempt.
///
/// Constant within an attempt of a deterministic task, so that its result cannot depend on the host's load. Natively
/// there are no limits.
///
/// ```
/// # extern crate partita_guest as partita;
/// let table = if partita::remaining().memory > 1 << 30 { 1 << 24 } else { 1 << 20 };
/// assert_eq!(table, 1 << 24); // nothing is limited here
/// ```
#[must_use]
pub fn remaining() -> Budget {
    ambient::remaining()
}

/// A random number from the host.
///
/// In a deterministic task, which is the default, the host derives it from the task's identity: other tasks get other
/// numbers, another attempt of the same task the same ones. Natively it is different in every call. For many numbers
/// start a [`Random`].
///
/// ```
/// # extern crate partita_guest as partita;
/// assert_ne!(partita::random_u64(), partita::random_u64());
/// ```
#[must_use]
pub fn random_u64() -> u64 {
    ambient::random_u64()
}

/// A small and fast generator of random numbers, not for secrets.
///
/// The algorithm is `SplitMix64` (Steele, Lea and Flood, *Fast splittable pseudorandom number generators*, 2014).
///
/// ```
/// # extern crate partita_guest as partita;
/// use partita::Random;
///
/// let mut random = Random::seeded(7); // `Random::new()` in a task
/// let (a, b) = (random.next_f64(), random.next_f64());
/// assert!((0.0..1.0).contains(&a) && a != b);
/// assert_eq!(Random::seeded(7).next_f64(), a);
/// ```
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A generator that starts at [`random_u64`]: a different one for every task.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "a default value would hide that the host is asked")]
    pub fn new() -> Self {
        Self::seeded(random_u64())
    }

    /// A generator that starts at `seed`: the same numbers every time.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Any 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// At least 0 and less than 1, in steps of 2⁻⁵³.
    pub fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_follows_its_published_sequence() {
        let mut random = Random::seeded(1_234_567);
        let numbers: Vec<u64> = (0..5).map(|_| random.next_u64()).collect();
        assert_eq!(
            numbers,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821
            ]
        );
    }

    #[test]
    fn fractions_lie_in_the_unit_interval_and_spread() {
        let mut random = Random::seeded(1);
        let numbers: Vec<f64> = (0..10_000).map(|_| random.next_f64()).collect();
        assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
        let mean = numbers.iter().sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.02, "mean {mean}");
    }

    #[test]
    fn levels_are_ordered_by_weight() {
        assert!(Level::Debug < Level::Info && Level::Info < Level::Warn && Level::Warn < Level::Error);
    }
}
