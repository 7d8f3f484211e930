//! Every call, by everybody: the answers follow from the one table, over real connections.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a failure fails the test")]

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use partita_identity::token::{Role, inspect};
use partita_protocol::client as c;
use partita_protocol::host as h;
use partita_protocol::job::JobSpec;
use partita_scheduler::rights::{CALLS, Needs, Verb, may, roles_with};
use partita_types::{HostName, TenantName, Timestamp};
use prost::Message;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::{Cluster, Host, hello, soon};

/// Messages as bytes, so that one function makes every call.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

type Answer = (Code, String);

/// Sends one message to a call of any kind and reads to the end of the answer.
async fn ask(channel: &Channel, path: &'static str, token: Option<&str>, message: &Bytes) -> Answer {
    let mut request = tonic::Request::new(tokio_stream::iter([message.clone()]));
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let called = async {
        let path = http::uri::PathAndQuery::from_static(path);
        let mut answers = grpc.streaming(request, path, Raw).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok::<_, Status>(())
    };
    match soon(called).await {
        Ok(()) => (Code::Ok, String::new()),
        Err(status) => (status.code(), status.message().to_owned()),
    }
}

/// A call with a message, and what those who may call it are told.
struct Sample {
    path: &'static str,
    message: Bytes,
    code: Code,
    /// In the message of the answer.
    told: &'static str,
}

const MISSING: u32 = 999;
const NO_JOB: &str = "job 999 does not exist";

fn sample(path: &'static str, message: &impl Message, code: Code, told: &'static str) -> Sample {
    Sample { path, message: message.encode_to_vec().into(), code, told }
}

fn client_samples() -> Vec<Sample> {
    let job = c::JobRequest { job: MISSING, ..Default::default() };
    let key = Bytes::from_static(&[7; 16]);
    let extend = c::ExtendRequest { job: MISSING, idempotency_key: key, ..Default::default() };
    let issue =
        c::IssueTokenRequest { tenant: "acme".into(), subject: "bob".into(), role: "viewer".into(), lifetime_s: 60 };
    let put = c::PutHeader { job: MISSING, ..Default::default() };
    let put = c::PutRequest { part: Some(c::put_request::Part::Header(put)) };
    vec![
        sample(
            "/partita.client.v1.Modules/Push",
            &c::PushModuleRequest::default(),
            Code::InvalidArgument,
            "a push begins with its header",
        ),
        sample("/partita.client.v1.Modules/List", &c::ListModulesRequest::default(), Code::Ok, ""),
        sample(
            "/partita.client.v1.Modules/Show",
            &c::ShowModuleRequest { reference: "nothing".into() },
            Code::NotFound,
            "module \"nothing\" does not exist",
        ),
        sample(
            "/partita.client.v1.Jobs/Submit",
            &c::SubmitRequest::default(),
            Code::InvalidArgument,
            "the idempotency key has 0 bytes",
        ),
        sample("/partita.client.v1.Jobs/Extend", &extend, Code::NotFound, NO_JOB),
        sample("/partita.client.v1.Jobs/Close", &job, Code::NotFound, NO_JOB),
        sample("/partita.client.v1.Jobs/Cancel", &job, Code::NotFound, NO_JOB),
        sample("/partita.client.v1.Jobs/Release", &job, Code::NotFound, NO_JOB),
        sample("/partita.client.v1.Jobs/List", &c::ListJobsRequest::default(), Code::Ok, ""),
        sample("/partita.client.v1.Jobs/Show", &job, Code::NotFound, NO_JOB),
        sample(
            "/partita.client.v1.Jobs/Watch",
            &c::WatchRequest { job: MISSING, ..Default::default() },
            Code::NotFound,
            NO_JOB,
        ),
        sample(
            "/partita.client.v1.Jobs/Explain",
            &c::ExplainRequest { job: MISSING, ..Default::default() },
            Code::NotFound,
            NO_JOB,
        ),
        sample(
            "/partita.client.v1.Jobs/Log",
            &c::LogRequest { job: MISSING, ..Default::default() },
            Code::NotFound,
            NO_JOB,
        ),
        sample(
            "/partita.client.v1.Jobs/Result",
            &c::ResultRequest { job: MISSING, ..Default::default() },
            Code::NotFound,
            NO_JOB,
        ),
        sample("/partita.client.v1.Jobs/Put", &put, Code::NotFound, "999"),
        sample("/partita.client.v1.Cluster/WhoAmI", &c::Empty {}, Code::Ok, ""),
        sample("/partita.client.v1.Cluster/Hosts", &c::Empty {}, Code::Ok, ""),
        sample("/partita.client.v1.Cluster/Usage", &c::UsageRequest::default(), Code::Ok, ""),
        sample("/partita.client.v1.Cluster/Audit", &c::AuditRequest { after: 0, limit: 1 }, Code::Ok, ""),
        sample("/partita.client.v1.Cluster/IssueToken", &issue, Code::Ok, ""),
        sample(
            "/partita.client.v1.Cluster/RevokeTokens",
            &c::RevokeTokensRequest { token: "none".into(), ..Default::default() },
            Code::Ok,
            "",
        ),
        sample("/partita.client.v1.Cluster/ListTokens", &c::ListTokensRequest::default(), Code::Ok, ""),
        sample("/partita.client.v1.Cluster/RotateKey", &c::RotateKeyRequest { drop_old: false }, Code::Ok, ""),
        sample(
            "/partita.client.v1.Cluster/RevokeHost",
            &c::RevokeHostRequest { host: "Not a host!".into() },
            Code::InvalidArgument,
            "",
        ),
        sample(
            "/partita.client.v1.Cluster/IssueJoinToken",
            &c::IssueJoinTokenRequest { host: "host-9".into(), lifetime_s: 60 },
            Code::Ok,
            "",
        ),
        sample(
            "/partita.client.v1.Cluster/ShowHost",
            &c::ShowHostRequest { host: "nothing".into() },
            Code::NotFound,
            "host \"nothing\" does not exist",
        ),
        sample(
            "/partita.client.v1.Cluster/DrainHost",
            &c::DrainHostRequest { host: "nothing".into(), undo: false },
            Code::NotFound,
            "nothing",
        ),
    ]
}

