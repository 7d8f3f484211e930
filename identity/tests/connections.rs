//! Both sides of real connections on the loopback interface: who gets through, and as whom.

use std::convert::Infallible;
use std::future::Ready;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use http::{Request, Response};
use partita_identity::dial::{self, ConnectError, DialError, Expect};
use partita_identity::serve::{self, Connection, ConnectionLimits, Peer};
use partita_identity::tls::{self, LiveIdentity};
use partita_identity::{Authority, CertificateRequest, Identity};
use partita_types::HostName;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::{Service, ServiceExt as _};

fn host(name: &str) -> HostName {
    HostName::new(name).expect("a host name")
}

fn joined(authority: &Authority, name: &str) -> Identity {
    let request = CertificateRequest::new(&host(name)).expect("a request");
    let chain = authority.sign_host(&host(name), request.der()).expect("a certificate");
    request.into_identity(chain).expect("an identity")
}

type Incoming = Pin<Box<dyn Stream<Item = std::io::Result<Connection>> + Send>>;

fn listen(config: Arc<ServerConfig>, limits: ConnectionLimits) -> (SocketAddr, Incoming) {
    let listener = serve::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let address = listener.local_addr().expect("an address");
    (address, Box::pin(serve::incoming(listener, config, limits)))
}

fn scheduler(authority: &Authority) -> Arc<ServerConfig> {
    let identity = authority.issue_server(&[]).expect("a certificate");
    tls::server_config(&identity, authority.certificate_pem()).expect("a configuration")
}

fn client(authority: &Authority, identity: Option<&Identity>) -> Arc<ClientConfig> {
    tls::client_config(authority.certificate_pem(), identity).expect("a configuration")
}

/// Answers every request with the name of the peer.
#[derive(Clone)]
struct WhoAmI;

impl Service<Request<Body>> for WhoAmI {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>().expect("every request has a peer");
        let name = peer.host.as_ref().map_or("nobody", HostName::as_str);
        std::future::ready(Ok(Response::builder().header("peer", name).body(Body::empty()).expect("a response")))
    }
}

/// A server on a task of its own; dropping the set ends it.
fn serve_on(tasks: &mut JoinSet<()>, config: Arc<ServerConfig>) -> SocketAddr {
    let (address, incoming) = listen(config, ConnectionLimits::default());
    tasks.spawn(async move {
        serve::server().serve_with_incoming(WhoAmI, incoming).await.expect("the server runs");
    });
    address
}

/// As whom the server sees this channel.
async fn whoami(channel: Channel) -> Result<String, tonic::transport::Error> {
    let request = Request::post("http://any/partita.test/WhoAmI").body(Body::empty()).expect("a request");
    let response = channel.oneshot(request).await?;
    Ok(response.headers()["peer"].to_str().expect("a name").to_owned())
}

/// The connect error among the sources of a transport error.
fn connect_error(error: &tonic::transport::Error) -> &ConnectError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<ConnectError>() {
            return found;
        }
        cause = error.source();
    }
    panic!("no connect error in {error:?}")
}

async fn refused(address: SocketAddr, config: Arc<ClientConfig>, expect: Expect) -> String {
    let channel = dial::channel(&address.to_string(), config, expect).expect("a channel");
    let error = whoami(channel).await.expect_err("the connection was made");
    connect_error(&error).to_string()
}

fn expect_scheduler() -> Expect {
    Expect::Server("localhost".to_owned())
}

#[tokio::test]
async fn a_client_without_certificate_is_nobody_and_a_host_is_itself() {
    let authority = Authority::create("lab").unwrap();
    let mut tasks = JoinSet::new();
    let address = serve_on(&mut tasks, scheduler(&authority)).to_string();
    let channel = |config, expect| dial::channel(&address, config, expect).unwrap();

    assert_eq!(whoami(channel(client(&authority, None), expect_scheduler())).await.unwrap(), "nobody");
    let by_address = Expect::Server("127.0.0.1".to_owned());
    assert_eq!(whoami(channel(client(&authority, None), by_address)).await.unwrap(), "nobody");
    let identity = joined(&authority, "rack-1.a");
    assert_eq!(whoami(channel(client(&authority, Some(&identity)), expect_scheduler())).await.unwrap(), "rack-1.a");
}

#[tokio::test]
async fn hosts_reach_each_other_by_name_whatever_their_address() {
    let authority = Authority::create("lab").unwrap();
    let (a, b) = (joined(&authority, "host-a"), joined(&authority, "host-b"));
    let mut tasks = JoinSet::new();
    let address = serve_on(&mut tasks, tls::server_config(&b, authority.certificate_pem()).unwrap());
    let channel =
        dial::channel(&address.to_string(), client(&authority, Some(&a)), Expect::Host(host("host-b"))).unwrap();
    assert_eq!(whoami(channel).await.unwrap(), "host-a");
}

