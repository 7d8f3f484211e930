//! Connections to others: a lazy tonic channel over TLS that insists on whom it reaches.
//!
//! The chain, the dates and the DNS name are checked by rustls; that the certificate is the scheduler's, or that
//! of one certain host, is checked here before the first byte of HTTP/2 is sent.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use partita_types::HostName;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::principal::{Principal, PrincipalError, principal_of};

/// Longest time for TCP and TLS together.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How often an idle connection is asked for a sign of life, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(10);

/// What the other side may send on one stream, and on all of them, before we read it: enough for bulk transfers.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Largest HTTP/2 frame that is taken.
const FRAME_MAX: u32 = 1 << 20;

/// All headers of an answer together.
const HEADERS_MAX: u32 = 16 << 10;

/// Who must be at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// The scheduler, under this DNS name or IP address.
    Server(String),
    /// This host, whatever its address.
    Host(HostName),
}

/// An address or name that cannot be dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// Not `host:port`.
    #[error("address {address:?} is not of the form host:port")]
    Address {
        /// The address, shortened.
        address: String,
    },
    /// A name that no certificate can carry.
    #[error("{name:?} is neither a DNS name nor an IP address, so no certificate can name it")]
    Name {
        /// The name, shortened.
        name: String,
    },
}

/// Why a connection could not be made. Found among the sources of the transport error of a call.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens, or the way is blocked.
    #[error("cannot reach {address}")]
    Tcp {
        /// The address.
        address: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The other side does not speak TLS 1.3, or its certificate is refused, or it refuses ours.
    #[error("TLS with {address} failed")]
    Tls {
        /// The address.
        address: String,
        /// What the library says.
        #[source]
        source: io::Error,
    },
    /// No HTTP/2.
    #[error("{address} does not speak HTTP/2")]
    Protocol {
        /// The address.
        address: String,
    },
    /// The certificate names nobody of the cluster.
    #[error("the certificate of {address} is refused")]
    Certificate {
        /// The address.
        address: String,
        /// What is wrong with it.
        #[source]
        source: PrincipalError,
    },
    /// Somebody else is there.
    #[error("{address} is {found}, not {expected}")]
    Somebody {
        /// The address.
        address: String,
        /// Who should be there.
        expected: Principal,
        /// Whom the certificate names.
        found: Principal,
    },
    /// No answer in time.
    #[error("{address} did not answer within {CONNECT_LIMIT:?}")]
    Stalled {
        /// The address.
        address: String,
    },
}

/// A channel to `address` (`host:port`), which connects when it is first used and again when the connection is lost.
///
/// # Errors
/// If `address` or the expected name can never be right.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn channel(address: &str, config: Arc<ClientConfig>, expect: Expect) -> Result<Channel, DialError> {
    let target = Target::new(address, config, expect)?;
    let uri = format!("http://{address}");
    let endpoint = Endpoint::from_shared(uri)
        .map_err(|_| bad_address(address))?
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER)
        // Otherwise a dead scheduler or host is noticed only by the next call.
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_MAX)
        .http2_max_header_list_size(HEADERS_MAX);
    let connector = tower::service_fn(move |_: Uri| {
        let target = target.clone();
        async move { target.connect().await.map(TokioIo::new) }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// Where to connect and whom to find there.
#[derive(Clone)]
struct Target {
    address: Arc<str>,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    expected: Principal,
}

impl Target {
    fn new(address: &str, config: Arc<ClientConfig>, expect: Expect) -> Result<Self, DialError> {
        let (host, port) = address.rsplit_once(':').ok_or_else(|| bad_address(address))?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(bad_address(address));
        }
        let (name, expected) = match expect {
            Expect::Server(name) => (name, Principal::Scheduler),
            Expect::Host(host) => (host.as_str().to_owned(), Principal::Host(host)),
        };
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&name).to_owned();
        let name = ServerName::try_from(bare).map_err(|_| DialError::Name { name: name.chars().take(80).collect() })?;
        Ok(Self { address: address.into(), config, name, expected })
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, ConnectError> {
        match tokio::time::timeout(CONNECT_LIMIT, self.connect_unbounded()).await {
            Ok(done) => done,
            Err(_) => Err(ConnectError::Stalled { address: self.address() }),
        }
    }

    async fn connect_unbounded(&self) -> Result<TlsStream<TcpStream>, ConnectError> {
        let tcp = TcpStream::connect(&*self.address)
            .await
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|source| ConnectError::Tcp { address: self.address(), source })?;
        let stream = TlsConnector::from(self.config.clone())
            .connect(self.name.clone(), tcp)
            .await
            .map_err(|source| ConnectError::Tls { address: self.address(), source })?;
        self.check(&stream)?;
        Ok(stream)
    }

    /// Whether the verified certificate names whom we wanted to reach.
    fn check(&self, stream: &TlsStream<TcpStream>) -> Result<(), ConnectError> {
        let session = stream.get_ref().1;
        if session.alpn_protocol() != Some(b"h2") {
            return Err(ConnectError::Protocol { address: self.address() });
        }
        let leaf = session.peer_certificates().and_then(<[_]>::first).map(AsRef::as_ref).unwrap_or_default();
        let found =
            principal_of(leaf).map_err(|source| ConnectError::Certificate { address: self.address(), source })?;
        if found == self.expected {
            return Ok(());
        }
        Err(ConnectError::Somebody { address: self.address(), expected: self.expected.clone(), found })
    }

    fn address(&self) -> String {
        self.address.as_ref().to_owned()
    }
}

fn bad_address(address: &str) -> DialError {
    DialError::Address { address: address.chars().take(80).collect() }
}
