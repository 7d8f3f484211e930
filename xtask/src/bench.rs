//! `cargo xtask bench`: builds the measuring program in release mode, runs it, and adds the figures of the demo.

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::workspace::Workspace;
use crate::{children, demo, guests};

/// The guest of the measurements.
const GUEST: &str = "partita-bench-guest";

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Print one line of JSON at the end instead of a table.
    #[arg(long)]
    json: bool,
    /// How often to measure each figure.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Only this group of figures: `demo`, or one that `partita-bench --help` lists.
    #[arg(long, value_name = "GROUP")]
    only: Option<String>,
    /// How much the demo reads; all there is if not given.
    #[arg(long, value_name = "SIZE")]
    limit: Option<String>,
}

/// Builds, measures, prints.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    children::watch_signals()?;
    let mut figures = Vec::new();
    let only = arguments.only.as_deref();
    if only != Some("demo") {
        figures.extend(measure(workspace, arguments)?);
    }
    if only.is_none_or(|only| only == "demo") {
        figures.extend(measure_demo(workspace, arguments)?);
    }
    figures.sort_by_key(|figure| figure.get("name").map(Value::to_string));
    if arguments.json {
        println!("{}", json!({ "figures": figures }));
    } else {
        print(&figures);
    }
    Ok(())
}

/// The figures of the program `partita-bench`.
fn measure(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Vec<Value>> {
    let guest =
        guests::build_some(workspace, &[GUEST])?.pop().context("the guest of the measurements was not built")?;
    let mut build = workspace.cargo();
    build.args(["build", "--release", "--package", "partita-cli", "--package", "partita-bench"]);
    children::run(build.stdin(Stdio::null()))?;
    let release = workspace.target.join("release");
    let mut bench = Command::new(release.join("partita-bench"));
    bench.arg("--partita").arg(release.join("partita")).arg("--guest").arg(guest);
    bench.args(["--json", "--runs", &arguments.runs.to_string()]);
    if let Some(group) = &arguments.only {
        bench.args(["--only", group]);
    }
    let output = children::output(&mut bench)?;
    let answer: Value = serde_json::from_str(output.trim()).context("cannot read what partita-bench measured")?;
    match answer.get("figures") {
        Some(Value::Array(figures)) => Ok(figures.clone()),
        _ => bail!("partita-bench lists no figures"),
    }
}

/// The figures of the demo, a third of the runs: each takes minutes.
fn measure_demo(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Vec<Value>> {
    let runs = arguments.runs.div_ceil(3);
    let mut speeds = Vec::new();
    let mut ratios = Vec::new();
    for _ in 0..runs {
        let summary = demo::measure(workspace, arguments.limit.as_deref())?;
        speeds.push(summary.mib() / summary.seconds);
        ratios.push(summary.seconds / summary.native.seconds);
    }
    Ok(vec![figure("demo.mib_s", "MiB/s", speeds), figure("demo.native_ratio", "x", ratios)])
}

fn figure(name: &str, unit: &str, mut values: Vec<f64>) -> Value {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
    let (min, max) = (values.first().copied(), values.last().copied());
    json!({ "name": name, "value": median, "unit": unit, "min": min, "max": max, "runs": values.len() })
}

fn print(figures: &[Value]) {
    println!("{:<32} {:>14} {:>14} {:>14}  unit", "figure", "median", "min", "max");
    for figure in figures {
        let text = |key: &str| figure.get(key).and_then(Value::as_str).unwrap_or_default();
        let number = |key: &str| figure.get(key).and_then(Value::as_f64).unwrap_or_default();
        let (value, min, max) = (number("value"), number("min"), number("max"));
        println!("{:<32} {value:>14.2} {min:>14.2} {max:>14.2}  {}", text("name"), text("unit"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_a_figure_is_the_median() {
        assert_eq!(
            figure("a.b", "s", vec![3.0, 1.0, 2.0]),
            json!({ "name": "a.b", "value": 2.0, "unit": "s", "min": 1.0, "max": 3.0, "runs": 3 })
        );
        assert_eq!(figure("a.b", "s", vec![3.0, 1.0]).get("value"), Some(&json!(2.0)));
    }
}
