//! One flow from end to end, with helpers that do what a test wrote down, and a Fulcio that is a listening socket.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use signer_keyless::wire::{
    Bounds, Failed, FailureKind, FromHelper, Job, Layer, Layers, Sealed, Signed, Step, ToHelper, Token, Transport,
    encode_to_helper,
};

use super::super::identity::jwt;
use super::super::testing::{Act, FakeFulcio, ISSUER, SAN, Says, script, sealed, starts};
use super::super::*;
use crate::clock::UnixTime;
use crate::config::{self, Config};
use crate::telemetry::Metrics;
use std::sync::atomic::Ordering::Relaxed;

const MESSAGE: &[u8] = b"DSSEv1 what is signed";

struct World {
    folder: tempfile::TempDir,
    fulcio: FakeFulcio,
    /// Takes connections and says nothing: a scripted helper does not speak to it.
    listener: Option<TcpListener>,
    address: String,
    metrics: Metrics,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fulcio = FakeFulcio::new();
        std::fs::write(folder.path().join("root.json"), fulcio.trusted_root()).unwrap();
        let claims = format!("{{\"iss\":\"{ISSUER}\",\"aud\":\"sigstore\",\"exp\":{}}}", UnixTime::now().0 + 600);
        std::fs::write(folder.path().join("token"), jwt(&claims)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Self { folder, fulcio, listener: Some(listener), address, metrics: Metrics::new() }
    }

    fn config(&self, more: &str) -> Config {
        let at = |file: &str| self.folder.path().join(file).display().to_string();
        let text = format!(
            "[keyless]\nfulcio_url = 'http://{}'\ntrusted_root = '{}'\nhelper = '{}'\nsct = 'optional'\n{more}\n[keyless.identity.main]\nissuer = '{ISSUER}'\nsource = {{ file = '{}' }}\n\
             [tenants.acme]\npredicate_types = ['*']\ndefault_mode = 'keyless'\n\
             [tenants.acme.keyless]\nidentity = 'main'\nsan = '{SAN}'\n\
             [tenants.globex]\npredicate_types = ['*']\ndefault_mode = 'keyless'\n\
             [tenants.globex.keyless]\nidentity = 'main'\nsan = '{SAN}'\n",
            self.address,
            at("root.json"),
            at("signer-keyless"),
            at("token"),
        );
        config::testing::minimal(&text)
    }

    fn keyless(&self, acts: &[Act<'_>], more: &str) -> Keyless {
        script(self.folder.path(), acts);
        let once = if more.contains("attempts") { "" } else { "attempts = 1\n" };
        let config = self.config(&format!("{once}{more}"));
        let custody = Arc::new(Custody::new(&config).unwrap());
        Keyless::new(&config, &custody, &self.metrics.keyless).unwrap().unwrap()
    }

    /// Bytes of the frame with the job.
    fn job(&self) -> usize {
        let token = std::fs::read_to_string(self.folder.path().join("token")).unwrap();
        let job = ToHelper::Job(Job {
            transport: Transport::PlainLoopback,
            authority: &self.address,
            path: "/api/v2/signingCert",
            token: Token::new(&token).unwrap(),
            digest: [0; 32],
            bounds: Bounds { answer: 1, signatures: 1 },
        });
        encode_to_helper(&job).unwrap().len()
    }

    fn answer(&self, says: &Says) -> Signed {
        self.fulcio.answer(MESSAGE, says)
    }
}

fn digest() -> [u8; 32] {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, MESSAGE).as_ref().try_into().unwrap()
}

async fn sign(keyless: &Keyless) -> Result<KeylessSigned, KeylessError> {
    sign_for(keyless, "acme", None).await
}

async fn sign_for(keyless: &Keyless, tenant: &str, life: Option<Duration>) -> Result<KeylessSigned, KeylessError> {
    let who = keyless.resolve(tenant).unwrap();
    keyless.sign(&who, &digest(), life, Instant::now() + Duration::from_secs(20)).await
}

