//! A registry that lies: each lie is called by its name, and none makes an image trusted.

use std::time::Duration;

use rcgen::SigningKey as _;
use serde_json::json;
use stellaops_signer::release::ReleaseError;
use testkit::registry::{BUNDLE, Body, Descriptor, INDEX, MANIFEST, Reply, index, manifest, referrers_path};

use crate::stage::{Stage, check, releases, repository, simple_payload};

/// Changes what the registry says about one good signature; the reason is what is then said of it.
fn with(lie: impl FnOnce(&Stage, &Descriptor, &Descriptor) -> Vec<Descriptor>) -> Result<(), ReleaseError> {
    let stage = Stage::new();
    let layer = stage.registry.blob(BUNDLE, stage.good().to_string().as_bytes());
    let text = manifest(BUNDLE, Some(&stage.image), std::slice::from_ref(&layer)).to_string();
    let signature = stage.registry.manifest(text.as_bytes()).with("artifactType", BUNDLE);
    let list = lie(&stage, &signature, &layer);
    if !list.is_empty() {
        stage.registry.referrers(&stage.image, &list);
    }
    let mut config = stage.config();
    config.timeout = "2s".parse().unwrap();
    check(&releases(&config), &stage.image).map(drop)
}

fn path(kind: &str, descriptor: &Descriptor) -> String {
    format!("/v2/{}/{kind}/{}", testkit::registry::REPOSITORY, descriptor.digest())
}

#[track_caller]
fn untrusted(verdict: Result<(), ReleaseError>, reason: &str) {
    let error = verdict.expect_err(reason);
    assert_eq!((error.code(), error.reason()), ("release_untrusted", reason), "{error}");
}

#[track_caller]
fn unavailable(verdict: Result<(), ReleaseError>, reason: &str) {
    let error = verdict.expect_err(reason);
    assert_eq!((error.code(), error.reason()), ("dependency_unavailable", reason), "{error}");
}

#[test]
fn the_same_without_a_lie_is_trusted() {
    with(|_, signature, _| vec![signature.clone()]).unwrap();
}

#[test]
fn content_with_another_digest_is_not_what_was_asked_for() {
    untrusted(
        with(|stage, signature, _| {
            let other = manifest(BUNDLE, Some(&stage.image), &[]).to_string();
            stage.registry.answer(&path("manifests", signature), Reply::ok(MANIFEST, other.as_bytes()));
            vec![signature.clone()]
        }),
        "release_content_digest",
    );
    untrusted(
        with(|stage, signature, layer| {
            stage.registry.answer(&path("blobs", layer), Reply::ok("application/json", b"{}"));
            vec![signature.clone()]
        }),
        "release_content_digest",
    );
}

#[test]
fn a_header_that_states_the_digest_proves_none() {
    untrusted(
        with(|stage, signature, _| {
            let reply = Reply::ok(MANIFEST, b"{}").header("docker-content-digest", signature.digest());
            stage.registry.answer(&path("manifests", signature), reply);
            vec![signature.clone()]
        }),
        "release_content_digest",
    );
}

#[test]
fn content_of_another_length_is_refused() {
    untrusted(with(|_, signature, _| vec![signature.clone().with("size", 7)]), "release_content_size");
}

#[test]
fn a_manifest_that_is_attached_to_another_image_or_to_none_is_no_signature_of_this_one() {
    let other = format!("sha256:{}", "ab".repeat(32));
    for subject in [Some(other.as_str()), None] {
        untrusted(
            with(|stage, _, layer| {
                let text = manifest(BUNDLE, subject, std::slice::from_ref(layer)).to_string();
                vec![stage.registry.manifest(text.as_bytes()).with("artifactType", BUNDLE)]
            }),
            "release_manifest_subject",
        );
    }
}

