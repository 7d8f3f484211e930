//! One session of a host: its hello, and everything it says afterwards, as events for the core.

use std::time::Duration;

use partita_core::{HostHello, HostMessage as Said, RequestId};
use partita_protocol::host::host_message::Message;
use partita_protocol::host::{
    DatasetPlanned, Hello, HostMessage, ModuleInspected, PartitionList, Retracted, UploadStored,
};
use partita_protocol::{DecodeError, features_from_wire};
use partita_types::{
    ByteSize, ContentHash, DatasetName, DatasetPlan, FrameId, HostCapacity, HostName, Incarnation, Isolation, MoveId,
    OutputInfo, PartitionId, Report,
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::{info, warn};

use crate::driver::{Deliver, FromHost, Handle, SessionId};
use crate::logs::LogDesk;
use crate::metrics::Metrics;
use crate::relay::Relays;
use crate::status::undecodable;

/// A session that is silent for so long is over; a host says every second that it is alive.
const SILENCE: Duration = Duration::from_secs(15);
/// Most cores that a host may claim.
const CORES: u32 = 4_096;
/// Longest address of a host.
const ADDRESS: usize = 262;

/// Most partitions that a host may say that it stores. They take about a gigabyte here until the core has seen them.
const INVENTORY: usize = 16 << 20;

/// Reads how a session of the host called `name` begins. Returns the number of the last report in it as well.
pub(crate) async fn greeting(
    name: HostName,
    messages: &mut Streaming<HostMessage>,
    silence: Duration,
) -> Result<(HostHello, u64), Status> {
    let late = |_| Status::deadline_exceeded("the session did not begin with a whole hello in time");
    let first = tokio::time::timeout(silence, messages.message()).await.map_err(late)??;
    let (mut hello, last_report, more) = hello(name, first)?;
    for _ in 0..more {
        let next = tokio::time::timeout(silence, messages.message()).await.map_err(late)??;
        let Some(Message::MoreInventory(part)) = next.and_then(|message| message.message) else {
            return Err(Status::invalid_argument("a hello was not followed by what it announced"));
        };
        add_inventory(&mut hello, &part)?;
    }
    Ok((hello, last_report))
}

fn add_inventory(hello: &mut HostHello, part: &PartitionList) -> Result<(), Status> {
    let name = &hello.name;
    if part.indexes.is_empty() || hello.inventory.len() + part.indexes.len() > INVENTORY {
        return Err(Status::invalid_argument(format!(
            "host {name} lists no partitions, or more than {INVENTORY} altogether; remove its data to start afresh"
        )));
    }
    hello.inventory.append(&mut part.stored().map_err(|error| undecodable(&error))?);
    Ok(())
}

/// Checks the first message of a session. Returns also the number of the last report in it, and of the messages that
/// belong to it.
fn hello(name: HostName, first: Option<HostMessage>) -> Result<(HostHello, u64, u32), Status> {
    let Some(Message::Hello(hello)) = first.and_then(|message| message.message) else {
        return Err(Status::invalid_argument("a session begins with a hello"));
    };
    let Hello { incarnation, cores, memory_bytes, partition_bytes, isolation, address, .. } = hello;
    if cores == 0 || cores > CORES {
        return Err(Status::invalid_argument(format!("host {name} offers {cores} cores; 1 to {CORES} make sense")));
    }
    if address.is_empty() || address.len() > ADDRESS || address.chars().any(|c| c.is_control() || c == ' ') {
        return Err(Status::invalid_argument(format!("host {name} gives no address at which others reach it")));
    }
    let isolation = [Isolation::Process, Isolation::Seccomp, Isolation::Full]
        .into_iter()
        .find(|known| known.as_str() == isolation)
        .ok_or_else(|| Status::invalid_argument(format!("host {name} has an isolation that is not known")))?;
    let inventory = hello.inventory.unwrap_or_default().stored().map_err(|error| undecodable(&error))?;
    let held = decoded(hello.held)?;
    let ended = Report { succeeded: decoded(hello.succeeded)?, failed: decoded(hello.failed)?, ..Report::default() };
    let features = features_from_wire(hello.labels, hello.resources).map_err(|error| undecodable(&error))?;
    let capacity = HostCapacity { cores, memory: ByteSize(memory_bytes), partitions: ByteSize(partition_bytes) };
    let incarnation = Incarnation(incarnation);
    let (last_report, more) = (hello.last_report, hello.more_inventory);
    let hello = HostHello { name, incarnation, capacity, isolation, address, inventory, held, ended, features };
    Ok((hello, last_report, more))
}

fn decoded<T, W: TryInto<T, Error = DecodeError>>(list: Vec<W>) -> Result<Vec<T>, Status> {
    list.into_iter().map(TryInto::try_into).collect::<Result<_, _>>().map_err(|error| undecodable(&error))
}

/// Reads a session until it ends.
pub(crate) struct Reader {
    pub(crate) name: HostName,
    pub(crate) session: SessionId,
    pub(crate) handle: Handle,
    pub(crate) relays: Relays,
    pub(crate) logs: LogDesk,
    pub(crate) metrics: Metrics,
    pub(crate) closed: CancellationToken,
}

impl Reader {
    pub(crate) async fn run(self, mut messages: Streaming<HostMessage>) {
        let reason = loop {
            let message = tokio::select! {
                biased;
                () = self.closed.cancelled() => break "the session was closed",
                message = tokio::time::timeout(SILENCE, messages.message()) => message,
            };
            match message {
                Ok(Ok(Some(message))) => {
                    if let Some(reason) = self.take(message).await {
                        break reason;
                    }
                }
                Ok(Ok(None)) => break "the host ended it",
                Ok(Err(_)) => break "the connection was lost",
                Err(_) => break "the host was silent",
            }
        };
        self.closed.cancel();
        info!(host = %self.name, reason, "host detached");
        // If the scheduler is stopping, nobody needs to know.
        let _ = self.handle.detach(self.session).await;
    }

    /// Passes one message on; a reason if the session must end.
    async fn take(&self, message: HostMessage) -> Option<&'static str> {
        let Some(message) = message.message else {
            self.metrics.bad_messages.inc();
            return None;
        };
        match self.decode(message) {
            Ok(None) => None,
            Ok(Some(from)) => self.handle.hear(from).await.err().map(|_| "the scheduler is stopping"),
            Err(error) => {
                // A report that is not understood would leave its tasks running for ever; a new session tells all.
                self.metrics.bad_messages.inc();
                warn!(host = %self.name, error = %error, "a host said something that means nothing");
                Some("the host said something that means nothing")
            }
        }
    }

    /// What the core shall hear; `None` if it is an answer to the service.
    fn decode(&self, message: Message) -> Result<Option<FromHost>, DecodeError> {
        let mut report = None;
        let mut done: Option<Deliver> = None;
        let message = match message {
            Message::Hello(_) => return Err(DecodeError::Missing { message: "a second hello", field: "meaning" }),
            Message::MoreInventory(_) => {
                return Err(DecodeError::Missing { message: "a part of an inventory", field: "hello" });
            }
            Message::Heartbeat(_) => Said::Heartbeat,
            Message::Report(columns) => {
                report = Some(columns.number);
                Said::Report(Report::try_from(columns)?)
            }
            Message::ModuleInspected(inspected) => module_inspected(inspected),
            Message::DatasetPlanned(planned) => dataset_planned(planned)?,
            Message::UploadStored(stored) => {
                let (relay, said) = upload_stored(stored)?;
                let (relays, name) = (self.relays.clone(), self.name.clone());
                let (partition, outcome) = (said.0, said.1.clone().map(|_| ()));
                done = Some(Box::new(move || relays.stored(relay, &name, partition, outcome)));
                Said::UploadStored { partition, result: said.1 }
            }
            Message::Lost(list) => Said::Lost(list.ids()?),
            Message::Retracted(answer) => retracted(&answer)?,
            Message::Copied(copied) => Said::Copied {
                order: MoveId(copied.order),
                copies: copied.partitions.unwrap_or_default().stored()?,
                problem: Some(copied.problem).filter(|problem| !problem.is_empty()),
            },
            Message::LogRead(read) => {
                self.logs.answered(&self.name, read);
                return Ok(None);
            }
        };
        Ok(Some(FromHost { session: self.session, message, report, done }))
    }
}

