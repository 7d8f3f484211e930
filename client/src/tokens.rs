//! Tokens that the cluster issued, the key that signs them, and hosts that are let in no more. For administrators.

use partita_protocol::client as wire;
use serde::Serialize;

use crate::client::Client;
use crate::error::Error;
use crate::transport::{QUESTION, cluster};

/// A token that was issued and has not expired. The token itself is nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IssuedToken {
    /// Its id.
    pub id: String,
    /// The tenant of its holder; empty for a join token.
    pub tenant: String,
    /// Its holder, or the host that may join with it.
    pub subject: String,
    /// The role of its holder, or `join`.
    pub role: String,
    /// Seconds since 1970.
    pub issued_at_s: u64,
    /// Seconds since 1970.
    pub expires_at_s: u64,
    /// It counts no more.
    pub revoked: bool,
    /// Who asked for it.
    pub by: String,
}

impl From<wire::IssuedToken> for IssuedToken {
    fn from(token: wire::IssuedToken) -> Self {
        let wire::IssuedToken { id, tenant, subject, role, issued_at_s, expires_at_s, revoked, by } = token;
        Self { id, tenant, subject, role, issued_at_s, expires_at_s, revoked, by }
    }
}

impl Client {
    /// The tokens that were issued to a tenant, or to all and to hosts, and have not expired; the latest first. Whether
    /// there are more than these is told, too.
    ///
    /// # Errors
    /// If the cluster refuses or cannot be reached.
    pub async fn issued_tokens(&self, tenant: Option<&str>) -> Result<(Vec<IssuedToken>, bool), Error> {
        let request = wire::ListTokensRequest { tenant: tenant.unwrap_or_default().to_owned() };
        let send = |channel, request| async move { cluster(channel).list_tokens(request).await };
        let answer = self.transport.call("list tokens", QUESTION, request, send).await?;
        Ok((answer.tokens.into_iter().map(Into::into).collect(), answer.more))
    }

    /// Signs tokens with a new key from now on, and returns its id. With `drop_old` all tokens of before count for
    /// nothing, that of the caller among them; otherwise they are good until they expire.
    ///
    /// # Errors
    /// If so many keys verify tokens already that there is no room for another, or the cluster refuses or cannot be
    /// reached.
    pub async fn rotate_key(&self, drop_old: bool) -> Result<String, Error> {
        let request = wire::RotateKeyRequest { drop_old };
        let send = |channel, request| async move { cluster(channel).rotate_key(request).await };
        Ok(self.transport.call("change the signing key", QUESTION, request, send).await?.key)
    }

    /// Makes every certificate and join token of a host worthless that was issued until now, and ends its session.
    ///
    /// # Errors
    /// If the name is not one of a host, or the cluster refuses or cannot be reached.
    pub async fn revoke_host(&self, host: &str) -> Result<(), Error> {
        let request = wire::RevokeHostRequest { host: host.to_owned() };
        let send = |channel, request| async move { cluster(channel).revoke_host(request).await };
        self.transport.call("revoke the host", QUESTION, request, send).await.map(drop)
    }
}
