//! What this machine has, to share it among the hosts of a local cluster.

use std::num::NonZeroUsize;

use partita_types::ByteSize;

/// If the system does not say how much memory there is.
const ASSUMED_MEMORY: ByteSize = ByteSize::gib(2);

/// Part of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) cores: u32,
    pub(crate) memory: ByteSize,
    pub(crate) partitions: ByteSize,
}

/// An equal share for each of `hosts`: together all cores, half of the memory for tasks and a quarter for partitions.
pub(crate) fn share(hosts: u32) -> Share {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    divide(u32::try_from(cores).unwrap_or(1), total_memory(&text).unwrap_or(ASSUMED_MEMORY), hosts)
}

fn divide(cores: u32, memory: ByteSize, hosts: u32) -> Share {
    let hosts = hosts.max(1);
    let part = memory.0 / u64::from(hosts);
    Share { cores: (cores / hosts).max(1), memory: ByteSize(part / 2), partitions: ByteSize(part / 4) }
}

/// From the text of `/proc/meminfo`, whose first line is `MemTotal:  16384 kB`.
fn total_memory(text: &str) -> Option<ByteSize> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok().map(ByteSize::kib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_are_never_nothing() {
        let share = divide(2, ByteSize::gib(8), 2);
        assert_eq!(share, Share { cores: 1, memory: ByteSize::gib(2), partitions: ByteSize::gib(1) });
        assert_eq!(divide(2, ByteSize::gib(8), 5).cores, 1);
    }

    #[test]
    fn memory_is_read_from_the_kernels_text() {
        assert_eq!(total_memory("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(ByteSize::mib(16)));
        assert_eq!(total_memory("nothing"), None);
    }
}
