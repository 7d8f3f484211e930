//! Tokens of an external issuer that must not pass, each with the text that its holder reads; and those that must.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm as Signs, EncodingKey};
use partita_identity::token::{Algorithm, Issuer, IssuerConfig, IssuerError, LIFETIME_MAX, Mapping, Role, TokenError};
use partita_types::{TenantName, Timestamp};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, PublicKeyData, RsaKeySize};
use serde_json::{Value, json};

const NOW: u64 = 1_800_000_000;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The two numbers of an RSA public key in DER (PKCS#1).
fn rsa_numbers(der: &[u8]) -> (Vec<u8>, Vec<u8>) {
    fn length(bytes: &[u8]) -> (usize, &[u8]) {
        match bytes[0] {
            short @ 0..0x80 => (usize::from(short), &bytes[1..]),
            long => {
                let count = usize::from(long & 0x7f);
                (bytes[1..=count].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), &bytes[1 + count..])
            }
        }
    }
    fn number(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
        assert_eq!(bytes[0], 2, "an integer");
        let (size, rest) = length(&bytes[1..]);
        (rest[..size].iter().copied().skip_while(|byte| *byte == 0).collect(), &rest[size..])
    }
    let (_, body) = length(&der[1..]);
    let (modulus, rest) = number(body);
    (modulus, number(rest).0)
}

/// An identity provider with a key of each kind, and what a cluster believes of it.
struct Provider {
    directory: tempfile::TempDir,
    rsa: KeyPair,
    ec: KeyPair,
}

impl Provider {
    fn new() -> Self {
        let provider = Self {
            directory: tempfile::tempdir().expect("a directory"),
            rsa: KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key"),
            ec: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key"),
        };
        provider.publish(&provider.keys());
        provider
    }

    fn rsa_key(&self) -> Value {
        let (n, e) = rsa_numbers(self.rsa.der_bytes());
        json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": "rsa", "n": encode(&n), "e": encode(&e) })
    }

    fn ec_key(&self) -> Value {
        let point = self.ec.der_bytes();
        json!({ "kty": "EC", "crv": "P-256", "kid": "ec", "x": encode(&point[1..33]), "y": encode(&point[33..65]) })
    }

    fn keys(&self) -> Value {
        let secret = json!({ "kty": "oct", "kid": "secret", "k": encode(b"0123456789abcdef0123456789abcdef") });
        let other = json!({ "kty": "RSA", "use": "enc", "kid": "enc", "n": "AQAB", "e": "AQAB" });
        json!({ "keys": [self.rsa_key(), self.ec_key(), secret, other] })
    }

    fn publish(&self, keys: &Value) {
        std::fs::write(self.path(), keys.to_string()).expect("a file");
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("jwks.json")
    }

    fn load(&self, algorithms: &[Algorithm]) -> Result<Issuer, IssuerError> {
        Issuer::load(config(&self.path(), algorithms))
    }

    fn sign(&self, kid: &str, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let (key, algorithm) = match kid {
            "ec" => (EncodingKey::from_ec_der(&self.ec.serialize_der()), Signs::ES256),
            _ => (EncodingKey::from_rsa_pem(self.rsa.serialize_pem().as_bytes()).expect("a key"), Signs::RS256),
        };
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).expect("a signature");
        format!("{message}.{signature}")
    }

    /// A token with the RSA key.
    fn token(&self, claims: &Value) -> String {
        self.sign("rsa", &header("RS256", "rsa").to_string(), &claims.to_string())
    }
}

fn config(jwks: &Path, algorithms: &[Algorithm]) -> IssuerConfig {
    let team = TenantName::new("team").expect("a tenant name");
    let roles = [("users", Role::Developer), ("people", Role::Developer), ("bosses", Role::Admin)];
    IssuerConfig {
        issuer: "https://login.example.org/".to_owned(),
        audience: "partita".to_owned(),
        jwks: jwks.to_owned(),
        algorithms: algorithms.to_vec(),
        tenants: Mapping { claim: "department".to_owned(), values: BTreeMap::from([("Data".to_owned(), team)]) },
        roles: Mapping {
            claim: "groups".to_owned(),
            values: roles.map(|(name, role)| (name.to_owned(), role)).into_iter().collect(),
        },
    }
}

fn header(alg: &str, kid: &str) -> Value {
    json!({ "alg": alg, "typ": "JWT", "kid": kid })
}

fn claims() -> Value {
    json!({
        "iss": "https://login.example.org/", "aud": "partita", "sub": "ann", "jti": "t-1", "iat": NOW, "nbf": NOW,
        "exp": NOW + 600, "department": "Data", "groups": ["users", "others"], "email": "ann@example.org"
    })
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    object[name] = value;
    object
}

