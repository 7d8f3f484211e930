//! The whole service over real TLS, with a host that runs nothing: from a push to the bytes of a result.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a failure fails the test")]

use std::collections::BTreeMap;

use crate::support::{Cluster, Host, hello, soon};
use partita_identity::token::Role;
use partita_protocol::client::job_event::Event;
use partita_protocol::client::put_request::Part;
use partita_protocol::client::{
    Empty, Job, JobEvent, JobRequest, JobState, ListJobsRequest, PutHeader, PutRequest, ResultRequest, SubmitRequest,
    TaskEnd, UsageRequest, WatchRequest,
};
use partita_protocol::host::host_message::Message as Say;
use partita_protocol::host::scheduler_message::Message as Hear;
use partita_protocol::host::sessions_client::SessionsClient;
use partita_protocol::host::{
    Frame, FrameReport, Heartbeat, Hello, PartitionList, RelayChunk, RelayPiece, RelayRequest, Succeeded, UploadStored,
};
use partita_protocol::job::{ArraySpec, Function, JobSpec, Upload, array_spec};
use tonic::{Code, Status};

const MODULE: &[u8] = b"a component, as far as this test is concerned";

fn array(name: &str, source: array_spec::Source, tasks: u32) -> ArraySpec {
    ArraySpec { name: name.to_owned(), source: Some(source), tasks, outputs: 1, ..Default::default() }
}

fn work(module: &[u8], tasks: u32) -> ArraySpec {
    let function = Function { module: module.to_vec().into(), name: "work".to_owned() };
    array("work", array_spec::Source::Function(function), tasks)
}

fn submission(arrays: Vec<ArraySpec>, key: u8) -> SubmitRequest {
    let job = JobSpec { name: "job".to_owned(), arrays, open: false, deadline_ms: None };
    SubmitRequest { job: Some(job), idempotency_key: vec![key; 16].into() }
}

fn output(index: u32) -> Vec<u8> {
    format!("output of task {index}").into_bytes()
}

/// Reports success of everything in `frame`.
fn success(number: u64, frame: &Frame) -> FrameReport {
    let outputs: Vec<Vec<u8>> = frame.indexes.iter().map(|index| output(*index)).collect();
    let hashes: Vec<u8> = outputs.iter().flat_map(|bytes| *blake3::hash(bytes).as_bytes()).collect();
    let succeeded = Succeeded {
        tenant: frame.tenant,
        job: frame.job,
        array: frame.array,
        indexes: frame.indexes.clone(),
        attempts: frame.attempts.clone(),
        sizes: outputs.iter().map(|bytes| bytes.len() as u64).collect(),
        hashes: hashes.into(),
        cpu_us: vec![10; outputs.len()],
        peak_memory_bytes: vec![1 << 20; outputs.len()],
        ..Default::default()
    };
    FrameReport { number, succeeded: vec![succeeded], finished_frames: vec![frame.frame], ..Default::default() }
}

/// Runs `tasks` tasks, and returns what the host then stores.
async fn run(host: &mut Host, tasks: usize) -> PartitionList {
    let mut stored = PartitionList::default();
    let mut hashes = Vec::new();
    let mut number = 0;
    while stored.indexes.len() < tasks {
        let Hear::Assignment(assignment) = host.hear_command().await else { panic!("expected work") };
        for frame in &assignment.frames {
            number += 1;
            for (index, attempt) in frame.indexes.iter().zip(&frame.attempts) {
                stored.tenants.push(frame.tenant);
                stored.jobs.push(frame.job);
                stored.arrays.push(frame.array);
                stored.indexes.push(*index);
                stored.attempts.push(*attempt);
                stored.outputs.push(0);
                stored.sizes.push(output(*index).len() as u64);
                hashes.extend_from_slice(blake3::hash(&output(*index)).as_bytes());
            }
            host.say(Say::Report(success(number, frame))).await;
        }
    }
    stored.hashes = hashes.into();
    stored
}

async fn watch(cluster: &Cluster, job: u32, from: u64) -> Vec<JobEvent> {
    let request = WatchRequest { job, from, tenant: String::new() };
    let mut stream = cluster.jobs("acme").watch(request).await.unwrap().into_inner();
    let mut events = Vec::new();
    while let Some(batch) = soon(stream.message()).await.unwrap() {
        events.extend(batch.events);
    }
    events
}

