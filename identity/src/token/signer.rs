//! The cluster's signing key and the list of public keys that belongs to it.
//!
//! On disk: `signing.key` (PKCS#8, owner only) and `keys.json`, the public half with the cluster's name. The list
//! has the form of a JWKS and may hold several keys, so that an old one goes on verifying after a rotation.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use partita_types::{HostName, TenantName, Timestamp};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use super::verify::Verifier;
use super::{ACCESS, JOIN, LEEWAY, LIFETIME_MAX, Role, SignerError, Token, audience, check_subject};
use crate::authority::check_cluster;
use crate::file::{self, Access};
use crate::random;

/// The list of public keys.
pub(crate) const KEYS_FILE: &str = "keys.json";

/// The private key.
const SIGNING_FILE: &str = "signing.key";

/// Most keys of a list.
const KEYS_MAX: usize = 16;

/// Issues tokens with the cluster's signing key.
pub struct Signer {
    public: PublicKeys,
    verifier: Verifier,
    kid: String,
    key: EncodingKey,
    der: PrivatePkcs8KeyDer<'static>,
}

/// What `keys.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PublicKeys {
    pub(crate) cluster: String,
    pub(crate) keys: Vec<PublicKey>,
}

/// One public key, as RFC 8037 writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PublicKey {
    kty: String,
    crv: String,
    pub(crate) kid: String,
    x: String,
    /// Seconds since 1970, of a key that signs no more: then its last token has expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until_s: Option<u64>,
}

impl PublicKey {
    fn new(bytes: &[u8]) -> Self {
        let kid = hex::encode(&blake3::hash(bytes).as_bytes()[..8]);
        Self { kty: "OKP".to_owned(), crv: "Ed25519".to_owned(), kid, x: URL_SAFE_NO_PAD.encode(bytes), until_s: None }
    }

    /// The 32 bytes of the key, if it is one that we use.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        let bytes = URL_SAFE_NO_PAD.decode(&self.x).ok()?;
        (self.kty == "OKP" && self.crv == "Ed25519" && bytes.len() == 32).then_some(bytes)
    }
}

impl PublicKeys {
    /// Reads the list; `None` if it is not one.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let keys: Self = serde_json::from_slice(bytes).ok()?;
        let sound = check_cluster(&keys.cluster).is_ok() && (1..=KEYS_MAX).contains(&keys.keys.len());
        sound.then_some(keys)
    }
}

/// What becomes of the keys that signed until a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldKeys {
    /// They verify until the last token that they signed has expired.
    Verify,
    /// They count for nothing from now on, and neither does any token that they signed.
    Drop,
}

#[derive(Serialize)]
struct AccessBody<'a> {
    #[serde(flatten)]
    common: CommonBody<'a>,
    tenant: &'a str,
    role: Role,
}

#[derive(Serialize)]
struct CommonBody<'a> {
    iss: String,
    aud: String,
    sub: &'a str,
    jti: String,
    iat: u64,
    nbf: u64,
    exp: u64,
}

impl Signer {
    /// Makes the keys of a new cluster.
    ///
    /// # Errors
    /// If `cluster` is not a cluster name.
    pub fn create(cluster: &str) -> Result<Self, SignerError> {
        check_cluster(cluster).map_err(SignerError::Cluster)?;
        let pair = KeyPair::generate_for(&PKCS_ED25519).map_err(SignerError::Generate)?;
        let public = PublicKeys { cluster: cluster.to_owned(), keys: vec![PublicKey::new(pair.der_bytes())] };
        Self::from_parts(public, pair.serialize_der(), Path::new(KEYS_FILE))
    }

    /// Reads `signing.key` and `keys.json` in `directory`.
    ///
    /// # Errors
    /// If a file is missing or is not what [`Signer::save`] wrote.
    pub fn load(directory: &Path) -> Result<Self, SignerError> {
        let content = |path: &Path, expected| SignerError::Content { path: path.display().to_string(), expected };
        let keys_path = directory.join(KEYS_FILE);
        let public =
            PublicKeys::parse(&file::read(&keys_path)?).ok_or_else(|| content(&keys_path, "a list of public keys"))?;
        let key_path = directory.join(SIGNING_FILE);
        let der = PrivatePkcs8KeyDer::from_pem_slice(&file::read(&key_path)?)
            .map_err(|_| content(&key_path, "a PEM private key"))?;
        Self::from_parts(public, der.secret_pkcs8_der().to_vec(), &keys_path)
    }