#[tokio::test]
async fn a_host_cannot_pass_for_another_host() {
    let authority = Authority::create("lab").unwrap();
    let mut tasks = JoinSet::new();
    let config = tls::server_config(&joined(&authority, "host-a"), authority.certificate_pem()).unwrap();
    let address = serve_on(&mut tasks, config);
    let error = refused(address, client(&authority, None), Expect::Host(host("host-b"))).await;
    assert_eq!(error, format!("TLS with {address} failed"));
}

#[tokio::test]
async fn a_host_called_localhost_cannot_pass_for_the_scheduler() {
    let authority = Authority::create("lab").unwrap();
    let mut tasks = JoinSet::new();
    let config = tls::server_config(&joined(&authority, "localhost"), authority.certificate_pem()).unwrap();
    let address = serve_on(&mut tasks, config);
    let error = refused(address, client(&authority, None), expect_scheduler()).await;
    assert_eq!(error, format!("{address} is host localhost, not the scheduler"));
}

#[tokio::test]
async fn the_scheduler_cannot_pass_for_a_host() {
    let authority = Authority::create("lab").unwrap();
    let mut tasks = JoinSet::new();
    let address = serve_on(&mut tasks, scheduler(&authority));
    let error = refused(address, client(&authority, None), Expect::Host(host("localhost"))).await;
    assert_eq!(error, format!("{address} is the scheduler, not host localhost"));
}

#[tokio::test]
async fn servers_of_another_authority_are_refused_even_if_their_cluster_has_our_name() {
    let (ours, theirs) = (Authority::create("lab").unwrap(), Authority::create("lab").unwrap());
    let mut tasks = JoinSet::new();
    let address = serve_on(&mut tasks, scheduler(&theirs));
    let error = refused(address, client(&ours, None), expect_scheduler()).await;
    assert_eq!(error, format!("TLS with {address} failed"));
}

#[tokio::test]
async fn a_certificate_signed_by_us_for_another_cluster_names_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::create("lab").unwrap();
    authority.save(directory.path()).unwrap();
    let (chain, key) = rogue(directory.path(), &["spiffe://partita/other/scheduler"]);
    let mut tasks = JoinSet::new();
    let address = serve_on(&mut tasks, rogue_server(&chain, &key));
    let error = refused(address, client(&authority, None), expect_scheduler()).await;
    assert_eq!(error, format!("the certificate of {address} is refused"));
}

#[tokio::test]
async fn clients_with_two_names_or_none_are_closed_before_they_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::create("lab").unwrap();
    authority.save(directory.path()).unwrap();
    let (address, mut incoming) = listen(scheduler(&authority), ConnectionLimits::default());
    let uris: [&[&str]; 3] =
        [&[], &["spiffe://partita/lab/host/a", "spiffe://partita/lab/host/b"], &["spiffe://partita/lab/scheduler"]];
    for uris in uris {
        let (chain, key) = rogue(directory.path(), uris);
        let config = raw_client(&authority, &rustls::version::TLS13, Some((chain, key)));
        let closed = next_or_closed(&mut incoming, is_closed(address, config)).await;
        assert!(closed, "a client with the names {uris:?} was served");
    }
    let good = raw_client(&authority, &rustls::version::TLS13, None);
    let (served, _stream) = tokio::join!(incoming.next(), handshake(address, good));
    assert_eq!(served.unwrap().unwrap().peer().host, None, "a good client is served after the bad ones");
}

#[tokio::test]
async fn host_certificates_of_another_authority_are_refused() {
    let (ours, theirs) = (Authority::create("lab").unwrap(), Authority::create("lab").unwrap());
    let (address, mut incoming) = listen(scheduler(&ours), ConnectionLimits::default());
    let foreign = client(&ours, Some(&joined(&theirs, "host-a")));
    assert!(next_or_closed(&mut incoming, is_closed(address, foreign)).await);
}

