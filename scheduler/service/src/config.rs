//! The configuration of a scheduler process, and its one check.
//!
//! Where the values come from (arguments, a file) is the caller's business.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use partita_types::ByteSize;

/// What a scheduler is told when it starts.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    /// Name of the cluster: in its certificates, tokens and journal. Cannot change once there is a data directory.
    pub cluster: String,
    /// Where clients and hosts connect. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// Where `/metrics`, `/healthz` and `/readyz` are served, without TLS: keep it on the loopback interface or behind
    /// a firewall.
    pub metrics: SocketAddr,
    /// The data directory: authority, token keys, journal, modules and audit log.
    pub data: PathBuf,
    /// Directory of policy files, `*.toml`.
    pub policies: PathBuf,
    /// DNS names and addresses that the server's certificate carries, besides `localhost` and the loopback addresses.
    pub names: Vec<String>,
    /// Room on the disk of the data directory that new jobs and modules do not get; see [`DISK_RESERVE`].
    pub disk_reserve: ByteSize,
    /// A file that names other issuers of tokens that are believed.
    pub issuers: Option<PathBuf>,
}

/// Enough for the journal of many million ends of tasks, and for a compaction of a journal of usual size.
pub const DISK_RESERVE: ByteSize = ByteSize::mib(256);

/// Longest name of a cluster: it becomes part of URIs in certificates.
const MAX_CLUSTER: usize = 63;

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the scheduler's configuration has {} fault(s): {}", .0.len(), .0.join("; "))]
pub struct ConfigError(pub Vec<String>);

impl SchedulerConfig {
    /// Checks everything that can be checked without starting.
    ///
    /// # Errors
    /// All faults together.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut faults = Vec::new();
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        if self.cluster.is_empty() || self.cluster.len() > MAX_CLUSTER || !plain(&self.cluster) {
            faults.push(format!(
                "cluster name {:?} is not valid: use 1 to {MAX_CLUSTER} letters, digits, '-', '.' and '_'",
                self.cluster
            ));
        }
        for name in &self.names {
            let address = name.parse::<std::net::IpAddr>().is_ok();
            if name.is_empty() || name.len() > 253 || !(address || plain(name)) {
                faults.push(format!("server name {name:?} is neither a DNS name nor an IP address"));
            }
        }
        if self.listen == self.metrics && self.listen.port() != 0 {
            faults.push(format!("clients and metrics cannot both be served at {}", self.listen));
        }
        if !self.policies.is_dir() {
            faults.push(format!("policy directory {} does not exist", self.policies.display()));
        }
        if self.data.as_os_str().is_empty() {
            faults.push("the data directory has no name".to_owned());
        }
        if faults.is_empty() { Ok(()) } else { Err(ConfigError(faults)) }
    }

    /// Names for the server's certificate, without repetition.
    pub(crate) fn certificate_names(&self) -> Vec<String> {
        let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        let own = (!self.listen.ip().is_unspecified()).then(|| self.listen.ip().to_string());
        names.extend(self.names.iter().cloned().chain(own));
        let mut seen = std::collections::BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }

    pub(crate) fn paths(&self) -> Paths {
        Paths::new(&self.data)
    }
}

/// Where the data directory of a scheduler has its revocations.
#[must_use]
pub fn revoked_path(data: &Path) -> PathBuf {
    data.join("revoked.jsonl")
}

/// Where the data directory of a scheduler lists the tokens that were issued.
#[must_use]
pub fn issued_path(data: &Path) -> PathBuf {
    data.join("issued.jsonl")
}

/// Where things are in the data directory.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub(crate) authority: PathBuf,
    pub(crate) tokens: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) modules: PathBuf,
    pub(crate) joined: PathBuf,
    pub(crate) audit: PathBuf,
    pub(crate) revoked: PathBuf,
    pub(crate) issued: PathBuf,
    /// The authority's certificate again, where people look for it.
    pub(crate) public_certificate: PathBuf,
}

impl Paths {
    fn new(data: &Path) -> Self {
        Self {
            authority: data.join("authority"),
            tokens: data.join("tokens"),
            state: data.join("state"),
            modules: data.join("modules"),
            joined: data.join("joined"),
            audit: data.join("audit"),
            revoked: revoked_path(data),
            issued: issued_path(data),
            public_certificate: data.join("ca.pem"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> SchedulerConfig {
        SchedulerConfig {
            cluster: "test".to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            metrics: SocketAddr::from(([127, 0, 0, 1], 0)),
            data: PathBuf::from("data"),
            policies: std::env::temp_dir(),
            names: Vec::new(),
            disk_reserve: DISK_RESERVE,
            issuers: None,
        }
    }

    #[test]
    fn all_faults_are_reported_together() {
        let bad = SchedulerConfig {
            cluster: "a/b".to_owned(),
            names: vec!["ok.example".to_owned(), "not ok".to_owned()],
            policies: PathBuf::from("/nowhere/at/all"),
            ..config()
        };
        let faults = bad.check().unwrap_err().0;
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults[0].contains("a/b") && faults[1].contains("not ok") && faults[2].contains("/nowhere"));
        assert_eq!(config().check(), Ok(()));
    }

    #[test]
    fn the_certificate_names_each_name_once() {
        let mut config = config();
        config.names = vec!["scheduler.example".to_owned(), "localhost".to_owned()];
        assert_eq!(config.certificate_names(), ["localhost", "127.0.0.1", "::1", "scheduler.example"]);
    }
}
