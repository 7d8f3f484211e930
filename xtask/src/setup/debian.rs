//! The way over Debian's packages: a standard library for `wasm32-wasip1`, built once from source.
//!
//! Debian ships a compiler that knows the WebAssembly targets (`rustc-web`), the source of the standard library and a C
//! library for WASI, but no compiled standard library. This builds it, in about a minute, and lays out a sysroot in the
//! target directory: the compiler runs from there and nothing outside of it changes, apart from the packages.

use std::fmt;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::{CORE_TARGET, holds_library};
use crate::workspace::{Workspace, output, run};

/// What has to be installed.
pub(crate) const PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "wasi-libc"];
/// Debian's compiler.
const RUSTC: &str = "/usr/bin/rustc";
/// Debian's C library for WASI.
const WASI_LIBRARIES: &str = "/usr/lib/wasm32-wasi";

/// A compiler with a standard library for core modules.
pub(crate) struct Toolchain {
    sysroot: PathBuf,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a standard library built from Debian's packages is in {}", self.sysroot.display())
    }
}

impl Toolchain {
    /// Makes a cargo command use it.
    pub(crate) fn configure<'a>(&self, cargo: &'a mut Command) -> &'a mut Command {
        cargo.env("RUSTC", self.compiler())
    }

    fn compiler(&self) -> PathBuf {
        self.sysroot.join("bin/rustc")
    }

    /// Written last: without it the sysroot is unfinished.
    fn stamp(&self) -> PathBuf {
        self.sysroot.join("complete")
    }

    fn libraries(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib").join(CORE_TARGET).join("lib")
    }
}

fn toolchain(workspace: &Workspace) -> Toolchain {
    Toolchain { sysroot: workspace.target.join("wasm-sysroot") }
}

/// The toolchain, if it was built before.
pub(crate) fn find(workspace: &Workspace) -> Option<Toolchain> {
    let toolchain = toolchain(workspace);
    toolchain.stamp().exists().then_some(toolchain)
}

/// Installs the packages if they are missing, and builds the standard library.
pub(crate) fn install(workspace: &Workspace) -> anyhow::Result<Toolchain> {
    if let Some(toolchain) = find(workspace) {
        return Ok(toolchain);
    }
    install_packages()?;
    let toolchain = toolchain(workspace);
    if toolchain.sysroot.exists() {
        fs::remove_dir_all(&toolchain.sysroot)
            .with_context(|| format!("cannot remove the unfinished {}", toolchain.sysroot.display()))?;
    }
    println!("Building Rust's standard library for {CORE_TARGET} from source; this takes a minute, once.");
    lay_out(&toolchain)?;
    build_standard_library(workspace, &toolchain)?;
    let stamp = toolchain.stamp();
    fs::write(&stamp, "").with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(toolchain)
}

fn install_packages() -> anyhow::Result<()> {
    let is_installed = |package: &&str| {
        let status = output(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]));
        status.is_ok_and(|status| status == "installed")
    };
    let missing: Vec<&str> = PACKAGES.into_iter().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    output(Command::new("apt-get").arg("--version")).context("this is not Debian: there is no apt-get")?;
    println!("Installing Debian's {}.", missing.join(", "));
    let root = output(Command::new("id").arg("-u"))?.trim() == "0";
    let apt = |arguments: &[&str]| {
        let words = ["apt-get", "--quiet=2"].iter().chain(arguments);
        // Without a password or not at all: a question in the middle of a build would go unseen.
        let mut command = if root { Command::new("env") } else { Command::new("sudo") };
        if !root {
            command.arg("--non-interactive");
        }
        run(command.args(words))
    };
    apt(&["update"])?;
    apt(&[&["install", "--yes", "--no-install-recommends"], missing.as_slice()].concat())
}

