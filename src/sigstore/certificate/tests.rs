#![allow(clippy::unwrap_used)]

use testkit::sigstore::fulcio::{EMAIL, OTHER_NAME, template};
use testkit::sigstore::x509::{self as made, Issuer, SigningKey, Template};
use testkit::sigstore::{Fulcio, der, trusted_root};

use super::*;

const NOW: i64 = 1_800_000_000;
const SAN: &str = "spiffe://example.org/signer";
const OIDC: &str = "https://authority.example";

fn good() -> (Template, SigningKey) {
    let key = SigningKey::p256();
    (template(key.spki(), SAN, OIDC, NOW), key)
}

fn root_of(fulcio: &Fulcio) -> TrustedRoot {
    let json = trusted_root(Some(fulcio), &[], &[], NOW).to_string();
    TrustedRoot::from_json(json.as_bytes()).unwrap()
}

fn judge_at(template: &Template, at: i64) -> Result<FulcioCertificate, CertificateError> {
    let fulcio = Fulcio::new(NOW);
    let leaf = fulcio.issue(template).into();
    verify(&[leaf], &root_of(&fulcio), UnixTime(at), &CertificatePolicy::FRESH)
}

fn judge(template: &Template) -> Result<FulcioCertificate, CertificateError> {
    judge_at(template, NOW + 5)
}

/// The template with the extension of this OID replaced, or taken out.
fn with(template: &Template, dotted: &str, replacement: Option<Vec<u8>>) -> Template {
    let marker = der::oid(dotted);
    let mut changed = template.clone();
    changed.extensions.retain(|one| !one.windows(marker.len()).any(|bytes| bytes == marker));
    changed.extensions.extend(replacement);
    changed
}

#[test]
fn what_fulcio_issues_is_read_as_it_is() {
    let (template, key) = good();
    let certificate = judge(&template).unwrap();
    assert_eq!(certificate.san, San::Uri(SAN.to_owned()));
    assert_eq!(certificate.issuer, OIDC);
    assert_eq!((certificate.not_before, certificate.not_after), (UnixTime(NOW), UnixTime(NOW + 600)));
    assert_eq!(certificate.public_key.sec1()[..], *key.public());
    assert_eq!(certificate.issuers.len(), 2);
    let own = PublicKey::from_sec1(key.public()).unwrap();
    assert_eq!(certificate.certifies(&own), Ok(()));
    let other = PublicKey::from_sec1(SigningKey::p256().public()).unwrap();
    assert_eq!(certificate.certifies(&other), Err(CertificateError::KeyMismatch));
}

#[test]
fn each_kind_of_name_that_fulcio_writes_is_read() {
    let (template, _) = good();
    let user = [der::oid("1.3.6.1.4.1.57264.1.7"), der::tlv(0xa0, &[&der::utf8("alice!example.org")])].concat();
    for (tag, value, san) in [
        (EMAIL, &b"alice@example.org"[..], San::Email("alice@example.org".to_owned())),
        (OTHER_NAME, &user, San::Username("alice!example.org".to_owned())),
    ] {
        let changed = with(&template, "2.5.29.17", Some(made::subject_alt_name(&[(tag, value)], true)));
        assert_eq!(judge(&changed).unwrap().san, san);
    }
}

#[test]
fn identity_is_compared_to_the_last_byte() {
    let certificate = judge(&good().0).unwrap();
    let expected = |san: &str, issuer: &str| {
        let identity = Identity { san: san.to_owned(), issuer: issuer.to_owned() };
        certificate.expect(&identity).err().map(|error| error.reason())
    };
    assert_eq!(expected(SAN, OIDC), None);
    assert_eq!(expected("spiffe://example.org/signer2", OIDC), Some("certificate_san_mismatch"));
    assert_eq!(expected("spiffe://example.org/signe", OIDC), Some("certificate_san_mismatch"));
    assert_eq!(expected(SAN, "https://authority.example/"), Some("certificate_oidc_issuer_mismatch"));
}

