//! What the events of one job say of each of its tasks, and whether they can all be true.
//!
//! Watchers see what is on disk, and nothing else. So a completion that was seen is in the journal, and its task may succeed
//! a second time only after the cluster has said that its outputs were lost.

use std::collections::BTreeMap;

use serde_json::Value;

/// The array and the index of a task.
pub(super) type TaskName = (u64, u64);

/// The events of a job so far, in their order.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// As they came; their numbers are their places.
    events: Vec<Value>,
    arrays: Vec<Array>,
    tasks: BTreeMap<TaskName, Task>,
    /// Attempts that failed.
    failures: Vec<Failure>,
    end: Option<String>,
    /// At the first loss: whether the array before the last still had tasks to run.
    needed: bool,
}

#[derive(Debug)]
struct Array {
    tasks: u64,
    outputs: u64,
}

/// One task.
#[derive(Debug, Default, Clone, Copy)]
struct Task {
    successes: u64,
    losses: u64,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) task: TaskName,
    pub(super) cause: String,
}

impl Ledger {
    /// Takes in one line of `partita --json job watch`; says what is wrong with it if it cannot be true.
    pub(super) fn take(&mut self, line: &str) -> Result<(), String> {
        let event: Value = serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
        let number = event["sequence"].as_u64();
        if number != u64::try_from(self.events.len()).ok() {
            return Err(format!("event {} came where {} was due: {line}", event["sequence"], self.events.len()));
        }
        if let Some(end) = &self.end {
            return Err(format!("the job had {end} already: {line}"));
        }
        match event["event"].as_str().unwrap_or_default() {
            "arrays-added" => self.add_arrays(&event),
            "tasks-ended" if event["end"] == "succeeded" => self.each_task(&event, |task| {
                task.successes += 1;
                (task.successes == task.losses + 1).then_some(()).ok_or("it had succeeded, and nothing of it was lost")
            }),
            "tasks-ended" => Err("a task of this job can only succeed".to_owned()),
            "tasks-lost" => self.note_loss().each_task(&event, |task| {
                task.losses += 1;
                (task.successes == task.losses).then_some(()).ok_or("it had not succeeded, and lost its outputs")
            }),
            "attempt-failed" => {
                let cause = event["cause"].as_str().unwrap_or_default().to_owned();
                self.failures.push(Failure { task: (number_of(&event, "array"), number_of(&event, "index")), cause });
                Ok(())
            }
            "job-ended" => {
                self.end = event["state"].as_str().map(str::to_owned);
                Ok(())
            }
            other => Err(format!("nobody knows what {other:?} is")),
        }
        .map_err(|fault| format!("{fault}: {line}"))?;
        self.events.push(event);
        Ok(())
    }

    fn add_arrays(&mut self, event: &Value) -> Result<(), String> {
        let arrays = event["arrays"].as_array().ok_or("there are no arrays")?;
        let array = |array: &Value| Array { tasks: number_of(array, "tasks"), outputs: number_of(array, "outputs") };
        self.arrays.extend(arrays.iter().map(array));
        Ok(())
    }

    fn note_loss(&mut self) -> &mut Self {
        if self.rerun() == 0 {
            let reader = self.arrays.len().saturating_sub(2);
            let done = self.tasks.iter().filter(|((array, _), task)| *array == reader as u64 && task.successes > 0);
            self.needed = self.arrays.get(reader).is_some_and(|array| (done.count() as u64) < array.tasks);
        }
        self
    }

    fn each_task(
        &mut self,
        event: &Value,
        change: impl Fn(&mut Task) -> Result<(), &'static str>,
    ) -> Result<(), String> {
        let array = number_of(event, "array");
        for range in event["tasks"].as_array().ok_or("there are no tasks")? {
            for index in number_of(range, "start")..number_of(range, "end") {
                let task = self.tasks.entry((array, index)).or_default();
                change(task).map_err(|fault| format!("task {index} of array {array}: {fault}"))?;
            }
        }
        Ok(())
    }

