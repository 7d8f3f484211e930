//! One layer in front of all services: who calls, whether the table allows it (`rights`), and who changed what.
//!
//! Clients show a token, hosts the certificate of their connection. The layer puts a [`Caller`] or a [`HostCaller`]
//! into the request, and services take identities from nowhere else.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future;
use http::{Request, Response};
use partita_identity::serve::Peer;
use partita_identity::token::{Claims, Role, TokenError};
use partita_policy::TenantPolicy;
use partita_types::{HostName, TenantName, Timestamp};
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::debug;

use crate::audit::{Audited, Auditor};
use crate::guard::{Ended, answered, guarded};
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::revocations::{Credential, Revocations};
use crate::rights::{CALLS, Needs, Verb, may, roles_with};

/// The holder of a verified token.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) Arc<Claims>);

impl Caller {
    /// Whether the holder may look beyond its own tenant.
    pub(crate) fn sees_all_tenants(&self) -> bool {
        matches!(self.0.role, Role::Operator | Role::Admin)
    }
}

/// The host of a verified certificate, and when that was issued.
#[derive(Debug, Clone)]
pub(crate) struct HostCaller(pub(crate) HostName, pub(crate) Timestamp);

/// Who is asking, for a handler behind the layer.
pub(crate) fn caller<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
    request.extensions().get().cloned().ok_or_else(|| Status::internal("the call has no caller"))
}

/// Which host is asking, for a handler behind the layer.
pub(crate) fn host_caller<T>(request: &tonic::Request<T>) -> Result<HostName, Status> {
    let caller: Option<&HostCaller> = request.extensions().get();
    caller.map(|caller| caller.0.clone()).ok_or_else(|| Status::internal("the call has no host"))
}

/// What calls need to know of the policies in force: their version, and how long the tokens of each tenant may live.
#[derive(Debug, Clone, Default)]
pub(crate) struct InForce(Arc<RwLock<(String, BTreeMap<TenantName, Duration>)>>);

impl InForce {
    /// Replaces all.
    pub(crate) fn set(&self, version: impl std::fmt::Display, policies: &[TenantPolicy]) {
        let lifetimes = policies.iter().map(|policy| (policy.name.clone(), policy.token_lifetime)).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = (version.to_string(), lifetimes);
    }

    /// The version of the policies.
    pub(crate) fn version(&self) -> String {
        self.0.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Tokens of tenants without a policy are bounded by the verifier alone.
    fn check(&self, claims: &Claims) -> Result<(), TokenError> {
        let limit = self.0.read().unwrap_or_else(PoisonError::into_inner).1.get(&claims.tenant).copied();
        limit.map_or(Ok(()), |limit| claims.check_lifetime(limit))
    }
}

/// Decides about calls.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    keys: Keys,
    policies: InForce,
    metrics: Metrics,
    auditor: Auditor,
    revocations: Revocations,
}

impl Gate {
    pub(crate) fn new(
        keys: Keys,
        policies: InForce,
        metrics: Metrics,
        auditor: Auditor,
        revocations: Revocations,
    ) -> Self {
        Self { keys, policies, metrics, auditor, revocations }
    }

    /// Checks a call and adds who calls. Answers what to note of it, if it changes something.
    fn admit<B>(&self, request: &mut Request<B>) -> Result<Option<Audited>, Status> {
        let Some((path, needs)) = CALLS.iter().find(|(path, _)| *path == request.uri().path()) else {
            return Err(Status::unimplemented("there is no such call; is the client newer than the scheduler?"));
        };
        match self.check(request, path, *needs) {
            Ok(()) => Ok(needs.changes(path).then(|| Audited::new(request, path))),
            Err(status) => {
                self.auditor.refused(Audited::new(request, path), &status)?;
                Err(status)
            }
        }
    }

    fn check<B>(&self, request: &mut Request<B>, path: &str, needs: Needs) -> Result<(), Status> {
        let admitted = match needs {
            Needs::JoinToken => Ok(()),
            Needs::Host => self.host(request),
            Needs::Verb(verb) => self.token(request, verb, path),
        };
        let code = admitted.as_ref().err().map_or("admitted", |status| status.code().description());
        self.metrics.calls.with_label_values(&[path, code]).inc();
        admitted
    }

    fn token<B>(&self, request: &mut Request<B>, verb: Verb, path: &str) -> Result<(), Status> {
        let token = bearer(request)?;
        let claims = self
            .keys
            .verify(token, partita_identity::now())
            .and_then(|claims| self.policies.check(&claims).map(|()| claims))
            .map_err(|error| bad_token(&error))?;
        let claims = Arc::new(claims);
        // Also of a call that is refused below: who tried is noted.
        request.extensions_mut().insert(Caller(Arc::clone(&claims)));
        self.revocations.check(&Credential::Token(Arc::clone(&claims)))?;
        if !may(claims.role, verb) {
            debug!(subject = %claims.sub, tenant = %claims.tenant, role = %claims.role, path, "call refused");
            let call = path.rsplit('.').next().unwrap_or(path);
            return Err(Status::permission_denied(format!(
                "role {} may not call {call}; it needs one of: {}",
                claims.role,
                roles_with(verb)
            )));
        }
        Ok(())
    }

