//! What the process counts and measures, for Prometheus.
//!
//! Labels come from fixed lists and the tenant table only, so that nobody outside can make new ones.

use partita_core::{Core, TaskEnd};
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Tenants that get lines of their own; those beyond are counted together as `other`.
const TENANTS: usize = 200;
const OTHER: &str = "other";

/// All metrics of a scheduler. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) events: IntCounter,
    pub(crate) inbox: IntGauge,
    pub(crate) sessions: IntGauge,
    pub(crate) stale_messages: IntCounter,
    pub(crate) bad_messages: IntCounter,
    pub(crate) abandons_lost: IntCounter,
    pub(crate) append_seconds: Histogram,
    pub(crate) flush_seconds: Histogram,
    pub(crate) batch_records: Histogram,
    pub(crate) relayed_bytes: IntCounter,
    pub(crate) refused_for_space: IntCounter,
    /// Calls by method and code.
    pub(crate) calls: IntCounterVec,
    tasks_ended: IntCounterVec,
    policy_errors: IntGauge,
    queued_tasks: IntGaugeVec,
    concurrent_tasks: IntGaugeVec,
    concurrent_memory: IntGaugeVec,
    stored: IntGaugeVec,
    cpu: IntGaugeVec,
    oversubscribed: IntGaugeVec,
    preemptions: IntGauge,
    hosts: IntGaugeVec,
}

