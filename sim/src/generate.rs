//! Random plans: every edge pattern, tenants with limits, jobs that are extended, cancelled and released, and faults.

use partita_testkit::Random;

use crate::plan::{
    ArrayPlan, DATASETS, EdgePlan, Fault, FaultKind, HostPlan, JobPlan, Moment, Plan, TROUBLE, TenantPlan,
};

/// When the last job is submitted, in milliseconds.
const LAST_SUBMISSION: u64 = 45_000;
/// One plan in so many is of a large cluster.
const LARGE_IN: u64 = 25;
/// On large clusters invariants are checked after so many events.
const LARGE_CHECKS: u64 = 64;

/// How large a plan gets.
struct Size {
    hosts: (u64, u64),
    cores: u64,
    jobs: (u64, u64),
    tasks: u64,
    arrays: u64,
}

const SMALL: Size = Size { hosts: (2, 4), cores: 3, jobs: (5, 9), tasks: 12, arrays: 7 };
const LARGE: Size = Size { hosts: (8, 12), cores: 6, jobs: (12, 20), tasks: 60, arrays: 9 };

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn generate(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let (mut cluster, mut work, mut trouble) = (random.fork(), random.fork(), random.fork());
        let large = random.chance(100 / LARGE_IN);
        let size = if large { LARGE } else { SMALL };
        let mut tenants: Vec<TenantPlan> =
            (0..cluster.between(2, 4)).map(|_| tenant(&mut cluster, size.tasks)).collect();
        let mut hosts: Vec<HostPlan> =
            (0..cluster.between(size.hosts.0, size.hosts.1)).map(|_| host(&mut cluster, size.cores)).collect();
        if cluster.chance(50) {
            guarantee(&mut cluster, &mut tenants, &hosts);
        }
        let jobs = 0..work.between(size.jobs.0, size.jobs.1);
        let mut jobs: Vec<JobPlan> = jobs.map(|_| job(&mut work, tenants.len(), &size)).collect();
        if work.chance(30) {
            jobs.push(flood(&mut work, tenants.len()));
        }
        let uploads = jobs.iter().any(|job| job.arrays.iter().any(|array| array.upload));
        if !uploads && work.chance(60) {
            // So little that what is alive matters; nobody takes an upload then, so there must be none.
            hosts.iter_mut().for_each(|host| host.partitions = Some(work.between(2_000, 60_000)));
        }
        let quiet = trouble.chance(10);
        let mut plan = Self {
            seed: random.number(),
            check_every: if large { LARGE_CHECKS } else { 1 },
            guest_faults: if quiet { 0 } else { trouble.between(0, 6) },
            lost_messages: if quiet { 0 } else { trouble.below(10) },
            late_messages: trouble.below(10),
            faults: if quiet { Vec::new() } else { faults(&mut trouble, hosts.len(), jobs.len()) },
            tenants,
            hosts,
            jobs,
            changes: Vec::new(),
        };
        // Last, and from a generator of its own: what is added there leaves the rest of a seed's plan as it is.
        plan.decorate(&mut random.fork());
        plan
    }
}

/// A tenant of a cluster whose arrays have up to so many tasks.
fn tenant(random: &mut Random, tasks: u64) -> TenantPlan {
    TenantPlan {
        weight: random.between(1, 4) as u32,
        concurrent_tasks: random.between(1, 8) as u32,
        concurrent_memory: if random.chance(30) { random.between(256, 1024) } else { 64 << 10 },
        queued_tasks: if random.chance(20) { tasks * random.between(15, 24) } else { 100_000 },
        running_jobs: if random.chance(20) { 2 } else { 10 },
        ..TenantPlan::default()
    }
}

/// Guarantees and cohorts for some tenants, so that a core is left for those who have none.
fn guarantee(random: &mut Random, tenants: &mut [TenantPlan], hosts: &[HostPlan]) {
    let mut left = hosts.iter().map(|host| u64::from(host.cores)).sum::<u64>() - 1;
    for tenant in tenants {
        tenant.cohort = if random.chance(30) { Some(random.below(2) as u32) } else { None };
        if left > 0 && random.chance(50) {
            let cores = random.between(1, left.min(2));
            left -= cores;
            tenant.guaranteed = cores * 1_000;
            tenant.lend = if random.chance(40) { Some(random.below(cores + 1) * 1_000) } else { None };
        }
        // Everybody may have a core at least, or would never get anywhere.
        let least = if tenant.guaranteed == 0 { 1_000 } else { 0 };
        tenant.borrow = if random.chance(40) { Some(least + random.below(3) * 1_000) } else { None };
    }
}

