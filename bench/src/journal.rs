//! `state.*`: how fast the journal takes in what happened, and how fast a scheduler is back with it.
//!
//! Core and journal are driven as the scheduler's threads do it, in one thread and without a network: what is measured is
//! what a restart, a completion and a submission cost the state. The journal is on the disk of the temporary directory.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use partita_core::{Action, Core, Event, HostCommand, HostMessage, IdempotencyKey, Record, Request, RequestId};
use partita_store::{DiskJournal, Journal};
use partita_types::{
    ArraySource, ByteSize, ContentHash, CpuTime, Frame, FunctionInfo, HostId, Incarnation, JobSpec, ModuleId,
    ModuleInfo, OutputInfo, Report, SucceededBatch, TaskCount, TenantId, TenantName, Timestamp, Usage,
};

use crate::figures::{Figures, Stopwatch, percentile};
use crate::state::{array, hello, policy};

/// Tasks that wait when the scheduler dies, and in how many arrays they are for the second figure.
const PENDING: u32 = 1_000_000;
const ARRAYS: u32 = 10_000;
/// Tasks completed for the throughput.
const COMPLETED: u32 = 400_000;
/// Submissions for the latency.
const SUBMISSIONS: usize = 1_000;
/// A flush for completions is due so long after the last one, as in the scheduler.
const FLUSH_WITHIN: Duration = Duration::from_millis(20);

/// Measures `runs` times.
pub(crate) fn measure(figures: &mut Figures, runs: usize) -> anyhow::Result<()> {
    for _ in 0..runs {
        figures.add("state.recovery_1m_ms", "ms", recovery(1)?);
        figures.add("state.recovery_1m_in_10k_arrays_ms", "ms", recovery(ARRAYS)?);
        figures.add("state.completions_per_s", "/s", completions()?);
        figures.add("state.submit_ack_p99_us", "us", submissions()?);
    }
    Ok(())
}

/// A core with its journal.
struct Pair {
    core: Core,
    journal: DiskJournal,
    tenant: TenantName,
    requests: u64,
    now: Timestamp,
    /// Frames that the host was given.
    frames: Vec<Frame>,
    unflushed: Vec<Record>,
}

impl Pair {
    /// Opens a journal and replays it.
    fn open(directory: &Path) -> anyhow::Result<Self> {
        let mut journal = DiskJournal::open(directory, "bench")?;
        let (mut core, mut actions) = (Core::new(), Vec::new());
        journal.replay(&mut |record| {
            core.restore(&record, &mut actions);
            actions.clear();
        })?;
        let tenant: TenantName = "bench".parse().context("a good name is refused")?;
        let now = Timestamp::from_micros(1_000_000);
        let (frames, unflushed) = (Vec::new(), Vec::new());
        let mut pair = Self { core, journal, tenant, requests: 0, now, frames, unflushed };
        pair.apply(Event::TenantDefined(policy(&pair.tenant)))?;
        Ok(pair)
    }

    /// As [`Pair::open`], for a new journal with a module.
    fn new(directory: &Path) -> anyhow::Result<Self> {
        let mut pair = Self::open(directory)?;
        let function = FunctionInfo { name: "noop".to_owned(), doc: String::new(), inputs: Some(0), outputs: Some(1) };
        let info =
            ModuleInfo { id: MODULE, name: "noop".to_owned(), size: ByteSize::kib(1), functions: vec![function] };
        pair.unflushed.push(Record::ModuleAdded { tenant: TenantId(0), info, at: pair.now });
        pair.core.restore(&pair.unflushed[0].clone(), &mut Vec::new());
        pair.write()?;
        pair.journal.flush()?;
        Ok(pair)
    }

    fn attach(&mut self) -> anyhow::Result<()> {
        self.apply(Event::HostAttached(hello()?))
    }

    /// Applies an event and appends what it gives rise to; flushes if something may not be visible before.
    fn apply(&mut self, event: Event) -> anyhow::Result<()> {
        let mut actions = Vec::new();
        self.core.apply(self.now, event, &mut actions);
        for action in actions {
            match action {
                Action::Persist(record) => self.unflushed.push(record),
                Action::Command { command: HostCommand::Assign { frames, .. }, .. } => self.frames.extend(frames),
                Action::Reply { reply: partita_core::Reply::Refused(refusal), .. } => bail!("refused: {refusal}"),
                _ => {}
            }
        }
        self.write()
    }

