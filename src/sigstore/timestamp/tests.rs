#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use testkit::sigstore::tsa::{Answer, Binding, signer_template};
use testkit::sigstore::x509::{self as made, SigningKey, Template};
use testkit::sigstore::{Tsa, trusted_root};

use super::*;
use crate::sigstore::TrustedRoot;

const NOW: i64 = 1_800_000_000;
const MESSAGE: &[u8] = b"the DER of a signature";

fn root_of(tsa: &Tsa) -> TrustedRoot {
    let json = trusted_root(None, &[], &[tsa], NOW).to_string();
    TrustedRoot::from_json(json.as_bytes()).unwrap()
}

fn judge(tsa: &Tsa, answer: &Answer) -> Result<Timestamp, TimestampError> {
    let request = Request::new(MESSAGE).unwrap();
    verify_answer(&tsa.answer(request.der(), answer), &request, &root_of(tsa), UnixTime(NOW))
}

#[track_caller]
fn refused(tsa: &Tsa, answer: &Answer, reason: &str) {
    assert_eq!(judge(tsa, answer).unwrap_err().reason(), reason);
}

#[test]
fn an_answer_is_verified_now_with_its_nonce_and_later_without() {
    let tsa = Tsa::new(NOW);
    let stamp = judge(&tsa, &Answer::at(NOW)).unwrap();
    assert_eq!((stamp.time, &*stamp.authority, &*stamp.serial), (UnixTime(NOW), "https://tsa.example", &[0x2a][..]));
    assert_eq!(stamp.signer.as_ref(), tsa.signer.certificate);
    let later =
        verify(&tsa.stamp(MESSAGE, &Answer::at(NOW)), MESSAGE, &root_of(&tsa), UnixTime(NOW + 10 * 365 * 86_400));
    assert_eq!(later.unwrap().time, UnixTime(NOW));
}

#[test]
fn keys_and_bindings_that_authorities_use_are_accepted() {
    for key in [SigningKey::p256(), SigningKey::p384(), SigningKey::rsa()] {
        let tsa = Tsa::with_key(key, NOW);
        for binding in [Binding::V2, Binding::V2IssuerSerial, Binding::V1] {
            judge(&tsa, &Answer { binding, ..Answer::at(NOW) }).unwrap();
        }
    }
    // RSA under the name of its key, as CMS allows.
    let tsa = Tsa::with_key(SigningKey::rsa(), NOW);
    judge(&tsa, &Answer { algorithm: Some("1.2.840.113549.1.1.1"), ..Answer::at(NOW) }).unwrap();
}

#[test]
fn what_no_honest_authority_answers_is_refused_by_name() {
    let tsa = Tsa::new(NOW);
    let good = || Answer::at(NOW);
    let attribute = |dotted: &str, value: &[u8]| {
        use testkit::sigstore::der::{oid, seq, set};
        seq(&[&oid(dotted), &set(&[value])])
    };
    let other = Tsa::new(NOW).signer.certificate;
    for (reason, answer) in [
        ("timestamp_not_granted", Answer { status: 2, text: Some("no\u{7}"), ..good() }),
        ("timestamp_imprint", Answer { imprint: Some(vec![7; 32]), ..good() }),
        ("timestamp_imprint", Answer { imprint: Some(vec![7; 20]), ..good() }),
        ("timestamp_nonce", Answer { nonce: Some(vec![7; 16]), ..good() }),
        ("timestamp_nonce", Answer { nonce: Some(vec![]), ..good() }),
        ("timestamp_attribute", Answer { content_type: "1.2.840.113549.1.7.1", ..good() }),
        ("timestamp_message_digest", Answer { message_digest: Some(vec![7; 32]), ..good() }),
        ("timestamp_attribute", Answer { binding: Binding::None, ..good() }),
        ("timestamp_signing_certificate", Answer { bound_to: Some(other.clone()), ..good() }),
        ("timestamp_signing_certificate", Answer { bound_to: Some(other.clone()), binding: Binding::V1, ..good() }),
        (
            "timestamp_attribute",
            Answer { more_attributes: vec![attribute("1.2.840.113549.1.9.3", b"\x06\x01\x2a")], ..good() },
        ),
        ("timestamp_signers", Answer { signers: 0, ..good() }),
        ("timestamp_signers", Answer { signers: 2, ..good() }),
        ("timestamp_no_certificate", Answer { certificates: Some(vec![other]), nonce: None, ..good() }),
        ("timestamp_algorithm", Answer { algorithm: Some("1.3.101.112"), ..good() }),
        ("timestamp_algorithm", Answer { algorithm: Some("1.2.840.10045.4.1"), ..good() }),
        ("timestamp_signature", Answer { algorithm: Some("1.2.840.10045.4.3.3"), ..good() }),
        ("timestamp_future", Answer { time: NOW + 61, ..good() }),
        ("timestamp_not_valid", Answer { time: NOW - 200 * 86_400, ..good() }),
    ] {
        // A pinned signer counts even when the token does not carry it; here nothing is pinned but its CA.
        let request = Request::new(MESSAGE).unwrap();
        let mut root = root_of(&tsa);
        root.timestamp_authorities[0].chain.remove(0);
        let judged = verify_answer(&tsa.answer(request.der(), &answer), &request, &root, UnixTime(NOW));
        assert_eq!(judged.unwrap_err().reason(), reason);
    }
    let said = judge(&tsa, &Answer { status: 2, text: Some("no\u{7}"), ..good() }).unwrap_err();
    assert_eq!(said, TimestampError::NotGranted { status: 2, text: Some("no".to_owned()) });
}

