//! The direction of dependencies: a package of this tree needs only packages before it in [`ORDER`], and some libraries
//! are named in one place only.

use super::Fault;
use crate::workspace::Package;

/// The directories of the tree, bottom first. A package belongs to the entry that is its directory or holds it.
const ORDER: [&str; 20] = [
    "types",
    "policies",
    "protocol",
    "identity",
    "guest-sdk/macros",
    "guest-sdk/guest",
    "host/logic",
    "host/sandbox",
    "host/daemon",
    "scheduler/core",
    "scheduler/store",
    "scheduler/audit",
    "scheduler/service",
    "client/logic",
    "client",
    "cli",
    "testkit",
    "sim",
    "bench",
    "tests",
];

/// Directories whose packages nobody else needs, with what they may need of the tree.
const LEAVES: [(&str, &[&str]); 4] = [
    ("examples", &["guest-sdk/guest", "guest-sdk/macros"]),
    ("bench/guest", &["guest-sdk/guest", "guest-sdk/macros"]),
    ("tests/guests", &["guest-sdk/guest", "guest-sdk/macros"]),
    ("xtask", &[]),
];

/// Libraries that belong behind one boundary, and the directories that may name them.
const FENCED: [(&str, &[&str]); 6] = [
    ("sled", &["scheduler/store"]),
    ("wasmtime", &["host/sandbox"]),
    ("wasmtime-wasi", &["host/sandbox"]),
    ("seccompiler", &["host/sandbox"]),
    ("landlock", &["host/sandbox"]),
    ("rcgen", &["identity"]),
];

/// Libraries that packages without I/O must not have.
const IMPURE: [&str; 6] = ["tokio", "tonic", "rustix", "libc", "rand", "tempfile"];
/// Packages without I/O.
const PURE: [&str; 5] = ["types", "policies", "host/logic", "scheduler/core", "client/logic"];

/// Checks what each package needs, tests aside for the libraries.
pub(super) fn check(packages: &[Package]) -> Vec<Fault> {
    packages.iter().flat_map(|package| check_package(package, packages)).collect()
}

fn check_package(package: &Package, packages: &[Package]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |text: String| {
        faults.push(Fault { file: format!("{}/Cargo.toml", package.directory), line: 0, text });
    };
    let is_placed = place(&package.directory).is_some() || leaf(&package.directory).is_some();
    if !is_placed {
        fault(format!("package {} has no place in the order of dependencies; give it one in xtask", package.name));
    }
    for dependency in &package.dependencies {
        if let Some(other) = packages.iter().find(|other| other.name == dependency.name) {
            if is_placed && !may_need(&package.directory, &other.directory, dependency.for_tests) {
                fault(format!("{} must not depend on {}: see ARCHITECTURE.md", package.directory, other.directory));
            }
            continue;
        }
        if dependency.for_tests {
            continue;
        }
        let fence = FENCED.iter().find(|(library, _)| *library == dependency.name);
        if let Some((library, allowed)) = fence.filter(|(_, allowed)| !allowed.contains(&package.directory.as_str())) {
            fault(format!("only {} may depend on {library}", allowed.join(", ")));
        }
        if PURE.contains(&package.directory.as_str()) && IMPURE.contains(&dependency.name.as_str()) {
            fault(format!("{} does no I/O and must not depend on {}", package.directory, dependency.name));
        }
    }
    faults
}

/// Tests may use the builders of `testkit`, wherever they are, and what their own package may.
fn may_need(package: &str, other: &str, for_tests: bool) -> bool {
    if for_tests && other == "testkit" {
        return true;
    }
    match (leaf(package), place(package), place(other)) {
        (Some(allowed), _, _) => allowed.contains(&other),
        (None, Some(own), Some(others)) => others < own,
        _ => false,
    }
}

fn place(directory: &str) -> Option<usize> {
    ORDER.iter().position(|entry| *entry == directory)
}

fn leaf(directory: &str) -> Option<&'static [&'static str]> {
    let holds =
        |entry: &str| directory == entry || directory.strip_prefix(entry).is_some_and(|rest| rest.starts_with('/'));
    LEAVES.iter().find(|(entry, _)| holds(entry)).map(|(_, allowed)| *allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn package(name: &str, directory: &str, needs: &[(&str, bool)]) -> Package {
        let dependencies =
            needs.iter().map(|(name, for_tests)| Dependency { name: (*name).to_owned(), for_tests: *for_tests });
        Package {
            name: name.to_owned(),
            directory: directory.to_owned(),
            is_guest: false,
            dependencies: dependencies.collect(),
        }
    }

    fn faults(packages: &[Package]) -> Vec<String> {
        check(packages).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn arrows_point_to_what_stands_before() {
        let types = package("partita-types", "types", &[]);
        let core = package("partita-core", "scheduler/core", &[("partita-types", false)]);
        assert_eq!(faults(&[types, core]), Vec::<String>::new());
        let types = package("partita-types", "types", &[("partita-core", false)]);
        let core = package("partita-core", "scheduler/core", &[]);
        assert_eq!(
            faults(&[types, core]),
            ["types/Cargo.toml: types must not depend on scheduler/core: see ARCHITECTURE.md"]
        );
    }

    #[test]
    fn the_core_has_no_runtime_and_nobody_else_has_sled() {
        let core = package("partita-core", "scheduler/core", &[("tokio", false), ("proptest", true)]);
        assert_eq!(
            faults(&[core]),
            ["scheduler/core/Cargo.toml: scheduler/core does no I/O and must not depend on tokio"]
        );
        let service = package("partita-scheduler", "scheduler/service", &[("sled", false)]);
        assert_eq!(faults(&[service]), ["scheduler/service/Cargo.toml: only scheduler/store may depend on sled"]);
    }

    #[test]
    fn tests_may_use_the_testkit_and_examples_only_the_sdk() {
        let testkit = package("partita-testkit", "testkit", &[]);
        let core = package("partita-core", "scheduler/core", &[("partita-testkit", true)]);
        let example = package("example", "examples/etl", &[("partita-core", false)]);
        assert_eq!(
            faults(&[testkit, core, example]),
            ["examples/etl/Cargo.toml: examples/etl must not depend on scheduler/core: see ARCHITECTURE.md"]
        );
    }

    #[test]
    fn a_new_package_needs_a_place() {
        assert_eq!(faults(&[package("stray", "stray", &[])]).len(), 1);
    }
}
