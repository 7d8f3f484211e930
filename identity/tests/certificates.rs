//! The authority: what it signs, what it does not, and what is kept on disk.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use partita_identity::{
    Authority, AuthorityError, CertificateRequest, HOST_CERTIFICATE_LIFETIME, Identity, IdentityError, Principal,
    PrincipalError, now,
};
use partita_types::HostName;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use x509_parser::extensions::GeneralName;

fn host(name: &str) -> HostName {
    HostName::new(name).expect("a host name")
}

fn joined(authority: &Authority, name: &str) -> Identity {
    let request = CertificateRequest::new(&host(name)).expect("a request");
    let chain = authority.sign_host(&host(name), request.der()).expect("a certificate");
    request.into_identity(chain).expect("an identity")
}

#[test]
fn a_host_certificate_names_the_host_once_and_lives_a_day() {
    let authority = Authority::create("lab").unwrap();
    let identity = joined(&authority, "rack-1.a");
    assert_eq!(identity.principal(), Ok(Principal::Host(host("rack-1.a"))));
    let left = identity.leaf_expires().since(now());
    assert!(left <= HOST_CERTIFICATE_LIFETIME && left > HOST_CERTIFICATE_LIFETIME - Duration::from_secs(60));

    let (_, leaf) = x509_parser::parse_x509_certificate(&identity.chain()[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
    assert_eq!(names, [GeneralName::DNSName("rack-1.a"), GeneralName::URI("spiffe://partita/lab/host/rack-1.a")]);
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth && !usage.any);
    assert!(!leaf.is_ca());
}

#[test]
fn of_a_request_only_the_key_is_used() {
    let authority = Authority::create("lab").unwrap();
    let key = KeyPair::generate().unwrap();
    let mut greedy = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    greedy.subject_alt_names.push(rcgen::SanType::URI("spiffe://partita/lab/scheduler".try_into().unwrap()));
    let request = greedy.serialize_request(&key).unwrap();

    let chain = authority.sign_host(&host("a"), request.der()).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    assert!(!leaf.is_ca());
    let names = leaf.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
    assert_eq!(names, [GeneralName::DNSName("a"), GeneralName::URI("spiffe://partita/lab/host/a")]);
}

#[test]
fn broken_and_oversized_requests_are_refused() {
    let authority = Authority::create("lab").unwrap();
    let good = CertificateRequest::new(&host("a")).unwrap();
    assert!(matches!(authority.sign_host(&host("a"), b"not a request"), Err(AuthorityError::Request(_))));
    assert!(matches!(authority.sign_host(&host("a"), &[]), Err(AuthorityError::Request(_))));
    assert!(matches!(
        authority.sign_host(&host("a"), &vec![0x30; 9000]),
        Err(AuthorityError::RequestSize { size: 9000 })
    ));
    let mut forged = good.der().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert!(matches!(authority.sign_host(&host("a"), &forged), Err(AuthorityError::Request(_))));
    let weak = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let weak = CertificateParams::default().serialize_request(&weak).unwrap();
    assert!(matches!(authority.sign_host(&host("a"), weak.der()), Err(AuthorityError::RequestKey)));
}

#[test]
fn host_names_that_tls_cannot_dial_are_refused_in_words() {
    let authority = Authority::create("lab").unwrap();
    let request = CertificateRequest::new(&host("a")).unwrap();
    for name in ["a..b", "a-", "1.2.3.4", "7"] {
        assert!(
            matches!(authority.sign_host(&host(name), request.der()), Err(AuthorityError::HostName { .. })),
            "{name}"
        );
        assert!(CertificateRequest::new(&host(name)).is_err(), "{name}");
    }
    let error = CertificateRequest::new(&host("1.2.3.4")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "host name 1.2.3.4 cannot stand in a certificate: it must be a DNS name, such as \"host-1\" or \"a.rack-2\""
    );
}

#[test]
fn the_servers_certificate_names_the_scheduler_and_where_it_is_reached() {
    let authority = Authority::create("lab").unwrap();
    let identity = authority.issue_server(&["scheduler.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
    assert_eq!(identity.principal(), Ok(Principal::Scheduler));
    let (_, leaf) = x509_parser::parse_x509_certificate(&identity.chain()[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
    for wanted in [
        GeneralName::DNSName("localhost"),
        GeneralName::DNSName("scheduler.example"),
        GeneralName::IPAddress(&[127, 0, 0, 1]),
        GeneralName::IPAddress(&[10, 0, 0, 1]),
        GeneralName::URI("spiffe://partita/lab/scheduler"),
    ] {
        assert!(names.contains(&wanted), "{wanted} is missing");
    }
    let error = authority.issue_server(&["no name".to_owned()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"no name\" cannot stand in a certificate: it is neither a DNS name nor an IP address"
    );
    assert!(authority.issue_server(&vec!["a".to_owned(); 65]).is_err());
}

#[test]
fn serial_numbers_differ() {
    let authority = Authority::create("lab").unwrap();
    let serial = |identity: &Identity| {
        let (_, leaf) = x509_parser::parse_x509_certificate(&identity.chain()[0]).unwrap();
        leaf.raw_serial().to_vec()
    };
    let (first, second) = (joined(&authority, "a"), joined(&authority, "a"));
    assert_ne!(serial(&first), serial(&second));
    assert_eq!(serial(&first).len(), 16);
}

#[test]
fn the_authority_survives_a_restart_and_its_key_is_private() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::create("lab").unwrap();
    authority.save(directory.path()).unwrap();
    let again = Authority::load(directory.path()).unwrap();
    assert_eq!((again.cluster(), again.certificate_pem()), ("lab", authority.certificate_pem()));
    assert_eq!(joined(&again, "a").principal(), Ok(Principal::Host(host("a"))));
    let mode = std::fs::metadata(directory.path().join("ca.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn an_identity_survives_a_restart_only_with_its_own_key() {
    let authority = Authority::create("lab").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let identity = joined(&authority, "a");
    identity.save(directory.path(), "host").unwrap();
    let again = Identity::load(directory.path(), "host").unwrap();
    assert_eq!((again.chain(), again.leaf_expires()), (identity.chain(), identity.leaf_expires()));

    joined(&authority, "a").save(directory.path(), "other").unwrap();
    std::fs::copy(directory.path().join("other.key"), directory.path().join("host.key")).unwrap();
    assert!(matches!(Identity::load(directory.path(), "host"), Err(IdentityError::KeyMismatch(_))));
    std::fs::write(directory.path().join("host.key"), "no key").unwrap();
    assert!(matches!(Identity::load(directory.path(), "host"), Err(IdentityError::Pem { .. })));
    std::fs::remove_file(directory.path().join("host.pem")).unwrap();
    assert!(matches!(Identity::load(directory.path(), "host"), Err(IdentityError::File(_))));
}

#[test]
fn an_answer_for_another_key_is_refused() {
    let authority = Authority::create("lab").unwrap();
    let (mine, other) = (CertificateRequest::new(&host("a")).unwrap(), CertificateRequest::new(&host("a")).unwrap());
    let chain = authority.sign_host(&host("a"), other.der()).unwrap();
    assert!(matches!(mine.into_identity(chain), Err(IdentityError::KeyMismatch(_))));
    assert!(matches!(other.into_identity(Vec::new()), Err(IdentityError::ChainLength { count: 0 })));
}

#[test]
fn cluster_names_follow_the_grammar_of_names() {
    for bad in ["", "Lab", "a/b", "a b", &"x".repeat(64)] {
        assert!(matches!(Authority::create(bad), Err(AuthorityError::ClusterName { .. })), "{bad:?}");
    }
}

#[test]
fn an_authority_itself_is_nobody_and_keys_never_print() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::create("lab").unwrap();
    authority.save(directory.path()).unwrap();
    let own = Identity::load(directory.path(), "ca").unwrap();
    assert_eq!(own.principal(), Err(PrincipalError::NameCount { count: 0 }));
    assert!(format!("{authority:?} {own:?}").contains("[redacted]"));
    let key = std::fs::read_to_string(directory.path().join("ca.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    assert!(!format!("{authority:?} {own:?}").contains(secret));
}
