//! Counts tests from what test runners print. A line that is not a summary counts nothing.

use std::ops::AddAssign;

/// How many tests passed and failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Count {
    /// Those that passed.
    pub(crate) passed: u64,
    /// Those that failed, were killed, or could not be run.
    pub(crate) failed: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Reads a line of libtest, such as `test result: ok. 5 passed; 0 failed; 1 ignored; ...`.
pub(crate) fn libtest(line: &str) -> Count {
    let Some((_, numbers)) = line.split_once("test result: ").and_then(|(_, rest)| rest.split_once(". ")) else {
        return Count::default();
    };
    sum(numbers.split(';'))
}

/// Reads a line of nextest, such as `Summary [ 1.2s] 9 tests run: 7 passed (1 slow), 1 failed, 1 timed out, 0 skipped`.
pub(crate) fn nextest(line: &str) -> Count {
    let Some(rest) = line.trim_start().strip_prefix("Summary [") else { return Count::default() };
    rest.split_once("run: ").map(|(_, numbers)| sum(numbers.split(','))).unwrap_or_default()
}

/// Adds up parts such as `7 passed (1 slow)`; all that did not pass and was not left out failed.
fn sum<'a>(parts: impl Iterator<Item = &'a str>) -> Count {
    let mut count = Count::default();
    for part in parts {
        let mut words = part.split_whitespace();
        let Some(number) = words.next().and_then(|word| word.parse::<u64>().ok()) else { continue };
        match words.next() {
            Some("passed") => count.passed += number,
            Some("failed" | "timed" | "exec") => count.failed += number,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_summaries_are_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s";
        assert_eq!(libtest(line), Count { passed: 12, failed: 3 });
        assert_eq!(libtest("test a::test_result ... ok"), Count::default());
    }

    #[test]
    fn nextest_counts_killed_tests_as_failed() {
        let line = "     Summary [   4.005s] 9/10 tests run: 6 passed (2 slow, 1 leaky), 1 failed, 1 timed out, 1 exec failed, 1 skipped";
        assert_eq!(nextest(line), Count { passed: 6, failed: 3 });
        assert_eq!(nextest("        PASS [   0.005s] xtask checks::tests::x"), Count::default());
    }
}
