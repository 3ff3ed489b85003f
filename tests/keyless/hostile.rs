//! A hostile Fulcio: none of its ways yields a bundle, each is a 503 with its own reason in the audit log, and no helper
//! is left behind.

use std::time::{Duration, Instant};

use testkit::hostile_fulcio::AnswerFault::{self, *};
use testkit::hostile_fulcio::Behaviour::{self, Answer, Certificate, Connection, Honest};
use testkit::hostile_fulcio::CertificateFault::{self, *};
use testkit::hostile_fulcio::ConnectionFault::{self, *};
use testkit::hostile_fulcio::Stage;
use testkit::keyless::{OwnFulcio, helpers_of, sign, wait_for_no_helper};

/// What it does, what the caller is told, and what the auditor reads.
type Case = (Behaviour, &'static str, &'static str);

#[test]
fn a_wrong_certificate_yields_no_bundle() {
    refused(&CERTIFICATES.map(|(fault, reason)| (Certificate(fault), "signing_unavailable", reason)));
}

#[test]
fn a_wrong_answer_yields_no_bundle() {
    refused(&ANSWERS.map(|(fault, code, reason)| (Answer(fault), code, reason)));
}

#[test]
fn a_connection_that_breaks_or_is_somebody_elses_yields_no_bundle() {
    refused(&CONNECTIONS.map(|(fault, code, reason)| (Connection(fault), code, reason)));
}

#[test]
fn an_answer_that_comes_too_slowly_ends_with_the_requests_own_deadline() {
    // Each byte comes within the time that a step may take, but all of them together do not.
    let world = OwnFulcio::start(|builder| builder.set("keyless.sign_timeout", "1500ms").set("keyless.attempts", 1));
    world.fulcio.behave(Connection(SlowDrip));
    let begun = Instant::now();
    let answer = sign(&world.fixture.client(), "dsse+cert").send();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    crate::assert_refused(&world.fixture, &answer, "dependency_unavailable", "keyless_deadline");
    assert!(!world.fulcio.seen().is_empty(), "Fulcio had the request, and would have answered");
}

