//! Frames from the assignment to the report.

use std::time::Duration;

use partita_host::HostConfig;
use partita_protocol::host::host_message::Message as FromHost;
use partita_protocol::host::scheduler_message::Message as ToHost;
use partita_protocol::host::{InspectModule, PlanDataset};
use partita_types::{ByteSize, Cause, ContentHash, DatasetGrant, DatasetName, DatasetPlan, InputGroup, TaskLimits};

use crate::guests;
use crate::scheduler::{Cluster, TENANT, array, attempt, frame, info, soon};

#[tokio::test]
async fn tasks_run_and_their_ends_are_reported_with_hashes() {
    let mut cluster = Cluster::start().await;
    let (running, mut session) = cluster.host("h1").await;
    assert_eq!((session.hello.cores, session.hello.isolation.as_str()), (2, "full"));
    session.assign(array(0, "echo", Vec::new()), frame(1, 0, 0..200)).await;
    let mut own = frame(2, 0, 200..202);
    own.arguments = vec![b"a".to_vec(), b"b".to_vec()];
    session.assign(array(0, "echo", Vec::new()), own).await;
    let ends = session.ends().await;
    assert_eq!((ends.succeeded.len(), ends.failed.len()), (202, 0), "{:?}", ends.failed);
    assert_eq!(ends.succeeded[&0], [info(b"common")]);
    assert_eq!(
        (ends.succeeded[&200].as_slice(), ends.succeeded[&201].as_slice()),
        (&[info(b"a")][..], &[info(b"b")][..])
    );
    assert_eq!(running.counters().attempts_succeeded, 202);
    running.stop().await;
}

#[tokio::test]
async fn a_task_that_is_killed_is_blamed_alone_and_the_rest_of_its_frame_runs() {
    let mut cluster = Cluster::start().await;
    let (running, mut session) = cluster.host("h1").await;
    let limits =
        TaskLimits { cpu_time: partita_types::CpuTime::from_micros(50_000), ..array(0, "", Vec::new()).limits };
    let spinning = partita_types::ArrayHeader { limits, ..array(0, "spin", Vec::new()) };
    session.assign(spinning, frame(1, 0, 0..3)).await;
    let ends = session.ends().await;
    let causes: Vec<Cause> = ends.failed.values().map(|failed| failed.failure.cause).collect();
    assert_eq!(causes, [Cause::CpuTime; 3]);
    assert_eq!(running.counters().executors_lost, 3);
    running.stop().await;
}

#[tokio::test]
async fn cancelling_stops_what_runs_and_what_waits() {
    let mut cluster = Cluster::start().await;
    let (running, mut session) = cluster.host("h1").await;
    session.assign(array(0, "spin", Vec::new()), frame(1, 0, 0..3)).await;
    assert_eq!(session.until_started().await, attempt(0, 0));
    session.cancel(&[attempt(0, 0), attempt(0, 1), attempt(0, 2)]).await;
    let ends = session.ends().await;
    let causes: Vec<Cause> = ends.failed.values().map(|failed| failed.failure.cause).collect();
    assert_eq!(causes, [Cause::Cancelled; 3]);
    running.stop().await;
}

