//! `/metrics`, `/healthz` and `/readyz`, in plain HTTP/1.1 on a listener of their own.
//!
//! Nothing here changes anything or shows anything of a tenant but its name and numbers. Keep it on the loopback
//! interface, or where only the metrics collector reaches it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::driver::Handle;
use crate::metrics::Metrics;

/// Connections at once; a collector needs one.
const CONNECTIONS: usize = 32;
/// Time for the header of a request.
const HEADER: Duration = Duration::from_secs(5);
/// Longest life of a connection.
const CONNECTION: Duration = Duration::from_secs(120);
/// Longest wait for the core: beyond it the scheduler is not ready.
const ANSWER: Duration = Duration::from_secs(2);
/// Pause after the system refused to accept, so that the loop does not spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers monitoring.
#[derive(Debug, Clone)]
pub(crate) struct Monitor {
    pub(crate) handle: Handle,
    pub(crate) metrics: Metrics,
}

impl Monitor {
    /// Serves `listener` until `stop` is cancelled.
    pub(crate) async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                // Ends with the connection's own limit, so the set stays small.
                Some(_) = connections.join_next() => {}
                accepted = accept(&listener, &permits) => {
                    let Some((stream, permit)) = accepted else { continue };
                    let monitor = self.clone();
                    connections.spawn(async move {
                        monitor.connection(stream).await;
                        drop(permit);
                    });
                }
            }
        }
        connections.shutdown().await;
    }

    async fn connection(self, stream: TcpStream) {
        let service = service_fn(move |request| {
            let monitor = self.clone();
            async move { Ok::<_, Infallible>(monitor.answer(&request).await) }
        });
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEADER).max_buf_size(16 << 10);
        let served = server.serve_connection(TokioIo::new(stream), service);
        match tokio::time::timeout(CONNECTION, served).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(error)) => debug!(error = %error, "monitoring connection ended"),
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        }
        match request.uri().path() {
            // The process answers.
            "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => match self.look().await {
                Ok(()) => text(StatusCode::OK, "ready\n".to_owned()),
                Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            },
            "/metrics" => self.metrics().await,
            _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n".to_owned()),
        }
    }

    /// Goes through core and journal, so an answer means that both work.
    async fn look(&self) -> Result<(), &'static str> {
        let metrics = self.metrics.clone();
        match tokio::time::timeout(ANSWER, self.handle.query(move |core| metrics.look(core))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err("the scheduler is stopping"),
            Err(_) => Err("the core does not answer in time"),
        }
    }

    async fn metrics(&self) -> Response<Full<Bytes>> {
        // Without the core there are still the counters.
        let looked = self.look().await;
        if let Err(reason) = looked {
            warn!(reason, "metrics without the state");
        }
        match self.metrics.text() {
            Ok(body) => text(StatusCode::OK, body),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            warn!(error = %error, "cannot accept a monitoring connection");
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
    response
}
