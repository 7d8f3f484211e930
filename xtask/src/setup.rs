//! `cargo xtask setup`: makes it possible to compile guests to WebAssembly.
//!
//! The first way is rustup's target `wasm32-wasip2`, whose builds are components already. Where rustup is missing or
//! cannot download, Debian's packages give a standard library for `wasm32-wasip1`; those builds are core modules, which
//! [`crate::guests`] encodes as components. Nothing is fetched if a way is open already, so this works offline then.

mod debian;

use std::path::Path;
use std::process::Command;

use anyhow::bail;

pub(crate) use self::debian::Toolchain;
use crate::workspace::{self, Workspace, output};

/// The target whose builds are components.
pub(crate) const TARGET: &str = "wasm32-wasip2";
/// The target whose builds are core modules.
pub(crate) const CORE_TARGET: &str = "wasm32-wasip1";

/// Options of `cargo xtask setup`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Take the way over Debian's packages even if rustup could do it.
    #[arg(long)]
    debian: bool,
}

/// How guests are compiled on this machine.
pub(crate) enum Target {
    /// To components.
    Components,
    /// To core modules, with another toolchain.
    CoreModules(Toolchain),
}

/// Says what it finds and does.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    println!("Guests are WebAssembly components; compiling them needs a standard library for {TARGET}.");
    let target =
        if arguments.debian { debian::install(workspace).map(Target::CoreModules)? } else { ensure(workspace)? };
    match target {
        Target::Components => println!("Ready: this toolchain has {TARGET}."),
        Target::CoreModules(toolchain) => println!("Ready: {toolchain}. Builds go through {CORE_TARGET}."),
    }
    Ok(())
}

/// Finds a way to compile guests, making one if there is none yet.
pub(crate) fn ensure(workspace: &Workspace) -> anyhow::Result<Target> {
    if has_standard_library(workspace)? {
        return Ok(Target::Components);
    }
    if let Some(toolchain) = debian::find(workspace) {
        return Ok(Target::CoreModules(toolchain));
    }
    eprintln!("The target {TARGET} is missing; asking rustup for it: rustup target add {TARGET}");
    let mut rustup = Command::new("rustup");
    match workspace::run(rustup.current_dir(&workspace.root).args(["target", "add", TARGET])) {
        Ok(()) if has_standard_library(workspace)? => return Ok(Target::Components),
        Ok(()) => eprintln!("rustup added the target to another toolchain than the one that cargo uses here"),
        Err(error) => eprintln!("That did not work: {error:#}"),
    }
    eprintln!("Trying Debian's packages instead.");
    match debian::install(workspace) {
        Ok(toolchain) => Ok(Target::CoreModules(toolchain)),
        Err(error) => bail!(
            "cannot compile guests here: {error:#}\n\nInstall one of these, then run `cargo xtask setup` again:\n  \
             - with rustup and a network: rustup target add {TARGET}\n  \
             - on Debian: apt-get install {}\n  \
             - the package of your distribution that has Rust's standard library for {TARGET}",
            debian::PACKAGES.join(" ")
        ),
    }
}

/// Whether the compiler that cargo uses here can compile for [`TARGET`]. Asks the compiler, not rustup, which need not
/// be there.
fn has_standard_library(workspace: &Workspace) -> anyhow::Result<bool> {
    let mut rustc = Command::new("rustc");
    rustc.current_dir(&workspace.root).args(["--print", "target-libdir", "--target", TARGET]);
    let directory = output(&mut rustc)?;
    Ok(holds_library(Path::new(directory.trim()), "libstd-"))
}

/// Whether a directory has a Rust library whose file name begins so.
fn holds_library(directory: &Path, prefix: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(directory) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with(prefix) && name.ends_with(".rlib")
    })
}
