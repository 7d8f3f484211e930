//! `partita policy`: check and show the policies of a directory, without a cluster.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use partita_policy::{Bounds, PolicySet, Resources, TenantPolicy};
use partita_types::{ByteSize, MilliCpu, TaskLimits, TenantName, format_duration};
use serde_json::{Value, json};

use crate::app::App;
use crate::outcome::{Outcome, usage};
use crate::output::Table;

/// Check and show policies.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Check all policy files of a directory and report every fault.
    #[command(after_help = "Example:\n  partita policy check /etc/partita/policies")]
    Check {
        /// The directory.
        directory: PathBuf,
    },
    /// Show what the policies grant, with all defaults filled in.
    #[command(after_help = "Examples:\n  partita policy show policies\n  partita policy show policies analytics")]
    Show {
        /// The directory.
        directory: PathBuf,
        /// Only this tenant.
        tenant: Option<TenantName>,
    },
}

/// Does what the arguments say.
pub(crate) fn run(app: &App, arguments: &Arguments) -> anyhow::Result<Outcome> {
    match &arguments.command {
        PolicyCommand::Check { directory } => {
            let policies = PolicySet::load(directory)?;
            let (tenants, version) = (policies.iter().count(), policies.version());
            let guaranteed = policies.iter().map(|policy| policy.share.guaranteed);
            let guaranteed = guaranteed.fold(Resources::default(), Resources::saturating_add);
            if app.output.json {
                app.output.json_line(&json!({
                    "tenants": tenants,
                    "version": version.to_string(),
                    "guaranteed": resources_json(&guaranteed),
                }))?;
            } else {
                app.output.line(&format!("{}: {tenants} tenants, version {version}", directory.display()))?;
                if guaranteed != Resources::default() {
                    app.output.line(&format!("guaranteed to all together: {}", resources(&guaranteed)))?;
                }
            }
        }
        PolicyCommand::Show { directory, tenant } => show(app, directory, tenant.as_ref())?,
    }
    Ok(Outcome::Done)
}

fn show(app: &App, directory: &Path, tenant: Option<&TenantName>) -> anyhow::Result<()> {
    let policies = PolicySet::load(directory)?;
    let shown: Vec<_> = policies.iter().filter(|policy| tenant.is_none_or(|tenant| policy.name == *tenant)).collect();
    if let (Some(tenant), true) = (tenant, shown.is_empty()) {
        let names: Vec<_> = policies.iter().map(|policy| policy.name.as_str()).collect();
        return Err(usage(format!("no policy names tenant {tenant}; there are {}", names.join(", "))));
    }
    for (position, policy) in shown.into_iter().enumerate() {
        if app.output.json {
            app.output.json_line(&to_json(policy))?;
            continue;
        }
        if position > 0 {
            app.output.line("")?;
        }
        app.output.table(&to_table(policy))?;
    }
    Ok(())
}

fn to_json(policy: &TenantPolicy) -> Value {
    let quota = &policy.quota;
    let limits = |limits: &TaskLimits| {
        json!({
            "memory_bytes": limits.memory,
            "cpu_seconds": std::time::Duration::from_micros(limits.cpu_time.micros).as_secs_f64(),
            "wall_seconds": limits.wall_time.as_secs_f64(),
            "output_bytes": limits.output,
            "log_bytes": limits.log,
        })
    };
    let dataset = |grant: &partita_types::DatasetGrant| json!({ "name": grant.name, "location": grant.location, "include": grant.include });
    json!({
        "tenant": policy.name,
        "weight": quota.weight,
        "queued_tasks": quota.queued_tasks,
        "running_jobs": quota.running_jobs,
        "cpu_cores": cores(quota.cpu),
        "concurrent_tasks": quota.concurrent_tasks,
        "concurrent_memory_bytes": quota.concurrent_memory,
        "stored_bytes": quota.stored,
        "modules": quota.modules,
        "module_size_bytes": quota.module_size,
        "defaults": limits(&policy.task_defaults),
        "maxima": limits(&policy.task_maxima),
        "datasets": policy.datasets.iter().map(dataset).collect::<Vec<_>>(),
        "token_lifetime_seconds": policy.token_lifetime.as_secs(),
        "unrunnable_after_seconds": policy.unrunnable_after.as_secs(),
        "retention_seconds": policy.retention.map(|time| time.as_secs()),
        "minimum_isolation": policy.minimum_isolation.as_str(),
        "cohort": policy.share.cohort,
        "guaranteed": resources_json(&policy.share.guaranteed),
        "borrow": bounds_json(&policy.share.borrow),
        "lend": bounds_json(&policy.share.lend),
    })
}