    /// The events themselves.
    pub(super) fn events(&self) -> &[Value] {
        &self.events
    }

    /// How the job ended, if it has.
    pub(super) fn end(&self) -> Option<&str> {
        self.end.as_deref()
    }

    /// All tasks of the job.
    pub(super) fn all(&self) -> u64 {
        self.arrays.iter().map(|array| array.tasks).sum()
    }

    /// Tasks that have succeeded and whose outputs were not lost since.
    pub(super) fn done(&self) -> u64 {
        self.tasks.values().map(|task| task.successes - task.losses).sum()
    }

    /// Whether everything that was written until the first loss was needed still: nothing is given up before every task
    /// of the array before the last, which reads all of the others, has succeeded.
    pub(super) fn all_was_needed(&self) -> bool {
        self.needed
    }

    /// Tasks that had succeeded and had to run again.
    pub(super) fn rerun(&self) -> u64 {
        self.tasks.values().map(|task| task.losses).sum()
    }

    /// How many partitions were lost with them.
    pub(super) fn lost_partitions(&self) -> u64 {
        let outputs = |array: u64| usize::try_from(array).ok().and_then(|place| self.arrays.get(place));
        let lost = |(name, task): (&TaskName, &Task)| outputs(name.0).map_or(0, |array| array.outputs) * task.losses;
        self.tasks.iter().map(lost).sum()
    }

    /// Attempts that ended, well or not.
    pub(super) fn attempts(&self) -> u64 {
        self.tasks.values().map(|task| task.successes).sum::<u64>() + self.failures.len() as u64
    }

    /// Attempts that failed.
    pub(super) fn failures(&self) -> &[Failure] {
        &self.failures
    }
}

fn number_of(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("there is no number {key} in {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARRAYS: &str =
        r#"{"sequence":0,"event":"arrays-added","arrays":[{"tasks":4,"outputs":8},{"tasks":1,"outputs":1}]}"#;

    fn ended(sequence: u32, event: &str, start: u32, end: u32) -> String {
        let tasks = format!(r#""array":0,"tasks":[{{"start":{start},"end":{end}}}]"#);
        format!(r#"{{"sequence":{sequence},"event":"{event}","end":"succeeded",{tasks}}}"#)
    }

    fn ledger(lines: &[String]) -> Result<Ledger, String> {
        let mut ledger = Ledger::default();
        ledger.take(ARRAYS)?;
        lines.iter().try_for_each(|line| ledger.take(line))?;
        Ok(ledger)
    }

    #[test]
    fn a_task_that_was_lost_may_succeed_again() {
        let lines = [ended(1, "tasks-ended", 0, 4), ended(2, "tasks-lost", 1, 3), ended(3, "tasks-ended", 1, 2)];
        let ledger = ledger(&lines).unwrap();
        assert_eq!((ledger.all(), ledger.done(), ledger.rerun(), ledger.lost_partitions()), (5, 3, 2, 16));
        assert_eq!(ledger.attempts(), 5);
        assert!(!ledger.all_was_needed(), "the array before the last had ended");
    }

    #[test]
    fn a_task_that_was_not_lost_may_not_succeed_again() {
        let error = ledger(&[ended(1, "tasks-ended", 0, 4), ended(2, "tasks-ended", 3, 4)]).unwrap_err();
        assert!(error.starts_with("task 3 of array 0: it had succeeded"), "{error}");
    }

    #[test]
    fn what_never_succeeded_cannot_be_lost() {
        let error = ledger(&[ended(1, "tasks-ended", 0, 2), ended(2, "tasks-lost", 1, 3)]).unwrap_err();
        assert!(error.starts_with("task 2 of array 0: it had not succeeded"), "{error}");
    }

    #[test]
    fn a_gap_and_a_repetition_are_noticed() {
        for sequence in [0, 2] {
            let error = ledger(&[ended(sequence, "tasks-ended", 0, 1)]).unwrap_err();
            assert!(error.starts_with(&format!("event {sequence} came where 1 was due")), "{error}");
        }
    }
}
