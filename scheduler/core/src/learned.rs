//! What was learned of the run time of a function, and how many of its tasks go into one frame for it.

use partita_types::{CpuTime, ModuleId};
use std::collections::BTreeMap;
use std::time::Duration;

/// About how long one frame shall keep an executor busy: long enough to hide the round trip to the scheduler, short
/// enough that a fair share is soon restored.
const FRAME_TARGET_NANOS: u64 = 10_000_000;
/// Most tasks of one frame; bounds the size of messages and what is lost with a host.
const FRAME_TASKS_MAX: u64 = 256;
/// No task is cheaper than this: an instance has to be made, and its end told.
const TASK_FLOOR_NANOS: u64 = 20_000;
/// Tasks that take at least this long are not queued up at a host: handing out the next one costs nothing beside them.
const LONG_NANOS: u64 = 20_000_000;

/// The run time of one function.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RunTime {
    /// Moving mean of CPU time per task; `None` until a task has ended.
    mean_nanos: Option<u64>,
    /// How many tasks that is known from.
    tasks: u64,
    /// Moving mean of the bytes that a task writes; 0 until one has ended.
    mean_output: u64,
}

impl RunTime {
    /// Takes in tasks that used `cpu` together. One report weighs an eighth, whatever its size.
    pub(crate) fn learn(&mut self, cpu: CpuTime, tasks: u64) {
        if tasks == 0 {
            return;
        }
        self.tasks = self.tasks.saturating_add(tasks);
        let sample = (cpu.micros.saturating_mul(1_000) / tasks).max(TASK_FLOOR_NANOS);
        self.mean_nanos = Some(match self.mean_nanos {
            None => sample,
            Some(mean) => (mean.saturating_mul(7).saturating_add(sample)) / 8,
        });
    }

    /// Takes in tasks that wrote so many bytes together.
    pub(crate) fn learn_output(&mut self, bytes: u64, tasks: u64) {
        let Some(sample) = bytes.checked_div(tasks) else { return };
        let mean = if self.mean_output == 0 { sample } else { self.mean_output };
        self.mean_output = mean - mean / 8 + sample / 8;
    }

    /// About how many bytes a task writes.
    pub(crate) fn output(self) -> u64 {
        self.mean_output
    }

    /// How many tasks make a frame. One, as long as nothing is known.
    pub(crate) fn frame_tasks(self) -> u32 {
        let tasks = self.mean_nanos.map_or(1, |mean| (FRAME_TARGET_NANOS / mean.max(1)).clamp(1, FRAME_TASKS_MAX));
        u32::try_from(tasks).unwrap_or(1)
    }

    /// About how long a task takes, if that is known from so many at least.
    pub(crate) fn known_from(self, tasks: u64) -> Option<Duration> {
        self.mean_nanos.filter(|_| self.tasks >= tasks).map(Duration::from_nanos)
    }

    pub(crate) fn is_unknown(self) -> bool {
        self.mean_nanos.is_none()
    }

    /// Whether a frame takes long, or may.
    pub(crate) fn is_long(self) -> bool {
        self.mean_nanos.is_none_or(|mean| mean >= LONG_NANOS)
    }

    /// About how long a frame takes, in microseconds.
    pub(crate) fn frame_micros(self) -> u64 {
        self.mean_nanos.unwrap_or(0).max(FRAME_TARGET_NANOS) / 1_000
    }
}

/// The run times of a tenant's functions. Arrays refer to them by position.
#[derive(Debug, Default)]
pub(crate) struct RunTimes {
    positions: BTreeMap<(ModuleId, String), usize>,
    times: Vec<RunTime>,
}

impl RunTimes {
    /// The position of a function, new or known.
    pub(crate) fn position(&mut self, module: ModuleId, function: &str) -> usize {
        let times = &mut self.times;
        *self.positions.entry((module, function.to_owned())).or_insert_with(|| {
            times.push(RunTime::default());
            times.len() - 1
        })
    }

    pub(crate) fn get(&self, position: usize) -> RunTime {
        self.times.get(position).copied().unwrap_or_default()
    }

    pub(crate) fn learn(&mut self, position: usize, cpu: CpuTime, tasks: u64) {
        if let Some(time) = self.times.get_mut(position) {
            time.learn(cpu, tasks);
        }
    }

    /// As [`RunTime::learn_output`].
    pub(crate) fn learn_output(&mut self, position: usize, bytes: u64, tasks: u64) {
        if let Some(time) = self.times.get_mut(position) {
            time.learn_output(bytes, tasks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(micros: u64, tasks: u64) -> RunTime {
        let mut time = RunTime::default();
        time.learn(CpuTime::from_micros(micros), tasks);
        time
    }

    #[test]
    fn an_unknown_function_gets_one_task_per_frame() {
        assert_eq!(RunTime::default().frame_tasks(), 1);
        assert!(RunTime::default().is_long());
    }

    #[test]
    fn frames_take_about_ten_milliseconds() {
        assert_eq!(of(1_000, 1).frame_tasks(), 10);
        assert_eq!(of(100_000, 1).frame_tasks(), 1);
        assert_eq!(of(300, 100).frame_tasks(), 256);
        assert_eq!(of(0, 100).frame_tasks(), 256, "too short to be measured");
    }

    #[test]
    fn the_mean_follows_a_change() {
        let mut time = of(100, 1);
        for _ in 0..40 {
            time.learn(CpuTime::from_micros(50_000), 1);
        }
        assert!(time.is_long());
        assert_eq!(time.frame_tasks(), 1);
    }
}
