//! Who gets in, over real connections: tokens, certificates, plaintext, ports and directories in use.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a failure fails the test")]

use std::time::Duration;

use crate::support::{Cluster, Host, hello, soon};
use partita_identity::Authority;
use partita_identity::CertificateRequest;
use partita_identity::token::{Role, Signer};
use partita_protocol::client::cluster_client::ClusterClient;
use partita_protocol::client::jobs_client::JobsClient;
use partita_protocol::client::{
    Empty, IssueJoinTokenRequest, IssueTokenRequest, JobRequest, ListJobsRequest, RevokeTokensRequest,
};
use partita_protocol::host::host_message::Message as Say;
use partita_protocol::host::sessions_client::SessionsClient;
use partita_protocol::host::{Hello, PartitionList, RenewRequest};
use partita_scheduler::StartError;
use partita_store::JournalError;
use partita_types::{HostName, TenantName, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_token_is_refused_with_advice() {
    let cluster = Cluster::start().await;
    let signer = cluster.signer();
    let tenant = TenantName::new("acme").unwrap();
    let now = partita_identity::now();
    let ago = Timestamp::from_micros(now.micros - 7_200_000_000);
    let ahead = now.after(Duration::from_secs(3_600));
    let issue = |signer: &Signer, at| {
        signer.issue(&tenant, "ann", Role::Developer, Duration::from_secs(600), at).unwrap().expose().to_owned()
    };
    let good = issue(&signer, now);
    let stranger = issue(&Signer::create("test").unwrap(), now);
    let join = signer.issue_join(&HostName::new("host-1").unwrap(), Duration::from_secs(60), now).unwrap();
    let claims = good.split('.').nth(1).unwrap();
    let cases = [
        ("no token", None, "log in"),
        ("garbage", Some("garbage".to_owned()), "JWT"),
        ("expired", Some(issue(&signer, ago)), "expired"),
        ("not yet valid", Some(issue(&signer, ahead)), "clock"),
        ("another issuer's key", Some(stranger), "this cluster"),
        ("alg none", Some(format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}.")), "token"),
        ("changed", Some(format!("{}AAAA", &good[..good.len() - 4])), "signature"),
        ("a join token", Some(join.expose().to_owned()), "meant for"),
    ];
    for (name, token, expected) in cases {
        let mut jobs = JobsClient::new(cluster.authorized(token.as_deref()));
        let status = soon(jobs.list(ListJobsRequest::default())).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{name}: {status}");
        assert!(status.message().contains(expected), "{name}: {status}");
    }
    let mut viewer = JobsClient::new(cluster.authorized(Some(&cluster.token("acme", Role::Viewer))));
    let status = viewer.cancel(JobRequest { job: 1, tenant: String::new() }).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    JobsClient::new(cluster.authorized(Some(&good))).list(ListJobsRequest::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_without_a_policy_is_told_so() {
    let cluster = Cluster::start().await;
    let status = cluster.jobs("nobody").list(ListJobsRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("nobody") && status.message().contains("policy"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_call_is_unimplemented() {
    let cluster = Cluster::start().await;
    let mut grpc = tonic::client::Grpc::new(cluster.developer("acme"));
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<Empty, Empty>::default();
    let path = http::uri::PathAndQuery::from_static("/partita.client.v1.Jobs/Destroy");
    let status = soon(grpc.unary(tonic::Request::new(Empty {}), path, codec)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_gets_no_answer() {
    let cluster = Cluster::start().await;
    for greeting in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..], b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(cluster.address()).await.unwrap();
        stream.write_all(greeting).await.unwrap();
        let mut answer = Vec::new();
        // The end may come as a reset.
        let _ = soon(stream.read_to_end(&mut answer)).await;
        // At most a TLS alert, which is a record of type 21.
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_issued_within_the_policy_and_work() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.cluster(Role::Admin);
    let request = |role: &str, tenant: &str, lifetime_s| IssueTokenRequest {
        tenant: tenant.to_owned(),
        subject: "bob".to_owned(),
        role: role.to_owned(),
        lifetime_s,
    };
    let token = admin.issue_token(request("viewer", "other", 0)).await.unwrap().into_inner().token;
    let me = ClusterClient::new(cluster.authorized(Some(&token))).who_am_i(Empty {}).await.unwrap().into_inner();
    assert_eq!((me.subject.as_str(), me.tenant.as_str(), me.role.as_str()), ("bob", "other", "viewer"));
    for (wrong, code) in [
        (request("owner", "other", 0), Code::InvalidArgument),
        (request("viewer", "nobody", 0), Code::FailedPrecondition),
        (request("viewer", "other", 100 * 3_600), Code::InvalidArgument),
        (request("viewer", "../other", 0), Code::InvalidArgument),
    ] {
        assert_eq!(admin.issue_token(wrong.clone()).await.unwrap_err().code(), code, "{wrong:?}");
    }
    let developer = ClusterClient::new(cluster.developer("acme"));
    let status = developer.clone().issue_token(request("admin", "acme", 0)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_names_somebody_who_could_hold_a_token() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.cluster(Role::Admin);
    let of = |tenant: &str, subject: String| RevokeTokensRequest {
        tenant: tenant.to_owned(),
        subject,
        ..Default::default()
    };
    for (wrong, told) in [
        (of("acme", "x".repeat(129)), "1 to 128 printable characters"),
        (of("acme", "a\nb".to_owned()), "1 to 128 printable characters"),
        (RevokeTokensRequest { token: "x".repeat(129), ..Default::default() }, "a revocation names"),
        (of("", "ann".to_owned()), "a revocation names"),
    ] {
        let status = soon(admin.revoke_tokens(wrong)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(told) && status.message().len() < 300, "{status}");
    }
    admin.revoke_tokens(of("acme", "x".repeat(128))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_larger_than_its_service_takes_is_refused() {
    let cluster = Cluster::start().await;
    let large = RevokeTokensRequest { token: "x".repeat(65 << 10), ..Default::default() };
    let status = soon(cluster.cluster(Role::Admin).revoke_tokens(large)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    assert!(status.message().contains("65536"), "{status}");
    let large = ListJobsRequest { tenant: "x".repeat(33 << 20) };
    let status = soon(cluster.jobs("acme").list(large)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_counts_once_and_for_its_host() {
    let mut cluster = Cluster::start().await;
    let request = IssueJoinTokenRequest { host: "host-1".to_owned(), lifetime_s: 60 };
    let token = cluster.cluster(Role::Operator).issue_join_token(request).await.unwrap().into_inner().token;
    let name = HostName::new("host-1").unwrap();
    let identity = cluster.join_with(&name, &token).await.unwrap();
    let status = cluster.join_with(&name, &token).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("used already"), "{status}");
    cluster.stop().await;
    cluster.start_again().await;
    assert_eq!(cluster.join_with(&name, &token).await.unwrap_err().code(), Code::Unauthenticated, "after a restart");
    let renewal = CertificateRequest::new(&name).unwrap();
    let mut sessions = SessionsClient::new(cluster.channel(Some(&identity)));
    let renew = RenewRequest { certificate_request: renewal.der().to_vec().into() };
    assert_eq!(sessions.renew(renew).await.unwrap().into_inner().host, "host-1");
    let access = cluster.token("acme", Role::Admin);
    assert_eq!(cluster.join_with(&name, &access).await.unwrap_err().code(), Code::Unauthenticated, "an access token");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_certificate_of_this_cluster_opens_a_session() {
    let cluster = Cluster::start().await;
    let without = SessionsClient::new(cluster.channel(None));
    let status = Host::attach_with(without, hello(1, PartitionList::default())).await.err().unwrap();
    assert_eq!(status.code(), Code::Unauthenticated);
    let name = HostName::new("host-1").unwrap();
    let request = CertificateRequest::new(&name).unwrap();
    let stranger = Authority::create("test").unwrap().sign_host(&name, request.der()).unwrap();
    let stranger = request.into_identity(stranger).unwrap();
    let with_foreign = SessionsClient::new(cluster.channel(Some(&stranger)));
    assert!(Host::attach_with(with_foreign, hello(1, PartitionList::default())).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_begins_with_a_hello_and_a_newer_one_replaces_it() {
    let cluster = Cluster::start().await;
    let identity = cluster.join("host-1").await;
    let mut sessions = SessionsClient::new(cluster.channel(Some(&identity)));
    let rude = partita_protocol::host::HostMessage { message: Some(Say::Lost(PartitionList::default())) };
    let status = soon(sessions.attach(tokio_stream::iter([rude]))).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");

    let mut first = Host::attach(&cluster, &identity, hello(5, PartitionList::default())).await;
    let mut second = Host::attach(&cluster, &identity, hello(5, PartitionList::default())).await;
    assert!(first.is_closed().await, "the replaced session ends");
    let older = Host::attach_with(sessions, hello(4, PartitionList::default())).await.err().unwrap();
    assert_eq!(older.code(), Code::FailedPrecondition, "{older}");
    let hosts = cluster.cluster(Role::Viewer).hosts(Empty {}).await.unwrap().into_inner().hosts;
    assert_eq!((hosts.len(), hosts[0].state.as_str()), (1, "attached"));
    second.say(Say::Hello(Hello::default())).await;
    assert!(second.is_closed().await, "a second hello means nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_cannot_take_the_relay_of_another_or_an_unknown_module() {
    let cluster = Cluster::start().await;
    let identity = cluster.join("host-1").await;
    let mut host = Host::attach(&cluster, &identity, hello(1, PartitionList::default())).await;
    let request = partita_protocol::host::RelayRequest { relay: 1 };
    assert_eq!(host.sessions.receive_upload(request).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(host.module(&[1; 32], 0).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(host.module(&[1; 31], 0).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_or_wrong_stops_the_start_with_its_name() {
    let cluster = Cluster::start().await;
    let address = cluster.address();
    let error = cluster.start_wrong(|config| config.listen = address).await;
    assert!(matches!(error, StartError::Bind(_)), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let error = cluster.start_wrong(|_| {}).await;
    assert!(matches!(error, StartError::Journal(JournalError::Locked { .. })), "{error}");
    let error = cluster.start_wrong(|config| config.cluster = "another".to_owned()).await;
    assert!(matches!(&error, StartError::OtherCluster { found, .. } if found == "test"), "{error}");
    let error = cluster.start_wrong(|config| config.issuers = Some(config.policies.join("nowhere.toml"))).await;
    assert!(matches!(&error, StartError::Issuers(_)) && error.to_string().contains("nowhere.toml"), "{error}");
    let broken = cluster.directory.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    std::fs::write(broken.join("a.toml"), "[tenant.acme]\nwieght = 1\n").unwrap();
    let error = cluster.start_wrong(|config| config.policies = broken).await;
    let StartError::Policies(source) = &error else { panic!("{error}") };
    assert!(source.to_string().contains("wieght"), "{source}");
}

#[tokio::test(flavor = "multi_thread")]
async fn monitoring_answers_on_its_own_listener() {
    let cluster = Cluster::start().await;
    let get = async |path: &str| {
        let mut stream = TcpStream::connect(cluster.running().metrics()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon(stream.read_to_string(&mut answer)).await.unwrap();
        answer
    };
    assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get("/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(get("/secrets").await.starts_with("HTTP/1.1 404"));
    let metrics = get("/metrics").await;
    for line in [
        "partita_queued_tasks{tenant=\"acme\"} 0",
        "partita_hosts{state=\"attached\"} 0",
        "partita_journal_flush_seconds_count",
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
}