    fn host<B>(&self, request: &mut Request<B>) -> Result<(), Status> {
        let peer = request.extensions().get::<Peer>();
        let named = peer.and_then(|peer| Some((peer.host.clone()?, peer.certified)));
        let (name, certified) = named.ok_or_else(|| {
            Status::unauthenticated(
                "this call needs the certificate of a host; join the cluster with a join token first",
            )
        })?;
        // Also of a call that is refused: who tried is noted.
        request.extensions_mut().insert(HostCaller(name.clone(), certified));
        self.revocations.check(&Credential::Certificate(name, certified))
    }

    /// Resolves when the caller of an admitted call is to be let in no more.
    fn ended<B>(&self, request: &Request<B>) -> Ended {
        let extensions = request.extensions();
        let credential = if let Some(Caller(claims)) = extensions.get() {
            Credential::Token(Arc::clone(claims))
        } else if let Some(HostCaller(name, certified)) = extensions.get() {
            Credential::Certificate(name.clone(), *certified)
        } else {
            return Box::pin(future::pending());
        };
        Box::pin(self.revocations.clone().ended(credential))
    }
}

fn bearer<B>(request: &Request<B>) -> Result<&str, Status> {
    let header = request.headers().get(http::header::AUTHORIZATION).ok_or_else(|| {
        Status::unauthenticated("no token; log in with `partita context` or send `authorization: Bearer <token>`")
    })?;
    let token = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
    token.ok_or_else(|| Status::unauthenticated("the authorization header is not of the form `Bearer <token>`"))
}

fn bad_token(error: &TokenError) -> Status {
    let advice = match error {
        TokenError::Expired { .. } => "get a new one from your administrator (`partita token issue`)",
        TokenError::NotYetValid { .. } | TokenError::IssuedInFuture { .. } => "check the clocks of both machines",
        _ => "use a token that this cluster, or an issuer that it believes, issued",
    };
    Status::unauthenticated(format!("{error}; {advice}"))
}

/// Puts a [`Gate`] in front of all services.
#[derive(Debug, Clone)]
pub(crate) struct GateLayer(pub(crate) Gate);

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: self.0.clone(), inner }
    }
}

/// A service behind a [`Gate`].
#[derive(Debug, Clone)]
pub(crate) struct Gated<S> {
    gate: Gate,
    inner: S,
}

