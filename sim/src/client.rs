//! Clients of the simulation: each submits one job, repeats itself when it hears nothing, watches, and may extend, cancel
//! and release. Where a watcher stands and how long a client waits is decided by the code of real clients.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use partita_client_logic::{Backoff, Cursor, RetryPolicy, Verdict};
use partita_core::{IdempotencyKey, JobEvent, Refusal, Reply, Request, Violation};
use partita_testkit::{MODULE, Reference, uploaded};
use partita_types::{ArrayIndex, ArraySpec, ByteSize, DatasetName, JobId, TaskId, TenantId};

use crate::guest::Fate;
use crate::plan::{ArrayPlan, DATASETS, FeaturePlan, JobPlan};
use crate::plant::Plant;
use crate::world::{Step, World};
use crate::{Checked, ensure};

/// How long a client waits for an answer.
const PATIENCE: u64 = 2_000_000;
/// After a refusal that will pass.
const LATER: u64 = 2_000_000;
/// Between two questions of a watcher for more.
const POLL: u64 = 150_000;
/// Most events in one answer.
const EVENTS: u64 = 40;
/// A client never gives up for good: the simulation heals.
const POLICY: RetryPolicy =
    RetryPolicy { attempts: u32::MAX, first_wait: Duration::from_millis(100), longest_wait: Duration::from_secs(1) };

/// Something that a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wish {
    Submit,
    /// The arrays from the first position to before the second.
    Extend(usize, usize),
    Upload(u32, u32),
    Close,
    Cancel,
    Release,
    /// Push the module again, which was quarantined.
    Push,
}

/// A client with one job.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) tenant: TenantId,
    plan: JobPlan,
    pub(crate) reference: Reference,
    /// Known once the submission was acknowledged.
    pub(crate) job: Option<JobId>,
    pub(crate) poisoned: bool,
    /// Whether it wants its job cancelled.
    pub(crate) cancels: bool,
    /// Whether it is stopped if it takes too long.
    pub(crate) expires: bool,
    pub(crate) released: bool,
    position: usize,
    wishes: VecDeque<(u64, Wish)>,
    /// What it waits for.
    asked: Option<u64>,
    backoff: Backoff,
    cursor: Cursor,
    pub(crate) seen: Vec<JobEvent>,
    /// Which of its watches counts.
    watch: u64,
    watches: bool,
}

impl Client {
    pub(crate) fn new(position: usize, plan: &JobPlan, start: u64) -> Self {
        let dataset = |(name, splits): &(&str, u32)| DatasetName::new(name).ok().map(|name| (name, *splits));
        let datasets: BTreeMap<DatasetName, u32> = DATASETS.iter().filter_map(dataset).collect();
        let reference = Reference::with_datasets(&plan.whole(), datasets);
        Self {
            tenant: TenantId(plan.tenant as u32),
            poisoned: plan.arrays.iter().any(|array| array.poison || array.crashes),
            cancels: plan.cancelled.is_some(),
            expires: plan.deadline.is_some(),
            wishes: wishes(plan, &reference, start),
            plan: plan.clone(),
            reference,
            job: None,
            released: false,
            position,
            asked: None,
            backoff: Backoff::new(POLICY),
            cursor: Cursor::new(0),
            seen: Vec::new(),
            watch: 0,
            watches: false,
        }
    }

    /// When it wants to do something next.
    pub(crate) fn next_time(&self) -> Option<u64> {
        self.wishes.front().map(|(at, _)| *at)
    }

    /// Whether it has all that it wants.
    pub(crate) fn is_done(&self) -> bool {
        self.wishes.is_empty()
    }

    /// What a task does whatever happens.
    pub(crate) fn fate(&self, task: TaskId) -> Fate {
        match self.plan.arrays.get(task.array.0 as usize) {
            Some(array) if array.poison && task.index == 0 => Fate::Poisoned,
            Some(array) if array.crashes && task.index == 0 => Fate::Crashes,
            _ => Fate::Sound,
        }
    }

    /// Whether the outputs of an array stay.
    pub(crate) fn keeps(&self, array: usize) -> bool {
        self.plan.arrays[array].keep
    }

    /// What tasks of an array need of their hosts.
    pub(crate) fn host_of(&self, array: ArrayIndex) -> &FeaturePlan {
        &self.plan.arrays[array.0 as usize].host
    }

    /// How an array was planned.
    pub(crate) fn planned(&self, array: ArrayIndex) -> Option<&ArrayPlan> {
        self.plan.arrays.get(array.0 as usize)
    }

