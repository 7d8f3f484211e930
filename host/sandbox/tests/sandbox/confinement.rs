//! What a taken-over executor could do: nothing. Each probe confines itself as an executor and tries one thing, aimed at
//! an object that only this test has.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use crate::guests::program;

/// The number of SIGSYS on Linux.
const SIGSYS: i32 = 31;

fn probe(action: &str, target: &str) -> ExitStatus {
    let mut probe = Command::new(program().path);
    probe.args(["probe", action, target]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().expect("the probe starts")
}

#[test]
fn a_confined_process_can_still_end_in_peace() {
    assert_eq!(probe("nothing", "").code(), Some(10));
}

#[test]
fn forbidden_system_calls_kill_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bait");
    std::fs::write(&file, "bait").unwrap();
    let new = directory.path().join("new");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut victim = Command::new("sleep").arg("1000").spawn().unwrap();
    for (action, target) in [
        ("open", file.display().to_string()),
        ("create", new.display().to_string()),
        ("unlink", file.display().to_string()),
        ("socket", String::new()),
        ("connect", address),
        ("unix-socket", String::new()),
        ("exec", "/bin/true".to_owned()),
        ("thread", String::new()),
        ("kill", victim.id().to_string()),
        ("executable-memory", String::new()),
    ] {
        let status = probe(action, &target);
        assert_eq!(status.signal(), Some(SIGSYS), "{action}: {status}");
    }
    assert!(file.exists() && !new.exists());
    assert!(victim.try_wait().unwrap().is_none(), "the victim was killed");
    victim.kill().unwrap();
    victim.wait().unwrap();
}
