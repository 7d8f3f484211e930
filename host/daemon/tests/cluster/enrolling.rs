//! Who may join, and what the others are told.

use partita_host::{EnrollError, HostConfig, StartError};
use partita_identity::Authority;
use partita_identity::token::Token;

use crate::scheduler::Cluster;

async fn refused(config: HostConfig) -> String {
    match partita_host::start(config).await {
        Ok(_) => panic!("the host started"),
        Err(StartError::Enroll(fault)) => fault.to_string(),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_first_start_without_a_token_says_what_is_missing() {
    let cluster = Cluster::start().await;
    let text = refused(cluster.config("h1")).await;
    assert!(text.starts_with("host h1 has no certificate in ") && text.ends_with("no join token was given"), "{text}");
}

#[tokio::test]
async fn a_token_of_nobody_is_refused_with_the_schedulers_words() {
    let cluster = Cluster::start().await;
    let config = HostConfig { join_token: Some(Token::new("not.a.token")), ..cluster.config("h1") };
    let text = refused(config).await;
    assert!(text.starts_with("the scheduler refuses host h1: "), "{text}");
}

#[tokio::test]
async fn a_token_works_once_and_for_its_host_only() {
    let mut cluster = Cluster::start().await;
    let token = cluster.join_token("h1");
    let config = HostConfig { join_token: Some(token.clone()), ..cluster.config("h2") };
    let text = refused(config).await;
    assert!(text.contains("is of host h1, not of host h2"), "{text}");
    let token = cluster.join_token("h1");
    let config = HostConfig { join_token: Some(token.clone()), ..cluster.config("h1") };
    let (running, _session) = cluster.start_host(config).await;
    running.stop().await;
    let again = HostConfig { join_token: Some(token), data: cluster.path("elsewhere"), ..cluster.config("h1") };
    assert_eq!(refused(again).await, "the scheduler refuses host h1: the join token was used before");
}

#[tokio::test]
async fn a_later_start_needs_no_token_and_is_a_new_incarnation() {
    let mut cluster = Cluster::start().await;
    let (running, first) = cluster.host("h1").await;
    running.stop().await;
    let config = cluster.config("h1");
    let (running, second) = cluster.start_host(config).await;
    assert!(second.hello.incarnation > first.hello.incarnation);
    running.stop().await;
}

#[tokio::test]
async fn a_scheduler_of_another_authority_is_not_given_the_token() {
    let cluster = Cluster::start().await;
    let other = cluster.path("other.pem");
    std::fs::write(&other, Authority::create("other").unwrap().certificate_pem()).unwrap();
    let config = HostConfig { authority: other, join_token: Some(cluster.join_token("h1")), ..cluster.config("h1") };
    let text = refused(config).await;
    assert!(text.contains("is not the scheduler of this cluster"), "{text}");
}

#[tokio::test]
async fn a_certificate_of_another_cluster_is_told() {
    let mut cluster = Cluster::start().await;
    let (running, _session) = cluster.host("h1").await;
    running.stop().await;
    let other = cluster.path("other.pem");
    std::fs::write(&other, Authority::create("other").unwrap().certificate_pem()).unwrap();
    let config = HostConfig { authority: other, ..cluster.config("h1") };
    let fault = partita_host::start(config).await.err().expect("the host must not start");
    assert!(matches!(fault, StartError::Enroll(EnrollError::OtherCluster { .. })), "{fault}");
}

#[tokio::test]
async fn a_port_in_use_is_told() {
    let mut cluster = Cluster::start().await;
    let (running, _session) = cluster.host("h1").await;
    let token = Some(cluster.join_token("h2"));
    let config = HostConfig { listen: running.address(), join_token: token, ..cluster.config("h2") };
    let fault = partita_host::start(config).await.err().expect("the host must not start");
    assert_eq!(
        fault.to_string(),
        format!("cannot listen on {}: the port is in use by another process", running.address())
    );
    running.stop().await;
}
