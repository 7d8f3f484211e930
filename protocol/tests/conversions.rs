//! Everything that travels arrives as it was sent, and what cannot be meant is refused.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::num::NonZeroU32;
use std::time::Duration;

use partita_protocol::{DecodeError, features_from_wire, host, job};
use partita_types::{
    Arguments, ArrayHeader, ArrayIndex, ArrayOptions, ArraySource, ArraySpec, AttemptId, AttemptNumber, ByteSize,
    Cause, ContentHash, CpuTime, DatasetGrant, DatasetName, DatasetPlan, Edge, FailedAttempt, Failure, Features, Frame,
    FrameId, HostId, HostName, HostTenant, InputGroup, InputPartition, JobId, JobSpec, LimitRequest, MilliCpu,
    ModuleId, OutputInfo, OutputRef, PartitionId, Report, Source, StoredPartition, SucceededBatch, TaskCount, TaskId,
    TaskLimits, TenantId, TenantName, Timestamp, Usage, Welcome,
};
use prost::Message;

const JOB: JobId = JobId { tenant: TenantId(3), number: 7 };

fn attempt(index: u32, number: u32) -> AttemptId {
    let task = TaskId { job: JOB, array: ArrayIndex(2), index };
    AttemptId { task, number: AttemptNumber(NonZeroU32::new(number).unwrap()) }
}

fn output(size: u64) -> OutputInfo {
    OutputInfo { size: ByteSize(size), hash: ContentHash([u8::try_from(size % 251).unwrap(); 32]) }
}

fn partition(index: u32) -> StoredPartition {
    StoredPartition {
        id: PartitionId { attempt: attempt(index, 1), output: index % 3 },
        info: output(u64::from(index) * 10),
    }
}

fn plan() -> DatasetPlan {
    DatasetPlan {
        dataset: DatasetName::new("crates").unwrap(),
        split: ByteSize::mib(8),
        limit: Some(ByteSize::gib(1)),
        splits: 17,
        files: 400,
        bytes: ByteSize(123_456),
        manifest: ContentHash([9; 32]),
    }
}

/// Sends a message through its real encoding.
fn through_the_wire<M: Message + Default>(message: &M) -> M {
    M::decode(message.encode_to_vec().as_slice()).unwrap()
}

fn needs() -> Features {
    let mut needs = Features::default();
    needs.add_label("zone=a".parse().unwrap()).unwrap();
    needs.add_resource("gpu=2".parse().unwrap()).unwrap();
    needs
}

#[test]
fn labels_and_resources_that_cannot_be_are_refused() {
    let label = |name: &str| partita_protocol::job::Label { name: name.to_owned(), value: "a".to_owned() };
    let resource = |amount| partita_protocol::job::Resource { name: "gpu".to_owned(), amount };
    let fault = |labels, resources| features_from_wire(labels, resources).unwrap_err().to_string();
    assert!(fault(vec![label("zone"), label("zone")], vec![]).contains("\"zone\" is given twice"));
    assert!(fault(vec![label("Zone")], vec![]).contains("label name \"Zone\" is not valid"));
    assert!(fault(vec![], vec![resource(0)]).contains("gpu with an amount of 0"));
    assert!(
        fault((0..40).map(|number| label(&format!("l{number}"))).collect(), vec![]).contains("40 labels are too many")
    );
}

fn array(source: ArraySource, arguments: Arguments, inputs: Vec<Edge>) -> ArraySpec {
    let limits = LimitRequest { memory: Some(ByteSize::mib(64)), cpu_time: None, ..LimitRequest::default() };
    let options = ArrayOptions {
        priority: -4,
        retries: 9,
        limits,
        keep: true,
        memory_max: Some(ByteSize::gib(1)),
        needs: needs(),
        memoise: true,
        speculate: false,
        ..ArrayOptions::default()
    };
    ArraySpec { name: "a".into(), source, tasks: TaskCount::FromInputs, arguments, inputs, outputs: 3, options }
}

