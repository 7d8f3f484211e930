//! What happens in one simulation, before it happens: the cluster, the jobs, the faults. Plain data that can be saved, cut
//! down and run again; what is left out of a saved plan has its default, so that old plans stay readable.

mod features;

use std::time::Duration;

use partita_policy::TenantPolicy;
use partita_testkit::{MODULE, array, policy};
use partita_types::{
    Arguments, ArrayIndex, ArraySource, ArraySpec, ByteSize, DatasetName, Edge, JobSpec, MilliCpu, OutputRef, TaskCount,
};
use serde::{Deserialize, Serialize};

pub use features::{Change, FeaturePlan};

/// Datasets that every tenant may read, with their splits.
pub(crate) const DATASETS: [(&str, u32); 2] = [("few", 3), ("many", 9)];
/// How long faults go on.
pub(crate) const TROUBLE: Duration = Duration::from_secs(60);

/// A whole simulation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// Of every random number that the plan itself does not fix: delays, run times, what a crash leaves of the disk.
    pub seed: u64,
    /// Check every invariant after so many events; 0 counts as 1.
    pub check_every: u64,
    /// Of 100 attempts so many go wrong by themselves.
    pub guest_faults: u64,
    /// Of 100 messages between clients and scheduler so many are lost.
    pub lost_messages: u64,
    /// Of 100 messages so many are late.
    pub late_messages: u64,
    /// By number.
    pub tenants: Vec<TenantPlan>,
    /// By position.
    pub hosts: Vec<HostPlan>,
    /// By position.
    pub jobs: Vec<JobPlan>,
    /// In any order.
    pub faults: Vec<Fault>,
    /// Policies that change, in any order.
    pub changes: Vec<Change>,
}

/// A tenant and its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TenantPlan {
    /// Its share.
    pub weight: u32,
    /// Frames at once.
    pub concurrent_tasks: u32,
    /// Memory at once, in MiB.
    pub concurrent_memory: u64,
    /// Unfinished tasks.
    pub queued_tasks: u64,
    /// Unfinished jobs.
    pub running_jobs: u32,
    /// What it has for certain, in thousandths of a core.
    pub guaranteed: u64,
    /// What it may borrow beyond that at most, in thousandths of a core.
    pub borrow: Option<u64>,
    /// What it lends of it at most, in thousandths of a core.
    pub lend: Option<u64>,
    /// Of which cohort it is, if not of the common one.
    pub cohort: Option<u32>,
    /// How long results are kept after the end of a job, in milliseconds; for ever, if not given.
    pub retention: Option<u64>,
    /// How long a task may wait that no host could run, in milliseconds.
    pub unrunnable_after: Option<u64>,
    /// CPU of all its tasks together, in thousandths of a core; without bound, if not given.
    pub cpu: Option<u64>,
}

impl Default for TenantPlan {
    fn default() -> Self {
        Self {
            weight: 1,
            concurrent_tasks: 4,
            concurrent_memory: 64 << 10,
            queued_tasks: 500,
            running_jobs: 10,
            guaranteed: 0,
            borrow: None,
            lend: None,
            cohort: None,
            retention: None,
            unrunnable_after: None,
            cpu: None,
        }
    }
}

impl TenantPlan {
    /// The policy of the tenant with this number.
    pub(crate) fn policy(&self, number: usize) -> TenantPolicy {
        let mut policy = policy(&tenant_name(number));
        policy.quota.weight = self.weight;
        policy.quota.concurrent_tasks = self.concurrent_tasks;
        policy.quota.concurrent_memory = ByteSize::mib(self.concurrent_memory);
        policy.quota.queued_tasks = self.queued_tasks;
        policy.quota.running_jobs = self.running_jobs;
        policy.quota.cpu = self.cpu.map_or(policy.quota.cpu, MilliCpu);
        policy.share.guaranteed.cpu = MilliCpu(self.guaranteed);
        policy.share.borrow.cpu = self.borrow.map(MilliCpu);
        policy.share.lend.cpu = self.lend.map(MilliCpu);
        policy.retention = self.retention.map(Duration::from_millis);
        policy.unrunnable_after = self.unrunnable_after.map_or(policy.unrunnable_after, Duration::from_millis);
        policy.share.cohort = self.cohort.and_then(|cohort| format!("cohort-{cohort}").parse().ok());
        let grant = |(name, _): &(&str, u32)| {
            DatasetName::new(name).ok().map(|name| partita_types::DatasetGrant {
                name,
                location: "somewhere".to_owned(),
                include: Vec::new(),
            })
        };
        policy.datasets = DATASETS.iter().filter_map(grant).collect();
        policy
    }
}

