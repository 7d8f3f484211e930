//! What tasks log.

use crate::id::AttemptId;

/// How serious a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// For those who debug the task.
    Debug,
    /// Ordinary.
    Info,
    /// Perhaps a problem.
    Warn,
    /// A problem.
    Error,
}

impl LogLevel {
    /// All levels, in the order of their numbers on the wire.
    pub const ALL: [Self; 4] = [Self::Debug, Self::Info, Self::Warn, Self::Error];

    /// The name used in listings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// One line that a guest logged or printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How serious; standard output is `Info`, standard error `Warn`.
    pub level: LogLevel,
    /// The text, with control characters escaped.
    pub text: String,
}

/// What one attempt logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptLog {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Its lines, in the order in which they were logged.
    pub lines: Vec<LogLine>,
}
