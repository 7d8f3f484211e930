//! Where things are in this source tree, and how other programs are called.
//!
//! What is known of the tree comes from `cargo metadata`, so that a moved target directory is found too.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// This source tree.
pub(crate) struct Workspace {
    /// The directory of the root manifest.
    pub(crate) root: PathBuf,
    /// Where cargo puts what it builds.
    pub(crate) target: PathBuf,
    /// The packages of the tree, in the order of the root manifest.
    pub(crate) packages: Vec<Package>,
}

/// One package of the tree.
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// Its directory, relative to the root, with forward slashes.
    pub(crate) directory: String,
    /// Whether it builds a guest module: a dynamic library is one when compiled to WebAssembly.
    pub(crate) is_guest: bool,
    /// What it needs to be built or tested.
    pub(crate) dependencies: Vec<Dependency>,
}

/// What a package needs.
pub(crate) struct Dependency {
    /// The name of the other package.
    pub(crate) name: String,
    /// Whether only its tests need it.
    pub(crate) for_tests: bool,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let text = output(cargo(None).args(["metadata", "--no-deps", "--format-version", "1"]))?;
        let metadata: Value = serde_json::from_str(&text).context("cannot read the answer of cargo metadata")?;
        let path = |key: &str| {
            let text = metadata.get(key).and_then(Value::as_str);
            text.map(PathBuf::from).with_context(|| format!("cargo metadata does not tell the {key}"))
        };
        let root = path("workspace_root")?;
        let packages =
            metadata.get("packages").and_then(Value::as_array).context("cargo metadata lists no packages")?;
        let packages = packages.iter().map(|package| Package::parse(package, &root)).collect::<Result<_, _>>()?;
        Ok(Self { target: path("target_directory")?, root, packages })
    }

    /// A cargo command that runs at the root.
    pub(crate) fn cargo(&self) -> Command {
        cargo(Some(&self.root))
    }

    /// The packages that build guest modules.
    pub(crate) fn guests(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.is_guest)
    }

    /// The files under version control and those that could be put there, relative to the root.
    pub(crate) fn files(&self) -> anyhow::Result<Vec<String>> {
        let listing = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let text = output(Command::new("git").current_dir(&self.root).args(listing))?;
        let mut files: Vec<String> = text.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        files.retain(|name| self.root.join(name).is_file());
        files.sort();
        Ok(files)
    }
}

impl Package {
    fn parse(package: &Value, root: &Path) -> anyhow::Result<Self> {
        let name = text_of(package, "name")?;
        let manifest = PathBuf::from(text_of(package, "manifest_path")?);
        let directory = manifest.parent().and_then(|path| path.strip_prefix(root).ok());
        let directory = directory.with_context(|| format!("package {name} is outside of the tree"))?;
        let targets = package.get("targets").and_then(Value::as_array).into_iter().flatten();
        let mut kinds = targets.filter_map(|target| target.get("kind")?.as_array()).flatten();
        let listed = package.get("dependencies").and_then(Value::as_array).into_iter().flatten();
        let dependencies = listed.map(Dependency::parse).collect::<Result<_, _>>()?;
        Ok(Self {
            directory: directory.to_string_lossy().replace('\\', "/"),
            is_guest: kinds.any(|kind| kind == "cdylib"),
            name,
            dependencies,
        })
    }
}

impl Dependency {
    fn parse(dependency: &Value) -> anyhow::Result<Self> {
        let for_tests = dependency.get("kind").and_then(Value::as_str) == Some("dev");
        Ok(Self { name: text_of(dependency, "name")?, for_tests })
    }
}

fn text_of(value: &Value, key: &str) -> anyhow::Result<String> {
    let text = value.get(key).and_then(Value::as_str);
    text.map(str::to_owned).with_context(|| format!("cargo metadata lists a package without {key}"))
}

fn cargo(directory: Option<&Path>) -> Command {
    // Under `cargo xtask` this names the very cargo that was called, whatever the path says.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    if let Some(directory) = directory {
        command.current_dir(directory);
    }
    command
}

/// The command as one would type it.
pub(crate) fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs a command whose output goes to the terminal.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let text = describe(command);
    let status = command.status().with_context(|| format!("cannot start `{text}`"))?;
    if !status.success() {
        bail!("`{text}` ended with {status}");
    }
    Ok(())
}

/// Runs a command and returns what it wrote to standard output.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let text = describe(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{text}`"))?;
    if !output.status.success() {
        bail!("`{text}` ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{text}` wrote something that is not text"))
}
