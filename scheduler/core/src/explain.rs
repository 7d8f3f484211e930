//! Why tasks are where they are, told by the code that decides. Names nothing of other tenants.

use partita_types::{ArrayIndex, AttemptId, AttemptNumber, ByteSize, HostName, JobId, format_duration};

use crate::Core;
use crate::array::{Array, Input};
use crate::claims::Need;
use crate::job::Job;
use crate::overcommit::Places;
use crate::plan::Hold;
use crate::share::{Excess, Withheld};
use crate::task::{Place, State};
use crate::tenant::Tenant;
use crate::view::Explanation;

/// Most explanations in one answer.
const EXPLANATIONS_MAX: usize = 1_000;
/// Most hosts named in one of them.
const HOSTS_NAMED: usize = 8;

impl Core {
    /// Why tasks of a job that have not ended are where they are: of one array or task, or of all.
    #[must_use]
    pub fn explain(&self, job: JobId, array: Option<ArrayIndex>, index: Option<u32>) -> Vec<Explanation> {
        let mut explanations: Vec<Explanation> = Vec::new();
        let Some(tenant) = self.tenants.get(job.tenant.0 as usize) else { return explanations };
        let Some(job) = tenant.job(job.number) else { return explanations };
        for (position, owner) in (0_u32..).zip(&job.arrays) {
            if array.is_some_and(|array| array.0 != position) || owner.unfinished() == 0 {
                continue;
            }
            let mut ready = self.explain_ready(tenant, job, position, owner.kind.limits.memory.0);
            ready.push_str(&self.explain_patience(tenant, job.id, position, None));
            for task in 0..owner.len() {
                if index.is_some_and(|index| index != task) {
                    continue;
                }
                let Some(mut reason) = self.explain_task(job, position, task, &ready) else { continue };
                if owner.has_history(task) {
                    if owner.tasks[task as usize].state == State::Ready {
                        reason = self.explain_ready(tenant, job, position, owner.memory_of(task));
                        reason.push_str(&self.explain_patience(tenant, job.id, position, Some(task)));
                    }
                    reason.push_str(&explain_history(owner, task));
                }
                let state = owner.tasks[task as usize].state.name();
                let array = ArrayIndex(position);
                let full = explanations.len() == EXPLANATIONS_MAX;
                match explanations.last_mut() {
                    Some(last) if last.array == array && last.state == state && last.reason == reason => {
                        last.count += 1
                    }
                    _ if full => return explanations,
                    _ => explanations.push(Explanation { array, first: task, count: 1, state, reason }),
                }
            }
        }
        explanations
    }

    fn explain_task(&self, job: &Job, array: u32, index: u32, ready: &str) -> Option<String> {
        let task = job.task(array, index);
        match task.state {
            State::Waiting if job.array(array).is_upload() => Some("waits for the client to upload it".to_owned()),
            State::Waiting => Some(self.explain_waiting(job, array, index)),
            State::Delayed => Some(self.explain_delay(job, array, index)),
            State::Ready => Some(ready.to_owned()),
            State::Assigned => {
                let attempts: Vec<String> =
                    job.attempts_at_hosts(array, index).filter_map(|at| self.explain_attempt(at)).collect();
                (!attempts.is_empty()).then(|| attempts.join("; "))
            }
            State::Succeeded | State::Failed | State::Cancelled | State::Aborted => None,
        }
    }

    fn explain_attempt(&self, (slot, number): (u32, AttemptNumber)) -> Option<String> {
        let frame = self.frames.get(slot)?;
        let host = &self.hosts[frame.host.0 as usize];
        let how = if host.is_attached() { "" } else { ", which is detached and may come back" };
        let why = if frame.speculative { " (speculative: an earlier one runs for very long)" } else { "" };
        let rates = self.tenants.get(frame.job.tenant.0 as usize).and_then(|tenant| tenant.rates.as_ref());
        let rate = rates.map(|rates| format!(", where its tenant may use {}", rates.told(host.id)));
        let turns = self.takes_turns(host, frame.job.tenant);
        let turns = if turns { ", where tenants take turns on the cores" } else { "" };
        Some(format!("attempt {number}{why} is at host {}{how}{turns}{}", host.name, rate.unwrap_or_default()))
    }

