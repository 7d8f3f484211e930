//! The cluster's certificate authority, and requests for host certificates.
//!
//! The scheduler's first start creates the authority. Hosts make their keys themselves and send only a request;
//! of that request the authority uses the public key and nothing else: name, purpose and lifetime are its own.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use partita_types::HostName;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, DnsName, PrivatePkcs8KeyDer};

use crate::identity::{Identity, IdentityError};
use crate::principal::{self, Principal};
use crate::{now, random};

/// How long a host's certificate is valid. Short, so that there is no need for revocation lists.
pub const HOST_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// How long the scheduler's certificate is valid; a new one is made at every start.
pub const SERVER_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);

/// How long the authority itself is valid.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Certificates start this much in the past, because the clocks of hosts differ.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// Largest request that is parsed. A real one has about 300 bytes.
const REQUEST_MAX: usize = 8 * 1024;

/// Most names of a server certificate.
const SERVER_NAMES_MAX: usize = 64;

/// File stem of the authority's certificate and key.
const STEM: &str = "ca";

/// The authority could not be made or read, or refused to sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A cluster name that would not fit into certificates and tokens.
    #[error(
        "cluster name {name:?} is not valid: use 1 to 63 of a-z, 0-9, '.', '_', '-', starting with a letter or digit"
    )]
    ClusterName {
        /// The name, shortened.
        name: String,
    },
    /// The stored authority is not usable.
    #[error("cluster authority is not usable")]
    Identity(#[from] IdentityError),
    /// The stored certificate does not name a cluster.
    #[error("the certificate ca.pem does not name a cluster, so it was not made by partita")]
    NotOurs,
    /// A host name with which TLS cannot dial.
    #[error(
        "host name {host} cannot stand in a certificate: it must be a DNS name, such as \"host-1\" or \"a.rack-2\""
    )]
    HostName {
        /// The name.
        host: HostName,
    },
    /// A name for the server certificate that is neither a DNS name nor an address.
    #[error("{name:?} cannot stand in a certificate: it is neither a DNS name nor an IP address")]
    ServerName {
        /// The name, shortened.
        name: String,
    },
    /// Too many names for the server certificate.
    #[error("a server certificate can have {SERVER_NAMES_MAX} names, {count} were given")]
    ServerNames {
        /// How many were given.
        count: usize,
    },
    /// A request too large to be real.
    #[error("certificate request has {size} bytes, the limit is {REQUEST_MAX}")]
    RequestSize {
        /// Its size.
        size: usize,
    },
    /// A request that cannot be parsed, or whose signature is wrong.
    #[error("certificate request is not usable")]
    Request(#[source] rcgen::Error),
    /// A key of a kind that is not signed.
    #[error("certificate request has a key of another kind than ECDSA P-256, P-384 or Ed25519")]
    RequestKey,
    /// Making a key or a certificate failed.
    #[error("cannot make a certificate for {subject}")]
    Make {
        /// For whom.
        subject: String,
        /// What the library says.
        #[source]
        source: rcgen::Error,
    },
}

/// The cluster's certificate authority: its name, certificate and private key.
pub struct Authority {
    cluster: String,
    pem: String,
    identity: Identity,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes the authority of a new cluster.
    ///
    /// # Errors
    /// If `cluster` is not 1 to 63 of `a-z 0-9 . _ -`, starting with a letter or digit.
    pub fn create(cluster: &str) -> Result<Self, AuthorityError> {
        check_cluster(cluster)?;
        let make = |source| AuthorityError::Make { subject: format!("cluster {cluster}"), source };
        let key = KeyPair::generate().map_err(make)?;
        let mut params = params(cluster, AUTHORITY_LIFETIME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(make)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Self::from_identity(Identity::new(vec![certificate.der().clone()], key)?)
    }

    /// Reads `ca.pem` and `ca.key` in `directory`.
    ///
    /// # Errors
    /// If a file is missing or is not what [`Authority::save`] wrote.
    pub fn load(directory: &Path) -> Result<Self, AuthorityError> {
        Self::from_identity(Identity::load(directory, STEM)?)
    }

    /// Writes `ca.pem` and `ca.key`, the key readable by the owner only.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), AuthorityError> {
        Ok(self.identity.save(directory, STEM)?)
    }

    fn from_identity(identity: Identity) -> Result<Self, AuthorityError> {
        let certificate = identity.chain().first().ok_or(AuthorityError::NotOurs)?;
        let cluster = principal::parse(certificate)
            .ok()
            .and_then(|parsed| parsed.subject().iter_common_name().next()?.as_str().ok().map(str::to_owned))
            .ok_or(AuthorityError::NotOurs)?;
        check_cluster(&cluster)?;
        let make = |source| AuthorityError::Make { subject: format!("cluster {cluster}"), source };
        let key = KeyPair::try_from(identity.key()).map_err(make)?;
        let issuer = Issuer::from_ca_cert_der(certificate, key).map_err(make)?;
        Ok(Self { pem: identity.chain_pem(), cluster, identity, issuer })
    }

