//! The program as people meet it: help, mistakes, clusters that are not there. No cluster is started here.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use partita_identity::token::{Role, Signer};
use partita_identity::{Authority, now};
use partita_types::TenantName;
use serde_json::Value;

/// Runs the program in `home`, with nothing of the caller's environment.
fn partita(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_partita"))
        .args(arguments)
        .env_clear()
        .env("HOME", home)
        .current_dir(home)
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the program writes text")
}

#[track_caller]
fn fails(output: &Output, code: i32, expected: &str) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(expected), "{stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains('\x1b'), "{stderr}");
}

#[test]
fn help_is_there_for_every_command_with_an_example() {
    let home = tempfile::tempdir().unwrap();
    let commands: [&[&str]; 28] = [
        &[],
        &["dev"],
        &["scheduler"],
        &["host"],
        &["host", "list"],
        &["new"],
        &["build"],
        &["run"],
        &["module", "push"],
        &["module", "list"],
        &["module", "show"],
        &["job", "list"],
        &["job", "show"],
        &["job", "watch"],
        &["job", "cancel"],
        &["job", "result"],
        &["job", "explain"],
        &["job", "release"],
        &["token", "issue"],
        &["token", "inspect"],
        &["policy", "check"],
        &["state", "verify"],
        &["state", "export"],
        &["state", "import"],
        &["state", "compact"],
        &["completions"],
        &["usage"],
        &["whoami"],
    ];
    for command in commands {
        let output = partita(home.path(), &[command, &["--help"]].concat());
        let stdout = text(&output.stdout);
        assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
        assert!(stdout.contains("Usage: partita"), "{command:?}: {stdout}");
        assert!(stdout.contains("Example"), "{command:?} has no example");
    }
}

#[test]
fn mistakes_on_the_command_line_are_told_with_code_2() {
    let home = tempfile::tempdir().unwrap();
    fails(&partita(home.path(), &["jobs"]), 2, "unrecognized subcommand 'jobs'");
    fails(&partita(home.path(), &["job", "show", "x"]), 2, "invalid value 'x'");
    fails(&partita(home.path(), &["token", "issue", "--tenant", "a"]), 2, "--subject");
    fails(&partita(home.path(), &["host"]), 2, "--name");
    fails(&partita(home.path(), &["dev", "--dataset", "a=/no/such"]), 2, "cannot find /no/such");
    fails(&partita(home.path(), &["internal", "nothing"]), 2, "unrecognized subcommand 'internal'");
}

#[test]
fn without_a_cluster_the_program_says_how_to_get_one() {
    let home = tempfile::tempdir().unwrap();
    let output = partita(home.path(), &["job", "list"]);
    fails(&output, 2, "error: no cluster is configured\n  help: start a cluster here with `partita dev`");
}

#[test]
fn a_faulty_job_file_is_told_before_anything_is_asked_of_a_cluster() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("job.toml"), "name = \"j\"\nmodul = {}\n").unwrap();
    fails(&partita(home.path(), &["run", "job.toml"]), 2, "error: job.toml:2: unknown key `modul`");
    fails(&partita(home.path(), &["run", "no.toml"]), 2, "cannot read the job file no.toml\n  because: No such file");
}

/// A configuration whose cluster does not answer: nobody listens on port 1.
fn configured(home: &Path) {
    let authority = Authority::create("test").expect("an authority can be made");
    let context = "[context.dev]\naddress = \"127.0.0.1:1\"\nauthority = \"ca.pem\"\ntoken = \"dev.token\"\n";
    let files = [("ca.pem", authority.certificate_pem()), ("dev.token", "not.a.token"), ("config.toml", context)];
    for (name, text) in files {
        fs::write(home.join(name), text).expect("a temporary directory can be written");
    }
}

#[test]
fn a_cluster_that_does_not_answer_is_code_4() {
    let home = tempfile::tempdir().unwrap();
    configured(home.path());
    let output = partita(home.path(), &["--config", "config.toml", "job", "list"]);
    fails(&output, 4, "error: cannot list jobs: no connection to the cluster at 127.0.0.1:1");
    fails(&output, 4, "help: is the scheduler running");
}

#[test]
fn errors_are_json_where_json_is_asked_for() {
    let home = tempfile::tempdir().unwrap();
    configured(home.path());
    let output = partita(home.path(), &["--config", "config.toml", "--json", "host", "list"]);
    let error: Value = serde_json::from_slice(&output.stdout).expect("one line of JSON");
    assert_eq!(error["exit_code"], 4);
    assert!(error["error"].as_str().unwrap().starts_with("cannot list hosts: no connection"), "{error}");
}

#[test]
fn unknown_contexts_are_named_with_what_there_is() {
    let home = tempfile::tempdir().unwrap();
    configured(home.path());
    let output = partita(home.path(), &["--config", "config.toml", "--context", "prod", "job", "list"]);
    fails(&output, 2, "there is no context \"prod\" in config.toml; it has dev");
}