    fn explain_waiting(&self, job: &Job, array: u32, index: u32) -> String {
        let progress = |source: u32| {
            let owner = job.array(source);
            let (done, all) = (owner.tasks.in_state(State::Succeeded), owner.len());
            format!("waits for array {:?}: {done} of {all} tasks have succeeded", owner.name())
        };
        let closed =
            job.array(array).inputs.iter().filter_map(Input::gate).find(|gate| !job.array(*gate).all_succeeded());
        if let Some(source) = closed {
            return progress(source);
        }
        let mut missing: Vec<u32> = Vec::new();
        job.each_own_read(array, index, &mut |read| {
            if job.task(read.array, read.index).state != State::Succeeded {
                missing.push(read.array);
            }
        });
        missing.first().map_or_else(|| "waits for its inputs".to_owned(), |source| progress(*source))
    }

    fn explain_delay(&self, job: &Job, array: u32, index: u32) -> String {
        let task = job.task(array, index);
        let number = AttemptNumber::from_wire(task.attempt);
        let attempt = number.map(|number| AttemptId { task: job.task_id(array, index), number });
        let left = attempt.and_then(|attempt| self.timers.wakes_at(attempt)).map(|at| at.since(self.now));
        let left = left.map_or_else(String::new, |left| format!(" in {}", format_duration(left)));
        let number = number.map_or_else(String::new, |number| format!(" {number}"));
        format!("attempt{number} failed; the next may start{left}")
    }

    /// Why ready tasks of an array that need so much memory are not handed out. The same for all of them.
    fn explain_ready(&self, tenant: &Tenant, job: &Job, position: u32, memory: u64) -> String {
        let array = job.array(position);
        if job.is_blocked(position) {
            return self.explain_away(job, array);
        }
        if self.known_hosts.are_awaited() {
            let names: Vec<&str> = self.known_hosts.awaited().take(HOSTS_NAMED).map(HostName::as_str).collect();
            return format!("the scheduler was restarted, and waits for hosts to come back: {}", names.join(", "));
        }
        let key = (job.id.number, position);
        match self.candidates(tenant, array, key, memory, &self.standing(tenant), Places::Usual) {
            Err(hold @ Hold::Busy { .. }) => {
                let (place, all) = self.place_in_order(tenant);
                format!(
                    "{}; its place is {place} of {all} tenants with tasks that are ready{}",
                    explain_hold(&hold, tenant),
                    self.explain_turns(tenant, &Need::of(tenant, array, memory))
                )
            }
            Err(hold) => explain_hold(&hold, tenant),
            Ok(_) => {
                "other arrays of the tenant, of higher priority, deeper in their jobs or older, go first".to_owned()
            }
        }
    }

    /// What becomes of tasks that no host could run.
    fn explain_patience(&self, tenant: &Tenant, job: JobId, array: u32, task: Option<u32>) -> String {
        let left = self.unrunnable_for(tenant, job, array, task);
        left.map_or_else(String::new, |left| format!("; the job fails in {} if that stays so", format_duration(left)))
    }

    fn explain_away(&self, job: &Job, array: &Array) -> String {
        let mut detached = array.sources.iter().flat_map(|source| job.array(*source).located()).map(|(host, _)| host);
        if let Some(host) = detached.find(|host| self.hosts[host.0 as usize].is_detached()) {
            let name = &self.hosts[host.0 as usize].name;
            return format!(
                "inputs are at host {name}, which is detached; they are rebuilt if it does not come back soon"
            );
        }
        let unknown = array
            .sources
            .iter()
            .map(|source| job.array(*source).tasks.iter().filter(|task| task.place() == Place::Unknown).count());
        let unknown: usize = unknown.sum();
        format!(
            "the scheduler was restarted, and waits for hosts that have the outputs of {unknown} tasks that it reads"
        )
    }
}

