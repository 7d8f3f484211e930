//! The scheduler's disk gets full: whoever asks is told, what was acknowledged is kept, and room is all it takes to go on.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test ends it")]

use std::fs;
use std::path::Path;
use std::process::Command;

use partita_tests::{Cluster, Finished, Running, example_job};
use rustix::process::{Resource, Rlimit, prlimit};

/// Jobs that are submitted until one is refused; each makes the journal grow by [`PADDING`].
const SUBMISSIONS: usize = 200;
const PADDING: usize = 200 << 10;

fn job(tasks: u32) -> String {
    example_job("monte-carlo").replace("tasks = 100", &format!("tasks = {tasks}")).replace("10_000_000", "100_000")
}

/// A job that takes room in the journal; whether it can run does not matter here.
fn large_job() -> String {
    job(1).replace("samples = 100_000", &format!("samples = 1, padding = {:?}", "x".repeat(PADDING)))
}

/// For this scheduler a file that may not grow is an error, as a full disk is, and not the end.
fn through_shell(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

fn largest_file(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let size = |entry: fs::DirEntry| match entry.metadata().unwrap() {
        metadata if metadata.is_dir() => largest_file(&entry.path()),
        metadata => metadata.len(),
    };
    entries.map(size).max().unwrap_or_default()
}

fn wait_until_succeeded(watch: &mut Running) {
    let line = watch.line("the end of the job", |line| line.contains("job-ended"));
    assert!(line.contains("succeeded"), "{line}");
}

#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    let mut cluster = Cluster::start(1);
    cluster.kill_scheduler();
    cluster.start_scheduler_by(through_shell(&cluster.scheduler_command()));
    let ended = cluster.submit("research", &job(3));
    wait_until_succeeded(&mut cluster.watch("research", &ended));
    // Nothing but submissions makes the journal grow from now on.
    cluster.kill_host(0);
    let pending = cluster.submit("research", &job(5));

    let current = Some(largest_file(&cluster.data().join("state")));
    prlimit(Some(cluster.scheduler_pid()), Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
    let file = cluster.path().join("large.toml");
    fs::write(&file, large_job()).unwrap();
    let run = || Finished::of(cluster.partita("research").arg("run").arg(&file).arg("--detach"));
    let mut accepted = vec![ended, pending.clone()];
    let refused = (0..SUBMISSIONS).find_map(|_| {
        let finished = run();
        if finished.status.success() {
            accepted.push(finished.stdout.trim().to_owned());
            return None;
        }
        Some(finished.failure())
    });
    let refused = refused.unwrap();
    assert!(refused.contains("disk is full") && refused.contains("not acknowledged"), "{refused}");
    let (status, output) = cluster.scheduler_end();
    assert!(status.code().is_some_and(|code| code != 0), "{status}\n{output}");
    let state = cluster.data().join("state").display().to_string();
    assert!(output.lines().any(|line| line.contains(&state) && line.contains("full")), "{output}");

    cluster.start_scheduler();
    cluster.restart_host(0);
    wait_until_succeeded(&mut cluster.watch("research", &pending));
    let listed = cluster.ask("research", &["--json", "job", "list"]);
    for job in accepted {
        assert!(listed.contains(&format!("\"number\":{job},")), "job {job} is missing in {listed}");
    }
    let again = cluster.submit("research", &job(3));
    wait_until_succeeded(&mut cluster.watch("research", &again));
}

#[test]
fn the_last_room_is_kept_for_what_was_accepted() {
    let mut cluster = Cluster::start(1);
    let accepted = cluster.submit("research", &job(20));
    cluster.kill_scheduler();
    let mut command = cluster.scheduler_command();
    command.args(["--disk-reserve", "1000000TiB"]);
    cluster.start_scheduler_by(command);
    let file = cluster.path().join("another.toml");
    fs::write(&file, job(1)).unwrap();
    let refused = cluster.refused("research", &["run", &file.display().to_string(), "--detach"]);
    for part in ["disk has", "keeps 1000000 TiB", "does not take this job", "ask the cluster's administrator"] {
        assert!(refused.contains(part), "{part:?} is missing in {refused}");
    }
    // What was accepted goes on, and can be looked at and released.
    wait_until_succeeded(&mut cluster.watch("research", &accepted));
    let _ = cluster.ask("research", &["job", "release", &accepted]);
    cluster.kill_scheduler();
    cluster.start_scheduler();
    let again = cluster.submit("research", &job(1));
    wait_until_succeeded(&mut cluster.watch("research", &again));
}