#[test]
fn what_fulcio_would_not_issue_is_refused_by_name() {
    let (good, _) = good();
    let san = |names: &[(u8, &[u8])], critical| Some(made::subject_alt_name(names, critical));
    let uri = (testkit::sigstore::fulcio::URI, SAN.as_bytes());
    let issuer = |value: &[u8]| Some(made::extension("1.3.6.1.4.1.57264.1.8", false, value));
    let eku = |purposes: &[&str]| Some(made::extended_key_usage(purposes, false));
    let mut long = good.clone();
    long.not_after = NOW + 631;
    let mut named = good.clone();
    named.subject = der::name("somebody");
    let mut p384 = good.clone();
    p384.spki = SigningKey::p384().spki();
    let mut rsa = good.clone();
    rsa.spki = SigningKey::rsa().spki();
    let cases: Vec<(&str, Template)> = vec![
        ("certificate_lifetime", long),
        ("certificate_subject", named),
        ("certificate_key_type", p384),
        ("certificate_key_type", rsa),
        ("certificate_san_count", with(&good, "2.5.29.17", None)),
        ("certificate_san_count", with(&good, "2.5.29.17", san(&[uri, (EMAIL, b"a@example.org")], true))),
        ("certificate_san_count", with(&good, "2.5.29.17", san(&[uri, uri], true))),
        ("certificate_san_form", with(&good, "2.5.29.17", san(&[uri], false))),
        ("certificate_san_form", with(&good, "2.5.29.17", san(&[(0x82, b"example.org")], true))),
        ("certificate_san_form", with(&good, "2.5.29.17", san(&[(EMAIL, b"a\0@example.org")], true))),
        ("certificate_san_form", with(&good, "2.5.29.17", san(&[(EMAIL, b"")], true))),
        ("certificate_san_form", with(&good, "2.5.29.17", san(&[(OTHER_NAME, b"\x06\x01\x2a")], true))),
        ("certificate_oidc_issuer_missing", with(&good, "1.3.6.1.4.1.57264.1.8", None)),
        ("certificate_oidc_issuer_form", with(&good, "1.3.6.1.4.1.57264.1.8", issuer(OIDC.as_bytes()))),
        ("certificate_oidc_issuer_form", with(&good, "1.3.6.1.4.1.57264.1.8", issuer(&der::utf8("https://b.example")))),
        ("certificate_extended_key_usage", with(&good, "2.5.29.37", None)),
        ("certificate_extended_key_usage", with(&good, "2.5.29.37", eku(&[made::CODE_SIGNING, made::TIME_STAMPING]))),
        ("certificate_extended_key_usage", with(&good, "2.5.29.37", eku(&["2.5.29.37.0"]))),
        ("certificate_key_usage", with(&good, "2.5.29.15", None)),
        ("certificate_key_usage", with(&good, "2.5.29.15", Some(made::key_usage(1 << 1)))),
        ("certificate_key_usage", with(&good, "2.5.29.15", Some(made::key_usage(1 | 1 << 5)))),
        ("certificate_is_ca", good.clone().with(vec![made::basic_constraints(true, None)])),
        ("certificate_unknown_critical_extension", good.clone().with(vec![made::extension("1.2.3", true, b"")])),
        ("certificate_malformed", good.clone().with(vec![made::extension("1.2.3", false, b""); 2])),
    ];
    for (index, (reason, template)) in cases.into_iter().enumerate() {
        assert_eq!(judge(&template).unwrap_err().reason(), reason, "case {index}");
    }
    // A false that says nothing changes nothing.
    assert!(judge(&good.clone().with(vec![made::basic_constraints(false, None)])).is_ok());
}

#[test]
fn it_counts_within_its_minutes_and_a_fresh_one_is_forgiven_a_clock_that_lags() {
    let (good, _) = good();
    for (at, reason) in [
        (NOW - 31, Some("certificate_not_yet_valid")),
        (NOW - 30, None),
        (NOW, None),
        (NOW + 600, None),
        (NOW + 601, Some("certificate_expired")),
    ] {
        assert_eq!(judge_at(&good, at).err().map(|error| error.reason()), reason, "{at}");
    }
    let fulcio = Fulcio::new(NOW);
    let leaf = [fulcio.issue(&good).into()];
    let early = verify(&leaf, &root_of(&fulcio), UnixTime(NOW - 1), &CertificatePolicy::OFFLINE);
    assert_eq!(early.unwrap_err().reason(), "certificate_not_yet_valid");
}

#[test]
fn only_a_pinned_fulcio_counts_whatever_chain_is_returned() {
    let (fulcio, stranger) = (Fulcio::new(NOW), Fulcio::new(NOW));
    let (good, _) = good();
    let mut chain = vec![stranger.issue(&good).into()];
    chain.extend(stranger.chain().into_iter().map(CertificateDer::from));
    let judged = verify(&chain, &root_of(&fulcio), UnixTime(NOW), &CertificatePolicy::FRESH);
    assert_eq!(judged.unwrap_err(), CertificateError::UntrustedIssuer);
    // Its names are the same, so only the signature tells them apart.
    let nobody = TrustedRoot::default();
    let leaf = [fulcio.issue(&good).into()];
    let judged = verify(&leaf, &nobody, UnixTime(NOW), &CertificatePolicy::FRESH);
    assert_eq!(judged.unwrap_err(), CertificateError::UntrustedIssuer);
    assert_eq!(
        verify(&[], &root_of(&fulcio), UnixTime(NOW), &CertificatePolicy::FRESH).unwrap_err(),
        CertificateError::Missing
    );
    let many = vec![leaf[0].clone(); 9];
    assert_eq!(
        verify(&many, &root_of(&fulcio), UnixTime(NOW), &CertificatePolicy::FRESH).unwrap_err(),
        CertificateError::TooLarge
    );
}

