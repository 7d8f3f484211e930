//! One record of every variant, as format version 1 stores it. Only ever added to.

#![allow(clippy::unwrap_used, reason = "constants of a test")]

use std::time::Duration;

use partita_core::{IdempotencyKey, Record};
use partita_types::{
    Arguments, ArrayIndex, ArrayOptions, ArraySource, ArraySpec, AttemptId, AttemptNumber, ByteSize, Cause,
    ContentHash, CpuTime, DatasetName, DatasetPlan, Edge, Failure, Features, FunctionInfo, HostName, JobId, JobSpec,
    LimitRequest, ModuleId, ModuleInfo, OutputInfo, OutputRef, PartitionId, SucceededBatch, TaskCount, TaskId,
    TenantId, TenantName, Timestamp, Usage,
};

const JOB: JobId = JobId { tenant: TenantId(3), number: 17 };

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000 + seconds * 1_000_000)
}

fn attempt(array: u32, index: u32) -> AttemptId {
    AttemptId { task: TaskId { job: JOB, array: ArrayIndex(array), index }, number: AttemptNumber::FIRST.next() }
}

fn info(size: u64) -> OutputInfo {
    OutputInfo { size: ByteSize(size), hash: ContentHash([9; 32]) }
}

fn usage() -> Usage {
    Usage { cpu: CpuTime::from_micros(12_345), peak_memory: ByteSize::mib(3) }
}

fn needs() -> Features {
    let mut needs = Features::default();
    needs.add_label("zone=a".parse().unwrap()).unwrap();
    needs.add_resource("gpu=2".parse().unwrap()).unwrap();
    needs
}

fn array(name: &str, source: ArraySource, arguments: Arguments, inputs: Vec<Edge>) -> ArraySpec {
    let limits = LimitRequest {
        memory: Some(ByteSize::gib(1)),
        cpu_time: Some(CpuTime::from_micros(90_000_000)),
        wall_time: Some(Duration::from_secs(600)),
        output: None,
        log: Some(ByteSize::kib(16)),
    };
    let backoff = Duration::from_millis(250);
    let options = ArrayOptions {
        priority: -4,
        retries: 5,
        backoff,
        limits,
        deterministic: false,
        keep: true,
        memory_max: Some(ByteSize::gib(1)),
        needs: needs(),
        memoise: false,
        speculate: true,
    };
    let tasks = if inputs.is_empty() { TaskCount::Fixed(7) } else { TaskCount::FromInputs };
    ArraySpec { name: name.to_owned(), source, tasks, arguments, inputs, outputs: 2, options }
}

/// Every kind of edge, argument and source.
fn arrays() -> Vec<ArraySpec> {
    let function = || ArraySource::Function { module: ModuleId([5; 32]), function: "count".to_owned() };
    let first = ArrayIndex(0);
    let edges = vec![
        Edge::Each { array: first, output: 1 },
        Edge::All { array: first, output: 0 },
        Edge::Slice { array: first },
        Edge::List { tasks: vec![vec![OutputRef { array: first, index: 6, output: 1 }], vec![]] },
        Edge::Dataset {
            dataset: DatasetName::new("sources").unwrap(),
            split: ByteSize::mib(8),
            limit: Some(ByteSize::gib(1)),
        },
        Edge::Literal { values: vec![b"a".to_vec(), vec![]] },
    ];
    vec![
        array("upload", ArraySource::Upload, Arguments::Common(Vec::new()), Vec::new()),
        array("map", function(), Arguments::PerTask(vec![b"{}".to_vec(), b"[1]".to_vec()]), edges),
        array("fold", function(), Arguments::Common(b"7".to_vec()), vec![Edge::Fold { array: first, arity: 16 }]),
    ]
}

