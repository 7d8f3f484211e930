//! The session with the scheduler: one stream, batched both ways, opened again whenever it ends.
//!
//! While the scheduler is away, the host goes on with the frames that it has, for as long as it is configured to, and
//! keeps what they write and how they ended. When it attaches again, its hello says all that: what it stores, what it
//! goes on with, and every end that was never acknowledged. The scheduler takes over what is current, and has it stop
//! and drop the rest.

mod orders;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use partita_host_logic::ledger;
use partita_identity::random;
use partita_identity::ticket::TicketKey;
use partita_protocol::host::host_message::Message as ToScheduler;
use partita_protocol::host::scheduler_message::Message as FromScheduler;
use partita_protocol::host::{FrameReport, Heartbeat, Hello, HostMessage, PartitionList, SchedulerMessage};
use partita_protocol::{DecodeError, PARTITIONS_PER_MESSAGE, features_to_wire};
use partita_types::{AttemptId, HeldFrame, StoredPartition, TaskId, Welcome, format_duration};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::error;
use crate::host::Host;
use crate::report::Pace;
use orders::Orders;

/// Messages on their way out; a report holds thousands of ends.
const OUTBOX: usize = 64;
/// Longest wait for the scheduler's answer to a hello.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(30);
/// Under load, ends are gathered for so long.
const GATHER: Duration = Duration::from_millis(1);
/// How often it is looked which attempts run for long.
const LOOK: Duration = Duration::from_millis(250);
/// Shortest and longest time between heartbeats, whatever the scheduler says.
const HEARTBEAT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(60));
/// First and longest wait before the session is opened again. A scheduler that was restarted waits some seconds for
/// its hosts, so they must not try too seldom.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("the scheduler cannot be reached: {0}")]
    Call(String),
    #[error("the scheduler did not answer within {} s", WELCOME_TIMEOUT.as_secs())]
    Timeout,
    #[error("the scheduler ended the session")]
    Ended,
    #[error("the scheduler's first message is not a welcome")]
    NoWelcome,
    #[error("a message of the scheduler has no meaning")]
    Decode(#[from] DecodeError),
    #[error("the scheduler named more than {limit} arrays in one session")]
    TooManyArrays { limit: usize },
    #[error("no memory for an array's literal")]
    Memory(#[source] std::io::Error),
}

/// Keeps a session open until the host stops. `attached` tells whether there is one.
pub(crate) async fn keep(host: Arc<Host>, attached: watch::Sender<bool>) {
    let mut wait = RETRY.0;
    // Since when there is no scheduler; nothing that matters is here before the first session.
    let mut alone: Option<Instant> = None;
    loop {
        let began = Instant::now();
        if alone.is_some_and(|since| since.elapsed() >= host.config.away) {
            tracing::warn!(
                away = %format_duration(host.config.away),
                "the scheduler is away for longer than it may be; what runs is stopped"
            );
            host.engine.clear().await;
            host.collector.clear();
            alone = None;
        }
        let ended = tokio::select! {
            ended = attach(&host, &attached) => ended,
            () = host.stopping.cancelled() => return,
        };
        if attached.send_replace(false) {
            alone = Some(Instant::now());
        }
        if let Err(fault) = ended {
            tracing::warn!(error = %error::chain(&fault), "not attached to the scheduler; trying again");
        }
        // A session that held for a while was good: the next one is tried soon.
        wait = if began.elapsed() > RETRY.1 { RETRY.0 } else { (wait * 2).min(RETRY.1) };
        tokio::select! {
            () = sleep(jittered(wait)) => {}
            () = host.stopping.cancelled() => return,
        }
    }
}

/// Between half of `wait` and all of it, so that hosts do not come back all at once.
pub(crate) fn jittered(wait: Duration) -> Duration {
    let [byte] = random::<1>();
    wait / 2 + wait / 2 * u32::from(byte) / 255
}

async fn attach(host: &Arc<Host>, attached: &watch::Sender<bool>) -> Result<(), SessionError> {
    let (outbox, messages) = mpsc::channel(OUTBOX);
    let greeting = tokio_stream::iter(greeting(host)).map(|message| HostMessage { message: Some(message) });
    let mut client = host.uplink.session();
    let answer = timeout(WELCOME_TIMEOUT, client.attach(greeting.chain(ReceiverStream::new(messages)))).await;
    let answer = answer.map_err(|_| SessionError::Timeout)?;
    let mut inbound = answer.map_err(|status| SessionError::Call(error::status(&status)))?.into_inner();
    let first = timeout(WELCOME_TIMEOUT, next(&mut inbound)).await.map_err(|_| SessionError::Timeout)??;
    let FromScheduler::Welcome(welcome) = first else { return Err(SessionError::NoWelcome) };
    let heartbeat = take_over(host, welcome.try_into()?);
    host.counters.sessions.one();
    host.engine.resume();
    attached.send_replace(true);
    tracing::info!(address = %host.address, "attached to the scheduler");
    serve(host, inbound, outbox, heartbeat).await
}

async fn next(inbound: &mut Streaming<SchedulerMessage>) -> Result<FromScheduler, SessionError> {
    loop {
        let message = inbound.message().await.map_err(|status| SessionError::Call(error::status(&status)))?;
        // A message of a kind that this version does not know decodes to none.
        if let Some(message) = message.ok_or(SessionError::Ended)?.message {
            return Ok(message);
        }
    }
}

/// How a session begins: the hello, and as many messages as the inventory needs.
fn greeting(host: &Host) -> Vec<ToScheduler> {
    let (mut hello, inventory) = hello(host);
    let mut parts = inventory.chunks(PARTITIONS_PER_MESSAGE).map(PartitionList::from_stored);
    hello.inventory = parts.next();
    let more: Vec<_> = parts.map(ToScheduler::MoreInventory).collect();
    hello.more_inventory = u32::try_from(more.len()).unwrap_or(u32::MAX);
    std::iter::once(ToScheduler::Hello(hello)).chain(more).collect()
}

/// What the scheduler must know, and what the host stores. In an order in which nothing is missed: an attempt that ends meanwhile is still held, and
/// then its end is reported in the session; or its end is here, and then it is not held any more.
fn hello(host: &Host) -> (Hello, Vec<StoredPartition>) {
    let mut held = host.engine.held();
    let (last_report, ended) = host.collector.unacknowledged();
    ledger::without_ended(&mut held, &ended);
    let attempt = |frame: &HeldFrame, position: usize| {
        let task = TaskId { job: frame.job, array: frame.array, index: frame.indexes[position] };
        AttemptId { task, number: frame.attempts[position] }
    };
    let open: HashSet<AttemptId> =
        held.iter().flat_map(|frame| (0..frame.indexes.len()).map(|position| attempt(frame, position))).collect();
    let mut inventory = host.store.inventory();
    inventory.retain(|partition| !open.contains(&partition.id.attempt));
    let (labels, resources) = features_to_wire(&host.config.features);
    let hello = Hello {
        incarnation: host.incarnation.0,
        cores: host.config.cores,
        memory_bytes: host.config.memory.0,
        partition_bytes: host.config.partitions.0,
        isolation: host.executors.isolation().as_str().to_owned(),
        address: host.address.clone(),
        inventory: None,
        more_inventory: 0,
        held: held.into_iter().map(Into::into).collect(),
        succeeded: ended.succeeded.into_iter().map(Into::into).collect(),
        failed: ended.failed.into_iter().map(Into::into).collect(),
        last_report,
        labels,
        resources,
    };
    (hello, inventory)
}

/// Does what the first welcome of a session says; answers how often to send a heartbeat.
fn take_over(host: &Host, welcome: Welcome) -> Duration {
    host.set_ticket_key(TicketKey(welcome.ticket_key));
    host.set_tenants(welcome.tenants);
    welcome.heartbeat.clamp(HEARTBEAT.0, HEARTBEAT.1)
}

/// Serves one session until it ends.
async fn serve(
    host: &Arc<Host>,
    inbound: Streaming<SchedulerMessage>,
    outbox: mpsc::Sender<HostMessage>,
    heartbeat: Duration,
) -> Result<(), SessionError> {
    let mut orders = Orders::new(Arc::clone(host), outbox.clone());
    let ended = obey_all(host, inbound, outbox, heartbeat, &mut orders).await;
    orders.end().await;
    ended
}

async fn obey_all(
    host: &Arc<Host>,
    mut inbound: Streaming<SchedulerMessage>,
    outbox: mpsc::Sender<HostMessage>,
    heartbeat: Duration,
    orders: &mut Orders,
) -> Result<(), SessionError> {
    let mut reporter = JoinSet::new();
    reporter.spawn(report(Arc::clone(host), outbox.clone()));
    let mut heartbeats = interval(heartbeat);
    heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Every branch is cancel-safe: a message that is not complete stays in the stream's buffer.
        tokio::select! {
            message = next(&mut inbound) => orders.obey(message?).await?,
            _ = heartbeats.tick() => {
                // If the outbox is full, the reports in it say as well that the host is alive.
                let _ = outbox.try_send(HostMessage { message: Some(ToScheduler::Heartbeat(alive(host))) });
            }
            _ = looks.tick() => host.collector.started(host.engine.started()),
            () = outbox.closed() => return Err(SessionError::Ended),
        }
    }
}

fn alive(host: &Host) -> Heartbeat {
    let stored = host.store.stored();
    Heartbeat {
        stored_partitions: stored.partitions,
        stored_bytes: stored.bytes.0,
        guest_memory_bytes: host.engine.guest_memory().0,
    }
}

/// Sends reports as long as somebody takes them. Each is kept until it is acknowledged.
async fn report(host: Arc<Host>, outbox: mpsc::Sender<HostMessage>) {
    let mut pace = Pace::default();
    loop {
        let (number, report) = host.collector.take().await;
        let ends = report.succeeded.iter().map(|batch| batch.indexes.len()).sum::<usize>() + report.failed.len();
        let report = FrameReport::numbered(number, report);
        if outbox.send(HostMessage { message: Some(ToScheduler::Report(report)) }).await.is_err() {
            return;
        }
        if pace.gathers(ends, partita_identity::now()) {
            sleep(GATHER).await;
        }
    }
}