#[test]
fn what_other_verifiers_refuse_is_no_answer_and_counts_in_a_file_all_the_same() {
    let tsa = Tsa::new(NOW);
    let (own, root) = (tsa.signer.certificate.clone(), tsa.root.certificate.clone());
    for (reason, answer) in [
        ("timestamp_not_granted", Answer { status: 1, ..Answer::at(NOW) }),
        ("timestamp_signer_not_first", Answer { certificates: Some(vec![root, own]), ..Answer::at(NOW) }),
    ] {
        refused(&tsa, &answer, reason);
        verify(&tsa.stamp(MESSAGE, &answer), MESSAGE, &root_of(&tsa), UnixTime(NOW)).unwrap();
    }
}

#[test]
fn a_strangers_stamp_is_the_strangers_business_whatever_it_is_over() {
    let (tsa, stranger) = (Tsa::new(NOW), Tsa::new(NOW));
    let response = stranger.stamp(b"other bytes", &Answer::at(NOW));
    assert_eq!(verify(&response, MESSAGE, &root_of(&tsa), UnixTime(NOW)).unwrap_err(), TimestampError::Untrusted);
    let own = tsa.stamp(b"other bytes", &Answer::at(NOW));
    assert_eq!(verify(&own, MESSAGE, &root_of(&tsa), UnixTime(NOW)).unwrap_err(), TimestampError::Imprint);
}

#[test]
fn a_fraction_is_cut_off_and_not_forgotten() {
    let tsa = Tsa::new(NOW);
    let judged = |answer: &Answer, root: &TrustedRoot| {
        verify(&tsa.stamp(MESSAGE, answer), MESSAGE, root, UnixTime(NOW)).map(|stamp| (stamp.time.0, stamp.latest.0))
    };
    let root = root_of(&tsa);
    assert_eq!(judged(&Answer::at(NOW), &root), Ok((NOW, NOW)));
    let fraction = Answer { fraction: Some("05"), ..Answer::at(NOW) };
    assert_eq!(judged(&fraction, &root), Ok((NOW, NOW + 1)));
    let mut ends = root;
    ends.timestamp_authorities[0].valid_for.end = Some(UnixTime(NOW));
    assert_eq!(judged(&fraction, &ends), Err(TimestampError::NotValid(UnixTime(NOW))));
    assert_eq!(judged(&Answer::at(NOW), &ends), Ok((NOW, NOW)));
}

#[test]
fn a_pinned_signer_need_not_be_in_the_token_and_no_other_one_counts() {
    let tsa = Tsa::new(NOW);
    judge(&tsa, &Answer { certificates: Some(vec![]), ..Answer::at(NOW) }).unwrap();
    // Another signer of the same root.
    let key = SigningKey::p256();
    let signer = tsa.root.below(signer_template(&key, NOW), key);
    let other = Tsa { uri: tsa.uri.clone(), root: tsa.root.clone(), signer };
    let response = other.stamp(MESSAGE, &Answer::at(NOW));
    let mut root = root_of(&tsa);
    assert_eq!(verify(&response, MESSAGE, &root, UnixTime(NOW)).unwrap_err(), TimestampError::Untrusted);
    root.timestamp_authorities[0].chain.remove(0);
    verify(&response, MESSAGE, &root, UnixTime(NOW)).unwrap();
}

