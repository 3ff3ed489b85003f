//! A site without a registry: signatures come along in a file.

use std::time::Duration;

use rcgen::KeyPair;
use stellaops_signer::config::{Release, ReleaseSnapshot};
use stellaops_signer::release::{Evidence, TakeError};
use testkit::runtime;

use crate::stage::{Stage, check, releases};

struct Site {
    stage: Stage,
    curator: KeyPair,
}

impl Site {
    fn new() -> Self {
        let stage = Stage::new();
        stage.attach_all(&[stage.good(), stage.bundle(&stage.image, "https://slsa.dev/provenance/v1")]);
        let curator = KeyPair::generate().unwrap();
        std::fs::write(stage.file("curator.pub"), curator.public_key_pem()).unwrap();
        Self { stage, curator }
    }

    fn take(&self, lasts: Duration, key: &KeyPair) -> Result<usize, TakeError> {
        let images = [self.stage.image.parse().unwrap()];
        let taken = runtime().block_on(self.stage.releases().snapshot(&images, lasts, key.serialize_pem().as_bytes()));
        let (text, count) = taken?;
        std::fs::write(self.stage.file("snapshot.json"), text).unwrap();
        Ok(count)
    }

    /// Without a registry.
    fn offline(&self) -> Release {
        Release {
            repository: Vec::new(),
            snapshot: Some(ReleaseSnapshot {
                file: self.stage.file("snapshot.json"),
                public_key: self.stage.file("curator.pub"),
                max_age: "1d".parse().unwrap(),
            }),
            ..self.stage.config()
        }
    }

    #[track_caller]
    fn refused(&self, config: &Release) -> (&'static str, &'static str) {
        let error = check(&releases(config), &self.stage.image).expect_err("it must not be trusted");
        (error.code(), error.reason())
    }
}

const DAY: Duration = Duration::from_secs(86400);

#[test]
fn a_snapshot_carries_what_counts_and_is_judged_by_the_sites_own_identities() {
    let site = Site::new();
    assert_eq!(site.take(DAY, &site.curator).unwrap(), 1, "the attestation stays at home");
    site.stage.registry.forget();
    let release = check(&releases(&site.offline()), &site.stage.image).unwrap();
    assert_eq!(release.signed_by(), "release team");
    let Evidence::Signature { found_in, .. } = release.evidence() else { panic!("a signature") };
    assert_eq!(&**found_in, "snapshot");
    assert_eq!(site.stage.registry.exchanges().len(), 0, "nobody was asked");
    // Another identity at the site: the snapshot adds no trust.
    let mut config = site.offline();
    std::fs::write(site.stage.file("other.pub"), KeyPair::generate().unwrap().public_key_pem()).unwrap();
    config.identity[0].public_key = Some(site.stage.file("other.pub"));
    assert_eq!(site.refused(&config), ("release_untrusted", "release_signer_unknown"));
}

#[test]
fn a_snapshot_that_nobody_signed_or_that_is_too_old_says_nothing() {
    let site = Site::new();
    assert_eq!(site.refused(&site.offline()), ("dependency_unavailable", "release_snapshot"), "there is no file");
    site.take(DAY, &KeyPair::generate().unwrap()).unwrap();
    assert_eq!(site.refused(&site.offline()), ("dependency_unavailable", "release_snapshot"), "signed by a stranger");
    site.take(DAY, &site.curator).unwrap();
    let text = std::fs::read_to_string(site.stage.file("snapshot.json")).unwrap();
    let mut envelope: serde_json::Value = serde_json::from_str(&text).unwrap();
    let payload = testkit::from_base64(envelope["payload"].as_str().unwrap()).unwrap();
    let altered = String::from_utf8(payload).unwrap().replace("\"expires\":\"2", "\"expires\":\"3");
    envelope["payload"] = testkit::base64(altered).into();
    std::fs::write(site.stage.file("snapshot.json"), envelope.to_string()).unwrap();
    assert_eq!(site.refused(&site.offline()), ("dependency_unavailable", "release_snapshot"), "altered");
    site.take(Duration::ZERO, &site.curator).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(site.refused(&site.offline()), ("dependency_unavailable", "release_snapshot_expired"));
}

#[test]
fn an_image_without_a_signature_that_counts_is_not_taken_along() {
    let site = Site::new();
    site.stage.attach_all(&[site.stage.bundle(&site.stage.image, "https://slsa.dev/provenance/v1")]);
    let Err(TakeError::Image(error)) = site.take(DAY, &site.curator) else { panic!("it has no release signature") };
    assert_eq!(error.reason(), "release_predicate_type");
    let mut revoked = site.stage.config();
    revoked
        .revoked
        .push(stellaops_signer::config::RevokedDigest { digest: site.stage.image.clone(), reason: "CVE".to_owned() });
    assert_eq!(site.refused(&revoked), ("release_untrusted", "release_revoked"));
}

#[test]
fn where_the_snapshot_knows_nothing_the_repositories_are_asked() {
    let site = Site::new();
    site.take(DAY, &site.curator).unwrap();
    let other = Stage::new();
    other.attach_all(&[other.good()]);
    let mut config = site.offline();
    config.repository = other.config().repository;
    config.identity.extend(other.config().identity);
    let releases = releases(&config);
    check(&releases, &site.stage.image).unwrap();
    check(&releases, &other.image).unwrap();
    assert_eq!(other.registry.count(&site.stage.image), 0, "the snapshot sufficed for the first");
}

#[test]
fn a_verdict_of_a_snapshot_ends_with_the_age_that_the_site_lets_it_have() {
    let site = Site::new();
    site.take(DAY, &site.curator).unwrap();
    let mut config = site.offline();
    // Counted from when it was made: long enough that a busy machine comes to the first look in time.
    config.snapshot.as_mut().unwrap().max_age = "6s".parse().unwrap();
    let releases = releases(&config);
    check(&releases, &site.stage.image).unwrap();
    let begun = std::time::Instant::now();
    let refused = loop {
        match check(&releases, &site.stage.image) {
            Ok(_) => assert!(begun.elapsed() < Duration::from_secs(20), "it is used for `trusted_ttl` all the same"),
            Err(error) => break error,
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!((refused.code(), refused.reason()), ("dependency_unavailable", "release_snapshot_expired"));
}

#[test]
fn of_many_signatures_of_one_image_a_few_are_taken_along() {
    let site = Site::new();
    let many: Vec<_> = (0..10).map(|_| site.stage.good()).collect();
    site.stage.attach_all(&many);
    assert_eq!(site.take(DAY, &site.curator).unwrap(), 4);
    check(&releases(&site.offline()), &site.stage.image).unwrap();
}

#[test]
fn a_snapshot_that_no_site_could_read_is_not_made() {
    let site = Site::new();
    let Err(error) = site.take(Duration::MAX, &site.curator) else { panic!("there is no such date") };
    assert!(error.to_string().contains("--valid"), "{error}");
}
