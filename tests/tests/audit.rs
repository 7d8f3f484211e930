//! Who changed what stands in the audit log, whatever happens to the scheduler, and a log that was changed shows it.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test ends it")]

use std::fs;
use std::path::Path;

use partita_tests::{Cluster, Finished, example_job};
use serde_json::Value;

fn job() -> String {
    example_job("monte-carlo").replace("tasks = 100", "tasks = 2").replace("10_000_000", "1_000")
}

/// The entries of an exported log.
fn entries(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line.split_once(' ').unwrap().1).unwrap()).collect()
}

/// Whether an entry has this action, object and outcome, and who did it.
fn has(entries: &[Value], subject: &str, action: &str, object: &str, outcome: &str) -> bool {
    entries.iter().any(|entry| {
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        let principal = &entry["principal"];
        let who = principal["tenant"].as_str().or(principal["name"].as_str()).or(principal["kind"].as_str());
        who == Some(subject)
            && text("action") == action
            && text("object").contains(object)
            && text("outcome").starts_with(outcome)
    })
}

#[test]
fn every_change_and_every_refusal_is_noted_and_survives_a_kill() {
    let mut cluster = Cluster::start(1);
    let (summary, _) = cluster.run("analytics", &job(), "merge");
    assert_eq!(summary["state"], "succeeded", "{summary}");
    let _ = cluster.ask("analytics", &["job", "release", "1"]);
    let refused = cluster.refused("analytics", &["audit", "tail"]);
    assert!(refused.contains("auditor"), "{refused}");
    let foreign = cluster.refused("research", &["job", "cancel", "1"]);
    assert!(foreign.contains("job 1 does not exist"), "{foreign}");
    let issue = ["token", "issue", "--tenant", "research", "--subject", "eve", "--role", "viewer"];
    let token = cluster.ask("admin", &issue);
    // The last thing before the kill: its entry was written before it was answered.
    let last = cluster.submit("research", &job());
    cluster.kill_scheduler();
    cluster.start_scheduler();

    let file = cluster.path().join("audit.log");
    let _ = cluster.ask("admin", &["audit", "export", "--output", &file.display().to_string()]);
    let verified = cluster.ask("admin", &["audit", "verify", &file.display().to_string()]);
    assert!(verified.starts_with("entries 1 to "), "{verified}");
    let entries = entries(&file);
    for (who, action, object, outcome) in [
        ("unknown", "Enrollment/Join", "host host-1", "ok"),
        ("host-1", "Sessions/Attach", "incarnation", "ok"),
        ("analytics", "Modules/Push", "\"pi\"", "ok"),
        ("analytics", "Jobs/Submit", "job 1", "ok"),
        ("analytics", "Jobs/Release", "job 1", "ok"),
        ("analytics", "Cluster/Audit", "", "permission-denied"),
        ("research", "Jobs/Cancel", "job 1", "not-found"),
        ("research", "Cluster/IssueToken", "\"eve\"", "ok"),
        ("research", "Jobs/Submit", &format!("job {last}"), "ok"),
    ] {
        assert!(has(&entries, who, action, object, outcome), "{who} {action} {object} {outcome}: {entries:#?}");
    }
    assert!(!fs::read_to_string(&file).unwrap().contains(token.trim()), "a token is in the audit log");
    let shown = cluster.ask("admin", &["audit", "tail", "--lines", "1"]);
    assert_eq!(shown.lines().count(), 1, "{shown}");
}

#[test]
fn a_changed_log_is_found_and_nobody_goes_on_behind_it() {
    let mut cluster = Cluster::start(1);
    let number = cluster.submit("research", &job());
    cluster.kill_scheduler();
    let log = fs::read_dir(cluster.data().join("audit")).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, text.replace(&format!("\"job {number}\""), "\"job 999\"")).unwrap();

    let data = cluster.data().display().to_string();
    let mut verify = cluster.program();
    let found = Finished::of(verify.args(["audit", "verify", &data])).failure();
    assert!(found.contains("is damaged at line") && found.contains(&log.display().to_string()), "{found}");
    let mut start = cluster.scheduler_command();
    let refused = Finished::of(start.args(["--listen", "127.0.0.1:0"])).failure();
    assert!(refused.contains("audit log") && refused.contains("begin a new one"), "{refused}");
    fs::write(&log, text).unwrap();
    cluster.start_scheduler();
}
