//! How a host gets its certificate: by a join token at the first start, by itself from then on.
//!
//! The key is made here and never leaves the host; the scheduler sees a request and signs it. Certificates live for
//! a day, and are renewed when two thirds of that are over, while everything goes on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use partita_identity::dial::{self, ConnectError, DialError, Expect};
use partita_identity::tls::{self, LiveIdentity, TlsError};
use partita_identity::{
    AuthorityError, CertificateDer, CertificateRequest, HOST_CERTIFICATE_LIFETIME, Identity, IdentityError, Principal,
};
use partita_protocol::host::enrollment_client::EnrollmentClient;
use partita_protocol::host::{CertificateResponse, JoinRequest, RenewRequest};
use partita_types::{HostName, Timestamp, format_duration};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

use crate::config::HostConfig;
use crate::error;
use crate::host::Host;
use crate::session::jittered;

/// File stem of the host's certificate and key in its data directory.
const STEM: &str = "host";
/// Copy of the authority that signed the certificate, to tell clusters apart.
const ISSUER: &str = "authority.pem";
/// How long a first start waits for a scheduler that is not there yet.
const JOIN_PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for one answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// First and longest wait after a failed renewal.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Why a host has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The authority's file.
    #[error("cannot read the cluster's authority {}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The data directory.
    #[error("cannot use the data directory {}", path.display())]
    Data {
        /// The directory or a file in it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// First start without a token.
    #[error("host {host} has no certificate in {} and no join token was given", data.display())]
    NoToken {
        /// The host.
        host: HostName,
        /// Its data directory.
        data: PathBuf,
    },
    /// A certificate that is too old to renew itself.
    #[error("the certificate of host {host} expired {} ago; give a new join token", format_duration(*ago))]
    Expired {
        /// The host.
        host: HostName,
        /// How long ago.
        ago: Duration,
    },
    /// The data directory belongs to another cluster.
    #[error("the certificate in {} was issued by another cluster than {}", data.display(), authority.display())]
    OtherCluster {
        /// The data directory.
        data: PathBuf,
        /// The authority that was configured.
        authority: PathBuf,
    },
    /// The data directory belongs to another host.
    #[error("the certificate in {} is of {found}, not of host {host}", data.display())]
    OtherHost {
        /// The data directory.
        data: PathBuf,
        /// Whom it names.
        found: String,
        /// This host.
        host: HostName,
    },
    /// The token is wrong, expired, used, or for another host.
    #[error("the scheduler refuses host {host}: {reason}")]
    Refused {
        /// The host.
        host: HostName,
        /// What the scheduler says.
        reason: String,
    },
    /// The scheduler shows a certificate that the configured authority did not issue, or of somebody else.
    #[error("{scheduler} is not the scheduler of this cluster: {reason}")]
    NotTheScheduler {
        /// Its address.
        scheduler: String,
        /// What is wrong.
        reason: String,
    },
    /// No answer.
    #[error("the scheduler at {scheduler} cannot be reached: {reason}")]
    Unreachable {
        /// Its address.
        scheduler: String,
        /// Why.
        reason: String,
    },
    /// The address.
    #[error("the scheduler's address is not usable")]
    Dial(#[from] DialError),
    /// TLS.
    #[error("the cluster's authority is not usable")]
    Tls(#[from] TlsError),
    /// Making a key.
    #[error("cannot make a certificate request")]
    Request(#[source] AuthorityError),
    /// What the scheduler sent.
    #[error("the certificate is not usable")]
    Identity(#[from] IdentityError),
}

/// A host's certificate and the authority to judge others by.
pub(crate) struct Enrolled {
    pub(crate) identity: Identity,
    pub(crate) authority: String,
}

/// Loads the host's certificate, or joins the cluster.
pub(crate) async fn enroll(config: &HostConfig) -> Result<Enrolled, EnrollError> {
    let authority = fs::read_to_string(&config.authority)
        .map_err(|source| EnrollError::Authority { path: config.authority.clone(), source })?;
    private_directory(&config.data)?;
    match stored(config, &authority)? {
        Stored::Good(identity) => return Ok(Enrolled { identity, authority }),
        Stored::Nothing if config.join_token.is_none() => {
            return Err(EnrollError::NoToken { host: config.name.clone(), data: config.data.clone() });
        }
        Stored::Expired(ago) if config.join_token.is_none() => {
            return Err(EnrollError::Expired { host: config.name.clone(), ago });
        }
        Stored::Nothing | Stored::Expired(_) => {}
    }
    let identity = join(config, &authority).await?;
    save(config, &identity, &authority)?;
    tracing::info!(host = %config.name, "joined the cluster");
    Ok(Enrolled { identity, authority })
}

enum Stored {
    Good(Identity),
    Nothing,
    Expired(Duration),
}

fn stored(config: &HostConfig, authority: &str) -> Result<Stored, EnrollError> {
    let data = || config.data.clone();
    if !config.data.join(format!("{STEM}.pem")).exists() {
        return Ok(Stored::Nothing);
    }
    let issuer = config.data.join(ISSUER);
    let issuer = fs::read_to_string(&issuer).map_err(|source| EnrollError::Data { path: issuer, source })?;
    if issuer.trim() != authority.trim() {
        return Err(EnrollError::OtherCluster { data: data(), authority: config.authority.clone() });
    }
    let identity = Identity::load(&config.data, STEM)?;
    check_name(config, &identity)?;
    let now = partita_identity::now();
    if identity.leaf_expires() <= now {
        return Ok(Stored::Expired(now.since(identity.leaf_expires())));
    }
    Ok(Stored::Good(identity))
}

fn check_name(config: &HostConfig, identity: &Identity) -> Result<(), EnrollError> {
    let other = |found: String| EnrollError::OtherHost { data: config.data.clone(), found, host: config.name.clone() };
    match identity.principal() {
        Ok(Principal::Host(name)) if name == config.name => Ok(()),
        Ok(principal) => Err(other(principal.to_string())),
        Err(fault) => Err(other(fault.to_string())),
    }
}

/// Makes the data directory, readable by its owner only.
fn private_directory(path: &Path) -> Result<(), EnrollError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| EnrollError::Data { path: path.to_owned(), source })
}

fn save(config: &HostConfig, identity: &Identity, authority: &str) -> Result<(), EnrollError> {
    let issuer = config.data.join(ISSUER);
    // First, so that a certificate is never there without the authority it belongs to.
    fs::write(&issuer, authority).map_err(|source| EnrollError::Data { path: issuer, source })?;
    Ok(identity.save(&config.data, STEM)?)
}

/// Asks for the first certificate, with patience for a scheduler that starts at the same time.
async fn join(config: &HostConfig, authority: &str) -> Result<Identity, EnrollError> {
    let token = config.join_token.as_ref().map(|token| token.expose().to_owned()).unwrap_or_default();
    let tls = tls::client_config(authority, None)?;
    let expect = Expect::Server(config.scheduler_name().to_owned());
    let mut client = EnrollmentClient::new(dial::channel(&config.scheduler, tls, expect)?);
    let request = CertificateRequest::new(&config.name).map_err(EnrollError::Request)?;
    let give_up = Instant::now() + JOIN_PATIENCE;
    let answer = loop {
        let message = JoinRequest { token: token.clone(), certificate_request: request.der().to_vec().into() };
        let answer = timeout(CALL_TIMEOUT, client.join(message)).await;
        let status = match answer {
            Ok(Ok(answer)) => break answer.into_inner(),
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded(format!("no answer within {} s", CALL_TIMEOUT.as_secs())),
        };
        if !is_absent(&status) || Instant::now() >= give_up {
            return Err(refusal(config, &status));
        }
        sleep(jittered(Duration::from_millis(400))).await;
    };
    if !answer.authority.is_empty() && answer.authority.trim() != authority.trim() {
        return Err(EnrollError::OtherCluster { data: config.data.clone(), authority: config.authority.clone() });
    }
    let identity = request.into_identity(chain_of(answer))?;
    check_name(config, &identity)?;
    Ok(identity)
}

fn chain_of(answer: CertificateResponse) -> Vec<CertificateDer<'static>> {
    answer.chain.into_iter().map(|der| CertificateDer::from(der.to_vec())).collect()
}

/// Whether nobody answered, so that waiting may help.
fn is_absent(status: &Status) -> bool {
    match connect_error(status) {
        Some(ConnectError::Tcp { .. } | ConnectError::Stalled { .. }) => true,
        // rustls reports what is wrong with a certificate as invalid data; anything else is a broken connection.
        Some(ConnectError::Tls { source, .. }) => source.kind() != io::ErrorKind::InvalidData,
        Some(ConnectError::Protocol { .. } | ConnectError::Certificate { .. } | ConnectError::Somebody { .. }) => false,
        None => matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded),
    }
}