#[test]
fn a_job_with_every_edge_arrives_unchanged() {
    let first = ArrayIndex(0);
    let edges = vec![
        Edge::Each { array: first, output: 2 },
        Edge::All { array: first, output: 0 },
        Edge::Slice { array: first },
        Edge::Fold { array: first, arity: 8 },
        Edge::List { tasks: vec![vec![], vec![OutputRef { array: first, index: 1, output: 2 }; 2], vec![]] },
        Edge::Dataset { dataset: DatasetName::new("crates").unwrap(), split: ByteSize::mib(8), limit: None },
        Edge::Literal { values: vec![b"one".to_vec(), Vec::new()] },
    ];
    let function = ArraySource::Function { module: ModuleId([5; 32]), function: "map".into() };
    let mut upload = array(ArraySource::Upload, Arguments::PerTask(vec![vec![1], vec![]]), vec![]);
    upload.tasks = TaskCount::Fixed(2);
    let arrays = vec![upload, array(function, Arguments::Common(b"{}".to_vec()), edges)];
    let spec = JobSpec { name: "job".into(), arrays, open: true, deadline: Some(Duration::from_secs(90)) };
    let wire: job::JobSpec = spec.clone().into();
    assert_eq!(JobSpec::try_from(through_the_wire(&wire)), Ok(spec));
}

#[test]
fn a_list_edge_with_wrong_counts_is_refused() {
    let list = job::List { per_task: vec![u32::MAX, 2], arrays: vec![0], indexes: vec![0], outputs: vec![0] };
    let edge = job::Edge { pattern: Some(job::edge::Pattern::List(list)) };
    assert!(matches!(Edge::try_from(edge), Err(DecodeError::Columns { .. })));
}

#[test]
fn an_array_without_source_is_refused() {
    let error = ArraySpec::try_from(job::ArraySpec::default()).unwrap_err();
    assert_eq!(error.to_string(), "an array has no function or upload");
}

fn frame() -> Frame {
    Frame {
        id: FrameId(99),
        job: JOB,
        array: ArrayIndex(2),
        indexes: vec![4, 5],
        attempts: vec![AttemptNumber::FIRST, AttemptNumber::FIRST.next()],
        arguments: vec![b"1".to_vec(), b"2".to_vec()],
        literals: vec![b"x".to_vec(), b"y".to_vec()],
        input_counts: vec![2, 1],
        inputs: (0..3).map(|i| InputPartition { partition: partition(i), source: i % 2 }).collect(),
        sources: vec![
            Source {
                host: HostId(0),
                name: HostName::new("a").unwrap(),
                address: "127.0.0.1:1".into(),
                ticket: vec![1, 2],
            },
            Source { host: HostId(1), name: HostName::new("b").unwrap(), address: String::new(), ticket: vec![] },
        ],
        memory: Some(ByteSize::mib(512)),
        reuse: Vec::new(),
    }
}

#[test]
fn a_frame_arrives_unchanged() {
    let wire: host::Frame = frame().into();
    assert_eq!(Frame::try_from(through_the_wire(&wire)), Ok(frame()));
}

#[test]
fn a_frame_of_copies_arrives_unchanged_and_names_one_attempt_for_each_task() {
    let task = TaskId { job: JOB, array: ArrayIndex(0), index: 7 };
    let reuse = vec![AttemptId { task, number: AttemptNumber::FIRST }; 2];
    let copies = Frame { reuse, ..frame() };
    let mut wire: host::Frame = copies.clone().into();
    assert_eq!(Frame::try_from(through_the_wire(&wire)), Ok(copies));
    wire.reuse.as_mut().unwrap().indexes.pop();
    assert!(Frame::try_from(wire).is_err());
}

#[test]
fn frames_whose_columns_disagree_are_refused() {
    let good = host::Frame::from(frame());
    let spoil: [fn(&mut host::Frame); 6] = [
        |frame| frame.attempts.truncate(1),
        |frame| frame.attempts[0] = 0,
        |frame| frame.arguments.truncate(1),
        |frame| frame.input_counts[0] = 7,
        |frame| frame.input_sources[0] = 2,
        |frame| frame.inputs.as_mut().unwrap().hashes.truncate(33),
    ];
    for (number, spoil) in spoil.into_iter().enumerate() {
        let mut frame = good.clone();
        spoil(&mut frame);
        assert!(Frame::try_from(frame).is_err(), "spoiled frame {number} was accepted");
    }
}

