//! From what a file says to what the scheduler enforces: defaults, ranges, and what must fit together.
//!
//! A value that is not given follows those that are: with `maxima.memory = "128MiB"` the default of 256 MiB becomes
//! 128 MiB by itself. Only what somebody wrote down can be wrong.

use std::path::{Component, Path};
use std::time::Duration;

use partita_types::{
    ByteSize, CohortName, CpuTime, DatasetGrant, DatasetName, Isolation, MilliCpu, TaskLimits, TenantName,
};

use crate::fault::{Faults, Problem, shorten};
use crate::file::{DatasetFile, LimitsFile, QuotaFile, ResourcesFile, TenantFile};
use crate::quota::{Quota, TenantPolicy};
use crate::setting::{Count, Found, Kind, Setting};
use crate::share::{Bounds, Resources, Share};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Longest life of a token, whatever a policy says.
const TOKEN_LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long tasks wait for a host that could run them, if the policy says nothing: about as long as a machine takes to
/// come back.
const UNRUNNABLE_AFTER: Duration = Duration::from_secs(600);
const UNRUNNABLE_AFTER_MAX: Duration = Duration::from_secs(30 * 86_400);

/// Longest time for which results are kept, if it is limited at all.
const RETENTION_MAX: Duration = Duration::from_secs(3_650 * 86_400);

/// What jobs may ask for if the policy says nothing. 4 GiB is all that a 32-bit guest can address.
const MAXIMA: TaskLimits = TaskLimits {
    memory: ByteSize::gib(4),
    cpu_time: CpuTime::from_micros(3_600_000_000),
    wall_time: Duration::from_secs(24 * 3600),
    output: ByteSize::gib(4),
    log: ByteSize::mib(1),
};

/// What no policy can exceed.
const CEILING: TaskLimits = TaskLimits {
    memory: ByteSize::gib(4),
    cpu_time: CpuTime::from_micros(7 * 86_400_000_000),
    wall_time: Duration::from_secs(30 * 86_400),
    output: ByteSize::gib(64),
    log: ByteSize::mib(16),
};

/// Below this nothing runs: a guest's stack and code need their place.
const FLOOR: TaskLimits = TaskLimits {
    memory: ByteSize::mib(1),
    cpu_time: CpuTime::from_micros(1_000),
    wall_time: Duration::from_millis(1),
    output: ByteSize(1),
    log: ByteSize(1),
};

/// A petabyte: more than any cluster, and far from where sums overflow.
const BYTES_MAX: ByteSize = ByteSize::gib(1 << 20);

/// A million cores: more than any cluster.
const CPU_MAX: MilliCpu = MilliCpu(1_000_000_000);
/// The least that a tenant may be held to: with less, a task would get a slice of milliseconds now and then.
const CPU_RATE_LEAST: MilliCpu = MilliCpu(10);
/// Less than a core cannot be guaranteed: guarantees are whole places for tasks, which are given back by stopping tasks.
const CPU_LEAST: MilliCpu = MilliCpu(1000);

/// Most datasets of a tenant, and most patterns of a dataset.
const DATASETS_MAX: usize = 64;
const PATTERNS_MAX: usize = 32;

/// Longest path and longest pattern, as file systems have them.
const LOCATION_MAX: usize = 4096;
const PATTERN_MAX: usize = 255;

/// Makes the policy of tenant `name`. What is wrong goes to `faults`; the policy counts only if there are none.
pub(crate) fn resolve(name: TenantName, tenant: &TenantFile, faults: &mut Faults<'_>) -> TenantPolicy {
    let mut resolver = Resolver { path: format!("tenant.{name}"), faults };
    let weight = resolver.count("weight", &tenant.weight, 1, 1..=1000);
    let token_lifetime = resolver.ranged(
        "token_lifetime",
        &tenant.token_lifetime,
        12 * HOUR,
        (Duration::from_secs(60), TOKEN_LIFETIME_MAX),
    );
    let unrunnable_after =
        resolver.ranged("unrunnable_after", &tenant.unrunnable_after, UNRUNNABLE_AFTER, (SECOND, UNRUNNABLE_AFTER_MAX));
    let retention = resolver.ranged("retention", &tenant.retention, RETENTION_MAX, (SECOND, RETENTION_MAX));
    let quota = resolver.quota(weight, &tenant.quota);
    let task_maxima = resolver.maxima(&tenant.maxima, &quota);
    TenantPolicy {
        task_defaults: resolver.defaults(&tenant.defaults, task_maxima),
        task_maxima,
        datasets: resolver.datasets(&tenant.dataset),
        share: Box::new(resolver.share(tenant, &quota)),
        minimum_isolation: tenant.minimum_isolation.0.as_ref().map_or(Isolation::Seccomp, |found| found.value),
        quota,
        token_lifetime,
        unrunnable_after,
        retention: tenant.retention.0.is_some().then_some(retention),
        name,
    }
}