    /// Writes `signing.key`, readable by the owner only, and `keys.json`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), SignerError> {
        write_key(directory, &self.der)?;
        write_list(&directory.join(KEYS_FILE), &self.public)
    }

    /// Makes a new signing key in the place of the one in `directory`, which [`Signer::save`] wrote. Whenever this ends,
    /// the directory has a signing key that is listed, and every key of before that still counts.
    ///
    /// # Errors
    /// If a file cannot be written, or so many keys verify already that there is no room for another one.
    pub fn rotate(&self, directory: &Path, old: OldKeys, now: Timestamp) -> Result<Self, SignerError> {
        let now_s = now.micros / 1_000_000;
        let counts = |key: &&PublicKey| key.until_s.is_none_or(|until| until > now_s);
        let mut keys: Vec<PublicKey> = self.public.keys.iter().filter(counts).cloned().collect();
        if keys.len() >= KEYS_MAX && old == OldKeys::Verify {
            return Err(SignerError::TooManyKeys { limit: KEYS_MAX });
        }
        let pair = KeyPair::generate_for(&PKCS_ED25519).map_err(SignerError::Generate)?;
        let fresh = PublicKey::new(pair.der_bytes());
        let listed = |keys: &[PublicKey]| PublicKeys {
            cluster: self.public.cluster.clone(),
            keys: keys.iter().chain([&fresh]).cloned().collect(),
        };
        // Listed first, then used; and only then the old ones get an end.
        let path = directory.join(KEYS_FILE);
        write_list(&path, &listed(&keys))?;
        write_key(directory, &PrivatePkcs8KeyDer::from(pair.serialize_der()))?;
        let until_s = now_s.saturating_add((LIFETIME_MAX + LEEWAY).as_secs() + 1);
        match old {
            OldKeys::Verify => keys.iter_mut().for_each(|key| key.until_s = key.until_s.or(Some(until_s))),
            OldKeys::Drop => keys.clear(),
        }
        let public = listed(&keys);
        write_list(&path, &public)?;
        Self::from_parts(public, pair.serialize_der(), &path)
    }

    /// The id of the key that signs.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.kid
    }

    fn from_parts(public: PublicKeys, der: Vec<u8>, list: &Path) -> Result<Self, SignerError> {
        let content = |expected| SignerError::Content { path: list.display().to_string(), expected };
        let der = PrivatePkcs8KeyDer::from(der);
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).map_err(SignerError::Generate)?;
        let kid = PublicKey::new(pair.der_bytes()).kid;
        if !public.keys.iter().any(|key| key.kid == kid && key.bytes().as_deref() == Some(pair.der_bytes())) {
            return Err(SignerError::Unlisted { path: list.display().to_string() });
        }
        let verifier = Verifier::new(&public).ok_or_else(|| content("a list of Ed25519 public keys"))?;
        let key = EncodingKey::from_ed_der(der.secret_pkcs8_der());
        Ok(Self { public, verifier, kid, key, der })
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.public.cluster
    }

    /// What checks the tokens of this signer.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        self.verifier.clone()
    }

    /// Issues an access token that lives for `lifetime` from `now`.
    ///
    /// # Errors
    /// If `lifetime` is zero or longer than [`LIFETIME_MAX`], or `subject` is not printable text.
    pub fn issue(
        &self,
        tenant: &TenantName,
        subject: &str,
        role: Role,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Token, SignerError> {
        check_subject(subject)?;
        let common = self.common(ACCESS, subject, lifetime, now)?;
        self.sign(&AccessBody { common, tenant: tenant.as_str(), role })
    }

    /// Issues a token with which `host` may join the cluster once, within `lifetime` from `now`.
    ///
    /// # Errors
    /// If `lifetime` is zero or longer than [`LIFETIME_MAX`].
    pub fn issue_join(&self, host: &HostName, lifetime: Duration, now: Timestamp) -> Result<Token, SignerError> {
        self.sign(&self.common(JOIN, host.as_str(), lifetime, now)?)
    }

    fn common<'a>(
        &self,
        kind: &str,
        sub: &'a str,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<CommonBody<'a>, SignerError> {
        if lifetime < Duration::from_secs(1) || lifetime > LIFETIME_MAX {
            return Err(SignerError::Lifetime { lifetime });
        }
        let iat = now.micros / 1_000_000;
        Ok(CommonBody {
            iss: audience(ACCESS, self.cluster()),
            aud: audience(kind, self.cluster()),
            sub,
            jti: hex::encode(random::<16>()),
            iat,
            nbf: iat,
            exp: iat.saturating_add(lifetime.as_secs()),
        })
    }

    fn sign(&self, body: &impl Serialize) -> Result<Token, SignerError> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, body, &self.key).map(Token).map_err(SignerError::Sign)
    }
}

fn write_key(directory: &Path, der: &PrivatePkcs8KeyDer<'_>) -> Result<(), SignerError> {
    let key = file::pem_block("PRIVATE KEY", der.secret_pkcs8_der());
    Ok(file::write(&directory.join(SIGNING_FILE), key.as_bytes(), Access::Private)?)
}

fn write_list(path: &Path, keys: &PublicKeys) -> Result<(), SignerError> {
    let list = serde_json::to_vec_pretty(keys)
        .map_err(|_| SignerError::Content { path: path.display().to_string(), expected: "a list of public keys" })?;
    Ok(file::write(path, &list, Access::Public)?)
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("cluster", &self.public.cluster)
            .field("kid", &self.kid)
            .field("key", &"[redacted]")
            .finish()
    }
}
