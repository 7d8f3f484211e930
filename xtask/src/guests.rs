//! Builds the guest modules: every package of the tree that is a dynamic library, compiled to a WebAssembly component.
//!
//! Whichever way the target was set up, the components are found in the same place, [`directory`].

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::setup::{self, Target};
use crate::workspace::{Workspace, run};

/// The cargo profile of guests: small and fast, one codegen unit.
const PROFILE: &str = "guest";

/// Where the built components are.
pub(crate) fn directory(workspace: &Workspace) -> PathBuf {
    workspace.target.join(setup::TARGET).join(PROFILE)
}

/// Builds all guest modules and returns their components.
pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<Vec<PathBuf>> {
    let names: Vec<&str> = workspace.guests().map(|package| package.name.as_str()).collect();
    build_some(workspace, &names)
}

/// Builds the guest modules of the packages named.
pub(crate) fn build_some(workspace: &Workspace, names: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let target = setup::ensure(workspace)?;
    let packages = names.iter().flat_map(|name| ["--package", name]);
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--lib", "--profile", PROFILE]).args(packages);
    let files = names.iter().map(|name| format!("{}.wasm", name.replace('-', "_")));
    let components = files.map(|file| directory(workspace).join(file)).collect::<Vec<_>>();
    match target {
        Target::Components => run(cargo.args(["--target", setup::TARGET]))?,
        Target::CoreModules(toolchain) => {
            run(toolchain.configure(&mut cargo).args(["--target", setup::CORE_TARGET]))?;
            let cores = workspace.target.join(setup::CORE_TARGET).join(PROFILE);
            encode(workspace, &cores, &components)?;
        }
    }
    for component in &components {
        component.metadata().with_context(|| format!("the build made no {}", component.display()))?;
    }
    Ok(components)
}

/// Turns core modules into components, by a small program of the tree that is built only for this.
fn encode(workspace: &Workspace, cores: &Path, components: &[PathBuf]) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory(workspace))
        .with_context(|| format!("cannot create {}", directory(workspace).display()))?;
    for component in components {
        let core = cores.join(component.file_name().unwrap_or_default());
        let mut cargo = workspace.cargo();
        cargo.args(["run", "--quiet", "--package", "xtask-componentize", "--"]).arg(core).arg(component);
        run(&mut cargo)?;
    }
    Ok(())
}