struct Resolver<'a, 't> {
    path: String,
    faults: &'a mut Faults<'t>,
}

impl Resolver<'_, '_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    /// The value, or `default`; a value outside of `least..=most` is a fault.
    fn ranged<T: Kind + Copy + Ord>(
        &mut self,
        key: &str,
        setting: &Setting<T>,
        default: T,
        (least, most): (T, T),
    ) -> T {
        let Some(Found { value, at }) = setting.0 else { return default };
        if value < least {
            let (value, least) = (value.show(), least.show());
            self.faults.add(at, Problem::TooSmall { key: self.key(key), value, least });
        } else if value > most {
            let (value, most) = (value.show(), most.show());
            self.faults.add(at, Problem::TooLarge { key: self.key(key), value, most });
        }
        value.clamp(least, most)
    }

    fn count(
        &mut self,
        key: &str,
        setting: &Setting<Count>,
        default: u32,
        range: std::ops::RangeInclusive<u32>,
    ) -> u32 {
        let bounds = (Count(u64::from(*range.start())), Count(u64::from(*range.end())));
        let count = self.ranged(key, setting, Count(u64::from(default)), bounds);
        u32::try_from(count.0).unwrap_or(*range.end())
    }

    /// A value that another one limits: the default is lowered to it, a written value above it is a fault.
    fn limited<T: Kind + Copy + Ord>(&mut self, key: &str, setting: &Setting<T>, default: T, limit: Limit<'_, T>) -> T {
        let value = self.ranged(key, setting, default.min(limit.value), (limit.least, limit.most));
        let Some(Found { at, .. }) = setting.0 else { return value };
        if value > limit.value {
            let (value, other, limit) = (value.show(), self.key(limit.key), limit.value.show());
            self.faults.add(at, Problem::Above { key: self.key(key), value, other, limit });
        }
        value
    }

    fn quota(&mut self, weight: u32, file: &QuotaFile) -> Quota {
        let bytes = |least| (least, BYTES_MAX);
        let tasks = (Count(1), Count(1_000_000_000));
        let concurrent_tasks = self.count("quota.concurrent_tasks", &file.concurrent_tasks, 4096, 1..=1_000_000);
        Quota {
            weight,
            queued_tasks: self.ranged("quota.queued_tasks", &file.queued_tasks, Count(10_000_000), tasks).0,
            running_jobs: self.count("quota.running_jobs", &file.running_jobs, 1000, 1..=1_000_000),
            concurrent_tasks,
            concurrent_memory: self.ranged(
                "quota.concurrent_memory",
                &file.concurrent_memory,
                ByteSize::gib(256),
                bytes(FLOOR.memory),
            ),
            stored: self.ranged("quota.stored", &file.stored, ByteSize::gib(64), bytes(ByteSize::mib(1))),
            modules: self.count("quota.modules", &file.modules, 100, 1..=100_000),
            module_size: self.ranged(
                "quota.module_size",
                &file.module_size,
                ByteSize::mib(32),
                (ByteSize::kib(1), ByteSize::mib(256)),
            ),
            cpu: self.ranged("quota.cpu", &file.cpu, CPU_MAX, (CPU_RATE_LEAST, CPU_MAX)),
        }
    }

    fn share(&mut self, file: &TenantFile, quota: &Quota) -> Share {
        let guaranteed = self.guaranteed(&file.guaranteed, quota);
        let cohort = file.cohort.0.as_ref().and_then(|found| match CohortName::new(&found.value) {
            Ok(name) => Some(name),
            Err(error) => {
                self.faults.add(found.at, error.into());
                None
            }
        });
        let most = Resources { cpu: CPU_MAX, memory: BYTES_MAX, stored: BYTES_MAX };
        let borrow = self.bounds("borrow", &file.borrow, most, None);
        if let (Some(Found { at, .. }), Some(cpu)) = (&file.borrow.cpu.0, borrow.cpu)
            && guaranteed.cpu < CPU_RATE_LEAST
            && cpu < CPU_RATE_LEAST
        {
            self.faults.add(*at, Problem::Never { key: self.key("borrow.cpu"), value: cpu.show() });
        }
        let lend = self.bounds("lend", &file.lend, most, Some(guaranteed));
        Share { guaranteed, borrow, lend, cohort }
    }

    /// What is guaranteed lies within the quota, and whoever wants memory for certain says for how many cores.
    fn guaranteed(&mut self, file: &ResourcesFile, quota: &Quota) -> Resources {
        if let (None, Some(Found { at, .. })) = (&file.cpu.0, &file.memory.0) {
            let problem = Problem::Alone { key: self.key("guaranteed.memory"), other: self.key("guaranteed.cpu") };
            self.faults.add(*at, problem);
        }
        let cpu = Limit::new("quota.cpu", quota.cpu, CPU_LEAST, CPU_MAX);
        let memory = Limit::new("quota.concurrent_memory", quota.concurrent_memory, FLOOR.memory, BYTES_MAX);
        let stored = Limit::new("quota.stored", quota.stored, ByteSize::ZERO, BYTES_MAX);
        let mut limited = Resources::default();
        if file.cpu.0.is_some() {
            limited.cpu = self.limited("guaranteed.cpu", &file.cpu, CPU_LEAST, cpu);
        }
        if file.memory.0.is_some() {
            limited.memory = self.limited("guaranteed.memory", &file.memory, FLOOR.memory, memory);
        }
        limited.stored = self.limited("guaranteed.stored", &file.stored, ByteSize::ZERO, stored);
        limited
    }

    /// Bounds of the table `name`, which are not above `limit`, if there is one.
    fn bounds(&mut self, name: &str, file: &ResourcesFile, most: Resources, limit: Option<Resources>) -> Bounds {
        Bounds {
            cpu: self.bound(name, "cpu", &file.cpu, most.cpu, limit.map(|limit| limit.cpu)),
            memory: self.bound(name, "memory", &file.memory, most.memory, limit.map(|limit| limit.memory)),
            stored: self.bound(name, "stored", &file.stored, most.stored, limit.map(|limit| limit.stored)),
        }
    }

    fn bound<T: Kind + Copy + Ord + Default>(
        &mut self,
        table: &str,
        key: &str,
        setting: &Setting<T>,
        most: T,
        limit: Option<T>,
    ) -> Option<T> {
        setting.0.as_ref()?;
        let name = format!("{table}.{key}");
        let above = format!("guaranteed.{key}");
        Some(match limit {
            Some(limit) => self.limited(&name, setting, limit, Limit::new(&above, limit, T::default(), most)),
            None => self.ranged(&name, setting, most, (T::default(), most)),
        })
    }

    /// One attempt can never need more than the tenant has altogether, so the quota limits the maxima.
    fn maxima(&mut self, file: &LimitsFile, quota: &Quota) -> TaskLimits {
        let memory = Limit::new("quota.concurrent_memory", quota.concurrent_memory, FLOOR.memory, CEILING.memory);
        let output = Limit::new("quota.stored", quota.stored, FLOOR.output, CEILING.output);
        let cpu = (FLOOR.cpu_time.into_duration(), CEILING.cpu_time.into_duration());
        TaskLimits {
            memory: self.limited("maxima.memory", &file.memory, MAXIMA.memory, memory),
            cpu_time: self.ranged("maxima.cpu_time", &file.cpu_time, MAXIMA.cpu_time.into_duration(), cpu).into(),
            wall_time: self.ranged(
                "maxima.wall_time",
                &file.wall_time,
                MAXIMA.wall_time,
                (FLOOR.wall_time, CEILING.wall_time),
            ),
            output: self.limited("maxima.output", &file.output, MAXIMA.output, output),
            log: self.ranged("maxima.log", &file.log, MAXIMA.log, (FLOOR.log, CEILING.log)),
        }
    }

    fn defaults(&mut self, file: &LimitsFile, maxima: TaskLimits) -> TaskLimits {
        let usual = TaskLimits::default();
        let memory = Limit::new("maxima.memory", maxima.memory, FLOOR.memory, CEILING.memory);
        let cpu = Limit::new(
            "maxima.cpu_time",
            maxima.cpu_time.into_duration(),
            FLOOR.cpu_time.into_duration(),
            CEILING.cpu_time.into_duration(),
        );
        let wall = Limit::new("maxima.wall_time", maxima.wall_time, FLOOR.wall_time, CEILING.wall_time);
        let output = Limit::new("maxima.output", maxima.output, FLOOR.output, CEILING.output);
        let log = Limit::new("maxima.log", maxima.log, FLOOR.log, CEILING.log);
        TaskLimits {
            memory: self.limited("defaults.memory", &file.memory, usual.memory, memory),
            cpu_time: self.limited("defaults.cpu_time", &file.cpu_time, usual.cpu_time.into_duration(), cpu).into(),
            wall_time: self.limited("defaults.wall_time", &file.wall_time, usual.wall_time, wall),
            output: self.limited("defaults.output", &file.output, usual.output, output),
            log: self.limited("defaults.log", &file.log, usual.log, log),
        }
    }

    fn datasets(&mut self, files: &[DatasetFile]) -> Vec<DatasetGrant> {
        if let Some(Found { at, .. }) = files.get(DATASETS_MAX).and_then(|file| file.name.0.as_ref()) {
            let problem = Problem::TooMany { key: self.key("dataset"), count: files.len(), most: DATASETS_MAX };
            self.faults.add(*at, problem);
        }
        let mut grants: Vec<DatasetGrant> = Vec::new();
        for file in files {
            let (Some(name), Some(location)) = (&file.name.0, &file.location.0) else { continue };
            let include = self.patterns(file);
            if let Some(problem) = location_problem(&location.value) {
                let (key, location_text) = (format!("{}.location", file.path), shorten(&location.value));
                self.faults.add(location.at, Problem::Location { key, location: location_text, problem });
            }
            match DatasetName::new(&name.value) {
                Err(error) => self.faults.add(name.at, error.into()),
                Ok(taken) if grants.iter().any(|grant| grant.name == taken) => {
                    let (key, name_text) = (format!("{}.name", file.path), shorten(&name.value));
                    self.faults.add(name.at, Problem::DuplicateDataset { key, name: name_text });
                }
                Ok(name) => grants.push(DatasetGrant { name, location: location.value.clone(), include }),
            }
        }
        grants
    }

    fn patterns(&mut self, file: &DatasetFile) -> Vec<String> {
        let Some(Found { value: patterns, at }) = &file.include.0 else { return Vec::new() };
        let key = format!("{}.include", file.path);
        if patterns.len() > PATTERNS_MAX {
            let problem = Problem::TooMany { key: key.clone(), count: patterns.len(), most: PATTERNS_MAX };
            self.faults.add(*at, problem);
        }
        for pattern in patterns {
            if let Some(problem) = pattern_problem(&pattern.value) {
                let text = shorten(&pattern.value);
                self.faults.add(pattern.at, Problem::Pattern { key: key.clone(), pattern: text, problem });
            }
        }
        patterns.iter().map(|pattern| pattern.value.clone()).collect()
    }
}