#[tokio::test]
async fn plaintext_is_closed_and_does_not_disturb_others() {
    let authority = Authority::create("lab").unwrap();
    let (address, mut incoming) = listen(scheduler(&authority), ConnectionLimits::default());
    for greeting in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"GET / HTTP/1.1\r\n\r\n", &[0; 64]] {
        let plain = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(greeting).await.unwrap();
            let mut answer = Vec::new();
            // The end of the stream or a reset: closed in either case. A TLS alert may come before.
            let _ = stream.read_to_end(&mut answer).await;
            assert!(!answer.starts_with(b"HTTP") && answer.len() < 16, "plaintext was answered: {answer:?}");
            true
        };
        assert!(next_or_closed(&mut incoming, plain).await);
    }
    let (served, _stream) =
        tokio::join!(incoming.next(), handshake(address, raw_client(&authority, &rustls::version::TLS13, None)));
    assert!(served.unwrap().is_ok());
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let authority = Authority::create("lab").unwrap();
    let (address, mut incoming) = listen(scheduler(&authority), ConnectionLimits::default());
    let old = raw_client(&authority, &rustls::version::TLS12, None);
    assert!(next_or_closed(&mut incoming, async { handshake(address, old).await.is_err() }).await);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_handshake_is_cut_after_its_limit() {
    let authority = Authority::create("lab").unwrap();
    let (address, mut incoming) = listen(scheduler(&authority), ConnectionLimits::default());
    let begin = tokio::time::Instant::now();
    let stalled = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The first bytes of a handshake, and then nothing.
        stream.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        true
    };
    assert!(next_or_closed(&mut incoming, stalled).await);
    let waited = begin.elapsed();
    assert!(waited >= Duration::from_secs(5) && waited < Duration::from_secs(10), "{waited:?}");
}

#[tokio::test]
async fn connections_from_one_address_are_bounded_and_places_come_back() {
    let authority = Authority::create("lab").unwrap();
    let limits = ConnectionLimits { per_address: 1, ..ConnectionLimits::default() };
    let (address, mut incoming) = listen(scheduler(&authority), limits);
    let config = raw_client(&authority, &rustls::version::TLS13, None);
    let (first, _stream) = tokio::join!(incoming.next(), handshake(address, config.clone()));
    assert!(next_or_closed(&mut incoming, is_closed(address, config.clone())).await);
    drop(first);
    let (second, _stream) = tokio::join!(incoming.next(), handshake(address, config));
    assert!(second.unwrap().is_ok());
}

#[tokio::test]
async fn beyond_the_total_a_connection_waits_until_another_ends() {
    let authority = Authority::create("lab").unwrap();
    let limits = ConnectionLimits { total: 1, ..ConnectionLimits::default() };
    let (address, mut incoming) = listen(scheduler(&authority), limits);
    let config = raw_client(&authority, &rustls::version::TLS13, None);
    let (first, _stream) = tokio::join!(incoming.next(), handshake(address, config.clone()));

    let mut second = std::pin::pin!(async { tokio::join!(incoming.next(), handshake(address, config.clone())) });
    // With the clock paused, the minute is over as soon as nothing else can happen.
    tokio::time::pause();
    let waited = tokio::time::timeout(Duration::from_secs(60), second.as_mut()).await;
    assert!(waited.is_err(), "a second connection was served beside the first");
    tokio::time::resume();
    drop(first);
    let (served, stream) = second.await;
    assert!(served.unwrap().is_ok() && stream.is_ok());
}

#[tokio::test]
async fn a_renewed_identity_is_used_by_the_next_connection_on_both_sides() {
    let authority = Authority::create("lab").unwrap();
    let (old, new) = (joined(&authority, "old"), joined(&authority, "new"));
    let (server, client) = (LiveIdentity::new(&old), LiveIdentity::new(&old));
    let mut tasks = JoinSet::new();
    let address = serve_on(&mut tasks, tls::live_server_config(&server, authority.certificate_pem()).unwrap());
    let config = tls::live_client_config(authority.certificate_pem(), &client).unwrap();
    let dial = |name| dial::channel(&address.to_string(), config.clone(), Expect::Host(host(name))).unwrap();

    assert_eq!(whoami(dial("old")).await.unwrap(), "old");
    server.replace(&new);
    client.replace(&new);
    assert_eq!(whoami(dial("new")).await.unwrap(), "new");
    assert!(whoami(dial("old")).await.is_err());
}