    /// Whether a task of an array gives bytes up when it has read them: what it reads is neither kept nor uploaded.
    pub(crate) fn gives_up(&self, array: ArrayIndex) -> bool {
        let sources = self.plan.arrays[array.0 as usize].inputs.iter().flat_map(crate::plan::EdgePlan::sources);
        sources.into_iter().any(|source| !self.plan.arrays[source as usize].keep)
    }

    /// Priority of an array, and bytes of memory of its tasks.
    pub(crate) fn array(&self, array: ArrayIndex) -> (i32, u64) {
        let plan = &self.plan.arrays[array.0 as usize];
        (plan.priority, plan.memory << 20)
    }

    /// Whether any host with this much memory can run an array of a higher priority: it reads nothing, and needs no more.
    pub(crate) fn runs_anywhere_with(&self, array: ArrayIndex, priority: i32, memory: u64) -> bool {
        let plan = &self.plan.arrays[array.0 as usize];
        let plain = plan.inputs.is_empty() && plan.host.is_empty() && !plan.upload;
        plain && plan.priority > priority && plan.memory << 20 <= memory
    }

    /// Whether tasks of an array take what others have computed.
    pub(crate) fn memoises(&self, array: ArrayIndex) -> bool {
        self.plan.arrays.get(array.0 as usize).is_some_and(|array| array.memoise)
    }

    /// Whether each task of an array takes seconds.
    pub(crate) fn is_long(&self, array: ArrayIndex) -> bool {
        self.plan.arrays.get(array.0 as usize).is_some_and(|array| array.long)
    }

    /// How much memory a task needs, in MiB.
    pub(crate) fn needs(&self, task: TaskId) -> Option<u64> {
        self.plan.arrays.get(task.array.0 as usize)?.needs
    }

    /// How many arrays it has in all.
    pub(crate) fn arrays(&self) -> usize {
        self.plan.arrays.len()
    }

    /// Whether something of it is uploaded.
    pub(crate) fn uploads(&self) -> bool {
        self.plan.arrays.iter().any(|array| array.upload)
    }

    /// Whether its job failed because an upload was lost with its host: nobody can compute that again.
    pub(crate) fn lost_upload(&self, view: &partita_core::JobView) -> bool {
        view.failure.as_ref().is_some_and(|(task, ..)| self.plan.arrays[task.array.0 as usize].upload)
    }

    /// What it wants next, if that is answered with nothing but yes or no.
    pub(crate) fn wished(&self) -> Option<&'static str> {
        match self.wishes.front()?.1 {
            Wish::Cancel => Some("cancel"),
            Wish::Close => Some("close"),
            Wish::Release => Some("release"),
            Wish::Submit | Wish::Extend(..) | Wish::Upload(..) | Wish::Push => None,
        }
    }

    /// Names the submission with this number.
    fn key(&self, number: usize) -> IdempotencyKey {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&(self.position as u64).to_le_bytes());
        key[8..].copy_from_slice(&(number as u64).to_le_bytes());
        IdempotencyKey(key)
    }

    fn request(&self, wish: &Wish) -> Option<Request> {
        if *wish == Wish::Submit {
            return Some(Request::Submit { tenant: self.tenant, key: self.key(0), spec: self.plan.spec() });
        }
        if *wish == Wish::Push {
            let (name, size) = ("m".to_owned(), ByteSize(1));
            return Some(Request::AddModule { tenant: self.tenant, module: MODULE, name, size });
        }
        let job = self.job?;
        Some(match wish {
            Wish::Submit | Wish::Push => return None,
            Wish::Extend(first, end) => {
                let arrays: Vec<ArraySpec> =
                    self.plan.arrays[*first..*end].iter().map(crate::ArrayPlan::spec).collect();
                Request::Extend { job, key: self.key(*end), arrays }
            }
            Wish::Upload(array, index) => {
                let task = TaskId { job, array: ArrayIndex(*array), index: *index };
                Request::Upload { task, size: uploaded(*array, *index).size }
            }
            Wish::Close => Request::Close(job),
            Wish::Cancel => Request::Cancel(job),
            Wish::Release => Request::Release(job),
        })
    }
}

