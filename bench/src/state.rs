//! `state.*`: what the core keeps in memory for a task that waits.
//!
//! The core runs alone in a process of its own, so that the difference of its resident memory before and after a large
//! submission is the core's and nothing else's. The job is one that a real cluster would hold: arrays of a thousand tasks
//! that read from each other, and everything waits for an upload that never comes. `single_task` is the other end: arrays of
//! one task each, which have a name, a function and an edge of their own.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use partita_core::{
    Action, Core, Event, HostCommand, HostHello, HostMessage, IdempotencyKey, Reply, Request, RequestId,
};
use partita_policy::{Quota, TenantPolicy};
use partita_types::{
    Arguments, ArrayIndex, ArrayOptions, ArraySource, ArraySpec, ByteSize, Edge, Features, FunctionInfo, HostCapacity,
    Incarnation, Isolation, JobSpec, MilliCpu, ModuleId, TaskCount, TaskLimits, TenantName, Timestamp,
};

use crate::figures::Figures;

/// The hidden command that measures once, in a process of its own.
pub(crate) const COMMAND: &str = "measure-state";

/// Arrays behind the upload.
const ARRAYS: u32 = 1_000;
/// Tasks of each.
const TASKS: u32 = 1_000;
/// Jobs of arrays of one task, and how many arrays each has behind the upload.
const JOBS_OF_SINGLES: u8 = 10;
const SINGLES: u32 = 5_000;

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
        for name in ["state.bytes_per_pending_task", "state.bytes_per_single_task"] {
            let number = numbers.next().context("a number is missing")?.context("no number came back")?;
            figures.add(name, "B", number);
        }
    }
    Ok(())
}

/// Prints how many bytes a pending task costs, in long arrays and alone.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut cluster = Alone::new()?;
    let first = resident_bytes()?;
    cluster.submit(1, ARRAYS, TASKS)?;
    let second = resident_bytes()?;
    for job in 0..JOBS_OF_SINGLES {
        cluster.submit(2 + job, SINGLES, 1)?;
    }
    let third = resident_bytes()?;
    let per_task = |before: u64, after: u64, tasks: u32| {
        #[expect(clippy::cast_precision_loss, reason = "a process has less memory than that")]
        let bytes = after.saturating_sub(before) as f64;
        bytes / f64::from(tasks)
    };
    println!("{:.2}", per_task(first, second, (ARRAYS + 1) * TASKS));
    println!("{:.2}", per_task(second, third, u32::from(JOBS_OF_SINGLES) * (SINGLES + 1)));
    Ok(())
}

/// A core without the rest of a scheduler.
struct Alone {
    core: Core,
    tenant: TenantName,
    module: ModuleId,
    requests: u64,
}

impl Alone {
    /// A core with a tenant, a host and a module.
    fn new() -> anyhow::Result<Self> {
        let tenant: TenantName = "bench".parse().context("a good name is refused")?;
        let mut alone = Self { core: Core::new(), tenant, module: ModuleId([7; 32]), requests: 0 };
        alone.apply(Event::TenantDefined(policy(&alone.tenant)));
        alone.apply(Event::HostAttached(hello()?));
        alone.add_module()?;
        Ok(alone)
    }

    fn add_module(&mut self) -> anyhow::Result<()> {
        let tenant = self.core.tenant(&self.tenant).context("the tenant was not taken")?;
        let what = Request::AddModule { tenant, module: self.module, name: "noop".to_owned(), size: ByteSize::kib(1) };
        let actions = self.request(what);
        let asked = actions.iter().find_map(|action| match action {
            Action::Command { host, command: HostCommand::InspectModule { request, .. } } => Some((*host, *request)),
            _ => None,
        });
        let (host, request) = asked.context("the core had nobody inspect the module")?;
        let function = FunctionInfo { name: "noop".to_owned(), doc: String::new(), inputs: Some(1), outputs: Some(1) };
        let message = HostMessage::ModuleInspected { request, result: Ok(vec![function]) };
        self.apply(Event::FromHost { host, incarnation: Incarnation(1), message });
        Ok(())
    }

    /// Submits a job: an upload of so many tasks, and arrays of as many tasks behind it, each reading from the one before.
    fn submit(&mut self, key: u8, arrays: u32, tasks: u32) -> anyhow::Result<()> {
        let tenant = self.core.tenant(&self.tenant).context("the tenant was not taken")?;
        let upload = array("upload", ArraySource::Upload, TaskCount::Fixed(tasks), Vec::new());
        let chain = (0..arrays).map(|number| {
            let source = ArraySource::Function { module: self.module, function: "noop".to_owned() };
            let from = Edge::Each { array: ArrayIndex(number), output: 0 };
            array("chain", source, TaskCount::FromInputs, vec![from])
        });
        let spec = JobSpec {
            name: "pending".to_owned(),
            arrays: std::iter::once(upload).chain(chain).collect(),
            open: false,
            deadline: None,
        };
        let actions = self.request(Request::Submit { tenant, key: IdempotencyKey([key; 16]), spec });
        for action in &actions {
            if let Action::Reply { reply: Reply::Refused(refusal), .. } = action {
                bail!("the core refuses the job: {refusal}");
            }
        }
        if !actions.iter().any(|action| matches!(action, Action::Reply { reply: Reply::Accepted { .. }, .. })) {
            bail!("the core does not answer the submission");
        }
        Ok(())
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
            concurrent_tasks: 100,
            concurrent_memory: ByteSize::gib(100),
            stored: ByteSize::gib(100),
            modules: 100,
            module_size: ByteSize::gib(1),
            cpu: MilliCpu(100_000),
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
