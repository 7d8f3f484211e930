//! What attempts logged.

use partita_types::{AttemptId, AttemptLog, JobId, LogLevel, LogLine, TaskId};

use super::{DecodeError, array, attempt_number};
use crate::job as wire;

impl From<LogLine> for wire::LogLine {
    fn from(line: LogLine) -> Self {
        Self { level: line.level as u32, text: line.text }
    }
}

impl TryFrom<wire::LogLine> for LogLine {
    type Error = DecodeError;

    fn try_from(line: wire::LogLine) -> Result<Self, DecodeError> {
        let level = usize::try_from(line.level).ok().and_then(|level| LogLevel::ALL.get(level));
        let unknown = DecodeError::Range { message: "a log line", field: "level", value: u64::from(line.level) };
        Ok(Self { level: *level.ok_or(unknown)?, text: line.text })
    }
}

impl From<AttemptLog> for wire::AttemptLog {
    fn from(log: AttemptLog) -> Self {
        let task = log.attempt.task;
        Self {
            array: task.array.0,
            index: task.index,
            attempt: log.attempt.number.0.get(),
            lines: log.lines.into_iter().map(Into::into).collect(),
        }
    }
}

impl wire::AttemptLog {
    /// What it is as the log of an attempt of `job`, which the message does not name.
    ///
    /// # Errors
    /// If the attempt or a line cannot be.
    pub fn of(self, job: JobId) -> Result<AttemptLog, DecodeError> {
        let task = TaskId { job, array: array(self.array), index: self.index };
        let number = attempt_number("a log", self.attempt)?;
        let lines = self.lines.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        Ok(AttemptLog { attempt: AttemptId { task, number }, lines })
    }
}

#[cfg(test)]
mod tests {
    use partita_types::{ArrayIndex, AttemptNumber, TenantId};

    use super::*;

    #[test]
    fn a_log_survives_the_way_and_an_unknown_level_does_not() {
        let job = JobId { tenant: TenantId(3), number: 7 };
        let attempt = AttemptId { task: TaskId { job, array: ArrayIndex(1), index: 2 }, number: AttemptNumber::FIRST };
        let lines = LogLevel::ALL.map(|level| LogLine { level, text: level.as_str().to_owned() }).to_vec();
        let log = AttemptLog { attempt, lines };
        let mut sent = wire::AttemptLog::from(log.clone());
        assert_eq!(sent.clone().of(job), Ok(log));
        sent.lines[0].level = 4;
        assert!(sent.clone().of(job).is_err());
        sent.lines.clear();
        sent.attempt = 0;
        assert!(sent.of(job).is_err());
    }
}