    /// The certificate that everybody in the cluster trusts, as PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Makes the scheduler's certificate. It names `localhost`, `127.0.0.1`, `::1` and what `names` adds.
    ///
    /// # Errors
    /// If a name is neither a DNS name nor an IP address.
    pub fn issue_server(&self, names: &[String]) -> Result<Identity, AuthorityError> {
        if names.len() > SERVER_NAMES_MAX {
            return Err(AuthorityError::ServerNames { count: names.len() });
        }
        let mut params = params(&format!("scheduler of {}", self.cluster), SERVER_CERTIFICATE_LIFETIME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let mut all: Vec<&str> = vec!["localhost", "127.0.0.1", "::1"];
        all.extend(names.iter().map(String::as_str).filter(|name| !matches!(*name, "localhost" | "127.0.0.1" | "::1")));
        params.subject_alt_names = all.into_iter().map(alternative_name).collect::<Result<_, _>>()?;
        params.subject_alt_names.push(self.uri_name(&Principal::Scheduler)?);
        let key = KeyPair::generate().map_err(|source| self.cannot_make("the scheduler", source))?;
        let chain = vec![self.sign(&params, &key, "the scheduler")?];
        Ok(Identity::new(chain, PrivatePkcs8KeyDer::from(key.serialize_der()))?)
    }

    /// Signs a host's request: a certificate for both sides of a connection, valid for
    /// [`HOST_CERTIFICATE_LIFETIME`], whose one URI name is `spiffe://partita/<cluster>/host/<name>`.
    ///
    /// Whoever calls this has checked that the sender may be `host`; of the request only the key is used.
    ///
    /// # Errors
    /// If the request is not a correctly signed PKCS#10 request, or `host` is not a DNS name.
    pub fn sign_host(&self, host: &HostName, csr_der: &[u8]) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        if csr_der.len() > REQUEST_MAX {
            return Err(AuthorityError::RequestSize { size: csr_der.len() });
        }
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der))
            .map_err(AuthorityError::Request)?;
        let accepted = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
        if !accepted.contains(&request.public_key.algorithm()) {
            return Err(AuthorityError::RequestKey);
        }
        let mut params = params(host.as_str(), HOST_CERTIFICATE_LIFETIME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![dns_name(host)?, self.uri_name(&Principal::Host(host.clone()))?];
        Ok(vec![self.sign(&params, &request.public_key, host.as_str())?])
    }

    fn sign(
        &self,
        params: &CertificateParams,
        key: &impl rcgen::PublicKeyData,
        subject: &str,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let signed = params.signed_by(key, &self.issuer).map_err(|source| self.cannot_make(subject, source))?;
        Ok(signed.der().clone())
    }

    fn uri_name(&self, principal: &Principal) -> Result<SanType, AuthorityError> {
        let uri = principal::uri(&self.cluster, principal);
        uri.try_into().map(SanType::URI).map_err(|source| self.cannot_make(&principal.to_string(), source))
    }

    fn cannot_make(&self, subject: &str, source: rcgen::Error) -> AuthorityError {
        AuthorityError::Make { subject: format!("{subject} of cluster {}", self.cluster), source }
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("cluster", &self.cluster).field("key", &"[redacted]").finish()
    }
}

/// A fresh key with a request to certify it.
pub struct CertificateRequest {
    key: PrivatePkcs8KeyDer<'static>,
    der: Vec<u8>,
}

impl CertificateRequest {
    /// Makes a key for `host` and a request to certify it. The key never leaves this process.
    ///
    /// # Errors
    /// If `host` is not a DNS name.
    pub fn new(host: &HostName) -> Result<Self, AuthorityError> {
        let make = |source| AuthorityError::Make { subject: format!("host {host}"), source };
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(host.as_str());
        params.subject_alt_names = vec![dns_name(host)?];
        let key = KeyPair::generate().map_err(make)?;
        let request = params.serialize_request(&key).map_err(make)?;
        Ok(Self { key: PrivatePkcs8KeyDer::from(key.serialize_der()), der: request.der().to_vec() })
    }

    /// The request (PKCS#10, DER), to be sent to the scheduler.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Joins the key with the chain that came back.
    ///
    /// # Errors
    /// If the chain is empty or certifies another key.
    pub fn into_identity(self, chain: Vec<CertificateDer<'static>>) -> Result<Identity, IdentityError> {
        Identity::new(chain, self.key)
    }
}

impl fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateRequest").field("key", &"[redacted]").finish_non_exhaustive()
    }
}

/// Checks a cluster name, which has the form of all names.
pub(crate) fn check_cluster(name: &str) -> Result<(), AuthorityError> {
    // The grammar of names is that of `types`; only the error differs.
    match HostName::new(name) {
        Ok(_) => Ok(()),
        Err(_) => Err(AuthorityError::ClusterName { name: name.chars().take(80).collect() }),
    }
}

/// What all our certificates share: subject, validity and a random serial number.
fn params(common_name: &str, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(common_name);
    let now = Duration::from_micros(now().micros);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + now + lifetime;
    params.serial_number = Some(serial_number());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

/// 127 random bits: positive, as RFC 5280 demands.
fn serial_number() -> SerialNumber {
    let mut bytes: [u8; 16] = random();
    bytes[0] = (bytes[0] & 0x7f) | 0x01;
    SerialNumber::from_slice(&bytes)
}

fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Partita");
    name.push(DnType::CommonName, common_name);
    name
}

fn dns_name(host: &HostName) -> Result<SanType, AuthorityError> {
    let error = || AuthorityError::HostName { host: host.clone() };
    DnsName::try_from(host.as_str()).map_err(|_| error())?;
    host.as_str().try_into().map(SanType::DnsName).map_err(|_| error())
}

fn alternative_name(name: &str) -> Result<SanType, AuthorityError> {
    let error = || AuthorityError::ServerName { name: name.chars().take(80).collect() };
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    DnsName::try_from(name).map_err(|_| error())?;
    name.try_into().map(SanType::DnsName).map_err(|_| error())
}