#[test]
fn what_declares_itself_as_something_else_is_not_read() {
    untrusted(
        with(|stage, signature, layer| {
            let text = manifest(BUNDLE, Some(&stage.image), std::slice::from_ref(layer)).to_string();
            stage.registry.answer(&path("manifests", signature), Reply::ok("text/html", text.as_bytes()));
            vec![signature.clone()]
        }),
        "release_media_type",
    );
    untrusted(with(|_, signature, _| vec![signature.clone().with("mediaType", INDEX)]), "release_media_type");
    // A manifest that is an index as well would be two things to two readers.
    untrusted(
        with(|stage, _, layer| {
            let mut both = manifest(BUNDLE, Some(&stage.image), std::slice::from_ref(layer));
            both["manifests"] = json!([]);
            vec![stage.registry.manifest(both.to_string().as_bytes()).with("artifactType", BUNDLE)]
        }),
        "release_content_malformed",
    );
    unavailable(
        with(|stage, signature, _| {
            let list = index(std::slice::from_ref(signature));
            stage.registry.answer(&referrers_path(&stage.image), Reply::ok("text/html", list.as_bytes()));
            vec![]
        }),
        "release_media_type",
    );
}

#[test]
fn what_is_no_json_or_says_a_thing_twice_is_not_believed() {
    for text in ["", "[]", "{", "{\"manifests\":[],\"manifests\":[]}", "{\"manifests\":[7]}"] {
        unavailable(
            with(|stage, _, _| {
                stage.registry.answer(&referrers_path(&stage.image), Reply::ok(INDEX, text.as_bytes()));
                vec![]
            }),
            "release_content_malformed",
        );
    }
    untrusted(
        with(|stage, _, layer| {
            let text = manifest(BUNDLE, Some(&stage.image), std::slice::from_ref(layer)).to_string();
            let twice = text.replacen('{', "{\"subject\":null,", 1);
            vec![stage.registry.manifest(twice.as_bytes()).with("artifactType", BUNDLE)]
        }),
        "release_content_malformed",
    );
}

#[test]
fn what_somebody_else_wrote_into_a_list_hides_no_signature() {
    let many: serde_json::Map<_, _> = (0..100).map(|number| (format!("a{number}"), "x".into())).collect();
    let odd = |entry: &Descriptor| {
        let odd =
            |name: &str, value: serde_json::Value| entry.clone().with("digest", digest_of(name)).with(name, value);
        vec![
            odd("annotations", many.clone().into()),
            odd("annotations", json!({ "a": "x".repeat(1 << 17) })),
            odd("annotations", json!({ "dev.cosignproject.cosign/signature": "x".repeat(1 << 17) })),
            odd("artifactType", "x".repeat(300).into()),
            odd("mediaType", "x".repeat(300).into()),
            odd("size", (-1).into()),
            odd("digest", "latest".into()),
        ]
    };
    with(|_, signature, _| [odd(signature), vec![signature.clone()]].concat()).unwrap();
    // The same of the list of layers under cosign's tag.
    let stage = Stage::new();
    let payload = simple_payload(&stage.image);
    let good = stage.simple(&payload, &stage.key.sign(payload.as_bytes()).unwrap());
    stage.tag(&[odd(&good), vec![good]].concat());
    assert_eq!(stage.check().unwrap().evidence().kind(), "simple_signing");
}

fn digest_of(text: &str) -> String {
    format!("sha256:{}", testkit::hex(testkit::sha256(text)))
}

#[test]
fn nothing_is_fetched_from_a_host_that_nobody_configured() {
    let elsewhere = Stage::new();
    elsewhere.registry.answer_by(|_, _| Some(Reply::ok(BUNDLE, b"{}")));
    let place = format!("http://{}/stolen", elsewhere.registry.addr);
    for status in [301, 302, 303, 307, 308] {
        let to = place.clone();
        untrusted(
            with(|stage, signature, layer| {
                stage.registry.answer(&path("blobs", layer), Reply::status(status).header("location", &to));
                vec![signature.clone()]
            }),
            "release_redirect",
        );
    }
    for target in [place.as_str(), "//evil.test/x", "ftp://evil.test/", "", "http://127.0.0.1@evil.test/"] {
        unavailable(
            with(|stage, _, _| {
                let reply = Reply::status(307).header("location", target);
                stage.registry.answer(&referrers_path(&stage.image), reply);
                vec![]
            }),
            "release_redirect",
        );
    }
    unavailable(
        with(|stage, signature, _| {
            let list = index(std::slice::from_ref(signature));
            let next = format!("<{place}>; rel=\"next\"");
            let reply = Reply::ok(INDEX, list.as_bytes()).header("link", &next);
            stage.registry.answer(&referrers_path(&stage.image), reply);
            vec![]
        }),
        "release_link_foreign",
    );
    assert_eq!(elsewhere.registry.exchanges().len(), 0, "nobody came by");
}

