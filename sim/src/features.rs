//! Random plans, continued: what the scheduler can do besides running graphs, added to a plan that has its graphs.

use partita_testkit::Random;

use crate::plan::{ArrayPlan, Change, Fault, FaultKind, FeaturePlan, HostPlan, JobPlan, Plan, TROUBLE, TenantPlan};

impl Plan {
    /// Adds features to a plan. Each has a generator of its own, so that another one does not shift the numbers of these.
    pub(crate) fn decorate(&mut self, random: &mut Random) {
        let mut crashes = random.fork();
        self.jobs.iter_mut().for_each(|job| kill_executors(&mut crashes, job));
        let (mut journal, mut copies, mut places, mut policies) =
            (random.fork(), random.fork(), random.fork(), random.fork());
        let quiet = self.faults.is_empty();
        self.compact(&mut journal, quiet);
        if copies.chance(40) {
            self.jobs.iter_mut().for_each(|job| memoise(&mut copies, job));
        }
        if places.chance(35) {
            self.hosts.iter_mut().for_each(|host| equip(&mut places, host));
            let hosts: Vec<FeaturePlan> = self.hosts.iter().map(|host| host.features.clone()).collect();
            self.jobs.iter_mut().for_each(|job| restrict(&mut places, job, &hosts));
            self.tenants.iter_mut().for_each(|tenant| tenant.unrunnable_after = Some(places.between(5, 40) * 1_000));
        }
        for tenant in &mut self.tenants {
            tenant.retention = if policies.chance(20) { Some(policies.between(2, 40) * 1_000) } else { None };
        }
        if policies.chance(30) && !quiet {
            let change = |_| change(&mut policies, &self.tenants);
            self.changes = (0..4).map(change).collect();
        }
        let mut limits = random.fork();
        if limits.chance(35) {
            self.tenants.iter_mut().for_each(|tenant| limit_cpu(&mut limits, tenant));
            self.changes.iter_mut().for_each(|change| limit_cpu(&mut limits, &mut change.policy));
        }
        let mut crowds = random.fork();
        if crowds.chance(30) {
            self.jobs.iter_mut().for_each(|job| lengthen(&mut crowds, job));
        }
        if crowds.chance(20) {
            self.crowd(&mut crowds);
        }
        let mut walls = random.fork();
        if walls.chance(30) {
            self.jobs.iter_mut().for_each(|job| limit_time(&mut walls, job));
        }
    }

    /// Adds a tenant's job with more long tasks than there are cores, and lets it have them all.
    fn crowd(&mut self, random: &mut Random) {
        let tenant = random.below(self.tenants.len() as u64) as usize;
        let places: u64 = self.hosts.iter().map(|host| u64::from(host.cores) + 1).sum();
        let array = ArrayPlan { tasks: Some((places * 2) as u32), long: true, ..ArrayPlan::default() };
        let submitted = random.below(TROUBLE.as_millis() as u64 / 2);
        self.jobs.push(JobPlan { tenant, submitted, arrays: vec![array], ..JobPlan::default() });
        let changed = self.changes.iter_mut().filter(|change| change.tenant == tenant).map(|change| &mut change.policy);
        for plan in changed.chain([&mut self.tenants[tenant]]) {
            (plan.concurrent_tasks, plan.concurrent_memory, plan.cpu, plan.borrow) = (100, 64 << 10, None, None);
        }
    }

    /// Lets the journal be compacted at times, and be moved.
    fn compact(&mut self, random: &mut Random, quiet: bool) {
        let end = TROUBLE.as_millis() as u64;
        for _ in 0..if quiet { 0 } else { random.below(4) } {
            let dies = if random.chance(30) { Some(random.below(4_000)) } else { None };
            let what = FaultKind::Compact { lasts: random.below(3_000), dies };
            self.faults.push(Fault { at: random.below(end), what });
        }
        if random.chance(15) && !quiet {
            self.faults.push(Fault { at: random.below(end), what: FaultKind::Move { again: random.below(5_000) } });
        }
    }
}

