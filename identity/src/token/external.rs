//! Tokens of the company's identity provider: checked with the public keys of a JWKS file (RFC 7517) and mapped to a
//! tenant and a role.
//!
//! The algorithm is that of the key, which must be among those that the configuration allows for the issuer; a token's
//! header only may not contradict it (RFC 8725, section 3.1). The header cannot bring or name a key of its own. Other
//! claims than those that are used are allowed, because providers add many.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use partita_types::{TenantName, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use super::strict::{Members, shorten};
use super::verify::{Parts, check_times, identifier, optional_seconds, seconds, string, subject};
use super::{Claims, Role, TokenError};
use crate::file::{self, FileError};

/// Most keys of an issuer.
const KEYS_MAX: usize = 32;
/// Shortest RSA key, in bits (NIST SP 800-131A).
const RSA_BITS_MIN: usize = 2048;

/// A signature algorithm that an issuer may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA over P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
}

impl Algorithm {
    /// Its name in tokens and keys.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }

    const fn library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
        }
    }
}

/// A claim, and what its values mean. A claim may hold one text or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping<T> {
    /// The name of the claim.
    pub claim: String,
    /// What its values mean; values that are not here mean nothing.
    pub values: BTreeMap<String, T>,
}

/// What is believed of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerConfig {
    /// Its `iss`.
    pub issuer: String,
    /// The `aud` that means this cluster.
    pub audience: String,
    /// The file with its public keys.
    pub jwks: PathBuf,
    /// What it may sign with.
    pub algorithms: Vec<Algorithm>,
    /// Which tenant a token speaks for.
    pub tenants: Mapping<TenantName>,
    /// Which role its holder has.
    pub roles: Mapping<Role>,
}

/// Why an issuer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// Its keys cannot be read.
    #[error("the keys of issuer {issuer:?} are not usable")]
    File {
        /// The issuer.
        issuer: String,
        /// Why not.
        #[source]
        source: FileError,
    },
    /// Its keys are not what they must be.
    #[error("{path} of issuer {issuer:?}: {what}")]
    Keys {
        /// The issuer.
        issuer: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Jwk>,
}

/// A key as RFC 7517 and 7518 write it. What else it says is not needed.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    /// The key and its algorithm; `None` if it is meant for something else than signatures that are known here.
    fn decode(&self) -> Result<Option<(Algorithm, DecodingKey)>, String> {
        if self.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return Ok(None);
        }
        let algorithm = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => Algorithm::Rs256,
            ("EC", Some("P-256")) => Algorithm::Es256,
            _ => return Ok(None),
        };
        if self.alg.as_deref().is_some_and(|alg| alg != algorithm.as_str()) {
            return Ok(None);
        }
        let part = |name: &str, value: &Option<String>| value.clone().ok_or_else(|| format!("a key lacks {name:?}"));
        let key = match algorithm {
            Algorithm::Rs256 => {
                let (n, e) = (part("n", &self.n)?, part("e", &self.e)?);
                let modulus = URL_SAFE_NO_PAD.decode(&n).map_err(|_| "a key's \"n\" is not base64url".to_owned())?;
                let bits = modulus.iter().skip_while(|byte| **byte == 0).count() * 8;
                if bits < RSA_BITS_MIN {
                    return Err(format!("an RSA key has {bits} bits, {RSA_BITS_MIN} are the least"));
                }
                DecodingKey::from_rsa_components(&n, &e)
            }
            Algorithm::Es256 => DecodingKey::from_ec_components(&part("x", &self.x)?, &part("y", &self.y)?),
        };
        key.map(|key| Some((algorithm, key))).map_err(|_| "a key cannot be decoded".to_owned())
    }
}

/// Checks the tokens of one issuer.
pub struct Issuer {
    config: IssuerConfig,
    keys: BTreeMap<String, (Algorithm, DecodingKey)>,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("config", &self.config).field("keys", &self.keys.keys()).finish()
    }
}

impl Issuer {
    /// Reads the keys of an issuer. Keys for other purposes, or that it may not sign with, are passed over.
    ///
    /// # Errors
    /// If the file is not a JWKS, or has no key that can be used.
    pub fn load(config: IssuerConfig) -> Result<Self, IssuerError> {
        let failed = |what: String| {
            let (issuer, path) = (config.issuer.clone(), config.jwks.clone());
            IssuerError::Keys { issuer, path, what }
        };
        let bytes =
            file::read(&config.jwks).map_err(|source| IssuerError::File { issuer: config.issuer.clone(), source })?;
        let set: KeySet = serde_json::from_slice(&bytes).map_err(|error| failed(format!("not a JWKS: {error}")))?;
        if set.keys.len() > KEYS_MAX {
            return Err(failed(format!("it has {} keys, {KEYS_MAX} are the most", set.keys.len())));
        }
        let mut keys = BTreeMap::new();
        for jwk in &set.keys {
            let Some((algorithm, key)) = jwk.decode().map_err(failed)? else { continue };
            let Some(kid) = jwk.kid.clone().filter(|_| config.algorithms.contains(&algorithm)) else { continue };
            if keys.insert(kid.clone(), (algorithm, key)).is_some() {
                return Err(failed(format!("it has two keys {:?}", shorten(&kid))));
            }
        }
        if keys.is_empty() {
            let allowed: Vec<&str> = config.algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
            return Err(failed(format!("it has no key with an id for {}", allowed.join(" or "))));
        }
        Ok(Self { config, keys })
    }