/// Asks for all results of array 0 while `host` serves them.
async fn results(cluster: &Cluster, host: &mut Host, job: u32) -> Result<BTreeMap<u32, Vec<u8>>, Status> {
    let request = ResultRequest { job, ..Default::default() };
    let mut jobs = cluster.jobs("acme");
    let ask = async {
        let mut found = BTreeMap::<u32, Vec<u8>>::new();
        let mut stream = jobs.result(request).await?.into_inner();
        while let Some(chunk) = soon(stream.message()).await? {
            for piece in chunk.pieces {
                found.entry(piece.index).or_default().extend_from_slice(&piece.data);
            }
        }
        Ok(found)
    };
    let serve = async {
        let Hear::SendOutputs(wanted) = host.hear_command().await else { panic!("expected a wish for outputs") };
        let list = wanted.partitions.unwrap();
        let mut chunks = vec![RelayChunk { relay: wanted.relay, pieces: Vec::new() }];
        for (position, index) in (0..).zip(&list.indexes) {
            let bytes = output(*index);
            let (first, rest) = bytes.split_at(3);
            let piece = |data: &[u8], end| RelayPiece { position, data: data.to_vec().into(), end, missing: false };
            chunks.push(RelayChunk { relay: 0, pieces: vec![piece(first, false)] });
            chunks.push(RelayChunk { relay: 0, pieces: vec![piece(rest, true)] });
        }
        soon(host.sessions.send_result(tokio_stream::iter(chunks))).await.unwrap();
    };
    let (found, ()) = tokio::join!(ask, serve);
    found
}

