//! What must hold of core leases at every host: no more runs than there are cores, limits of CPU hold, and tenants that
//! could use the whole host get what their weights say. CPU time is counted here once more, from what runs.

use std::collections::BTreeMap;

use partita_host_logic::leases::SLICE;
use partita_types::{MilliCpu, TenantId};

use crate::host::SimHost;
use crate::lanes::Lane;
use crate::world::World;
use crate::{Checked, ensure};

/// So many slices at most a tenant may be behind another when both begin to want everything.
const HEAD_START: u64 = 20;
/// What a limit allows at once, in slices per core of it.
const BURST: u64 = 2;
/// By how much a limit may be overdrawn on each core until that is noticed, in microseconds.
const LATE: u64 = 3_000;

/// What was seen at one host since its process started.
#[derive(Debug, Default)]
pub(crate) struct LeaseWatch {
    at: u64,
    /// CPU time that each tenant got.
    given: BTreeMap<TenantId, u64>,
    /// What limited tenants have used beyond their rate, in thousandths of a microsecond.
    above: BTreeMap<TenantId, (MilliCpu, u64)>,
    /// What two tenants had got when both began to want everything, and their weights.
    pairs: BTreeMap<(TenantId, TenantId), Pair>,
    /// The process stood still: until nothing is left of that, some catch up on others.
    disturbed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair {
    given: (u64, u64),
    weights: (u64, u64),
}

impl World {
    /// Looks at a host before anything changes there.
    pub(crate) fn watch_leases(&mut self, position: usize) -> Checked {
        let now = self.now;
        let SimHost { lanes, tenants, frozen_until, lease_watch: watch, capacity, name, .. } =
            &mut self.hosts[position];
        let cores = u64::from(capacity.cores);
        let lanes: Vec<&Lane> = lanes.iter().flatten().collect();
        let running = lanes.iter().filter(|lane| !lane.is_paused()).count() as u64;
        ensure(running <= cores, "no_more_runs_than_there_are_leases", || format!("{name}: {running} of {cores}"))?;
        let passed = now - std::mem::replace(&mut watch.at, now);
        if *frozen_until + passed > now {
            // Nobody could pause anybody.
            watch.above.clear();
            watch.pairs.clear();
            watch.disturbed = true;
            return Ok(());
        }
        watch.disturbed &= !lanes.is_empty();
        let mut used: BTreeMap<TenantId, u64> = BTreeMap::new();
        for lane in lanes.iter().filter(|lane| !lane.is_paused()) {
            *used.entry(lane.tenant()).or_default() += passed;
        }
        for (tenant, used) in &used {
            *watch.given.entry(*tenant).or_default() += used;
        }
        let limits = tenants.iter().filter_map(|(tenant, terms)| Some((*tenant, terms.limit?)));
        let limits: BTreeMap<TenantId, MilliCpu> = limits.filter(|(_, limit)| limit.0 < cores * 1_000).collect();
        watch.limits_of_cpu_hold(&limits, &used, (passed, cores))?;
        let mut frames: BTreeMap<TenantId, u64> = BTreeMap::new();
        for lane in lanes {
            *frames.entry(lane.tenant()).or_default() += 1;
        }
        frames.retain(|tenant, frames| *frames >= cores && !limits.contains_key(tenant));
        if tenants.values().any(|terms| terms.guaranteed.0 > 0) {
            // What is guaranteed does not go by weight.
            frames.clear();
        }
        let weights = frames.keys().map(|tenant| (*tenant, tenants.get(tenant).map_or(1, |terms| terms.weight.into())));
        watch.cpu_is_shared_by_weight(&weights.collect(), cores)
    }
}

impl LeaseWatch {
    /// A limit is never exceeded by more than its burst, and what is used until that is noticed.
    fn limits_of_cpu_hold(
        &mut self,
        limits: &BTreeMap<TenantId, MilliCpu>,
        used: &BTreeMap<TenantId, u64>,
        (passed, cores): (u64, u64),
    ) -> Checked {
        self.above.retain(|tenant, (limit, _)| limits.get(tenant) == Some(limit));
        for (tenant, limit) in limits {
            let used = used.get(tenant).copied().unwrap_or_default();
            let (_, above) = self.above.entry(*tenant).or_insert((*limit, 0));
            *above = (*above + used * 1_000).saturating_sub(passed * limit.0);
            let burst = BURST * SLICE.as_micros() as u64 * limit.0.max(1_000);
            let most = burst + LATE * cores * 1_000;
            let above = *above;
            ensure(above <= most, "limits_of_cpu_hold", || {
                format!("tenant {} with {limit} is {} µs above", tenant.0, above / 1_000)
            })?;
        }
        Ok(())
    }

    /// Two tenants, each of which could use the whole host, get CPU time in the relation of their weights.
    fn cpu_is_shared_by_weight(&mut self, weights: &BTreeMap<TenantId, u64>, cores: u64) -> Checked {
        if self.disturbed {
            self.pairs.clear();
            return Ok(());
        }
        self.pairs.retain(|(one, other), pair| {
            (weights.get(one), weights.get(other)) == (Some(&pair.weights.0), Some(&pair.weights.1))
        });
        let given = |tenant| self.given.get(tenant).copied().unwrap_or_default();
        let slices = HEAD_START + 2 * cores + 2;
        for (one, of_one) in weights {
            for (other, of_other) in weights.range(one..).skip(1) {
                let now = Pair { given: (given(one), given(other)), weights: (*of_one, *of_other) };
                let before = self.pairs.entry((*one, *other)).or_insert(now);
                let got = (now.given.0 - before.given.0, now.given.1 - before.given.1);
                let difference = (got.0 * of_other).abs_diff(got.1 * of_one);
                let most = slices * SLICE.as_micros() as u64 * (of_one + of_other);
                ensure(difference <= most, "cpu_is_shared_by_weight", || {
                    format!("tenants {} and {} of weights {:?} got {got:?} µs", one.0, other.0, now.weights)
                })?;
            }
        }
        Ok(())
    }
}
