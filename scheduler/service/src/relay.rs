//! Where the calls of a client and of a host meet, to pass bytes through the scheduler.
//!
//! A client's call opens a relay, the host is told its number, and the host's own call takes its end. Between the two
//! is a short queue, so the slower side sets the pace. A relay that is dropped by one side ends for the other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use partita_protocol::host::RelayPiece;
use partita_types::{HostName, PartitionId};
use tokio::sync::{mpsc, oneshot};

/// Messages between the two sides.
const QUEUE: usize = 8;
/// How long a host may take to open its end.
pub(crate) const OPEN_WITHIN: Duration = Duration::from_secs(15);
/// How long one side may be silent before the other gives up.
pub(crate) const IDLE: Duration = Duration::from_secs(60);

/// A piece of an upload on its way to a host.
#[derive(Debug)]
pub(crate) enum UploadPart {
    Data(Bytes),
    /// The client sent everything. Without it the upload is not whole.
    End,
}

/// What became of an upload at its host, or why it was refused.
pub(crate) type Stored = Result<(), String>;

/// The open relays.
#[derive(Debug, Clone, Default)]
pub(crate) struct Relays(Arc<Mutex<HashMap<u64, Open>>>);

/// The host's end of a relay.
#[derive(Debug)]
struct Open {
    host: HostName,
    download: Option<mpsc::Sender<Vec<RelayPiece>>>,
    upload: Option<mpsc::Receiver<UploadPart>>,
    stored: Option<(PartitionId, oneshot::Sender<Stored>)>,
}

/// Keeps a relay open; dropping it closes it.
#[derive(Debug)]
pub(crate) struct Relay {
    relays: Relays,
    pub(crate) number: u64,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.relays.open().remove(&self.number);
    }
}

impl Relays {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, open: Open) -> Relay {
        let number = u64::from_be_bytes(partita_identity::random());
        self.open().insert(number, open);
        Relay { relays: self.clone(), number }
    }

    /// Opens a relay for what `host` shall send.
    pub(crate) fn download(&self, host: HostName) -> (Relay, mpsc::Receiver<Vec<RelayPiece>>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let relay = self.insert(Open { host, download: Some(sender), upload: None, stored: None });
        (relay, receiver)
    }

    /// Opens a relay for what `host` shall fetch and store as `partition`.
    pub(crate) fn upload(
        &self,
        host: HostName,
        partition: PartitionId,
    ) -> (Relay, mpsc::Sender<UploadPart>, oneshot::Receiver<Stored>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (stored, outcome) = oneshot::channel();
        let relay =
            self.insert(Open { host, download: None, upload: Some(receiver), stored: Some((partition, stored)) });
        (relay, sender, outcome)
    }

    fn take<T>(&self, number: u64, host: &HostName, part: impl FnOnce(&mut Open) -> Option<T>) -> Option<T> {
        let mut open = self.open();
        // Another host's relay does not exist for this one.
        open.get_mut(&number).filter(|open| open.host == *host).and_then(part)
    }

    /// The end to which `host` sends, once.
    pub(crate) fn take_download(&self, number: u64, host: &HostName) -> Option<mpsc::Sender<Vec<RelayPiece>>> {
        self.take(number, host, |open| open.download.take())
    }

    /// The end from which `host` fetches, once.
    pub(crate) fn take_upload(&self, number: u64, host: &HostName) -> Option<mpsc::Receiver<UploadPart>> {
        self.take(number, host, |open| open.upload.take())
    }

    /// Tells the client what became of its upload.
    pub(crate) fn stored(&self, number: u64, host: &HostName, partition: PartitionId, outcome: Stored) {
        let take = |open: &mut Open| open.stored.take_if(|(expected, _)| *expected == partition);
        if let Some((_, stored)) = self.take(number, host, take) {
            // The client may be gone.
            let _ = stored.send(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use partita_types::{ArrayIndex, AttemptId, AttemptNumber, JobId, TaskId, TenantId};

    use super::*;

    fn host(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    fn partition(index: u32) -> PartitionId {
        let job = JobId { tenant: TenantId(1), number: 1 };
        let task = TaskId { job, array: ArrayIndex(0), index };
        PartitionId { attempt: AttemptId { task, number: AttemptNumber::FIRST }, output: 0 }
    }

    #[test]
    fn an_end_is_taken_once_and_by_its_host_only() {
        let relays = Relays::default();
        let (relay, _receiver) = relays.download(host("host-1"));
        assert!(relays.take_download(relay.number, &host("host-2")).is_none());
        assert!(relays.take_upload(relay.number, &host("host-1")).is_none());
        assert!(relays.take_download(relay.number, &host("host-1")).is_some());
        assert!(relays.take_download(relay.number, &host("host-1")).is_none());
    }

    #[tokio::test]
    async fn a_dropped_relay_ends_for_the_other_side() {
        let relays = Relays::default();
        let (relay, sender, outcome) = relays.upload(host("host-1"), partition(0));
        let number = relay.number;
        drop(relay);
        assert!(relays.take_upload(number, &host("host-1")).is_none());
        assert!(sender.is_closed() && outcome.await.is_err());
    }

    #[tokio::test]
    async fn only_the_right_host_and_partition_end_an_upload() {
        let relays = Relays::default();
        let (relay, _sender, outcome) = relays.upload(host("host-1"), partition(0));
        relays.stored(relay.number, &host("host-2"), partition(0), Err("other host".to_owned()));
        relays.stored(relay.number, &host("host-1"), partition(1), Err("other partition".to_owned()));
        relays.stored(relay.number, &host("host-1"), partition(0), Ok(()));
        assert_eq!(outcome.await, Ok(Ok(())));
    }
}
