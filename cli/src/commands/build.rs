//! `partita build`: from a project to the component of its task functions.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use clap::Args;
use partita_types::ByteSize;
use serde_json::{Value, json};

use crate::app::App;
use crate::outcome::{Outcome, usage};

/// Whose builds are components already.
const TARGET: &str = "wasm32-wasip2";

const EXAMPLES: &str = "\
Examples:
  partita build
  partita build --project ./hello --output hello.wasm
  partita build --profile release

Needs the WebAssembly target once: rustup target add wasm32-wasip2";

/// Build the task functions of a project: a WebAssembly component, with cargo.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The directory of the project.
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    project: PathBuf,
    /// The cargo profile [default: guest, if the project's Cargo.toml has it, otherwise release].
    #[arg(long)]
    profile: Option<String>,
    /// Copy the component here.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Builds, and prints where the components are.
pub(crate) fn run(app: &App, arguments: &Arguments) -> anyhow::Result<Outcome> {
    if !arguments.project.join("Cargo.toml").is_file() {
        let project = arguments.project.display();
        return Err(usage(format!(
            "{project} has no Cargo.toml: go to a project, or make one with `partita new NAME`"
        )));
    }
    check_target()?;
    let mut components = compile(arguments)?;
    if let Some(output) = &arguments.output {
        let [component] = components.as_slice() else {
            return Err(usage(format!(
                "the project makes {} components, so --output cannot be used",
                components.len()
            )));
        };
        std::fs::copy(component, output).with_context(|| format!("cannot write {}", output.display()))?;
        components = vec![output.clone()];
    }
    if components.is_empty() {
        return Err(usage("the project makes no component: its Cargo.toml needs `[lib] crate-type = [\"cdylib\"]`"));
    }
    for component in &components {
        let size = std::fs::metadata(component).with_context(|| format!("cannot find {}", component.display()))?.len();
        if app.output.json {
            app.output.json_line(&json!({ "path": component, "bytes": size }))?;
        } else {
            app.output.line(&format!("{} ({})", component.display(), ByteSize(size)))?;
        }
    }
    Ok(Outcome::Done)
}

/// Cargo would say the same at the end of a hundred lines.
fn check_target() -> anyhow::Result<()> {
    let answer = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    let answer = answer.context("cannot run rustc: install Rust from https://rustup.rs")?;
    let directory = String::from_utf8_lossy(&answer.stdout);
    if answer.status.success() && Path::new(directory.trim()).is_dir() {
        return Ok(());
    }
    Err(usage(format!("the Rust target {TARGET} is not installed: run `rustup target add {TARGET}`")))
}

fn compile(arguments: &Arguments) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("cargo")
        .args(["build", "--target", TARGET, "--message-format", "json-render-diagnostics", "--profile"])
        .arg(profile(arguments))
        .current_dir(&arguments.project)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo: install Rust from https://rustup.rs")?;
    if !output.status.success() {
        anyhow::bail!("cargo could not build the project ({})", output.status);
    }
    Ok(components(&String::from_utf8_lossy(&output.stdout)))
}

/// The profile that was asked for, or the one that projects have for this.
fn profile(arguments: &Arguments) -> &str {
    let manifest = || {
        let text = std::fs::read_to_string(arguments.project.join("Cargo.toml")).ok()?;
        text.parse::<toml::Table>().ok()?.get("profile")?.get("guest").map(|_| "guest")
    };
    arguments.profile.as_deref().or_else(manifest).unwrap_or("release")
}

/// The components among the artefacts that cargo lists.
fn components(messages: &str) -> Vec<PathBuf> {
    let artefacts = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let artefacts = artefacts.filter(|message| message["reason"] == "compiler-artifact");
    let files = artefacts.filter_map(|message| message["filenames"].as_array().cloned()).flatten();
    let paths = files.filter_map(|file| file.as_str().map(PathBuf::from));
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "wasm")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_found_among_cargos_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"filenames\":[\"/t/libserde.rlib\"]}\nnot json\n\
                        {\"reason\":\"compiler-artifact\",\"filenames\":[\"/t/hello.wasm\",\"/t/hello.d\"]}\n\
                        {\"reason\":\"build-finished\",\"filenames\":[\"/t/other.wasm\"]}\n";
        assert_eq!(components(messages), [PathBuf::from("/t/hello.wasm")]);
    }
}