/// A value that limits another one, with the range of both.
struct Limit<'k, T> {
    key: &'k str,
    value: T,
    least: T,
    most: T,
}

impl<'k, T> Limit<'k, T> {
    const fn new(key: &'k str, value: T, least: T, most: T) -> Self {
        Self { key, value, least, most }
    }
}

/// What is wrong with a dataset's location, if anything.
fn location_problem(location: &str) -> Option<&'static str> {
    if location.len() > LOCATION_MAX {
        Some("is longer than 4096 bytes")
    } else if location.chars().any(char::is_control) {
        Some("contains control characters")
    } else if !location.starts_with('/') {
        Some("is not an absolute path; variables and ~ are not replaced")
    } else if Path::new(location).components().all(|part| part == Component::RootDir) {
        Some("is the whole file system")
    } else if location.split('/').any(|part| part == "." || part == "..") {
        Some("contains . or .. as a part")
    } else {
        None
    }
}

/// What is wrong with a pattern for file names, if anything.
fn pattern_problem(pattern: &str) -> Option<&'static str> {
    if pattern.is_empty() {
        Some("matches no file")
    } else if pattern.len() > PATTERN_MAX {
        Some("is longer than 255 bytes")
    } else if pattern.contains('/') {
        Some("contains '/', but only file names are matched")
    } else if pattern.contains("**") {
        Some("contains \"**\"; directories are searched anyway, one * is enough")
    } else if pattern.chars().any(|c| c.is_control() || matches!(c, '[' | ']' | '{' | '}' | '\\' | '!')) {
        Some("contains a special character other than * and ?")
    } else {
        None
    }
}

/// CPU time as policies write it.
trait IntoDuration {
    fn into_duration(self) -> Duration;
}

impl IntoDuration for CpuTime {
    fn into_duration(self) -> Duration {
        Duration::from_micros(self.micros)
    }
}
