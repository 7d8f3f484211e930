//! The order of the driver: nothing is answered that is not on disk, and a broken journal answers nothing.

use std::time::Duration;

use partita_core::{Event, IdempotencyKey, Reply, Request};
use partita_policy::PolicySet;
use partita_store::{Fault, Journal, MemoryDisk};
use partita_types::{
    Arguments, ArrayOptions, ArraySource, ArraySpec, ByteSize, Features, HostCapacity, HostName, Isolation, JobSpec,
    TaskCount, TenantId, TenantName,
};

use super::*;
use crate::hub::Hub;
use crate::metrics::Metrics;

const LIMIT: Duration = Duration::from_secs(10);

struct Scheduler {
    handle: Handle,
    threads: Threads,
    stop: CancellationToken,
    failure: Failure,
    hub: std::sync::Arc<Hub>,
}

/// A driver on a journal in memory, with one tenant.
async fn start(disk: &MemoryDisk) -> Scheduler {
    start_on(disk.open()).await
}

async fn start_on(mut journal: impl Journal + 'static) -> Scheduler {
    let (stop, failure) = (CancellationToken::new(), Failure::new());
    let metrics = Metrics::new().unwrap();
    let hub = std::sync::Arc::new(Hub::default());
    let effects = Effects::new(std::sync::Arc::clone(&hub), metrics.clone());
    let mut core = Core::new();
    journal.replay(&mut |record| core.restore(&record, &mut Vec::new())).unwrap();
    let (handle, threads) =
        super::start(core, Box::new(journal), effects, metrics, stop.clone(), failure.clone()).unwrap();
    for policy in PolicySet::parse(&[("test", "[tenant.acme]\n")]).unwrap().iter() {
        handle.event(Event::TenantDefined(policy.clone())).await.unwrap();
    }
    Scheduler { handle, threads, stop, failure, hub }
}

impl Scheduler {
    async fn stop(self) {
        self.stop.cancel();
        tokio::task::spawn_blocking(|| self.threads.join()).await.unwrap();
    }

    /// Submits a job with one task that waits for an upload.
    async fn submit(&self, key: u8) -> Result<Reply, NoReply> {
        let array = ArraySpec {
            name: "data".to_owned(),
            source: ArraySource::Upload,
            tasks: TaskCount::Fixed(1),
            arguments: Arguments::Common(Vec::new()),
            inputs: Vec::new(),
            outputs: 1,
            options: ArrayOptions::default(),
        };
        let spec = JobSpec { name: "job".to_owned(), arrays: vec![array], open: false, deadline: None };
        let submit = Request::Submit { tenant: TenantId(0), key: IdempotencyKey([key; 16]), spec };
        self.handle.request(submit, LIMIT).await
    }

    async fn jobs(&self) -> usize {
        self.handle.query(|core| core.jobs(TenantId(0)).len()).await.unwrap()
    }
}

fn hello(name: &HostName) -> HostHello {
    let capacity = HostCapacity { cores: 1, memory: ByteSize::gib(1), partitions: ByteSize::gib(1) };
    HostHello {
        name: name.clone(),
        incarnation: Incarnation(1),
        capacity,
        isolation: Isolation::Full,
        address: "127.0.0.1:9".to_owned(),
        features: Features::default(),
        inventory: Vec::new(),
        held: Vec::new(),
        ended: partita_types::Report::default(),
    }
}

#[tokio::test]
async fn an_answered_submission_survives_a_crash() {
    let disk = MemoryDisk::default();
    let scheduler = start(&disk).await;
    assert!(matches!(scheduler.submit(1).await, Ok(Reply::Accepted { .. })));
    let before = disk.flushes();
    assert!(before > 0);
    // A crash: what was not flushed is gone when the journal is opened again.
    let again = start(&disk).await;
    assert_eq!(again.jobs().await, 1);
    again.stop().await;
    scheduler.stop().await;
}

#[tokio::test]
async fn a_full_disk_answers_nothing_and_ends_the_scheduler() {
    for fault in [Fault::FullOnAppend, Fault::FullOnFlush] {
        let disk = MemoryDisk::default();
        let scheduler = start(&disk).await;
        scheduler.jobs().await;
        disk.break_with(fault);
        assert!(matches!(scheduler.submit(1).await, Err(NoReply::Stopped(Stopped::DiskFull))), "{fault:?}");
        let failed = scheduler.failure.wait().await.to_string();
        assert!(failed.contains("full"), "{failed}");
        // Not even a look at the state is answered any more: it would show what is not on disk.
        while scheduler.handle.query(|_| ()).await.is_ok() {}
        scheduler.stop().await;
    }
}

