//! Listeners: a bounded accept loop in front of tonic, with TLS and the caller's name.
//!
//! tonic alone has no bound on connections and no limit on a handshake. Here every connection holds a permit from
//! before it is accepted until it ends, handshakes run beside each other and are cut after a few seconds, and what
//! goes wrong with one connection never ends the stream of connections.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream;
use partita_types::{HostName, Timestamp};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use crate::authority::CLOCK_SKEW;
use crate::principal::{Principal, PrincipalError, principal_of, valid_from};

/// Connections that the kernel keeps for us while all permits are taken.
const BACKLOG: u32 = 1024;

/// Pause after the system refused to accept, as it does without free descriptors; without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Streams that one connection may have open at once.
const STREAMS_MAX: u32 = 64;

/// What a client may send on one stream, and on all of a connection, before somebody reads it.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Largest HTTP/2 frame that is taken: large enough for bulk, small enough to share a connection.
const FRAME_MAX: u32 = 256 << 10;

/// All headers of a request together; the largest is a token of 4 KiB.
const HEADERS_MAX: u32 = 16 << 10;

/// How often a connection is asked for a sign of life, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(10);

/// Age at which a connection takes no further requests; those that run go on, and the client connects anew, showing
/// its certificate again.
const CONNECTION_AGE: Duration = Duration::from_secs(3600);

/// Bounds on streams that a client opens and resets at once (the rapid reset attack).
const PENDING_RESETS_MAX: usize = 20;
const LOCAL_RESETS_MAX: usize = 32;

/// Bounds of one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at once, those in a handshake included. Further ones wait in the kernel's queue.
    pub total: usize,
    /// Connections at once from one address. Further ones are closed.
    pub per_address: usize,
    /// Longest TLS handshake.
    pub handshake: Duration,
}

impl Default for ConnectionLimits {
    /// 1024 connections, 256 from one address, five seconds for a handshake.
    fn default() -> Self {
        Self { total: 1024, per_address: 256, handshake: Duration::from_secs(5) }
    }
}

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("cannot listen on {address}: the port is in use by another process")]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// The address is not ours, the port is privileged, or the like.
    #[error("cannot listen on {address}")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Listens on `address`; port 0 takes a free one.
///
/// # Errors
/// If the address cannot be used; a port in use is said in words.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restarted process may listen again while old connections linger in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address },
        _ => BindError::Refused { address, source },
    })
}

/// Who is at the other end of a connection. Found in the extensions of every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// The host named by the verified client certificate; none if there was no certificate.
    pub host: Option<HostName>,
    /// When that certificate was issued, to the second.
    pub certified: Timestamp,
}

/// A connection after its handshake. Dropping it frees its place.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    _permit: OwnedSemaphorePermit,
    _place: Place,
}

impl Connection {
    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The connections of `listener`, after their handshakes, for tonic's `serve_with_incoming_shutdown`.
///
/// Never ends and never yields an error; dropping it stops listening and cuts handshakes.
pub fn incoming(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    limits: ConnectionLimits,
) -> impl Stream<Item = io::Result<Connection>> + Send + 'static {
    let door = Door {
        listener,
        tls: TlsAcceptor::from(config),
        limits,
        permits: Arc::new(Semaphore::new(limits.total)),
        places: Places::default(),
        handshakes: JoinSet::new(),
    };
    stream::unfold(door, |mut door| async move {
        let connection = door.next().await;
        Some((Ok(connection), door))
    })
}

/// A tonic server with our bounds on HTTP/2: add services and layers, then serve [`incoming`].
///
/// There is no limit on the duration of a request, because sessions and watches last; services set their own.
#[must_use]
pub fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_MAX)
        .http2_max_header_list_size(HEADERS_MAX)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_ANSWER))
        .max_connection_age(CONNECTION_AGE)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(LOCAL_RESETS_MAX))
}