pub(crate) fn tenant_name(number: usize) -> String {
    format!("tenant-{number}")
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostPlan {
    /// Its cores.
    pub cores: u32,
    /// Its memory for guests, in MiB.
    pub memory: u64,
    /// When it first attaches, in milliseconds.
    pub joins: u64,
    /// What it has beyond its size.
    pub features: FeaturePlan,
    /// Everything takes so many times longer there, until all has healed; 0 counts as 1.
    pub slow: u64,
    /// Its room for partitions, in bytes; plenty, if not given.
    pub partitions: Option<u64>,
}

impl Default for HostPlan {
    fn default() -> Self {
        Self { cores: 1, memory: 1024, joins: 0, features: FeaturePlan::default(), slow: 1, partitions: None }
    }
}

/// A job, and what its client does with it. Times are in milliseconds from the start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct JobPlan {
    /// The number of the tenant.
    pub tenant: usize,
    /// When it is submitted.
    pub submitted: u64,
    /// Its arrays, each after those that it reads from.
    pub arrays: Vec<ArrayPlan>,
    /// If it is open: when it is closed.
    pub closed: Option<u64>,
    /// When it is cancelled, if it is.
    pub cancelled: Option<u64>,
    /// How long after its submission it is stopped, if it has not ended.
    pub deadline: Option<u64>,
    /// When its client begins to ask for its release; only in the end, if not given.
    pub released: Option<u64>,
}

/// An array of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArrayPlan {
    /// How many tasks; what its inputs say, if not given.
    pub tasks: Option<u32>,
    /// Outputs of each.
    pub outputs: u32,
    /// What it reads.
    pub inputs: Vec<EdgePlan>,
    /// Uploaded by the client.
    pub upload: bool,
    /// Kept after the end.
    pub keep: bool,
    /// Above others of the tenant.
    pub priority: i32,
    /// Memory of a task, in MiB.
    pub memory: u64,
    /// Memory that its tasks run out of below, in MiB: they need this much.
    pub needs: Option<u64>,
    /// An argument for each task.
    pub own_arguments: bool,
    /// Whether some of its tasks fail whatever happens.
    pub poison: bool,
    /// Whether its tasks may have second attempts.
    pub speculate: bool,
    /// When it is added to its job, if not with the submission. Times of later arrays are not before those of earlier ones.
    pub added: Option<u64>,
    /// Whether its first task kills its executor, each time.
    pub crashes: bool,
    /// Whether its tasks take outputs of earlier ones that did the same.
    pub memoise: bool,
    /// Whether each of its tasks takes seconds.
    pub long: bool,
    /// What its tasks need of a host.
    pub host: FeaturePlan,
    /// How long an attempt may take, in milliseconds, if not as long as others.
    pub wall: Option<u64>,
}

impl Default for ArrayPlan {
    fn default() -> Self {
        Self {
            tasks: None,
            outputs: 1,
            inputs: Vec::new(),
            upload: false,
            keep: false,
            priority: 0,
            memory: 64,
            needs: None,
            own_arguments: false,
            poison: false,
            speculate: true,
            added: None,
            crashes: false,
            memoise: false,
            long: false,
            host: FeaturePlan::default(),
            wall: None,
        }
    }
}

