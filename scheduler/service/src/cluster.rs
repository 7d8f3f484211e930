//! The cluster as a whole: who one is, hosts, use, and tokens.

use std::time::Duration;

use partita_core::Request;
use partita_identity::token::{OldKeys, Role, Signer, SignerError, Token, check_subject};
use partita_protocol::client::cluster_server::Cluster;
use partita_protocol::client::{
    AuditRequest, AuditResponse, DrainHostRequest, Empty, HostsResponse, IssueJoinTokenRequest, IssueTokenRequest,
    IssueTokenResponse, ListTokensRequest, ListTokensResponse, Principal, RevokeHostRequest, RevokeTokensRequest,
    RotateKeyRequest, RotateKeyResponse, ShowHostRequest, ShowHostResponse, UsageRequest, UsageResponse,
};
use partita_types::{HostName, TenantName, format_duration};
use tonic::{Request as Call, Response, Status};
use tracing::{error, info};

use crate::audit::{Auditor, Object};
use crate::auth::{Caller, caller};
use crate::driver::Handle;
use crate::issued::{Issued, IssuedTokens, TokenHolder};
use crate::keys::Keys;
use crate::revocations::{Revocations, Revoked};
use crate::status::not_found;
use crate::{scope, wire};

/// Life of a token for which none was given, unless the policy allows less.
const TOKEN_LIFETIME: Duration = Duration::from_secs(12 * 3_600);
/// Life of a join token for which none was given.
const JOIN_LIFETIME: Duration = Duration::from_secs(3_600);
/// Longest id of a token.
const TOKEN_ID: usize = 128;
/// Most tokens in one answer.
const TOKENS: usize = 5_000;
/// Most lines of the audit log in one answer.
const AUDIT_LINES: usize = 1_000;

/// The service of the cluster.
#[derive(Debug)]
pub(crate) struct ClusterService {
    pub(crate) handle: Handle,
    pub(crate) keys: Keys,
    pub(crate) auditor: Auditor,
    pub(crate) revocations: Revocations,
    pub(crate) issued: IssuedTokens,
}

impl ClusterService {
    /// Notes a token that was issued, before anybody gets it.
    async fn issue(
        &self,
        signer: &Signer,
        token: &Token,
        caller: &Caller,
    ) -> Result<Response<IssueTokenResponse>, Status> {
        let by = format!("{} ({})", caller.0.sub, caller.0.tenant);
        let issued = Issued::of(signer, token, partita_identity::now(), by).map_err(|error| {
            error!(error = %error, "an issued token does not pass");
            Status::internal("the scheduler issued a token that does not pass")
        })?;
        let list = self.issued.clone();
        blocking("note the token", move || list.note(&issued)).await?;
        Ok(Response::new(IssueTokenResponse { token: token.expose().to_owned() }))
    }

    /// Revokes something; in force and durable when this returns.
    async fn revoke(&self, revoked: Revoked) -> Result<Response<Empty>, Status> {
        let revocations = self.revocations.clone();
        blocking("note the revocation", move || revocations.revoke(revoked, partita_identity::now())).await?;
        Ok(Response::new(Empty {}))
    }
}

/// Does something that waits for the disk. What went wrong stands in the log; callers are told that nothing happened.
async fn blocking<T: Send + 'static, E: std::error::Error + Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => {
            error!(error = %crate::chain(&error), "cannot {what}");
            Err(Status::internal(format!("the scheduler cannot {what}, so nothing was changed")))
        }
        Err(_) => Err(Status::internal(format!("the scheduler did not {what} to the end"))),
    }
}

fn lifetime(seconds: u64, default: Duration) -> Duration {
    if seconds == 0 { default } else { Duration::from_secs(seconds) }
}

/// What a request means to revoke.
fn revoked(request: RevokeTokensRequest) -> Result<Revoked, Status> {
    let RevokeTokensRequest { token, tenant, subject } = request;
    match (token.is_empty(), tenant.is_empty()) {
        (false, true) if subject.is_empty() && token.len() <= TOKEN_ID => Ok(Revoked::Token(token)),
        (true, false) => {
            let tenant = TenantName::new(&tenant).map_err(|error| Status::invalid_argument(error.to_string()))?;
            let subject = (!subject.is_empty()).then_some(subject);
            subject.as_deref().map_or(Ok(()), check_subject).map_err(|error| not_issued(&error))?;
            Ok(Revoked::Holder { tenant, subject })
        }
        _ => Err(Status::invalid_argument(
            "a revocation names either the id of a token, or a tenant and perhaps one holder of its tokens",
        )),
    }
}