fn host(random: &mut Random, cores: u64) -> HostPlan {
    let cores = random.between(1, cores);
    let memory = if random.chance(30) { random.between(256, 512) } else { cores * 1024 };
    let joins = if random.chance(20) { random.below(20_000) } else { random.below(1_000) };
    let slow = if random.chance(25) { random.between(3, 8) } else { 1 };
    HostPlan { cores: cores as u32, memory, joins, slow, ..HostPlan::default() }
}

fn job(random: &mut Random, tenants: usize, size: &Size) -> JobPlan {
    let submitted = random.below(LAST_SUBMISSION);
    let open = random.chance(25);
    let mut job = JobPlan { tenant: random.below(tenants as u64) as usize, submitted, ..JobPlan::default() };
    let poison = if random.chance(10) { random.below(size.arrays) } else { u64::MAX };
    let mut shapes = Vec::new();
    let mut at = None;
    for position in 0..random.between(1, size.arrays) {
        if open && random.chance(40) {
            at = Some(at.unwrap_or(submitted) + random.below(6_000));
        }
        let (mut array, tasks) = array(random, &shapes, size);
        array.poison = position == poison && !array.upload;
        array.added = at;
        shapes.push((tasks, array.outputs));
        job.arrays.push(array);
    }
    if open {
        job.closed = Some(at.unwrap_or(submitted) + random.below(8_000));
    }
    if random.chance(12) {
        job.cancelled = Some(submitted + random.below(8_000));
    }
    if random.chance(10) {
        job.deadline = Some(random.between(1_000, 30_000));
    }
    if random.chance(20) {
        job.released = Some(submitted + random.below(20_000));
    }
    job
}

/// A job of many small tasks that all could run at once.
fn flood(random: &mut Random, tenants: usize) -> JobPlan {
    let array = ArrayPlan { tasks: Some(random.between(60, 140) as u32), ..ArrayPlan::default() };
    let (tenant, submitted) = (random.below(tenants as u64) as usize, random.below(LAST_SUBMISSION));
    JobPlan { tenant, submitted, arrays: vec![array], ..JobPlan::default() }
}

/// An array behind arrays with so many tasks and outputs, and how many tasks it has.
fn array(random: &mut Random, shapes: &[(u32, u32)], size: &Size) -> (ArrayPlan, u32) {
    let mut tasks = random.between(1, size.tasks) as u32;
    let mut array = ArrayPlan {
        outputs: if random.chance(40) { random.between(2, 4) as u32 } else { 1 },
        keep: random.chance(20),
        priority: random.below(3) as i32,
        memory: if random.chance(15) { random.between(65, 200) } else { 64 },
        speculate: !random.chance(10),
        ..ArrayPlan::default()
    };
    if random.chance(8) && array.memory == 64 {
        // Doubling leads to 256 MiB, which every host and every tenant has.
        array.needs = Some(random.between(65, 250));
    }
    if random.chance(8) {
        array.needs = None;
        tasks = random.between(1, 4) as u32;
        (array.upload, array.outputs, array.tasks, array.memory) = (true, 1, Some(tasks), 64);
        return (array, tasks);
    }
    if shapes.is_empty() || random.chance(15) {
        match random.below(4) {
            0 => {
                let number = random.below(DATASETS.len() as u64) as usize;
                tasks = DATASETS[number].1;
                array.inputs.push(EdgePlan::Dataset(number));
            }
            1 => array.inputs.push(EdgePlan::Literal(tasks)),
            _ => (array.tasks, array.own_arguments) = (Some(tasks), random.chance(50)),
        }
        return (array, tasks);
    }
    let source = random.below(shapes.len() as u64) as u32;
    let (length, width) = shapes[source as usize];
    let output = random.below(u64::from(width)) as u32;
    match random.below(5) {
        0 => tasks = add(&mut array, EdgePlan::Each { array: source, output }, length),
        1 => (tasks, array.tasks) = (add(&mut array, EdgePlan::All { array: source, output }, tasks), Some(tasks)),
        2 => tasks = add(&mut array, EdgePlan::Slice { array: source }, width),
        3 => {
            let arity = random.between(2, 4) as u32;
            tasks = add(&mut array, EdgePlan::Fold { array: source, arity }, fold_tasks(length, arity));
        }
        _ => tasks = add(&mut array, random_list(random, shapes, tasks), tasks),
    }
    if random.chance(25) {
        let source = random.below(shapes.len() as u64) as u32;
        array.inputs.push(EdgePlan::All { array: source, output: 0 });
    }
    if random.chance(10) {
        array.inputs.push(EdgePlan::Literal(1));
    }
    (array, tasks)
}

