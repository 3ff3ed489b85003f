//! Signatures of the Notary Project, made by ourselves in both encodings: what counts, and what each lie is called.
//! Whether notation agrees is in `notation`.

mod chain;
mod time;

use std::path::PathBuf;

use serde_json::{Value, json};
use stellaops_signer::config::{Notation, Release, ReleaseIdentity};
use stellaops_signer::release::Evidence;
use testkit::notary::{ARTIFACT, COSE, Draft, JWS, Notary, NotaryKey, TRUSTED};
use testkit::registry::{MANIFEST, Reply, manifest};
use testkit::sigstore::der::children;
use testkit::{hex, now, pem, sha256};

use crate::stage::{Stage, check, key_identity, releases};

const DAY: i64 = 86_400;

/// A registry with an image in it, and somebody who signs.
struct World {
    stage: Stage,
    notary: Notary,
    size: usize,
}

impl World {
    fn new() -> Self {
        Self::with(Notary::generate("ES256", now()))
    }

    fn with(notary: Notary) -> Self {
        let mut stage = Stage::new();
        let image = manifest("application/vnd.oci.image.config.v1+json", None, &[]).to_string();
        let image = format!("{image}{}", " ".repeat(usize::from(testkit::random_id().as_bytes()[0])));
        stage.image = format!("sha256:{}", hex(sha256(&image)));
        stage.registry.manifest(image.as_bytes());
        stage.registry.referrers(&stage.image, &[]);
        let world = Self { size: image.len(), stage, notary };
        world.write_store("ca.pem", &[&world.notary.root.certificate]);
        world
    }

    fn write_store(&self, name: &str, certificates: &[&[u8]]) -> PathBuf {
        let text: String = certificates.iter().map(|der| pem("CERTIFICATE", der)).collect();
        std::fs::write(self.stage.file(name), text).unwrap();
        self.stage.file(name)
    }

    fn notation(&self) -> Notation {
        Notation {
            ca: Some(self.stage.file("ca.pem")),
            trusted_identities: vec![TRUSTED.to_owned()],
            ..Notation::default()
        }
    }

    fn config(&self, notation: Notation) -> Release {
        let identity = ReleaseIdentity {
            public_key: None,
            notation: Some(notation),
            ..key_identity("wabbit networks", PathBuf::new())
        };
        Release { identity: vec![identity], ..self.stage.config() }
    }

    fn draft(&self) -> Draft<'_> {
        self.notary.draft(&self.stage.image, self.size, MANIFEST, now())
    }

    /// Attaches one envelope and nothing else.
    fn attach(&self, media_type: &str, envelope: &[u8]) {
        let layer = self.stage.registry.blob(media_type, envelope);
        let text = manifest(ARTIFACT, Some(&self.stage.image), &[layer]).to_string();
        let signature = self.stage.registry.manifest(text.as_bytes()).with("artifactType", ARTIFACT);
        self.stage.registry.referrers(&self.stage.image, &[signature]);
    }

    /// `trusted`, or the reason why not; the same for both encodings.
    fn verdict_by(&self, config: &Release, draft: &Draft<'_>) -> &'static str {
        let said = [(JWS, draft.jws()), (COSE, draft.cose())].map(|(media_type, envelope)| {
            self.attach(media_type, &envelope);
            check(&releases(config), &self.stage.image).map_or_else(|error| error.reason(), |_| "trusted")
        });
        assert_eq!(said[0], said[1], "JWS and COSE");
        said[0]
    }

    fn verdict(&self, draft: &Draft<'_>) -> &'static str {
        self.verdict_by(&self.config(self.notation()), draft)
    }

    /// What is said of an honest signature with these certificates.
    fn verdict_of_chain(&self, chain: Vec<Vec<u8>>) -> &'static str {
        self.verdict(&Draft { chain, ..self.draft() })
    }
}

/// The `TimeStampToken` of a response.
fn token(response: &[u8]) -> Vec<u8> {
    children(children(response)[0].1)[1].2.to_vec()
}

#[test]
fn signatures_of_every_algorithm_count_in_both_encodings() {
    for algorithm in ["ES256", "ES384", "ES512", "PS256", "PS384", "PS512"] {
        let world = World::with(Notary::generate(algorithm, now()));
        for (media_type, envelope, kind) in
            [(JWS, world.draft().jws(), "notary_jws"), (COSE, world.draft().cose(), "notary_cose")]
        {
            world.attach(media_type, &envelope);
            let release = check(&releases(&world.config(world.notation())), &world.stage.image);
            let release = release.unwrap_or_else(|error| panic!("{algorithm} {kind}: {error}"));
            assert_eq!((release.signed_by(), release.evidence().kind()), ("wabbit networks", kind));
            let Evidence::Signature { time, .. } = release.evidence() else { panic!("a signature") };
            assert_eq!(*time, None);
        }
    }
}