/// Runs each case against one appliance; between all of them it still signs with an honest Fulcio.
fn refused(cases: &[Case]) {
    let mut world = OwnFulcio::start(|builder| {
        builder
            .set("keyless.step_timeout", "1500ms")
            .set("keyless.sign_timeout", "6s")
            // What is refused once is refused; the circuit has tests of its own.
            .set("keyless.attempts", 1)
            .set("keyless.circuit.failures", 1000)
    });
    let client = world.fixture.client();
    let front = world.fixture.appliance.front().id();
    sign(&client, "dsse+cert").send().expect(200);
    let mut wrong = Vec::new();
    for (behaviour, code, reason) in cases {
        world.fulcio.behave(*behaviour);
        let asked_before = world.fulcio.connections();
        let answer = sign(&client, "dsse+cert").send();
        assert!(world.fulcio.connections() > asked_before, "{behaviour:?}: Fulcio was not asked");
        let records = answer.audit_id().map(|id| world.fixture.appliance.audit_of(&id).unwrap()).unwrap_or_default();
        let found = records.iter().find_map(|record| record["reason"].as_str()).unwrap_or("none");
        let told = answer.json()["code"].as_str().unwrap_or("none").to_owned();
        println!("{:<50} {} {told} {found}", format!("{behaviour:?}"), answer.status);
        if answer.status != 503 || told != *code || found != *reason || answer.text().contains("\"sig\"") {
            wrong.push(format!("{behaviour:?}: expected {code} for {reason}, got {told} for {found}: {records:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    wait_for_no_helper(front);
    world.fulcio.behave(Honest);
    sign(&client, "dsse+cert").send().expect(200);
    wait_for_no_helper(front);
    assert_eq!(helpers_of(front), Vec::<u32>::new());
    let released = world.fixture.appliance.metrics().unwrap().count("signer_keyless_sign_total", &[]);
    assert_eq!(released, 2, "the two signatures of an honest Fulcio and no other");
}

const CERTIFICATES: [(CertificateFault, &str); 18] = [
    (OtherKey, "certificate_key_mismatch"),
    (OtherSan, "certificate_san_mismatch"),
    (OtherKindOfSan, "certificate_san_mismatch"),
    (SecondSan, "certificate_san_count"),
    (NoSan, "certificate_san_count"),
    (OtherIssuer, "certificate_oidc_issuer_mismatch"),
    (NoIssuer, "certificate_oidc_issuer_missing"),
    (OtherRoot, "certificate_untrusted"),
    (Expired, "certificate_expired"),
    (NotYetValid, "certificate_not_yet_valid"),
    (LongLived, "certificate_lifetime"),
    (NoSct, "sct_missing"),
    (FalseSct, "sct_signature"),
    (SctOfAnotherLog, "sct_unknown_log"),
    (ServerUsage, "certificate_extended_key_usage"),
    (NoUsage, "certificate_extended_key_usage"),
    (OtherKeyUsage, "certificate_key_usage"),
    (CaLeaf, "certificate_is_ca"),
];

const ANSWERS: [(AnswerFault, &str, &str); 23] = [
    (Status(400), "signing_unavailable", "fulcio_refused"),
    (Status(401), "signing_unavailable", "fulcio_refused"),
    (Status(403), "signing_unavailable", "fulcio_refused"),
    (Status(404), "signing_unavailable", "fulcio_refused"),
    (Status(429), "dependency_unavailable", "fulcio_busy"),
    (Status(500), "dependency_unavailable", "fulcio_busy"),
    (Status(502), "dependency_unavailable", "fulcio_busy"),
    (Status(503), "dependency_unavailable", "fulcio_busy"),
    (Status(204), "signing_unavailable", "fulcio_refused"),
    (Redirect(301), "signing_unavailable", "fulcio_refused"),
    (Redirect(302), "signing_unavailable", "fulcio_refused"),
    (Redirect(307), "signing_unavailable", "fulcio_refused"),
    (NotJson, "signing_unavailable", "fulcio_bad_answer"),
    (NoCertificate, "signing_unavailable", "fulcio_bad_answer"),
    (EmptyChain, "signing_unavailable", "fulcio_bad_answer"),
    (NotPem, "signing_unavailable", "fulcio_bad_answer"),
    (NotACertificate, "signing_unavailable", "certificate_malformed"),
    (Huge, "signing_unavailable", "fulcio_answer_too_large"),
    (Endless, "signing_unavailable", "fulcio_answer_too_large"),
    (Unbounded, "signing_unavailable", "fulcio_bad_answer"),
    (HugeHeader, "signing_unavailable", "fulcio_answer_too_large"),
    (LongChain, "signing_unavailable", "fulcio_answer_too_large"),
    (DeepJson, "signing_unavailable", "fulcio_bad_answer"),
];

const CONNECTIONS: [(ConnectionFault, &str, &str); 15] = [
    (HangUp(Stage::Connected), "dependency_unavailable", "fulcio_closed"),
    (HangUp(Stage::Hello), "dependency_unavailable", "fulcio_closed"),
    (HangUp(Stage::Handshake), "dependency_unavailable", "fulcio_closed"),
    (HangUp(Stage::Request), "dependency_unavailable", "fulcio_closed"),
    (HangUp(Stage::Head), "dependency_unavailable", "fulcio_closed"),
    (HangUp(Stage::HalfOfBody), "dependency_unavailable", "fulcio_closed"),
    (FallSilent(Stage::Connected), "dependency_unavailable", "fulcio_timed_out"),
    (FallSilent(Stage::Hello), "dependency_unavailable", "fulcio_timed_out"),
    (FallSilent(Stage::Handshake), "dependency_unavailable", "fulcio_timed_out"),
    (FallSilent(Stage::Request), "dependency_unavailable", "fulcio_timed_out"),
    (FallSilent(Stage::Head), "dependency_unavailable", "fulcio_timed_out"),
    (FallSilent(Stage::HalfOfBody), "dependency_unavailable", "fulcio_timed_out"),
    (StrangersTls, "signing_unavailable", "fulcio_tls_refused"),
    (MisnamedTls, "signing_unavailable", "fulcio_tls_refused"),
    (NoTls, "signing_unavailable", "fulcio_tls_refused"),
];