fn host_samples() -> Vec<Sample> {
    let module = h::ModuleRequest { module: Bytes::from_static(&[9; 32]), tenant: 0 };
    vec![
        sample(
            "/partita.host.v1.Enrollment/Join",
            &h::JoinRequest::default(),
            Code::Unauthenticated,
            "token is empty; get a new join token",
        ),
        sample(
            "/partita.host.v1.Sessions/Renew",
            &h::RenewRequest::default(),
            Code::InvalidArgument,
            "certificate request is not usable",
        ),
        sample(
            "/partita.host.v1.Sessions/Attach",
            &h::HostMessage::default(),
            Code::InvalidArgument,
            "a session begins with a hello",
        ),
        sample("/partita.host.v1.Sessions/Module", &module, Code::NotFound, "does not exist"),
        sample(
            "/partita.host.v1.Sessions/SendResult",
            &h::RelayChunk { relay: 999, ..Default::default() },
            Code::NotFound,
            "the relay does not exist",
        ),
        sample(
            "/partita.host.v1.Sessions/ReceiveUpload",
            &h::RelayRequest { relay: 999 },
            Code::NotFound,
            "the relay does not exist",
        ),
    ]
}

/// Credentials that count for nothing, and what their holder is told.
async fn bad_tokens(cluster: &Cluster) -> Vec<(&'static str, Option<String>, &'static str)> {
    let signer = cluster.signer();
    let (tenant, now) = (TenantName::new("acme").unwrap(), partita_identity::now());
    let minute = Duration::from_secs(60);
    let at = |now| signer.issue(&tenant, "ann", Role::Admin, minute, now).unwrap().expose().to_owned();
    let revoked = at(now);
    let (_, claims) = inspect(&revoked).unwrap();
    let revoke = c::RevokeTokensRequest { token: claims["jti"].as_str().unwrap().to_owned(), ..Default::default() };
    cluster.cluster(Role::Admin).revoke_tokens(revoke).await.unwrap();
    let join = signer.issue_join(&HostName::new("host-1").unwrap(), minute, now).unwrap();
    vec![
        ("no token", None, "no token; log in"),
        ("garbage", Some("garbage".to_owned()), "token is not a JWT"),
        (
            "wrong audience",
            Some(join.expose().to_owned()),
            "token is meant for \"partita-join/test\", not for \"partita/test\"",
        ),
        ("expired", Some(at(Timestamp::from_micros(now.micros - 3_600_000_000))), "token expired"),
        ("not yet valid", Some(at(now.after(2 * minute))), "token is valid only in"),
        ("revoked", Some(revoked), "the token was revoked"),
    ]
}