fn wishes(plan: &JobPlan, reference: &Reference, start: u64) -> VecDeque<(u64, Wish)> {
    let at = |millis: u64| start + millis * 1_000;
    let mut wishes = vec![(at(plan.submitted), Wish::Submit)];
    let uploads = |wishes: &mut Vec<(u64, Wish)>, range: std::ops::Range<usize>, from: u64| {
        for array in range.filter(|array| plan.arrays[*array].upload) {
            let array = array as u32;
            wishes.extend((0..reference.tasks(array)).map(|index| (at(from + 100), Wish::Upload(array, index))));
        }
    };
    let first = plan.arrays.iter().position(|array| array.added.is_some()).unwrap_or(plan.arrays.len());
    uploads(&mut wishes, 0..first, plan.submitted);
    for (added, range) in plan.extensions() {
        wishes.push((at(added), Wish::Extend(range.start, range.end)));
        uploads(&mut wishes, range, added);
    }
    wishes.extend(plan.closed.map(|closed| (at(closed), Wish::Close)));
    wishes.extend(plan.cancelled.map(|cancelled| (at(cancelled), Wish::Cancel)));
    wishes.extend(plan.released.map(|released| (at(released), Wish::Release)));
    // What belongs together keeps its order; a cancellation may come in between.
    wishes.sort_by_key(|(at, wish)| (*wish == Wish::Release, *at));
    wishes.into()
}

/// What an answer means for the wish that it answers.
enum Next {
    /// It is fulfilled, or never will be.
    Done,
    /// Ask again after so long.
    Again(u64),
    /// Push the module first.
    PushFirst,
}

impl World {
    pub(crate) fn client_of(&self, job: JobId) -> Option<&Client> {
        self.clients.get(*self.history.ledger.jobs.get(&job)?)
    }

    /// What a task does whatever happens.
    pub(crate) fn fate(&self, task: TaskId) -> Fate {
        self.client_of(task.job).map_or(Fate::Sound, |client| client.fate(task))
    }

    /// A client asks for what it wants next.
    pub(crate) fn act(&mut self, position: usize) {
        let serial = self.next_serial();
        let client = &mut self.clients[position];
        let Some((at, wish)) = client.wishes.front().cloned() else { return };
        if client.asked.is_some() || at > self.now {
            return;
        }
        let Some(what) = client.request(&wish) else { return };
        client.asked = Some(serial);
        if self.healed || !self.random.network.chance(self.plan.lost_messages) {
            let wait = self.delay();
            self.plan_step(wait, Step::Asked { client: position, serial, what });
        }
        self.plan_step(PATIENCE, Step::GivesUp { client: position, serial });
    }

    /// No answer came: ask again.
    pub(crate) fn on_gives_up(&mut self, position: usize, serial: u64) -> Checked {
        if self.clients.get(position).is_none_or(|client| client.asked != Some(serial)) {
            return Ok(());
        }
        let spread = self.random.clients.number();
        let client = &mut self.clients[position];
        client.asked = None;
        let wait = client.backoff.next(spread).unwrap_or_default().as_micros() as u64;
        self.plan_step(wait, Step::ClientActs { client: position });
        self.abandon(position, serial)
    }

    pub(crate) fn on_answered(&mut self, position: usize, serial: u64, reply: Reply) -> Checked {
        let Some(client) = self.clients.get_mut(position) else {
            self.history.answers.insert(serial, reply);
            return Ok(());
        };
        if client.asked != Some(serial) {
            return Ok(());
        }
        client.asked = None;
        client.backoff.reset();
        let Some((_, wish)) = client.wishes.front().cloned() else { return Ok(()) };
        let next = self.judge(position, &wish, reply)?;
        let client = &mut self.clients[position];
        match next {
            Next::Done => {
                client.wishes.pop_front();
            }
            Next::Again(wait) => client.wishes[0].0 = self.now + wait,
            Next::PushFirst => client.wishes.push_front((self.now + LATER, Wish::Push)),
        }
        if let Some(at) = client.next_time() {
            self.plan_step(at.saturating_sub(self.now), Step::ClientActs { client: position });
        }
        Ok(())
    }

