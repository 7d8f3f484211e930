//! How far a job is, while it runs: bars on a terminal, now and then a line otherwise.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use partita_client::Progress;
use tokio::time::Instant;

use crate::output::{Output, clean};

/// Without a terminal: not more often than this, and only if something changed.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);
/// More bars than these do not fit on a screen; the total stands for the others.
const BARS: usize = 16;

/// Shows a job on standard error.
pub(crate) struct Display {
    output: Output,
    kind: Kind,
}

enum Kind {
    Bars { all: MultiProgress, arrays: Vec<ProgressBar>, total: ProgressBar },
    Lines { next: Instant, last: String },
    Silent,
}

impl Display {
    /// Nothing is shown until there is something.
    pub(crate) fn new(output: Output) -> Self {
        let kind = if output.json {
            Kind::Silent
        } else if output.interactive {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
            let total = all.add(ProgressBar::new(0).with_style(style("total")));
            total.enable_steady_tick(Duration::from_millis(250));
            Kind::Bars { all, arrays: Vec::new(), total }
        } else {
            Kind::Lines { next: Instant::now() + PLAIN_INTERVAL, last: String::new() }
        };
        Self { output, kind }
    }

    /// Shows what is known now.
    pub(crate) fn update(&mut self, progress: &Progress) {
        match &mut self.kind {
            Kind::Bars { all, arrays, total } => {
                for (position, array) in progress.arrays().iter().take(BARS).enumerate() {
                    if arrays.len() <= position {
                        let bar = ProgressBar::new(u64::from(array.tasks)).with_style(style(&label(&array.name)));
                        arrays.push(all.insert(position, bar));
                    }
                    arrays[position].set_position(u64::from(array.succeeded()));
                    let bad = array.not_succeeded();
                    arrays[position].set_message(if bad > 0 { format!("{bad} not done") } else { String::new() });
                }
                let (done, tasks) = totals(progress);
                total.set_length(tasks);
                total.set_position(done);
                let failed = progress.failed_attempts();
                total.set_message(if failed > 0 { format!("{failed} attempts failed") } else { String::new() });
            }
            Kind::Lines { next, last } => {
                let now = Instant::now();
                let line = line(progress);
                if now >= *next && line != *last {
                    self.output.note(&line);
                    *next = now + PLAIN_INTERVAL;
                    *last = line;
                }
            }
            Kind::Silent => {}
        }
    }

    /// A line that stays.
    pub(crate) fn note(&self, text: &str) {
        match &self.kind {
            // A terminal that cannot be written to is not worth an error here.
            Kind::Bars { all, .. } => drop(all.println(text)),
            Kind::Lines { .. } => self.output.note(text),
            Kind::Silent => {}
        }
    }

    /// Takes the bars away; the summary says what they said.
    pub(crate) fn finish(self) {
        if let Kind::Bars { all, arrays, total } = self.kind {
            total.finish();
            arrays.iter().for_each(ProgressBar::finish);
            drop(all.clear());
        }
    }
}

/// Tasks that succeeded, and all.
fn totals(progress: &Progress) -> (u64, u64) {
    let sum = |(done, tasks): (u64, u64), array: &partita_client::ArrayProgress| {
        (done + u64::from(array.succeeded()), tasks + u64::from(array.tasks))
    };
    progress.arrays().iter().fold((0, 0), sum)
}

fn line(progress: &Progress) -> String {
    let (done, tasks) = totals(progress);
    let arrays = progress.arrays().iter().take(BARS);
    let parts: Vec<_> =
        arrays.map(|array| format!("{} {}/{}", label(&array.name), array.succeeded(), array.tasks)).collect();
    format!("{done}/{tasks} tasks ({})", parts.join(", "))
}

/// A name that fits and cannot disturb the template or the terminal.
fn label(name: &str) -> String {
    clean(name).chars().filter(|c| !matches!(c, '{' | '}')).take(20).collect()
}

fn style(label: &str) -> ProgressStyle {
    let template = format!("{label:<20} {{bar:30}} {{pos:>8}}/{{len:<8}} {{elapsed:>6}} {{msg}}");
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use partita_client::{ArrayStatus, JobEvent, TaskCounts, TaskEnd};
    use partita_types::ArrayIndex;

    use super::*;

    #[test]
    fn a_line_says_how_far_the_job_and_its_arrays_are() {
        let mut progress = Progress::default();
        let array = |name: &str, tasks| ArrayStatus {
            name: name.into(),
            function: "f".into(),
            tasks,
            outputs: 1,
            counts: TaskCounts::default(),
        };
        progress.apply(&JobEvent::ArraysAdded { arrays: vec![array("map", 10), array("{red\x1buce}", 2)] });
        let tasks = vec![0..3, 5..6];
        progress.apply(&JobEvent::TasksEnded { array: ArrayIndex(0), end: TaskEnd::Succeeded, tasks });
        assert_eq!(line(&progress), "4/12 tasks (map 4/10, red\u{FFFD}uce 0/2)");
    }
}