/// Lets each task of an array take seconds, so that tenants wait for each other unless they take turns.
fn lengthen(random: &mut Random, job: &mut JobPlan) {
    let chosen = random.chance(40);
    if let Some(array) = job.arrays.iter_mut().find(|array| array.tasks.is_some_and(|tasks| tasks <= 12)) {
        array.long = chosen && !array.upload && !array.poison;
    }
}

/// Gives a tenant to which nothing is guaranteed a limit of CPU, mostly one that counting frames does not keep.
fn limit_cpu(random: &mut Random, tenant: &mut TenantPlan) {
    let limits = random.chance(60);
    let (quota, cpu) = (random.chance(70), random.between(10, 350) * 10);
    if limits && tenant.guaranteed == 0 {
        if quota {
            tenant.cpu = Some(cpu);
        } else {
            tenant.borrow = Some(cpu);
        }
    }
}

/// Gives attempts of some arrays less time than others, which slow ones do not keep.
fn limit_time(random: &mut Random, job: &mut JobPlan) {
    for array in job.arrays.iter_mut().filter(|array| !array.upload && !array.long) {
        let (limits, wall) = (random.chance(40), random.between(1_000, 4_000));
        array.wall = limits.then_some(wall);
    }
}

/// Lets tasks of some arrays take what others have computed.
fn memoise(random: &mut Random, job: &mut JobPlan) {
    for array in &mut job.arrays {
        // A copy of what fails whatever happens would not fail.
        array.memoise = random.chance(60) && !array.poison && !array.crashes && !array.upload;
    }
}

const ZONES: [&str; 2] = ["zone=a", "zone=b"];

/// Gives a host a label, and perhaps some of a resource.
fn equip(random: &mut Random, host: &mut HostPlan) {
    host.features.labels = vec![ZONES[random.below(2) as usize].to_owned()];
    if random.chance(50) {
        host.features.resources = vec![format!("gpu={}", random.between(1, 3))];
    }
}

/// Lets tasks of some arrays ask for what one of the hosts has, and now and then for what none has.
fn restrict(random: &mut Random, job: &mut JobPlan, hosts: &[FeaturePlan]) {
    for array in job.arrays.iter_mut().filter(|array| !array.upload) {
        if !random.chance(30) {
            continue;
        }
        array.host = hosts[random.below(hosts.len() as u64) as usize].clone();
        if random.chance(50) {
            array.host.labels.clear();
        } else if random.chance(50) {
            array.host.resources.clear();
        }
        if !array.host.resources.is_empty() {
            array.host.resources = vec!["gpu=1".to_owned()];
        }
        if random.chance(4) {
            array.host.labels = vec!["zone=nowhere".to_owned()];
        }
    }
}

/// A policy that becomes another: larger or smaller, with as much guaranteed as before or nothing.
fn change(random: &mut Random, tenants: &[TenantPlan]) -> Change {
    let tenant = random.below(tenants.len() as u64) as usize;
    let before = &tenants[tenant];
    let guaranteed = if random.chance(50) { before.guaranteed } else { 0 };
    let policy = TenantPlan {
        weight: random.between(1, 4) as u32,
        concurrent_tasks: random.between(1, 8) as u32,
        concurrent_memory: if random.chance(50) { random.between(256, 1024) } else { 64 << 10 },
        guaranteed,
        // Everybody may have a core at least, or would never get anywhere.
        borrow: if random.chance(40) { Some(random.between(1, 3) * 1_000) } else { None },
        lend: if random.chance(40) { Some(random.below(guaranteed / 1_000 + 1) * 1_000) } else { None },
        retention: if random.chance(20) { Some(random.between(2, 40) * 1_000) } else { before.retention },
        ..before.clone()
    };
    Change { at: random.below(TROUBLE.as_millis() as u64), tenant, policy }
}

/// Lets a task of some jobs kill its executor, as long as anybody runs it.
fn kill_executors(random: &mut Random, job: &mut JobPlan) {
    let array = random.below(job.arrays.len() as u64) as usize;
    let array = &mut job.arrays[array];
    if random.chance(5) && !array.upload {
        array.crashes = true;
    }
}
