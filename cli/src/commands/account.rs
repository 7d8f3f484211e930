//! `partita usage` and `partita whoami`: what the tenant uses, and who the cluster takes the caller for.

use std::time::Duration;

use clap::Args;
use partita_client::TenantUsage;
use partita_types::format_duration;

use crate::app::App;
use crate::outcome::Outcome;
use crate::output::{Align, Table};

/// Show what the tenant uses and may use; for administrators, all tenants.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  partita usage\n  partita --context admin usage --json")]
pub(crate) struct UsageArguments {
    /// Only this tenant; for operators and administrators.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
}

/// Show who the cluster takes you for, and until when.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  partita --context analytics whoami")]
pub(crate) struct WhoAmIArguments {}

/// Prints one line for each tenant.
pub(crate) async fn usage(app: &App, arguments: UsageArguments) -> anyhow::Result<Outcome> {
    let mut client = app.client()?;
    if let Some(tenant) = &arguments.tenant {
        client = client.on_behalf_of(tenant);
    }
    app.output.list(&client.usage().await?, listing)?;
    Ok(Outcome::Done)
}

fn listing(tenants: &[TenantUsage]) -> Table {
    let mut table = Table::new(&[
        ("TENANT", Align::Left),
        ("WEIGHT", Align::Right),
        ("JOBS", Align::Right),
        ("TASKS", Align::Right),
        ("OF", Align::Right),
        ("ASSIGNED", Align::Right),
        ("MEMORY", Align::Right),
        ("STORED", Align::Right),
        ("CPU", Align::Right),
        ("PEAK", Align::Right),
    ]);
    for usage in tenants {
        table.row([
            usage.tenant.clone(),
            usage.weight.to_string(),
            usage.running_jobs.to_string(),
            usage.queued_tasks.to_string(),
            usage.queued_tasks_limit.to_string(),
            usage.assigned_tasks.to_string(),
            usage.assigned_memory.to_string(),
            usage.stored.to_string(),
            usage.cpu.to_string(),
            usage.peak_memory.to_string(),
        ]);
    }
    table
}

/// Prints who the cluster takes the caller for.
pub(crate) async fn who_am_i(app: &App) -> anyhow::Result<Outcome> {
    let principal = app.client()?.who_am_i().await?;
    if app.output.json {
        app.output.json_line(&principal)?;
        return Ok(Outcome::Done);
    }
    let now = partita_identity::now().micros / 1_000_000;
    let mut table = Table::pairs();
    table.pair("subject", &principal.subject);
    table.pair("tenant", &principal.tenant);
    table.pair("role", &principal.role);
    table.pair("cluster", &principal.cluster);
    table.pair("token", &principal.token_id);
    let left = Duration::from_secs(principal.expires_at_s.saturating_sub(now));
    table.pair("expires in", format_duration(left));
    app.output.table(&table)?;
    Ok(Outcome::Done)
}