/// A host answers for one frame at a time, as it was asked.
fn retracted(answer: &Retracted) -> Result<Said, DecodeError> {
    let message = "an answer about a frame to give back";
    match (answer.given.as_slice(), answer.kept.as_slice()) {
        ([frame], []) => Ok(Said::Retracted { frame: FrameId(*frame), given: true }),
        ([], [frame]) => Ok(Said::Retracted { frame: FrameId(*frame), given: false }),
        (given, kept) => {
            let value = given.len().saturating_add(kept.len()) as u64;
            Err(DecodeError::Range { message, field: "number of frames", value })
        }
    }
}

fn module_inspected(inspected: ModuleInspected) -> Said {
    let ModuleInspected { request, functions, refusal } = inspected;
    let result = if refusal.is_empty() { Ok(functions.into_iter().map(Into::into).collect()) } else { Err(refusal) };
    Said::ModuleInspected { request: RequestId(request), result }
}

fn dataset_planned(planned: DatasetPlanned) -> Result<Said, DecodeError> {
    let DatasetPlanned { request, splits, files, bytes, manifest, refusal } = planned;
    let request = RequestId(request);
    if !refusal.is_empty() {
        return Ok(Said::DatasetPlanned { request, result: Err(refusal) });
    }
    if splits == 0 {
        return Err(DecodeError::Range { message: "a plan", field: "splits", value: 0 });
    }
    // Name, split and limit are those of the request; the driver fills them in.
    let plan = DatasetPlan {
        dataset: DatasetName::new("planned")?,
        split: ByteSize::ZERO,
        limit: None,
        splits,
        files,
        bytes: ByteSize(bytes),
        manifest: ContentHash::from_slice(&manifest)?,
    };
    Ok(Said::DatasetPlanned { request, result: Ok(plan) })
}