#[test]
fn a_redirect_that_the_operator_allows_is_followed_without_the_password() {
    let (stage, storage) = (Stage::new(), Stage::new());
    let text = stage.good().to_string();
    let layer = stage.registry.blob(BUNDLE, text.as_bytes());
    storage.registry.answer("/bucket/x?signature=y", Reply::ok("binary/octet-stream", text.as_bytes()));
    let to = format!("http://{}/bucket/x?signature=y", storage.registry.addr);
    stage.registry.answer(&path("blobs", &layer), Reply::status(307).header("location", &to));
    let body = manifest(BUNDLE, Some(&stage.image), &[layer]).to_string();
    let signature = stage.registry.manifest(body.as_bytes());
    stage.registry.referrers(&stage.image, &[signature]);
    let mut config = stage.config();
    std::fs::write(stage.file("credentials"), "robot:secret\n").unwrap();
    config.repository[0].credentials = Some(stage.file("credentials"));
    config.repository[0].redirects = vec![format!("http://{}", storage.registry.addr)];
    check(&releases(&config), &stage.image).unwrap();
    assert!(stage.registry.exchanges().iter().all(|exchange| exchange.authorization.is_some()));
    assert!(storage.registry.exchanges().iter().all(|exchange| exchange.authorization.is_none()));
    assert_eq!(storage.registry.exchanges().len(), 1);
}

#[test]
fn a_redirect_without_a_host_stays_with_the_host_that_answered() {
    let (stage, storage) = (Stage::new(), Stage::new());
    let text = stage.good().to_string();
    let layer = stage.registry.blob(BUNDLE, text.as_bytes());
    let to = format!("http://{}/one", storage.registry.addr);
    stage.registry.answer(&path("blobs", &layer), Reply::status(307).header("location", &to));
    storage.registry.answer("/one", Reply::status(307).header("location", "/other"));
    storage.registry.answer("/other", Reply::ok("binary/octet-stream", text.as_bytes()));
    let body = manifest(BUNDLE, Some(&stage.image), &[layer]).to_string();
    stage.registry.referrers(&stage.image, &[stage.registry.manifest(body.as_bytes())]);
    let mut config = stage.config();
    config.repository[0].redirects = vec![format!("http://{}", storage.registry.addr)];
    check(&releases(&config), &stage.image).unwrap();
    assert_eq!((storage.registry.count("/other"), stage.registry.count("/other")), (1, 0));
}

#[test]
fn the_password_goes_to_no_token_service_that_nobody_named() {
    let thief = Stage::new();
    thief.registry.answer_by(|_, _| Some(Reply::ok("application/json", b"{\"token\":\"x\"}")));
    let stage = Stage::new();
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"r\"", thief.registry.addr);
    stage.registry.answer_by(move |_, _| Some(Reply::status(401).header("www-authenticate", &realm)));
    std::fs::write(stage.file("credentials"), "robot:secret\n").unwrap();
    let mut config = stage.config();
    config.repository[0].credentials = Some(stage.file("credentials"));
    let error = check(&releases(&config), &stage.image).unwrap_err();
    assert_eq!((error.code(), error.reason()), ("dependency_unavailable", "release_token_service_foreign"));
    assert_eq!(thief.registry.exchanges().len(), 0, "nobody came by");
}