#[test]
fn a_token_can_be_issued_from_the_schedulers_keys_and_inspected() {
    let home = tempfile::tempdir().unwrap();
    let signer = Signer::create("test").unwrap();
    fs::create_dir_all(home.path().join("data/tokens")).unwrap();
    signer.save(&home.path().join("data/tokens")).unwrap();
    let arguments = ["token", "issue", "--data", "data", "--tenant", "acme", "--subject", "ann", "--role", "viewer"];
    let issued = partita(home.path(), &arguments);
    assert!(issued.status.success(), "{}", text(&issued.stderr));
    let claims = signer.verifier().verify(text(&issued.stdout).trim(), now()).unwrap();
    assert_eq!((claims.sub.as_str(), claims.tenant.as_str(), claims.role), ("ann", "acme", Role::Viewer));

    fs::write(home.path().join("ann.token"), &issued.stdout).unwrap();
    let shown = partita(home.path(), &["token", "inspect", "ann.token"]);
    assert!(text(&shown.stdout).contains("\"tenant\":\"acme\""), "{}", text(&shown.stdout));
    // Twelve hours, or a second less.
    let left = ["expires in 12 h 00 m", "expires in 11 h 59 m"];
    assert!(left.iter().any(|left| text(&shown.stdout).contains(left)), "{}", text(&shown.stdout));
    let json = partita(home.path(), &["token", "inspect", "ann.token", "--json"]);
    let value: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&value["claims"]["sub"], &value["verified"]), (&Value::from("ann"), &Value::from(false)));
}

#[test]
fn a_join_token_is_for_the_host_that_it_names() {
    let home = tempfile::tempdir().unwrap();
    let signer = Signer::create("test").unwrap();
    fs::create_dir_all(home.path().join("data/tokens")).unwrap();
    signer.save(&home.path().join("data/tokens")).unwrap();
    let issued = partita(home.path(), &["token", "issue", "--data", "data", "--join", "host-3"]);
    let claims = signer.verifier().verify_join(text(&issued.stdout).trim(), now()).unwrap();
    assert_eq!(claims.host.as_str(), "host-3");
    fails(&partita(home.path(), &["token", "issue", "--data", "nowhere", "--join", "h"]), 1, "nowhere is not the data");
}

#[test]
fn what_is_not_a_token_is_said_not_to_be_one() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("x"), "hello").unwrap();
    fails(&partita(home.path(), &["token", "inspect", "x"]), 2, "x holds no token");
    fails(&partita(home.path(), &["token", "inspect", "y"]), 1, "cannot read the token y");
}

#[test]
fn policies_are_checked_with_every_fault() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("policies")).unwrap();
    let file = home.path().join("policies/teams.toml");
    fs::write(&file, "[tenant.a]\nwait = 2\n[tenant.b.quota]\nstored = \"much\"\n").unwrap();
    let output = partita(home.path(), &["policy", "check", "policies"]);
    fails(&output, 2, "policies/teams.toml:2:1: unknown key \"wait\"");
    fails(&output, 2, "policies/teams.toml:4:");
    fs::write(&file, "[tenant.a]\nweight = 3\n[tenant.b]\n").unwrap();
    assert!(text(&partita(home.path(), &["policy", "check", "policies"]).stdout).starts_with("policies: 2 tenants, "));
    let shown = partita(home.path(), &["policy", "show", "policies", "a", "--json"]);
    let policy: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((&policy["tenant"], &policy["weight"]), (&Value::from("a"), &Value::from(3)));
    fails(&partita(home.path(), &["policy", "show", "policies", "c"]), 2, "no policy names tenant c; there are a, b");
}

#[test]
fn completions_are_written_for_shells() {
    let home = tempfile::tempdir().unwrap();
    let output = partita(home.path(), &["completions", "bash"]);
    assert!(text(&output.stdout).contains("_partita()"), "{}", text(&output.stdout));
    assert!(!text(&output.stdout).contains("internal"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let home = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_partita"))
        .args(["completions", "zsh"])
        .env_clear()
        .env("HOME", home.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}

#[test]
fn a_name_of_a_tenant_is_checked_before_it_is_used() {
    let home = tempfile::tempdir().unwrap();
    assert!(TenantName::new("No Tenant").is_err());
    let arguments = ["token", "issue", "--tenant", "No Tenant", "--subject", "ann"];
    fails(&partita(home.path(), &arguments), 2, "tenant name \"No Tenant\" is not valid");
}

#[test]
fn a_new_project_is_complete_and_never_overwrites_anything() {
    let home = tempfile::tempdir().unwrap();
    let made = partita(home.path(), &["new", "hello"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    for file in ["Cargo.toml", "job.toml", "src/lib.rs", "README.md"] {
        assert!(home.path().join("hello").join(file).is_file(), "{file} is missing");
    }
    fails(&partita(home.path(), &["new", "hello"]), 2, "hello is there already");
    fails(&partita(home.path(), &["new", "Hello"]), 2, "\"Hello\" is not the name of a project");
    fails(&partita(home.path(), &["new", "other", "--sdk", "."]), 2, "the crate partita-guest is not in .");
    fails(&partita(home.path(), &["build"]), 2, ". has no Cargo.toml");
}