fn without(mut object: Value, name: &str) -> Value {
    object.as_object_mut().expect("an object").remove(name);
    object
}

#[test]
fn a_good_token_means_what_the_mapping_says() {
    let provider = Provider::new();
    let issuer = provider.load(&[Algorithm::Rs256, Algorithm::Es256]).expect("an issuer");
    let ec = provider.sign("ec", &header("ES256", "ec").to_string(), &claims().to_string());
    for token in [
        provider.token(&claims()),
        ec,
        provider.token(&with(claims(), "aud", json!(["other", "partita"]))),
        provider.token(&without(claims(), "nbf")),
        provider.token(&with(claims(), "groups", json!("users"))),
        provider.token(&with(claims(), "groups", json!(["people", "users"]))),
    ] {
        let claims = issuer.verify(&token, at(NOW + 5)).expect("a good token");
        let said = (claims.sub.as_str(), claims.tenant.as_str(), claims.role, claims.jti.as_str());
        assert_eq!(said, ("ann", "team", Role::Developer, "t-1"));
        assert_eq!((claims.iss.as_str(), claims.exp), ("https://login.example.org/", at(NOW + 600)));
    }
}

/// Tokens whose header or signature is wrong.
fn forged(provider: &Provider) -> Vec<(&'static str, String, &'static str)> {
    let body = claims().to_string();
    let rsa = |header: Value| provider.sign("rsa", &header.to_string(), &body);
    let good = provider.token(&claims());
    let (message, _) = good.rsplit_once('.').expect("a token");
    let unsigned = format!("{}.{}.", encode(header("none", "rsa").to_string().as_bytes()), encode(body.as_bytes()));
    // The public key as the secret of a symmetric algorithm: as it stands in files, and as in the JWKS.
    let hmac = |secret: &[u8]| {
        let message = format!("{}.{}", encode(header("HS256", "rsa").to_string().as_bytes()), encode(body.as_bytes()));
        let key = EncodingKey::from_secret(secret);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Signs::HS256).expect("a signature");
        format!("{message}.{signature}")
    };
    let own = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key");
    let stranger = Provider {
        directory: tempfile::tempdir().expect("a directory"),
        rsa: own,
        ec: KeyPair::generate().expect("a key"),
    };
    let injected = with(header("RS256", "rsa"), "jwk", stranger.rsa_key());
    let brings = |name: &str| rsa(with(header("RS256", "rsa"), name, json!("https://evil.example.org/keys")));
    let other = with(claims(), "sub", json!("eve"));
    vec![
        ("alg none", unsigned, "\"none\""),
        ("HS256 with the public key", hmac(provider.rsa.public_key_pem().as_bytes()), "\"HS256\""),
        ("HS256 with the key of the set", hmac(provider.rsa.der_bytes()), "\"HS256\""),
        ("RS512", rsa(header("RS512", "rsa")), "\"RS512\""),
        ("another key's algorithm", provider.sign("ec", &header("RS256", "ec").to_string(), &body), "\"RS256\""),
        ("no kid", rsa(without(header("RS256", "rsa"), "kid")), "kid"),
        ("a symmetric key of the set", rsa(header("RS256", "secret")), "does not have"),
        ("a key for encryption", rsa(header("RS256", "enc")), "does not have"),
        ("a path for a kid", rsa(header("RS256", "../../etc/passwd")), "does not have"),
        ("a kid that is no text", rsa(with(header("RS256", "rsa"), "kid", json!(["rsa"]))), "kid"),
        ("a key of its own", stranger.sign("rsa", &injected.to_string(), &body), "\"jwk\""),
        ("jku", brings("jku"), "\"jku\""),
        ("x5u", brings("x5u"), "\"x5u\""),
        ("x5c", brings("x5c"), "\"x5c\""),
        ("crit", brings("crit"), "\"crit\""),
        ("a stranger's signature", stranger.token(&claims()), "signature"),
        ("no signature", format!("{message}."), "signature"),
        (
            "changed claims",
            format!(
                "{}.{}.{}",
                good.split('.').next().expect("a header"),
                encode(other.to_string().as_bytes()),
                good.rsplit('.').next().expect("a signature")
            ),
            "signature",
        ),
        ("alg twice", provider.sign("rsa", "{\"alg\":\"RS256\",\"kid\":\"rsa\",\"alg\":\"none\"}", &body), "twice"),
    ]
}