#[test]
fn a_token_of_the_registrys_own_service_is_asked_for_once_and_kept() {
    let stage = Stage::new();
    stage.attach_all(&[stage.good()]);
    let realm =
        format!("Bearer realm=\"http://{}/token\",service=\"r\",scope=\"repository:other:push\"", stage.registry.addr);
    stage.registry.answer_by(move |target, authorization| {
        if target.starts_with("/token?") {
            let right = target.contains("scope=repository%3Ateam%2Fscanner%3Apull")
                && target.contains("service=r")
                && authorization == Some("Basic cm9ib3Q6c2VjcmV0");
            return Some(if right {
                Reply::ok("application/json", b"{\"access_token\":\"abc\",\"expires_in\":300}")
            } else {
                Reply::status(403)
            });
        }
        (authorization != Some("Bearer abc")).then(|| Reply::status(401).header("www-authenticate", &realm))
    });
    std::fs::write(stage.file("credentials"), "robot:secret\n").unwrap();
    let mut config = stage.config();
    config.repository[0].credentials = Some(stage.file("credentials"));
    let releases = releases(&config);
    check(&releases, &stage.image).unwrap();
    assert_eq!(stage.registry.count("/token?"), 1);
    stage.registry.forget();
    let _ = check(&releases, &format!("sha256:{}", "cd".repeat(32)));
    assert_eq!(stage.registry.count("/token?"), 0, "the token is still good");
    // A token that is refused is not shown again and again.
    stage.registry.answer_by(|target, _| {
        Some(if target.starts_with("/token?") { Reply::status(403) } else { Reply::status(401) })
    });
    let error = check(&releases, &format!("sha256:{}", "ef".repeat(32))).unwrap_err();
    assert_eq!((error.code(), error.reason()), ("dependency_unavailable", "release_registry_denied"));
}

#[test]
fn a_registry_that_is_not_there_or_not_well_is_no_verdict() {
    for (status, reason) in [
        (401, "release_registry_denied"),
        (403, "release_registry_denied"),
        (429, "release_registry_status"),
        (500, "release_registry_status"),
        (503, "release_registry_status"),
        (204, "release_registry_status"),
    ] {
        unavailable(
            with(|stage, _, _| {
                stage.registry.answer(&referrers_path(&stage.image), Reply::status(status));
                vec![]
            }),
            reason,
        );
        // The same for a single signature: it might have been a good one.
        unavailable(
            with(|stage, signature, layer| {
                stage.registry.answer(&path("blobs", layer), Reply::status(status));
                vec![signature.clone()]
            }),
            reason,
        );
    }
    untrusted(
        with(|stage, signature, layer| {
            stage.registry.answer(&path("blobs", layer), Reply::status(404));
            vec![signature.clone()]
        }),
        "release_content_missing",
    );
    let stage = Stage::new();
    let mut config = stage.config();
    config.repository = vec![repository("http://127.0.0.1:1/team/scanner")];
    unavailable(check(&releases(&config), &stage.image).map(drop), "release_registry_unreachable");
}

#[test]
fn without_the_referrers_api_the_tag_stands_in_and_its_descriptors_decide_nothing() {
    let stage = Stage::new();
    let signature = stage.attach(&stage.good()).with("artifactType", "application/vnd.example.sbom");
    stage.registry.answer(&referrers_path(&stage.image), Reply::status(404));
    let tag = stage.image.replace(':', "-");
    stage.registry.tag(&tag, INDEX, index(&[signature]).as_bytes());
    assert_eq!(stage.check().unwrap().signed_by(), "release team");
    // No tag: no referrers, and that is certain.
    let stage = Stage::new();
    stage.registry.answer(&referrers_path(&stage.image), Reply::status(404));
    assert_eq!(stage.refusal(), "release_not_signed");
    // Anything but a 404 says nothing of whether there are any.
    for status in [400, 405, 501] {
        let stage = Stage::new();
        stage.registry.answer(&referrers_path(&stage.image), Reply::status(status));
        let error = stage.check().unwrap_err();
        assert_eq!((error.code(), error.reason()), ("dependency_unavailable", "release_registry_status"));
    }
}

#[test]
fn a_signature_that_trickles_hides_no_other() {
    let stage = Stage::new();
    let slow = stage.attach(&stage.bundle(&stage.image, "https://slsa.dev/provenance/v1"));
    let size = slow.0["size"].as_u64().unwrap().try_into().unwrap();
    let drip = Reply::ok(MANIFEST, b"").body(Body::Drip(vec![b' '; size], Duration::from_millis(50)));
    stage.registry.answer(&path("manifests", &slow), drip);
    let good = stage.attach(&stage.good());
    stage.registry.referrers(&stage.image, &[slow.clone(), good]);
    assert_eq!(stage.check().unwrap().signed_by(), "release team");
    stage.registry.referrers(&stage.image, &[slow]);
    let mut config = stage.config();
    config.timeout = "1s".parse().unwrap();
    let error = check(&releases(&config), &stage.image).unwrap_err();
    assert_eq!((error.code(), error.reason()), ("dependency_unavailable", "release_registry_timeout"));
}
