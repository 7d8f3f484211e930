//! What tasks of a job logged, in types of this crate.

use partita_protocol::client as wire;
use partita_types::{ArrayIndex, LogLevel};
use serde::Serialize;

/// What tasks of a job logged, as far as hosts still keep it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobLog {
    /// In the order of arrays, tasks and attempts.
    pub attempts: Vec<AttemptLog>,
    /// Hosts that have more than they sent; ask for an array or a task.
    pub cut: Vec<String>,
    /// Hosts that did not answer.
    pub silent: Vec<String>,
}

/// What one attempt logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttemptLog {
    /// The array.
    pub array: ArrayIndex,
    /// The task.
    pub index: u32,
    /// Which of its attempts, from 1.
    pub attempt: u32,
    /// The host that ran it.
    pub host: String,
    /// Its lines.
    pub lines: Vec<LogLine>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogLine {
    /// `debug`, `info`, `warn` or `error`; standard output is `info`, standard error `warn`.
    pub level: &'static str,
    /// The text.
    pub text: String,
}

impl From<wire::LogResponse> for JobLog {
    fn from(response: wire::LogResponse) -> Self {
        let mut log = Self::default();
        for wire::HostLog { host, logs, cut, silent } in response.hosts {
            let attempts = logs.into_iter().map(|attempt| AttemptLog {
                array: ArrayIndex(attempt.array),
                index: attempt.index,
                attempt: attempt.attempt,
                host: host.clone(),
                lines: attempt.lines.into_iter().map(Into::into).collect(),
            });
            log.attempts.extend(attempts);
            if cut {
                log.cut.push(host.clone());
            }
            if silent {
                log.silent.push(host);
            }
        }
        log.attempts.sort_by_key(|attempt| (attempt.array, attempt.index, attempt.attempt));
        log
    }
}

impl From<partita_protocol::job::LogLine> for LogLine {
    fn from(line: partita_protocol::job::LogLine) -> Self {
        let level = usize::try_from(line.level).ok().and_then(|level| LogLevel::ALL.get(level));
        Self { level: level.copied().unwrap_or(LogLevel::Info).as_str(), text: line.text }
    }
}
