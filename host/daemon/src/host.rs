//! What the parts of one host share.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use partita_identity::ticket::TicketKey;
use partita_types::{
    AttemptId, ByteSize, Cause, DatasetGrant, DatasetName, FailedAttempt, Failure, HostTenant, Incarnation,
    PartitionId, TenantId, Usage,
};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::HostConfig;
use crate::copying::Copies;
use crate::dataset::Datasets;
use crate::engine::Engine;
use crate::executors::Executors;
use crate::fetch::Fetcher;
use crate::lanes::Runnable;
use crate::logs::Logs;
use crate::metrics::Counters;
use crate::modules::Modules;
use crate::report::Collector;
use crate::store::Store;
use crate::sync::lock;
use crate::uplink::Uplink;

/// Ticket keys that a host knows: the current one, and those of schedulers before that, whose frames it goes on with.
const TICKET_KEYS: usize = 4;
/// One permit of [`Host::inputs`] is so many bytes.
const PERMIT: u64 = 4096;

/// A running host: everything that its session, its lanes and its services work on.
pub(crate) struct Host {
    pub(crate) config: HostConfig,
    /// Where other hosts reach it.
    pub(crate) address: String,
    pub(crate) incarnation: Incarnation,
    pub(crate) engine: Engine<Box<Runnable>>,
    pub(crate) collector: Collector,
    pub(crate) store: Store,
    pub(crate) copies: Copies,
    pub(crate) logs: Logs,
    pub(crate) executors: Executors,
    pub(crate) modules: Modules,
    pub(crate) fetcher: Fetcher,
    pub(crate) datasets: Arc<Datasets>,
    pub(crate) uplink: Uplink,
    pub(crate) counters: Arc<Counters>,
    ticket_keys: watch::Sender<VecDeque<TicketKey>>,
    tenants: Mutex<BTreeMap<TenantId, HostTenant>>,
    /// Memory for inputs that are fetched or read for frames, in permits.
    inputs: Arc<Semaphore>,
    input_permits: u32,
    /// Everything that runs beside the session.
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
}

/// What [`Host::new`] cannot make itself.
pub(crate) struct Parts {
    pub(crate) config: HostConfig,
    pub(crate) address: String,
    pub(crate) store: Store,
    pub(crate) executors: Executors,
    pub(crate) modules: Modules,
    pub(crate) fetcher: Fetcher,
    pub(crate) uplink: Uplink,
    pub(crate) counters: Arc<Counters>,
}

impl Host {
    /// A host that is not attached and runs nothing.
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts { config, address, store, executors, modules, fetcher, uplink, counters } = parts;
        // A quarter on top of the budget of partitions: what is read for frames that wait or run.
        let permits = (config.partitions.0 / 4 / PERMIT).clamp(16_384, u64::from(u32::MAX >> 3));
        let input_permits = u32::try_from(permits).unwrap_or(u32::MAX >> 3);
        Arc::new(Self {
            address,
            // Starts of one host are told apart by their time; a machine does not start it twice in a microsecond.
            incarnation: Incarnation(partita_identity::now().micros),
            engine: Engine::new(config.cores, config.memory),
            collector: Collector::default(),
            store,
            copies: Copies::default(),
            logs: Logs::default(),
            executors,
            modules,
            fetcher,
            datasets: Arc::default(),
            uplink,
            counters,
            ticket_keys: watch::Sender::default(),
            tenants: Mutex::default(),
            inputs: Arc::new(Semaphore::new(usize::try_from(input_permits).unwrap_or(usize::MAX >> 3))),
            input_permits,
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            config,
        })
    }

    /// Takes over the key of the tickets for this host, which the scheduler tells with each welcome.
    pub(crate) fn set_ticket_key(&self, key: TicketKey) {
        self.ticket_keys.send_modify(|keys| {
            keys.retain(|known| known.0 != key.0);
            keys.push_front(key);
            keys.truncate(TICKET_KEYS);
        });
    }

    /// The keys that a ticket for this host may be made with, the current one first.
    pub(crate) fn ticket_keys(&self) -> watch::Receiver<VecDeque<TicketKey>> {
        self.ticket_keys.subscribe()
    }

    /// Takes over what the scheduler says about all tenants.
    pub(crate) fn set_tenants(&self, tenants: Vec<HostTenant>) {
        self.engine.set_tenants(&tenants);
        *lock(&self.tenants) = tenants.into_iter().map(|tenant| (tenant.id, tenant)).collect();
    }

    /// Takes over what the scheduler says about those tenants that changed.
    pub(crate) fn change_tenants(&self, tenants: Vec<HostTenant>) {
        self.engine.set_tenants(&tenants);
        lock(&self.tenants).extend(tenants.into_iter().map(|tenant| (tenant.id, tenant)));
    }

    /// What a tenant may read under this name.
    pub(crate) fn grant(&self, tenant: TenantId, dataset: &DatasetName) -> Option<DatasetGrant> {
        let tenants = lock(&self.tenants);
        tenants.get(&tenant)?.datasets.iter().find(|grant| grant.name == *dataset).cloned()
    }

    /// Waits until there is memory for inputs of this size. More than there ever is counts as all of it.
    pub(crate) async fn reserve_inputs(&self, size: ByteSize) -> Option<tokio::sync::OwnedSemaphorePermit> {
        let permits = u32::try_from(size.0.div_ceil(PERMIT)).unwrap_or(u32::MAX).min(self.input_permits);
        Arc::clone(&self.inputs).acquire_many_owned(permits).await.ok()
    }

    /// Reports a failed attempt.
    pub(crate) fn fail(&self, attempt: AttemptId, failure: Failure, usage: Usage, missing_inputs: Vec<PartitionId>) {
        self.counters.attempts_failed.one();
        self.collector.failed(FailedAttempt { attempt, failure, usage, missing_inputs });
    }

    /// Reports attempts that were cancelled before they started.
    pub(crate) fn cancelled(&self, attempts: Vec<AttemptId>) {
        for attempt in attempts {
            let failure = Failure::new(Cause::Cancelled, "cancelled before it started");
            self.fail(attempt, failure, Usage::default(), Vec::new());
        }
    }
}