#[test]
fn a_strangers_stamp_is_untrusted_even_under_the_same_names() {
    let (tsa, stranger) = (Tsa::new(NOW), Tsa::new(NOW));
    let response = stranger.stamp(MESSAGE, &Answer::at(NOW));
    for keep_leaf in [true, false] {
        let mut root = root_of(&tsa);
        if !keep_leaf {
            root.timestamp_authorities[0].chain.remove(0);
        }
        assert_eq!(verify(&response, MESSAGE, &root, UnixTime(NOW)).unwrap_err(), TimestampError::Untrusted);
    }
}

#[test]
fn a_signer_that_is_no_time_stamp_authority_is_refused() {
    let with = |extensions: Vec<Vec<u8>>| {
        let key = SigningKey::p256();
        Tsa::of(Template::new("tsa", key.spki(), NOW).with(extensions), key, NOW)
    };
    let eku = made::extended_key_usage;
    for (reason, extensions) in [
        ("timestamp_extended_key_usage", vec![]),
        ("timestamp_extended_key_usage", vec![eku(&[made::TIME_STAMPING], false)]),
        ("timestamp_extended_key_usage", vec![eku(&[made::TIME_STAMPING, made::CODE_SIGNING], true)]),
        ("timestamp_extended_key_usage", vec![eku(&[made::CODE_SIGNING], true)]),
        ("timestamp_path", vec![eku(&[made::TIME_STAMPING], true), made::key_usage(1 << 5)]),
        ("timestamp_path", vec![eku(&[made::TIME_STAMPING], true), made::extension("1.2.3", true, b"")]),
    ] {
        refused(&with(extensions), &Answer::at(NOW), reason);
    }
}

#[test]
fn a_pin_counts_in_its_window_alone() {
    let tsa = Tsa::new(NOW);
    let mut root = root_of(&tsa);
    root.timestamp_authorities[0].valid_for.start = UnixTime(NOW + 1);
    let response = tsa.stamp(MESSAGE, &Answer::at(NOW));
    assert_eq!(verify(&response, MESSAGE, &root, UnixTime(NOW)).unwrap_err(), TimestampError::NotValid(UnixTime(NOW)));
}

#[test]
fn a_request_never_repeats_its_nonce_and_is_the_same_length_each_time() {
    let (one, two) = (Request::new(MESSAGE).unwrap(), Request::new(MESSAGE).unwrap());
    assert_ne!(one.nonce(), two.nonce());
    assert_eq!(one.der().len(), two.der().len());
}

fn sample() -> (&'static [u8], &'static TrustedRoot) {
    use std::sync::OnceLock;
    static MADE: OnceLock<(Vec<u8>, TrustedRoot)> = OnceLock::new();
    let (response, root) = MADE.get_or_init(|| {
        let tsa = Tsa::new(NOW);
        (tsa.stamp(MESSAGE, &Answer::at(NOW)), root_of(&tsa))
    });
    (response, root)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Status, versions and the encapsulated lists of algorithms and certificates are not under the signature; whatever
    /// is changed, the statement that comes out is the one that was signed.
    #[test]
    fn a_changed_response_states_nothing_else(at in any::<prop::sample::Index>(), change in 1_u8..) {
        let (response, root) = sample();
        let mut changed = response.to_vec();
        changed[at.index(response.len())] ^= change;
        if let Ok(stamp) = verify(&changed, MESSAGE, root, UnixTime(NOW)) {
            prop_assert_eq!((stamp.time, &*stamp.serial), (UnixTime(NOW), &[0x2a][..]));
        }
    }

    #[test]
    fn a_response_cut_short_or_extended_is_refused(at in any::<prop::sample::Index>(), more in prop::collection::vec(any::<u8>(), 1..9)) {
        let (response, root) = sample();
        prop_assert!(verify(&response[..at.index(response.len())], MESSAGE, root, UnixTime(NOW)).is_err());
        prop_assert!(verify(&[response, &more].concat(), MESSAGE, root, UnixTime(NOW)).is_err());
    }

    #[test]
    fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), insert in any::<prop::sample::Index>()) {
        let (response, root) = sample();
        prop_assert!(verify(&bytes, MESSAGE, root, UnixTime(NOW)).is_err());
        // In the middle of something well-formed it gets further.
        let (head, tail) = response.split_at(insert.index(response.len()));
        let _ = verify(&[head, &bytes, tail].concat(), MESSAGE, root, UnixTime(NOW));
    }
}