/// Polls, for ten seconds at most.
async fn wait_until(what: &str, met: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !met() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether no process runs this program any more. It is polled: reaping takes a moment.
fn none_left(folder: &Path) {
    let program = folder.join("signer-keyless").display().to_string();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let left = std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&program)
        });
        if !left {
            return;
        }
        assert!(Instant::now() < deadline, "a helper is left behind");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn what_a_right_helper_answers_is_believed_after_it_was_judged() {
    let world = World::new();
    let right = world.answer(&Says::default());
    let (der, answer) = (right.certificates[0].clone(), FromHelper::Signed(right));
    let keyless = world.keyless(&[Act::Say(&sealed()), Act::Hear(world.job()), Act::Say(&answer)], "");
    let signed = sign(&keyless).await.unwrap();
    assert_eq!((signed.issued.san.as_str(), signed.issued.issuer.as_str(), signed.reused), (SAN, ISSUER, false));
    assert_eq!(*signed.issued.leaf, *der);
    assert_eq!(signed.issued.chain.len(), 2);
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
    assert_eq!(signed.issued.sha256, hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let text = world.metrics.render().unwrap();
    for line in ["signer_keyless_certs_issued_total 1", "signer_keyless_sign_total 1", "signer_keyless_flows 0"] {
        assert!(text.contains(line), "{line} in {text}");
    }
    none_left(world.folder.path());
}

#[tokio::test]
async fn nothing_that_is_wrong_with_an_answer_passes_and_each_has_its_reason() {
    let world = World::new();
    let stranger = FakeFulcio::new();
    let right = || world.answer(&Says::default());
    let cases: Vec<(&str, Signed)> = vec![
        ("certificate_untrusted", stranger.answer(MESSAGE, &Says::default())),
        (
            "certificate_san_mismatch",
            world.answer(&Says { sans: vec!["spiffe://example.org/other"], ..Says::default() }),
        ),
        ("certificate_san_count", world.answer(&Says { sans: vec![SAN, "spiffe://example.org/b"], ..Says::default() })),
        ("certificate_oidc_issuer_mismatch", world.answer(&Says { issuer: "https://evil.example", ..Says::default() })),
        ("certificate_expired", world.answer(&Says { valid: (-600, -60), ..Says::default() })),
        ("certificate_not_yet_valid", world.answer(&Says { valid: (300, 600), ..Says::default() })),
        ("certificate_lifetime", world.answer(&Says { valid: (-5, 7200), ..Says::default() })),
        ("certificate_key_mismatch", Signed { public_key: right().public_key, ..right() }),
        ("certificate_key_mismatch", Signed { public_key: [4; 65], ..right() }),
        ("certificate_malformed", Signed { certificates: vec![vec![0x30, 0]], ..right() }),
        ("signature_invalid", Signed { signature: vec![0x30, 6, 2, 1, 1, 2, 1, 1], ..right() }),
        (
            "signature_invalid",
            Signed { signature: world.fulcio.answer(b"other", &Says::default()).signature, ..right() },
        ),
    ];
    for (reason, signed) in cases {
        let answer = FromHelper::Signed(signed);
        let keyless = world.keyless(&[Act::Say(&sealed()), Act::Hear(world.job()), Act::Say(&answer)], "");
        let error = sign(&keyless).await.unwrap_err();
        assert_eq!((error.reason(), error.code(), error.step()), (reason, "signing_unavailable", FlowStep::Answered));
        assert_eq!(keyless.status().circuit, CircuitState::Closed);
    }
    none_left(world.folder.path());
}

#[tokio::test]
async fn a_certificate_without_an_sct_is_refused_where_one_is_required() {
    let world = World::new();
    let config = world.config("").keyless.unwrap();
    let mut pins = config.clone();
    pins.sct = config::SctPolicy::Required;
    let root = TrustedRoot::load(&config.trusted_root).unwrap();
    let pins = Pins::new(root, &pins);
    let expected = sigstore::Identity { san: SAN.to_owned(), issuer: ISSUER.to_owned() };
    let refused = pins.judge(&world.answer(&Says::default()), &expected, &digest(), UnixTime::now()).unwrap_err();
    assert_eq!(refused.reason(), "sct_missing");
}

#[tokio::test]
async fn an_sct_beside_the_certificate_does_not_stand_for_one_in_it_and_must_be_right() {
    let world = World::new();
    let config = world.config("").keyless.unwrap();
    let log = testkit::sigstore::CtLog::new();
    let mut root = TrustedRoot::load(&config.trusted_root).unwrap();
    let valid_for = sigstore::trusted_root::ValidFor { start: UnixTime(0), end: None };
    let pinned = sigstore::trusted_root::CtLog::new(String::new(), &log.key.spki(), valid_for).unwrap();
    root.ct_logs.push(pinned);
    let expected = sigstore::Identity { san: SAN.to_owned(), issuer: ISSUER.to_owned() };
    let now = UnixTime::now();
    for (policy, of, reason) in [
        (config::SctPolicy::Required, MESSAGE, Err("sct_detached")),
        (config::SctPolicy::Optional, MESSAGE, Ok(())),
        (config::SctPolicy::Optional, b"other", Err("sct_signature")),
    ] {
        let mut settings = config.clone();
        settings.sct = policy;
        let mut answer = world.answer(&Says::default());
        let certificate = if of == MESSAGE { &answer.certificates[0] } else { &answer.certificates[1] };
        answer.sct = Some(log.sct_of_certificate(certificate, now.0 * 1000).to_json().into_bytes());
        let judged = Pins::new(root.clone(), &settings).judge(&answer, &expected, &digest(), now);
        assert_eq!(judged.map(drop).map_err(|error| error.reason()), reason);
    }
}

#[tokio::test]
async fn a_helper_that_fails_at_any_step_is_named_with_that_step_and_gone() {
    let world = World::new();
    let (seal, out_of_turn) = (sealed(), FromHelper::Signature(vec![1]));
    let failed = |step, kind| FromHelper::Failed(Failed::new(step, kind, "what it says"));
    let unsealed = Layers::all().iter().filter(|layer| *layer != Layer::Seccomp).collect();
    let unsealed = FromHelper::Sealed(Sealed { layers: unsealed, landlock_abi: 0, uid: 1 });
    let (sandbox, key) = (failed(Step::Seal, FailureKind::Sandbox), failed(Step::Sign, FailureKind::Crypto));
    let refused = failed(Step::Answer, FailureKind::Refused);
    let timed_out = failed(Step::Answer, FailureKind::TimedOut);
    let cases: Vec<(&str, FlowStep, Vec<Act<'_>>)> = vec![
        ("keyless_helper_failed", FlowStep::Spawned, vec![]),
        ("keyless_helper_failed", FlowStep::Spawned, vec![Act::Die("SEGV")]),
        ("keyless_helper_failed", FlowStep::Spawned, vec![Act::Bytes(&[0xff; 4])]),
        ("keyless_helper_failed", FlowStep::Spawned, vec![Act::Say(&out_of_turn)]),
        ("keyless_helper_unsealed", FlowStep::Spawned, vec![Act::Say(&unsealed), Act::Hang]),
        ("keyless_helper_unsealed", FlowStep::Spawned, vec![Act::Say(&sandbox)]),
        ("keyless_helper_failed", FlowStep::JobSent, vec![Act::Say(&seal), Act::Hear(world.job()), Act::Die("SYS")]),
        (
            "keyless_helper_failed",
            FlowStep::JobSent,
            vec![Act::Say(&seal), Act::Hear(world.job()), Act::Bytes(&[0; 4])],
        ),
        ("keyless_helper_failed", FlowStep::JobSent, vec![Act::Say(&seal), Act::Hear(world.job()), Act::Say(&seal)]),
        ("keyless_deadline", FlowStep::JobSent, vec![Act::Say(&seal), Act::Hear(world.job()), Act::Hang]),
        ("fulcio_refused", FlowStep::JobSent, vec![Act::Say(&seal), Act::Hear(world.job()), Act::Say(&refused)]),
        ("fulcio_timed_out", FlowStep::JobSent, vec![Act::Say(&seal), Act::Hear(world.job()), Act::Say(&timed_out)]),
        ("keyless_helper_failed", FlowStep::Certificate, vec![Act::Say(&seal), Act::Hear(world.job()), Act::Say(&key)]),
    ];
    for (reason, step, acts) in cases {
        let keyless = world.keyless(&acts, "sign_timeout = '1500ms'\nstep_timeout = '5s'");
        let error = sign(&keyless).await.unwrap_err();
        assert_eq!((error.reason(), error.step()), (reason, step), "{error}");
        none_left(world.folder.path());
    }
    let text = world.metrics.render().unwrap();
    assert!(text.contains("signer_keyless_helper_failures_total{step=\"job_sent\"} 3"), "{text}");
}

#[tokio::test]
async fn how_a_helper_died_is_told() {
    let world = World::new();
    let keyless = world.keyless(&[Act::Say(&sealed()), Act::Hear(world.job()), Act::Die("SYS")], "");
    let error = sign(&keyless).await.unwrap_err().to_string();
    assert!(error.contains("ended by its seccomp filter (SIGSYS)"), "{error}");
}

#[tokio::test]
async fn an_excepted_layer_may_be_missing() {
    let world = World::new();
    let layers = Layers::all().iter().filter(|layer| *layer != Layer::Unprivileged).collect();
    let less = FromHelper::Sealed(Sealed { layers, landlock_abi: 4, uid: 0 });
    let answer = FromHelper::Signed(world.answer(&Says::default()));
    let acts = [Act::Say(&less), Act::Hear(world.job()), Act::Say(&answer)];
    let exception = "[[keyless.sandbox_exception]]\nlayer = 'unprivileged'\nreason = 'a test as root'";
    assert!(matches!(sign(&world.keyless(&acts, "")).await, Err(KeylessError::Unsealed(_))));
    sign(&world.keyless(&acts, exception)).await.unwrap();
}

#[tokio::test]
async fn what_made_nothing_is_tried_again_and_what_may_have_signed_is_not() {
    let world = World::new();
    let busy = FromHelper::Failed(Failed::new(Step::Answer, FailureKind::Busy, "").answered(Some(503), None));
    let keyless = world.keyless(&[Act::Say(&sealed()), Act::Hear(world.job()), Act::Say(&busy)], "attempts = 3");
    assert_eq!(sign(&keyless).await.unwrap_err().reason(), "fulcio_busy");
    assert_eq!(starts(world.folder.path()), 3);
    let keyless = world.keyless(&[Act::Say(&sealed()), Act::Hear(world.job()), Act::Die("KILL")], "attempts = 3");
    assert_eq!(sign(&keyless).await.unwrap_err().step(), FlowStep::JobSent);
    assert_eq!(starts(world.folder.path()), 4, "a helper that had the job is not started again");
}

#[tokio::test]
async fn after_failures_in_a_row_fulcio_is_left_alone_and_no_helper_is_started() {
    let world = World::new();
    let busy = FromHelper::Failed(Failed::new(Step::Answer, FailureKind::Busy, "").answered(Some(503), None));
    let acts = [Act::Say(&sealed()), Act::Hear(world.job()), Act::Say(&busy)];
    let keyless = world.keyless(&acts, "circuit = { failures = 2, open_for = '1h' }");
    for _ in 0..2 {
        assert_eq!(sign(&keyless).await.unwrap_err().reason(), "fulcio_busy");
    }
    let started = starts(world.folder.path());
    let error = sign(&keyless).await.unwrap_err();
    assert_eq!((error.reason(), error.code()), ("fulcio_circuit_open", "dependency_unavailable"));
    assert!(error.retry_after() > Duration::from_secs(3000));
    assert_eq!(starts(world.folder.path()), started);
    assert!(!keyless.can_sign("acme"));
}

#[tokio::test]
async fn when_the_circuits_while_is_up_the_tenant_is_ready_though_nobody_has_asked() {
    let world = World::new();
    let busy = FromHelper::Failed(Failed::new(Step::Answer, FailureKind::Busy, "").answered(Some(503), None));
    let acts = [Act::Say(&sealed()), Act::Hear(world.job()), Act::Say(&busy)];
    let keyless = world.keyless(&acts, "circuit = { failures = 1, open_for = '1s' }");
    assert_eq!(sign(&keyless).await.unwrap_err().reason(), "fulcio_busy");
    assert!(!keyless.can_sign("acme"));
    wait_until("it is ready again", || keyless.can_sign("acme")).await;
    assert_eq!(keyless.status().circuit, CircuitState::HalfOpen);
    assert_eq!(sign(&keyless).await.unwrap_err().reason(), "fulcio_busy", "it is asked");
}

#[tokio::test]
async fn a_request_with_too_little_time_does_not_speak_against_fulcio_and_one_that_waited_long_does() {
    let world = World::new();
    let acts = [Act::Say(&sealed()), Act::Hear(world.job()), Act::Hang];
    let circuit = "circuit = { failures = 1, open_for = '1h' }";
    let keyless = world.keyless(&acts, &format!("sign_timeout = '1500ms'\nstep_timeout = '5s'\n{circuit}"));
    assert_eq!(sign(&keyless).await.unwrap_err().reason(), "keyless_deadline");
    assert_eq!(keyless.status().circuit, CircuitState::Closed);
    let who = keyless.resolve("acme").unwrap();
    let (started, none) = (starts(world.folder.path()), Instant::now() + Duration::from_millis(20));
    assert_eq!(keyless.sign(&who, &digest(), None, none).await.unwrap_err().reason(), "keyless_deadline");
    assert_eq!(starts(world.folder.path()), started, "nothing is begun that cannot end well");
    let keyless = world.keyless(&acts, &format!("sign_timeout = '4s'\nstep_timeout = '1s'\n{circuit}"));
    assert_eq!(sign(&keyless).await.unwrap_err().reason(), "keyless_deadline");
    assert_eq!(keyless.status().circuit, CircuitState::Open);
}

#[tokio::test]
async fn nobody_waits_for_a_token_or_for_fulcio_with_a_place_in_hand() {
    let world = World::new();
    let busy = FromHelper::Failed(Failed::new(Step::Answer, FailureKind::Busy, "").answered(Some(503), Some(3)));
    let acts = [Act::Say(&sealed()), Act::Hear(world.job()), Act::Say(&busy)];
    let keyless = Arc::new(world.keyless(&acts, "attempts = 2\nmax_flows = 1"));
    let flow = {
        let keyless = Arc::clone(&keyless);
        tokio::spawn(async move { sign(&keyless).await.unwrap_err().reason() })
    };
    wait_until("it waits for Fulcio", || starts(world.folder.path()) == 1).await;
    wait_until("the place is free", || keyless.places.free.available_permits() == 1).await;
    assert!(!flow.is_finished(), "it is between two attempts");
    assert_eq!(flow.await.unwrap(), "fulcio_busy");

    // All places are taken: who has no token is told at once, and not when one is free.
    std::fs::write(world.folder.path().join("token"), "none").unwrap();
    let keyless = world.keyless(&acts, "max_flows = 1\ncircuit = { failures = 1, open_for = '1h' }");
    let place = keyless.places.free.acquire().await.unwrap();
    assert_eq!(sign(&keyless).await.unwrap_err().reason(), "identity_malformed");
    drop(place);
    keyless.circuit.pass(Instant::now(), true).unwrap().failed(None);
    assert_eq!(sign(&keyless).await.unwrap_err().reason(), "fulcio_circuit_open", "no token is fetched for nothing");
}

#[tokio::test]
async fn one_tenant_cannot_have_all_places() {
    let world = World::new();
    let acts = [Act::Say(&sealed()), Act::Hear(world.job()), Act::Hang];
    let keyless = Arc::new(world.keyless(&acts, "max_flows = 4\nsign_timeout = '3s'"));
    let flows: Vec<_> = (0..6)
        .map(|_| {
            let keyless = Arc::clone(&keyless);
            tokio::spawn(async move { sign(&keyless).await.unwrap_err().reason() })
        })
        .collect();
    wait_until("three have begun", || starts(world.folder.path()) == 3).await;
    wait_until("the others wait", || keyless.places.waiting.load(Relaxed) == 3).await;
    assert_eq!(keyless.places.free.available_permits(), 1, "left for another tenant");
    for flow in flows {
        assert_eq!(flow.await.unwrap(), "keyless_deadline");
    }
}

#[tokio::test]
async fn where_fulcio_is_not_there_the_helper_goes_too() {
    let mut world = World::new();
    let keyless = world.keyless(&[Act::Say(&sealed()), Act::Hang], "");
    drop(world.listener.take());
    let error = sign(&keyless).await.unwrap_err();
    assert_eq!((error.reason(), error.code()), ("fulcio_unreachable", "dependency_unavailable"), "{error}");
    assert_eq!(error.step(), FlowStep::Begun);
    none_left(world.folder.path());
}

#[tokio::test]
async fn a_helper_signs_again_for_its_tenant_alone_and_only_as_often_as_it_may() {
    let world = World::new();
    let first = world.answer(&Says::default());
    let again = FromHelper::Signature(first.signature.clone());
    let answer = FromHelper::Signed(first);
    let (seal, job) = (sealed(), Act::Hear(world.job()));
    // A digest's frame has 37 bytes.
    let acts = [Act::Say(&seal), job, Act::Say(&answer), Act::Hear(37), Act::Say(&again), Act::Hang];
    let keyless = world.keyless(&acts, "reuse = { max_signatures = 2, max_age = '5m', margin = '1m' }");
    assert!(!sign(&keyless).await.unwrap().reused);
    assert_eq!(starts(world.folder.path()), 1);
    // Not for another tenant, and not for one who wants a certificate that lives longer.
    assert!(!sign_for(&keyless, "globex", None).await.unwrap().reused);
    assert_eq!(starts(world.folder.path()), 2);
    let long = Some(Duration::from_secs(599));
    assert!(!sign_for(&keyless, "acme", long).await.unwrap().reused);
    assert_eq!(starts(world.folder.path()), 3);
    // Two wait for acme now; each signs once more, and then no more.
    for _ in 0..2 {
        assert!(sign(&keyless).await.unwrap().reused);
    }
    assert_eq!(starts(world.folder.path()), 3);
    assert!(!sign(&keyless).await.unwrap().reused);
    assert_eq!(starts(world.folder.path()), 4);
    drop(keyless);
    none_left(world.folder.path());
}

#[tokio::test]
async fn a_queue_that_is_full_is_said_at_once() {
    let world = World::new();
    let keyless = Arc::new(world.keyless(
        &[Act::Say(&sealed()), Act::Hear(world.job()), Act::Hang],
        "max_flows = 1\nmax_waiting = 1\nsign_timeout = '2s'",
    ));
    let flow = || {
        let keyless = Arc::clone(&keyless);
        tokio::spawn(async move { sign(&keyless).await.unwrap_err().reason() })
    };
    let busy = flow();
    while keyless.places.free.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    let waits = flow();
    while keyless.places.waiting.load(Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(sign(&keyless).await.unwrap_err().reason(), "keyless_queue_full");
    assert_eq!((busy.await.unwrap(), waits.await.unwrap()), ("keyless_deadline", "keyless_deadline"));
}
