#![allow(clippy::unwrap_used)]

use testkit::sigstore::ct::{Sct as MadeSct, list_extension};
use testkit::sigstore::fulcio::template;
use testkit::sigstore::x509::{SigningKey, Template, extension};
use testkit::sigstore::{CtLog, Fulcio, trusted_root};

use super::*;
use crate::sigstore::certificate::{self, CertificatePolicy};

const NOW: i64 = 1_800_000_000;

struct Scene {
    fulcio: Fulcio,
    log: CtLog,
    root: TrustedRoot,
    template: Template,
}

impl Scene {
    fn new() -> Self {
        let (fulcio, log) = (Fulcio::new(NOW), CtLog::new());
        let json = trusted_root(Some(&fulcio), &[&log], &[], NOW).to_string();
        let root = TrustedRoot::from_json(json.as_bytes()).unwrap();
        let template = template(SigningKey::p256().spki(), "spiffe://example.org/a", "https://a.example", NOW);
        Self { fulcio, log, root, template }
    }

    /// The promise of this log at this time, in seconds after the certificate's beginning.
    fn promise(&self, log: &CtLog, after: i64) -> MadeSct {
        log.sct_of_precertificate(&self.template, &self.fulcio.intermediate, (NOW + after) * 1000 + 1)
    }

    fn certificate(&self, scts: &[MadeSct]) -> FulcioCertificate {
        let mut template = self.template.clone();
        if !scts.is_empty() {
            template = template.with(vec![list_extension(scts)]);
        }
        self.accepted(&template)
    }

    fn accepted(&self, template: &Template) -> FulcioCertificate {
        let leaf = [self.fulcio.issue(template).into()];
        certificate::verify(&leaf, &self.root, UnixTime(NOW), &CertificatePolicy::FRESH).unwrap()
    }

    fn judge(&self, scts: &[MadeSct], required: usize) -> Result<usize, &'static str> {
        let verified = verify_embedded(&self.certificate(scts), &self.root, SctPolicy { required });
        verified.map(|scts| scts.len()).map_err(|error| error.reason())
    }
}

#[test]
fn a_promise_of_a_pinned_log_counts_wherever_it_stands_among_the_extensions() {
    let scene = Scene::new();
    let sct = scene.promise(&scene.log, 0);
    let list = list_extension(std::slice::from_ref(&sct));
    for position in 0..=scene.template.extensions.len() {
        let mut template = scene.template.clone();
        template.extensions.insert(position, list.clone());
        let verified = verify_embedded(&scene.accepted(&template), &scene.root, SctPolicy::default()).unwrap();
        assert_eq!(verified, [VerifiedSct { log_id: scene.log.id(), time: UnixTime(NOW) }]);
    }
}

#[test]
fn none_a_strangers_or_a_false_one_is_refused_by_name() {
    let scene = Scene::new();
    let good = scene.promise(&scene.log, 0);
    let foreign = scene.promise(&CtLog::new(), 0);
    let mut false_signature = foreign.clone();
    false_signature.log_id = scene.log.id();
    let mut other_algorithm = good.clone();
    other_algorithm.algorithm = [2, 3];
    let mut later = good.clone();
    later.milliseconds += 1;
    let of_certificate = scene.log.sct_of_certificate(&scene.fulcio.issue(&scene.template), NOW * 1000);
    for (scts, verdict) in [
        (vec![good.clone()], Ok(1)),
        (vec![foreign.clone(), good.clone()], Ok(1)),
        (vec![], Err("sct_missing")),
        (vec![foreign.clone()], Err("sct_unknown_log")),
        (vec![false_signature.clone()], Err("sct_signature")),
        (vec![good.clone(), false_signature], Err("sct_signature")),
        (vec![other_algorithm], Err("sct_signature")),
        (vec![later], Err("sct_signature")),
        (vec![of_certificate], Err("sct_signature")),
        (vec![scene.promise(&scene.log, -301)], Err("sct_time")),
        (vec![scene.promise(&scene.log, 901)], Err("sct_time")),
        (vec![scene.promise(&scene.log, -299)], Ok(1)),
    ] {
        assert_eq!(scene.judge(&scts, 1), verdict);
    }
    // The same log twice is one log.
    assert_eq!(scene.judge(&[good.clone(), good.clone()], 2), Err("sct_too_few"));
    assert_eq!(scene.judge(&[], 0), Ok(0));
    assert_eq!(scene.judge(&[foreign], 0), Ok(0));
}

