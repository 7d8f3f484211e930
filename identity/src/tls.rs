//! How both sides of every connection speak TLS: version 1.3, HTTP/2, certificates of the cluster's authority only.
//!
//! Sessions are not resumed, so every connection proves its certificate anew, and there is no early data.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};

use crate::identity::Identity;
use crate::provider::provider;

/// The only protocol spoken inside TLS.
const ALPN: &[u8] = b"h2";

/// A TLS configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The authority is not PEM.
    #[error("the cluster authority is not a PEM certificate")]
    AuthorityPem(#[source] rustls::pki_types::pem::Error),
    /// The text has no certificate at all.
    #[error("the cluster authority holds no certificate")]
    NoAuthority,
    /// A certificate cannot be trusted.
    #[error("the cluster authority cannot be used as a root")]
    Root(#[source] rustls::Error),
    /// The check of client certificates cannot be built.
    #[error("cannot check client certificates against the cluster authority")]
    ClientCheck(#[source] rustls::server::VerifierBuilderError),
    /// The library refuses TLS 1.3.
    #[error("TLS 1.3 is not available")]
    Version(#[source] rustls::Error),
}

/// An identity that can be renewed while connections are served and made with it.
///
/// New connections use what [`LiveIdentity::replace`] set last; those that exist go on.
#[derive(Clone)]
pub struct LiveIdentity(Arc<RwLock<Arc<CertifiedKey>>>);

impl LiveIdentity {
    /// Starts with `identity`.
    #[must_use]
    pub fn new(identity: &Identity) -> Self {
        Self(Arc::new(RwLock::new(identity.certified())))
    }

    /// Uses `identity` from the next connection on.
    pub fn replace(&self, identity: &Identity) {
        // The lock guards one pointer, which is whole even if somebody panicked.
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = identity.certified();
    }

    fn current(&self) -> Arc<CertifiedKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for LiveIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LiveIdentity([redacted])")
    }
}

impl ResolvesServerCert for LiveIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for LiveIdentity {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// What a listener uses: shows `identity`, takes clients with no certificate or one of the authority's.
///
/// # Errors
/// If `authority_pem` holds no usable certificate.
pub fn server_config(identity: &Identity, authority_pem: &str) -> Result<Arc<ServerConfig>, TlsError> {
    live_server_config(&LiveIdentity::new(identity), authority_pem)
}

/// As [`server_config`], for an identity that is renewed in place.
///
/// # Errors
/// If `authority_pem` holds no usable certificate.
pub fn live_server_config(identity: &LiveIdentity, authority_pem: &str) -> Result<Arc<ServerConfig>, TlsError> {
    let clients = WebPkiClientVerifier::builder_with_provider(roots(authority_pem)?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(TlsError::ClientCheck)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Version)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(identity.clone()));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// What [`crate::dial::channel`] uses: trusts servers of the authority, shows `identity` if there is one.
///
/// # Errors
/// If `authority_pem` holds no usable certificate.
pub fn client_config(authority_pem: &str, identity: Option<&Identity>) -> Result<Arc<ClientConfig>, TlsError> {
    client_config_from(authority_pem, identity.map(LiveIdentity::new).as_ref())
}

/// As [`client_config`], for an identity that is renewed in place: channels made with it survive a renewal.
///
/// # Errors
/// If `authority_pem` holds no usable certificate.
pub fn live_client_config(authority_pem: &str, identity: &LiveIdentity) -> Result<Arc<ClientConfig>, TlsError> {
    client_config_from(authority_pem, Some(identity))
}

fn client_config_from(authority_pem: &str, identity: Option<&LiveIdentity>) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Version)?
        .with_root_certificates(roots(authority_pem)?);
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(identity.clone())),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn roots(authority_pem: &str) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority_pem.as_bytes()) {
        roots.add(certificate.map_err(TlsError::AuthorityPem)?).map_err(TlsError::Root)?;
    }
    if roots.is_empty() { Err(TlsError::NoAuthority) } else { Ok(Arc::new(roots)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_without_certificates_is_refused() {
        assert!(matches!(client_config("", None), Err(TlsError::NoAuthority)));
        assert!(matches!(client_config("some text\n", None), Err(TlsError::NoAuthority)));
        let broken = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
        assert!(matches!(client_config(broken, None), Err(TlsError::AuthorityPem(_))));
    }
}
