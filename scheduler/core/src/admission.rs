//! Whether arrays can be accepted: everything is checked before anything is stored.

use partita_policy::TenantPolicy;
use partita_types::{ArraySource, ArraySpec, ByteSize, DatasetPlan, Edge, SpecError, TaskLimits, format_duration};

use crate::action::Refusal;
use crate::shape::{self, Shape};
use crate::tenant::Tenant;

/// Most retries of a task, so that a task's counter of failures is small.
const RETRIES_MAX: u32 = 100;

/// A tenant that asks for something, with its policy at hand.
pub(crate) struct Applicant<'a> {
    pub(crate) tenant: &'a Tenant,
    pub(crate) policy: &'a TenantPolicy,
}

impl Applicant<'_> {
    /// Checks what can be said before datasets were listed, and fills limits in from the policy.
    pub(crate) fn check(&self, arrays: &mut [ArraySpec]) -> Result<(), Refusal> {
        for array in arrays {
            self.check_function(array)?;
            self.fill_limits(array)?;
            self.check_datasets(array)?;
            let retries = array.options.retries;
            if retries > RETRIES_MAX {
                let what = format!("number of retries of array {:?}", array.name);
                let (value, limit) = (u64::from(retries), u64::from(RETRIES_MAX));
                return Err(SpecError::TooMany { what, value, limit }.into());
            }
        }
        Ok(())
    }

    /// The shapes of arrays whose datasets were listed, if their tasks fit into the quota.
    pub(crate) fn check_sizes(
        &self,
        arrays: &[ArraySpec],
        before: &[Shape],
        plans: &[DatasetPlan],
    ) -> Result<Vec<Shape>, Refusal> {
        let shapes = shape::resolve(arrays, before, plans)?;
        let tasks: u64 = shapes.iter().map(|shape| u64::from(shape.tasks)).sum();
        let queued = self.tenant.usage.queued_tasks.saturating_add(tasks);
        self.within("tasks that have not ended", self.policy.quota.queued_tasks, queued)?;
        Ok(shapes)
    }

    /// Whether the tenant may have one more job.
    pub(crate) fn check_jobs(&self) -> Result<(), Refusal> {
        let jobs = u64::from(self.tenant.usage.running_jobs) + 1;
        self.within("jobs that have not ended", u64::from(self.policy.quota.running_jobs), jobs)
    }

    fn within(&self, what: &'static str, limit: u64, value: u64) -> Result<(), Refusal> {
        if value <= limit {
            return Ok(());
        }
        Err(Refusal::Quota { tenant: self.tenant.name.clone(), what, limit, value })
    }

    fn check_function(&self, array: &ArraySpec) -> Result<(), Refusal> {
        let ArraySource::Function { module, function } = &array.source else { return Ok(()) };
        let (info, _) =
            self.tenant.module(*module).ok_or_else(|| Refusal::NotFound { what: format!("module {module}") })?;
        if let Some(quarantine) = self.tenant.quarantined.get(module) {
            let (array, reason) = (array.name.clone(), quarantine.reason.clone());
            return Err(Refusal::Quarantined { array, module: *module, reason });
        }
        let found = info.functions.iter().find(|known| known.name == *function);
        let found = found.ok_or_else(|| Refusal::UnknownFunction {
            array: array.name.clone(),
            function: function.clone(),
            module: *module,
            functions: info.functions.iter().map(|known| known.name.as_str()).collect::<Vec<_>>().join(", "),
        })?;
        let inputs = u32::try_from(array.inputs.len()).unwrap_or(u32::MAX);
        for (what, given, taken) in [("inputs", inputs, found.inputs), ("outputs", array.outputs, found.outputs)] {
            if let Some(taken) = taken.filter(|taken| *taken != given) {
                let (array, function) = (array.name.clone(), function.clone());
                return Err(Refusal::Signature { array, function, what, given, taken });
            }
        }
        Ok(())
    }

    fn check_datasets(&self, array: &ArraySpec) -> Result<(), Refusal> {
        for edge in &array.inputs {
            let Edge::Dataset { dataset, .. } = edge else { continue };
            if !self.policy.datasets.iter().any(|grant| grant.name == *dataset) {
                let known: Vec<_> = self.policy.datasets.iter().map(|grant| grant.name.as_str()).collect();
                let reason = match known.as_slice() {
                    [] => "the tenant's policy grants no datasets".to_owned(),
                    known => format!("the tenant's policy does not grant it; it grants: {}", known.join(", ")),
                };
                return Err(Refusal::Dataset { dataset: dataset.clone(), array: array.name.clone(), reason });
            }
        }
        Ok(())
    }

    fn fill_limits(&self, array: &mut ArraySpec) -> Result<(), Refusal> {
        let limits = array.options.limits.or(self.policy.task_defaults);
        if !matches!(array.source, ArraySource::Upload) {
            self.check_limits(&array.name, &limits)?;
            self.fill_memory_max(array, limits.memory)?;
        }
        array.options.limits = limits.into();
        Ok(())
    }

    /// How far the memory of an array's tasks may be raised: as the array says, or as far as the policy allows.
    fn fill_memory_max(&self, array: &mut ArraySpec, memory: ByteSize) -> Result<(), Refusal> {
        let allowed = self.policy.task_maxima.memory.min(self.policy.quota.concurrent_memory);
        let wanted = *array.options.memory_max.get_or_insert(allowed);
        let refuse = |limit: String| {
            let (tenant, array) = (self.tenant.name.clone(), array.name.clone());
            Err(Refusal::TaskLimit { tenant, array, what: "memory_max", value: wanted.to_string(), limit })
        };
        if wanted > allowed {
            return refuse(allowed.to_string());
        }
        if wanted < memory {
            let reason = "memory_max is less than memory, which is what its first attempts get";
            return Err(SpecError::Meaningless { array: array.name.clone(), reason }.into());
        }
        Ok(())
    }

    fn check_limits(&self, array: &str, limits: &TaskLimits) -> Result<(), Refusal> {
        let refuse = |what, value: String, limit: String| {
            let (tenant, array) = (self.tenant.name.clone(), array.to_owned());
            Err(Refusal::TaskLimit { tenant, array, what, value, limit })
        };
        let maxima = &self.policy.task_maxima;
        let memory = maxima.memory.min(self.policy.quota.concurrent_memory);
        let sizes = [
            ("memory", limits.memory, memory),
            ("output", limits.output, maxima.output),
            ("log", limits.log, maxima.log),
        ];
        for (what, value, limit) in sizes {
            if value > limit {
                return refuse(what, value.to_string(), limit.to_string());
            }
        }
        if limits.cpu_time > maxima.cpu_time {
            return refuse("CPU time", limits.cpu_time.to_string(), maxima.cpu_time.to_string());
        }
        if limits.wall_time > maxima.wall_time {
            let limit = format_duration(maxima.wall_time);
            return refuse("wall time", format_duration(limits.wall_time), limit);
        }
        Ok(())
    }
}