#[test]
fn a_promise_over_another_certificate_or_of_another_issuer_is_false() {
    let scene = Scene::new();
    let mut other = scene.template.clone();
    other.serial[1] ^= 1;
    let sct = scene.log.sct_of_precertificate(&other, &scene.fulcio.intermediate, NOW * 1000);
    assert_eq!(scene.judge(&[sct], 1), Err("sct_signature"));
    let sct = scene.log.sct_of_precertificate(&scene.template, &scene.fulcio.root, NOW * 1000);
    assert_eq!(scene.judge(&[sct], 1), Err("sct_signature"));
}

#[test]
fn a_log_counts_in_its_window_alone() {
    let mut scene = Scene::new();
    let sct = scene.promise(&scene.log, 0);
    scene.root.ct_logs[0].valid_for.end = Some(UnixTime(NOW - 1));
    assert_eq!(scene.judge(std::slice::from_ref(&sct), 1), Err("sct_time"));
    // Pinned for another span as well, whichever comes first in the file.
    let mut again = scene.root.ct_logs[0].clone();
    again.valid_for = crate::sigstore::trusted_root::ValidFor { start: UnixTime(NOW), end: None };
    scene.root.ct_logs.push(again);
    assert_eq!(scene.judge(&[sct], 1), Ok(1));
}

#[test]
fn a_list_that_is_none_is_refused() {
    let scene = Scene::new();
    let good = scene.promise(&scene.log, 0).to_bytes();
    let octets = testkit::sigstore::der::octets;
    for value in [
        octets(&[]),
        octets(&[0, 0]),
        octets(&[0, 1, 0]),
        octets(&[&[0, 3][..], &[0, 1], &[0]].concat()),
        octets(&good),
    ] {
        let template = scene.template.clone().with(vec![extension(testkit::sigstore::ct::LIST, false, &value)]);
        let judged = verify_embedded(&scene.accepted(&template), &scene.root, SctPolicy { required: 0 });
        assert_eq!(judged, Err(SctError::Malformed), "{value:02x?}");
    }
}

#[test]
fn a_promise_beside_the_certificate_is_over_the_certificate() {
    let scene = Scene::new();
    let certificate = scene.certificate(&[]);
    let judge = |json: &str| {
        let verified = verify_detached(&certificate, json.as_bytes(), &scene.root, SctPolicy::default());
        verified.map(|scts| scts.len()).map_err(|error| error.reason())
    };
    let good = scene.log.sct_of_certificate(&certificate.leaf, NOW * 1000);
    assert_eq!(judge(&good.to_json()), Ok(1));
    assert_eq!(judge(&scene.promise(&scene.log, 0).to_json()), Err("sct_signature"));
    assert_eq!(judge(""), Err("sct_missing"));
    assert_eq!(judge("{}"), Err("sct_malformed"));
    assert_eq!(judge(&good.to_json().replace("\"sct_version\":0", "\"sct_version\":1")), Err("sct_malformed"));
    assert_eq!(
        judge(&CtLog::new().sct_of_certificate(&certificate.leaf, NOW * 1000).to_json()),
        Err("sct_unknown_log")
    );
}

#[test]
fn a_log_may_sign_with_rsa_or_ed25519() {
    for (key, algorithm) in [(SigningKey::rsa(), [4, 1]), (SigningKey::ed25519(), [8, 7])] {
        let mut scene = Scene::new();
        let log = CtLog { key };
        let valid_for = scene.root.ct_logs[0].valid_for;
        let pinned = crate::sigstore::trusted_root::CtLog::new(String::new(), &log.key.spki(), valid_for).unwrap();
        scene.root.ct_logs = vec![pinned];
        let mut sct = scene.promise(&log, 0);
        assert_eq!(scene.judge(std::slice::from_ref(&sct), 1), Err("sct_signature"), "as ECDSA");
        sct.algorithm = algorithm;
        assert_eq!(scene.judge(&[sct], 1), Ok(1));
    }
}
