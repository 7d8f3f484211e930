//! The audit log, as the cluster shows it.

/// Some lines of the audit log. Each is a hash in hexadecimal, a space, and an object of JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPage {
    /// The lines, as they stand in the log.
    pub lines: Vec<String>,
    /// Whether there are more behind them.
    pub more: bool,
    /// The number of the last line of all.
    pub last: u64,
    /// Its hash: whoever notes it can tell later whether anything before was changed.
    pub hash: String,
}
