//! Core leases with real processes: tenants that share a core, limits, and what is paused.

use std::collections::BTreeMap;
use std::time::Duration;

use partita_host::{HostConfig, Running};
use partita_protocol::host::host_message::Message as FromHost;
use partita_protocol::host::scheduler_message::Message as ToHost;
use partita_types::{
    ArrayHeader, Cause, CpuTime, Frame, HostId, HostTenant, JobId, MilliCpu, Report, TaskId, TenantId, TenantName,
    Welcome,
};

use crate::scheduler::{Cluster, Session, TENANT, array, attempt, frame, soon, ticket_key};

const A: TenantId = TENANT;
const B: TenantId = TenantId(2);
const C: TenantId = TenantId(3);

fn job(tenant: TenantId) -> JobId {
    JobId { tenant, number: 1 }
}

fn header(tenant: TenantId, number: u32, function: &str) -> ArrayHeader {
    ArrayHeader { job: job(tenant), ..array(number, function, Vec::new()) }
}

fn frame_of(tenant: TenantId, id: u64, number: u32, tasks: u32) -> Frame {
    // Other indexes for each tenant, since ends are told apart by them.
    let first = tenant.0 * 100_000;
    Frame { job: job(tenant), ..frame(id, number, first..first + tasks) }
}

fn tenant(id: TenantId, weight: u32, cpu: Option<u64>) -> HostTenant {
    let name = TenantName::new(&format!("tenant-{}", id.0)).unwrap();
    HostTenant { id, name, weight, datasets: Vec::new(), cpu: cpu.map(MilliCpu), guaranteed: MilliCpu(0) }
}

async fn host(cluster: &mut Cluster, cores: u32, tenants: Vec<HostTenant>) -> (Running, Session) {
    let config = HostConfig { cores, join_token: Some(cluster.join_token("h1")), ..cluster.config("h1") };
    let (running, session) = cluster.start_host(config).await;
    tell(&session, tenants).await;
    (running, session)
}

/// Tells the host of tenants that changed.
async fn tell(session: &Session, tenants: Vec<HostTenant>) {
    let heartbeat = Duration::from_millis(200);
    let welcome = Welcome { host: HostId(0), heartbeat, ticket_key: ticket_key("h1").0, tenants };
    session.say(ToHost::Welcome(welcome.into())).await;
}

/// What the executors of tenants used, as reported.
#[derive(Debug, Default)]
struct Use {
    cpu: BTreeMap<TenantId, CpuTime>,
    ended: BTreeMap<TenantId, usize>,
}

impl Use {
    /// Of attempts that end from when each of `tenants` has had one, until `last` has had so many.
    async fn of(session: &mut Session, tenants: &[TenantId], last: TenantId, tasks: usize) -> Self {
        let mut seen = Self::default();
        let mut all = false;
        while seen.ended.get(&last).is_none_or(|ended| *ended < tasks) {
            let FromHost::Report(report) = session.hear().await else { continue };
            let report = Report::try_from(report).unwrap();
            assert!(report.failed.is_empty(), "{:?}", report.failed);
            for batch in report.succeeded {
                let tenant = batch.job.tenant;
                *seen.ended.entry(tenant).or_default() += batch.indexes.len();
                let cpu = batch.usage.iter().fold(CpuTime::default(), |sum, usage| sum.saturating_add(usage.cpu));
                let sum = seen.cpu.entry(tenant).or_default();
                *sum = sum.saturating_add(cpu);
            }
            if !all && tenants.iter().all(|tenant| seen.ended.contains_key(tenant)) {
                all = true;
                seen.cpu.clear();
            }
        }
        seen
    }

    fn micros(&self, tenant: TenantId) -> u64 {
        self.cpu.get(&tenant).map_or(0, |cpu| cpu.micros)
    }
}