#[test]
fn what_was_signed_is_the_image_as_the_registry_has_it() {
    let world = World::new();
    let other = format!("sha256:{}", "ab".repeat(32));
    let draft = |image: &str, size, kind| world.notary.draft(image, size, kind, now());
    let image = &world.stage.image;
    assert_eq!(world.verdict(&draft(&other, world.size, MANIFEST)), "release_other_image");
    assert_eq!(world.verdict(&draft(image, world.size + 1, MANIFEST)), "release_target");
    assert_eq!(world.verdict(&draft(image, world.size, testkit::registry::INDEX)), "release_target");
    for payload in [
        "[]",
        "{}",
        r#"{"targetArtifact":{"digest":"x","size":1}}"#,
        r#"{"targetArtifact":{"digest":"x","size":"1","mediaType":"y"}}"#,
        r#"{"targetArtifact":1,"targetArtifact":2}"#,
    ] {
        let draft = Draft { payload: payload.into(), ..world.draft() };
        assert_eq!(world.verdict(&draft), "release_payload", "{payload}");
    }
    // What else a signer says in it is the signer's.
    let more = String::from_utf8(world.draft().payload)
        .unwrap()
        .replace("{\"digest\"", "{\"annotations\":{\"a\":\"b\"},\"digest\"");
    assert!(more.contains("annotations"));
    assert_eq!(world.verdict(&Draft { payload: more.into_bytes(), ..world.draft() }), "trusted");

    // The image itself must be there, and be it.
    let path = format!("/v2/team/scanner/manifests/{image}");
    world.stage.registry.answer(&path, Reply::ok(MANIFEST, b"{}"));
    assert_eq!(world.verdict(&world.draft()), "release_content_digest");
    world.stage.registry.answer(&path, Reply::status(404));
    assert_eq!(world.verdict(&world.draft()), "release_content_missing");
}

#[test]
fn what_was_changed_after_it_was_signed_does_not_count() {
    let world = World::new();
    let config = world.config(world.notation());
    let said = |media_type: &str, envelope: &[u8]| {
        world.attach(media_type, envelope);
        check(&releases(&config), &world.stage.image).map_or_else(|error| error.reason(), |_| "trusted")
    };
    let other = Draft { payload: b"{\"targetArtifact\":{}}".to_vec(), ..world.draft() }.jws_json();
    for part in ["payload", "signature"] {
        let mut mixed = world.draft().jws_json();
        mixed[part] = other[part].clone();
        assert_eq!(said(JWS, mixed.to_string().as_bytes()), "release_signature_invalid", "{part}");
    }
    let mut mixed = world.draft().jws_json();
    mixed["protected"] = world.draft().expiring(now() + DAY).jws_json()["protected"].clone();
    assert_eq!(said(JWS, mixed.to_string().as_bytes()), "release_signature_invalid");
    // A byte of the payload, then of the signature.
    let cose = world.draft().cose();
    let at = cose.windows(6).position(|bytes| bytes == b"sha256").unwrap();
    for at in [at + 10, cose.len() - 1] {
        let mut changed = cose.clone();
        changed[at] ^= 1;
        assert_eq!(said(COSE, &changed), "release_signature_invalid", "{at}");
    }
    let stranger = NotaryKey::generate("ES256");
    assert_eq!(world.verdict(&Draft { key: &stranger, ..world.draft() }), "release_signature_invalid");
}

