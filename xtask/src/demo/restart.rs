//! The second act of the demo: the scheduler is killed when half of the tasks have ended, and started again. The job goes
//! on; what had ended does not run again.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::parts::Parts;
use super::report::{grouped, mib, print_top};
use super::words::{self, Counted, Native};
use super::{HOSTS, Programs, step};
use crate::children::{self, Server};
use crate::cluster::{JobFigures, job_file, now};
use crate::workspace::Workspace;

/// Longest time between two events of the job.
const SILENCE: Duration = Duration::from_secs(120);

/// What this act showed. It exists only if every number was verified.
pub(super) struct Restart {
    events: Events,
    /// From the kill until the scheduler was ready again.
    away: Duration,
    /// From the kill until the end of the next task was known.
    pause: Duration,
    /// From the submission until the end.
    seconds: f64,
    job: JobFigures,
    counted: Counted,
    native: Native,
}

/// Runs the act.
pub(super) fn run(
    workspace: &Workspace,
    programs: &Programs,
    sources: &Path,
    limit: Option<&str>,
) -> anyhow::Result<Restart> {
    step(&format!("Starting a scheduler and {HOSTS} hosts, each as a process of its own"));
    let scratch = tempfile::Builder::new().prefix("partita-demo-").tempdir();
    let scratch = scratch.context("cannot create a temporary directory")?;
    let mut parts = Parts::start(&programs.partita, scratch.path(), sources, HOSTS)?;

    step("analytics counts the identifiers in the crates on this machine");
    let file = job_file(workspace, "wordfreq", scratch.path())?;
    let mut submit = parts.partita();
    submit.arg("run").arg(&file).arg("--detach");
    if let Some(limit) = limit {
        submit.args(["--limit", limit]);
    }
    let number = children::output(&mut submit).context("the job was not accepted")?.trim().to_owned();
    let begin = now();
    let watch = Server::start(parts.partita().args(["--json", "job", "watch", &number]))?;
    let mut events = Events::default();
    follow(&watch, &mut events, |events| events.is_half_done())?;

    let (all, before) = (events.tasks, events.ended());
    step(&format!("{before} of {all} tasks have ended: killing the scheduler with SIGKILL, and starting it again"));
    let killed = now();
    parts.kill_scheduler()?;
    events.scheduler_was_killed();
    parts.start_scheduler()?;
    let away = killed.elapsed();
    println!("ready again after {:.2} s, with the journal and what the hosts kept", away.as_secs_f64());
    follow(&watch, &mut events, |events| events.ended() > before || events.end.is_some())?;
    let pause = killed.elapsed();
    follow(&watch, &mut events, |events| events.end.is_some())?;
    let seconds = begin.elapsed().as_secs_f64();
    ensure!(events.end.as_deref() == Some("succeeded"), "the job {}", events.end.unwrap_or_default());

    let result = scratch.path().join("top.json");
    children::output(parts.partita().args(["job", "result", &number, "top", "--output"]).arg(&result))?;
    let counted = Counted::read(&result)?;
    let job = JobFigures::parse(&children::output(parts.partita().args(["--json", "job", "show", &number]))?)?;
    parts.stop()?;

    step("Counting natively, on the same cores and without Partita");
    let native = Native::count(&programs.native, sources, limit.map(words::bytes).transpose()?, counted.words.len())?;
    print_top(&counted);
    native.check(&counted, &job)?;
    println!("Verified: the native count comes to every number above: files, bytes, totals and the top 20.");
    ensure!(events.again == 0, "{} tasks that had ended ran again", events.again);
    Ok(Restart { events, away, pause, seconds, job, counted, native })
}

/// Takes in events until something is known.
fn follow(watch: &Server, events: &mut Events, known: impl Fn(&Events) -> bool) -> anyhow::Result<()> {
    while !known(events) {
        let line = watch.line("event of the job", SILENCE, |line| Some(line.to_owned()))?;
        events.take(&line)?;
    }
    Ok(())
}

/// What one watch saw, over the kill.
#[derive(Debug, Default)]
struct Events {
    next: u64,
    tasks: u64,
    ended: BTreeSet<(u64, u64)>,
    /// Those that had ended when the scheduler was killed.
    before: BTreeSet<(u64, u64)>,
    /// How many of them ran again.
    again: u64,
    end: Option<String>,
}