/// The accept loop of one listener.
struct Door {
    listener: TcpListener,
    tls: TlsAcceptor,
    limits: ConnectionLimits,
    permits: Arc<Semaphore>,
    places: Places,
    /// At most as many as there are permits.
    handshakes: JoinSet<Result<Connection, Refusal>>,
}

/// Why a connection was closed before it was served.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("TLS handshake failed")]
    Handshake(#[source] io::Error),
    #[error("TLS handshake took longer than {0:?}")]
    Stalled(Duration),
    #[error("client certificate refused")]
    Certificate(#[source] PrincipalError),
    #[error("client shows the certificate of the scheduler")]
    NotAHost,
}

impl Door {
    async fn next(&mut self) -> Connection {
        loop {
            // Both branches are cancel-safe: nothing is lost if the other one is first.
            tokio::select! {
                Some(ended) = self.handshakes.join_next() => match ended {
                    Ok(Ok(connection)) => return connection,
                    Ok(Err(refusal)) => debug!(error = %chain(&refusal), "connection refused"),
                    Err(fault) => warn!(error = %fault, "handshake was aborted"),
                },
                accepted = accept(&self.listener, &self.permits) => self.begin(accepted),
            }
        }
    }

    fn begin(&mut self, (stream, address, permit): (TcpStream, SocketAddr, OwnedSemaphorePermit)) {
        let Some(place) = self.places.take(address.ip(), self.limits.per_address) else {
            debug!(%address, "connection refused: too many from this address");
            return;
        };
        let (tls, limit) = (self.tls.clone(), self.limits.handshake);
        self.handshakes.spawn(async move {
            let stream = handshake(tls, stream, limit).await?;
            let (host, certified) = client_host(&stream)?.unzip();
            let peer = Peer { address, host, certified: certified.unwrap_or_default() };
            Ok(Connection { stream, peer, _permit: permit, _place: place })
        });
    }
}

/// Waits for a permit, then for a connection. Cancel-safe.
async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        // The semaphore is never closed; should it be, no connection is accepted any more.
        let Ok(permit) = permits.clone().acquire_owned().await else { std::future::pending().await };
        match listener.accept().await {
            Ok((stream, address)) => return (stream, address, permit),
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn handshake(tls: TlsAcceptor, stream: TcpStream, limit: Duration) -> Result<TlsStream<TcpStream>, Refusal> {
    stream.set_nodelay(true).map_err(Refusal::Handshake)?;
    match tokio::time::timeout(limit, tls.accept(stream)).await {
        Ok(done) => done.map_err(Refusal::Handshake),
        Err(_) => Err(Refusal::Stalled(limit)),
    }
}

/// The host that the verified client certificate names, if there is a certificate, and when that was issued.
fn client_host(stream: &TlsStream<TcpStream>) -> Result<Option<(HostName, Timestamp)>, Refusal> {
    let Some(leaf) = stream.get_ref().1.peer_certificates().and_then(<[_]>::first) else { return Ok(None) };
    match principal_of(leaf).map_err(Refusal::Certificate)? {
        Principal::Host(name) => {
            let certified = valid_from(leaf).map_err(Refusal::Certificate)?.after(CLOCK_SKEW);
            Ok(Some((name, certified)))
        }
        Principal::Scheduler => Err(Refusal::NotAHost),
    }
}

/// An error with its causes, for a log line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Counts connections by address.
#[derive(Debug, Clone, Default)]
struct Places(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Places {
    fn take(&self, address: IpAddr, limit: usize) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(address).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Place { places: self.clone(), address })
    }
}

/// One counted connection; given back on drop.
#[derive(Debug)]
struct Place {
    places: Places,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_address_and_given_back() {
        let places = Places::default();
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = places.take(a, 1).unwrap();
        assert!(places.take(a, 1).is_none());
        assert!(places.take(b, 1).is_some());
        drop(first);
        assert!(places.take(a, 1).is_some());
        assert!(places.0.lock().unwrap().is_empty(), "addresses without connections must not pile up");
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let first = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {address}: the port is in use by another process"));
    }
}