/// The relay of a stored upload, and what was stored or why it was not.
type StoredUpload = (u64, (PartitionId, Result<OutputInfo, String>));

fn upload_stored(stored: UploadStored) -> Result<StoredUpload, DecodeError> {
    const MESSAGE: &str = "a stored upload";
    let UploadStored { relay, partition, refusal } = stored;
    let list = partition.unwrap_or_else(PartitionList::default);
    let missing = DecodeError::Missing { message: MESSAGE, field: "partition" };
    let said = if refusal.is_empty() {
        let stored = *list.stored()?.first().ok_or(missing)?;
        (stored.id, Ok(stored.info))
    } else {
        (*list.ids()?.first().ok_or(missing)?, Err(refusal))
    };
    Ok((relay, said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(change: impl FnOnce(&mut Hello)) -> Option<HostMessage> {
        let mut hello = Hello {
            incarnation: 7,
            cores: 2,
            memory_bytes: 1 << 30,
            partition_bytes: 1 << 20,
            isolation: "full".to_owned(),
            address: "127.0.0.1:1".to_owned(),
            ..Hello::default()
        };
        change(&mut hello);
        Some(HostMessage { message: Some(Message::Hello(hello)) })
    }

    fn name() -> HostName {
        HostName::new("host-1").unwrap()
    }

    #[test]
    fn a_hello_carries_the_name_of_the_certificate() {
        let (hello, ..) = hello(name(), first(|_| {})).unwrap();
        assert_eq!((hello.name, hello.incarnation), (name(), Incarnation(7)));
    }

    #[test]
    fn a_session_begins_with_a_hello_that_makes_sense() {
        let bad = [
            None,
            Some(HostMessage { message: None }),
            Some(HostMessage { message: Some(Message::Heartbeat(partita_protocol::host::Heartbeat::default())) }),
            first(|hello| hello.cores = 0),
            first(|hello| hello.cores = u32::MAX),
            first(|hello| hello.isolation = "strong".to_owned()),
            first(|hello| hello.address.clear()),
            first(|hello| hello.address = "x".repeat(1_000)),
            first(|hello| hello.inventory = Some(PartitionList { indexes: vec![1], ..Default::default() })),
        ];
        for message in bad {
            assert!(hello(name(), message.clone()).is_err(), "{message:?}");
        }
    }

    #[test]
    fn a_plan_without_splits_is_refused() {
        assert!(dataset_planned(DatasetPlanned::default()).is_err());
        let refusal = DatasetPlanned { refusal: "no such directory".to_owned(), ..Default::default() };
        assert!(matches!(dataset_planned(refusal), Ok(Said::DatasetPlanned { result: Err(_), .. })));
    }
}