async fn show(cluster: &Cluster, job: u32) -> Job {
    let request = JobRequest { job, tenant: String::new() };
    cluster.jobs("acme").show(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_from_its_submission_to_its_results() {
    let cluster = Cluster::start().await;
    let identity = cluster.join("host-1").await;
    let mut host = Host::attach(&cluster, &identity, hello(1, PartitionList::default())).await;
    let module = cluster.push(&mut host, "tool", MODULE).await;
    assert_eq!(module.functions[0].name, "work");

    let submitted = cluster.jobs("acme").submit(submission(vec![work(&module.id, 5)], 1)).await.unwrap().into_inner();
    assert_eq!((submitted.job, submitted.tasks.as_slice()), (1, &[5][..]));
    let again = cluster.jobs("acme").submit(submission(vec![work(&module.id, 5)], 1)).await.unwrap().into_inner();
    assert_eq!(again, submitted, "the same key is the same job");

    run(&mut host, 5).await;
    let events = watch(&cluster, 1, 0).await;
    assert_eq!(
        events.iter().map(|event| event.sequence).collect::<Vec<_>>(),
        (0..events.len() as u64).collect::<Vec<_>>()
    );
    assert!(matches!(events[0].event, Some(Event::ArraysAdded(_))), "{events:?}");
    let succeeded: u32 = events
        .iter()
        .filter_map(|event| match &event.event {
            Some(Event::TasksEnded(ended)) if ended.end() == TaskEnd::Succeeded => {
                Some(ended.count.iter().sum::<u32>())
            }
            _ => None,
        })
        .sum();
    assert_eq!(succeeded, 5);
    let last = events.last().unwrap();
    assert!(matches!(&last.event, Some(Event::JobEnded(ended)) if ended.state() == JobState::Succeeded), "{last:?}");
    assert_eq!(watch(&cluster, 1, last.sequence).await, std::slice::from_ref(last), "a watch goes on where it stopped");

    let found = results(&cluster, &mut host, 1).await.unwrap();
    assert_eq!(found, (0..5).map(|index| (index, output(index))).collect());
    assert_eq!(show(&cluster, 1).await.totals.unwrap().attempts, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_everything_that_was_acknowledged() {
    let mut cluster = Cluster::start().await;
    let identity = cluster.join("host-1").await;
    let mut host = Host::attach(&cluster, &identity, hello(1, PartitionList::default())).await;
    let module = cluster.push(&mut host, "tool", MODULE).await;
    cluster.jobs("acme").submit(submission(vec![work(&module.id, 4)], 1)).await.unwrap();
    let stored = run(&mut host, 4).await;
    let (events, job) = (watch(&cluster, 1, 0).await, show(&cluster, 1).await);

    cluster.stop().await;
    assert!(host.is_closed().await);
    cluster.start_again().await;

    assert_eq!(watch(&cluster, 1, 0).await, events);
    assert_eq!(show(&cluster, 1).await, job);
    let listed = cluster.modules("acme").list(partita_protocol::client::ListModulesRequest {}).await.unwrap();
    assert_eq!(listed.into_inner().modules, [module]);
    // The certificate, too, is still good, and so is what the host stores.
    let mut host = Host::attach(&cluster, &identity, hello(1, stored)).await;
    assert_eq!(results(&cluster, &mut host, 1).await.unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_stores_may_take_several_messages() {
    let mut cluster = Cluster::start().await;
    let identity = cluster.join("host-1").await;
    let mut host = Host::attach(&cluster, &identity, hello(1, PartitionList::default())).await;
    let module = cluster.push(&mut host, "tool", MODULE).await;
    cluster.jobs("acme").submit(submission(vec![work(&module.id, 3)], 1)).await.unwrap();
    let stored = run(&mut host, 3).await.stored().unwrap();
    watch(&cluster, 1, 0).await;
    cluster.stop().await;
    cluster.start_again().await;

    let mut parts = stored.chunks(1).map(PartitionList::from_stored);
    let greeting = |more_inventory| Say::Hello(Hello { more_inventory, ..hello(1, PartitionList::default()) });
    let sessions = || SessionsClient::new(cluster.channel(Some(&identity)));
    let broken = Host::attach_saying(sessions(), vec![greeting(1), Say::Heartbeat(Heartbeat::default())]).await;
    assert_eq!(broken.err().unwrap().code(), Code::InvalidArgument);

    let mut messages = vec![Say::Hello(Hello { more_inventory: 2, ..hello(1, parts.next().unwrap()) })];
    messages.extend(parts.map(Say::MoreInventory));
    let mut host = Host::attach_saying(sessions(), messages).await.unwrap();
    assert_eq!(results(&cluster, &mut host, 1).await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_are_acknowledged_when_they_are_on_disk() {
    let cluster = Cluster::start().await;
    let identity = cluster.join("host-1").await;
    let mut host = Host::attach(&cluster, &identity, hello(1, PartitionList::default())).await;
    let module = cluster.push(&mut host, "tool", MODULE).await;
    cluster.jobs("acme").submit(submission(vec![work(&module.id, 1)], 1)).await.unwrap();
    run(&mut host, 1).await;
    let acknowledged = loop {
        match host.hear().await {
            Hear::AcknowledgedReport(number) => break number,
            other => assert!(!matches!(other, Hear::Assignment(_)), "{other:?}"),
        }
    };
    assert_eq!(acknowledged, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ends_in_a_hello_are_acknowledged_when_they_are_on_disk() {
    let cluster = Cluster::start().await;
    let identity = cluster.join("host-1").await;
    let hello = partita_protocol::host::Hello { last_report: 7, ..hello(1, PartitionList::default()) };
    let mut host = Host::attach(&cluster, &identity, hello).await;
    assert!(matches!(host.hear().await, Hear::AcknowledgedReport(7)));
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_with_another_content_do_not_reach_the_client() {
    let cluster = Cluster::start().await;
    let identity = cluster.join("host-1").await;
    let mut host = Host::attach(&cluster, &identity, hello(1, PartitionList::default())).await;
    let module = cluster.push(&mut host, "tool", MODULE).await;
    cluster.jobs("acme").submit(submission(vec![work(&module.id, 1)], 1)).await.unwrap();
    run(&mut host, 1).await;
    watch(&cluster, 1, 0).await;
    let mut jobs = cluster.jobs("acme");
    let ask = async {
        let mut stream = jobs.result(ResultRequest { job: 1, ..Default::default() }).await?.into_inner();
        while soon(stream.message()).await?.is_some() {}
        Ok::<(), Status>(())
    };
    let serve = async {
        let Hear::SendOutputs(wanted) = host.hear_command().await else { panic!("expected a wish for outputs") };
        let forged = vec![b'x'; output(0).len()];
        let piece = RelayPiece { position: 0, data: forged.into(), end: true, missing: false };
        let chunk = RelayChunk { relay: wanted.relay, pieces: vec![piece] };
        // Whether the scheduler still listens when the chunk has arrived is not decided.
        let _ = soon(host.sessions.send_result(tokio_stream::iter([chunk]))).await;
    };
    let (asked, ()) = tokio::join!(ask, serve);
    assert_eq!(asked.unwrap_err().code(), Code::DataLoss);
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_that_a_host_was_asked_for_before_its_session_broke_come_from_the_next_one() {
    let cluster = Cluster::start().await;
    let identity = cluster.join("host-1").await;
    let mut host = Host::attach(&cluster, &identity, hello(1, PartitionList::default())).await;
    let module = cluster.push(&mut host, "tool", MODULE).await;
    cluster.jobs("acme").submit(submission(vec![work(&module.id, 1)], 1)).await.unwrap();
    run(&mut host, 1).await;
    watch(&cluster, 1, 0).await;
    let mut jobs = cluster.jobs("acme");
    let ask = async {
        let mut stream = jobs.result(ResultRequest { job: 1, ..Default::default() }).await.unwrap().into_inner();
        let mut found = Vec::new();
        while let Some(chunk) = soon(stream.message()).await.unwrap() {
            chunk.pieces.iter().for_each(|piece| found.extend_from_slice(&piece.data));
        }
        found
    };
    let serve = async {
        let Hear::SendOutputs(unheard) = host.hear_command().await else { panic!("expected a wish for outputs") };
        drop(host);
        let mut host = Host::attach(&cluster, &identity, hello(1, unheard.partitions.unwrap())).await;
        let Hear::SendOutputs(wanted) = host.hear_command().await else { panic!("expected the same wish again") };
        let piece = RelayPiece { position: 0, data: output(0).into(), end: true, missing: false };
        let chunk = RelayChunk { relay: wanted.relay, pieces: vec![piece] };
        soon(host.sessions.send_result(tokio_stream::iter([chunk]))).await.unwrap();
    };
    let (found, ()) = tokio::join!(ask, serve);
    assert_eq!(found, output(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_reaches_the_host_and_ends_its_task() {
    let cluster = Cluster::start().await;
    let identity = cluster.join("host-1").await;
    let mut host = Host::attach(&cluster, &identity, hello(1, PartitionList::default())).await;
    let upload = array("data", array_spec::Source::Upload(Upload {}), 1);
    cluster.jobs("acme").submit(submission(vec![upload], 1)).await.unwrap();
    let data = b"some bytes of a client".to_vec();
    let header = PutHeader { job: 1, array: 0, index: 0, size: data.len() as u64 };
    let parts = [Part::Header(header), Part::Chunk(data[..5].to_vec().into()), Part::Chunk(data[5..].to_vec().into())];
    let parts = parts.map(|part| PutRequest { part: Some(part) });
    let mut jobs = cluster.jobs("acme");
    let put = async { soon(jobs.put(tokio_stream::iter(parts))).await.unwrap() };
    let store = async {
        let Hear::StoreUpload(wanted) = host.hear_command().await else { panic!("expected an upload") };
        let mut partition = wanted.partition.unwrap();
        assert_eq!(partition.sizes, [data.len() as u64]);
        let request = RelayRequest { relay: wanted.relay };
        let mut chunks = host.sessions.receive_upload(request).await.unwrap().into_inner();
        let mut received = Vec::new();
        let mut end = false;
        while let Some(chunk) = soon(chunks.message()).await.unwrap() {
            for piece in chunk.pieces {
                received.extend_from_slice(&piece.data);
                end |= piece.end;
            }
        }
        assert!(end && received == data);
        partition.hashes = blake3::hash(&data).as_bytes().to_vec().into();
        let stored = UploadStored { relay: wanted.relay, partition: Some(partition), refusal: String::new() };
        host.say(Say::UploadStored(stored)).await;
    };
    tokio::join!(put, store);
    assert_eq!(show(&cluster, 1).await.state(), JobState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_another_size_than_announced_is_refused() {
    let cluster = Cluster::start().await;
    let identity = cluster.join("host-1").await;
    let _host = Host::attach(&cluster, &identity, hello(1, PartitionList::default())).await;
    let upload = array("data", array_spec::Source::Upload(Upload {}), 1);
    cluster.jobs("acme").submit(submission(vec![upload], 1)).await.unwrap();
    for size in [4, 6] {
        let header = PutHeader { job: 1, array: 0, index: 0, size };
        let parts = [Part::Header(header), Part::Chunk(b"12345".to_vec().into())];
        let parts = parts.map(|part| PutRequest { part: Some(part) });
        let status = soon(cluster.jobs("acme").put(tokio_stream::iter(parts))).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_and_wrong_jobs_have_their_own_codes() {
    let cluster = Cluster::start().await;
    let identity = cluster.join("host-1").await;
    let mut host = Host::attach(&cluster, &identity, hello(1, PartitionList::default())).await;
    let module = cluster.push(&mut host, "tool", MODULE).await;
    let mut jobs = cluster.jobs("acme");
    let status = jobs.submit(submission(vec![work(&module.id, 11)], 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("10"), "{status}");
    let status = jobs.submit(submission(vec![work(&[9; 32], 1)], 2)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    let status = jobs.submit(submission(Vec::new(), 3)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let mut without_key = submission(vec![work(&module.id, 1)], 4);
    without_key.idempotency_key = vec![1; 15].into();
    assert_eq!(jobs.submit(without_key).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(jobs.list(ListJobsRequest::default()).await.unwrap().into_inner().jobs, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_job_reads_like_one_that_does_not_exist() {
    let cluster = Cluster::start().await;
    let upload = array("data", array_spec::Source::Upload(Upload {}), 1);
    cluster.jobs("acme").submit(submission(vec![upload], 1)).await.unwrap();
    let mut other = cluster.jobs("other");
    let mut ask = async |job: u32, tenant: &str| {
        let request = JobRequest { job, tenant: tenant.to_owned() };
        let status = other.show(request).await.unwrap_err();
        (status.code(), status.message().to_owned())
    };
    let foreign = ask(1, "acme").await;
    assert_eq!(foreign, (Code::NotFound, "job 1 does not exist".to_owned()));
    assert_eq!(foreign, ask(1, "").await);
    assert_eq!(foreign, ask(1, "nobody").await);
    let operator = cluster.authorized(Some(&cluster.token("other", Role::Operator)));
    let mut operator = partita_protocol::client::jobs_client::JobsClient::new(operator);
    let request = JobRequest { job: 1, tenant: "acme".to_owned() };
    assert_eq!(operator.show(request).await.unwrap().into_inner().tenant, "acme");
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_are_refused_before_they_cost_anything() {
    let cluster = Cluster::start().await;
    let mut modules = cluster.modules("acme");
    let id = |bytes: &[u8]| <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(bytes));
    let large = vec![0; (64 << 10) + 1];
    let mut push = async |bytes: &[u8], id: &[u8]| {
        let parts = crate::support::push_parts("tool", bytes, id);
        soon(modules.push(tokio_stream::iter(parts))).await.unwrap_err()
    };
    let status = push(&large, &id(&large)).await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("64 KiB"), "{status}");
    assert_eq!(push(MODULE, &id(b"other")).await.code(), Code::InvalidArgument);
    let status = push(MODULE, &id(MODULE)).await;
    assert_eq!(status.code(), Code::Unavailable, "no host could examine it: {status}");
    assert_eq!(std::fs::read_dir(cluster.data().join("modules")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_tells_who_one_is_and_what_is_used() {
    let cluster = Cluster::start().await;
    let identity = cluster.join("host-1").await;
    let _host = Host::attach(&cluster, &identity, hello(1, PartitionList::default())).await;
    let mut viewer = cluster.cluster(Role::Viewer);
    let me = viewer.who_am_i(Empty {}).await.unwrap().into_inner();
    assert_eq!((me.subject.as_str(), me.tenant.as_str(), me.role.as_str()), ("ann", "acme", "viewer"));
    assert_eq!(me.cluster, "test");
    let hosts = viewer.hosts(Empty {}).await.unwrap().into_inner().hosts;
    assert_eq!(
        (hosts[0].name.as_str(), hosts[0].state.as_str(), hosts[0].address.as_str()),
        ("host-1", "attached", "")
    );
    let hosts = cluster.cluster(Role::Operator).hosts(Empty {}).await.unwrap().into_inner().hosts;
    assert_eq!(hosts[0].address, "127.0.0.1:9");
    let usage = viewer.usage(UsageRequest::default()).await.unwrap().into_inner().tenants;
    assert_eq!(usage.iter().map(|usage| usage.tenant.as_str()).collect::<Vec<_>>(), ["acme"]);
    let usage = cluster.cluster(Role::Admin).usage(UsageRequest::default()).await.unwrap().into_inner().tenants;
    assert_eq!(usage.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_a_running_job_ends_when_the_scheduler_stops() {
    let mut cluster = Cluster::start().await;
    let upload = array("data", array_spec::Source::Upload(Upload {}), 1);
    cluster.jobs("acme").submit(submission(vec![upload], 1)).await.unwrap();
    let request = WatchRequest { job: 1, ..Default::default() };
    let mut stream = cluster.jobs("acme").watch(request).await.unwrap().into_inner();
    assert_eq!(soon(stream.message()).await.unwrap().unwrap().events[0].sequence, 0);
    soon(cluster.stop()).await;
    assert_eq!(soon(stream.message()).await.unwrap_err().code(), Code::Unavailable);
}
