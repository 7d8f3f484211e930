//! Checks of tokens, in an order that takes the least trust: size, form, header, key, signature, then claims.
//!
//! The signature is checked by `jsonwebtoken` with the algorithm written here; everything else is checked by us,
//! because that library reads its own clock, takes a missing claim for a good one, and lets types slide.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey};
use partita_types::{HostName, TenantName, Timestamp};
use serde_json::Value;

use super::signer::{KEYS_FILE, PublicKeys};
use super::strict::{Members, shorten};
use super::{
    ACCESS, Claims, JOIN, JoinClaims, LEEWAY, LIFETIME_MAX, Role, SignerError, TOKEN_MAX, TokenError, audience,
    is_subject,
};
use crate::file;

/// Checks tokens with the cluster's public keys.
#[derive(Clone)]
pub struct Verifier {
    cluster: String,
    /// By their ids, with the time from which on they count no more, if there is one.
    keys: BTreeMap<String, (DecodingKey, Option<Timestamp>)>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("cluster", &self.cluster).field("keys", &self.keys.keys()).finish()
    }
}

impl Verifier {
    pub(crate) fn new(public: &PublicKeys) -> Option<Self> {
        let keys = public
            .keys
            .iter()
            .map(|key| {
                let until = key.until_s.map(|until| Timestamp::from_micros(until.saturating_mul(1_000_000)));
                Some((key.kid.clone(), (DecodingKey::from_ed_der(&key.bytes()?), until)))
            })
            .collect::<Option<_>>()?;
        Some(Self { cluster: public.cluster.clone(), keys })
    }

    /// Reads the public keys that [`super::Signer::save`] wrote to `directory`; the private key is not needed.
    ///
    /// # Errors
    /// If the file is missing or is not a list of keys.
    pub fn load(directory: &Path) -> Result<Self, SignerError> {
        let path = directory.join(KEYS_FILE);
        PublicKeys::parse(&file::read(&path)?)
            .and_then(|public| Self::new(&public))
            .ok_or_else(|| SignerError::Content { path: path.display().to_string(), expected: "a list of public keys" })
    }

    /// Checks an access token at the time `now`.
    ///
    /// # Errors
    /// If anything at all is wrong with it.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        let mut claims = self.signed(token, now)?;
        let common = self.common(&mut claims, ACCESS, now)?;
        let tenant = string(&mut claims, "tenant")?;
        let tenant = TenantName::new(&tenant)
            .map_err(|_| TokenError::ClaimValue { claim: "tenant", expected: "a tenant name" })?;
        let role = string(&mut claims, "role")?
            .parse::<Role>()
            .map_err(|_| TokenError::ClaimValue { claim: "role", expected: "a role" })?;
        nothing_else(&claims)?;
        let Common { sub, jti, iat, nbf, exp, iss, aud } = common;
        Ok(Claims { sub, tenant, role, jti, iat, nbf, exp, iss, aud })
    }

    /// Checks a join token at the time `now`. It counts once: the caller remembers its id.
    ///
    /// # Errors
    /// If anything at all is wrong with it.
    pub fn verify_join(&self, token: &str, now: Timestamp) -> Result<JoinClaims, TokenError> {
        let mut claims = self.signed(token, now)?;
        let common = self.common(&mut claims, JOIN, now)?;
        nothing_else(&claims)?;
        let host =
            HostName::new(&common.sub).map_err(|_| TokenError::ClaimValue { claim: "sub", expected: "a host name" })?;
        Ok(JoinClaims { host, jti: common.jti, exp: common.exp, iat: common.iat })
    }

    /// The claims of a token whose signature is right.
    fn signed(&self, token: &str, now: Timestamp) -> Result<Members, TokenError> {
        let parts = Parts::split(token)?;
        let kid = key_id(Members::decode("header", parts.header)?)?;
        let key = self.keys.get(&kid).filter(|(_, until)| until.is_none_or(|until| now < until));
        let (key, _) = key.ok_or_else(|| TokenError::UnknownKey { kid: shorten(&kid) })?;
        // The algorithm is ours, whatever the header says; `key_id` only made sure that they agree.
        match jsonwebtoken::crypto::verify(parts.signature, parts.message.as_bytes(), key, Algorithm::EdDSA) {
            Ok(true) => Members::decode("claims", parts.claims),
            Ok(false) | Err(_) => Err(TokenError::Signature),
        }
    }

    fn common(&self, claims: &mut Members, kind: &str, now: Timestamp) -> Result<Common, TokenError> {
        let iss = string(claims, "iss")?;
        let expected = audience(ACCESS, &self.cluster);
        if iss != expected {
            return Err(TokenError::Issuer { expected, found: shorten(&iss) });
        }
        let aud = string(claims, "aud")?;
        let expected = audience(kind, &self.cluster);
        if aud != expected {
            return Err(TokenError::Audience { expected, found: shorten(&aud) });
        }
        let (iat, nbf, exp) = (seconds(claims, "iat")?, seconds(claims, "nbf")?, seconds(claims, "exp")?);
        check_times(iat, nbf, exp, now)?;
        let (sub, jti) = (subject(claims)?, identifier(claims)?);
        Ok(Common { sub, jti, iat, nbf, exp, iss, aud })
    }
}

