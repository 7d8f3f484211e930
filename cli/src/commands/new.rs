//! `partita new`: a project with task functions, their tests and a job that runs them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use crate::app::App;
use crate::outcome::{Outcome, usage};

/// The files of a project, with `{{name}}`, `{{module}}` and `{{sdk}}` to be filled in.
const FILES: [(&str, &str); 4] = [
    ("Cargo.toml", include_str!("../../../guest-sdk/template/Cargo.toml.in")),
    ("src/lib.rs", include_str!("../../../guest-sdk/template/src/lib.rs")),
    ("job.toml", include_str!("../../../guest-sdk/template/job.toml")),
    ("README.md", include_str!("../../../guest-sdk/template/README.md")),
];
/// The SDK beside the sources that this program was built from.
const SDK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-sdk/guest");
/// Longest name of a project.
const NAME_MAX: usize = 64;

const EXAMPLES: &str = "\
Example:
  partita new hello && cd hello
  cargo test
  partita build
  partita run job.toml --result 'merge[last]'";

/// Make a project with task functions.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The directory to make; its last part is the name of the project.
    path: PathBuf,
    /// Where the crate `partita-guest` is [default: beside the sources of this program].
    #[arg(long, value_name = "DIRECTORY")]
    sdk: Option<PathBuf>,
}

/// Writes the project.
pub(crate) fn run(app: &App, arguments: &Arguments) -> anyhow::Result<Outcome> {
    let name = arguments.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !is_package_name(name) {
        return Err(usage(format!(
            "{name:?} is not the name of a project: use 1 to {NAME_MAX} of a-z, 0-9, '-' and '_', starting with a letter"
        )));
    }
    if arguments.path.exists() {
        return Err(usage(format!("{} is there already", arguments.path.display())));
    }
    let sdk = arguments.sdk.clone().unwrap_or_else(|| PathBuf::from(SDK));
    let found = sdk.canonicalize().ok().filter(|sdk| sdk.join("Cargo.toml").is_file());
    let Some(sdk) = found else {
        return Err(usage(format!(
            "the crate partita-guest is not in {}: say with --sdk where guest-sdk/guest of Partita's sources is",
            sdk.display()
        )));
    };
    for (file, template) in FILES {
        write(&arguments.path.join(file), &filled(template, name, &sdk))?;
    }
    if app.output.json {
        app.output.json_line(&json!({ "path": arguments.path }))?;
    } else {
        app.output.line(&format!("{} is ready; next: cd there, `partita build`", arguments.path.display()))?;
    }
    Ok(Outcome::Done)
}

/// Names that cargo takes and that need no quoting anywhere.
fn is_package_name(name: &str) -> bool {
    let letter = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    let rest = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
    letter && rest && name.len() <= NAME_MAX
}

fn filled(template: &str, name: &str, sdk: &Path) -> String {
    let sdk = sdk.display().to_string().replace('\\', "\\\\").replace('"', "\\\"");
    template.replace("{{name}}", name).replace("{{module}}", &name.replace('-', "_")).replace("{{sdk}}", &sdk)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use partita_client::jobfile::{JobFile, ModuleSource};

    use super::*;

    #[test]
    fn every_placeholder_of_the_template_is_filled_in() {
        for (file, template) in FILES {
            let text = filled(template, "my-tasks", Path::new("/sdk"));
            assert!(!text.contains("{{"), "{file}: {text}");
        }
    }

    #[test]
    fn the_job_of_the_template_runs_what_the_template_builds() {
        let text = filled(FILES[2].1, "my-tasks", Path::new("/sdk"));
        let job = JobFile::parse(&text, Path::new("my-tasks/job.toml")).unwrap();
        let module = PathBuf::from("my-tasks/target/wasm32-wasip2/guest/my_tasks.wasm");
        assert!(job.modules().values().eq([&ModuleSource::Path(module)]));
    }

    #[test]
    fn the_sdk_is_where_the_program_looks_for_it() {
        assert!(Path::new(SDK).join("Cargo.toml").is_file());
    }

    #[test]
    fn names_are_those_of_packages() {
        for good in ["hello", "my-tasks", "a1_b"] {
            assert!(is_package_name(good), "{good:?}");
        }
        for bad in ["", "Hello", "1st", "-a", "a b", "a/b", "ä", &"a".repeat(65)] {
            assert!(!is_package_name(bad), "{bad:?} was accepted");
        }
    }
}