    fn write(&mut self) -> anyhow::Result<()> {
        if self.unflushed.is_empty() {
            return Ok(());
        }
        self.journal.append(&self.unflushed)?;
        if self.unflushed.iter().any(Record::durable_before_visible) {
            self.journal.flush()?;
        }
        self.unflushed.clear();
        Ok(())
    }

    /// Submits a job of so many arrays with so many tasks each.
    fn submit(&mut self, arrays: u32, tasks: u32) -> anyhow::Result<()> {
        let tenant = self.core.tenant(&self.tenant).context("the tenant was not taken")?;
        let source = || ArraySource::Function { module: MODULE, function: "noop".to_owned() };
        let arrays = (0..arrays).map(|_| array("noop", source(), TaskCount::Fixed(tasks), Vec::new())).collect();
        self.requests += 1;
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.requests.to_le_bytes());
        let spec = JobSpec { name: "bench".to_owned(), arrays, open: false, deadline: None };
        let what = Request::Submit { tenant, key: IdempotencyKey(key), spec };
        self.apply(Event::Requested { request: RequestId(self.requests), what })
    }
}

const MODULE: ModuleId = ModuleId([7; 32]);

/// From the start of the replay until a host gets work again.
fn recovery(arrays: u32) -> anyhow::Result<f64> {
    let directory = tempfile::tempdir().context("no temporary directory")?;
    let mut before = Pair::new(directory.path())?;
    before.attach()?;
    before.submit(arrays, PENDING / arrays)?;
    drop(before);
    let watch = Stopwatch::start();
    let mut after = Pair::open(directory.path())?;
    after.attach()?;
    let milliseconds = watch.seconds() * 1e3;
    if after.frames.is_empty() {
        bail!("the host got no work after the restart");
    }
    Ok(milliseconds)
}

/// Tasks per second that a host completes and that are in the journal.
fn completions() -> anyhow::Result<f64> {
    let directory = tempfile::tempdir().context("no temporary directory")?;
    let mut pair = Pair::new(directory.path())?;
    pair.attach()?;
    pair.submit(1, COMPLETED)?;
    let watch = Stopwatch::start();
    let (mut done, mut flushed) = (0, Duration::ZERO);
    while let Some(frame) = pair.frames.pop() {
        done += frame.indexes.len();
        pair.now = pair.now.after(Duration::from_micros(1));
        let message = HostMessage::Report(report(frame));
        pair.apply(Event::FromHost { host: HostId(0), incarnation: Incarnation(1), message })?;
        if watch.elapsed() - flushed >= FLUSH_WITHIN {
            pair.journal.flush()?;
            flushed = watch.elapsed();
        }
    }
    pair.journal.flush()?;
    let seconds = watch.seconds();
    if done != COMPLETED as usize {
        bail!("{done} of {COMPLETED} tasks were handed out");
    }
    Ok(f64::from(COMPLETED) / seconds)
}

/// A host's word that all of a frame succeeded.
pub(crate) fn report(frame: Frame) -> Report {
    let tasks = frame.indexes.len();
    let output = OutputInfo { size: ByteSize(10), hash: ContentHash([3; 32]) };
    let usage = Usage { cpu: CpuTime::from_micros(5), peak_memory: ByteSize::mib(1) };
    let batch = SucceededBatch {
        job: frame.job,
        array: frame.array,
        indexes: frame.indexes,
        attempts: frame.attempts,
        outputs: vec![output; tasks],
        usage: vec![usage; tasks],
        moved_partitions: 0,
        moved_bytes: ByteSize::ZERO,
        reused: 0,
    };
    Report { succeeded: vec![batch], finished_frames: vec![frame.id], ..Report::default() }
}

/// The time that all but one in a hundred submissions of small jobs take until they are on disk.
fn submissions() -> anyhow::Result<f64> {
    let directory = tempfile::tempdir().context("no temporary directory")?;
    let mut pair = Pair::new(directory.path())?;
    let mut times = Vec::with_capacity(SUBMISSIONS);
    for _ in 0..SUBMISSIONS {
        let watch = Stopwatch::start();
        pair.submit(2, 10)?;
        times.push(watch.seconds() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(percentile(&times, 99.0))
}