impl Events {
    /// Takes in a line of `partita --json job watch`, which must be the next event.
    fn take(&mut self, line: &str) -> anyhow::Result<()> {
        let event: Value = serde_json::from_str(line).with_context(|| format!("not an event: {line}"))?;
        let number = event.get("sequence").and_then(Value::as_u64);
        ensure!(number == Some(self.next), "event {} was to come next, and not this: {line}", self.next);
        self.next += 1;
        match event.get("event").and_then(Value::as_str).unwrap_or_default() {
            "arrays-added" => {
                let arrays = event.get("arrays").and_then(Value::as_array).into_iter().flatten();
                self.tasks += arrays.filter_map(|array| array.get("tasks")?.as_u64()).sum::<u64>();
            }
            "tasks-ended" => {
                for task in tasks(&event) {
                    if !self.ended.insert(task) {
                        bail!("task {task:?} ended twice, and nothing of it was lost: {line}");
                    }
                }
            }
            "tasks-lost" => {
                for task in tasks(&event) {
                    self.ended.remove(&task);
                    self.again += u64::from(self.before.contains(&task));
                }
            }
            "job-ended" => self.end = event.get("state").and_then(Value::as_str).map(str::to_owned),
            _ => {}
        }
        Ok(())
    }

    fn scheduler_was_killed(&mut self) {
        self.before.clone_from(&self.ended);
    }

    fn ended(&self) -> u64 {
        self.ended.len() as u64
    }

    fn is_half_done(&self) -> bool {
        self.tasks > 0 && self.ended() * 2 >= self.tasks
    }
}

/// The tasks of an event.
fn tasks(event: &Value) -> Vec<(u64, u64)> {
    let number = |value: &Value, key: &str| value.get(key).and_then(Value::as_u64).unwrap_or_default();
    let array = number(event, "array");
    let ranges = event.get("tasks").and_then(Value::as_array).into_iter().flatten();
    ranges.flat_map(|range| (number(range, "start")..number(range, "end")).map(move |index| (array, index))).collect()
}

impl Restart {
    /// The table of figures.
    pub(super) fn print(&self) {
        let row = |name: &str, value: String| println!("  {name:<28} {value}");
        println!();
        row("tasks, attempts", format!("{}, {}", grouped(self.job.tasks), grouped(self.job.attempts)));
        row("read", format!("{:.1} MiB", mib(self.job.bytes_read)));
        row("ended before the kill", grouped(self.events.before.len() as u64));
        row("of those, run again", grouped(self.events.again));
        row("without a scheduler", format!("{:.2} s", self.away.as_secs_f64()));
        row("until the next task's end", format!("{:.2} s", self.pause.as_secs_f64()));
        row("job, all in all", format!("{:.2} s", self.seconds));
        let (native, threads) = (self.native.seconds, self.native.threads);
        row("native, same cores", format!("{native:.2} s with {threads} threads"));
    }

    /// The line at the end.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "act": "restart",
            "verified": true,
            "hosts": HOSTS,
            "tasks": self.job.tasks,
            "attempts": self.job.attempts,
            "finished_before_kill": self.events.before.len(),
            "finished_run_again": self.events.again,
            "events": self.events.next,
            "seconds_without_scheduler": self.away.as_secs_f64(),
            "seconds_until_next_end": self.pause.as_secs_f64(),
            "seconds": self.seconds,
            "native_seconds": self.native.seconds,
            "files": self.job.files,
            "mib": mib(self.job.bytes_read),
            "tokens": self.counted.tokens,
            "distinct": self.counted.distinct,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARRAYS: &str = r#"{"sequence":0,"event":"arrays-added","arrays":[{"tasks":3},{"tasks":1}]}"#;

    fn event(sequence: u64, event: &str, start: u64, end: u64) -> String {
        format!(r#"{{"sequence":{sequence},"event":"{event}","array":0,"tasks":[{{"start":{start},"end":{end}}}]}}"#)
    }

    #[test]
    fn what_had_ended_and_runs_again_is_counted() {
        let mut events = Events::default();
        events.take(ARRAYS).unwrap();
        events.take(&event(1, "tasks-ended", 0, 2)).unwrap();
        assert!(events.is_half_done());
        events.scheduler_was_killed();
        events.take(&event(2, "tasks-ended", 2, 3)).unwrap();
        events.take(&event(3, "tasks-lost", 1, 3)).unwrap();
        assert_eq!((events.ended(), events.again), (1, 1));
    }

    #[test]
    fn a_repeated_event_and_a_second_end_are_errors() {
        let mut events = Events::default();
        events.take(ARRAYS).unwrap();
        assert!(events.take(ARRAYS).is_err());
        events.take(&event(1, "tasks-ended", 0, 2)).unwrap();
        let error = events.take(&event(2, "tasks-ended", 1, 3)).unwrap_err().to_string();
        assert!(error.contains("ended twice"), "{error}");
    }
}
