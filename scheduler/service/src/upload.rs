//! The bytes of one task of an upload array, from a client through the scheduler to the host that will keep them.

use std::time::Duration;

use partita_core::{Reply, Request};
use partita_protocol::client::put_request::Part;
use partita_protocol::client::{PutHeader, PutRequest};
use partita_protocol::host::scheduler_message::Message;
use partita_protocol::host::{PartitionList, SchedulerMessage, StoreUpload};
use partita_types::{ArrayIndex, ByteSize, HostId, PartitionId, TaskId};
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};

use crate::auth::Caller;
use crate::driver::Handle;
use crate::metrics::Metrics;
use crate::relay::{IDLE, Relays, Stored, UploadPart};
use crate::scope;
use crate::status::{not_found, unexpected};

/// How long a host may take to store what it has received.
const STORE: Duration = Duration::from_secs(60);

/// One upload.
pub(crate) struct Upload {
    handle: Handle,
    relays: Relays,
    metrics: Metrics,
}

impl Upload {
    pub(crate) fn new(handle: Handle, relays: Relays, metrics: Metrics) -> Self {
        Self { handle, relays, metrics }
    }

    /// Takes everything from `pieces` and returns when the host has stored it and that is on disk.
    pub(crate) async fn run(&self, caller: &Caller, mut pieces: Streaming<PutRequest>) -> Result<(), Status> {
        let Some(Part::Header(header)) = next(&mut pieces).await?.and_then(|message| message.part) else {
            return Err(Status::invalid_argument("an upload begins with its header"));
        };
        let PutHeader { job, array, index, size } = header;
        let job = scope::job_id(&self.handle, caller, "", job).await?;
        let task = TaskId { job, array: ArrayIndex(array), index };
        let (host, partition) = self.place(task, ByteSize(size)).await?;
        let name = self.handle.query(move |core| core.hosts().into_iter().find(|view| view.id == host)).await?;
        let name = name.ok_or_else(|| not_found("the host of the upload"))?.name;
        let (relay, parts, mut stored) = self.relays.upload(name, partition);
        self.announce(host, relay.number, partition, size).await?;
        self.pass_on(&mut pieces, size, parts, &mut stored).await?;
        match tokio::time::timeout(STORE, stored).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(refusal))) => Err(refused(task, &refusal)),
            Ok(Err(_)) | Err(_) => Err(Status::unavailable(format!("task {task} was not stored in time; try again"))),
        }
    }

    async fn place(&self, task: TaskId, size: ByteSize) -> Result<(HostId, PartitionId), Status> {
        match self.handle.request(Request::Upload { task, size }, scope::DECISION).await? {
            Reply::UploadTo { host, partition } => Ok((host, partition)),
            other => Err(unexpected(&other)),
        }
    }

    async fn announce(&self, host: HostId, relay: u64, partition: PartitionId, size: u64) -> Result<(), Status> {
        let mut list = PartitionList::from_ids([partition]);
        list.sizes.push(size);
        let message = Message::StoreUpload(StoreUpload { relay, partition: Some(list) });
        if self.handle.tell(host, SchedulerMessage { message: Some(message) }).await? {
            Ok(())
        } else {
            Err(Status::unavailable("the host of the upload was just lost; try again"))
        }
    }

    /// Passes pieces on until the end, and ends early if the host refuses.
    async fn pass_on(
        &self,
        pieces: &mut Streaming<PutRequest>,
        size: u64,
        parts: mpsc::Sender<UploadPart>,
        stored: &mut oneshot::Receiver<Stored>,
    ) -> Result<(), Status> {
        let mut sent = 0_u64;
        while let Some(message) = next(pieces).await? {
            let Some(Part::Chunk(chunk)) = message.part else {
                return Err(Status::invalid_argument("an upload has one header, and then only pieces"));
            };
            sent = sent.saturating_add(chunk.len() as u64);
            if sent > size {
                return Err(Status::invalid_argument(format!("the upload is larger than the announced {size} bytes")));
            }
            self.metrics.relayed_bytes.inc_by(chunk.len() as u64);
            send(&parts, UploadPart::Data(chunk), stored).await?;
        }
        if sent != size {
            return Err(Status::invalid_argument(format!("the upload has {sent} bytes, {size} were announced")));
        }
        send(&parts, UploadPart::End, stored).await
    }
}

fn refused(task: TaskId, refusal: &str) -> Status {
    Status::failed_precondition(format!("task {task} cannot be stored: {refusal}"))
}

async fn send(
    parts: &mpsc::Sender<UploadPart>,
    part: UploadPart,
    stored: &mut oneshot::Receiver<Stored>,
) -> Result<(), Status> {
    let stopped = || Status::unavailable("the host stopped taking the upload; try again");
    match tokio::time::timeout(IDLE, parts.send(part)).await {
        Ok(Ok(())) => Ok(()),
        // The host stopped reading; perhaps it said why.
        Ok(Err(_)) => match stored.try_recv() {
            Ok(Err(refusal)) => Err(Status::failed_precondition(format!("the upload cannot be stored: {refusal}"))),
            Ok(Ok(())) | Err(_) => Err(stopped()),
        },
        Err(_) => Err(stopped()),
    }
}

async fn next(pieces: &mut Streaming<PutRequest>) -> Result<Option<PutRequest>, Status> {
    let silent = || Status::deadline_exceeded(format!("the upload was silent for {} s", IDLE.as_secs()));
    tokio::time::timeout(IDLE, pieces.message()).await.map_err(|_| silent())?
}