#[tokio::test]
async fn a_full_store_fails_the_attempt_and_names_the_budget() {
    let mut cluster = Cluster::start().await;
    let config =
        HostConfig { partitions: ByteSize::mib(1), join_token: Some(cluster.join_token("h1")), ..cluster.config("h1") };
    let (running, mut session) = cluster.start_host(config).await;
    session.assign(array(0, "big", Vec::new()), frame(1, 0, 0..3)).await;
    let ends = session.ends().await;
    assert_eq!(ends.succeeded.len(), 1, "two halves of a MiB and what they cost to keep are more than a MiB");
    for failed in ends.failed.values() {
        assert_eq!(failed.failure.cause, Cause::Storage);
        assert!(failed.failure.message.contains("within a budget of 1 MiB"), "{}", failed.failure.message);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_module_that_is_none_fails_its_attempts_and_its_inspection() {
    let mut cluster = Cluster::start().await;
    let (running, mut session) = cluster.host("h1").await;
    let module = guests::id(b"not a module");
    cluster.add_module(module, b"not a module".to_vec());
    let header = partita_types::ArrayHeader { module, ..array(0, "echo", Vec::new()) };
    session.assign(header, frame(1, 0, 0..2)).await;
    let ends = session.ends().await;
    let causes: Vec<Cause> = ends.failed.values().map(|failed| failed.failure.cause).collect();
    assert_eq!(causes, [Cause::Module; 2]);
    let order = InspectModule { request: 5, tenant: TENANT.0, module: module.0.to_vec().into() };
    session.say(ToHost::InspectModule(order)).await;
    let FromHost::ModuleInspected(answer) = session.hear().await else { panic!("no answer") };
    assert_eq!(answer.request, 5);
    assert!(answer.refusal.contains("not a WebAssembly component"), "{}", answer.refusal);
    running.stop().await;
}

#[tokio::test]
async fn a_module_is_inspected() {
    let mut cluster = Cluster::start().await;
    let (running, mut session) = cluster.host("h1").await;
    let module = guests::id(&guests::guest());
    let order = InspectModule { request: 5, tenant: TENANT.0, module: module.0.to_vec().into() };
    session.say(ToHost::InspectModule(order)).await;
    let FromHost::ModuleInspected(answer) = session.hear().await else { panic!("no answer") };
    assert_eq!((answer.refusal.as_str(), answer.functions.len()), ("", 0));
    running.stop().await;
}

#[tokio::test]
async fn a_dataset_is_planned_and_read_in_splits() {
    let mut cluster = Cluster::start().await;
    let location = cluster.path("data");
    std::fs::create_dir(&location).unwrap();
    std::fs::write(location.join("a.txt"), "1\n2\n3").unwrap();
    std::fs::write(location.join("b.txt"), "4\n").unwrap();
    std::fs::write(location.join("no.bin"), "no").unwrap();
    let dataset = DatasetName::new("numbers").unwrap();
    let include = vec!["*.txt".to_owned()];
    cluster.datasets = vec![DatasetGrant { name: dataset.clone(), location: location.display().to_string(), include }];
    let (running, mut session) = cluster.host("h1").await;
    let order = PlanDataset { request: 9, tenant: 1, name: "numbers".to_owned(), split_bytes: 4, limit_bytes: None };
    session.say(ToHost::PlanDataset(order)).await;
    let FromHost::DatasetPlanned(planned) = session.hear().await else { panic!("no answer") };
    assert_eq!((planned.refusal.as_str(), planned.splits, planned.files, planned.bytes), ("", 3, 2, 7));
    let plan = |manifest| DatasetPlan {
        dataset: dataset.clone(),
        split: ByteSize(4),
        limit: None,
        splits: planned.splits,
        files: planned.files,
        bytes: ByteSize(planned.bytes),
        manifest,
    };
    let manifest = ContentHash::from_slice(&planned.manifest).unwrap();
    session.assign(array(0, "copy", vec![InputGroup::Dataset(plan(manifest))]), frame(1, 0, 0..3)).await;
    let ends = session.ends().await;
    let infos: Vec<_> = ends.succeeded.values().flatten().copied().collect();
    assert_eq!(infos, [info(b"1\n2\n"), info(b"3"), info(b"4\n")], "{:?}", ends.failed);
    let other = InputGroup::Dataset(plan(ContentHash([0; 32])));
    session.assign(array(1, "copy", vec![other]), frame(2, 1, 0..1)).await;
    let failed = &session.ends().await.failed[&0];
    assert_eq!(failed.failure.cause, Cause::Input);
    assert!(failed.failure.message.contains("changed since the job was submitted"), "{}", failed.failure.message);
    running.stop().await;
}

/// B51: what runs goes on while the scheduler is away, and the next session begins with all that happened.
#[tokio::test]
async fn after_a_lost_session_the_host_goes_on_and_tells_what_it_has() {
    let mut cluster = Cluster::start().await;
    let (running, mut session) = cluster.host("h1").await;
    session.assign(array(0, "echo", Vec::new()), frame(1, 0, 0..2)).await;
    let last = session.ends().await.last_report;
    session.say(ToHost::AcknowledgedReport(last)).await;
    session.assign(array(1, "spin", Vec::new()), frame(2, 1, 0..1)).await;
    session.until_started().await;
    drop(session);
    let session = cluster.welcome().await;
    assert!(session.hello.succeeded.is_empty() && session.hello.failed.is_empty(), "all of it was acknowledged");
    assert_eq!(session.held(), [(2, 1, vec![0])]);
    let inventory = session.hello.inventory.clone().unwrap().stored().unwrap();
    let kept: Vec<_> = inventory.iter().map(|partition| (partition.id.attempt, partition.info)).collect();
    assert_eq!(kept, [(attempt(0, 0), info(b"common")), (attempt(0, 1), info(b"common"))]);
    // The new session can stop it. Nobody acknowledges that, so the one after that hears of it again.
    let mut session = session;
    session.cancel(&[attempt(1, 0)]).await;
    let failed = soon("the end of the cancelled attempt", session.next_failure()).await;
    assert_eq!(failed.failure.cause, Cause::Cancelled);
    drop(session);
    let session = cluster.welcome().await;
    assert_eq!(session.held(), []);
    let unheard: Vec<_> = session.hello.failed.iter().map(|failed| (failed.array, failed.index)).collect();
    assert_eq!(unheard, [(1, 0)]);
    running.stop().await;
}

#[tokio::test]
async fn a_host_whose_scheduler_is_away_for_too_long_stops_what_runs_and_keeps_its_partitions() {
    let mut cluster = Cluster::start().await;
    let join_token = Some(cluster.join_token("h1"));
    let config = HostConfig { join_token, away: Duration::ZERO, ..cluster.config("h1") };
    let (running, mut session) = cluster.start_host(config).await;
    session.assign(array(0, "echo", Vec::new()), frame(1, 0, 0..1)).await;
    session.ends().await;
    session.assign(array(1, "spin", Vec::new()), frame(2, 1, 0..1)).await;
    session.until_started().await;
    drop(session);
    let mut session = cluster.welcome().await;
    assert_eq!(session.held(), []);
    assert!(session.hello.succeeded.is_empty());
    assert_eq!(session.hello.inventory.clone().unwrap().stored().unwrap().len(), 1);
    // The lanes are free again.
    session.assign(array(2, "echo", Vec::new()), frame(3, 2, 0..1)).await;
    let ends = session.ends().await;
    assert_eq!((ends.succeeded.len(), ends.failed.len()), (1, 0));
    running.stop().await;
}