/// The metrics cannot be registered; a fault of this program.
#[derive(Debug, thiserror::Error)]
#[error("cannot register a metric")]
pub struct MetricsError(#[from] prometheus::Error);

/// Makes metrics and registers each.
struct Maker(Registry);

impl Maker {
    fn add<M: prometheus::core::Collector + Clone + 'static>(
        &self,
        metric: prometheus::Result<M>,
    ) -> Result<M, MetricsError> {
        let metric = metric?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, MetricsError> {
        self.add(IntCounter::new(name, help))
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, MetricsError> {
        self.add(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, label: &str) -> Result<IntGaugeVec, MetricsError> {
        self.add(IntGaugeVec::new(Opts::new(name, help), &[label]))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, MetricsError> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// Buckets that double, from `first` on.
    fn histogram(&self, name: &str, help: &str, first: f64, buckets: usize) -> Result<Histogram, MetricsError> {
        let buckets = prometheus::exponential_buckets(first, 2.0, buckets)?;
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
    }
}

impl Metrics {
    /// Registers all.
    pub(crate) fn new() -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let make = Maker(registry.clone());
        let seconds = |name: &str, help: &str| make.histogram(name, help, 0.000_05, 16);
        Ok(Self {
            events: make.counter("partita_core_events_total", "Events applied by the core")?,
            inbox: make.gauge("partita_core_inbox_depth", "Inputs that wait for the core")?,
            sessions: make.gauge("partita_host_sessions", "Open sessions of hosts")?,
            stale_messages: make.counter("partita_stale_messages_total", "Messages of replaced sessions")?,
            bad_messages: make.counter("partita_bad_messages_total", "Messages of hosts that mean nothing")?,
            abandons_lost: make.counter("partita_abandons_lost_total", "Abandoned calls the core was not told of")?,
            append_seconds: seconds("partita_journal_append_seconds", "Time to append one batch")?,
            flush_seconds: seconds("partita_journal_flush_seconds", "Time to make appended batches durable")?,
            batch_records: make.histogram("partita_journal_batch_records", "Records in a batch", 1.0, 14)?,
            relayed_bytes: make.counter("partita_relayed_bytes_total", "Bytes passed between clients and hosts")?,
            refused_for_space: make.counter(
                "partita_refused_for_space_total",
                "Jobs and modules refused because the disk is almost full",
            )?,
            calls: make.counters("partita_calls_total", "Calls begun, by method and code", &["method", "code"])?,
            tasks_ended: make.counters("partita_tasks_ended_total", "Tasks that ended, by end", &["end"])?,
            policy_errors: make.gauge("partita_policy_broken", "1 while the policy files on disk have a fault")?,
            queued_tasks: make.gauges("partita_queued_tasks", "Tasks that have not ended", "tenant")?,
            concurrent_tasks: make.gauges("partita_concurrent_tasks", "Frames handed to hosts", "tenant")?,
            concurrent_memory: make.gauges("partita_concurrent_memory_bytes", "Memory reserved", "tenant")?,
            stored: make.gauges("partita_stored_bytes", "Partitions kept", "tenant")?,
            cpu: make.gauges("partita_cpu_used_microseconds", "CPU time used by tasks", "tenant")?,
            oversubscribed: make.gauges(
                "partita_guarantees_beyond_cluster",
                "Guarantees beyond what attached hosts have, by resource and unit",
                "resource",
            )?,
            preemptions: make
                .gauge("partita_preempted_frames", "Frames stopped in favour of guarantees since the start")?,
            hosts: make.gauges("partita_hosts", "Hosts, by state", "state")?,
            registry,
        })
    }

    /// Counts tasks that ended.
    pub(crate) fn tasks_ended(&self, end: TaskEnd, count: u64) {
        let end = match end {
            TaskEnd::Succeeded => "succeeded",
            TaskEnd::Failed => "failed",
            TaskEnd::Cancelled => "cancelled",
            TaskEnd::Aborted => "aborted",
        };
        self.tasks_ended.with_label_values(&[end]).inc_by(count);
    }

    /// Notes whether the policy files on disk are in force.
    pub(crate) fn policies_broken(&self, broken: bool) {
        self.policy_errors.set(i64::from(broken));
    }

    /// Sets what is read from the state.
    pub(crate) fn look(&self, core: &Core) {
        let tenants = [&self.queued_tasks, &self.concurrent_tasks, &self.concurrent_memory, &self.stored, &self.cpu];
        tenants.into_iter().chain([&self.hosts]).for_each(IntGaugeVec::reset);
        let add = |metric: &IntGaugeVec, label: &str, value: u64| {
            metric.with_label_values(&[label]).add(i64::try_from(value).unwrap_or(i64::MAX));
        };
        for (position, tenant) in core.tenants().iter().enumerate() {
            let label = if position < TENANTS { tenant.name.as_str() } else { OTHER };
            add(&self.queued_tasks, label, tenant.queued_tasks);
            add(&self.concurrent_tasks, label, u64::from(tenant.concurrent_tasks));
            add(&self.concurrent_memory, label, tenant.concurrent_memory.0);
            add(&self.stored, label, tenant.stored.0);
            add(&self.cpu, label, tenant.cpu.micros);
        }
        let beyond = core.oversubscription();
        self.oversubscribed.reset();
        add(&self.oversubscribed, "cpu_millicores", beyond.cpu.0);
        add(&self.oversubscribed, "memory_bytes", beyond.memory.0);
        add(&self.oversubscribed, "stored_bytes", beyond.stored.0);
        self.preemptions.set(i64::try_from(core.preemptions()).unwrap_or(i64::MAX));
        for state in ["attached", "detached", "lost"] {
            add(&self.hosts, state, 0);
        }
        for host in core.hosts() {
            add(&self.hosts, host.state, 1);
        }
    }

    /// Everything, in Prometheus' text format.
    pub(crate) fn text(&self) -> Result<String, prometheus::Error> {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_registers_and_has_a_unit_or_a_count() {
        let metrics = Metrics::new().unwrap();
        metrics.tasks_ended(TaskEnd::Succeeded, 3);
        metrics.look(&Core::new());
        let text = metrics.text().unwrap();
        assert!(text.contains("partita_tasks_ended_total{end=\"succeeded\"} 3"), "{text}");
        assert!(text.contains("partita_hosts{state=\"attached\"} 0"), "{text}");
    }

    /// I46: whatever tenants there are, the number of series is bounded.
    #[test]
    fn the_number_of_lines_is_bounded_whatever_tenants_are_called() {
        let lines = |tenants: usize| {
            let text: String = (0..tenants).map(|number| format!("[tenant.team-{number}]\n")).collect();
            let (mut core, mut actions) = (Core::new(), Vec::new());
            for policy in partita_policy::PolicySet::parse(&[("test", &text)]).unwrap().iter() {
                let event = partita_core::Event::TenantDefined(policy.clone());
                core.apply(partita_identity::now(), event, &mut actions);
            }
            let metrics = Metrics::new().unwrap();
            metrics.look(&core);
            let text = metrics.text().unwrap();
            assert_eq!(text.contains("tenant=\"other\""), tenants > TENANTS, "{tenants} tenants");
            text.lines().count()
        };
        assert!(lines(TENANTS) > lines(1));
        assert_eq!(lines(TENANTS + 1), lines(5 * TENANTS));
    }
}