fn not_issued(error: &SignerError) -> Status {
    Status::invalid_argument(crate::chain(error))
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn who_am_i(&self, call: Call<Empty>) -> Result<Response<Principal>, Status> {
        let claims = caller(&call)?.0;
        Ok(Response::new(Principal {
            subject: claims.sub.clone(),
            tenant: claims.tenant.to_string(),
            role: claims.role.to_string(),
            token_id: claims.jti.clone(),
            expires_at_s: claims.exp.micros / 1_000_000,
            cluster: self.keys.signer().cluster().to_owned(),
        }))
    }

    async fn hosts(&self, call: Call<Empty>) -> Result<Response<HostsResponse>, Status> {
        let show_addresses = caller(&call)?.sees_all_tenants();
        let hosts = self.handle.query(partita_core::Core::hosts).await?;
        let hosts = hosts.into_iter().map(|view| wire::host(view, show_addresses)).collect();
        Ok(Response::new(HostsResponse { hosts }))
    }

    async fn show_host(&self, call: Call<ShowHostRequest>) -> Result<Response<ShowHostResponse>, Status> {
        let sees_all = caller(&call)?.sees_all_tenants();
        let name = call.into_inner().host;
        let wanted = name.clone();
        let found = self.handle.query(move |core| {
            let view = core.hosts().into_iter().find(|view| view.name.as_str() == wanted)?;
            let left = if sees_all { core.left_at(view.id) } else { Vec::new() };
            Some((view, left))
        });
        let (view, left) = found.await?.ok_or_else(|| not_found(format_args!("host {name:?}")))?;
        let arrays = left.into_iter().map(wire::left).collect();
        Ok(Response::new(ShowHostResponse { host: Some(wire::host(view, sees_all)), arrays }))
    }

    async fn drain_host(&self, call: Call<DrainHostRequest>) -> Result<Response<Empty>, Status> {
        let (caller, object) = (caller(&call)?, Object::of(&call));
        let DrainHostRequest { host, undo } = call.into_inner();
        let host = HostName::new(&host).map_err(|error| Status::invalid_argument(error.to_string()))?;
        object.is(format_args!("{} host {host}", if undo { "undrain" } else { "drain" }));
        scope::done(&self.handle, Request::Drain { host: host.clone(), on: !undo }).await?;
        info!(%host, undo, by = %caller.0.sub, by_token = %caller.0.jti, "host drained or taken back");
        Ok(Response::new(Empty {}))
    }

    async fn usage(&self, call: Call<UsageRequest>) -> Result<Response<UsageResponse>, Status> {
        let caller = caller(&call)?;
        let named = call.into_inner().tenant;
        let wanted = if named.is_empty() && caller.sees_all_tenants() {
            None
        } else {
            Some(scope::tenant(&caller, &named, &format!("tenant {named:?}"))?)
        };
        let tenants = self.handle.query(partita_core::Core::tenants).await?;
        let tenants: Vec<_> = tenants
            .into_iter()
            .filter(|view| wanted.as_ref().is_none_or(|wanted| *wanted == view.name))
            .map(wire::usage)
            .collect();
        match wanted {
            Some(tenant) if tenants.is_empty() => Err(scope::undefined(&tenant)),
            _ => Ok(Response::new(UsageResponse { tenants })),
        }
    }

    async fn audit(&self, call: Call<AuditRequest>) -> Result<Response<AuditResponse>, Status> {
        let AuditRequest { after, limit } = call.into_inner();
        let (last, directory) = (self.auditor.last(), self.auditor.directory());
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(AUDIT_LINES);
        let read = tokio::task::spawn_blocking(move || partita_audit::read(&directory, after, limit)).await;
        let page = read.map_err(|_| Status::internal("the audit log was not read to its end"))?.map_err(|error| {
            error!(error = %crate::chain(&error), "cannot read the audit log");
            Status::data_loss("the audit log cannot be read; `partita audit verify` at the scheduler says where")
        })?;
        let (last, hash) = (last.sequence, last.hash.to_string());
        Ok(Response::new(AuditResponse { lines: page.lines, more: page.more, last, hash }))
    }

    async fn issue_token(&self, call: Call<IssueTokenRequest>) -> Result<Response<IssueTokenResponse>, Status> {
        let (caller, object) = (caller(&call)?, Object::of(&call));
        let IssueTokenRequest { tenant, subject, role, lifetime_s } = call.into_inner();
        let invalid = |error: &dyn std::fmt::Display| Status::invalid_argument(error.to_string());
        let tenant = TenantName::new(&tenant).map_err(|error| invalid(&error))?;
        let role: Role = role.parse().map_err(|error| invalid(&error))?;
        let tenants = self.handle.query(partita_core::Core::tenants).await?;
        let view = tenants.iter().find(|view| view.name == tenant).ok_or_else(|| scope::undefined(&tenant))?;
        let limit = view.policy.token_lifetime;
        let lifetime = lifetime(lifetime_s, TOKEN_LIFETIME.min(limit));
        if lifetime > limit {
            return Err(Status::invalid_argument(format!(
                "the policy of tenant {tenant} allows tokens to live {}, not {}",
                format_duration(limit),
                format_duration(lifetime)
            )));
        }
        let signer = self.keys.signer();
        let token = signer
            .issue(&tenant, &subject, role, lifetime, partita_identity::now())
            .map_err(|error| not_issued(&error))?;
        object.is(format_args!("token for {subject:?} of tenant {tenant}, {role}, {}", format_duration(lifetime)));
        info!(%tenant, subject, %role, by = %caller.0.sub, by_token = %caller.0.jti, "token issued");
        self.issue(&signer, &token, &caller).await
    }

    async fn revoke_tokens(&self, call: Call<RevokeTokensRequest>) -> Result<Response<Empty>, Status> {
        let object = Object::of(&call);
        let revoked = revoked(call.into_inner())?;
        object.is(&revoked);
        self.revoke(revoked).await
    }

    async fn revoke_host(&self, call: Call<RevokeHostRequest>) -> Result<Response<Empty>, Status> {
        let (caller, object) = (caller(&call)?, Object::of(&call));
        let host =
            HostName::new(&call.into_inner().host).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let revoked = Revoked::Host(host.clone());
        object.is(&revoked);
        let response = self.revoke(revoked).await?;
        info!(%host, by = %caller.0.sub, by_token = %caller.0.jti, "certificates of a host revoked");
        Ok(response)
    }

    async fn list_tokens(&self, call: Call<ListTokensRequest>) -> Result<Response<ListTokensResponse>, Status> {
        let ListTokensRequest { tenant } = call.into_inner();
        let list = self.issued.clone();
        let mut found = blocking("read the issued tokens", move || list.list(partita_identity::now())).await?;
        found.retain(|issued| match &issued.holder {
            TokenHolder::Person { tenant: of, .. } => tenant.is_empty() || tenant == of.as_str(),
            TokenHolder::Host { .. } => tenant.is_empty(),
        });
        let more = found.len() > TOKENS;
        found.truncate(TOKENS);
        let tokens = found.into_iter().map(|issued| {
            let revoked = self.revocations.has_issued(&issued);
            wire::issued(issued, revoked)
        });
        Ok(Response::new(ListTokensResponse { tokens: tokens.collect(), more }))
    }

    async fn rotate_key(&self, call: Call<RotateKeyRequest>) -> Result<Response<RotateKeyResponse>, Status> {
        let (caller, object) = (caller(&call)?, Object::of(&call));
        let old = if call.into_inner().drop_old { OldKeys::Drop } else { OldKeys::Verify };
        let (keys, now) = (self.keys.clone(), partita_identity::now());
        let rotated = blocking("change the keys", move || match keys.rotate(old, now) {
            Err(SignerError::TooManyKeys { limit }) => Ok(Err(SignerError::TooManyKeys { limit })),
            other => other.map(Ok),
        });
        let signer = rotated.await?.map_err(|error| Status::failed_precondition(error.to_string()))?;
        let key = signer.key_id().to_owned();
        let what = if old == OldKeys::Drop { "old keys dropped" } else { "old keys still verify" };
        object.is(format_args!("key {key}, {what}"));
        info!(key, what, by = %caller.0.sub, by_token = %caller.0.jti, "tokens are signed with a new key");
        Ok(Response::new(RotateKeyResponse { key }))
    }

    async fn issue_join_token(
        &self,
        call: Call<IssueJoinTokenRequest>,
    ) -> Result<Response<IssueTokenResponse>, Status> {
        let (caller, object) = (caller(&call)?, Object::of(&call));
        let IssueJoinTokenRequest { host, lifetime_s } = call.into_inner();
        let host = HostName::new(&host).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let lifetime = lifetime(lifetime_s, JOIN_LIFETIME);
        let signer = self.keys.signer();
        let token = signer.issue_join(&host, lifetime, partita_identity::now()).map_err(|error| not_issued(&error))?;
        object.is(format_args!("join token for host {host}, {}", format_duration(lifetime)));
        info!(%host, by = %caller.0.sub, by_token = %caller.0.jti, "join token issued");
        self.issue(&signer, &token, &caller).await
    }
}