#[tokio::test]
async fn tenants_share_a_core_by_weight() {
    let mut cluster = Cluster::start().await;
    let tenants = [(A, 1), (B, 2), (C, 4)];
    let all = tenants.iter().map(|(id, weight)| tenant(*id, *weight, None)).collect();
    let (running, mut session) = host(&mut cluster, 1, all).await;
    for (id, _) in tenants {
        session.assign(header(id, 0, "work"), frame_of(id, u64::from(id.0), 0, 5_000)).await;
    }
    let used = Use::of(&mut session, &[A, B, C], C, 200).await;
    let (a, b, c) = (used.micros(A), used.micros(B), used.micros(C));
    for (tenant, part, parts) in [(A, a, 1), (B, b, 2), (C, c, 4)] {
        let wanted = (a + b + c) * parts / 7;
        assert!(part.abs_diff(wanted) * 5 <= wanted, "{tenant:?} got {part} µs of {a} + {b} + {c}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_tenant_with_half_a_core_gets_no_more_and_lends_what_it_does_not_get() {
    let mut cluster = Cluster::start().await;
    // By weight alone it would get nine parts of ten.
    let (running, mut session) = host(&mut cluster, 1, vec![tenant(A, 9, Some(500)), tenant(B, 1, None)]).await;
    let began = partita_identity::now();
    for id in [A, B] {
        session.assign(header(id, 0, "work"), frame_of(id, u64::from(id.0), 0, 5_000)).await;
    }
    let used = Use::of(&mut session, &[A, B], A, 150).await;
    let passed = partita_identity::now().micros - began.micros;
    let (limited, other) = (used.micros(A), used.micros(B));
    // The limit of the time that passed, five in a hundred, the burst, and what a late clock hides.
    assert!(limited <= passed / 2 * 105 / 100 + 30_000, "{limited} µs of {passed}");
    // Never less than its share of what there was.
    assert!(limited * 100 >= (limited + other) * 40, "{limited} µs against {other}");
    // Without the limit it gets what its weight says.
    tell(&session, vec![tenant(A, 9, None)]).await;
    let used = Use::of(&mut session, &[A, B], A, 300).await;
    let (unlimited, other) = (used.micros(A), used.micros(B));
    assert!(unlimited > other * 5, "{unlimited} µs against {other}");
    running.stop().await;
}

#[tokio::test]
async fn a_light_task_ends_while_endless_ones_of_another_tenant_hold_every_core() {
    let mut cluster = Cluster::start().await;
    let (running, mut session) = host(&mut cluster, 2, vec![tenant(B, 1, None)]).await;
    let mut started = Vec::new();
    for number in 0..2 {
        session.assign(header(A, number, "spin"), frame_of(A, u64::from(number) + 1, number, 1)).await;
        started.push(session.until_started().await);
    }
    session.assign(header(B, 0, "echo"), frame_of(B, 3, 0, 1)).await;
    let used = Use::of(&mut session, &[B], B, 1).await;
    assert_eq!(used.ended.get(&A), None, "they are endless");
    session.cancel(&started).await;
    assert_eq!(session.next_failure().await.failure.cause, Cause::Cancelled);
    running.stop().await;
}

/// At any time one of two is paused, so one of the cancellations hits a stopped process.
#[tokio::test]
async fn a_paused_task_can_be_cancelled_and_its_tenant_goes_on() {
    let mut cluster = Cluster::start().await;
    let (running, mut session) = host(&mut cluster, 1, vec![tenant(B, 1, None)]).await;
    let mut started = Vec::new();
    for id in [A, B] {
        session.assign(header(id, 0, "spin"), frame_of(id, u64::from(id.0), 0, 1)).await;
        let attempt = session.until_started().await;
        let index = id.0 * 100_000;
        assert_eq!(attempt.task, TaskId { job: job(id), array: partita_types::ArrayIndex(0), index });
        started.push(attempt);
    }
    session.cancel(&started).await;
    for _ in 0..2 {
        assert_eq!(session.next_failure().await.failure.cause, Cause::Cancelled);
    }
    for id in [A, B] {
        session.assign(header(id, 1, "echo"), frame_of(id, 10 + u64::from(id.0), 1, 50)).await;
    }
    Use::of(&mut session, &[], A, 50).await;
    running.stop().await;
}

#[tokio::test]
async fn executors_that_were_paused_serve_again() {
    let mut cluster = Cluster::start().await;
    let (running, mut session) = host(&mut cluster, 1, vec![tenant(B, 1, None)]).await;
    for round in 0..5 {
        for id in [A, B] {
            let number = round * 2 + id.0;
            session.assign(header(id, number, "work"), frame_of(id, u64::from(number), number, 10)).await;
        }
        let ends = soon("the ends of both", session.ends()).await;
        assert_eq!((ends.succeeded.len(), ends.failed.len()), (20, 0), "{:?}", ends.failed);
    }
    let counters = running.counters();
    assert_eq!((counters.executors_forked, counters.executors_lost), (2, 0));
    running.stop().await;
}

#[tokio::test]
async fn a_wall_limit_reaches_a_task_that_is_paused() {
    let mut cluster = Cluster::start().await;
    let (running, mut session) = host(&mut cluster, 1, vec![tenant(B, 1, Some(1))]).await;
    let mut header = header(B, 0, "spin");
    header.limits.wall_time = Duration::from_millis(300);
    // With a thousandth of a core it is stopped nearly all the time.
    session.assign(header, frame_of(B, 1, 0, 1)).await;
    let failed = soon("its end", session.next_failure()).await;
    assert_eq!(failed.failure.cause, Cause::WallTime, "{failed:?}");
    assert!(failed.usage.cpu.micros < 100_000, "{failed:?}");
    assert_ne!(failed.attempt, attempt(0, 0));
    running.stop().await;
}