/// A Fulcio whose two CA certificates are as told.
fn instance(root: Vec<Vec<u8>>, intermediate: Vec<Vec<u8>>, intermediate_end: i64) -> Fulcio {
    let (root_key, key) = (SigningKey::p256(), SigningKey::p256());
    let root = Issuer::root_of(Template::new("root", root_key.spki(), NOW).with(root), root_key);
    let mut template = Template::new("intermediate", key.spki(), NOW).with(intermediate);
    template.not_after = intermediate_end;
    let intermediate = root.below(template, key);
    Fulcio { root, intermediate }
}

#[test]
fn a_pinned_ca_that_may_not_issue_does_not() {
    let (good, _) = good();
    let ca = made::ca_extensions;
    let later = NOW + 86_400;
    let server_auth = || made::extended_key_usage(&["1.3.6.1.5.5.7.3.1"], false);
    let cases = [
        ("certificate_issuer_not_allowed", instance(ca(Some(0)), ca(None), later)),
        ("certificate_issuer_not_allowed", instance(ca(None), [ca(None), vec![server_auth()]].concat(), later)),
        ("certificate_issuer_not_allowed", instance([ca(None), vec![server_auth()]].concat(), ca(None), later)),
        (
            "certificate_issuer_not_allowed",
            instance(ca(None), vec![made::basic_constraints(true, None), made::key_usage(1)], later),
        ),
        (
            "certificate_issuer_not_allowed",
            instance(vec![made::basic_constraints(true, None), made::key_usage(1)], ca(None), later),
        ),
        ("certificate_issuer_not_valid", instance(ca(None), ca(None), NOW - 1)),
    ];
    for (index, (reason, fulcio)) in cases.iter().enumerate() {
        let leaf = [fulcio.issue(&good).into()];
        let judged = verify(&leaf, &root_of(fulcio), UnixTime(NOW), &CertificatePolicy::FRESH);
        assert_eq!(judged.unwrap_err().reason(), *reason, "case {index}");
    }
}

#[test]
fn a_pin_counts_in_its_window_alone() {
    let fulcio = Fulcio::new(NOW);
    let leaf = [fulcio.issue(&good().0).into()];
    let mut root = root_of(&fulcio);
    root.certificate_authorities[0].valid_for.end = Some(UnixTime(NOW - 1));
    let judged = verify(&leaf, &root, UnixTime(NOW), &CertificatePolicy::FRESH);
    assert_eq!(judged.unwrap_err(), CertificateError::IssuerNotValid);
    // A second pin of the same Fulcio, with the right window, is found behind the first.
    let again = root_of(&fulcio).certificate_authorities;
    root.certificate_authorities.extend(again);
    assert!(verify(&leaf, &root, UnixTime(NOW), &CertificatePolicy::FRESH).is_ok());
}

#[test]
fn an_intermediate_alone_can_be_pinned() {
    let fulcio = Fulcio::new(NOW);
    let leaf = [fulcio.issue(&good().0).into()];
    let mut root = root_of(&fulcio);
    root.certificate_authorities[0].chain.truncate(1);
    let certificate = verify(&leaf, &root, UnixTime(NOW), &CertificatePolicy::FRESH).unwrap();
    assert_eq!(certificate.issuers.len(), 1);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]
    /// No changed byte is believed, and none makes it panic.
    #[test]
    fn a_changed_certificate_is_never_accepted(at in 0_usize..700, change in 1_u8..) {
        use std::sync::OnceLock;
        static MADE: OnceLock<(Vec<u8>, TrustedRoot)> = OnceLock::new();
        let (leaf, root) = MADE.get_or_init(|| {
            let fulcio = Fulcio::new(NOW);
            (fulcio.issue(&good().0), root_of(&fulcio))
        });
        let mut changed = leaf.clone();
        let at = at % changed.len();
        changed[at] ^= change;
        let judged = verify(&[changed.into()], root, UnixTime(NOW), &CertificatePolicy::FRESH);
        proptest::prop_assert!(judged.is_err(), "byte {at} ^ {change:#x}");
    }
}
