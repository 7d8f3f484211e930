//! `partita host doctor`: whether this machine can be a host, and how well it would keep tenants apart.
//!
//! Nothing is asked of a cluster and nothing is changed. What matters most is tried, not guessed: a zygote is started and
//! confines a throw-away executor, as a host's does when it starts.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use partita_sandbox::{Program, Zygote, ZygoteConfig};
use partita_types::{ByteSize, Isolation};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use crate::app::App;
use crate::cluster::machine;
use crate::outcome::Outcome;
use crate::output::{Align, Table};

/// Open files that a host needs with many partitions: large ones are a file each.
const FILES_MIN: u64 = 65_536;
/// Memory below which tasks with the usual limit of 256 MiB run one at a time.
const MEMORY_MIN: ByteSize = ByteSize::gib(1);
/// Space for compiled modules and keys.
const SPACE_MIN: ByteSize = ByteSize::gib(1);

/// Options of `partita host doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exits with 1 if a host could not run here at all.

Examples:
  partita host doctor
  partita host doctor --data /var/lib/partita
  partita host doctor --json | jq -r 'select(.verdict != \"good\") | .what'")]
pub(crate) struct Doctor {
    /// Where the host would keep its key and its compiled modules.
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
}

/// How something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    /// A host runs, with less than it could have.
    Weak,
    /// No host can run.
    Bad,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Weak => "weak",
            Self::Bad => "bad",
        }
    }

    fn at_least(value: u64, wanted: u64) -> Self {
        if value >= wanted { Self::Good } else { Self::Weak }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do about it, if it is not good.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn new(what: &'static str, verdict: Verdict, found: impl Into<String>, advice: impl Into<String>) -> Self {
        let advice = (verdict != Verdict::Good).then(|| advice.into());
        Self { what, verdict, found: found.into(), advice }
    }
}

/// Looks at everything and prints it.
pub(super) fn doctor(app: &App, arguments: &Doctor) -> anyhow::Result<Outcome> {
    let path = std::env::current_exe().context("cannot find the program itself, which helper processes run")?;
    let share = machine::share(1);
    let mut findings = vec![kernel(), isolation(Program { path, args: vec!["internal".into()] })];
    findings.push(Finding::new("cores", Verdict::Good, share.cores.to_string(), ""));
    findings.push(memory(share.memory));
    findings.push(open_files(getrlimit(Resource::Nofile).maximum));
    findings.extend(arguments.data.as_deref().map(data));
    app.output.list(&findings, table)?;
    for finding in findings.iter().filter(|_| !app.output.json) {
        if let Some(advice) = &finding.advice {
            app.output.note(&format!("{}: {advice}", finding.what));
        }
    }
    let bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
    Ok(if bad { Outcome::Failed } else { Outcome::Done })
}

fn table(findings: &[Finding]) -> Table {
    let mut table = Table::new(&[("WHAT", Align::Left), ("VERDICT", Align::Left), ("FOUND", Align::Left)]);
    for finding in findings {
        table.row([finding.what.to_owned(), finding.verdict.as_str().to_owned(), finding.found.clone()]);
    }
    table
}

fn kernel() -> Finding {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let known = !release.trim().is_empty();
    let verdict = if known { Verdict::Good } else { Verdict::Weak };
    let found = if known { format!("Linux {}", release.trim()) } else { "unknown".to_owned() };
    Finding::new("kernel", verdict, found, "/proc is not mounted; hosts read the memory of the machine there")
}

fn isolation(program: Program) -> Finding {
    match Zygote::start(&program, ZygoteConfig::default()) {
        Ok(zygote) => confinement(zygote.isolation()),
        Err(fault) => {
            let fault = anyhow::Error::from(fault);
            Finding::new("isolation", Verdict::Bad, format!("{fault:#}"), "executors cannot start; see the error")
        }
    }
}

fn confinement(isolation: Isolation) -> Finding {
    let (verdict, advice) = match isolation {
        Isolation::Full => (Verdict::Good, ""),
        Isolation::Seccomp => (
            Verdict::Weak,
            "Landlock with network rules is missing (Linux 6.7, `landlock` among lsm=...); policies with \
             minimum_isolation = \"full\" refuse this host",
        ),
        Isolation::Process => (
            Verdict::Weak,
            "seccomp is missing (CONFIG_SECCOMP_FILTER; some container runtimes forbid it): guests of strangers have no \
             place here, and policies with minimum_isolation = \"seccomp\" refuse this host",
        ),
    };
    Finding::new("isolation", verdict, isolation.as_str(), advice)
}

fn memory(guests: ByteSize) -> Finding {
    let verdict = Verdict::at_least(guests.0, MEMORY_MIN.0);
    Finding::new("memory for tasks", verdict, guests.to_string(), format!("few tasks fit into less than {MEMORY_MIN}"))
}

/// `None` means that there is no limit.
fn open_files(limit: Option<u64>) -> Finding {
    let verdict = limit.map_or(Verdict::Good, |limit| Verdict::at_least(limit, FILES_MIN));
    let found = limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    let advice = format!("each large partition is an open file; raise the hard limit to {FILES_MIN} (ulimit -Hn)");
    Finding::new("open files", verdict, found, advice)
}

fn data(directory: &Path) -> Finding {
    let probe = directory.join(".doctor");
    let written = std::fs::create_dir_all(directory).and_then(|()| std::fs::write(&probe, b"?"));
    if let Err(fault) = written.and_then(|()| std::fs::remove_file(&probe)) {
        let found = format!("{}: {fault}", directory.display());
        return Finding::new("data directory", Verdict::Bad, found, "the host must be able to write there");
    }
    match rustix::fs::statvfs(directory) {
        Ok(space) => {
            let free = ByteSize(space.f_bavail.saturating_mul(space.f_frsize));
            let verdict = Verdict::at_least(free.0, SPACE_MIN.0);
            let found = format!("{}: {free} free", directory.display());
            Finding::new("data directory", verdict, found, format!("compiled modules need up to {SPACE_MIN}"))
        }
        Err(fault) => Finding::new("data directory", Verdict::Bad, fault.to_string(), "its space cannot be told"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_weaker_than_full_confinement_says_which_policies_refuse_it() {
        assert_eq!(confinement(Isolation::Full).advice, None);
        for (isolation, policy) in [(Isolation::Seccomp, "\"full\""), (Isolation::Process, "\"seccomp\"")] {
            let finding = confinement(isolation);
            assert_eq!(finding.verdict, Verdict::Weak);
            assert!(finding.advice.is_some_and(|advice| advice.contains(policy)));
        }
    }

    #[test]
    fn limits_are_weak_below_what_a_host_needs() {
        assert_eq!(open_files(None).verdict, Verdict::Good);
        assert_eq!(open_files(Some(FILES_MIN)).verdict, Verdict::Good);
        assert_eq!(open_files(Some(1024)).verdict, Verdict::Weak);
        assert_eq!(memory(ByteSize::mib(512)).verdict, Verdict::Weak);
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_bad() {
        let scratch = tempfile::tempdir().unwrap();
        assert_eq!(data(&scratch.path().join("new")).verdict, Verdict::Good);
        let file = scratch.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let finding = data(&file.join("below"));
        assert_eq!(finding.verdict, Verdict::Bad);
        assert!(finding.found.contains("below"), "{}", finding.found);
    }
}