/// A directory that Debian's compiler accepts as its own: its libraries for this machine, a linker, the source.
fn lay_out(toolchain: &Toolchain) -> anyhow::Result<()> {
    let real = PathBuf::from(output(Command::new(RUSTC).args(["--print", "sysroot"]))?.trim());
    let version = output(Command::new(RUSTC).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.with_context(|| format!("{RUSTC} does not tell for which machine it compiles"))?;
    let rustlib = toolchain.sysroot.join("lib/rustlib");
    let tools = rustlib.join(host).join("bin");
    let own = toolchain.libraries().join("self-contained");
    for directory in [&tools, &own, &toolchain.sysroot.join("bin")] {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    let link = |from: &Path, to: &Path| {
        symlink(from, to).with_context(|| format!("cannot link {} to {}", to.display(), from.display()))
    };
    link(&real.join("lib/rustlib").join(host).join("lib"), &rustlib.join(host).join("lib"))?;
    link(&real.join("lib/rustlib/src"), &rustlib.join("src"))?;
    link(&find_linker()?, &tools.join("rust-lld"))?;
    copy_c_library(&own)?;
    let compiler = toolchain.compiler();
    let script = format!("#!/bin/sh\nexec {RUSTC} --sysroot '{}' \"$@\"\n", toolchain.sysroot.display());
    fs::write(&compiler, script).with_context(|| format!("cannot write {}", compiler.display()))?;
    fs::set_permissions(&compiler, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", compiler.display()))
}

/// The linker for WebAssembly: the one in the toolchain of this tree, or one of Debian's.
fn find_linker() -> anyhow::Result<PathBuf> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let hosts = fs::read_dir(Path::new(sysroot.trim()).join("lib/rustlib"));
    let bundled = hosts.into_iter().flatten().flatten().map(|entry| entry.path().join("bin/rust-lld"));
    let debian = ["wasm-ld", "lld", "wasm-ld-22", "lld-22", "wasm-ld-19", "lld-19"];
    let debian = debian.iter().map(|name| Path::new("/usr/bin").join(name));
    bundled.chain(debian).find(|path| path.exists()).context("there is no linker for WebAssembly: apt-get install lld")
}

fn copy_c_library(to: &Path) -> anyhow::Result<()> {
    let entries = fs::read_dir(WASI_LIBRARIES).with_context(|| format!("cannot list {WASI_LIBRARIES}"))?;
    for entry in entries {
        let from = entry.with_context(|| format!("cannot list {WASI_LIBRARIES}"))?.path();
        let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let wanted =
            name.starts_with("crt1") || name.starts_with("libwasi-emulated") || name == "libc.a" || name == "libm.a";
        if wanted {
            fs::copy(&from, to.join(&name)).with_context(|| format!("cannot copy {}", from.display()))?;
        }
    }
    Ok(())
}

/// Has cargo compile the standard library for an empty crate, and takes the libraries.
fn build_standard_library(workspace: &Workspace, toolchain: &Toolchain) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir().context("cannot create a temporary directory")?;
    let path = scratch.path();
    let write = |name: &str, text: &str| {
        fs::write(path.join(name), text).with_context(|| format!("cannot write {name} in {}", path.display()))
    };
    write("Cargo.toml", "[package]\nname = \"empty\"\nedition = \"2021\"\n[lib]\npath = \"lib.rs\"\n[workspace]\n")?;
    write("lib.rs", "#![no_std]\n")?;
    let target = path.join("target");
    let mut cargo = workspace.cargo();
    toolchain.configure(&mut cargo).current_dir(path);
    // Only unstable cargo builds the standard library. Guests are optimised across crates, hence the bitcode.
    cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Cembed-bitcode=yes").env("CARGO_TARGET_DIR", &target);
    run(cargo.args(["build", "--release", "-Zbuild-std=std,panic_abort", "--target", CORE_TARGET]))?;
    let built = target.join(CORE_TARGET).join("release/deps");
    let entries = fs::read_dir(&built).with_context(|| format!("cannot list {}", built.display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".rlib") && !name.starts_with("libempty") {
            let to = toolchain.libraries().join(&name);
            fs::copy(entry.path(), &to).with_context(|| format!("cannot write {}", to.display()))?;
        }
    }
    if !holds_library(&toolchain.libraries(), "libstd-") {
        bail!("cargo built no standard library for {CORE_TARGET}");
    }
    Ok(())
}