fn plan() -> DatasetPlan {
    DatasetPlan {
        dataset: DatasetName::new("sources").unwrap(),
        split: ByteSize::mib(8),
        limit: None,
        splits: 40,
        files: 1_234,
        bytes: ByteSize::mib(317),
        manifest: ContentHash([8; 32]),
    }
}

fn accepted() -> Vec<Record> {
    let function = FunctionInfo { name: "count".to_owned(), doc: "Counts.".to_owned(), inputs: Some(1), outputs: None };
    let module = ModuleInfo {
        id: ModuleId([5; 32]),
        name: "wordfreq".to_owned(),
        size: ByteSize(66_000),
        functions: vec![function],
    };
    let key = IdempotencyKey([1; 16]);
    let spec = JobSpec {
        name: "identifiers".to_owned(),
        arrays: arrays(),
        open: true,
        deadline: Some(Duration::from_secs(90)),
    };
    vec![
        Record::TenantAdded { id: TenantId(3), name: TenantName::new("analytics").unwrap() },
        Record::ModuleAdded { tenant: TenantId(3), info: module, at: at(0) },
        Record::JobSubmitted { job: JOB, key, spec, plans: vec![plan()], at: at(1) },
        Record::JobExtended { job: JOB, key: IdempotencyKey([2; 16]), arrays: arrays(), plans: Vec::new() },
        Record::JobClosed { job: JOB, at: at(2) },
        Record::JobCancelled { job: JOB, at: at(3) },
        Record::JobReleased { job: JOB },
    ]
}

fn ended() -> Vec<Record> {
    let batch = SucceededBatch {
        job: JOB,
        array: ArrayIndex(1),
        indexes: vec![0, 5],
        attempts: vec![AttemptNumber::FIRST, AttemptNumber::FIRST.next()],
        outputs: vec![info(10), info(11), info(0), info(1 << 40)],
        usage: vec![usage(), Usage::default()],
        moved_partitions: 6,
        moved_bytes: ByteSize::kib(9),
        reused: 1,
    };
    let failure = Failure {
        cause: Cause::Memory,
        message: "asked for 300 MiB, limit 256 MiB".to_owned(),
        backtrace: vec!["count".to_owned()],
        log_tail: vec!["line".to_owned(), String::new()],
    };
    vec![
        Record::Succeeded { batch, at: at(4) },
        Record::AttemptFailed {
            attempt: attempt(1, 2),
            failure,
            usage: usage(),
            last: true,
            at: at(5),
            host: Some(HostName::new("a").unwrap()),
            memory: Some(ByteSize::mib(512)),
            other: false,
        },
        Record::Lost { tasks: vec![attempt(1, 0).task, attempt(1, 5).task] },
        Record::Uploaded { partition: PartitionId { attempt: attempt(0, 6), output: 0 }, info: info(5), at: at(6) },
        Record::ModuleQuarantined {
            tenant: JOB.tenant,
            module: ModuleId([7; 32]),
            reason: "it crashed".to_owned(),
            at: at(7),
        },
        Record::JobExpired { job: JOB, at: at(8) },
        Record::HostJoined { name: HostName::new("host-1").unwrap(), at: at(7) },
        Record::HostLost { name: HostName::new("host-1").unwrap(), at: at(8) },
        Record::JobsForgotten { tenant: TenantId(3), count: 300 },
        Record::TenantUsed { tenant: TenantId(3), cpu: CpuTime::from_micros(9), peak_memory: ByteSize::mib(2) },
        Record::LifeBegan { number: 2, at: at(9) },
        Record::Unrunnable { job: JOB, array: ArrayIndex(1), task: Some(4), since: Some(at(9)) },
        Record::Speculated { attempt: attempt(1, 2), host: HostName::new("b").unwrap(), at: at(9) },
        Record::HostDraining { name: HostName::new("host-1").unwrap(), on: true, at: at(9) },
    ]
}

/// One of each, in the order of the variants.
pub(crate) fn one_of_each() -> Vec<Record> {
    [accepted(), ended()].concat()
}
