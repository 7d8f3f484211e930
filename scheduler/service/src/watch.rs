//! The stream of a job's events: what there is, then what comes, until the job has ended.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, stream};
use partita_protocol::client::WatchResponse;
use partita_types::JobId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::hub::{Log, Progress};
use crate::status::not_found;
use crate::wire;

/// The answer to a watch.
pub(crate) type Events = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

/// Somebody who watches a job. As long as it exists, the job's events are hurried to the disk.
pub(crate) struct Watcher {
    job: JobId,
    log: Arc<Log>,
    progress: watch::Receiver<Progress>,
}

impl Watcher {
    pub(crate) fn new(job: JobId, log: Arc<Log>) -> Self {
        let progress = log.progress();
        Self { job, log, progress }
    }

    /// The events of the job from number `from` on, in batches, until `stop` is cancelled.
    pub(crate) fn events(self, from: u64, stop: CancellationToken) -> Events {
        let reader = Reader { watcher: self, next: from, stop };
        Box::pin(stream::try_unfold(reader, Reader::batch))
    }
}

struct Reader {
    watcher: Watcher,
    next: u64,
    stop: CancellationToken,
}

impl Reader {
    /// The next batch; `None` behind the end of the job.
    async fn batch(mut self) -> Result<Option<(WatchResponse, Self)>, Status> {
        loop {
            // Marked as seen before it is read, so that nothing that comes in between is missed.
            let progress = *self.watcher.progress.borrow_and_update();
            if progress.gone {
                return Err(not_found(format_args!("job {}", self.watcher.job)));
            }
            let events = self.watcher.log.read(self.next).map_err(|error| Status::out_of_range(error.to_string()))?;
            if let Some((last, _)) = events.last() {
                self.next = last + 1;
                let events = events.into_iter().map(|(number, event)| wire::event(number, event)).collect();
                return Ok(Some((WatchResponse { events }, self)));
            }
            if progress.ended {
                return Ok(None);
            }
            tokio::select! {
                () = self.stop.cancelled() => {
                    return Err(Status::unavailable("the scheduler is stopping; watch again where this ended"));
                }
                // The hub keeps the sender for as long as the job exists, and `gone` is set before it is dropped.
                changed = self.watcher.progress.changed() => if changed.is_err() {
                    return Ok(None);
                }
            }
        }
    }
}
