//! Room on the disk: the last of it is kept for the work that was accepted, and new work is refused before.
//!
//! A journal that cannot be written ends the scheduler, so what would make it grow stops earlier. What lets it shrink
//! (cancelling, releasing) and the ends of running tasks may use the reserve.

use std::path::Path;
use std::sync::Arc;

use partita_types::ByteSize;
use tonic::Status;
use tracing::warn;

use crate::metrics::Metrics;

/// The disk of a data directory. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Space {
    directory: Arc<Path>,
    reserve: ByteSize,
    metrics: Metrics,
}

impl Space {
    pub(crate) fn new(directory: &Path, reserve: ByteSize, metrics: Metrics) -> Self {
        Self { directory: directory.into(), reserve, metrics }
    }

    /// Refuses something that needs `size` bytes of the disk if they would touch the reserve.
    pub(crate) fn check(&self, what: &str, size: ByteSize) -> Result<(), Status> {
        let free = match rustix::fs::statvfs(&*self.directory) {
            Ok(disk) => ByteSize(disk.f_bavail.saturating_mul(disk.f_frsize)),
            Err(error) => {
                // Writing will tell; to refuse all work because of a question would be worse.
                warn!(directory = %self.directory.display(), %error, "cannot tell how much room there is");
                return Ok(());
            }
        };
        if free.0 >= self.reserve.0.saturating_add(size.0) {
            return Ok(());
        }
        self.metrics.refused_for_space.inc();
        let Self { directory, reserve, .. } = self;
        warn!(directory = %directory.display(), %free, %reserve, "the disk is almost full, new work is refused");
        Err(Status::resource_exhausted(format!(
            "the scheduler's disk has {free} left and keeps {reserve} for work that it has accepted, so it does not \
             take this {what} ({size}); release jobs that are not needed, or ask the cluster's administrator for room"
        )))
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
}