/// What an array reads. Arrays are named by their position in the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EdgePlan {
    /// Task i reads one output of task i.
    Each {
        /// Of this array.
        array: u32,
        /// Which output.
        output: u32,
    },
    /// Every task reads one output of every task.
    All {
        /// Of this array.
        array: u32,
        /// Which output.
        output: u32,
    },
    /// Task i reads output i of every task.
    Slice {
        /// Of this array.
        array: u32,
    },
    /// A tree.
    Fold {
        /// Over this array.
        array: u32,
        /// Inputs of a task.
        arity: u32,
    },
    /// For each task array, task and output of what it reads.
    List(Vec<Vec<(u32, u32, u32)>>),
    /// Task i reads split i of one of the datasets that every tenant has.
    Dataset(usize),
    /// So many values: one for all, or one per task.
    Literal(u32),
}

impl EdgePlan {
    /// The arrays that it reads.
    pub(crate) fn sources(&self) -> Vec<u32> {
        match self {
            Self::Each { array, .. } | Self::All { array, .. } | Self::Slice { array } | Self::Fold { array, .. } => {
                vec![*array]
            }
            Self::List(tasks) => tasks.iter().flatten().map(|(array, _, _)| *array).collect(),
            Self::Dataset(_) | Self::Literal(_) => Vec::new(),
        }
    }

    /// The same with other positions.
    pub(crate) fn renumbered(&self, number: &impl Fn(u32) -> u32) -> Self {
        let mut edge = self.clone();
        match &mut edge {
            Self::Each { array, .. } | Self::All { array, .. } | Self::Slice { array } | Self::Fold { array, .. } => {
                *array = number(*array);
            }
            Self::List(tasks) => tasks.iter_mut().flatten().for_each(|read| read.0 = number(read.0)),
            Self::Dataset(_) | Self::Literal(_) => {}
        }
        edge
    }

    fn edge(&self) -> Edge {
        match self {
            Self::Each { array, output } => Edge::Each { array: ArrayIndex(*array), output: *output },
            Self::All { array, output } => Edge::All { array: ArrayIndex(*array), output: *output },
            Self::Slice { array } => Edge::Slice { array: ArrayIndex(*array) },
            Self::Fold { array, arity } => Edge::Fold { array: ArrayIndex(*array), arity: *arity },
            Self::List(tasks) => {
                let read = |(array, index, output): &(u32, u32, u32)| OutputRef {
                    array: ArrayIndex(*array),
                    index: *index,
                    output: *output,
                };
                Edge::List { tasks: tasks.iter().map(|task| task.iter().map(read).collect()).collect() }
            }
            Self::Dataset(number) => partita_testkit::dataset(DATASETS[number % DATASETS.len()].0),
            Self::Literal(values) => Edge::Literal { values: (0..*values).map(|value| vec![7, value as u8]).collect() },
        }
    }
}

impl ArrayPlan {
    /// How long an attempt may take.
    pub(crate) fn wall_time(&self) -> Duration {
        self.wall.map_or(crate::guest::WALL_TIME, Duration::from_millis)
    }

    /// As it is submitted.
    pub(crate) fn spec(&self) -> ArraySpec {
        let mut spec = array(if self.poison { "poison" } else { "array" }).outputs(self.outputs).spec();
        spec.source = match self.upload {
            true => ArraySource::Upload,
            false => ArraySource::Function { module: MODULE, function: "work".to_owned() },
        };
        spec.tasks = self.tasks.map_or(TaskCount::FromInputs, TaskCount::Fixed);
        spec.inputs = self.inputs.iter().map(EdgePlan::edge).collect();
        if let (true, Some(tasks)) = (self.own_arguments, self.tasks) {
            spec.arguments = Arguments::PerTask((0..tasks).map(|index| index.to_le_bytes().to_vec()).collect());
        }
        spec.options.retries = crate::guest::RETRIES;
        spec.options.backoff = Duration::from_millis(10);
        spec.options.priority = self.priority;
        spec.options.keep = self.keep;
        spec.options.memoise = self.memoise;
        spec.options.needs = self.host.features();
        spec.options.speculate = self.speculate;
        spec.options.limits.memory = Some(ByteSize::mib(self.memory));
        spec.options.limits.wall_time = Some(self.wall_time());
        spec
    }
}

