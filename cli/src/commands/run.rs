//! `partita run`: a job file from push to result.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use partita_client::jobfile::{JobFile, ModuleSource};
use partita_client::types::{ByteSize, JobSpec, ModuleId};
use partita_client::{Client, JobBuilder, JobEvent, JobHandle, JobStatus, Progress, Watch};

use crate::app::App;
use crate::commands::module::{Quarantined, push};
use crate::commands::outputs::{self, Selection, Target};
use crate::outcome::{Outcome, usage};
use crate::process::stop_requested;
use crate::progress::Display;
use crate::summary;

const EXAMPLES: &str = "\
Examples:
  partita run job.toml
  partita run job.toml --result 'top[last]' --output top.json
  partita run job.toml --limit 256MiB --json
  partita run job.toml --detach        only submit; see `partita job watch`

A job belongs to the cluster: Ctrl-C stops watching, not the job.";

/// Run a job file: push its modules, submit it, watch it, print what it was.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The job file.
    file: PathBuf,
    /// Read at most about this much of every dataset.
    #[arg(long, value_name = "SIZE")]
    limit: Option<ByteSize>,
    /// Write the outputs of this array, or of one task of it, when the job has succeeded. The last task of a fold has
    /// its result.
    #[arg(long, value_name = "ARRAY[[TASK]][:OUTPUT]")]
    result: Option<Selection>,
    /// Where to write them; - is standard output.
    #[arg(long, value_name = "FILE", requires = "result")]
    output: Option<PathBuf>,
    /// Give up the results afterwards, so that the cluster can forget the job.
    #[arg(long, conflicts_with = "detach")]
    release: bool,
    /// Submit the job, print its number, and do not wait.
    #[arg(long, conflicts_with = "result")]
    detach: bool,
}

/// Does what the arguments say.
pub(crate) async fn run(app: &App, arguments: Arguments) -> anyhow::Result<Outcome> {
    let mut file = JobFile::read(&arguments.file)?;
    if let Some(limit) = arguments.limit {
        file.limit_datasets(limit);
    }
    if arguments.result.is_some() && arguments.output.is_none() && app.output.json {
        return Err(usage("with --json standard output is for JSON: say with --output where the result goes"));
    }
    let client = app.client()?;
    let spec = resolve(app, &client, &file).await?;
    if let Some(selection) = &arguments.result {
        outputs::check(selection, &spec)?;
    }
    let job = client.submit(JobBuilder::from_spec(spec)).await?;
    if arguments.detach {
        submitted(app, &job)?;
        return Ok(Outcome::Done);
    }
    if !app.output.json {
        app.output.note(&format!("job {} ({}) submitted", job.number(), file.name()));
    }
    let Some(status) = watch(app, &client, &job).await? else { return Ok(Outcome::Interrupted) };
    finish(app, &arguments, &job, &status).await
}

fn submitted(app: &App, job: &JobHandle) -> std::io::Result<()> {
    if app.output.json {
        app.output.json_line(&serde_json::json!({ "job": job.number() }))
    } else {
        app.output.line(&job.number().to_string())
    }
}

/// Looks up or pushes the modules of the file.
async fn resolve(app: &App, client: &Client, file: &JobFile) -> anyhow::Result<JobSpec> {
    let mut modules: BTreeMap<String, ModuleId> = BTreeMap::new();
    for (alias, source) in file.modules() {
        let id = match source {
            ModuleSource::Path(path) => push(client, &app.output, alias, path, Quarantined::Keep).await?.id(),
            ModuleSource::Name(name) => client.find_module(name).await?.id(),
            ModuleSource::Id(id) => *id,
        };
        modules.insert(alias.clone(), id);
    }
    Ok(file.spec(&modules)?)
}

/// Follows the job to its end; `None` if Ctrl-C came before.
async fn watch(app: &App, client: &Client, job: &JobHandle) -> anyhow::Result<Option<JobStatus>> {
    let mut display = Display::new(app.output);
    let ended = tokio::select! {
        ended = follow(client.watch(job.number(), 0), &mut display) => ended.map(|()| true),
        stop = stop_requested() => stop.map(|()| false),
    };
    display.finish();
    if ended? {
        return Ok(Some(job.status().await?));
    }
    let number = job.number();
    app.output.note(&format!("job {number} goes on; `partita job watch {number}` or `partita job cancel {number}`"));
    Ok(None)
}

async fn follow(mut watch: Watch, display: &mut Display) -> anyhow::Result<()> {
    /// After so many the bar only counts them.
    const TOLD: u64 = 5;
    let mut progress = Progress::default();
    loop {
        let events = watch.next_batch().await?;
        if events.is_empty() {
            return Ok(());
        }
        for event in &events {
            progress.apply(&event.what);
            if let JobEvent::AttemptFailed(failure) = &event.what
                && progress.failed_attempts() <= TOLD
            {
                let array = progress.array(failure.array).map_or("?", |array| array.name.as_str());
                let text = format!("attempt {} of {array}[{}]: {failure}", failure.attempts, failure.index);
                display.note(&crate::output::clean(&text));
            }
        }
        display.update(&progress);
    }
}

async fn finish(app: &App, arguments: &Arguments, job: &JobHandle, status: &JobStatus) -> anyhow::Result<Outcome> {
    let outcome = summary::outcome(status.state);
    let wanted = arguments.result.as_ref().filter(|_| outcome == Outcome::Done);
    let target = Target::new(arguments.output.as_deref());
    // Where the result goes to standard output, the summary makes room for it.
    let apart = wanted.is_some() && matches!(target, Target::Stdout);
    if !apart {
        summary::print(&app.output, status)?;
    }
    if let Some(selection) = wanted {
        let written = outputs::write_selected(job, selection, &target).await?;
        if !app.output.json {
            app.output.note(&format!("{written} of {} written", selection.array));
        }
    }
    if arguments.release {
        job.release().await?;
    }
    Ok(outcome)
}
