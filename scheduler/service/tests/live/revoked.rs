//! What was given out and is taken back: tokens, keys, certificates of hosts; also in the middle of a stream.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a failure fails the test")]

use std::time::Duration;

use bytes::Bytes;
use partita_identity::token::{OldKeys, Role, inspect};
use partita_identity::{CertificateRequest, Identity};
use partita_protocol::client::cluster_client::ClusterClient;
use partita_protocol::client::jobs_client::JobsClient;
use partita_protocol::client::{
    AuditRequest, Empty, IssueJoinTokenRequest, IssueTokenRequest, ListTokensRequest, RevokeHostRequest,
    RevokeTokensRequest, RotateKeyRequest, SubmitRequest, WatchRequest,
};
use partita_protocol::host::sessions_client::SessionsClient;
use partita_protocol::host::{PartitionList, RenewRequest};
use partita_protocol::job::JobSpec;
use partita_scheduler::{Revoked, note_offline, revoke, revoked_path};
use partita_types::{HostName, TenantName};
use tonic::{Code, Status};

use crate::support::{Authorized, Cluster, Host, hello, soon};

fn claim(token: &str, name: &str) -> String {
    inspect(token).unwrap().1[name].as_str().unwrap().to_owned()
}

async fn issue(admin: &mut ClusterClient<Authorized>, subject: &str) -> String {
    let request = IssueTokenRequest {
        tenant: "acme".into(),
        subject: subject.into(),
        role: Role::Developer.to_string(),
        lifetime_s: 600,
    };
    admin.issue_token(request).await.unwrap().into_inner().token
}

async fn who_am_i(cluster: &Cluster, token: &str) -> Result<(), Status> {
    ClusterClient::new(cluster.authorized(Some(token))).who_am_i(Empty {}).await.map(drop)
}

