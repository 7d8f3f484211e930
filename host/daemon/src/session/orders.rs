//! What the scheduler says within a session, done or handed on.
//!
//! Work and cancellations are done at once. What takes longer (examining a module, listing a dataset, moving bytes)
//! runs beside the session; so many at a time, and it ends with the session.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use partita_protocol::host::host_message::Message as ToScheduler;
use partita_protocol::host::scheduler_message::Message as FromScheduler;
use partita_protocol::host::{
    Assignment, AttemptList, CopyPartitions, DatasetPlanned, FrameList, HostMessage, InspectModule, LogRead,
    ModuleInspected, PartitionList, PlanDataset, ReadLog, Retracted, StoreUpload, UploadStored,
};
use partita_types::{
    ArrayHeader, ArrayIndex, ByteSize, DatasetName, DatasetPlan, Frame, FrameId, JobId, ModuleId, TenantId, Welcome,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::SessionError;
use crate::copying::{self, CopyOrder};
use crate::error;
use crate::host::Host;
use crate::inspect;
use crate::logs::Read;
use crate::modules::blocking;
use crate::prepare::{self, ArrayContext};
use crate::relay;

/// Arrays remembered in a session. Past it the session is opened again, which starts from nothing.
const MAX_ARRAYS: usize = 100_000;
/// Results and uploads that move at once. Clients may be slow, so nothing else waits behind these.
const MOVES_AT_ONCE: usize = 64;
/// Other orders that are carried out at once.
const AT_ONCE: usize = 16;
/// Orders that are carried out or wait for that.
const MAX_ORDERS: usize = 4096;

/// Obeys the scheduler within one session.
pub(super) struct Orders {
    host: Arc<Host>,
    outbox: mpsc::Sender<HostMessage>,
    arrays: HashMap<(JobId, ArrayIndex), Arc<ArrayContext>>,
    running: JoinSet<()>,
    moves: Arc<Semaphore>,
    others: Arc<Semaphore>,
}

impl Orders {
    pub(super) fn new(host: Arc<Host>, outbox: mpsc::Sender<HostMessage>) -> Self {
        let (arrays, running) = (HashMap::new(), JoinSet::new());
        let (moves, others) = (Semaphore::new(MOVES_AT_ONCE), Semaphore::new(AT_ONCE));
        Self { host, outbox, arrays, running, moves: Arc::new(moves), others: Arc::new(others) }
    }

    /// Does what a message says, or sees to it.
    pub(super) async fn obey(&mut self, message: FromScheduler) -> Result<(), SessionError> {
        while self.running.try_join_next().is_some() {}
        match message {
            FromScheduler::Welcome(welcome) => {
                self.host.change_tenants(Welcome::try_from(welcome)?.tenants);
            }
            FromScheduler::Assignment(assignment) => self.assign(assignment)?,
            FromScheduler::Cancel(list) => self.cancel(&list)?,
            FromScheduler::Retract(list) => self.retract(&list).await,
            FromScheduler::Drop(list) => self.drop_partitions(&list).await?,
            FromScheduler::InspectModule(order) => self.inspect(order).await?,
            FromScheduler::PlanDataset(order) => self.plan(order).await,
            FromScheduler::SendOutputs(order) => {
                let host = Arc::clone(&self.host);
                let places = Arc::clone(&self.moves);
                self.begin(&places, async move {
                    if let Err(fault) = relay::send(&host, order).await {
                        tracing::warn!(error = %fault, "outputs could not be sent");
                    }
                    None
                })
                .await;
            }
            FromScheduler::StoreUpload(order) => self.store(order).await,
            FromScheduler::ReadLog(order) => self.read_log(order).await,
            FromScheduler::Copy(order) => self.copy(order).await?,
            FromScheduler::AcknowledgedReport(number) => self.host.collector.acknowledged(number),
        }
        Ok(())
    }

    fn assign(&mut self, assignment: Assignment) -> Result<(), SessionError> {
        for header in assignment.arrays {
            let header = ArrayHeader::try_from(header)?;
            let key = (header.job, header.array);
            if self.arrays.len() >= MAX_ARRAYS && !self.arrays.contains_key(&key) {
                return Err(SessionError::TooManyArrays { limit: MAX_ARRAYS });
            }
            let context = ArrayContext::new(header).map_err(SessionError::Memory)?;
            self.arrays.insert(key, Arc::new(context));
        }
        for frame in assignment.frames {
            let frame = Frame::try_from(frame)?;
            let array = self.arrays.get(&(frame.job, frame.array)).cloned();
            prepare::accept(&self.host, frame, array);
        }
        Ok(())
    }

    fn cancel(&self, list: &AttemptList) -> Result<(), SessionError> {
        let cancelled = self.host.engine.cancel(&list.attempts()?);
        self.host.cancelled(cancelled.attempts);
        cancelled.finished.into_iter().for_each(|frame| self.host.collector.finished(frame));
        Ok(())
    }

    /// Answers frame by frame. What is given back does not run here any more, whatever becomes of the answer.
    async fn retract(&self, list: &FrameList) {
        for frame in &list.frames {
            let mut answer = Retracted::default();
            let place = if self.host.engine.retract(FrameId(*frame)) { &mut answer.given } else { &mut answer.kept };
            place.push(*frame);
            // If the session is over, nobody waits for the answer.
            let _ = self.outbox.send(HostMessage { message: Some(ToScheduler::Retracted(answer)) }).await;
        }
    }

    async fn drop_partitions(&mut self, list: &PartitionList) -> Result<(), SessionError> {
        let ids = list.ids()?;
        // At once: the next message may order a copy of the same.
        self.host.fetcher.forget(&ids);
        let removed = copying::drop_partitions(&self.host, &ids);
        // Freeing the pages of large partitions takes milliseconds each.
        let places = Arc::clone(&self.others);
        self.begin(&places, async move {
            blocking(move || drop(removed)).await;
            None
        })
        .await;
        Ok(())
    }

    async fn copy(&mut self, order: CopyPartitions) -> Result<(), SessionError> {
        let order = CopyOrder::try_from(order)?;
        copying::begin(&self.host, &order);
        let host = Arc::clone(&self.host);
        let places = Arc::clone(&self.others);
        self.begin(&places, async move { copying::carry_out(&host, order).await.map(ToScheduler::Copied) }).await;
        Ok(())
    }

    /// The session ended: nothing that it began goes on.
    pub(super) async fn end(mut self) {
        copying::forget_all(&self.host);
        self.running.shutdown().await;
    }

    async fn inspect(&mut self, order: InspectModule) -> Result<(), SessionError> {
        let module = ModuleId::from_slice(&order.module).map_err(|fault| SessionError::Decode(fault.into()))?;
        let host = Arc::clone(&self.host);
        let places = Arc::clone(&self.others);
        self.begin(&places, async move {
            let mut answer = ModuleInspected { request: order.request, ..ModuleInspected::default() };
            match inspect::inspect(&host, TenantId(order.tenant), module).await {
                Ok(functions) => answer.functions = functions.into_iter().map(Into::into).collect(),
                Err(refusal) => answer.refusal = refusal,
            }
            Some(ToScheduler::ModuleInspected(answer))
        })
        .await;
        Ok(())
    }

    async fn plan(&mut self, order: PlanDataset) {
        let host = Arc::clone(&self.host);
        let places = Arc::clone(&self.others);
        self.begin(&places, async move {
            let mut answer = DatasetPlanned { request: order.request, ..DatasetPlanned::default() };
            match plan(&host, &order).await {
                Ok(plan) => {
                    answer.splits = plan.splits;
                    answer.files = plan.files;
                    answer.bytes = plan.bytes.0;
                    answer.manifest = plan.manifest.0.to_vec().into();
                }
                Err(refusal) => answer.refusal = refusal,
            }
            Some(ToScheduler::DatasetPlanned(answer))
        })
        .await;
    }

    async fn read_log(&mut self, order: ReadLog) {
        let host = Arc::clone(&self.host);
        let places = Arc::clone(&self.others);
        self.begin(&places, async move {
            let ReadLog { request, tenant, job, array, index } = order;
            let job = JobId { tenant: TenantId(tenant), number: job };
            let Read { logs, cut } = host.logs.read(job, array.map(ArrayIndex), index);
            let logs = logs.into_iter().map(Into::into).collect();
            Some(ToScheduler::LogRead(LogRead { request, logs, cut }))
        })
        .await;
    }

    async fn store(&mut self, order: StoreUpload) {
        let host = Arc::clone(&self.host);
        let places = Arc::clone(&self.moves);
        self.begin(&places, async move {
            let mut answer = UploadStored { relay: order.relay, ..UploadStored::default() };
            match relay::store(&host, &order).await {
                Ok(stored) => answer.partition = Some(PartitionList::from_stored(&[stored])),
                Err(refusal) => (answer.partition, answer.refusal) = (order.partition, refusal),
            }
            Some(ToScheduler::UploadStored(answer))
        })
        .await;
    }

    /// Carries an order out beside the session and sends its answer, if it has one. With too many of them the
    /// session itself waits, and so does the scheduler.
    async fn begin(
        &mut self,
        places: &Arc<Semaphore>,
        order: impl Future<Output = Option<ToScheduler>> + Send + 'static,
    ) {
        while self.running.len() >= MAX_ORDERS {
            self.running.join_next().await;
        }
        let (places, outbox) = (Arc::clone(places), self.outbox.clone());
        self.running.spawn(async move {
            let Ok(_place) = places.acquire().await else { return };
            if let Some(message) = order.await {
                // If the session is over, nobody waits for the answer.
                let _ = outbox.send(HostMessage { message: Some(message) }).await;
            }
        });
    }
}

async fn plan(host: &Arc<Host>, order: &PlanDataset) -> Result<DatasetPlan, String> {
    let name = DatasetName::new(&order.name).map_err(|fault| fault.to_string())?;
    let grant = host.grant(TenantId(order.tenant), &name);
    let grant = grant.ok_or_else(|| format!("the dataset {name} is not granted to the tenant"))?;
    let (datasets, split, limit) =
        (Arc::clone(&host.datasets), ByteSize(order.split_bytes), order.limit_bytes.map(ByteSize));
    let planned = blocking(move || datasets.plan(&grant, split, limit).map_err(|fault| error::chain(&fault)));
    planned.await.unwrap_or_else(|| Err("the host stops".to_owned()))
}
