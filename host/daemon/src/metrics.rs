//! What a host counts about itself, for its log and for whoever asks [`crate::Running`].

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters since the start of the process.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        /// The values of all counters at one time.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct HostCounters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Reads all counters.
            pub(crate) fn read(&self) -> HostCounters {
                HostCounters { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Sessions that the scheduler welcomed.
    sessions,
    /// Frames taken in.
    frames,
    /// Attempts that succeeded.
    attempts_succeeded,
    /// Attempts that failed, for whatever cause.
    attempts_failed,
    /// Executors forked.
    executors_forked,
    /// Executors that were killed or died while they had work.
    executors_lost,
    /// Modules compiled here.
    modules_compiled,
    /// Partitions fetched from other hosts.
    fetched_partitions,
    /// The bytes of those.
    fetched_bytes,
    /// Partitions sent to other hosts.
    served_partitions,
    /// The bytes of those.
    served_bytes,
    /// Fetches by other hosts that were refused.
    fetches_refused,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }
}