#[test]
fn critical_attributes_are_there_marked_and_understood() {
    let world = World::new();
    let at = |name: &str| format!("io.cncf.notary.{name}");
    let scheme = at("signingScheme");
    let future = testkit::sigstore::der::rfc3339(now() + DAY);
    let expiry = |crit: Value| world.draft().with(&at("expiry"), future.clone().into()).with("crit", crit);
    assert_eq!(world.verdict(&world.draft().expiring(now() + DAY)), "trusted");
    for (lie, draft) in [
        ("no list", world.draft().with("crit", Value::Null)),
        ("an empty list", world.draft().with("crit", json!([]))),
        ("the expiry is not in it", expiry(json!([scheme]))),
        ("the scheme is not in it", expiry(json!([at("expiry")]))),
        ("it names what is not there", world.draft().with("crit", json!([scheme, at("expiry")]))),
        ("it names something twice", world.draft().with("crit", json!([scheme, scheme]))),
        ("it names what nobody knows", world.draft().with("crit", json!([scheme, "x.y"])).with("x.y", "z".into())),
        ("it names what everybody knows", world.draft().with("crit", json!([scheme, "alg"]))),
        ("it wants a plugin", world.draft().with(&at("verificationPlugin"), "com.example.x".into())),
        ("it wants a plugin's version", world.draft().with(&at("verificationPluginMinVersion"), "1.0.0".into())),
        ("another scheme", world.draft().with(&scheme, "notary.x510".into())),
    ] {
        assert_eq!(world.verdict(&draft), "release_critical_attribute", "{lie}");
    }
    let list = (0..33).map(|n| format!("x.{n}")).collect::<Vec<_>>();
    for (lie, draft) in [
        ("no scheme", world.draft().with(&scheme, Value::Null).with("crit", json!([]))),
        ("no content type", world.draft().with("cty", Value::Null)),
        ("another content type", world.draft().with("cty", "text/plain".into())),
        ("no algorithm", world.draft().with("alg", Value::Null)),
        ("no signing time", world.draft().with(&at("signingTime"), Value::Null)),
        ("a long list", world.draft().with("crit", json!(list))),
        (
            "the time of the other scheme beside",
            world
                .draft()
                .with(&at("authenticSigningTime"), future.clone().into())
                .with("crit", json!([scheme, at("authenticSigningTime")])),
        ),
    ] {
        assert_eq!(world.verdict(&draft), "release_signature_malformed", "{lie}");
    }
    for algorithm in ["none", "HS256", "RS256", "es256"] {
        let draft = world.draft().with("alg", algorithm.into());
        assert_eq!(world.verdict(&draft), "release_signature_algorithm", "{algorithm}");
    }
    assert_eq!(world.verdict(&world.draft().with("alg", "ES384".into())), "release_signature_algorithm");
    // What is not critical and not known is somebody else's.
    assert_eq!(world.verdict(&world.draft().with("x.y", "z".into())), "trusted");
}

#[test]
fn whose_signatures_count_is_said_by_trust_store_and_subject() {
    let world = World::new();
    let by = |notation: Notation| world.verdict_by(&world.config(notation), &world.draft());
    let stranger = Notary::generate("ES256", now());
    let ca = Some(world.write_store("stranger.pem", &[&stranger.root.certificate]));
    assert_eq!(by(Notation { ca, ..world.notation() }), "release_certificate_untrusted");
    // With the right root behind a stranger's certificate it is not the root that has signed it.
    let chain = vec![stranger.chain[0].clone(), world.notary.root.certificate.clone()];
    assert_eq!(world.verdict(&Draft { key: &stranger.key, chain, ..world.draft() }), "release_certificate");
    for (identity, verdict) in [
        ("*", "trusted"),
        ("x509.subject: C=US, ST=WA, O=wabbit-networks.io, CN=release", "trusted"),
        ("x509.subject: C=US, ST=WA, O=wabbit-networks.io, CN=other", "release_identity_mismatch"),
        ("x509.subject: C=US, ST=WA, O=wabbit-networks.io, L=Seattle", "release_identity_mismatch"),
        ("x509.subject: C=DE, ST=WA, O=wabbit-networks.io", "release_identity_mismatch"),
        ("x509.subject: C=US, ST=WA, O=Wabbit-Networks.io", "release_identity_mismatch"),
    ] {
        let trusted_identities = vec![identity.to_owned()];
        assert_eq!(by(Notation { trusted_identities, ..world.notation() }), verdict, "{identity}");
    }
    let either = vec!["x509.subject: C=DE, ST=BE, O=x".to_owned(), TRUSTED.to_owned()];
    assert_eq!(by(Notation { trusted_identities: either, ..world.notation() }), "trusted");
    for key in [world.notary.key.spki(), world.notary.root.key.spki()] {
        let revoked = vec![format!("sha256:{}", hex(sha256(key)))];
        assert_eq!(by(Notation { revoked, ..world.notation() }), "release_certificate_revoked");
    }
}

#[test]
fn an_envelope_larger_than_any_is_not_fetched() {
    let world = World::new();
    let config = world.config(world.notation());
    for media_type in [JWS, COSE] {
        world.attach(media_type, &vec![b' '; (1 << 20) + 1]);
        assert_eq!(check(&releases(&config), &world.stage.image).unwrap_err().reason(), "release_content_too_large");
        assert_eq!(world.stage.registry.count("/blobs/"), 0);
    }
}