    fn judge(&mut self, position: usize, wish: &Wish, reply: Reply) -> Result<Next, Violation> {
        let unexpected = |detail: String| Violation { invariant: "a_request_gets_a_fitting_answer", detail };
        match (wish, reply) {
            (Wish::Submit, Reply::Accepted { job, .. }) => {
                let client = &mut self.clients[position];
                let same = client.job.is_none_or(|known| known == job);
                client.job = Some(job);
                ensure(same, "the_same_key_gives_the_same_job", || format!("job {job}"))?;
                self.begin_to_watch(position);
                Ok(Next::Done)
            }
            (Wish::Upload(array, index), Reply::UploadTo { host, partition }) => {
                if let Some(to) = self.scheduler.position_of(host) {
                    let (process, info) = (self.hosts[to].process, uploaded(*array, *index));
                    let wait = self.delay() + self.delay();
                    self.plan_step(wait, Step::Upload { host: to, process, partition, info });
                }
                // The answer comes as a refusal: it is complete already.
                Ok(Next::Again(LATER))
            }
            (Wish::Release, Reply::Done) => {
                self.clients[position].released = true;
                Ok(Next::Done)
            }
            (_, Reply::Accepted { .. } | Reply::Done) => Ok(Next::Done),
            (Wish::Push, Reply::ModuleAdded) => Ok(Next::Done),
            // A quota may have room later; a host may come back; a dataset may be listed.
            (Wish::Submit | Wish::Extend(..) | Wish::Upload(..), Reply::Refused(refusal)) => match refusal {
                Refusal::State { .. } => Ok(Next::Done),
                Refusal::Quota { .. } | Refusal::NoHost { .. } | Refusal::Dataset { .. } => Ok(Next::Again(LATER)),
                Refusal::Quarantined { .. } => {
                    self.a_refusal_for_quarantine_is_true(position)?;
                    Ok(Next::PushFirst)
                }
                // Of an array that was refused, or a job that was released.
                Refusal::NotFound { .. } if matches!(wish, Wish::Upload(..)) => Ok(Next::Done),
                Refusal::NotFound { .. } if self.clients[position].released || self.was_released(position) => {
                    Ok(Next::Done)
                }
                other => Err(unexpected(format!("{wish:?}: {other}"))),
            },
            (Wish::Release, Reply::Refused(Refusal::State { .. })) => Ok(Next::Again(LATER)),
            // An earlier answer was lost.
            (Wish::Release, Reply::Refused(Refusal::NotFound { .. })) => {
                self.clients[position].released = true;
                Ok(Next::Done)
            }
            (_, Reply::Refused(Refusal::State { .. })) => Ok(Next::Done),
            (_, Reply::Refused(Refusal::NotFound { .. })) if self.was_released(position) => Ok(Next::Done),
            (_, other) => Err(unexpected(format!("{wish:?}: {other:?}"))),
        }
    }

    /// Whether the job of a client was given up, by whomever.
    fn was_released(&self, position: usize) -> bool {
        self.clients[position].job.is_some_and(|job| self.history.ledger.released.contains(&job))
    }

    fn begin_to_watch(&mut self, position: usize) {
        let watch = self.next_serial();
        let client = &mut self.clients[position];
        (client.watch, client.watches) = (watch, true);
        self.plan_step(0, Step::Poll { client: position, watch });
    }

    /// The client's process dies and starts again; what it had seen, it had written down.
    pub(crate) fn restart_client(&mut self, position: usize) {
        let client = &mut self.clients[position];
        client.asked = None;
        client.cursor = Cursor::new(client.seen.len() as u64);
        if self.plant == Some(Plant::WatchOffByOne) && !client.seen.is_empty() {
            client.cursor = Cursor::new(client.seen.len() as u64 + 1);
        }
        self.plan_step(1_000, Step::ClientActs { client: position });
        if self.clients[position].watches {
            self.begin_to_watch(position);
        }
    }

    /// A watcher asks for the events from where it stands.
    pub(crate) fn on_poll(&mut self, position: usize, watch: u64) {
        let client = &self.clients[position];
        let (next, released) = (client.cursor.next(), client.released);
        let Some(job) = client.job.filter(|_| client.watch == watch && !released) else { return };
        self.plan_step(POLL, Step::Poll { client: position, watch });
        if !self.scheduler.is_up() {
            return;
        }
        // A stream that was cut may have begun before what its reader wants now.
        let overlap = if self.random.network.chance(20) { self.random.network.below(4) } else { 0 };
        let first = next.saturating_sub(overlap);
        let most = self.random.network.between(1, EVENTS) as usize;
        let visible = self.scheduler.hub.visible(job);
        let events: Vec<JobEvent> = visible.iter().skip(first as usize).take(most).cloned().collect();
        let copies = if !self.healed && self.random.network.chance(5) { 2 } else { 1 };
        for _ in 0..copies {
            let wait = self.delay();
            self.plan_step(wait, Step::Shown { client: position, watch, first, events: events.clone() });
        }
    }

    pub(crate) fn on_shown(&mut self, position: usize, watch: u64, first: u64, events: Vec<JobEvent>) -> Checked {
        let client = &mut self.clients[position];
        if client.watch != watch {
            return Ok(());
        }
        for (sequence, event) in (first..).zip(events) {
            match client.cursor.accept(sequence) {
                Verdict::New => client.seen.push(event),
                Verdict::Repeated => {}
                Verdict::Gap => break,
            }
        }
        self.check_watcher(position)
    }
}
