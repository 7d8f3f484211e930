//! `state.*`: what the core keeps in memory for a task that waits, that runs, that has succeeded.
//!
//! The core runs alone in a process of its own, so that the difference of its resident memory before and after is the core's
//! and nothing else's. The job of those that wait is one that a real cluster would hold: arrays of a thousand tasks that read
//! from each other, and everything waits for an upload that never comes. `single_task` is the other end: arrays of one task
//! each, which have a name, an argument and an edge of their own. Running tasks are each in a frame of their own, as long as
//! nothing is known of their function, which is when they cost most. What was only needed to take a submission in is not
//! the tasks': a submission of the same size goes before what is measured, and leaves that room.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use partita_core::{
    Action, Core, Event, HostCommand, HostHello, HostMessage, IdempotencyKey, Reply, Request, RequestId,
};
use partita_policy::{Quota, TenantPolicy};
use partita_types::{
    Arguments, ArrayIndex, ArrayOptions, ArraySource, ArraySpec, ByteSize, Edge, Features, Frame, FunctionInfo,
    HostCapacity, HostId, Incarnation, Isolation, JobSpec, MilliCpu, ModuleId, TaskCount, TaskLimits, TenantName,
    Timestamp,
};

use crate::figures::Figures;
use crate::journal::report;

/// The hidden command that measures once, in a process of its own.
pub(crate) const COMMAND: &str = "measure-state";

/// Arrays behind the upload.
const ARRAYS: u32 = 1_000;
/// Tasks of each.
const TASKS: u32 = 1_000;
/// Jobs of arrays of one task, and how many arrays each has behind the upload.
const JOBS_OF_SINGLES: u32 = 50;
const SINGLES: u32 = 1_000;

/// Tasks of an array that is run to its end.
const FINISHED: u32 = 1_000_000;
/// Tasks that run at once, on a host that is large enough, and those of each job.
const RUNNING: u32 = 100_000;
const RUNNING_OF_JOB: u32 = 1_000;
/// The figures, in the order in which [`run`] prints them.
const NAMES: [&str; 4] = [
    "state.bytes_per_pending_task",
    "state.bytes_per_single_task",
    "state.bytes_per_finished_task",
    "state.bytes_per_running_task",
];

/// Measures `runs` times.
pub(crate) fn measure(figures: &mut Figures, runs: usize) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("cannot find this program")?;
    for _ in 0..runs {
        let output = Command::new(&own).arg(COMMAND).output().context("cannot start this program again")?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!("measuring the core ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        let mut numbers = text.split_whitespace().map(str::parse);
        for name in NAMES {
            let number = numbers.next().context("a number is missing")?.context("no number came back")?;
            figures.add(name, "B", number);
        }
    }
    Ok(())
}

/// Prints how many bytes a task costs: pending in long arrays, pending alone, finished, running.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut cluster = Alone::new()?;
    print_growth((ARRAYS + 1) * TASKS, || cluster.submit(chain(ARRAYS, TASKS)).map(drop))?;
    cluster.submit(chain(SINGLES, 1))?;
    print_growth(JOBS_OF_SINGLES * (SINGLES + 1), || {
        (0..JOBS_OF_SINGLES).try_for_each(|_| cluster.submit(chain(SINGLES, 1)).map(drop))
    })?;
    print_growth(FINISHED, || {
        let frames = cluster.submit(wide(FINISHED))?;
        cluster.finish(frames, FINISHED)
    })?;
    cluster.apply(Event::HostAttached(HostHello {
        name: "host-2".parse().context("a good name is refused")?,
        capacity: HostCapacity {
            cores: RUNNING + RUNNING_OF_JOB,
            memory: ByteSize::gib(1 << 20),
            partitions: ByteSize::gib(1),
        },
        ..hello()?
    }));
    let mut run = || {
        let frames = cluster.submit(wide_of("unknown", RUNNING_OF_JOB))?;
        if frames.len() == RUNNING_OF_JOB as usize { Ok(()) } else { bail!("{} tasks run", frames.len()) }
    };
    run()?;
    print_growth(RUNNING, || (0..RUNNING / RUNNING_OF_JOB).try_for_each(|_| run()))
}

/// Prints by how much the memory of this process grows for each of so many tasks.
fn print_growth(tasks: u32, happens: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let before = resident_bytes()?;
    happens()?;
    #[expect(clippy::cast_precision_loss, reason = "a process has less memory than that")]
    let bytes = resident_bytes()?.saturating_sub(before) as f64;
    println!("{:.2}", bytes / f64::from(tasks));
    Ok(())
}

/// An upload of so many tasks, and arrays of as many tasks behind it, each reading from the one before.
fn chain(arrays: u32, tasks: u32) -> Vec<ArraySpec> {
    let upload = array("upload", ArraySource::Upload, TaskCount::Fixed(tasks), Vec::new());
    let behind = (0..arrays).map(|number| {
        let from = Edge::Each { array: ArrayIndex(number), output: 0 };
        let mut array = array(&format!("count-{number}"), source("noop"), TaskCount::FromInputs, vec![from]);
        array.arguments = Arguments::Common(format!("{{\"path\": {number}}}").into_bytes());
        array
    });
    std::iter::once(upload).chain(behind).collect()
}

/// One array of tasks that wait for nothing.
fn wide(tasks: u32) -> Vec<ArraySpec> {
    wide_of("noop", tasks)
}

fn wide_of(function: &str, tasks: u32) -> Vec<ArraySpec> {
    let input = Edge::Literal { values: vec![Vec::new()] };
    vec![array("wide", source(function), TaskCount::Fixed(tasks), vec![input])]
}

fn source(function: &str) -> ArraySource {
    ArraySource::Function { module: MODULE, function: function.to_owned() }
}