/// What an earlier attempt changed for a task.
fn explain_history(array: &Array, index: u32) -> String {
    let mut text = String::new();
    let memory = array.memory_of(index);
    if memory != array.kind.limits.memory.0 {
        let (now, first) = (ByteSize(memory), array.kind.limits.memory);
        text.push_str(&format!("; it has {now} of memory instead of {first}, because it ran out of that"));
    }
    if !array.crashed_at(index).is_empty() {
        let hosts: Vec<&str> = array.crashed_at(index).iter().map(HostName::as_str).collect();
        text.push_str(&format!("; it killed executors at hosts {}", hosts.join(", ")));
    }
    text
}

fn explain_excess(excess: &Excess) -> String {
    match excess {
        Excess::Cpu { used, limit } => format!("{used} of {limit}"),
        Excess::Memory { used, limit } => format!("{used} of {limit} of memory"),
        Excess::Stored { used, limit } => format!("{used} of {limit} of stored partitions"),
    }
}

pub(crate) fn explain_hold(hold: &Hold, tenant: &Tenant) -> String {
    let name = &tenant.name;
    match hold {
        Hold::NoPolicy => format!("no policy of tenant {name} was read since the scheduler started"),
        Hold::ConcurrentTasks { limit } => {
            format!("tenant {name} runs as many tasks at once as its limit concurrent_tasks allows: {limit}")
        }
        Hold::Cpu { limit } => {
            format!(
                "tenant {name} runs as many tasks at once as its limit cpu allows, one for each core or part of one: \
                 {limit}"
            )
        }
        Hold::ConcurrentMemory { needed, used, limit } => format!(
            "each needs {} of memory, and tenant {name} uses {} of its limit concurrent_memory, {}",
            ByteSize(*needed),
            ByteSize(*used),
            ByteSize(*limit)
        ),
        Hold::Stored { used, limit } => format!(
            "tenant {name} keeps {} of partitions, and its limit is {}; release jobs that have ended",
            ByteSize(*used),
            ByteSize(*limit)
        ),
        Hold::NoHost => "no host is attached".to_owned(),
        Hold::Draining => "every attached host that could run it is being drained and takes no more work".to_owned(),
        Hold::TooWeak { wanted } => {
            format!("the policy of tenant {name} wants isolation {}, and no attached host has it", wanted.as_str())
        }
        Hold::TooLarge { needed, largest } => format!(
            "each needs {} of memory, and the largest attached host has {}",
            ByteSize(*needed),
            ByteSize(*largest)
        ),
        Hold::Share(Withheld::Borrowing(excess)) => format!(
            "tenant {name} would use {}, which is its guarantee with what it may borrow, in whole cores",
            explain_excess(excess)
        ),
        Hold::Share(Withheld::Kept(excess)) => format!(
            "the tasks of all tenants would use {}; the rest is kept free for guarantees that are not lent",
            explain_excess(excess)
        ),
        Hold::LiveBytes { adds, live, target } => format!(
            "live bytes: its outputs would add about {} to {} that are alive or expected at the hosts with room, \
             of which {} are to be used; tasks that read them go first",
            ByteSize(*adds),
            ByteSize(*live),
            ByteSize(*target)
        ),
        Hold::Unlabelled { labels } => format!("wants a host with label {labels}, and no attached host has it"),
        Hold::TooScarce { resource, needed, largest } if largest >= needed => {
            format!("wants {needed} of {resource} with other resources, and no attached host has all of them")
        }
        Hold::TooScarce { resource, needed, largest } => {
            format!("wants {needed} of {resource}, and the most that an attached host with its labels has is {largest}")
        }
        Hold::Busy { reclaimed: 1.., own, .. } => format!(
            "tenant {name} has {own} frames running, less than its guarantee; what others use of that is being \
             taken back"
        ),
        Hold::Busy { hosts, slots, own, .. } => format!(
            "fair share: the {slots} places for frames at {hosts} hosts, or their memory or resources, are taken; \
             tenant {name} has {own} frames running"
        ),
    }
}