fn connect_error(status: &Status) -> Option<&ConnectError> {
    let mut cause = std::error::Error::source(status);
    while let Some(fault) = cause {
        if let Some(found) = fault.downcast_ref() {
            return Some(found);
        }
        cause = fault.source();
    }
    None
}

fn refusal(config: &HostConfig, status: &Status) -> EnrollError {
    let (scheduler, host) = (config.scheduler.clone(), config.name.clone());
    if let Some(fault) = connect_error(status) {
        let reason = error::chain(fault);
        return if is_absent(status) {
            EnrollError::Unreachable { scheduler, reason }
        } else {
            EnrollError::NotTheScheduler { scheduler, reason }
        };
    }
    let reason = error::status(status);
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded => EnrollError::Unreachable { scheduler, reason },
        _ => EnrollError::Refused { host, reason },
    }
}

/// When a certificate is to be renewed: two thirds into its life.
fn renewal(expires: Timestamp) -> Timestamp {
    let third = u64::try_from(HOST_CERTIFICATE_LIFETIME.as_micros() / 3).unwrap_or(0);
    Timestamp::from_micros(expires.micros.saturating_sub(third))
}

/// Renews the certificate again and again, in place, until the host stops. Ends with an error if it expired.
pub(crate) async fn keep_renewed(host: Arc<Host>, live: LiveIdentity, mut identity: Identity) -> EnrollError {
    let mut wait = RETRY.0;
    loop {
        let due = renewal(identity.leaf_expires()).since(partita_identity::now());
        sleep(due).await;
        match renew(&host).await {
            Ok(renewed) => {
                live.replace(&renewed);
                tracing::info!(host = %host.config.name, "renewed the certificate");
                (identity, wait) = (renewed, RETRY.0);
            }
            Err(fault) => {
                tracing::warn!(error = %error::chain(&fault), "the certificate could not be renewed; trying again");
                let now = partita_identity::now();
                if identity.leaf_expires() <= now {
                    let ago = now.since(identity.leaf_expires());
                    return EnrollError::Expired { host: host.config.name.clone(), ago };
                }
                sleep(jittered(wait)).await;
                wait = (wait * 2).min(RETRY.1);
            }
        }
    }
}

async fn renew(host: &Host) -> Result<Identity, EnrollError> {
    let request = CertificateRequest::new(&host.config.name).map_err(EnrollError::Request)?;
    let message = RenewRequest { certificate_request: request.der().to_vec().into() };
    let mut client = host.uplink.session();
    let answer = timeout(CALL_TIMEOUT, client.renew(message)).await;
    let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")));
    let answer = answer.map_err(|status| refusal(&host.config, &status))?.into_inner();
    let identity = request.into_identity(chain_of(answer))?;
    check_name(&host.config, &identity)?;
    identity.save(&host.config.data, STEM)?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_life_is_left() {
        let expires = Timestamp::from_micros(u64::MAX / 2);
        let left = expires.since(renewal(expires));
        assert_eq!(left, HOST_CERTIFICATE_LIFETIME / 3);
    }

    #[test]
    fn a_missing_scheduler_is_worth_waiting_for_and_a_refusal_is_not() {
        assert!(is_absent(&Status::unavailable("connection refused")));
        assert!(!is_absent(&Status::unauthenticated("the token is expired")));
        assert!(!is_absent(&Status::permission_denied("the token was used")));
    }
}