/// Shows header and claims of a token as JSON, **without checking anything**. For people who debug, never for a
/// decision.
///
/// # Errors
/// If it is not a JWT at all.
pub fn inspect(token: &str) -> Result<(Value, Value), TokenError> {
    let parts = Parts::split(token)?;
    let header = Members::decode("header", parts.header)?;
    let claims = Members::decode("claims", parts.claims)?;
    let object = |members: Members| Value::Object(members.0.into_iter().collect());
    Ok((object(header), object(claims)))
}

/// The three parts of a token, still encoded.
pub(super) struct Parts<'a> {
    pub(super) header: &'a str,
    pub(super) claims: &'a str,
    pub(super) signature: &'a str,
    /// What was signed: header and claims with the dot between them.
    pub(super) message: &'a str,
}

impl<'a> Parts<'a> {
    pub(super) fn split(token: &'a str) -> Result<Self, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Empty);
        }
        if token.len() > TOKEN_MAX {
            return Err(TokenError::TooLong { size: token.len() });
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Form)?;
        let (header, claims) = message.split_once('.').ok_or(TokenError::Form)?;
        if claims.contains('.') || header.is_empty() || claims.is_empty() {
            return Err(TokenError::Form);
        }
        Ok(Self { header, claims, signature, message })
    }
}

/// What access tokens and join tokens share.
struct Common {
    sub: String,
    jti: String,
    iat: Timestamp,
    nbf: Timestamp,
    exp: Timestamp,
    iss: String,
    aud: String,
}

/// The key id of a header that has nothing in it that we do not understand.
fn key_id(mut header: Members) -> Result<String, TokenError> {
    match header.take("alg") {
        Some(Value::String(alg)) if alg == "EdDSA" => {}
        Some(Value::String(alg)) => return Err(TokenError::Algorithm { found: shorten(&alg) }),
        _ => return Err(TokenError::HeaderValue { name: "alg", expected: "the text \"EdDSA\"" }),
    }
    match header.take("typ") {
        None => {}
        Some(Value::String(typ)) if typ.eq_ignore_ascii_case("JWT") => {}
        Some(_) => return Err(TokenError::HeaderValue { name: "typ", expected: "the text \"JWT\"" }),
    }
    let kid = match header.take("kid") {
        Some(Value::String(kid)) => kid,
        _ => return Err(TokenError::HeaderValue { name: "kid", expected: "the id of a key" }),
    };
    match header.0.first() {
        Some((name, _)) => Err(TokenError::HeaderField { name: shorten(name) }),
        None => Ok(kid),
    }
}

/// Who holds the token.
pub(super) fn subject(claims: &mut Members) -> Result<String, TokenError> {
    let sub = string(claims, "sub")?;
    if is_subject(&sub) {
        return Ok(sub);
    }
    Err(TokenError::ClaimValue { claim: "sub", expected: "1 to 128 printable characters" })
}

/// The id of the token.
pub(super) fn identifier(claims: &mut Members) -> Result<String, TokenError> {
    let jti = string(claims, "jti")?;
    if (1..=64).contains(&jti.len()) && jti.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(jti);
    }
    Err(TokenError::ClaimValue { claim: "jti", expected: "1 to 64 printable ASCII characters" })
}

/// A time that need not be there.
pub(super) fn optional_seconds(claims: &mut Members, claim: &'static str) -> Result<Option<Timestamp>, TokenError> {
    match seconds(claims, claim) {
        Err(TokenError::MissingClaim { .. }) => Ok(None),
        other => other.map(Some),
    }
}

pub(super) fn string(claims: &mut Members, claim: &'static str) -> Result<String, TokenError> {
    match claims.take(claim) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(TokenError::ClaimValue { claim, expected: "a string" }),
        None => Err(TokenError::MissingClaim { claim }),
    }
}

pub(super) fn seconds(claims: &mut Members, claim: &'static str) -> Result<Timestamp, TokenError> {
    let expected = "a whole number of seconds since 1970";
    let value = claims.take(claim).ok_or(TokenError::MissingClaim { claim })?;
    value
        .as_u64()
        .and_then(|seconds| seconds.checked_mul(1_000_000))
        .map(Timestamp::from_micros)
        .ok_or(TokenError::ClaimValue { claim, expected })
}

fn nothing_else(claims: &Members) -> Result<(), TokenError> {
    match claims.0.first() {
        Some((name, _)) => Err(TokenError::UnknownClaim { claim: shorten(name) }),
        None => Ok(()),
    }
}

pub(super) fn check_times(iat: Timestamp, nbf: Timestamp, exp: Timestamp, now: Timestamp) -> Result<(), TokenError> {
    let lifetime = exp.since(iat);
    if lifetime > LIFETIME_MAX || lifetime == Duration::ZERO {
        return Err(TokenError::Lifetime { lifetime, limit: LIFETIME_MAX });
    }
    if exp.after(LEEWAY) <= now {
        return Err(TokenError::Expired { since: now.since(exp) });
    }
    if nbf > now.after(LEEWAY) {
        return Err(TokenError::NotYetValid { wait: nbf.since(now) });
    }
    if iat > now.after(LEEWAY) {
        return Err(TokenError::IssuedInFuture { ahead: iat.since(now) });
    }
    Ok(())
}