/// The actions and objects of the audit log.
async fn audited(cluster: &Cluster) -> Vec<String> {
    let request = AuditRequest { after: 0, limit: 1_000 };
    let page = cluster.cluster(Role::Auditor).audit(request).await.unwrap().into_inner();
    page.lines
        .iter()
        .map(|line| {
            let entry: serde_json::Value = serde_json::from_str(line.split_once(' ').unwrap().1).unwrap();
            let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
            format!("{} {} {} by {}", text("action"), text("object"), text("outcome"), entry["principal"]["kind"])
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn issued_tokens_are_listed_without_the_tokens_also_after_a_restart() {
    let mut cluster = Cluster::start().await;
    let mut admin = cluster.cluster(Role::Admin);
    let [ann, bob] = [issue(&mut admin, "ann").await, issue(&mut admin, "bob").await];
    let join = IssueJoinTokenRequest { host: "host-7".into(), lifetime_s: 60 };
    let join = admin.issue_join_token(join).await.unwrap().into_inner().token;
    let revoke = RevokeTokensRequest { token: claim(&ann, "jti"), ..Default::default() };
    admin.revoke_tokens(revoke).await.unwrap();
    for round in 0..2 {
        let mut admin = cluster.cluster(Role::Admin);
        let listed = admin.list_tokens(ListTokensRequest::default()).await.unwrap().into_inner();
        let seen: Vec<_> = listed
            .tokens
            .iter()
            .map(|token| (token.id.clone(), token.subject.as_str(), token.role.as_str(), token.revoked))
            .collect();
        let expected = [
            (claim(&join, "jti"), "host-7", "join", false),
            (claim(&bob, "jti"), "bob", "developer", false),
            (claim(&ann, "jti"), "ann", "developer", true),
        ];
        assert_eq!((seen.as_slice(), listed.more), (expected.as_slice(), false), "round {round}");
        let of = ListTokensRequest { tenant: "acme".into() };
        let of = admin.list_tokens(of).await.unwrap().into_inner().tokens;
        assert!(of.len() == 2 && of.iter().all(|token| token.tenant == "acme" && token.by == "ann (acme)"), "{of:?}");
        let of = ListTokensRequest { tenant: "other".into() };
        assert!(admin.list_tokens(of).await.unwrap().into_inner().tokens.is_empty());
        cluster.stop().await;
        cluster.start_again().await;
    }
    let file = std::fs::read_to_string(cluster.data().join("issued.jsonl")).unwrap();
    for token in [&ann, &bob, &join] {
        assert!(token.split('.').all(|part| !file.contains(part)), "a part of a token is on disk");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_signs_at_once_and_the_old_one_verifies_until_it_is_dropped() {
    let mut cluster = Cluster::start().await;
    let mut admin = cluster.cluster(Role::Admin);
    let old = issue(&mut admin, "ann").await;
    let key = admin.rotate_key(RotateKeyRequest { drop_old: false }).await.unwrap().into_inner().key;
    let fresh = issue(&mut admin, "ann").await;
    assert_eq!(inspect(&fresh).unwrap().0["kid"].as_str().unwrap(), key);
    assert_ne!(inspect(&old).unwrap().0["kid"].as_str().unwrap(), key);
    for _ in 0..2 {
        who_am_i(&cluster, &old).await.unwrap();
        who_am_i(&cluster, &fresh).await.unwrap();
        cluster.stop().await;
        cluster.start_again().await;
    }
    let mut admin = cluster.cluster(Role::Admin);
    let last = admin.rotate_key(RotateKeyRequest { drop_old: true }).await.unwrap().into_inner().key;
    for token in [&old, &fresh] {
        let status = who_am_i(&cluster, token).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert!(status.message().contains("which this cluster does not have"), "{status}");
    }
    // The keys of the cluster are those on disk, so this is signed with the last one.
    who_am_i(&cluster, &cluster.token("acme", Role::Viewer)).await.unwrap();
    let lines = audited(&cluster).await;
    for part in [format!("key {key}, old keys still verify ok"), format!("key {last}, old keys dropped ok")] {
        assert!(lines.iter().any(|line| line.contains(&part)), "{part} is missing in {lines:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_beside_the_scheduler_is_in_force_and_noted_within_moments() {
    let mut cluster = Cluster::start().await;
    let now = partita_identity::now();
    note_offline(&cluster.data(), "Cluster/IssueToken", "token for \"eve\"".to_owned(), now).unwrap();
    cluster.signer().rotate(&cluster.data().join("tokens"), OldKeys::Drop, now).unwrap();
    let noted = async |cluster: &Cluster, part: &str| {
        let looks = async {
            loop {
                // Signed with the key on disk, which the scheduler may not have read yet.
                if who_am_i(cluster, &cluster.token("acme", Role::Auditor)).await.is_ok()
                    && audited(cluster).await.iter().any(|line| line.contains(part))
                {
                    return;
                }
            }
        };
        soon(looks).await;
    };
    noted(&cluster, "Cluster/IssueToken token for \"eve\" ok by \"local\"").await;
    cluster.stop().await;
    note_offline(&cluster.data(), "Cluster/RevokeTokens", "tokens of tenant other".to_owned(), now).unwrap();
    cluster.start_again().await;
    noted(&cluster, "Cluster/RevokeTokens tokens of tenant other ok by \"local\"").await;
    let again = audited(&cluster).await;
    assert_eq!(again.iter().filter(|line| line.contains("token for \"eve\"")).count(), 1, "noted once: {again:#?}");
}

/// Submits an open job and watches it until its first event.
async fn watching(cluster: &Cluster, token: &str) -> tonic::Streaming<partita_protocol::client::WatchResponse> {
    let mut jobs = JobsClient::new(cluster.authorized(Some(token)));
    let job = JobSpec { name: "open".to_owned(), open: true, ..Default::default() };
    let submit = SubmitRequest { job: Some(job), idempotency_key: Bytes::from_static(&[3; 16]) };
    let job = jobs.submit(submit).await.unwrap().into_inner().job;
    jobs.watch(WatchRequest { job, ..Default::default() }).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_stream_ends_when_its_token_is_revoked_and_others_go_on() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.cluster(Role::Admin);
    let (ann, bob) = (issue(&mut admin, "ann").await, issue(&mut admin, "bob").await);
    let mut revoked = watching(&cluster, &ann).await;
    let mut other = watching(&cluster, &bob).await;
    let revoke = RevokeTokensRequest { token: claim(&ann, "jti"), ..Default::default() };
    admin.revoke_tokens(revoke).await.unwrap();
    let end = async |stream: &mut tonic::Streaming<_>| loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the job ended"),
            Err(status) => return status,
        }
    };
    let status = soon(end(&mut revoked)).await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    assert!(status.message().contains("the token was revoked"), "{status}");
    // Beside the scheduler, all of the tenant: only now the other one ends.
    let tenant = TenantName::new("acme").unwrap();
    let all = Revoked::Holder { tenant, subject: Some("bob".to_owned()) };
    revoke_now(&cluster, all);
    assert_eq!(soon(end(&mut other)).await.code(), Code::Unauthenticated);
}

fn revoke_now(cluster: &Cluster, revoked: Revoked) {
    revoke(&revoked_path(&cluster.data()), revoked, partita_identity::now()).unwrap();
}

async fn attach(cluster: &Cluster, identity: &Identity) -> Result<Host, Status> {
    let sessions = SessionsClient::new(cluster.channel(Some(identity)));
    Host::attach_with(sessions, hello(1, PartitionList::default())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_host_certificate_counts_no_more_once_it_is_revoked() {
    let mut cluster = Cluster::start().await;
    let (stolen, other) = (cluster.join("host-1").await, cluster.join("host-2").await);
    let mut host = attach(&cluster, &stolen).await.unwrap();
    let mut neighbour = attach(&cluster, &other).await.unwrap();
    let name = HostName::new("host-1").unwrap();
    let unused = cluster.signer().issue_join(&name, Duration::from_secs(60), partita_identity::now()).unwrap();
    let revoke = RevokeHostRequest { host: "host-1".into() };
    cluster.cluster(Role::Operator).revoke_host(revoke).await.unwrap();
    assert!(host.is_closed().await, "its session ends");
    let hosts = async {
        loop {
            let hosts = cluster.cluster(Role::Viewer).hosts(Empty {}).await.unwrap().into_inner().hosts;
            let state = |name: &str| hosts.iter().find(|host| host.name == name).unwrap().state.clone();
            if state("host-1") != "attached" {
                return state("host-2");
            }
        }
    };
    assert_eq!(soon(hosts).await, "attached", "its neighbour goes on");
    assert_eq!(neighbour.module(&[1; 32], 0).await.unwrap_err().code(), Code::NotFound, "and may ask");
    for round in 0..2 {
        let refused = |status: Status| {
            assert_eq!(status.code(), Code::Unauthenticated, "round {round}: {status}");
            assert!(status.message().contains("was revoked"), "round {round}: {status}");
        };
        refused(attach(&cluster, &stolen).await.err().unwrap());
        let renewal = CertificateRequest::new(&name).unwrap();
        let renew = RenewRequest { certificate_request: renewal.der().to_vec().into() };
        refused(SessionsClient::new(cluster.channel(Some(&stolen))).renew(renew).await.unwrap_err());
        refused(cluster.join_with(&name, unused.expose()).await.err().unwrap());
        cluster.stop().await;
        cluster.start_again().await;
    }
    let lines = audited(&cluster).await;
    let line = "Cluster/RevokeHost certificates and join tokens of host host-1 ok";
    assert!(lines.iter().any(|entry| entry.contains(line)), "{lines:#?}");
    // Certificates say to the second when they were issued, so this may take until the next one.
    let comes_back = async {
        loop {
            let token = cluster.signer().issue_join(&name, Duration::from_secs(60), partita_identity::now()).unwrap();
            if let Ok(identity) = cluster.join_with(&name, token.expose()).await {
                return attach(&cluster, &identity).await;
            }
        }
    };
    assert!(soon(comes_back).await.is_ok(), "with a new join token it is as good as any");
}
