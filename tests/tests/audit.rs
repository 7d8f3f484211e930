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
fn a_revoked_token_counts_no_more_and_others_do() {
    let mut cluster = Cluster::start(0);
    let as_holder = |cluster: &Cluster, token: &Path| {
        let config = cluster.path().join("holder.toml");
        fs::write(&config, cluster.context("holder", token)).unwrap();
        let mut command = cluster.program();
        Finished::of(command.arg("--config").arg(config).args(["--context", "holder", "whoami"]))
    };
    let issue = |cluster: &Cluster, subject: &str| {
        let file = cluster.path().join(format!("{subject}.token"));
        let arguments = ["token", "issue", "--tenant", "research", "--subject", subject];
        fs::write(&file, cluster.ask("admin", &arguments)).unwrap();
        file
    };
    let [ann, bob] = ["ann", "bob"].map(|subject| issue(&cluster, subject));
    let inspected = cluster.ask("admin", &["--json", "token", "inspect", &ann.display().to_string()]);
    let inspected: Value = serde_json::from_str(inspected.trim()).unwrap();
    let id = inspected["claims"]["jti"].as_str().unwrap();
    let refused = cluster.refused("research", &["token", "revoke", id]);
    assert!(refused.contains("admin"), "{refused}");
    let _ = as_holder(&cluster, &ann).success();

    let _ = cluster.ask("admin", &["token", "revoke", id]);
    let revoked = as_holder(&cluster, &ann).failure();
    assert!(revoked.contains("was revoked"), "{revoked}");
    let _ = as_holder(&cluster, &bob).success();
    cluster.kill_scheduler();
    // Beside the cluster, for those who cannot ask it.
    let mut offline = cluster.program();
    offline.args(["token", "revoke", "--tenant", "research", "--subject", "bob", "--data"]).arg(cluster.data());
    let _ = Finished::of(&mut offline).success();
    cluster.start_scheduler();
    for file in [&ann, &bob] {
        let revoked = as_holder(&cluster, file).failure();
        assert!(revoked.contains("was revoked"), "{revoked}");
    }
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