#[test]
fn an_array_header_arrives_unchanged() {
    let header = ArrayHeader {
        job: JOB,
        array: ArrayIndex(1),
        module: ModuleId([8; 32]),
        function: "reduce".into(),
        outputs: 4,
        limits: TaskLimits { cpu_time: CpuTime::from_micros(5), ..TaskLimits::default() },
        common_arguments: b"{}".to_vec(),
        submitted_at: Timestamp::from_micros(77),
        inputs: vec![
            InputGroup::Partitions,
            InputGroup::Dataset(plan()),
            InputGroup::Literal(b"l".to_vec()),
            InputGroup::PerTaskLiteral,
        ],
    };
    let wire: host::ArrayHeader = header.clone().into();
    assert_eq!(ArrayHeader::try_from(through_the_wire(&wire)), Ok(header));
}

fn report() -> Report {
    let usage = Usage { cpu: CpuTime::from_micros(15), peak_memory: ByteSize::mib(2) };
    let succeeded = SucceededBatch {
        job: JOB,
        array: ArrayIndex(2),
        indexes: vec![1, 2],
        attempts: vec![AttemptNumber::FIRST; 2],
        outputs: (0..6).map(output).collect(),
        usage: vec![usage; 2],
        moved_partitions: 3,
        moved_bytes: ByteSize(4_000),
        reused: 1,
    };
    let failed = Cause::ALL.into_iter().map(|cause| FailedAttempt {
        attempt: attempt(cause as u32, 2),
        failure: Failure { backtrace: vec!["f".into()], log_tail: vec!["l".into()], ..Failure::new(cause, "m") },
        usage,
        missing_inputs: vec![partition(1).id],
    });
    Report {
        succeeded: vec![succeeded],
        failed: failed.collect(),
        finished_frames: vec![FrameId(1), FrameId(2)],
        started: vec![attempt(9, 1)],
    }
}

#[test]
fn a_report_with_every_cause_arrives_unchanged() {
    let wire = host::FrameReport::numbered(12, report());
    let arrived = through_the_wire(&wire);
    assert_eq!(arrived.number, 12);
    assert_eq!(Report::try_from(arrived), Ok(report()));
}

#[test]
fn reports_that_lie_about_their_columns_are_refused() {
    let good = host::FrameReport::numbered(1, report());
    let spoil: [fn(&mut host::FrameReport); 5] = [
        |report| report.succeeded[0].sizes.truncate(5),
        |report| report.succeeded[0].hashes = vec![0; 32 * 5].into(),
        |report| report.succeeded[0].cpu_us.clear(),
        |report| report.succeeded[0].attempts[1] = 0,
        |report| report.failed[0].failure.as_mut().unwrap().cause = 1_000,
    ];
    for (number, spoil) in spoil.into_iter().enumerate() {
        let mut report = good.clone();
        spoil(&mut report);
        assert!(Report::try_from(report).is_err(), "spoiled report {number} was accepted");
    }
}

#[test]
fn outputs_without_tasks_are_refused() {
    let batch = host::Succeeded { sizes: vec![1], hashes: vec![0; 32].into(), ..host::Succeeded::default() };
    assert!(SucceededBatch::try_from(batch).is_err());
}

#[test]
fn a_welcome_arrives_unchanged() {
    let tenant = HostTenant {
        id: TenantId(0),
        name: TenantName::new("analytics").unwrap(),
        weight: 3,
        datasets: vec![DatasetGrant {
            name: DatasetName::new("crates").unwrap(),
            location: "/data".into(),
            include: vec!["*.rs".into()],
        }],
        cpu: None,
        guaranteed: MilliCpu(1_500),
    };
    let welcome = Welcome {
        host: HostId(4),
        heartbeat: Duration::from_secs(1),
        ticket_key: [6; 32],
        tenants: vec![tenant.clone(), HostTenant { id: TenantId(1), cpu: Some(MilliCpu(500)), ..tenant }],
    };
    let wire: host::Welcome = welcome.clone().into();
    assert_eq!(Welcome::try_from(through_the_wire(&wire)), Ok(welcome.clone()));
    let mut short = host::Welcome::from(welcome);
    short.ticket_key.truncate(31);
    assert!(Welcome::try_from(short).is_err());
}
