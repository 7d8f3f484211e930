//! Tokens that must not pass, each with the text that its holder reads; and those that must.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use partita_identity::token::{
    LEEWAY, LIFETIME_MAX, OldKeys, Role, Signer, SignerError, Token, TokenError, Verifier, inspect,
};
use partita_types::{HostName, TenantName, Timestamp};
use serde_json::{Value, json};

const NOW: u64 = 1_800_000_000;
const HOUR: Duration = Duration::from_secs(3600);

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn acme() -> TenantName {
    TenantName::new("acme").expect("a tenant name")
}

/// The cluster's signer, with its private key in hand, so that tokens can be forged that only a broken or foreign
/// issuer would make.
struct Forge {
    signer: Signer,
    verifier: Verifier,
    key: EncodingKey,
    kid: String,
    public: Vec<u8>,
}

impl Forge {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let signer = Signer::create("lab").expect("a signer");
        signer.save(directory.path()).expect("saved keys");
        let pem = std::fs::read(directory.path().join("signing.key")).expect("a key");
        let list: Value =
            serde_json::from_slice(&std::fs::read(directory.path().join("keys.json")).expect("a list")).expect("JSON");
        Self {
            verifier: signer.verifier(),
            signer,
            key: EncodingKey::from_ed_pem(&pem).expect("an Ed25519 key"),
            kid: list["keys"][0]["kid"].as_str().expect("a key id").to_owned(),
            public: URL_SAFE_NO_PAD.decode(list["keys"][0]["x"].as_str().expect("a key")).expect("base64url"),
        }
    }

    fn header(&self) -> Value {
        json!({ "alg": "EdDSA", "typ": "JWT", "kid": self.kid })
    }

    fn header_with(&self, name: &str, value: Value) -> Value {
        with(self.header(), name, value)
    }

    /// Signs whatever is given with the right key.
    fn token(&self, header: &Value, claims: &Value) -> String {
        self.raw(&header.to_string(), &claims.to_string())
    }

    fn raw(&self, header: &str, claims: &str) -> String {
        sign(header, claims, &self.key, Algorithm::EdDSA)
    }

    /// A good header, and good claims but for one.
    fn claim(&self, name: &str, value: Value) -> String {
        self.token(&self.header(), &with(claims(), name, value))
    }

    fn without(&self, name: &str) -> String {
        self.token(&self.header(), &without(claims(), name))
    }
}

