//! How a host gets its first certificate: with a join token, which counts once.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use partita_identity::token::JoinClaims;
use partita_identity::{Authority, AuthorityError};
use partita_protocol::host::enrollment_server::Enrollment;
use partita_protocol::host::{CertificateResponse, JoinRequest};
use partita_types::{HostName, Timestamp};
use tonic::{Request as Call, Response, Status};
use tracing::{error, info, warn};

use crate::audit::Object;
use crate::keys::Keys;
use crate::revocations::Revocations;

/// Redeemed join tokens: a file for each, named by the hash of its id, until it would have expired anyway.
#[derive(Debug)]
pub(crate) struct Redeemed {
    directory: PathBuf,
}

impl Redeemed {
    /// Opens the directory and removes what has expired.
    pub(crate) fn open(directory: &Path, now: Timestamp) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let expires = fs::read_to_string(&path)?.trim().parse().map(Timestamp::from_micros);
            // What cannot be read is kept: a token too many is better than one that counts twice.
            if expires.is_ok_and(|expires| expires.after(partita_identity::token::LEEWAY) < now) {
                fs::remove_file(&path)?;
            }
        }
        Ok(Self { directory: directory.to_owned() })
    }

    /// Redeems a token; false if it was before. Durable when this returns.
    fn redeem(&self, claims: &JoinClaims) -> io::Result<bool> {
        let name = blake3::hash(claims.jti.as_bytes()).to_hex();
        let mut file = match OpenOptions::new().write(true).create_new(true).open(self.directory.join(name.as_str())) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(error),
        };
        file.write_all(claims.exp.micros.to_string().as_bytes())?;
        file.sync_all()?;
        fs::File::open(&self.directory)?.sync_all()?;
        Ok(true)
    }
}

/// Signs the certificate requests of hosts.
#[derive(Debug, Clone)]
pub(crate) struct Certifier(pub(crate) Arc<Authority>);

impl Certifier {
    /// A certificate for `host`.
    pub(crate) fn certify(&self, host: &HostName, request: &[u8]) -> Result<CertificateResponse, Status> {
        let chain = self.0.sign_host(host, request).map_err(|error| match error {
            AuthorityError::Make { .. } | AuthorityError::Identity(_) => {
                error!(error = %crate::chain(&error), %host, "cannot sign a certificate");
                Status::internal("the cluster's authority cannot sign")
            }
            refused => Status::invalid_argument(crate::chain(&refused)),
        })?;
        Ok(CertificateResponse {
            chain: chain.iter().map(|certificate| certificate.to_vec().into()).collect(),
            authority: self.0.certificate_pem().to_owned(),
            host: host.to_string(),
        })
    }
}

/// The service of enrollment.
#[derive(Debug)]
pub(crate) struct EnrollmentService {
    keys: Keys,
    certifier: Certifier,
    redeemed: Arc<Redeemed>,
    revocations: Revocations,
}

impl EnrollmentService {
    pub(crate) fn new(keys: Keys, certifier: Certifier, redeemed: Redeemed, revocations: Revocations) -> Self {
        Self { keys, certifier, redeemed: Arc::new(redeemed), revocations }
    }
}

#[tonic::async_trait]
impl Enrollment for EnrollmentService {
    async fn join(&self, call: Call<JoinRequest>) -> Result<Response<CertificateResponse>, Status> {
        let object = Object::of(&call);
        let JoinRequest { token, certificate_request } = call.into_inner();
        let claims = self.keys.verify_join(&token, partita_identity::now()).map_err(|error| {
            Status::unauthenticated(format!("{error}; get a new join token (`partita token issue --join HOST`)"))
        })?;
        let host = claims.host.clone();
        object.is(format_args!("host {host}, join token {}", claims.jti));
        if self.revocations.has_token(&claims.jti) || self.revocations.has_host(&host, claims.iat) {
            return Err(Status::unauthenticated(format!(
                "the join token of host {host} was revoked; get a new one (`partita token issue --join {host}`)"
            )));
        }
        // Signed first, so that a wrong request does not use up the token.
        let response = self.certifier.certify(&host, &certificate_request)?;
        let redeemed = Arc::clone(&self.redeemed);
        let fresh = tokio::task::spawn_blocking(move || redeemed.redeem(&claims)).await;
        match fresh {
            Ok(Ok(true)) => {
                info!(%host, "host joined");
                Ok(Response::new(response))
            }
            Ok(Ok(false)) => {
                warn!(%host, "a join token was shown again");
                Err(Status::unauthenticated(format!(
                    "the join token of host {host} was used already; get a new one (`partita token issue --join {host}`)"
                )))
            }
            Ok(Err(source)) => {
                error!(error = %source, %host, "cannot note a join token");
                Err(Status::internal("the scheduler cannot note that the join token was used"))
            }
            Err(_) => Err(Status::internal("the join was not finished")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn claims(jti: &str, exp: Timestamp) -> JoinClaims {
        JoinClaims { host: HostName::new("host-1").unwrap(), jti: jti.to_owned(), exp, iat: Timestamp::default() }
    }

    #[test]
    fn a_join_token_counts_once_even_across_restarts() {
        let directory = tempfile::tempdir().unwrap();
        let now = partita_identity::now();
        let later = now.after(Duration::from_secs(60));
        let redeemed = Redeemed::open(directory.path(), now).unwrap();
        assert!(redeemed.redeem(&claims("../a", later)).unwrap());
        assert!(!redeemed.redeem(&claims("../a", later)).unwrap());
        assert!(redeemed.redeem(&claims("b", later)).unwrap());
        let redeemed = Redeemed::open(directory.path(), now).unwrap();
        assert!(!redeemed.redeem(&claims("../a", later)).unwrap());
    }

    #[test]
    fn expired_tokens_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let now = partita_identity::now();
        let redeemed = Redeemed::open(directory.path(), now).unwrap();
        redeemed.redeem(&claims("a", now)).unwrap();
        Redeemed::open(directory.path(), now.after(Duration::from_secs(3_600))).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
