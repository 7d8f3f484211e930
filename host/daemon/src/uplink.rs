//! Calls to the scheduler.
//!
//! Two connections: what is small and urgent (the session) does not queue behind what is large (modules, results,
//! uploads). Both are lazy, come back by themselves and use the host's certificate as it is at the time.

use std::sync::Arc;

use partita_identity::dial::{self, DialError, Expect};
use partita_protocol::host::sessions_client::SessionsClient;
use rustls::ClientConfig;
use tonic::transport::Channel;

/// Largest message from the scheduler: an assignment with its headers.
const MAX_MESSAGE: usize = 64 << 20;

/// The connections to the scheduler.
#[derive(Debug, Clone)]
pub(crate) struct Uplink {
    session: SessionsClient<Channel>,
    bulk: SessionsClient<Channel>,
}

impl Uplink {
    /// Prepares connections to `address`, whose certificate must carry `name`.
    pub(crate) fn new(address: &str, name: &str, config: &Arc<ClientConfig>) -> Result<Self, DialError> {
        let client = || {
            let channel = dial::channel(address, Arc::clone(config), Expect::Server(name.to_owned()))?;
            Ok(SessionsClient::new(channel).max_decoding_message_size(MAX_MESSAGE))
        };
        Ok(Self { session: client()?, bulk: client()? })
    }

    /// For the session and other small calls.
    pub(crate) fn session(&self) -> SessionsClient<Channel> {
        self.session.clone()
    }

    /// For bytes.
    pub(crate) fn bulk(&self) -> SessionsClient<Channel> {
        self.bulk.clone()
    }
}