#[test]
fn without_an_identity_for_it_none_is_fetched() {
    let world = World::new();
    world.attach(JWS, &world.draft().jws());
    assert_eq!(world.stage.refusal(), "release_signer_unknown");
    assert_eq!(world.stage.registry.count("/blobs/"), 0);
}

#[test]
fn the_image_is_fetched_once_for_many_signatures_and_in_the_third_round_trip() {
    let world = World::new();
    let signatures: Vec<_> = (0..6)
        .map(|n| {
            let envelope = world.draft().with("alg", if n == 5 { "ES256" } else { "ES384" }.into());
            let layer = world.stage.registry.blob(JWS, &envelope.with("n", n.into()).jws());
            let text = manifest(ARTIFACT, Some(&world.stage.image), &[layer]).to_string();
            world.stage.registry.manifest(text.as_bytes()).with("artifactType", ARTIFACT)
        })
        .collect();
    world.stage.registry.referrers(&world.stage.image, &signatures);
    world.stage.registry.delay(std::time::Duration::from_millis(50));
    assert!(check(&releases(&world.config(world.notation())), &world.stage.image).is_ok());
    assert_eq!(world.stage.registry.count(&format!("/manifests/{}", world.stage.image)), 1);
    assert_eq!(world.stage.registry.round_trips(), 3);
}

#[test]
fn a_manifest_says_that_it_is_a_signature_and_has_one_layer() {
    let world = World::new();
    let envelope = world.draft().jws();
    let config = world.config(world.notation());
    let registry = &world.stage.registry;
    let layer = registry.blob(JWS, &envelope);
    let other = registry.blob(COSE, &world.draft().cose());
    let said = |text: String| {
        // As a list of a registry without artifact types has it.
        let signature = registry.manifest(text.as_bytes());
        registry.referrers(&world.stage.image, &[signature]);
        check(&releases(&config), &world.stage.image).map_or_else(|error| error.reason(), |_| "trusted")
    };
    let image = Some(&*world.stage.image);
    let good = manifest(ARTIFACT, image, std::slice::from_ref(&layer));
    assert_eq!(said(good.to_string()), "trusted");
    // As notation writes it for registries of OCI 1.0: by the type of its config.
    let mut legacy = good.clone();
    legacy.as_object_mut().unwrap().remove("artifactType");
    legacy["config"]["mediaType"] = ARTIFACT.into();
    assert_eq!(said(legacy.to_string()), "trusted");
    for (manifest, reason) in [
        (manifest(ARTIFACT, image, &[layer.clone(), other.clone()]), "release_not_a_signature"),
        (manifest(ARTIFACT, image, &[layer.clone(), other.with("size", "x")]), "release_not_a_signature"),
        (manifest(ARTIFACT, image, &[]), "release_not_a_signature"),
        (manifest("application/vnd.example", image, std::slice::from_ref(&layer)), "release_not_a_signature"),
        (manifest(ARTIFACT, None, std::slice::from_ref(&layer)), "release_manifest_subject"),
        (manifest(ARTIFACT, image, &[registry.blob("text/plain", &envelope)]), "release_not_a_signature"),
        // Said to be in the other encoding.
        (manifest(ARTIFACT, image, &[registry.blob(COSE, &envelope)]), "release_signature_malformed"),
    ] {
        assert_eq!(said(manifest.to_string()), reason);
    }
}

#[test]
fn a_snapshot_carries_what_a_signature_is_compared_with() {
    let world = World::new();
    world.attach(COSE, &world.draft().cose());
    let key = rcgen::KeyPair::generate().unwrap();
    std::fs::write(world.stage.file("snapshot.pub"), key.public_key_pem()).unwrap();
    let online = world.config(world.notation());
    let image = world.stage.image.parse().unwrap();
    let lasts = std::time::Duration::from_secs(3600);
    let taken =
        testkit::runtime().block_on(releases(&online).snapshot(&[image], lasts, key.serialize_pem().as_bytes()));
    let (text, signatures) = taken.unwrap();
    assert_eq!(signatures, 1);
    std::fs::write(world.stage.file("snapshot.json"), text).unwrap();
    let site = Release {
        repository: Vec::new(),
        snapshot: Some(stellaops_signer::config::ReleaseSnapshot {
            file: world.stage.file("snapshot.json"),
            public_key: world.stage.file("snapshot.pub"),
            max_age: online.trusted_ttl,
        }),
        ..online
    };
    let release = check(&releases(&site), &world.stage.image).unwrap();
    assert_eq!((release.signed_by(), release.evidence().kind()), ("wabbit networks", "notary_cose"));
}
