//! The name inside a certificate: `spiffe://partita/<cluster>/scheduler` or `spiffe://partita/<cluster>/host/<name>`.
//!
//! TLS libraries check chains, dates and host names; that a certificate belongs to the scheduler or to a certain
//! host, and of this cluster, is decided by this one URI. A host's certificate may well be valid for the DNS name
//! `localhost`; it still is not the scheduler's.

use std::fmt;

use partita_types::{HostName, Timestamp};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// The cluster's scheduler.
    Scheduler,
    /// A host.
    Host(HostName),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheduler => f.write_str("the scheduler"),
            Self::Host(name) => write!(f, "host {name}"),
        }
    }
}

/// A certificate whose chain is right but which does not name anybody of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrincipalError {
    /// Not an X.509 certificate.
    #[error("the certificate cannot be parsed")]
    Malformed,
    /// No name, or several, of which one could be meant for somebody else.
    #[error("the certificate has {count} URI names, exactly one is needed")]
    NameCount {
        /// How many there are.
        count: usize,
    },
    /// The issuer does not say for which cluster it speaks.
    #[error("the certificate's issuer names no cluster")]
    NoCluster,
    /// A URI of another form or of another cluster.
    #[error("the certificate names {uri:?}, which is nobody of cluster {cluster}")]
    Foreign {
        /// The name, shortened.
        uri: String,
        /// The cluster of the issuer.
        cluster: String,
    },
}

/// The URI that names `principal` in `cluster`.
pub(crate) fn uri(cluster: &str, principal: &Principal) -> String {
    match principal {
        Principal::Scheduler => format!("spiffe://partita/{cluster}/scheduler"),
        Principal::Host(name) => format!("spiffe://partita/{cluster}/host/{name}"),
    }
}

/// Whom the certificate `der` names. Its chain must have been verified before.
///
/// The cluster is that of the issuer, an authority which is trusted because its chain was verified.
pub(crate) fn principal_of(der: &[u8]) -> Result<Principal, PrincipalError> {
    let certificate = parse(der)?;
    let cluster = certificate
        .issuer()
        .iter_common_name()
        .next()
        .and_then(|name| name.as_str().ok())
        .ok_or(PrincipalError::NoCluster)?;
    let names = certificate.subject_alternative_name().map_err(|_| PrincipalError::Malformed)?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    let [uri] = uris.as_slice() else { return Err(PrincipalError::NameCount { count: uris.len() }) };
    from_uri(uri, cluster).ok_or_else(|| PrincipalError::Foreign {
        uri: uri.chars().take(120).collect(),
        cluster: cluster.chars().take(63).collect(),
    })
}

/// From when on the certificate `der` is valid.
pub(crate) fn valid_from(der: &[u8]) -> Result<Timestamp, PrincipalError> {
    let seconds = parse(der)?.validity().not_before.timestamp();
    Ok(Timestamp::from_micros(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000)))
}

fn from_uri(uri: &str, cluster: &str) -> Option<Principal> {
    let path = uri.strip_prefix("spiffe://partita/")?.strip_prefix(cluster)?;
    match path {
        "/scheduler" => Some(Principal::Scheduler),
        _ => HostName::new(path.strip_prefix("/host/")?).ok().map(Principal::Host),
    }
}

/// Parses one certificate; bytes after its end are refused.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, PrincipalError> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(PrincipalError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_its_uri() {
        for principal in [Principal::Scheduler, Principal::Host(HostName::new("rack-1.a").unwrap())] {
            assert_eq!(from_uri(&uri("lab", &principal), "lab"), Some(principal));
        }
    }

    #[test]
    fn foreign_and_odd_uris_name_nobody() {
        for bad in [
            "spiffe://partita/lab2/host/a",
            "spiffe://partita/la/host/a",
            "spiffe://other/lab/host/a",
            "spiffe://partita/lab/host/",
            "spiffe://partita/lab/host/A",
            "spiffe://partita/lab/host/a/b",
            "spiffe://partita/lab/scheduler/",
            "spiffe://partita/lab",
            "SPIFFE://partita/lab/host/a",
            "",
        ] {
            assert_eq!(from_uri(bad, "lab"), None, "{bad:?} was accepted");
        }
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        assert_eq!(principal_of(b""), Err(PrincipalError::Malformed));
        assert_eq!(principal_of(&[0x30; 64]), Err(PrincipalError::Malformed));
    }
}
