//! `partita state`: look after the journal of a scheduler that is not running.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use partita_core::{Core, Record};
use partita_store::{DiskJournal, Journal, Replayed};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::app::App;
use crate::outcome::{Outcome, usage};

/// The version of exported lines.
const FORMAT: u32 = 1;
/// Records that are written together by an import.
const TOGETHER: usize = 4_096;

/// Verify, export, import or compact the state of a scheduler that is not running.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: StateCommand,
}

#[derive(Debug, Subcommand)]
enum StateCommand {
    /// Check every checksum, replay everything, and say what is there.
    #[command(
        after_help = "Examples:\n  partita state verify --data /var/lib/partita\n  partita --json state verify --data dev/scheduler --cluster dev"
    )]
    Verify(Place),
    /// Write every record as a line of JSON.
    #[command(after_help = "Example:\n  partita state export --data /var/lib/partita --output state.jsonl")]
    Export {
        #[command(flatten)]
        place: Place,
        /// The file to write; it must not exist.
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Make a new state from exported lines.
    #[command(after_help = "Example:\n  partita state import --data /var/lib/partita-new --input state.jsonl")]
    Import {
        #[command(flatten)]
        place: Place,
        /// The file to read.
        #[arg(long, value_name = "FILE")]
        input: PathBuf,
    },
    /// Drop what only tells of released jobs. A running scheduler does that by itself, when it is worth it.
    #[command(after_help = "Example:\n  partita state compact --data /var/lib/partita")]
    Compact(Place),
}

/// Whose state.
#[derive(Debug, Args)]
struct Place {
    /// The data directory of the scheduler.
    #[arg(long, value_name = "DIRECTORY")]
    data: PathBuf,
    /// The name of the cluster, as the scheduler was given it.
    #[arg(long, default_value = "partita")]
    cluster: String,
}

/// The first line of an export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    partita_state: u32,
    cluster: String,
}

impl Place {
    fn directory(&self) -> PathBuf {
        self.data.join("state")
    }

    fn open(&self) -> anyhow::Result<DiskJournal> {
        let directory = self.directory();
        if !directory.is_dir() {
            return Err(usage(format!(
                "{} is not the data directory of a scheduler: it has no state",
                self.data.display()
            )));
        }
        Ok(DiskJournal::open(&directory, &self.cluster)?)
    }
}

/// Does what the arguments say.
pub(crate) fn run(app: &App, arguments: &Arguments) -> anyhow::Result<Outcome> {
    match &arguments.command {
        StateCommand::Verify(place) => verify(app, place),
        StateCommand::Export { place, output } => export(app, place, output),
        StateCommand::Import { place, input } => import(app, place, input),
        StateCommand::Compact(place) => compact(app, place),
    }
}

/// Replays a journal; `visit` sees each record.
fn replay(journal: &mut DiskJournal, mut visit: impl FnMut(&Record)) -> anyhow::Result<(Core, Replayed)> {
    let (mut core, mut actions) = (Core::new(), Vec::new());
    let replayed = journal.replay(&mut |record| {
        visit(&record);
        core.restore(&record, &mut actions);
        actions.clear();
    })?;
    Ok((core, replayed))
}

fn verify(app: &App, place: &Place) -> anyhow::Result<Outcome> {
    let mut journal = place.open()?;
    let (core, replayed) = replay(&mut journal, |_| ())?;
    core.check_invariants().context("the records are whole, but the state that they lead to is not consistent")?;
    let found = core.contents();
    let repairs: Vec<String> = journal.repairs().iter().map(ToString::to_string).collect();
    if app.output.json {
        app.output.json_line(&json!({
            "batches": replayed.batches,
            "records": replayed.records,
            "bytes": replayed.bytes,
            "compactions": journal.compactions(),
            "tenants": found.tenants,
            "modules": found.modules,
            "jobs": found.jobs,
            "unfinished_tasks": found.unfinished_tasks,
            "records_without_effect": core.stale(),
            "repairs": repairs,
        }))?;
        return Ok(Outcome::Done);
    }
    for repair in repairs {
        app.output.line(&format!("repaired: {repair}"))?;
    }
    app.output.line(&format!(
        "{}: {} records in {} batches, {} bytes, all whole",
        place.directory().display(),
        replayed.records,
        replayed.batches,
        replayed.bytes
    ))?;
    app.output.line(&format!(
        "{} tenants, {} modules, {} jobs, {} tasks that have not ended",
        found.tenants, found.modules, found.jobs, found.unfinished_tasks
    ))?;
    Ok(Outcome::Done)
}