#[tokio::test]
async fn watchers_see_a_job_once_it_is_on_disk() {
    let disk = MemoryDisk::default();
    let scheduler = start(&disk).await;
    let Ok(Reply::Accepted { job, .. }) = scheduler.submit(1).await else { panic!("not accepted") };
    let hub = std::sync::Arc::clone(&scheduler.hub);
    let mut progress = scheduler.handle.query_then(|_| (), move |()| hub.log(job).progress()).await.unwrap();
    tokio::time::timeout(LIMIT, progress.wait_for(|progress| progress.visible > 0)).await.unwrap().unwrap();
    scheduler.stop().await;
}

#[tokio::test]
async fn a_host_that_does_not_read_is_cut_off() {
    let disk = MemoryDisk::default();
    let scheduler = start(&disk).await;
    let name = HostName::new("host-1").unwrap();
    let hello = hello(&name);
    // Room for the welcome, and nothing more.
    let (outbox, _messages) = mpsc::channel(1);
    let closed = CancellationToken::new();
    let link = Link { serial: 1, name, outbox, closed: closed.clone() };
    let session = scheduler.handle.attach(hello, 0, link).await.unwrap().unwrap();
    assert!(!scheduler.handle.tell(session.host, SchedulerMessage::default()).await.unwrap());
    assert!(closed.is_cancelled());
    scheduler.handle.detach(session).await.unwrap();
    let state = scheduler.handle.query(|core| core.hosts()[0].state).await.unwrap();
    assert_eq!(state, "detached");
    scheduler.stop().await;
}

#[tokio::test]
async fn the_end_of_a_replaced_session_does_not_detach_its_host() {
    let disk = MemoryDisk::default();
    let scheduler = start(&disk).await;
    let name = HostName::new("host-1").unwrap();
    let attach = async |serial| {
        let hello = hello(&name);
        let (outbox, messages) = mpsc::channel(8);
        let closed = CancellationToken::new();
        let link = Link { serial, name: name.clone(), outbox, closed: closed.clone() };
        (scheduler.handle.attach(hello, 0, link).await.unwrap().unwrap(), closed, messages)
    };
    let (first, first_closed, _first_messages) = attach(1).await;
    let (_, second_closed, _second_messages) = attach(2).await;
    scheduler.handle.detach(first).await.unwrap();
    let state = scheduler.handle.query(|core| core.hosts()[0].state).await.unwrap();
    assert_eq!(state, "attached");
    assert!(first_closed.is_cancelled() && !second_closed.is_cancelled());
    scheduler.stop().await;
}

#[tokio::test]
async fn the_tenant_of_a_policy_gets_its_number_before_anybody_asks() {
    let disk = MemoryDisk::default();
    let scheduler = start(&disk).await;
    let acme = TenantName::new("acme").unwrap();
    assert_eq!(scheduler.handle.query(move |core| core.tenant(&acme)).await.unwrap(), Some(TenantId(0)));
    scheduler.stop().await;
}

#[tokio::test]
async fn a_journal_that_has_grown_is_compacted_while_the_scheduler_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let open = || partita_store::DiskJournal::open(directory.path(), "test").unwrap();
    let scheduler = start_on(open().compacting_from(1)).await;
    for key in 1..=60 {
        let Ok(Reply::Accepted { job, .. }) = scheduler.submit(key).await else { panic!("not accepted") };
        if key < 60 {
            assert_eq!(scheduler.handle.request(Request::Cancel(job), LIMIT).await.unwrap(), Reply::Done);
            assert_eq!(scheduler.handle.request(Request::Release(job), LIMIT).await.unwrap(), Reply::Done);
        }
    }
    scheduler.stop().await;
    let mut journal = open();
    let mut core = Core::new();
    let replayed = journal.replay(&mut |record| core.restore(&record, &mut Vec::new())).unwrap();
    // How many are left depends on how soon compactions got to run.
    assert!(journal.compactions() > 0 && replayed.records < 3 * 60, "{} records", replayed.records);
    let jobs: Vec<u32> = core.jobs(TenantId(0)).iter().map(|job| job.id.number).collect();
    assert_eq!(jobs, [60]);
}
