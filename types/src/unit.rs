//! Units: bytes, CPU time, CPU shares and points in time, with the text forms that policies and job files use.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Text that is not an amount of the expected unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct ParseUnitError {
    text: String,
    expected: &'static str,
}

impl ParseUnitError {
    fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.chars().take(80).collect(), expected }
    }
}

/// A number of bytes. Written as `"64KiB"`, `"512MiB"`, `"1.5GiB"` or a plain count of bytes `"4096"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// No bytes.
    pub const ZERO: Self = Self(0);

    /// `count` KiB.
    #[must_use]
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// `count` MiB.
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// `count` GiB.
    #[must_use]
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    /// The sum, staying at the largest value instead of wrapping.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, staying at zero instead of wrapping.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `count` times this size, staying at the largest value instead of wrapping.
    #[must_use]
    pub const fn saturating_mul(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count))
    }
}

const BYTE_UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, size) = BYTE_UNITS.into_iter().find(|(_, size)| self.0 >= *size).unwrap_or(("B", 1));
        let whole = self.0 / size;
        let tenths = (u128::from(self.0 % size) * 10) / u128::from(size);
        if tenths == 0 { f.pad(&format!("{whole} {unit}")) } else { f.pad(&format!("{whole}.{tenths} {unit}")) }
    }
}

impl FromStr for ByteSize {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, ParseUnitError> {
        let error = || ParseUnitError::new(text, "a size such as \"512MiB\" (B, KiB, MiB, GiB, TiB)");
        let (number, factor) = BYTE_UNITS
            .into_iter()
            .find_map(|(unit, size)| text.strip_suffix(unit).map(|number| (number, size)))
            .unwrap_or((text, 1));
        decimal(number.trim(), factor).map(Self).ok_or_else(error)
    }
}

/// Parses `12` or `1.5` times `factor` exactly in integers; `None` on anything else, or when it does not fit.
fn decimal(text: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let mut value = u128::from(whole) * u128::from(factor);
    if !fraction.is_empty() {
        let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
        value += fraction.parse::<u128>().ok()? * u128::from(factor) / scale;
    }
    u64::try_from(value).ok()
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(Self)
    }
}

/// CPU time as the kernel counts it, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct CpuTime {
    /// Microseconds.
    pub micros: u64,
}

impl CpuTime {
    /// From microseconds.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self { micros }
    }

    /// The sum, staying at the largest value instead of wrapping.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self { micros: self.micros.saturating_add(other.micros) }
    }
}

impl From<Duration> for CpuTime {
    fn from(duration: Duration) -> Self {
        Self { micros: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX) }
    }
}

impl fmt::Display for CpuTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format_duration(Duration::from_micros(self.micros)))
    }
}

/// A share of CPU in thousandths of a core: 2,500 is two and a half cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct MilliCpu(pub u64);

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) {
            write!(f, "{} cores", self.0 / 1000)
        } else {
            write!(f, "{}.{:03} cores", self.0 / 1000, self.0 % 1000)
        }
    }
}

/// A point in time: microseconds since the Unix epoch. The core receives it; only shells read a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp {
    /// Microseconds since 1970-01-01 UTC.
    pub micros: u64,
}

/// In UTC, to the millisecond: `2026-11-22T16:55:01.250Z` (RFC 3339).
///
/// The date is computed as in Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms" (`civil_from_days`).
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.micros / 1000;
        let (days, rest) = (millis / 86_400_000, millis % 86_400_000);
        // Eras of 400 years from the first of March of the year 0 on.
        let shifted = days + 719_468;
        let (era, day) = (shifted / 146_097, shifted % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year + era * 400 + u64::from(month <= 2);
        let (hour, minute) = (rest / 3_600_000, rest / 60_000 % 60);
        let (second, milli) = (rest / 1000 % 60, rest % 1000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

impl Timestamp {
    /// From microseconds since the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self { micros }
    }

    /// This much later, staying at the end of time instead of wrapping.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self { micros: self.micros.saturating_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)) }
    }

    /// The time from `earlier` to this point; zero if `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.micros.saturating_sub(earlier.micros))
    }
}

/// Parses `"250ms"`, `"10s"`, `"1.5m"`, `"12h"` or `"7d"`.
///
/// # Errors
/// If `text` has another form or does not fit into microseconds.
pub fn parse_duration(text: &str) -> Result<Duration, ParseUnitError> {
    const UNITS: [(&str, u64); 6] =
        [("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];
    UNITS
        .into_iter()
        .find_map(|(unit, micros)| decimal(text.strip_suffix(unit)?.trim(), micros))
        .map(Duration::from_micros)
        .ok_or_else(|| ParseUnitError::new(text, "a time such as \"250ms\", \"10s\" or \"5m\" (us, ms, s, m, h, d)"))
}

/// Prints a duration for people: `15 µs`, `3.2 ms`, `4.5 s`, `2 m 05 s`, `3 h 20 m`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    let seconds = duration.as_secs();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        1_000_000..60_000_000 => format!("{}.{} s", seconds, micros % 1_000_000 / 100_000),
        60_000_000..3_600_000_000 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_exactly_and_never_overflow() {
        assert_eq!("512MiB".parse(), Ok(ByteSize::mib(512)));
        assert_eq!("1.5 GiB".parse(), Ok(ByteSize::mib(1536)));
        assert_eq!("4096".parse(), Ok(ByteSize(4096)));
        for bad in ["", "MiB", "-1MiB", "1e3", "1..5GiB", "99999999999999TiB", "5MB", "0x10"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn sizes_print_for_people() {
        assert_eq!(ByteSize::mib(512).to_string(), "512 MiB");
        assert_eq!(ByteSize(1536).to_string(), "1.5 KiB");
        assert_eq!(ByteSize::ZERO.to_string(), "0 B");
    }

    #[test]
    fn durations_are_read_with_a_unit_only() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        for bad in ["10", "s", "-1s", "1w", "10 parsecs", "99999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn times_print_as_dates_in_utc() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_868_799, "2000-02-29T23:59:59.000Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Timestamp::from_micros(seconds * 1_000_000).to_string(), expected);
        }
        assert_eq!(Timestamp::from_micros(1_999).to_string(), "1970-01-01T00:00:00.001Z");
        assert!(!Timestamp::from_micros(u64::MAX).to_string().is_empty());
    }

    #[test]
    fn time_saturates_instead_of_wrapping() {
        let end = Timestamp::from_micros(u64::MAX);
        assert_eq!(end.after(Duration::from_secs(1)), end);
        assert_eq!(Timestamp::from_micros(1).since(end), Duration::ZERO);
    }
}
