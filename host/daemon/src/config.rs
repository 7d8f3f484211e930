//! What a host is told when it starts, checked once, all faults together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use partita_identity::token::Token;
use partita_sandbox::Program;
use partita_types::{ByteSize, Features, HostName};

/// Most core leases of one host; each has a thread and usually a process.
const MAX_CORES: u32 = 1024;
/// Least memory for guests: less does not hold one instance with its stack and tables.
const MIN_MEMORY: ByteSize = ByteSize::mib(16);
/// Least memory for partitions: one chunk of every transfer has to fit.
const MIN_PARTITIONS: ByteSize = ByteSize::mib(1);

/// How long the scheduler may be away: time enough to start it on another machine.
const AWAY: Duration = Duration::from_secs(600);

/// Configuration of a host process.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// The name that its certificate carries.
    pub name: HostName,
    /// The scheduler, as `name:port`; its certificate must carry the name.
    pub scheduler: String,
    /// The cluster's authority, a PEM file.
    pub authority: PathBuf,
    /// Where the host keeps its key and its compiled modules. Created if it is not there.
    pub data: PathBuf,
    /// The right to join; needed at the first start only.
    pub join_token: Option<Token>,
    /// Where to listen for other hosts. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// `address:port` under which other hosts reach it, if that is not the address it listens on.
    pub advertise: Option<String>,
    /// Core leases: how many executors may run at once.
    pub cores: u32,
    /// Memory for running guests, together.
    pub memory: ByteSize,
    /// Memory for stored partitions.
    pub partitions: ByteSize,
    /// What it has beyond its size: tasks ask for these labels and resources.
    pub features: Features,
    /// How helper processes are started.
    pub program: Program,
    /// For how long the host goes on with what it was given while the scheduler is away. After that it stops what runs,
    /// and forgets ends that nobody acknowledged; partitions are kept.
    pub away: Duration,
}

/// What is wrong with a configuration: every fault that was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration of the host is not valid: {}", faults.join("; "))]
pub struct ConfigError {
    /// One sentence each, naming the setting and its value.
    pub faults: Vec<String>,
}

impl HostConfig {
    /// A configuration with defaults: all cores, half of the machine's memory for guests and a quarter for
    /// partitions, any free port of the loopback interface.
    #[must_use]
    pub fn new(name: HostName, scheduler: String, authority: PathBuf, data: PathBuf, program: Program) -> Self {
        let total = total_memory();
        Self {
            name,
            scheduler,
            authority,
            data,
            join_token: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise: None,
            cores: default_cores(),
            memory: ByteSize(total.0 / 2),
            partitions: ByteSize(total.0 / 4),
            features: Features::default(),
            program,
            away: AWAY,
        }
    }

    /// Checks what can be checked without touching anything.
    ///
    /// # Errors
    /// All faults together.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut faults = Vec::new();
        let mut demand = |good: bool, fault: String| {
            if !good {
                faults.push(fault);
            }
        };
        demand(
            is_host_port(&self.scheduler),
            format!("scheduler is {:?}, which is not of the form name:port", self.scheduler),
        );
        demand(
            (1..=MAX_CORES).contains(&self.cores),
            format!("cores is {}, which is not from 1 to {MAX_CORES}", self.cores),
        );
        demand(self.memory >= MIN_MEMORY, format!("memory is {}, which is less than {MIN_MEMORY}", self.memory));
        demand(
            self.partitions >= MIN_PARTITIONS,
            format!("partitions is {}, which is less than {MIN_PARTITIONS}", self.partitions),
        );
        if let Err(fault) = self.features.check() {
            demand(false, fault.to_string());
        }
        if let Some(advertise) = &self.advertise {
            demand(
                is_host_port(advertise),
                format!("advertise is {advertise:?}, which is not of the form address:port"),
            );
        } else {
            demand(
                !self.listen.ip().is_unspecified(),
                format!("listen is {}, which other hosts cannot dial; set advertise as well", self.listen),
            );
        }
        if faults.is_empty() { Ok(()) } else { Err(ConfigError { faults }) }
    }

    /// The name that the scheduler's certificate must carry.
    pub(crate) fn scheduler_name(&self) -> &str {
        let name = self.scheduler.rsplit_once(':').map_or(self.scheduler.as_str(), |(name, _)| name);
        name.trim_start_matches('[').trim_end_matches(']')
    }
}

fn is_host_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(name, port)| {
        !name.is_empty() && !name.contains('/') && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

fn default_cores() -> u32 {
    std::thread::available_parallelism().ok().and_then(|cores| u32::try_from(cores.get()).ok()).unwrap_or(1)
}

/// The machine's memory. Where it cannot be found out, a size that every machine has.
fn total_memory() -> ByteSize {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|number| number.trim().parse().ok());
    kib.map_or(ByteSize::gib(1), ByteSize::kib)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> HostConfig {
        HostConfig::new(
            HostName::new("h1").unwrap(),
            "localhost:7700".to_owned(),
            PathBuf::from("ca.pem"),
            PathBuf::from("data"),
            Program { path: PathBuf::from("partita"), args: Vec::new() },
        )
    }

    #[test]
    fn the_defaults_take_the_machine_and_are_valid() {
        let config = config();
        assert!(config.cores >= 1 && config.memory.0 > config.partitions.0, "{config:?}");
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn all_faults_are_told_at_once_and_name_the_setting_and_the_value() {
        let config = HostConfig {
            scheduler: "https://x/".to_owned(),
            cores: 0,
            memory: ByteSize::kib(1),
            partitions: ByteSize::ZERO,
            listen: SocketAddr::from(([0, 0, 0, 0], 0)),
            ..config()
        };
        let error = config.check().unwrap_err();
        assert_eq!(error.faults.len(), 5, "{error}");
        for part in ["scheduler is \"https://x/\"", "cores is 0", "memory is 1 KiB", "partitions is 0 B", "0.0.0.0:0"] {
            assert!(error.to_string().contains(part), "{error} does not mention {part}");
        }
    }

    #[test]
    fn the_name_to_expect_is_the_schedulers_without_port_and_brackets() {
        for (address, name) in [("localhost:1", "localhost"), ("[::1]:7700", "::1"), ("10.0.0.1:70", "10.0.0.1")] {
            let config = HostConfig { scheduler: address.to_owned(), ..config() };
            assert_eq!(config.scheduler_name(), name);
        }
    }
}