/// What the table says about a call by somebody with a good token.
fn expected(sample: &Sample, verb: Verb, role: Role) -> (Code, String) {
    if may(role, verb) {
        return (sample.code, sample.told.to_owned());
    }
    let call = sample.path.rsplit('.').next().unwrap();
    (Code::PermissionDenied, format!("role {role} may not call {call}; it needs one of: {}", roles_with(verb)))
}

fn check(who: &str, path: &str, answer: &Answer, code: Code, told: &str) {
    assert_eq!(answer.0, code, "{who} calls {path}: {answer:?}");
    assert!(answer.1.contains(told), "{who} calls {path}: {answer:?} without {told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_answers_everybody_as_the_table_says() {
    let cluster = Cluster::start().await;
    let identity = cluster.join("host-1").await;
    let (plain, certified) = (cluster.channel(None), cluster.channel(Some(&identity)));
    let bad = bad_tokens(&cluster).await;
    let samples: Vec<Sample> = client_samples().into_iter().chain(host_samples()).collect();
    let tried: BTreeSet<&str> = samples.iter().map(|sample| sample.path).collect();
    let table: BTreeSet<&str> = CALLS.iter().map(|(path, _)| *path).collect();
    assert_eq!(tried, table, "a call without a sample, or a sample without a call");
    for sample in &samples {
        let Sample { path, ref message, code, told } = *sample;
        let (_, needs) = CALLS.iter().find(|(known, _)| *known == path).unwrap();
        for (who, token, told_bad) in &bad {
            let answer = ask(&plain, path, token.as_deref(), message).await;
            match needs {
                Needs::Verb(_) => check(who, path, &answer, Code::Unauthenticated, told_bad),
                Needs::Host => check(who, path, &answer, Code::Unauthenticated, "needs the certificate of a host"),
                // Credentials do not matter; the token is in the message.
                Needs::JoinToken => check(who, path, &answer, code, told),
            }
        }
        for role in Role::ALL {
            for tenant in ["acme", "other"] {
                let who = format!("{role} of {tenant}");
                let answer = ask(&plain, path, Some(&cluster.token(tenant, role)), message).await;
                match needs {
                    Needs::Verb(verb) => {
                        let (code, told) = expected(sample, *verb, role);
                        check(&who, path, &answer, code, &told);
                    }
                    Needs::Host => check(&who, path, &answer, Code::Unauthenticated, "needs the certificate of a host"),
                    Needs::JoinToken => check(&who, path, &answer, code, told),
                }
            }
        }
        let answer = ask(&certified, path, None, message).await;
        match needs {
            Needs::Verb(_) => check("a host", path, &answer, Code::Unauthenticated, "no token; log in"),
            Needs::Host | Needs::JoinToken => check("a host", path, &answer, code, told),
        }
    }
}

/// Calls that can name an object of another tenant, with that tenant's name.
fn naming(job: u32, tenant: &str) -> Vec<(&'static str, Bytes)> {
    let tenant = || tenant.to_owned();
    let of = c::JobRequest { job, tenant: tenant() }.encode_to_vec();
    let watch = c::WatchRequest { job, from: 0, tenant: tenant() }.encode_to_vec();
    let explain = c::ExplainRequest { job, tenant: tenant(), ..Default::default() }.encode_to_vec();
    let log = c::LogRequest { job, tenant: tenant(), ..Default::default() }.encode_to_vec();
    let result = c::ResultRequest { job, tenant: tenant(), ..Default::default() }.encode_to_vec();
    let list = c::ListJobsRequest { tenant: tenant() }.encode_to_vec();
    let usage = c::UsageRequest { tenant: tenant() }.encode_to_vec();
    [
        ("/partita.client.v1.Jobs/Close", of.clone()),
        ("/partita.client.v1.Jobs/Cancel", of.clone()),
        ("/partita.client.v1.Jobs/Release", of.clone()),
        ("/partita.client.v1.Jobs/Show", of),
        ("/partita.client.v1.Jobs/Watch", watch),
        ("/partita.client.v1.Jobs/Explain", explain),
        ("/partita.client.v1.Jobs/Log", log),
        ("/partita.client.v1.Jobs/Result", result),
        ("/partita.client.v1.Jobs/List", list),
        ("/partita.client.v1.Cluster/Usage", usage),
    ]
    .map(|(path, message)| (path, message.into()))
    .to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_object_reads_like_a_missing_one_in_every_call() {
    let cluster = Cluster::start().await;
    let identity = cluster.join("host-1").await;
    let mut host = Host::attach(&cluster, &identity, hello(1, h::PartitionList::default())).await;
    let module = cluster.push(&mut host, "secret", b"\0asm of acme").await;
    let job = JobSpec { name: "secret".to_owned(), open: true, ..Default::default() };
    let submit = c::SubmitRequest { job: Some(job), idempotency_key: Bytes::from_static(&[1; 16]) };
    let number = cluster.jobs("acme").submit(submit).await.unwrap().into_inner().job;
    let channel = cluster.channel(None);
    // Those who run the cluster see all tenants.
    for role in [Role::Viewer, Role::Developer] {
        let token = cluster.token("other", role);
        let foreign = naming(number, "acme");
        // Its own job of that number, and that of a tenant which there is not, are missing.
        let (own, nobody) = (naming(number, ""), naming(number, "nobody"));
        for (((path, foreign), (_, own)), (_, nobody)) in foreign.into_iter().zip(&own).zip(&nobody) {
            let answer = ask(&channel, path, Some(&token), &foreign).await;
            let missing = ask(&channel, path, Some(&token), nobody).await;
            let (_, Needs::Verb(verb)) = CALLS.iter().find(|(known, _)| *known == path).unwrap() else {
                panic!("{path}")
            };
            let code = if may(role, *verb) { Code::NotFound } else { Code::PermissionDenied };
            assert_eq!(answer.0, code, "{role} {path}: {answer:?}");
            assert_eq!((answer.0, answer.1.replace("acme", "nobody")), missing, "{role} {path}");
            if !answer.1.contains("tenant") {
                assert_eq!(answer, ask(&channel, path, Some(&token), own).await, "{role} {path}");
            }
        }
        let show = |reference: String| Bytes::from(c::ShowModuleRequest { reference }.encode_to_vec());
        let path = "/partita.client.v1.Modules/Show";
        let [id, other] = [hex(&module.id), "ab".repeat(32)];
        for (foreign, missing) in [("secret".to_owned(), "absent".to_owned()), (id, other)] {
            let answer = ask(&channel, path, Some(&token), &show(foreign.clone())).await;
            assert_eq!(answer.0, Code::NotFound, "{answer:?}");
            let absent = ask(&channel, path, Some(&token), &show(missing.clone())).await;
            assert_eq!((answer.0, answer.1.replace(&foreign, &missing)), absent);
        }
    }
    let viewer = cluster.token("acme", Role::Viewer);
    let own = naming(number, "");
    let (path, message) = &own[3];
    let shown = ask(&channel, path, Some(&viewer), message).await;
    assert_eq!(shown.0, Code::Ok, "it exists, and nothing happened to it");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
