//! What is measured: named figures, each the median of several runs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

/// One figure, with the spread that its runs had.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figure {
    /// Dotted: what was measured, then what of it.
    pub(crate) name: &'static str,
    /// The median.
    pub(crate) value: f64,
    /// The unit of all its numbers.
    pub(crate) unit: &'static str,
    /// The smallest.
    pub(crate) min: f64,
    /// The largest.
    pub(crate) max: f64,
    /// How many runs there were.
    pub(crate) runs: usize,
}

/// Collects what single runs gave.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    values: BTreeMap<&'static str, (&'static str, Vec<f64>)>,
}

impl Figures {
    /// Adds what one run gave for a figure.
    pub(crate) fn add(&mut self, name: &'static str, unit: &'static str, value: f64) {
        self.values.entry(name).or_insert_with(|| (unit, Vec::new())).1.push(value);
    }

    /// The figures in the order of their names.
    pub(crate) fn finish(self) -> Vec<Figure> {
        let figure = |(name, (unit, mut values)): (&'static str, (&'static str, Vec<f64>))| {
            values.sort_by(f64::total_cmp);
            Figure {
                name,
                unit,
                value: percentile(&values, 50.0),
                min: values.first().copied().unwrap_or_default(),
                max: values.last().copied().unwrap_or_default(),
                runs: values.len(),
            }
        };
        self.values.into_iter().map(figure).collect()
    }
}

/// The value below which `percent` of the sorted values lie; between two values it is interpolated.
pub(crate) fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    #[expect(clippy::cast_precision_loss, reason = "there are at most some thousand values")]
    let place = last as f64 * percent / 100.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the last position")]
    let below = place as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * place.fract()
}

/// Measures how long something takes.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts.
    #[expect(clippy::disallowed_methods, reason = "measuring the time is what this program is for")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since then.
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// The time from then to the start of another.
    pub(crate) fn until(&self, later: &Self) -> Duration {
        later.0.saturating_duration_since(self.0)
    }

    /// The time since then, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.elapsed().as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_the_median() {
        let mut figures = Figures::default();
        for value in [5.0, 1.0, 2.0, 4.0] {
            figures.add("a.b", "s", value);
        }
        let expected = Figure { name: "a.b", value: 3.0, unit: "s", min: 1.0, max: 5.0, runs: 4 };
        assert_eq!(figures.finish(), [expected]);
    }

    #[test]
    fn percentiles_lie_between_the_values() {
        let values: Vec<f64> = (0..=100).map(f64::from).collect();
        assert!((percentile(&values, 99.0) - 99.0).abs() < 1e-9);
        assert!((percentile(&[1.0], 99.0) - 1.0).abs() < 1e-9);
        assert!(percentile(&[], 50.0).abs() < 1e-9);
    }
}
