//! `cargo xtask etl`: the etl example on a table that is as large as one likes.
//!
//! The table of the example has 249 rows. Here each of them comes many times, under a name of its own, and while the large
//! table is written, its summary is made natively: the job must come to the same, byte for byte.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::cluster::{Cluster, job_file, now};
use crate::demo::step;
use crate::workspace::Workspace;
use crate::{children, guests, setup};

/// Hosts of the cluster.
const HOSTS: u32 = 2;
/// Pieces of this size are good for a large table.
const SPLIT: &str = "8MiB";

/// Options of `cargo xtask etl`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How often each country of the small table comes in the large one; 2000 makes about 30 MB.
    #[arg(long, value_name = "TIMES", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    scale: u32,
    /// Only write the large table into this file; no cluster is started.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// End with one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Makes the table, and unless that is all, runs the job on it.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    let small = workspace.root.join("examples/etl/data/countries.csv");
    if let Some(file) = &arguments.write {
        let table = Table::write(&small, file, arguments.scale)?;
        println!("{}: {} rows, {:.1} MiB", file.display(), table.rows, mib(table.bytes));
        return Ok(());
    }
    children::watch_signals()?;
    let line = measure(workspace, &small, arguments.scale)?;
    if arguments.json {
        println!("{line}");
    }
    Ok(())
}

fn measure(workspace: &Workspace, small: &Path, scale: u32) -> anyhow::Result<Value> {
    let program = build(workspace)?;
    let scratch = tempfile::Builder::new().prefix("partita-etl-").tempdir();
    let scratch = scratch.context("cannot create a temporary directory")?;
    step(&format!("Writing a table with every country {scale} times"));
    let data = scratch.path().join("data");
    fs::create_dir(&data).with_context(|| format!("cannot create {}", data.display()))?;
    let table = Table::write(small, &data.join("countries.csv"), scale)?;
    println!("{} rows, {:.1} MiB", table.rows, mib(table.bytes));

    step(&format!("Running the etl example on {HOSTS} hosts"));
    let (cluster, _) = Cluster::start(&program, scratch.path(), &policy(&data), HOSTS)?;
    let job = job_file(workspace, "etl", scratch.path())?;
    let text = fs::read_to_string(&job).with_context(|| format!("cannot read {}", job.display()))?;
    fs::write(&job, text.replace("\"4KiB\"", &format!("{SPLIT:?}")))
        .with_context(|| format!("cannot write {}", job.display()))?;
    let result = scratch.path().join("result.csv");
    let begin = now();
    children::output(&mut cluster.run("analytics", &job, "table", &result)).context("the etl job failed")?;
    let seconds = begin.elapsed().as_secs_f64();
    let figures = cluster.figures("analytics")?;
    cluster.stop()?;
    let found = fs::read_to_string(&result).with_context(|| format!("cannot read {}", result.display()))?;
    ensure!(found == table.summary, "the job came to\n{found}\nand the native run to\n{}", table.summary);
    ensure!(figures.bytes_read == table.bytes, "the job read {} of {} bytes", figures.bytes_read, table.bytes);
    let mib_s = mib(table.bytes) / seconds;
    println!("Verified: the same table as natively. {} tasks, {seconds:.2} s, {mib_s:.0} MiB/s", figures.tasks);
    Ok(json!({
        "verified": true, "hosts": HOSTS, "rows": table.rows, "mib": mib(table.bytes), "tasks": figures.tasks,
        "seconds": seconds, "mib_s": mib_s, "bytes_moved": figures.bytes_moved,
    }))
}

/// Builds the guest and the program; returns the program.
fn build(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    step("Building the example, then the program in release mode");
    setup::ensure(workspace)?;
    guests::build_some(workspace, &["partita-example-etl"])?;
    let mut cargo: Command = workspace.cargo();
    children::run(cargo.args(["build", "--release", "--package", "partita-cli", "--bin", "partita"]))?;
    Ok(workspace.target.join("release/partita"))
}

fn policy(data: &Path) -> String {
    // A string of JSON is one of TOML as well.
    let location = Value::from(data.display().to_string());
    format!(
        "[tenant.analytics]\n\n[[tenant.analytics.dataset]]\nname = \"countries\"\nlocation = {location}\n\
         include = [\"countries*.csv\"]\n"
    )
}

/// A table that was written.
struct Table {
    rows: u64,
    bytes: u64,
    /// What the job must come to.
    summary: String,
}

impl Table {
    /// Writes every row of the small table `scale` times and summarises what was written.
    fn write(small: &Path, large: &Path, scale: u32) -> anyhow::Result<Self> {
        let mut reader = csv::Reader::from_path(small).with_context(|| format!("cannot read {}", small.display()))?;
        let headings = reader.headers()?.clone();
        let countries: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>()?;
        let file = File::create(large).with_context(|| format!("cannot create {}", large.display()))?;
        let mut writer = csv::Writer::from_writer(BufWriter::new(file));
        writer.write_record(&headings)?;
        let mut groups = Groups::default();
        for copy in 0..scale {
            for country in &countries {
                let mut row: Vec<String> = country.iter().map(str::to_owned).collect();
                if copy > 0 {
                    row[0] = format!("{} {copy}", row[0]);
                }
                groups.take(&row[4], &row[5], &row[0]);
                writer.write_record(&row)?;
            }
        }
        let mut file = writer.into_inner().context("cannot write the table")?;
        file.flush().with_context(|| format!("cannot write {}", large.display()))?;
        let bytes = fs::metadata(large)?.len();
        Ok(Self { rows: countries.len() as u64 * u64::from(scale), bytes, summary: groups.summary()? })
    }
}

/// Number of countries and longest name, by region and sub-region.
#[derive(Default)]
struct Groups(BTreeMap<(String, String), (u64, String)>);

impl Groups {
    fn take(&mut self, region: &str, sub_region: &str, name: &str) {
        if region.is_empty() {
            return;
        }
        let (count, longest) = self.0.entry((region.to_owned(), sub_region.to_owned())).or_default();
        *count += 1;
        let letters = |name: &str| name.chars().count();
        // Of names of equal length the first one in the alphabet counts.
        if (letters(name), std::cmp::Reverse(name)) > (letters(longest), std::cmp::Reverse(longest.as_str())) {
            name.clone_into(longest);
        }
    }

    fn summary(&self) -> anyhow::Result<String> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["region", "sub_region", "countries", "longest_name"])?;
        for ((region, sub_region), (count, longest)) in &self.0 {
            writer.write_record([region.as_str(), sub_region, &count.to_string(), longest])?;
        }
        Ok(String::from_utf8(writer.into_inner().context("cannot write the summary")?)?)
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_as_it_is_has_the_summary_that_the_example_expects() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/etl/data");
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("countries.csv");
        let table = Table::write(&data.join("countries.csv"), &file, 1).unwrap();
        assert_eq!(table.summary, fs::read_to_string(data.join("expected.csv")).unwrap());
        assert_eq!(fs::read(file).unwrap(), fs::read(data.join("countries.csv")).unwrap());
    }

    #[test]
    fn a_larger_table_has_larger_groups() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/etl/data");
        let directory = tempfile::tempdir().unwrap();
        let table = Table::write(&data.join("countries.csv"), &directory.path().join("large.csv"), 3).unwrap();
        assert_eq!(table.rows, 747);
        assert!(table.summary.contains("Africa,Northern Africa,21,Western Sahara 1\n"), "{}", table.summary);
    }
}
