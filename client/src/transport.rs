//! How calls reach a cluster: one lazy channel, the token on every request, deadlines, and repetition of what may be
//! repeated. Everything above speaks of jobs; nothing above knows a header.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use partita_client_logic::{Backoff, RetryPolicy};
use partita_identity::token::Token;
use partita_identity::{dial, tls};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::error::{ConnectError, Error};

/// For questions that the scheduler answers from memory.
pub(crate) const QUESTION: Duration = Duration::from_secs(20);
/// For submissions, which may have to wait until a host has listed a dataset.
pub(crate) const SUBMISSION: Duration = Duration::from_secs(120);
/// For pushes and uploads, which send up to hundreds of MiB and may wait for a compilation.
pub(crate) const TRANSFER: Duration = Duration::from_secs(600);
/// Most bytes of one answer. Listings of jobs are the largest.
const ANSWER_MAX: usize = 64 << 20;

/// Where a cluster is and who asks.
#[derive(Debug, Clone)]
pub struct Connection {
    /// `host:port` of the scheduler.
    pub address: String,
    /// The certificate of the cluster's authority, PEM.
    pub authority_pem: String,
    /// The token, as `partita token issue` gave it out.
    pub token: Token,
}

/// Cheap to clone; clones share one HTTP/2 connection.
#[derive(Clone)]
pub(crate) struct Transport {
    channel: Channel,
    address: Arc<str>,
    bearer: MetadataValue<Ascii>,
    retry: RetryPolicy,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Transport {
    pub(crate) fn new(connection: &Connection) -> Result<Self, ConnectError> {
        let name = server_name(&connection.address)
            .ok_or_else(|| ConnectError::Address { address: connection.address.clone() })?;
        let mut bearer: MetadataValue<Ascii> =
            format!("Bearer {}", connection.token.expose()).parse().map_err(|_| ConnectError::Token)?;
        bearer.set_sensitive(true);
        let config = tls::client_config(&connection.authority_pem, None).map_err(ConnectError::Authority)?;
        let channel = dial::channel(&connection.address, config, dial::Expect::Server(name.to_owned()))
            .map_err(|source| ConnectError::Dial { address: connection.address.clone(), source })?;
        Ok(Self { channel, address: connection.address.as_str().into(), bearer, retry: RetryPolicy::CALL })
    }

    pub(crate) fn set_retry(&mut self, retry: RetryPolicy) {
        self.retry = retry;
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn error(&self, operation: &'static str, status: &Status) -> Error {
        Error::from_status(operation, &self.address, status)
    }

    /// A request that carries the token.
    pub(crate) fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.bearer.clone());
        request
    }

    /// Makes a call that may be repeated, within `deadline` for each attempt.
    pub(crate) async fn call<M, T, F, Fut>(
        &self,
        operation: &'static str,
        deadline: Duration,
        message: M,
        send: F,
    ) -> Result<T, Error>
    where
        M: Clone,
        F: Fn(Channel, Request<M>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.repeat(|| {
            let mut request = self.request(message.clone());
            request.set_timeout(deadline);
            self.once(operation, deadline, send(self.channel(), request))
        })
        .await
    }

    /// Makes a call that may be repeated and whose answer may rightly take any time.
    pub(crate) async fn call_without_deadline<M, T, F, Fut>(
        &self,
        operation: &'static str,
        message: M,
        send: F,
    ) -> Result<T, Error>
    where
        M: Clone,
        F: Fn(Channel, Request<M>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.repeat(|| {
            let call = send(self.channel(), self.request(message.clone()));
            async { call.await.map(Response::into_inner).map_err(|status| self.error(operation, &status)) }
        })
        .await
    }

    /// Repeats a call for as long as that is allowed and may help.
    pub(crate) async fn repeat<T, Fut>(&self, mut attempt: impl FnMut() -> Fut) -> Result<T, Error>
    where
        Fut: Future<Output = Result<T, Error>>,
    {
        let mut backoff = Backoff::new(self.retry);
        loop {
            let error = match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match backoff.next(random()).filter(|_| repeatable(&error)) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(error),
            }
        }
    }

    /// Makes a call once.
    pub(crate) async fn once<T>(
        &self,
        operation: &'static str,
        deadline: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) if status.code() == Code::DeadlineExceeded => {
                Err(Error::Deadline { operation, limit: deadline })
            }
            Ok(Err(status)) => Err(self.error(operation, &status)),
            Err(_) => Err(Error::Deadline { operation, limit: deadline }),
        }
    }
}

/// Whether an idempotent call is sent again. A deadline is not: whoever waited that long wants to know.
fn repeatable(error: &Error) -> bool {
    matches!(error.code(), Some(Code::Unavailable | Code::Aborted))
}

/// Spreads the retries of many clients.
pub(crate) fn random() -> u64 {
    u64::from_le_bytes(partita_identity::random::<8>())
}

/// The name or IP address that the server's certificate must have, from `host:port` or `[v6]:port`.
fn server_name(address: &str) -> Option<&str> {
    let (host, port) = address.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let name = bare.unwrap_or(host);
    (!name.is_empty() && (bare.is_some() || !name.contains(':'))).then_some(name)
}

macro_rules! stub {
    ($name:ident, $module:ident, $client:ident) => {
        pub(crate) fn $name(channel: Channel) -> partita_protocol::client::$module::$client<Channel> {
            partita_protocol::client::$module::$client::new(channel).max_decoding_message_size(ANSWER_MAX)
        }
    };
}

stub!(jobs, jobs_client, JobsClient);
stub!(modules, modules_client, ModulesClient);
stub!(cluster, cluster_client, ClusterClient);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_a_host_and_a_port() {
        assert_eq!(server_name("127.0.0.1:7600"), Some("127.0.0.1"));
        assert_eq!(server_name("scheduler.example:443"), Some("scheduler.example"));
        assert_eq!(server_name("[::1]:7600"), Some("::1"));
        for bad in ["", "localhost", ":7600", "::1:7600", "host:", "host:99999", "[]:1"] {
            assert_eq!(server_name(bad), None, "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_connection_never_prints_its_token() {
        let connection =
            Connection { address: "a:1".into(), authority_pem: "pem".into(), token: Token::new("very-secret") };
        assert!(!format!("{connection:?}").contains("very-secret"));
    }
}
