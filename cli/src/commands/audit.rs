//! `partita audit`: who changed what, who was refused, and whether the log is what was written.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use partita_audit::{Entry, Line, Principal, Verified};
use partita_client::Client;
use partita_types::Timestamp;
use serde_json::json;

use crate::app::App;
use crate::outcome::Outcome;
use crate::output::clean;

/// Lines of one call.
const PAGE: u32 = 1_000;
/// How often `--follow` asks.
const FOLLOW: Duration = Duration::from_secs(1);

/// Show, export or verify the audit log: who changed what, and who was refused.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Show the last entries. For auditors and administrators.
    #[command(after_help = "Examples:\n  partita audit tail\n  partita --context auditor --json audit tail --follow")]
    Tail {
        /// How many.
        #[arg(long, default_value_t = 20)]
        lines: u64,
        /// Go on showing new ones.
        #[arg(long, short)]
        follow: bool,
    },
    /// Write all entries to a file, with their hashes. For auditors and administrators.
    #[command(
        after_help = "Examples:\n  partita audit export --output audit.log\n  partita audit export --after 1000 --output new.log"
    )]
    Export {
        /// Only those behind this number.
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        after: u64,
        /// The file to write; it must not exist.
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Check that every line is what was written: of an exported file, or of a scheduler's data directory.
    #[command(
        after_help = "Examples:\n  partita audit verify audit.log\n  partita audit verify /var/lib/partita\n\nNote the number and the hash that it prints: as long as a later log has the same\nhash at that number, nothing up to there was changed."
    )]
    Verify {
        /// The file, or the directory.
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
}

/// Does what the arguments say.
pub(crate) async fn run(app: &App, arguments: Arguments) -> anyhow::Result<Outcome> {
    match arguments.command {
        AuditCommand::Tail { lines, follow } => tail(app, lines, follow).await?,
        AuditCommand::Export { after, output } => export(app, after, &output).await?,
        AuditCommand::Verify { path } => verify(app, &path)?,
    }
    Ok(Outcome::Done)
}

async fn tail(app: &App, lines: u64, follow: bool) -> anyhow::Result<()> {
    let client = app.client()?;
    let last = client.audit(0, 0).await?.last;
    let mut seen = last.saturating_sub(lines);
    loop {
        seen = each(&client, seen, |line| show(app, line)).await?;
        if !follow {
            return Ok(());
        }
        tokio::time::sleep(FOLLOW).await;
    }
}

async fn export(app: &App, after: u64, output: &Path) -> anyhow::Result<()> {
    let client = app.client()?;
    let file = File::create_new(output).with_context(|| format!("cannot create {}", output.display()))?;
    let mut file = BufWriter::new(file);
    let failed = || format!("cannot write {}", output.display());
    let last = each(&client, after, |line| writeln!(file, "{line}").with_context(failed)).await?;
    file.into_inner().map_err(|error| error.into_error()).and_then(|file| file.sync_all()).with_context(failed)?;
    if app.output.json {
        app.output.json_line(&json!({ "first": after + 1, "last": last, "output": output }))?;
    } else {
        app.output.line(&format!("{} entries up to number {last} in {}", last - after.min(last), output.display()))?;
    }
    Ok(())
}

/// Calls `take` with every line behind `after`, and returns the number of the last.
async fn each(client: &Client, after: u64, mut take: impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<u64> {
    let mut last = after;
    loop {
        let page = client.audit(last, PAGE).await?;
        for line in &page.lines {
            last = last.max(parse(line)?.entry.sequence);
            take(line)?;
        }
        if !page.more || page.lines.is_empty() {
            return Ok(last);
        }
    }
}

fn parse(line: &str) -> anyhow::Result<Line> {
    Line::parse(line).context("the cluster sent a line that is none")
}

fn show(app: &App, line: &str) -> anyhow::Result<()> {
    let Line { hash, entry } = parse(line)?;
    if app.output.json {
        let mut value = serde_json::to_value(&entry)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("hash".to_owned(), hash.to_string().into());
        }
        return Ok(app.output.json_line(&value)?);
    }
    Ok(app.output.line(&clean(&text(&entry)))?)
}

/// One line for people.
fn text(entry: &Entry) -> String {
    let who = match &entry.principal {
        Principal::Token { tenant, subject, role, .. } => format!("{subject} ({tenant}, {role})"),
        Principal::Host { name } => format!("host {name}"),
        Principal::Unknown if entry.address.is_empty() => "somebody".to_owned(),
        Principal::Unknown => format!("somebody at {}", entry.address),
        Principal::Scheduler => "the scheduler".to_owned(),
        Principal::Local { user } => format!("user {user} at the scheduler"),
    };
    let Entry { sequence, action, object, outcome, .. } = entry;
    let mut text = format!("{sequence:>6}  {}  {who}  {action}", Timestamp::from_micros(entry.at_us));
    if !object.is_empty() {
        text.push_str(&format!("  {object}"));
    }
    text.push_str(&format!("  {outcome}"));
    if entry.suppressed > 0 {
        text.push_str(&format!("  (and {} refusals before it)", entry.suppressed));
    }
    text
}

fn verify(app: &App, path: &Path) -> anyhow::Result<()> {
    let directory = path.join("audit");
    let Verified { first, last, torn } = if path.is_file() {
        partita_audit::verify_file(path)?
    } else if directory.is_dir() {
        partita_audit::verify(&directory)?
    } else {
        bail!("{} is neither an exported audit log nor the data directory of a scheduler", path.display());
    };
    let (number, hash) = (last.sequence, last.hash.to_string());
    if app.output.json {
        app.output.json_line(&json!({ "first": first, "last": number, "hash": hash, "torn_bytes": torn }))?;
        return Ok(());
    }
    app.output.line(&format!("entries {first} to {number} are what was written"))?;
    app.output.line(&format!("hash of the last  {hash}"))?;
    if torn > 0 {
        app.output
            .note(&format!("{torn} bytes behind it are no whole line: it is being written, or a crash left them"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_says_who_did_what_to_what_with_which_outcome() {
        let entry = Entry {
            sequence: 7,
            at_us: 1_700_000_000_000_000,
            principal: Principal::Token {
                tenant: "analytics".to_owned(),
                subject: "ann".to_owned(),
                role: "developer".to_owned(),
                token: "1f".to_owned(),
            },
            address: "127.0.0.1:9".to_owned(),
            action: "Jobs/Cancel".to_owned(),
            object: "job 3".to_owned(),
            outcome: "ok".to_owned(),
            policy: "1".to_owned(),
            suppressed: 2,
        };
        assert_eq!(
            text(&entry),
            "     7  2023-11-14T22:13:20.000Z  ann (analytics, developer)  Jobs/Cancel  job 3  ok  (and 2 refusals before it)"
        );
    }
}