const MODULE: ModuleId = ModuleId([7; 32]);

/// A core without the rest of a scheduler.
struct Alone {
    core: Core,
    tenant: TenantName,
    requests: u64,
}

impl Alone {
    /// A core with a tenant, a host and a module.
    fn new() -> anyhow::Result<Self> {
        let tenant: TenantName = "bench".parse().context("a good name is refused")?;
        let mut alone = Self { core: Core::new(), tenant, requests: 0 };
        alone.apply(Event::TenantDefined(policy(&alone.tenant)));
        alone.apply(Event::HostAttached(hello()?));
        alone.add_module()?;
        Ok(alone)
    }

    fn add_module(&mut self) -> anyhow::Result<()> {
        let tenant = self.core.tenant(&self.tenant).context("the tenant was not taken")?;
        let what = Request::AddModule { tenant, module: MODULE, name: "noop".to_owned(), size: ByteSize::kib(1) };
        let actions = self.request(what);
        let asked = actions.iter().find_map(|action| match action {
            Action::Command { host, command: HostCommand::InspectModule { request, .. } } => Some((*host, *request)),
            _ => None,
        });
        let (host, request) = asked.context("the core had nobody inspect the module")?;
        let function =
            |name: &str| FunctionInfo { name: name.to_owned(), doc: String::new(), inputs: Some(1), outputs: Some(1) };
        let message = HostMessage::ModuleInspected { request, result: Ok(vec![function("noop"), function("unknown")]) };
        self.apply(Event::FromHost { host, incarnation: Incarnation(1), message });
        Ok(())
    }

    /// Submits a job; returns the frames that hosts get for it.
    fn submit(&mut self, arrays: Vec<ArraySpec>) -> anyhow::Result<Vec<Frame>> {
        let tenant = self.core.tenant(&self.tenant).context("the tenant was not taken")?;
        let spec = JobSpec { name: "state".to_owned(), arrays, open: false, deadline: None };
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.requests.to_le_bytes());
        let actions = self.request(Request::Submit { tenant, key: IdempotencyKey(key), spec });
        for action in &actions {
            if let Action::Reply { reply: Reply::Refused(refusal), .. } = action {
                bail!("the core refuses the job: {refusal}");
            }
        }
        if !actions.iter().any(|action| matches!(action, Action::Reply { reply: Reply::Accepted { .. }, .. })) {
            bail!("the core does not answer the submission");
        }
        Ok(frames(actions))
    }

    /// Lets the first host succeed with frames, and those that it gets for them.
    fn finish(&mut self, mut waiting: Vec<Frame>, tasks: u32) -> anyhow::Result<()> {
        let mut done = 0;
        while let Some(frame) = waiting.pop() {
            done += frame.indexes.len();
            let message = HostMessage::Report(report(frame));
            let event = Event::FromHost { host: HostId(0), incarnation: Incarnation(1), message };
            waiting.extend(frames(self.apply(event)));
        }
        if done == tasks as usize { Ok(()) } else { bail!("{done} of {tasks} tasks were handed out") }
    }

    fn request(&mut self, what: Request) -> Vec<Action> {
        self.requests += 1;
        self.apply(Event::Requested { request: RequestId(self.requests), what })
    }

    fn apply(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.core.apply(Timestamp::from_micros(1_000_000), event, &mut actions);
        actions
    }
}

/// The frames that hosts are given.
fn frames(actions: Vec<Action>) -> Vec<Frame> {
    let frames = actions.into_iter().filter_map(|action| match action {
        Action::Command { command: HostCommand::Assign { frames, .. }, .. } => Some(frames),
        _ => None,
    });
    frames.flatten().collect()
}

/// What a small host says of itself.
pub(crate) fn hello() -> anyhow::Result<HostHello> {
    Ok(HostHello {
        name: "host-1".parse().context("a good name is refused")?,
        incarnation: Incarnation(1),
        capacity: HostCapacity { cores: 1, memory: ByteSize::gib(1), partitions: ByteSize::gib(1) },
        isolation: Isolation::Full,
        address: "127.0.0.1:1".to_owned(),
        features: Features::default(),
        inventory: Vec::new(),
        held: Vec::new(),
        ended: partita_types::Report::default(),
    })
}

/// An array of a function or an upload, with one output.
pub(crate) fn array(name: &str, source: ArraySource, tasks: TaskCount, inputs: Vec<Edge>) -> ArraySpec {
    ArraySpec {
        name: name.to_owned(),
        source,
        tasks,
        arguments: Arguments::Common(Vec::new()),
        inputs,
        outputs: 1,
        options: ArrayOptions::default(),
    }
}

/// A policy that limits nothing that is measured.
pub(crate) fn policy(name: &TenantName) -> TenantPolicy {
    TenantPolicy {
        name: name.clone(),
        quota: Quota {
            weight: 1,
            queued_tasks: u64::MAX,
            running_jobs: 100_000,
            concurrent_tasks: u32::MAX,
            concurrent_memory: ByteSize::gib(1 << 30),
            stored: ByteSize::gib(100),
            modules: 100,
            module_size: ByteSize::gib(1),
            cpu: MilliCpu(u64::from(u32::MAX)),
        },
        task_defaults: TaskLimits::default(),
        task_maxima: TaskLimits::default(),
        datasets: Vec::new(),
        token_lifetime: Duration::from_secs(3_600),
        minimum_isolation: Isolation::Process,
        share: Box::default(),
        unrunnable_after: Duration::from_secs(600),
        retention: None,
    }
}

/// Resident memory of this process.
fn resident_bytes() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read the memory of this process")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .and_then(|line| line.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse().ok())
        .context("the kernel does not tell the memory of this process")?;
    Ok(kib * 1024)
}