/// Tokens with the right signature whose claims are wrong.
fn misleading(provider: &Provider) -> Vec<(String, String, &'static str)> {
    let token = |claims: Value| provider.token(&claims);
    let mut tokens: Vec<(String, String, &'static str)> = ["iss", "aud", "sub", "jti", "iat", "exp"]
        .map(|claim| (format!("no {claim}"), token(without(claims(), claim)), "lacks the claim"))
        .to_vec();
    let twice = claims().to_string().replacen('{', "{\"sub\":\"root\",", 1);
    tokens.push(("sub twice".to_owned(), provider.sign("rsa", &header("RS256", "rsa").to_string(), &twice), "twice"));
    let day = LIFETIME_MAX.as_secs();
    for (name, value, told) in [
        ("iss", json!("https://evil.example.org/"), "issued by"),
        ("iss", json!("partita/test"), "issued by"),
        ("aud", json!("another"), "meant for"),
        ("aud", json!(["another"]), "meant for"),
        ("aud", json!({ "partita": true }), "\"aud\""),
        ("sub", json!(""), "\"sub\""),
        ("sub", json!("a\nb"), "\"sub\""),
        ("sub", json!("x".repeat(129)), "\"sub\""),
        ("jti", json!("x".repeat(65)), "\"jti\""),
        ("exp", json!(u64::MAX), "\"exp\""),
        ("exp", json!(NOW + day + 1), "the limit is"),
        ("exp", json!(1e30), "\"exp\""),
        ("exp", json!((NOW + 600).to_string()), "\"exp\""),
        ("exp", json!(-1), "\"exp\""),
        ("exp", json!(NOW - 10), "lives"),
        ("iat", json!(NOW + 60), "future"),
        ("nbf", json!(NOW + 60), "valid only in"),
        ("nbf", json!("now"), "\"nbf\""),
        ("department", json!("Sales"), "tenant"),
        ("department", json!(["Data", "Sales", 7]), "tenant"),
        ("groups", json!([]), "role"),
        ("groups", json!(["others"]), "role"),
        ("groups", json!(["users", "bosses"]), "several"),
        ("groups", json!({ "users": true }), "role"),
    ] {
        tokens.push((format!("{name} {value}"), token(with(claims(), name, value.clone())), told));
    }
    tokens.push(("no department".to_owned(), token(without(claims(), "department")), "tenant"));
    tokens.push(("no groups".to_owned(), token(without(claims(), "groups")), "role"));
    tokens.push(("large".to_owned(), token(with(claims(), "padding", json!("x".repeat(8_000)))), "limit is 4096"));
    tokens
}

#[test]
fn no_forged_or_misleading_token_of_an_issuer_passes() {
    let provider = Provider::new();
    let issuer = provider.load(&[Algorithm::Rs256, Algorithm::Es256]).expect("an issuer");
    let forged = forged(&provider).into_iter().map(|(name, token, told)| (name.to_owned(), token, told));
    for (name, token, told) in forged.chain(misleading(&provider)) {
        let refused = issuer.verify(&token, at(NOW)).expect_err(&name);
        assert!(refused.to_string().contains(told), "{name}: {refused}");
        assert!(!refused.to_string().contains(&token), "{name}: the token is in the message");
    }
    let expired = issuer.verify(&provider.token(&claims()), at(NOW + 700)).expect_err("it expired");
    assert!(matches!(expired, TokenError::Expired { .. }), "{expired}");
}

#[test]
fn an_algorithm_that_is_not_allowed_is_not_used_whatever_keys_there_are() {
    let provider = Provider::new();
    let issuer = provider.load(&[Algorithm::Es256]).expect("an issuer");
    let refused = issuer.verify(&provider.token(&claims()), at(NOW)).expect_err("RS256 is not allowed");
    assert!(matches!(refused, TokenError::UnknownKey { .. }), "{refused}");
}

#[test]
fn key_sets_that_cannot_be_trusted_are_refused_with_the_reason() {
    let provider = Provider::new();
    let (rsa, ec) = (provider.rsa_key(), provider.ec_key());
    let short = with(rsa.clone(), "n", json!(encode(&[0xff; 128])));
    for (keys, told) in [
        (json!({ "keys": [rsa, rsa] }), "two keys \"rsa\""),
        (json!({ "keys": [short] }), "1024 bits"),
        (json!({ "keys": [without(rsa.clone(), "e")] }), "lacks \"e\""),
        (json!({ "keys": [without(rsa.clone(), "kid")] }), "no key with an id for RS256"),
        (json!({ "keys": [ec] }), "no key with an id for RS256"),
        (json!({ "keys": vec![rsa.clone(); 33] }), "33 keys"),
        (json!([]), "not a JWKS"),
    ] {
        provider.publish(&keys);
        let refused = provider.load(&[Algorithm::Rs256]).expect_err(told);
        assert!(refused.to_string().contains(told), "{refused}");
    }
}
