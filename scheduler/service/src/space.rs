//! Room on the disk: the last of it is kept for the work that was accepted, and new work is refused before.
//!
//! A journal that cannot be written ends the scheduler, so what would make it grow stops earlier. What lets it shrink
//! (cancelling, releasing) and the ends of running tasks may use the reserve.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use partita_types::ByteSize;
use tokio::time::MissedTickBehavior;
use tonic::Status;
use tracing::warn;

use crate::metrics::Metrics;

/// How often the disk is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The disk of a data directory. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Space {
    directory: Arc<Path>,
    reserve: ByteSize,
    /// Bytes that were free when the disk was looked at last, without those that were promised since.
    free: Arc<AtomicU64>,
    metrics: Metrics,
}

impl Space {
    /// Looks at the disk for the first time. Blocks.
    pub(crate) fn new(directory: &Path, reserve: ByteSize, metrics: Metrics) -> Self {
        let free = Arc::new(AtomicU64::new(free(directory)));
        Self { directory: directory.into(), reserve, free, metrics }
    }

    /// Looks at the disk now and then, for ever. A disk that does not answer holds up nobody but this.
    pub(crate) async fn follow(self) {
        let mut timer = tokio::time::interval(LOOK);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            let directory = Arc::clone(&self.directory);
            if let Ok(free) = tokio::task::spawn_blocking(move || free(&directory)).await {
                self.free.store(free, Ordering::Relaxed);
            }
        }
    }

    /// Refuses something that needs `size` bytes of the disk if they would touch the reserve.
    pub(crate) fn check(&self, what: &str, size: ByteSize) -> Result<(), Status> {
        let needed = self.reserve.0.saturating_add(size.0);
        // Taken off, so that many who ask between two looks do not get the same room.
        let taken = self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| {
            (free >= needed).then(|| free.saturating_sub(size.0))
        });
        let Err(free) = taken.map_err(ByteSize) else { return Ok(()) };
        self.metrics.refused_for_space.inc();
        let Self { directory, reserve, .. } = self;
        warn!(directory = %directory.display(), %free, %reserve, "the disk is almost full, new work is refused");
        Err(Status::resource_exhausted(format!(
            "the scheduler's disk has {free} left and keeps {reserve} for work that it has accepted, so it does not \
             take this {what} ({size}); release jobs that are not needed, or ask the cluster's administrator for room"
        )))
    }
}

/// Bytes that a process may still write. More than there can be if that is not known: writing will tell, and to refuse
/// all work because of a question would be worse.
fn free(directory: &Path) -> u64 {
    match rustix::fs::statvfs(directory) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
        Err(error) => {
            warn!(directory = %directory.display(), %error, "cannot tell how much room there is");
            u64::MAX
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn work_that_would_touch_the_reserve_is_refused_with_all_figures() {
        let directory = tempfile::tempdir().unwrap();
        let space = |reserve| Space::new(directory.path(), ByteSize(reserve), Metrics::new().unwrap());
        assert!(space(0).check("job", ByteSize::kib(1)).is_ok());
        let refused = space(u64::MAX).check("job", ByteSize::kib(1)).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        for part in ["job", "1 KiB", "16777215.9 TiB"] {
            assert!(refused.message().contains(part), "{part} is missing in {refused}");
        }
        assert!(space(0).check("module", ByteSize(u64::MAX)).is_err());
    }

    #[test]
    fn what_was_promised_since_the_last_look_is_not_promised_again() {
        let directory = tempfile::tempdir().unwrap();
        let space = Space::new(directory.path(), ByteSize::mib(1), Metrics::new().unwrap());
        space.free.store(ByteSize::mib(3).0, Ordering::Relaxed);
        let again = space.clone();
        assert!(space.check("job", ByteSize::mib(2)).is_ok());
        let refused = again.check("job", ByteSize(1)).unwrap_err();
        assert!(refused.message().contains("has 1 MiB left and keeps 1 MiB"), "{refused}");
    }

    #[tokio::test]
    async fn the_disk_is_looked_at_again() {
        let directory = tempfile::tempdir().unwrap();
        let space = Space::new(directory.path(), ByteSize(1), Metrics::new().unwrap());
        space.free.store(0, Ordering::Relaxed);
        assert!(space.check("job", ByteSize(1)).is_err());
        let seen = async {
            while space.check("job", ByteSize(1)).is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = space.clone().follow() => panic!("it goes on for ever"),
            () = seen => {}
        }
    }
}
