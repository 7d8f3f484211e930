//! Bad input: whatever is wrong, there is one clear error that names the object, and the cluster goes on.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test ends it")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use partita_identity::token::{Role, Signer};
use partita_tests::{Cluster, DEADLINE, Finished, example_job, guest};
use partita_types::{TenantName, Timestamp};

const HOUR: Duration = Duration::from_secs(3_600);

/// Writes a file into the cluster's directory.
fn write(cluster: &Cluster, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = cluster.path().join(name);
    fs::write(&path, content).unwrap();
    path.display().to_string()
}

/// What somebody is told who comes with this token.
fn refused_token(cluster: &Cluster, token: &str) -> String {
    let file = cluster.path().join("bad.token");
    fs::write(&file, token).unwrap();
    let config = write(cluster, "bad.toml", cluster.context("bad", &file));
    Finished::of(cluster.program().args(["--config", &config, "job", "list"])).failure()
}

/// Base64 as tokens have it.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().enumerate().fold(0_u32, |bits, (place, byte)| bits | u32::from(*byte) << (16 - 8 * place));
        for place in 0..=group.len() {
            text.push(char::from(DIGITS[usize::try_from(bits >> (18 - 6 * place) & 63).unwrap()]));
        }
    }
    text
}

#[test]
fn tokens_that_are_not_this_clusters_are_refused() {
    let cluster = Cluster::start(0);
    let tenant = TenantName::new("analytics").unwrap();
    let now = partita_identity::now();
    let own = Signer::load(&cluster.data().join("tokens")).unwrap();
    let foreign = Signer::create("test").unwrap();
    let issue = |signer: &Signer, at: Timestamp| {
        signer.issue(&tenant, "ann", Role::Admin, HOUR, at).unwrap().expose().to_owned()
    };
    let good = issue(&own, now);
    let (header_and_claims, signature) = good.rsplit_once('.').unwrap();
    let (_, claims) = header_and_claims.split_once('.').unwrap();
    let unsigned = base64(br#"{"alg":"none","typ":"JWT"}"#);
    let expired = issue(&own, Timestamp::from_micros(now.micros - 2 * 3_600_000_000));
    let table = [
        ("missing", String::new()),
        ("garbage", "not a token".to_owned()),
        ("expired", expired),
        ("foreign", issue(&foreign, now)),
        ("without a signature", format!("{header_and_claims}.")),
        ("algorithm none", format!("{unsigned}.{claims}.")),
        ("algorithm none with the signature of another", format!("{unsigned}.{claims}.{signature}")),
        ("for joining", {
            let host = "host-1".parse().unwrap();
            own.issue_join(&host, HOUR, now).unwrap().expose().to_owned()
        }),
    ];
    for (what, token) in table {
        let error = refused_token(&cluster, &token);
        assert!(error.contains("token"), "{what}: {error}");
        assert!(!error.contains("analytics"), "{what}: the error repeats a claim: {error}");
    }
    let file = cluster.path().join("good.token");
    fs::write(&file, good).unwrap();
    let config = write(&cluster, "good.toml", cluster.context("good", &file));
    let _ = Finished::of(cluster.program().args(["--config", &config, "job", "list"])).success();
}

#[test]
fn modules_that_cannot_be_used_are_refused_by_name() {
    let cluster = Cluster::start(1);
    let component = |text: &str| wat::parse_str(text).unwrap();
    let table: [(&str, Vec<u8>, &str); 5] = [
        ("text.wasm", b"this is no WebAssembly".to_vec(), "component"),
        ("core.wasm", component("(module)"), "component"),
        ("empty.wasm", component("(component)"), "describe"),
        (
            "sockets.wasm",
            component(r#"(component (import "wasi:sockets/tcp@0.2.0" (instance)))"#),
            "wasi:sockets/tcp@0.2.0",
        ),
        ("large.wasm", vec![0; 5 << 20], "module"),
    ];
    for (name, bytes, expected) in table {
        let file = write(&cluster, name, bytes);
        let error = cluster.refused("analytics", &["module", "push", &file]);
        assert!(error.contains(expected), "{name}: {error}");
    }
    assert_eq!(cluster.ask("analytics", &["--json", "module", "list"]).trim(), "", "a refused module leaves no trace");
    let good = guest("partita-example-monte-carlo").display().to_string();
    let _ = cluster.ask("analytics", &["module", "push", &good]);
}

#[test]
fn jobs_that_make_no_sense_are_refused_by_name() {
    let cluster = Cluster::start(1);
    let module = guest("partita-example-wordfreq");
    let head = format!("name = \"bad\"\nmodules.m = {{ path = {module:?} }}\n");
    let array = |name: &str, function: &str, inputs: &str| {
        format!("[[array]]\nname = \"{name}\"\nfunction = \"m.{function}\"\ninputs = [{inputs}]\n")
    };
    let table = [
        ("cycle", array("a", "top", "{ all = \"b\" }") + &array("b", "top", "{ all = \"a\" }"), "\"b\""),
        ("itself", array("a", "top", "{ all = \"a\" }"), "\"a\""),
        ("unknown function", array("a", "nonsense", ""), "nonsense"),
        ("missing dataset", array("a", "map", "{ dataset = \"secrets\", split = \"8MiB\" }"), "secrets"),
        ("foreign dataset", array("a", "map", "{ dataset = \"countries\", split = \"8MiB\" }"), "countries"),
        ("unknown array", array("a", "top", "{ all = \"nobody\" }"), "nobody"),
        ("unknown key", array("a", "top", "") + "colour = \"red\"\n", "colour"),
        ("too much memory", array("a", "top", "{ literal = \"{}\" }") + "memory = \"100GiB\"\n", "memory"),
    ];
    for (what, text, expected) in table {
        let file = write(&cluster, "bad-job.toml", head.clone() + &text);
        // Team research has no datasets at all.
        let error = cluster.refused("research", &["run", &file]);
        assert!(error.contains(expected), "{what}: {error}");
    }
    assert_eq!(cluster.ask("research", &["--json", "job", "list"]).trim(), "", "a refused job leaves no trace");
}

#[test]
fn what_belongs_to_another_tenant_does_not_exist() {
    let cluster = Cluster::start(1);
    let job = example_job("monte-carlo").replace("10_000_000", "1_000");
    let (summary, _) = cluster.run("analytics", &job, "merge");
    let number = summary["job"].to_string();
    let module = cluster.ask("analytics", &["--json", "module", "list"]);
    let module: serde_json::Value = serde_json::from_str(module.trim()).unwrap();
    let module = module["id"].as_str().unwrap();
    for arguments in [
        vec!["job", "show", &number],
        vec!["job", "cancel", &number],
        vec!["job", "watch", &number],
        vec!["job", "result", &number, "merge"],
        vec!["module", "show", module],
    ] {
        let foreign = cluster.refused("research", &arguments);
        assert!(foreign.contains("does not exist"), "{arguments:?}: {foreign}");
        assert!(!foreign.contains("analytics"), "{arguments:?}: {foreign}");
    }
    let text = format!(
        "name = \"thief\"\nmodules.m = {{ id = \"{module}\" }}\n[[array]]\nname = \"a\"\nfunction = \"m.sample\"\nargs = {{ samples = 1 }}\n"
    );
    let file = write(&cluster, "thief.toml", text);
    let error = cluster.refused("research", &["run", &file]);
    assert!(error.contains("does not exist"), "{error}");
    // The same words as for what nobody has.
    let nobodys = cluster.refused("research", &["job", "show", "4000000"]);
    let foreign = cluster.refused("research", &["job", "show", &number]);
    assert_eq!(foreign.replace(&number, "N"), nobodys.replace("4000000", "N"));
    let _ = cluster.ask("analytics", &["job", "show", &number]);
}

#[test]
fn a_policy_with_a_misspelt_key_is_named_with_file_line_and_key() {
    let cluster = Cluster::start(0);
    let policies = cluster.path().join("misspelt");
    fs::create_dir(&policies).unwrap();
    fs::write(policies.join("teams.toml"), "[tenant.acme]\nweihgt = 3\n").unwrap();
    let check = Finished::of(cluster.program().args(["policy", "check"]).arg(&policies));
    let mut scheduler = cluster.program();
    scheduler.args(["scheduler", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--data"]);
    scheduler.arg(cluster.path().join("other")).arg("--policies").arg(&policies);
    for error in [check.failure(), Finished::of(&mut scheduler).failure()] {
        assert!(error.contains("teams.toml:2") && error.contains("weihgt"), "{error}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let cluster = Cluster::start(0);
    let mut second = cluster.program();
    second.args(["scheduler", "--listen", cluster.address(), "--metrics", "127.0.0.1:0", "--data"]);
    second.arg(cluster.path().join("other")).arg("--policies").arg(cluster.path().join("policies"));
    let error = Finished::of(&mut second).failure();
    assert!(error.contains(cluster.address()) && error.contains("in use"), "{error}");
}

#[test]
fn one_process_at_a_time_uses_the_state() {
    let cluster = Cluster::start(0);
    let error = Finished::of(cluster.scheduler_command().args(["--listen", "127.0.0.1:0"])).failure();
    assert!(error.contains("scheduler"), "{error}");
    let _ = cluster.ask("analytics", &["job", "list"]);
}

/// Starts a host that cannot join, and returns its error.
fn host_error(cluster: &Cluster, authority: &Path, token: &Path) -> String {
    let mut command = cluster.program();
    command.args(["host", "--name", "host-9", "--scheduler", cluster.address(), "--cores", "1", "--data"]);
    command.arg(cluster.path().join("host-9")).arg("--authority").arg(authority).arg("--join-token-file").arg(token);
    Finished::of(&mut command).failure()
}

fn join_token(cluster: &Cluster, host: &str) -> PathBuf {
    let mut command = cluster.program();
    command.args(["token", "issue", "--join", host, "--data"]).arg(cluster.data());
    let path = cluster.path().join(format!("{host}.other-join"));
    fs::write(&path, Finished::of(&mut command).success()).unwrap();
    path
}

#[test]
fn hosts_and_schedulers_of_other_clusters_are_refused() {
    let (own, other) = (Cluster::start(0), Cluster::start(0));
    let wrong_authority = host_error(&own, &other.authority(), &join_token(&own, "host-9"));
    assert!(wrong_authority.contains("certificate"), "{wrong_authority}");
    let wrong_token = host_error(&own, &own.authority(), &join_token(&other, "host-9"));
    assert!(wrong_token.contains("token"), "{wrong_token}");
    let wrong_name = host_error(&own, &own.authority(), &join_token(&own, "host-8"));
    assert!(wrong_name.contains("host-8") || wrong_name.contains("host-9"), "{wrong_name}");
    assert_eq!(own.ask("admin", &["--json", "host", "list"]).trim(), "", "nobody joined");
}

/// What a listener answers to these bytes before it closes the connection, or to silence.
fn answer(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A reset is as good an end as any.
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("{address}: {error}"),
        Ok(_) | Err(_) => answer,
    }
}

#[test]
fn every_listener_refuses_plaintext() {
    let cluster = Cluster::start(1);
    let addresses: Vec<&str> = std::iter::once(cluster.address()).chain(cluster.host_addresses()).collect();
    assert_eq!(addresses.len(), 2);
    for address in addresses {
        for bytes in [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            let answer = answer(address, bytes);
            // A TLS alert is a record of type 21; anything else would be an answer.
            assert!(answer.is_empty() || answer[0] == 21, "{address}: {:?}", String::from_utf8_lossy(&answer));
        }
    }
    let _ = cluster.ask("admin", &["host", "list"]);
}