fn export(app: &App, place: &Place, output: &Path) -> anyhow::Result<Outcome> {
    let mut journal = place.open()?;
    let failed = || format!("cannot write {}", output.display());
    let file = File::create_new(output).with_context(failed)?;
    let mut lines = BufWriter::new(file);
    let header = Header { partita_state: FORMAT, cluster: place.cluster.clone() };
    let mut written = write_line(&mut lines, &header);
    let (_, replayed) = replay(&mut journal, |record| {
        if written.is_ok() {
            written = write_line(&mut lines, record);
        }
    })?;
    written.and_then(|()| Ok(lines.into_inner()?.sync_all()?)).with_context(failed)?;
    told(app, "exported", output, replayed.records)
}

fn write_line(lines: &mut impl Write, value: &impl Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *lines, value)?;
    Ok(lines.write_all(b"\n")?)
}

fn import(app: &App, place: &Place, input: &Path) -> anyhow::Result<Outcome> {
    let directory = place.directory();
    if directory.exists() {
        return Err(usage(format!("{} exists; import into a new data directory", directory.display())));
    }
    let file = File::open(input).with_context(|| format!("cannot read {}", input.display()))?;
    let mut lines = (1_u64..).zip(BufReader::new(file).lines());
    let first = lines.next().context("the file is empty")?.1?;
    let at = |line: u64| format!("{}, line {line}", input.display());
    let header: Header = serde_json::from_str(&first).with_context(|| at(1))?;
    if header.partita_state != FORMAT {
        bail!("{} has version {}, and this program reads version {FORMAT}", input.display(), header.partita_state);
    }
    if header.cluster != place.cluster {
        return Err(usage(format!("{} is of cluster {:?}; say --cluster {0:?}", input.display(), header.cluster)));
    }
    let mut journal = DiskJournal::open(&directory, &place.cluster)?;
    let (mut core, mut actions, mut batch, mut records) = (Core::new(), Vec::new(), Vec::new(), 0);
    for (number, line) in lines {
        let record: Record = serde_json::from_str(&line?).with_context(|| at(number))?;
        core.restore(&record, &mut actions);
        actions.clear();
        batch.push(record);
        records += 1;
        if batch.len() == TOGETHER {
            journal.append(&batch)?;
            batch.clear();
        }
    }
    if !batch.is_empty() {
        journal.append(&batch)?;
    }
    journal.flush()?;
    core.check_invariants().context("the state that these records lead to is not consistent")?;
    told(app, "imported", input, records)
}

fn compact(app: &App, place: &Place) -> anyhow::Result<Outcome> {
    let mut journal = place.open()?;
    let (core, before) = replay(&mut journal, |_| ())?;
    if let Some(compaction) = journal.begin_compaction() {
        let compacted = compaction.run(core.compaction())?;
        journal.adopt(compacted)?.remove()?;
    }
    let (_, after) = replay(&mut journal, |_| ())?;
    if app.output.json {
        app.output.json_line(&json!({
            "records": { "before": before.records, "after": after.records },
            "bytes": { "before": before.bytes, "after": after.bytes },
        }))?;
    } else {
        app.output.line(&format!(
            "{}: {} records before, {} now; {} bytes before, {} now",
            place.directory().display(),
            before.records,
            after.records,
            before.bytes,
            after.bytes
        ))?;
    }
    Ok(Outcome::Done)
}

fn told(app: &App, what: &str, file: &Path, records: u64) -> anyhow::Result<Outcome> {
    if app.output.json {
        app.output.json_line(&json!({ what: records }))?;
    } else {
        app.output.line(&format!("{what} {records} records: {}", file.display()))?;
    }
    Ok(Outcome::Done)
}