impl<S, B> Service<Request<B>> for Gated<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Response<Body>, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let audited = match self.gate.admit(&mut request) {
            Ok(audited) => audited,
            Err(status) => return Box::pin(future::ready(Ok(status.into_http()))),
        };
        let mut ended = self.gate.ended(&request);
        let running = audited.map(|audited| self.gate.auditor.follow(audited));
        let call = self.inner.call(request);
        Box::pin(async move {
            let response = answered(call, &mut ended).await?;
            if let Some(running) = running {
                // Calls that fail have their status in the header, because there is nothing else to send.
                let refused = Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok);
                if let Err(status) = running.ended(refused.as_ref()).await {
                    return Ok(status.into_http());
                }
            }
            Ok(guarded(response, ended))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::AuditThread;
    use crate::driver::Failure;
    use crate::issuers::Issuers;
    use partita_identity::token::Signer;
    use tokio_util::task::TaskTracker;

    /// A gate and what it needs.
    struct Door {
        gate: Gate,
        signer: Signer,
        audit: AuditThread,
        directory: tempfile::TempDir,
    }

    /// The same keys twice.
    fn signers() -> (Signer, Signer) {
        let directory = tempfile::tempdir().unwrap();
        Signer::create("test").unwrap().save(directory.path()).unwrap();
        (Signer::load(directory.path()).unwrap(), Signer::load(directory.path()).unwrap())
    }

    fn door() -> Door {
        let (signer, again) = signers();
        let (directory, policies) = (tempfile::tempdir().unwrap(), InForce::default());
        let (auditor, audit) =
            Auditor::start(directory.path(), policies.clone(), Failure::new(), TaskTracker::new()).unwrap();
        let revocations = Revocations::open(&directory.path().join("revoked"), partita_identity::now()).unwrap();
        let gate = Gate::new(
            Keys::new(directory.path(), again, Issuers::default()),
            policies,
            Metrics::new().unwrap(),
            auditor,
            revocations,
        );
        Door { gate, signer, audit, directory }
    }

    fn request(path: &str, token: Option<&str>) -> Request<()> {
        let mut builder = Request::builder().uri(path);
        if let Some(token) = token {
            builder = builder.header("authorization", format!("Bearer {token}"));
        }
        builder.body(()).unwrap()
    }

    fn token(signer: &Signer, role: Role) -> String {
        let tenant = TenantName::new("team").unwrap();
        let now = partita_identity::now();
        signer.issue(&tenant, "ann", role, Duration::from_secs(60), now).unwrap().expose().to_owned()
    }

    #[test]
    fn every_call_refuses_callers_without_credentials() {
        let Door { gate, .. } = &door();
        for (path, needs) in CALLS {
            let admitted = gate.admit(&mut request(path, None));
            match needs {
                Needs::JoinToken => assert!(admitted.is_ok(), "{path}"),
                Needs::Host | Needs::Verb(_) => {
                    assert_eq!(admitted.unwrap_err().code(), Code::Unauthenticated, "{path}");
                }
            }
        }
    }

    #[test]
    fn every_call_refuses_every_role_without_its_verb() {
        let Door { gate, signer, .. } = &door();
        for role in Role::ALL {
            let token = token(signer, role);
            for (path, needs) in CALLS {
                let mut request = request(path, Some(&token));
                let admitted = gate.admit(&mut request);
                match needs {
                    Needs::Verb(verb) if may(role, verb) => {
                        assert!(admitted.is_ok(), "{role} {path}");
                        assert_eq!(request.extensions().get::<Caller>().unwrap().0.role, role);
                    }
                    Needs::Verb(_) => {
                        let status = admitted.unwrap_err();
                        assert_eq!(status.code(), Code::PermissionDenied, "{role} {path}");
                        assert!(status.message().contains("needs one of"), "{status}");
                    }
                    // A token, whatever its role, is not a certificate.
                    Needs::Host => assert_eq!(admitted.unwrap_err().code(), Code::Unauthenticated, "{role} {path}"),
                    Needs::JoinToken => assert!(admitted.is_ok(), "{role} {path}"),
                }
            }
        }
    }

    #[test]
    fn a_host_certificate_opens_no_call_of_clients() {
        let Door { gate, .. } = &door();
        let peer = Peer {
            address: "127.0.0.1:1".parse().unwrap(),
            host: Some(HostName::new("host-1").unwrap()),
            certified: partita_identity::now(),
        };
        for (path, needs) in CALLS {
            let mut request = request(path, None);
            request.extensions_mut().insert(peer.clone());
            let admitted = gate.admit(&mut request).is_ok();
            assert_eq!(admitted, !matches!(needs, Needs::Verb(_)), "{path}");
        }
    }

    #[test]
    fn a_token_lives_no_longer_than_its_tenants_policy_allows() {
        let Door { gate, signer, .. } = &door();
        let token = token(signer, Role::Viewer);
        let list = "/partita.client.v1.Jobs/List";
        let text = "[tenant.team]\ntoken_lifetime = \"1m\"\n";
        let policies = partita_policy::PolicySet::parse(&[("test", text)]).unwrap();
        gate.policies.set("1", &policies.iter().cloned().collect::<Vec<_>>());
        assert!(gate.admit(&mut request(list, Some(&token))).is_ok());
        let tenant = TenantName::new("team").unwrap();
        let long = signer.issue(&tenant, "ann", Role::Viewer, Duration::from_secs(61), partita_identity::now());
        let status = gate.admit(&mut request(list, Some(long.unwrap().expose()))).unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(status.message().contains("the limit is"), "{status}");
    }

    #[test]
    fn an_unknown_path_does_not_exist_whoever_asks() {
        let Door { gate, signer, .. } = &door();
        let admin = token(signer, Role::Admin);
        for path in ["/partita.client.v1.Jobs/Destroy", "/", "/partita.client.v1.Jobs/List/", "/grpc.Health/Check"] {
            assert_eq!(gate.admit(&mut request(path, Some(&admin))).unwrap_err().code(), Code::Unimplemented, "{path}");
        }
    }

    #[test]
    fn refusals_say_what_to_do_and_never_show_the_token() {
        let Door { gate, .. } = &door();
        let stranger = token(&Signer::create("other").unwrap(), Role::Admin);
        for bad in [stranger.as_str(), "x.y.z", "", "eyJhbGciOiJub25lIn0.e30."] {
            let status = gate.admit(&mut request(CALLS[0].0, Some(bad))).unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated);
            assert!(status.message().contains("; "), "{status}");
            assert!(bad.is_empty() || !status.message().contains(bad), "{status}");
        }
    }

    #[tokio::test]
    async fn a_call_whose_caller_leaves_is_noted_all_the_same() {
        let Door { gate, signer, audit, directory } = door();
        let inner =
            tower::service_fn(|_: Request<()>| future::pending::<Result<Response<Body>, std::convert::Infallible>>());
        let mut gated = GateLayer(gate).layer(inner);
        let token = token(&signer, Role::Developer);
        let call = gated.call(request("/partita.client.v1.Jobs/Submit", Some(&token)));
        assert!(futures_util::FutureExt::now_or_never(call).is_none());
        audit.end();
        let page = partita_audit::read(directory.path(), 0, 2).unwrap();
        let [line] = page.lines.as_slice() else { panic!("{page:?}") };
        let entry = partita_audit::Line::parse(line).unwrap().entry;
        assert_eq!(entry.action, "Jobs/Submit");
        assert!(entry.outcome.starts_with("cancelled: the caller left"), "{entry:?}");
    }
}