fn cores(cpu: MilliCpu) -> Value {
    // Thousandths are exact in decimal, so print them as a number of cores without a detour through rounding.
    json!(cpu.0 as f64 / 1000.0)
}

fn resources_json(resources: &Resources) -> Value {
    let Resources { cpu, memory, stored } = resources;
    json!({ "cpu_cores": cores(*cpu), "memory_bytes": memory, "stored_bytes": stored })
}

fn bounds_json(bounds: &Bounds) -> Value {
    let Bounds { cpu, memory, stored } = bounds;
    json!({ "cpu_cores": cpu.map(cores), "memory_bytes": memory, "stored_bytes": stored })
}

fn resources(resources: &Resources) -> String {
    format!("CPU {}, memory {}, stored {}", resources.cpu, resources.memory, resources.stored)
}

/// Bounds in words; `otherwise` stands for each that is not given.
fn bounds(bounds: &Bounds, otherwise: &str) -> String {
    let size = |bound: Option<ByteSize>| bound.map_or_else(|| otherwise.to_owned(), |size| size.to_string());
    let cpu = bounds.cpu.map_or_else(|| otherwise.to_owned(), |cpu| cpu.to_string());
    format!("CPU {cpu}, memory {}, stored {}", size(bounds.memory), size(bounds.stored))
}

fn to_table(policy: &TenantPolicy) -> Table {
    let quota = &policy.quota;
    let limits = |limits: &TaskLimits| {
        format!(
            "memory {}, CPU {}, wall {}, output {}, log {}",
            limits.memory,
            limits.cpu_time,
            format_duration(limits.wall_time),
            limits.output,
            limits.log
        )
    };
    let mut table = Table::pairs();
    table.pair("tenant", &policy.name);
    table.pair("weight", quota.weight);
    table.pair("guaranteed", resources(&policy.share.guaranteed));
    table.pair("borrows at most", bounds(&policy.share.borrow, "any"));
    table.pair("lends at most", bounds(&policy.share.lend, "all"));
    table.pair("cohort", policy.share.cohort.as_ref().map_or("that of all who name none", |name| name.as_str()));
    table.pair("queued tasks", quota.queued_tasks);
    table.pair("running jobs", quota.running_jobs);
    table.pair("concurrent tasks", quota.frames());
    table.pair("concurrent memory", quota.concurrent_memory);
    table.pair("stored", quota.stored);
    table.pair("modules", format!("{} of at most {}", quota.modules, quota.module_size));
    table.pair("a task by default", limits(&policy.task_defaults));
    table.pair("a task at most", limits(&policy.task_maxima));
    for dataset in &policy.datasets {
        let include =
            if dataset.include.is_empty() { String::new() } else { format!(" ({})", dataset.include.join(", ")) };
        table.pair("dataset", format!("{}: {}{include}", dataset.name, dataset.location));
    }
    table.pair("token lifetime", format_duration(policy.token_lifetime));
    table.pair("unrunnable after", format_duration(policy.unrunnable_after));
    table.pair("retention", policy.retention.map_or_else(|| "until released".to_owned(), format_duration));
    table.pair("minimum isolation", policy.minimum_isolation.as_str());
    table
}