fn add(array: &mut ArrayPlan, edge: EdgePlan, tasks: u32) -> u32 {
    array.inputs.push(edge);
    tasks
}

fn fold_tasks(mut width: u32, arity: u32) -> u32 {
    let mut tasks = 0;
    loop {
        width = width.div_ceil(arity);
        tasks += width;
        if width == 1 {
            return tasks;
        }
    }
}

fn random_list(random: &mut Random, shapes: &[(u32, u32)], tasks: u32) -> EdgePlan {
    let read = |random: &mut Random| {
        let array = random.below(shapes.len() as u64) as u32;
        let (length, width) = shapes[array as usize];
        (array, random.below(u64::from(length)) as u32, random.below(u64::from(width)) as u32)
    };
    EdgePlan::List((0..tasks).map(|_| (0..random.below(4)).map(|_| read(random)).collect()).collect())
}

fn faults(random: &mut Random, hosts: usize, jobs: usize) -> Vec<Fault> {
    let end = TROUBLE.as_millis() as u64;
    let mut faults = Vec::new();
    let mut add = |random: &mut Random, what| faults.push(Fault { at: random.below(end), what });
    for host in 0..hosts {
        for _ in 0..random.below(5) {
            let again = if random.chance(70) { random.below(3_000) } else { random.below(15_000) };
            let noticed = random.chance(60);
            add(random, FaultKind::Break { host, again, noticed });
        }
        for _ in 0..random.below(3) {
            let (to_scheduler, lasts) = (random.chance(50), random.below(9_000));
            add(random, FaultKind::Cut { host, to_scheduler, lasts });
        }
        for _ in 0..random.below(3) {
            let (again, same) = (random.below(10_000), random.chance(25));
            add(random, FaultKind::Kill { host, again, same });
        }
        for _ in 0..random.below(2) {
            let lasts = random.below(12_000);
            add(random, FaultKind::Freeze { host, lasts });
        }
        for _ in 0..random.below(4) {
            add(random, FaultKind::Evict { host });
        }
        for _ in 0..random.below(2) {
            add(random, FaultKind::Lie { host });
            add(random, FaultKind::OldNews { host });
        }
    }
    for _ in 0..random.below(5) {
        let again = random.below(8_000);
        let moment = [Moment::Now, Moment::Unflushed, Moment::Answered][random.below(3) as usize];
        add(random, FaultKind::Crash { again, moment });
    }
    if random.chance(30) {
        let lasts = random.below(4_000);
        add(random, FaultKind::Stall { lasts });
    }
    if random.chance(40) {
        let (flush, lasts) = (random.between(20, 1_500), random.below(20_000));
        add(random, FaultKind::SlowDisk { flush, lasts });
    }
    if random.chance(15) {
        let lasts = random.below(5_000);
        add(random, FaultKind::FullDisk { lasts });
    }
    for _ in 0..random.below(4) {
        let job = random.below(jobs as u64) as usize;
        add(random, FaultKind::ClientDies { job });
    }
    for host in 0..hosts {
        if random.chance(40) {
            let (lasts, stops) = (random.between(500, 25_000), random.chance(50));
            add(random, FaultKind::Drain { host, lasts, stops });
        }
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}