#[tokio::test]
async fn a_channel_connects_again_when_its_server_is_back() {
    let authority = Authority::create("lab").unwrap();
    let mut tasks = JoinSet::new();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (address, incoming) = listen(scheduler(&authority), ConnectionLimits::default());
    tasks.spawn(async move {
        let signal = async { stopped.await.unwrap_or_default() };
        serve::server().serve_with_incoming_shutdown(WhoAmI, incoming, signal).await.expect("the server runs");
    });
    let channel = dial::channel(&address.to_string(), client(&authority, None), expect_scheduler()).unwrap();
    assert_eq!(whoami(channel.clone()).await.unwrap(), "nobody");

    // The server ends when its last connection is closed, so the channel has lost it by then.
    stop.send(()).unwrap();
    tasks.join_next().await.unwrap().unwrap();
    let error = whoami(channel.clone()).await.unwrap_err();
    assert_eq!(connect_error(&error).to_string(), format!("cannot reach {address}"));

    let listener = serve::bind(address).unwrap();
    let incoming = serve::incoming(listener, scheduler(&authority), ConnectionLimits::default());
    tasks.spawn(async move {
        serve::server().serve_with_incoming(WhoAmI, incoming).await.expect("the server runs");
    });
    assert_eq!(whoami(channel).await.unwrap(), "nobody");
}

#[tokio::test]
async fn nobody_listening_is_said_with_the_address() {
    let authority = Authority::create("lab").unwrap();
    let address = {
        let listener = serve::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listener.local_addr().unwrap()
    };
    let error = refused(address, client(&authority, None), expect_scheduler()).await;
    assert_eq!(error, format!("cannot reach {address}"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_given_up() {
    let authority = Authority::create("lab").unwrap();
    let listener = serve::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let error = refused(address, client(&authority, None), expect_scheduler()).await;
    assert_eq!(error, format!("{address} did not answer within 5s"));
}

#[tokio::test]
async fn addresses_and_names_that_can_never_be_right_are_refused_at_once() {
    let authority = Authority::create("lab").unwrap();
    let config = client(&authority, None);
    for address in ["", "localhost", ":7400", "localhost:", "localhost:port", "localhost:99999", "a b:1", "http://a:1/"]
    {
        let error = dial::channel(address, config.clone(), expect_scheduler()).unwrap_err();
        assert_eq!(error, DialError::Address { address: address.to_owned() });
    }
    let error = dial::channel("localhost:1", config.clone(), Expect::Server("no name".to_owned())).unwrap_err();
    assert_eq!(error, DialError::Name { name: "no name".to_owned() });
    assert!(dial::channel("[::1]:1", config, Expect::Server("[::1]".to_owned())).is_ok());
}

/// Polls the listener beside `client`, which must end without anybody having been served.
async fn next_or_closed(incoming: &mut Incoming, client: impl Future<Output = bool>) -> bool {
    tokio::select! {
        served = incoming.next() => panic!("served {:?}", served.map(|connection| connection.map(|c| c.peer().clone()))),
        closed = client => closed,
    }
}

async fn handshake(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(config).connect(ServerName::try_from("localhost").expect("a name"), stream).await
}

/// Whether the server closes this client. In TLS 1.3 a client learns only by reading that it is refused.
async fn is_closed(address: SocketAddr, config: Arc<ClientConfig>) -> bool {
    match handshake(address, config).await {
        Err(_) => true,
        Ok(mut stream) => stream.read(&mut [0; 16]).await.map_or(true, |count| count == 0),
    }
}

type ChainAndKey = (Vec<CertificateDer<'static>>, PrivatePkcs8KeyDer<'static>);

/// A client that is not ours, of any version, with any certificate.
fn raw_client(
    authority: &Authority,
    version: &'static rustls::SupportedProtocolVersion,
    identity: Option<ChainAndKey>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).expect("a certificate"))
        .expect("a root");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots);
    let mut config = match identity {
        Some((chain, key)) => {
            builder.with_client_auth_cert(chain, PrivateKeyDer::Pkcs8(key)).expect("a client certificate")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

fn rogue_server(chain: &[CertificateDer<'static>], key: &PrivatePkcs8KeyDer<'static>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(chain.to_vec(), PrivateKeyDer::Pkcs8(key.clone_key()))
        .expect("a certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// A certificate that the authority in `directory` would never sign: valid chain, wrong names.
fn rogue(directory: &std::path::Path, uris: &[&str]) -> ChainAndKey {
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).expect("a file");
    let issuer_key = rcgen::KeyPair::from_pem(&read("ca.key")).expect("a key");
    let issuer = rcgen::Issuer::from_ca_cert_pem(&read("ca.pem"), issuer_key).expect("an authority");
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    params.extended_key_usages =
        vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    for uri in uris {
        params.subject_alt_names.push(rcgen::SanType::URI((*uri).try_into().expect("a URI")));
    }
    let key = rcgen::KeyPair::generate().expect("a key");
    let chain = vec![params.signed_by(&key, &issuer).expect("a certificate").der().clone()];
    (chain, PrivatePkcs8KeyDer::from(key.serialize_der()))
}