impl JobPlan {
    /// What is submitted first.
    pub(crate) fn spec(&self) -> JobSpec {
        let arrays = self.arrays.iter().filter(|array| array.added.is_none()).map(ArrayPlan::spec).collect();
        let deadline = self.deadline.map(Duration::from_millis);
        JobSpec { name: "simulated".to_owned(), arrays, open: self.is_open(), deadline }
    }

    /// Everything, as if it had been submitted at once.
    pub(crate) fn whole(&self) -> JobSpec {
        JobSpec { arrays: self.arrays.iter().map(ArrayPlan::spec).collect(), ..self.spec() }
    }

    /// What is added later: when, and from which array to which.
    pub(crate) fn extensions(&self) -> Vec<(u64, std::ops::Range<usize>)> {
        let mut found: Vec<(u64, std::ops::Range<usize>)> = Vec::new();
        for (position, array) in self.arrays.iter().enumerate() {
            let Some(at) = array.added else { continue };
            match found.last_mut() {
                Some((last, range)) if *last == at => range.end = position + 1,
                _ => found.push((at, position..position + 1)),
            }
        }
        found
    }

    /// Whether arrays are added later.
    pub(crate) fn is_open(&self) -> bool {
        self.closed.is_some()
    }
}

/// Something that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When, in milliseconds from the start.
    pub at: u64,
    /// What.
    pub what: FaultKind,
}

/// When exactly the scheduler dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// At once.
    #[default]
    Now,
    /// When records that somebody waits for were written and not flushed.
    Unflushed,
    /// When a client was just answered.
    Answered,
}

/// What goes wrong. Hosts and jobs are named by position; times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The connection of a host breaks; what is under way is lost.
    Break {
        /// Which host.
        host: usize,
        /// After what time the host dials again.
        again: u64,
        /// Whether the scheduler notices by itself.
        noticed: bool,
    },
    /// Nothing comes through in one direction for a while.
    Cut {
        /// Which host.
        host: usize,
        /// To the scheduler, or from it.
        to_scheduler: bool,
        /// For how long.
        lasts: u64,
    },
    /// A host's process dies, with everything it had.
    Kill {
        /// Which host.
        host: usize,
        /// After what time it runs again.
        again: u64,
        /// Whether it takes itself for the same as before.
        same: bool,
    },
    /// A host's process stands still and goes on as if nothing had been.
    Freeze {
        /// Which host.
        host: usize,
        /// For how long.
        lasts: u64,
    },
    /// A host loses a partition and notices.
    Evict {
        /// Which host.
        host: usize,
    },
    /// A host reports attempts that it was not given, and nonsense.
    Lie {
        /// Which host.
        host: usize,
    },
    /// What an earlier life of a host had said arrives now.
    OldNews {
        /// Which host.
        host: usize,
    },
    /// The scheduler dies, with what was not on disk.
    Crash {
        /// After what time it runs again.
        again: u64,
        /// At the next such moment, if not at once.
        #[serde(default)]
        moment: Moment,
    },
    /// The scheduler stands still.
    Stall {
        /// For how long.
        lasts: u64,
    },
    /// Every flush takes this long.
    SlowDisk {
        /// One flush.
        flush: u64,
        /// For how long.
        lasts: u64,
    },
    /// The journal's disk is full; the scheduler ends, and is started again when there is room.
    FullDisk {
        /// For how long.
        lasts: u64,
    },
    /// The journal is compacted.
    Compact {
        /// How long that takes.
        lasts: u64,
        /// If the scheduler dies in the middle of it: after what time it runs again.
        dies: Option<u64>,
    },
    /// The scheduler is stopped, and its state moved to another disk.
    Move {
        /// After what time it runs again.
        again: u64,
    },
    /// A host is drained, by somebody who takes that back later.
    Drain {
        /// Which host.
        host: usize,
        /// After what time it takes part again.
        lasts: u64,
        /// Whether its process is ended, by a new start, as soon as it is said to be drained.
        stops: bool,
    },
    /// The client of a job forgets what it was waiting for, and watches again from where it had stopped.
    ClientDies {
        /// Which job.
        job: usize,
    },
}
