//! A certificate chain with its private key: what one process shows to others.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use partita_types::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use crate::file::{self, Access, FileError};
use crate::principal::{self, Principal, PrincipalError};
use crate::provider::provider;

/// Longest chain that is accepted: leaf, two intermediates, root.
const CHAIN_MAX: usize = 4;

/// A certificate chain and the private key of its first certificate.
#[derive(Clone)]
pub struct Identity {
    key: Arc<PrivatePkcs8KeyDer<'static>>,
    certified: Arc<CertifiedKey>,
    expires: Timestamp,
}

/// A chain and a key that do not make an identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file could not be read or written.
    #[error("identity is not usable")]
    File(#[from] FileError),
    /// The text is not PEM, or holds something else.
    #[error("{what} is not a PEM {expected}")]
    Pem {
        /// The file or message.
        what: String,
        /// What it should hold.
        expected: &'static str,
        /// What the decoder says.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// No certificate, or more than any chain of ours has.
    #[error("a certificate chain must have 1 to {CHAIN_MAX} certificates, this one has {count}")]
    ChainLength {
        /// How many there are.
        count: usize,
    },
    /// The certificate cannot be parsed.
    #[error("certificate is not usable")]
    Certificate(#[source] PrincipalError),
    /// The key is broken or belongs to another certificate.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch(#[source] rustls::Error),
}

impl Identity {
    /// Joins a chain, leaf first, and the PKCS#8 key of the leaf.
    pub(crate) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivatePkcs8KeyDer<'static>,
    ) -> Result<Self, IdentityError> {
        if chain.is_empty() || chain.len() > CHAIN_MAX {
            return Err(IdentityError::ChainLength { count: chain.len() });
        }
        let leaf = principal::parse(&chain[0]).map_err(IdentityError::Certificate)?;
        let seconds = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0);
        let expires = Timestamp::from_micros(seconds.saturating_mul(1_000_000));
        let certified = CertifiedKey::from_der(chain, PrivateKeyDer::Pkcs8(key.clone_key()), &provider())
            .map_err(IdentityError::KeyMismatch)?;
        Ok(Self { key: Arc::new(key), certified: Arc::new(certified), expires })
    }

    /// Reads `<stem>.pem` (the chain) and `<stem>.key` (the key) in `directory`.
    ///
    /// # Errors
    /// If a file is missing or is not what it should be, or the key belongs to another certificate.
    pub fn load(directory: &Path, stem: &str) -> Result<Self, IdentityError> {
        let chain_path = directory.join(format!("{stem}.pem"));
        let key_path = directory.join(format!("{stem}.key"));
        let pem_error =
            |path: &Path, expected, source| IdentityError::Pem { what: path.display().to_string(), expected, source };
        let chain = CertificateDer::pem_slice_iter(&file::read(&chain_path)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| pem_error(&chain_path, "certificate chain", source))?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(&file::read(&key_path)?)
            .map_err(|source| pem_error(&key_path, "private key (PKCS#8)", source))?;
        Self::new(chain, key)
    }

    /// Writes `<stem>.pem` and `<stem>.key`, the key readable by the owner only.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, directory: &Path, stem: &str) -> Result<(), IdentityError> {
        let key = file::pem_block("PRIVATE KEY", self.key.secret_pkcs8_der());
        file::write(&directory.join(format!("{stem}.key")), key.as_bytes(), Access::Private)?;
        file::write(&directory.join(format!("{stem}.pem")), self.chain_pem().as_bytes(), Access::Public)?;
        Ok(())
    }

    /// The chain, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The chain as PEM, leaf first.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        self.chain().iter().map(|der| file::pem_block("CERTIFICATE", der)).collect()
    }

    /// When the leaf certificate ends to be valid. Renew well before.
    #[must_use]
    pub fn leaf_expires(&self) -> Timestamp {
        self.expires
    }

    /// Whom the leaf names.
    ///
    /// # Errors
    /// If it names nobody of the cluster that issued it, as an authority's own certificate does not.
    pub fn principal(&self) -> Result<Principal, PrincipalError> {
        self.chain().first().map_or(Err(PrincipalError::Malformed), |leaf| principal::principal_of(leaf))
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }

    pub(crate) fn key(&self) -> &PrivatePkcs8KeyDer<'static> {
        &self.key
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("principal", &self.principal().ok())
            .field("expires", &self.expires)
            .field("key", &"[redacted]")
            .finish()
    }
}