    /// Its `iss`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.issuer
    }

    /// The file with its keys.
    #[must_use]
    pub fn jwks(&self) -> &Path {
        &self.config.jwks
    }

    /// Checks a token at the time `now`.
    ///
    /// # Errors
    /// If anything that is demanded of it is wrong.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        let parts = Parts::split(token)?;
        let mut claims = self.signed(&parts)?;
        let iss = string(&mut claims, "iss")?;
        if iss != self.config.issuer {
            return Err(TokenError::Issuer { expected: self.config.issuer.clone(), found: shorten(&iss) });
        }
        let aud = self.audience(claims.take("aud"))?;
        let (iat, exp) = (seconds(&mut claims, "iat")?, seconds(&mut claims, "exp")?);
        let nbf = optional_seconds(&mut claims, "nbf")?.unwrap_or(iat);
        check_times(iat, nbf, exp, now)?;
        let (sub, jti) = (subject(&mut claims)?, identifier(&mut claims)?);
        let tenant = self.config.tenants.of("tenant", &claims)?.clone();
        let role = *self.config.roles.of("role", &claims)?;
        Ok(Claims { sub, tenant, role, jti, iat, nbf, exp, iss, aud })
    }

    /// The claims of a token whose signature is right.
    fn signed(&self, parts: &Parts<'_>) -> Result<Members, TokenError> {
        let mut header = Members::decode("header", parts.header)?;
        let Some(Value::String(alg)) = header.take("alg") else {
            return Err(TokenError::HeaderValue { name: "alg", expected: "the name of an algorithm" });
        };
        let Some(Value::String(kid)) = header.take("kid") else {
            return Err(TokenError::HeaderValue { name: "kid", expected: "the id of a key" });
        };
        let _ = (header.take("typ"), header.take("x5t"));
        if let Some((name, _)) = header.0.first() {
            return Err(TokenError::HeaderField { name: shorten(name) });
        }
        let (algorithm, key) = self.keys.get(&kid).ok_or_else(|| TokenError::UnknownKey { kid: shorten(&kid) })?;
        if alg != algorithm.as_str() {
            return Err(TokenError::KeyAlgorithm { expected: algorithm.as_str(), found: shorten(&alg) });
        }
        match jsonwebtoken::crypto::verify(parts.signature, parts.message.as_bytes(), key, algorithm.library()) {
            Ok(true) => Members::decode("claims", parts.claims),
            Ok(false) | Err(_) => Err(TokenError::Signature),
        }
    }

    /// One text, or a list with ours in it.
    fn audience(&self, value: Option<Value>) -> Result<String, TokenError> {
        let expected = &self.config.audience;
        let value = value.ok_or(TokenError::MissingClaim { claim: "aud" })?;
        let found =
            texts(&value).ok_or(TokenError::ClaimValue { claim: "aud", expected: "a text or a list of them" })?;
        if found.iter().any(|found| found == expected) {
            return Ok(expected.clone());
        }
        let found = shorten(&found.join(", "));
        Err(TokenError::Audience { expected: expected.clone(), found })
    }
}

impl<T: PartialEq> Mapping<T> {
    /// What the claim means. It must mean exactly one thing.
    fn of(&self, what: &'static str, claims: &Members) -> Result<&T, TokenError> {
        let value = claims.0.iter().find(|(name, _)| *name == self.claim).map(|(_, value)| value);
        let found = value.and_then(texts).unwrap_or_default();
        let mut meant = found.iter().filter_map(|text| self.values.get(*text));
        match (meant.next(), meant.next()) {
            (Some(first), None) => Ok(first),
            (Some(first), Some(second)) if first == second && meant.all(|next| next == first) => Ok(first),
            (None, _) => Err(TokenError::Unmapped { what, claim: shorten(&self.claim), how: "nothing" }),
            (Some(_), Some(_)) => {
                Err(TokenError::Unmapped { what, claim: shorten(&self.claim), how: "several things" })
            }
        }
    }
}

/// A text, or a list of them.
fn texts(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(list) => list.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// The issuer that a token names, without checking anything: it says only whose keys to check it with.
#[must_use]
pub fn claimed_issuer(token: &str) -> Option<String> {
    let parts = Parts::split(token).ok()?;
    match Members::decode("claims", parts.claims).ok()?.take("iss") {
        Some(Value::String(issuer)) => Some(issuer),
        _ => None,
    }
}
