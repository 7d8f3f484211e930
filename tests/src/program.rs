//! Where the program under test and the guests are. They are built before the tests run: by `cargo xtask test`, or by
//! hand with the command that the panic names.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The directory of the root manifest.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are in a directory of the repository")
}

/// Where cargo puts programs of the profile of this one, which is there itself or, if it is a test, in `deps` below.
fn profile() -> PathBuf {
    let own = std::env::current_exe().expect("a program knows where it is");
    let directory = own.parent().expect("a program is in a directory");
    if directory.ends_with("deps") {
        directory.parent().expect("deps is in TARGET/PROFILE").to_owned()
    } else {
        directory.to_owned()
    }
}

/// The target directory.
fn target() -> PathBuf {
    profile().parent().expect("a profile is in the target directory").to_owned()
}

/// A command that runs the program `partita`, built with the same profile as the tests.
///
/// # Panics
/// If it has not been built.
#[must_use]
pub fn partita() -> Command {
    let program = profile().join("partita");
    assert!(program.exists(), "{} is missing: run `cargo build --package partita-cli`", program.display());
    Command::new(program)
}

/// The component of the guest package with this name.
///
/// # Panics
/// If it has not been built.
#[must_use]
pub fn guest(package: &str) -> PathBuf {
    let file = format!("{}.wasm", package.replace('-', "_"));
    let component = target().join("wasm32-wasip2").join("guest").join(file);
    assert!(component.exists(), "{} is missing: run `cargo xtask guests`", component.display());
    component
}

/// The text of the job file of an example, with the path of its module as it is here.
///
/// # Panics
/// If there is no such example.
#[must_use]
pub fn example_job(name: &str) -> String {
    let file = repository().join("examples").join(name).join("job.toml");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
    text.replace("\"../../target/", &format!("\"{}/", target().display()))
}