fn claims() -> Value {
    json!({
        "iss": "partita/lab", "aud": "partita/lab", "sub": "ada", "jti": "0123456789abcdef", "tenant": "acme",
        "role": "developer", "iat": NOW, "nbf": NOW, "exp": NOW + 3600,
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

fn sign(header: &str, claims: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).expect("a signature");
    format!("{message}.{signature}")
}

/// Every row is refused with exactly this text, which contains no part of the token.
fn assert_refused(forge: &Forge, rows: &[(&str, String, &str)]) {
    for (row, token, expected) in rows {
        let error = forge.verifier.verify(token, at(NOW)).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some(*expected), "{row}");
        let leaked = token.split('.').find(|part| part.len() >= 8 && expected.contains(part));
        assert_eq!(leaked, None, "{row}: the message repeats the token");
    }
}

#[test]
fn the_forge_makes_good_tokens_so_that_each_row_has_one_fault() {
    let forge = Forge::new();
    let claims = forge.verifier.verify(&forge.token(&forge.header(), &claims()), at(NOW)).unwrap();
    assert_eq!((&claims.tenant, claims.role, claims.sub.as_str()), (&acme(), Role::Developer, "ada"));
    assert_eq!(claims.lifetime(), HOUR);
    let typless = without(forge.header(), "typ");
    assert!(forge.verifier.verify(&forge.token(&typless, &self::claims()), at(NOW)).is_ok());
}

#[test]
fn what_is_not_a_jwt_is_refused() {
    let forge = Forge::new();
    let good = forge.token(&forge.header(), &claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    let form = "token is not a JWT: it must be three base64url parts joined by dots";
    assert_refused(
        &forge,
        &[
            ("nothing", String::new(), "token is empty"),
            ("garbage", "!!! not a token".to_owned(), form),
            ("one part", header.to_owned(), form),
            ("two parts", message.to_owned(), form),
            ("four parts", format!("{good}.{signature}"), form),
            ("five parts, as encrypted tokens have", format!("{good}.{header}.{header}"), form),
            ("an empty header", format!(".{payload}.{signature}"), form),
            ("empty claims", format!("{header}..{signature}"), form),
            ("padding", format!("{header}=.{payload}.{signature}"), form),
            ("a header that is not base64url", format!("a+/b.{payload}.{signature}"), form),
            ("a header that is not JSON", forge.raw("alg", "{}"), "the token's header must be a JSON object"),
            ("a header that is a list", forge.raw("[]", "{}"), "the token's header must be a JSON object"),
            (
                "claims that are a text",
                forge.raw(&forge.header().to_string(), "\"x\""),
                "the token's claims must be a JSON object",
            ),
            (
                "claims with text behind",
                forge.raw(&forge.header().to_string(), "{} {}"),
                "the token's claims must be a JSON object",
            ),
            (
                "claims nested too deep",
                forge.raw(&forge.header().to_string(), &format!("{{\"sub\":{}", "[".repeat(1000))),
                "the token's claims must be a JSON object",
            ),
            ("oversized", "a".repeat(4097), "token has 4097 bytes, the limit is 4096"),
            (
                "oversized but genuine",
                forge.claim("sub", json!("x".repeat(4000))),
                "token has 5706 bytes, the limit is 4096",
            ),
            ("white space around", format!(" {good}"), form),
        ],
    );
}

#[test]
fn only_our_algorithm_and_our_keys_count() {
    let forge = Forge::new();
    let good = claims().to_string();
    let header = |alg: &str| forge.header_with("alg", json!(alg)).to_string();
    let hmac = EncodingKey::from_secret(&forge.public);
    let other = Forge::new();
    let unsigned = |alg: &str| format!("{}.{}.", URL_SAFE_NO_PAD.encode(header(alg)), URL_SAFE_NO_PAD.encode(&good));
    let mut foreign_key = other.header();
    foreign_key["kid"] = json!(forge.kid);
    let signed = forge.token(&forge.header(), &claims());
    let swapped = {
        let admin = forge.claim("role", json!("admin"));
        format!("{}.{}", admin.rsplit_once('.').unwrap().0, signed.rsplit_once('.').unwrap().1)
    };
    assert_refused(
        &forge,
        &[
            ("alg none, unsigned", unsigned("none"), "token is signed with \"none\", only \"EdDSA\" is allowed"),
            ("alg NONE", unsigned("NONE"), "token is signed with \"NONE\", only \"EdDSA\" is allowed"),
            ("no signature", unsigned("EdDSA"), "token has a wrong signature"),
            (
                "HS256 with the public key",
                sign(&header("HS256"), &good, &hmac, Algorithm::HS256),
                "token is signed with \"HS256\", only \"EdDSA\" is allowed",
            ),
            (
                "HMAC that calls itself EdDSA",
                sign(&header("EdDSA"), &good, &hmac, Algorithm::HS256),
                "token has a wrong signature",
            ),
            ("RS256", forge.raw(&header("RS256"), &good), "token is signed with \"RS256\", only \"EdDSA\" is allowed"),
            (
                "alg in small letters",
                forge.raw(&header("eddsa"), &good),
                "token is signed with \"eddsa\", only \"EdDSA\" is allowed",
            ),
            (
                "alg missing",
                forge.token(&without(forge.header(), "alg"), &claims()),
                "token header field \"alg\" is not the text \"EdDSA\"",
            ),
            (
                "alg a list",
                forge.token(&forge.header_with("alg", json!(["EdDSA"])), &claims()),
                "token header field \"alg\" is not the text \"EdDSA\"",
            ),
            (
                "alg twice",
                forge.raw(&format!("{{\"alg\":\"none\",{}", &forge.header().to_string()[1..]), &good),
                "the token's header must not have \"alg\" twice",
            ),
            (
                "kid missing",
                forge.token(&without(forge.header(), "kid"), &claims()),
                "token header field \"kid\" is not the id of a key",
            ),
            (
                "kid a number",
                forge.token(&forge.header_with("kid", json!(1)), &claims()),
                "token header field \"kid\" is not the id of a key",
            ),
            (
                "kid a path",
                forge.token(&forge.header_with("kid", json!("../../etc/passwd")), &claims()),
                "token names the signing key \"../../etc/passwd\", which this cluster does not have",
            ),
            (
                "another cluster's key under our id",
                sign(&foreign_key.to_string(), &good, &other.key, Algorithm::EdDSA),
                "token has a wrong signature",
            ),
            (
                "an embedded key",
                forge.token(&forge.header_with("jwk", json!({"kty": "OKP"})), &claims()),
                "token header has the field \"jwk\", which is not allowed (only alg, kid and typ are)",
            ),
            (
                "a remote key",
                forge.token(&forge.header_with("jku", json!("https://evil.example")), &claims()),
                "token header has the field \"jku\", which is not allowed (only alg, kid and typ are)",
            ),
            (
                "a remote certificate",
                forge.token(&forge.header_with("x5u", json!("https://evil.example")), &claims()),
                "token header has the field \"x5u\", which is not allowed (only alg, kid and typ are)",
            ),
            (
                "something critical",
                forge.token(&forge.header_with("crit", json!(["exp"])), &claims()),
                "token header has the field \"crit\", which is not allowed (only alg, kid and typ are)",
            ),
            (
                "another type",
                forge.token(&forge.header_with("typ", json!("JWE")), &claims()),
                "token header field \"typ\" is not the text \"JWT\"",
            ),
            ("claims of one token, signature of another", swapped, "token has a wrong signature"),
        ],
    );
    let unknown = other.token(&other.header(), &claims());
    let expected = format!("token names the signing key {:?}, which this cluster does not have", other.kid);
    assert_eq!(forge.verifier.verify(&unknown, at(NOW)).unwrap_err().to_string(), expected);
}

#[test]
fn every_claim_must_be_there_and_be_right() {
    let forge = Forge::new();
    let seconds = |claim: &str| format!("token claim {claim:?} is not a whole number of seconds since 1970");
    let duplicate = format!("{{\"role\":\"viewer\",{}", &claims().to_string()[1..]);
    for claim in ["iss", "aud", "sub", "jti", "tenant", "role", "iat", "nbf", "exp"] {
        let expected = format!("token lacks the claim {claim:?}");
        assert_refused(&forge, &[("missing", forge.without(claim), &expected)]);
    }
    for claim in ["iss", "aud", "sub", "jti", "tenant", "role"] {
        let expected = format!("token claim {claim:?} is not a string");
        for wrong in [json!(7), json!(null), json!(["partita/lab"]), json!({})] {
            assert_refused(&forge, &[("wrong type", forge.claim(claim, wrong), &expected)]);
        }
    }
    for claim in ["iat", "nbf", "exp"] {
        let expected = seconds(claim);
        for wrong in
            [json!("1800000000"), json!(1.8e9), json!(-1), json!(1e30), json!(null), json!(u64::MAX), json!(true)]
        {
            assert_refused(&forge, &[("wrong type", forge.claim(claim, wrong), &expected)]);
        }
    }
    assert_refused(
        &forge,
        &[
            (
                "exp too large for JSON numbers",
                forge.raw(
                    &forge.header().to_string(),
                    &claims().to_string().replace("\"exp\":1800003600", "\"exp\":1e999"),
                ),
                "the token's claims must be a JSON object",
            ),
            (
                "another issuer",
                forge.claim("iss", json!("partita/other")),
                "token was issued by \"partita/other\", not by \"partita/lab\"",
            ),
            (
                "another audience",
                forge.claim("aud", json!("partita/other")),
                "token is meant for \"partita/other\", not for \"partita/lab\"",
            ),
            (
                "a join token",
                forge.claim("aud", json!("partita-join/lab")),
                "token is meant for \"partita-join/lab\", not for \"partita/lab\"",
            ),
            (
                "a long audience is cut",
                forge.claim("aud", json!("x".repeat(500))),
                &format!("token is meant for \"{}\", not for \"partita/lab\"", "x".repeat(40)),
            ),
            (
                "an empty subject",
                forge.claim("sub", json!("")),
                "token claim \"sub\" is not 1 to 128 printable characters",
            ),
            (
                "a subject that forges log lines",
                forge.claim("sub", json!("ada\nroot")),
                "token claim \"sub\" is not 1 to 128 printable characters",
            ),
            (
                "an empty id",
                forge.claim("jti", json!("")),
                "token claim \"jti\" is not 1 to 64 printable ASCII characters",
            ),
            (
                "an id with spaces",
                forge.claim("jti", json!("a b")),
                "token claim \"jti\" is not 1 to 64 printable ASCII characters",
            ),
            (
                "a tenant that is a path",
                forge.claim("tenant", json!("../acme")),
                "token claim \"tenant\" is not a tenant name",
            ),
            ("an unknown role", forge.claim("role", json!("root")), "token claim \"role\" is not a role"),
            ("a role in capitals", forge.claim("role", json!("ADMIN")), "token claim \"role\" is not a role"),
            (
                "a claim that might limit it",
                forge.claim("scope", json!("read")),
                "token has the claim \"scope\", which is not known",
            ),
            (
                "a role twice",
                forge.raw(&forge.header().to_string(), &duplicate),
                "the token's claims must not have \"role\" twice",
            ),
        ],
    );
}

#[test]
fn times_are_checked_against_the_given_clock_with_five_seconds_of_leeway() {
    let forge = Forge::new();
    let times = |iat: u64, nbf: u64, exp: u64| {
        let mut claims = claims();
        claims["iat"] = json!(iat);
        claims["nbf"] = json!(nbf);
        claims["exp"] = json!(exp);
        forge.token(&forge.header(), &claims)
    };
    assert_refused(
        &forge,
        &[
            ("expired", times(NOW - 3600, NOW - 3600, NOW - 185), "token expired 3 m 05 s ago"),
            ("expired, leeway over", times(NOW - 60, NOW - 60, NOW - 5), "token expired 5.0 s ago"),
            ("not yet valid", times(NOW, NOW + 60, NOW + 3600), "token is valid only in 1 m 00 s"),
            ("just not yet valid", times(NOW, NOW + 6, NOW + 3600), "token is valid only in 6.0 s"),
            ("from the future", times(NOW + 60, NOW, NOW + 3600), "token was issued 1 m 00 s in the future"),
            ("too long a life", times(NOW, NOW, NOW + 86_401), "token lives 24 h 00 m, the limit is 24 h 00 m"),
            ("for ever", times(NOW, NOW, 18_000_000_000_000), "token lives 4999500000 h 00 m, the limit is 24 h 00 m"),
            ("ends before it begins", times(NOW, NOW, NOW - 1), "token lives 0 µs, the limit is 24 h 00 m"),
        ],
    );
    for good in [times(NOW - 60, NOW - 60, NOW - 4), times(NOW + 5, NOW + 5, NOW + 60), times(NOW, NOW, NOW + 86_400)] {
        assert!(forge.verifier.verify(&good, at(NOW)).is_ok());
    }
    let good = forge.token(&forge.header(), &claims());
    for odd_clock in [0, u64::MAX] {
        assert!(forge.verifier.verify(&good, Timestamp::from_micros(odd_clock)).is_err());
    }
}

#[test]
fn a_replaced_key_verifies_until_its_last_token_has_expired() {
    let directory = tempfile::tempdir().expect("a directory");
    let old = Signer::create("lab").expect("a signer");
    old.save(directory.path()).expect("saved keys");
    let last = old.issue(&acme(), "ann", Role::Viewer, LIFETIME_MAX, at(NOW)).expect("a token");
    let fresh = old.rotate(directory.path(), OldKeys::Verify, at(NOW)).expect("a new key");
    assert_ne!(fresh.key_id(), old.key_id());
    let expires = at(NOW).after(LIFETIME_MAX + LEEWAY);
    let before = at(NOW + LIFETIME_MAX.as_secs());
    for verifier in [fresh.verifier(), Verifier::load(directory.path()).expect("keys")] {
        verifier.verify(last.expose(), before).expect("the last token of the old key");
        // Whoever has the old key cannot make tokens that live longer.
        let later = at(NOW + LIFETIME_MAX.as_secs() + 60);
        let forged = old.issue(&acme(), "eve", Role::Admin, HOUR, later).expect("a token");
        assert!(later > expires);
        let refused = verifier.verify(forged.expose(), later).unwrap_err();
        assert!(matches!(refused, TokenError::UnknownKey { .. }), "{refused}");
        let good = fresh.issue(&acme(), "ann", Role::Viewer, HOUR, later).expect("a token");
        verifier.verify(good.expose(), later).expect("a token of the new key");
    }
    let dropped = Signer::load(directory.path()).expect("keys").rotate(directory.path(), OldKeys::Drop, at(NOW));
    let dropped = dropped.expect("a new key").verifier();
    assert!(dropped.verify(last.expose(), at(NOW)).is_err());
}

#[test]
fn keys_that_verify_are_few_and_expired_ones_make_room() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut signer = Signer::create("lab").expect("a signer");
    signer.save(directory.path()).expect("saved keys");
    for _ in 1..16 {
        signer = signer.rotate(directory.path(), OldKeys::Verify, at(NOW)).expect("a new key");
    }
    let refused = signer.rotate(directory.path(), OldKeys::Verify, at(NOW)).unwrap_err();
    assert!(matches!(refused, SignerError::TooManyKeys { limit: 16 }), "{refused}");
    let later = at(NOW).after(LIFETIME_MAX + 10 * LEEWAY);
    signer.rotate(directory.path(), OldKeys::Verify, later).expect("a new key in the place of expired ones");
    signer.rotate(directory.path(), OldKeys::Drop, at(NOW)).expect("a new key in the place of all");
}

#[test]
fn issued_tokens_pass_until_they_expire_and_differ() {
    let forge = Forge::new();
    let issue = || forge.signer.issue(&acme(), "ada@example.org", Role::Admin, HOUR, at(NOW)).unwrap();
    let (first, second) = (issue(), issue());
    assert_ne!(first.expose(), second.expose(), "each token has an id of its own");
    let claims = forge.verifier.verify(first.expose(), at(NOW + 3599)).unwrap();
    assert_eq!((claims.role, claims.exp), (Role::Admin, at(NOW + 3600)));
    assert_eq!(
        forge.verifier.verify(first.expose(), at(NOW + 3700)),
        Err(TokenError::Expired { since: Duration::from_secs(100) })
    );
    assert!(claims.check_lifetime(HOUR).is_ok());
    assert_eq!(
        claims.check_lifetime(HOUR / 2).unwrap_err().to_string(),
        "token lives 1 h 00 m, the limit is 30 m 00 s"
    );
}

#[test]
fn join_tokens_and_access_tokens_cannot_stand_in_for_each_other() {
    let forge = Forge::new();
    let host = HostName::new("rack-1.a").unwrap();
    let join = forge.signer.issue_join(&host, HOUR, at(NOW)).unwrap();
    let claims = forge.verifier.verify_join(join.expose(), at(NOW)).unwrap();
    assert_eq!((claims.host, claims.exp), (host, at(NOW + 3600)));
    assert!(matches!(forge.verifier.verify(join.expose(), at(NOW)), Err(TokenError::Audience { .. })));
    let access = forge.signer.issue(&acme(), "rack-1.a", Role::Admin, HOUR, at(NOW)).unwrap();
    assert!(matches!(forge.verifier.verify_join(access.expose(), at(NOW)), Err(TokenError::Audience { .. })));
    assert!(matches!(forge.verifier.verify_join(join.expose(), at(NOW + 4000)), Err(TokenError::Expired { .. })));
    let dressed_up = forge.token(&forge.header(), &with(self::claims(), "aud", json!("partita-join/lab")));
    assert_eq!(
        forge.verifier.verify_join(&dressed_up, at(NOW)),
        Err(TokenError::UnknownClaim { claim: "role".to_owned() }),
    );
}

#[test]
fn what_would_be_refused_is_not_issued() {
    let signer = Signer::create("lab").unwrap();
    for lifetime in [Duration::ZERO, Duration::from_millis(900), LIFETIME_MAX + Duration::from_secs(1)] {
        let issued = signer.issue(&acme(), "ada", Role::Viewer, lifetime, at(NOW));
        assert!(matches!(issued, Err(SignerError::Lifetime { .. })), "{lifetime:?} was accepted");
    }
    for subject in ["", "a\nb", &"x".repeat(129)] {
        let issued = signer.issue(&acme(), subject, Role::Viewer, HOUR, at(NOW));
        assert!(matches!(issued, Err(SignerError::Subject { .. })), "{subject:?} was accepted");
    }
    assert!(matches!(Signer::create("Not A Cluster"), Err(SignerError::Cluster(_))));
}

#[test]
fn keys_survive_a_restart_and_the_private_one_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let signer = Signer::create("lab").unwrap();
    signer.save(directory.path()).unwrap();
    let token = signer.issue(&acme(), "ada", Role::Viewer, HOUR, at(NOW)).unwrap();

    let again = Signer::load(directory.path()).unwrap();
    assert_eq!(again.cluster(), "lab");
    assert!(again.verifier().verify(token.expose(), at(NOW)).is_ok());
    let mode = std::fs::metadata(directory.path().join("signing.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    std::fs::remove_file(directory.path().join("signing.key")).unwrap();
    assert!(Verifier::load(directory.path()).unwrap().verify(token.expose(), at(NOW)).is_ok());
    let error = Signer::load(directory.path()).unwrap_err();
    assert!(matches!(error, SignerError::File(ref file) if file.kind() == std::io::ErrorKind::NotFound), "{error}");
}

#[test]
fn a_key_that_is_not_on_the_list_is_refused_at_start() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Signer::create("lab").unwrap().save(first.path()).unwrap();
    Signer::create("lab").unwrap().save(second.path()).unwrap();
    std::fs::copy(second.path().join("keys.json"), first.path().join("keys.json")).unwrap();
    assert!(matches!(Signer::load(first.path()), Err(SignerError::Unlisted { .. })));
    std::fs::write(first.path().join("keys.json"), "{\"cluster\": \"lab\", \"keys\": []}").unwrap();
    assert!(matches!(Verifier::load(first.path()), Err(SignerError::Content { .. })));
}

#[test]
fn tokens_and_keys_never_print() {
    let forge = Forge::new();
    let token = forge.signer.issue(&acme(), "ada", Role::Viewer, HOUR, at(NOW)).unwrap();
    assert_eq!(format!("{token:?}"), "Token([redacted])");
    assert_eq!(format!("{:?}", Token::new("  x\n")), "Token([redacted])");
    assert_eq!(Token::new("  x\n").expose(), "x");
    assert!(format!("{:?}", forge.signer).contains("[redacted]"));
}

#[test]
fn inspect_shows_what_verify_would_refuse() {
    let forge = Forge::new();
    let foreign = Forge::new().token(&forge.header_with("jwk", json!({})), &claims());
    let (header, shown) = inspect(&foreign).unwrap();
    assert_eq!(header["jwk"], json!({}));
    assert_eq!(shown, claims());
    assert_eq!(inspect("no token"), Err(TokenError::Form));
}

#[test]
fn roles_are_read_as_they_are_written() {
    for role in Role::ALL {
        assert_eq!(role.to_string().parse(), Ok(role));
        assert_eq!(serde_json::to_value(role).unwrap(), json!(role.as_str()));
    }
    assert_eq!(
        "root".parse::<Role>().unwrap_err().to_string(),
        "\"root\" is not a role: use viewer, developer, operator, admin or auditor"
    );
}

proptest::proptest! {
    /// No text makes the verifier panic, and none passes.
    #[test]
    fn random_text_is_refused(text in "[A-Za-z0-9_.\\-]{0,200}|\\PC{0,60}") {
        let forge = SHARED.get_or_init(Forge::new);
        assert!(forge.verifier.verify(&text, at(NOW)).is_err());
        assert!(forge.verifier.verify_join(&text, at(NOW)).is_err());
    }

    /// A genuine token with one character changed is refused.
    #[test]
    fn a_changed_token_is_refused(position in 0_usize..400, replacement in "[A-Za-z0-9_.\\-]") {
        let forge = SHARED.get_or_init(Forge::new);
        let good = forge.token(&forge.header(), &claims());
        let position = position % good.len();
        if good[position..=position] != replacement {
            let changed = format!("{}{replacement}{}", &good[..position], &good[position + 1..]);
            assert!(forge.verifier.verify(&changed, at(NOW)).is_err(), "position {position}");
        }
    }
}

static SHARED: std::sync::OnceLock<Forge> = std::sync::OnceLock::new();
