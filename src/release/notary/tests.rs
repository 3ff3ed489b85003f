//! What a hostile registry may send in place of an envelope: each is refused, and nothing of it costs more than its bytes.

use std::time::{Duration, Instant};

use testkit::base64;
use testkit::notary::{Cbor, Draft, Notary};

use super::*;

const NOW: i64 = 1_800_000_000;

fn notary() -> Notary {
    Notary::generate("ES256", NOW)
}

fn draft_of(notary: &Notary) -> Draft<'_> {
    notary.draft(&format!("sha256:{}", "ab".repeat(32)), 7, "application/vnd.oci.image.manifest.v1+json", NOW)
}

fn cose(bytes: Vec<u8>) -> Result<Envelope, NotaryError> {
    Envelope::read(Form::NotaryCose, &bytes.into())
}

fn jws(text: &str) -> Result<Envelope, NotaryError> {
    Envelope::read(Form::NotaryJws, &Bytes::copy_from_slice(text.as_bytes()))
}

/// Why it is refused, which must be for what it is and not for what it claims.
#[track_caller]
fn malformed(read: Result<Envelope, NotaryError>) -> String {
    match read {
        Err(NotaryError::Malformed(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn both_encodings_say_the_same() {
    let notary = notary();
    let draft = draft_of(&notary).expiring(NOW + 60).stamped(|_| b"token".to_vec());
    let (one, other) = (cose(draft.cose()).unwrap(), jws(&String::from_utf8(draft.jws()).unwrap()).unwrap());
    assert_eq!(one.attributes, other.attributes);
    assert_eq!(one.attributes.expiry, Some(UnixTime(NOW + 60)));
    assert_eq!((&one.payload, &one.chain, &one.timestamp), (&other.payload, &other.chain, &other.timestamp));
    assert_eq!(one.timestamp.as_deref(), Some(&b"token"[..]));
    assert_ne!(one.signed, other.signed);
}

#[test]
fn cose_is_a_tagged_sign1_and_nothing_else() {
    let notary = notary();
    let draft = draft_of(&notary);
    let good = draft.cose();
    assert!(cose(good.clone()).is_ok());
    // Cut off anywhere, it is never taken for whole.
    for length in 0..good.len() {
        malformed(cose(good[..length].to_vec()));
    }
    malformed(cose([&good[..], &[0]].concat()));
    malformed(cose(good[1..].to_vec()));
    let retagged = |tag: u8| [&[tag][..], &good[1..]].concat();
    // Tags 17 and 19; COSE_Sign (98) has several signers.
    for tag in [0xd1, 0xd3] {
        malformed(cose(retagged(tag)));
    }
    malformed(cose([&[0xd8, 98][..], &good[1..]].concat()));
    // Three parts, five parts, an array that is left open.
    for array in [0x83, 0x85, 0x9f] {
        malformed(cose([&[0xd2, array][..], &good[2..]].concat()));
    }
}

#[test]
fn headers_of_cose_are_read_in_one_way_only() {
    let notary = notary();
    let draft = draft_of(&notary);
    let Cbor::Map(headers) = draft.cose_protected() else { panic!("a map") };
    let protected = |headers: Vec<(Cbor, Cbor)>| cose(draft.cose_of(Cbor::Map(headers).encoded(), |more| more));
    let with = |label: Cbor, value: Cbor| protected([&headers[..], &[(label, value)]].concat());
    assert!(with(Cbor::text("x"), Cbor::Int(1)).is_ok());
    assert!(with(Cbor::Int(-70_000), Cbor::Array(vec![Cbor::Map(Vec::new())])).is_ok());

    // Twice in one place, or once in both.
    assert_eq!(malformed(with(Cbor::Int(1), Cbor::Int(-7))), "a header is there twice");
    assert_eq!(malformed(with(Cbor::text("io.cncf.notary.signingScheme"), Cbor::text("x"))), "a header is there twice");
    let unprotected = |label: Cbor, value: Cbor| {
        let more = |mut headers: Vec<(Cbor, Cbor)>| {
            headers.push((label.clone(), value.clone()));
            headers
        };
        cose(draft.cose_of(draft.cose_protected().encoded(), more))
    };
    assert!(unprotected(Cbor::text("x"), Cbor::Int(1)).is_ok());
    assert_eq!(malformed(unprotected(Cbor::Int(1), Cbor::Int(-7))), "a header is there twice");
    assert_eq!(malformed(unprotected(Cbor::Int(33), Cbor::Array(Vec::new()))), "a header is there twice");

    // A label of another kind, numbers in two octets where one would do, floating point, a length that is left open.
    malformed(with(Cbor::Bytes(vec![1]), Cbor::Int(1)));
    malformed(with(Cbor::Raw(vec![0x18, 0x05]), Cbor::Int(1)));
    malformed(with(Cbor::text("x"), Cbor::Raw(vec![0xf9, 0x3c, 0x00])));
    malformed(with(Cbor::text("x"), Cbor::Raw(vec![0x9f, 0x01, 0xff])));
    malformed(with(Cbor::text("x"), Cbor::Raw(vec![0x5f, 0x41, 0x00, 0xff])));

    // Times that are no whole seconds since 1970, or lack their tag.
    let expiry = |value: Cbor| with(Cbor::text("io.cncf.notary.expiry"), value);
    malformed(expiry(Cbor::Int(NOW)));
    malformed(expiry(Cbor::Tag(0, Box::new(Cbor::text("2026-01-01T00:00:00Z")))));
    malformed(expiry(Cbor::Tag(1, Box::new(Cbor::Raw(vec![0xfb, 0x41, 0xd9, 0, 0, 0, 0, 0, 0])))));

    // The certificates may be among the signed headers, as the specification lets them.
    let chain = Cbor::Array(notary.chain.iter().cloned().map(Cbor::Bytes).collect());
    let headers = [&headers[..], &[(Cbor::Int(33), chain)]].concat();
    let signed = draft.cose_of(Cbor::Map(headers).encoded(), |_| Vec::new());
    assert_eq!(cose(signed).unwrap().chain.len(), 2);
    let none = draft.cose_of(draft.cose_protected().encoded(), |_| Vec::new());
    assert_eq!(malformed(cose(none)), "it has no certificates");
    let one = draft
        .cose_of(draft.cose_protected().encoded(), |_| vec![(Cbor::Int(33), Cbor::Bytes(notary.chain[0].clone()))]);
    malformed(cose(one));
}

#[test]
fn a_jws_is_flattened_and_nothing_else() {
    let notary = notary();
    let draft = draft_of(&notary);
    let good = draft.jws_json();
    assert!(jws(&good.to_string()).is_ok());
    for part in ["payload", "protected", "header", "signature"] {
        let mut less = good.clone();
        less.as_object_mut().unwrap().remove(part);
        malformed(jws(&less.to_string()));
        let twice = good.to_string().replacen('{', &format!("{{\"{part}\":\"\","), 1);
        malformed(jws(&twice));
    }
    let with = |name: &str, value: serde_json::Value| {
        let mut more = good.clone();
        more[name] = value;
        jws(&more.to_string())
    };
    malformed(with("signatures", serde_json::json!([])));
    malformed(with("more", true.into()));
    malformed(jws("[]"));
    malformed(jws(""));
    // base64url without padding, in its one spelling.
    for wrong in ["=", "a", "A+", "A/A", "AA=="] {
        malformed(with("signature", wrong.into()));
    }
    // A header that is in both places, or twice in one.
    let mut both = good.clone();
    both["header"]["cty"] = "x".into();
    malformed(jws(&both.to_string()));
    let protected = r#"{"alg":"ES256","alg":"ES256"}"#;
    malformed(with("protected", testkit::base64url(protected).into()));
    malformed(with("protected", testkit::base64url("[]").into()));
    // Times in another form, or with a fraction.
    for wrong in ["2026-01-01", "2026-01-01T00:00:00.5Z", "yesterday"] {
        let draft = draft_of(&notary).with("io.cncf.notary.signingTime", wrong.into());
        malformed(jws(&draft.jws_json().to_string()));
    }
    // No certificates, none that are text, none in base64.
    for wrong in [serde_json::json!([]), serde_json::json!([1]), serde_json::json!(["!"]), serde_json::json!("AA==")] {
        let mut more = good.clone();
        more["header"]["x5c"] = wrong;
        malformed(jws(&more.to_string()));
    }
}

#[test]
fn what_no_signature_needs_is_not_read() {
    let begun = Instant::now();
    let notary = notary();
    let draft = draft_of(&notary);
    let header = |value: Cbor| {
        cose(draft.cose_of(draft.cose_protected().encoded(), |mut headers| {
            headers.push((Cbor::text("x"), value.clone()));
            headers
        }))
    };
    // Depth: eight levels are skipped, a million is not; neither does it cost a stack.
    assert_eq!(malformed(header(Cbor::Raw([vec![0x81; 1 << 20], vec![0]].concat()))), "it is nested too deeply");
    assert_eq!(malformed(header(Cbor::Raw([vec![0xc1; 1 << 20], vec![0]].concat()))), "it is nested too deeply");
    // Counts: of headers, of what is skipped, of certificates.
    let many = (0..40).map(|n| (Cbor::text(&format!("x{n}")), Cbor::Int(n))).collect::<Vec<_>>();
    malformed(cose(draft.cose_of(Cbor::Map(many.clone()).encoded(), |headers| headers)));
    malformed(cose(draft.cose_of(draft.cose_protected().encoded(), |_| many.clone())));
    malformed(header(Cbor::Array(vec![Cbor::Int(0); 2000])));
    let chain = |count: usize| {
        let chain = Cbor::Array(vec![Cbor::Bytes(notary.chain[0].clone()); count]);
        cose(draft.cose_of(draft.cose_protected().encoded(), |_| vec![(Cbor::Int(33), chain.clone())]))
    };
    assert!(chain(MAX_CHAIN).is_ok());
    malformed(chain(MAX_CHAIN + 1));
    // Lengths: of a token, and such as no input has.
    let long = draft_of(&notary).stamped(|_| vec![0; MAX_TOKEN + 1]);
    malformed(cose(long.cose()));
    malformed(jws(&long.jws_json().to_string()));
    malformed(header(Cbor::Raw(vec![0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])));
    malformed(header(Cbor::Raw(vec![0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])));

    let good = draft.jws_json();
    let with = |name: &str, value: serde_json::Value| {
        let mut more = good.clone();
        more["header"][name] = value;
        jws(&more.to_string())
    };
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    malformed(jws(&good.to_string().replacen("\"test/1\"", &nested, 1)));
    malformed(with("x5c", vec![base64(&notary.chain[0]); MAX_CHAIN + 1].into()));
    malformed(with("x5c", serde_json::json!([base64(vec![0; 64 * 1024])])));
    let more: serde_json::Map<_, _> = (0..40).map(|n| (format!("x{n}"), n.into())).collect();
    malformed(jws(&serde_json::json!({
        "payload": good["payload"], "protected": good["protected"], "signature": good["signature"], "header": more,
    })
    .to_string()));
    let values = vec![0; 1 << 15];
    malformed(with("x", values.into()));
    let payload = testkit::base64url(vec![b' '; 400_000]);
    let mut long = good.clone();
    long["payload"] = payload.into();
    malformed(jws(&long.to_string()));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn a_chain_of_the_dearest_certificates_costs_little() {
    // Eight certificates of the largest size that is read, none of which leads to the store: they are not looked into.
    let big = CertificateDer::from(vec![0x30; crate::sigstore::x509::MAX_BYTES]);
    let notary = notary();
    let mut envelope = cose(draft_of(&notary).cose()).unwrap();
    envelope.chain = vec![big.clone(); MAX_CHAIN];
    let trust = trust::NotaryTrust { ca: vec![notary.root.certificate.clone().into()], ..Default::default() };
    let judged = trust.judge(&envelope, UnixTime(NOW)).map(|trusted| trusted.until);
    assert!(matches!(judged, Err(NotaryError::Untrusted("notary.x509"))));
    // With the store's own root among them they are; the first that is none ends it.
    envelope.chain[MAX_CHAIN - 1] = notary.root.certificate.clone().into();
    let judged = trust.judge(&envelope, UnixTime(NOW)).map(|trusted| trusted.until);
    assert!(matches!(judged, Err(NotaryError::Certificates(_))));
}

#[test]
fn a_signature_counts_until_the_first_of_its_ends() {
    let notary = notary();
    let trust = trust::NotaryTrust { ca: vec![notary.root.certificate.clone().into()], ..Default::default() };
    let until = |draft: Draft<'_>| trust.judge(&cose(draft.cose()).unwrap(), UnixTime(NOW)).unwrap().until;
    // Without a proven time the certificates must be valid, and they end after half a year.
    let ends = NOW + 180 * 86_400;
    assert_eq!(until(draft_of(&notary)), Some(UnixTime(ends)));
    assert_eq!(until(draft_of(&notary).expiring(NOW + 1)), Some(UnixTime(NOW + 1)));
    assert_eq!(until(draft_of(&notary).expiring(ends + 1)), Some(UnixTime(ends)));
    let past = trust.judge(&cose(draft_of(&notary).cose()).unwrap(), UnixTime(ends + 1)).map(|trusted| trusted.until);
    assert!(matches!(past, Err(NotaryError::NotValid { .. })));
    // "Greater than or equal": at that second it is over.
    let over = trust.judge(&cose(draft_of(&notary).expiring(NOW).cose()).unwrap(), UnixTime(NOW));
    assert!(matches!(over.map(|trusted| trusted.until), Err(NotaryError::Expired(UnixTime(NOW)))));
}

#[test]
fn a_revoked_certificate_counts_in_no_other_spelling() {
    let notary = notary();
    let key = |der: &[u8]| Digest::of(crate::sigstore::x509::Certificate::parse(der).unwrap().spki);
    let judge = |chain: &[Vec<u8>], revoked: Vec<Digest>| {
        let ca = vec![notary.root.certificate.clone().into()];
        let trust = trust::NotaryTrust { ca, revoked, ..Default::default() };
        let draft = Draft { chain: chain.to_vec(), ..draft_of(&notary) };
        trust.judge(&cose(draft.cose()).unwrap(), UnixTime(NOW)).map(|trusted| trusted.until)
    };
    let other = respelled(&notary.chain[0]);
    assert_ne!(other, notary.chain[0]);
    let chain = vec![other, notary.chain[1].clone()];
    assert!(judge(&chain, vec![]).is_ok(), "the CA's signature holds in that spelling, too");
    for certificate in &notary.chain {
        let revoked = key(certificate);
        for chain in [&notary.chain, &chain] {
            let judged = judge(chain, vec![Digest::of(b"another"), revoked]);
            assert!(matches!(judged, Err(NotaryError::Revoked(found)) if found == revoked), "{judged:?}");
        }
    }
}

/// The certificate with the signature (r, n - s) in place of (r, s), ECDSA on P-256.
fn respelled(der: &[u8]) -> Vec<u8> {
    use crate::sigstore::der::{BIT_STRING, INTEGER, Reader, SEQUENCE, whole, wrap};
    let parsed = crate::sigstore::x509::Certificate::parse(der).unwrap();
    let mut pair = Reader::new(whole(parsed.signature, SEQUENCE).unwrap().value);
    let (r, s) = (pair.expect(INTEGER).unwrap().value, pair.expect(INTEGER).unwrap().value);
    let mut padded = vec![0; 33 - s.len()];
    padded.extend_from_slice(s);
    // n - s, from the last byte on.
    let (mut other, mut borrow) = (vec![0; 33], 0);
    for at in (0..33).rev() {
        let order = if at == 0 { 0 } else { P256_ORDER[at - 1] };
        let difference = i32::from(order) - i32::from(padded[at]) - borrow;
        borrow = i32::from(difference < 0);
        other[at] = difference.rem_euclid(256) as u8;
    }
    // As short as DER demands, and positive.
    let mut value = &other[..];
    while value[0] == 0 && value[1] < 0x80 {
        value = &value[1..];
    }
    let signature = wrap(SEQUENCE, &[&wrap(INTEGER, &[r]), &wrap(INTEGER, &[value])]);
    let algorithm = wrap(SEQUENCE, &[parsed.algorithm]);
    wrap(SEQUENCE, &[parsed.tbs, &algorithm, &wrap(BIT_STRING, &[&[0], &signature])])
}

const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
