//! The timestamp authority or the CT log down, or not what is pinned.

use testkit::ct_log::Scts;
use testkit::https::Mode;
use testkit::keyless::{RealFulcio, sign, wait_for_no_helper, wait_until};
use testkit::trusted_root::TrustedRoot;
use testkit::tsa::TimestampServer;
use testkit::{Fixture, sample};

#[test]
#[ignore = "needs fulcio and timestamp-server: cargo xtask test keyless"]
fn without_the_timestamp_authority_no_sigstore_bundle_and_with_it_again_one() {
    let mut world = RealFulcio::start(|builder| builder);
    let (client, front) = (world.fixture.client(), world.fixture.appliance.front().id());
    sign(&client, "sigstore").send().expect(200);
    world.tsa.front.set_down(true);
    let answer = sign(&client, "sigstore").send();
    crate::assert_refused(&world.fixture, &answer, "dependency_unavailable", "timestamp_unreachable");
    let keyful = client.sign(&sample::request()).body(|body| {
        body["options"] = serde_json::json!({"returnBundle": "sigstore"});
    });
    let answer = keyful.send();
    assert_eq!(answer.refusal(), (503, "dependency_unavailable".to_owned()), "{answer}");
    // What needs no timestamp needs no authority.
    sign(&client, "dsse+cert").send().expect(200);
    wait_for_no_helper(front);
    world.tsa.front.set_down(false);
    wait_until("it stamps again", || sign(&client, "sigstore").send().status == 200);
}

#[test]
#[ignore = "needs fulcio and timestamp-server: cargo xtask test keyless"]
fn a_timestamp_of_an_authority_that_is_not_pinned_is_refused() {
    let world = RealFulcio::start(|builder| {
        builder.settings(|settings, peers| {
            // It is asked in the other's place, and it is another.
            let other = TimestampServer::start(peers.pki, peers.dir, "tsa-2").unwrap();
            let pinned = peers.dir.join("other_trusted_root.json");
            TrustedRoot::new().timestamp_authority(&other.chain).write(&pinned).unwrap();
            settings.set_path("timestamps.trusted_root", &pinned);
        })
    });
    let answer = sign(&world.fixture.client(), "sigstore").send();
    crate::assert_refused(&world.fixture, &answer, "dependency_unavailable", "timestamp_untrusted");
    sign(&world.fixture.client(), "dsse+cert").send().expect(200);
}

#[test]
#[ignore = "needs fulcio and timestamp-server: cargo xtask test keyless"]
fn without_the_ct_log_a_real_fulcio_gives_no_certificate() {
    let world = RealFulcio::start(|builder| builder.set("keyless.attempts", 1));
    let client = world.fixture.client();
    sign(&client, "dsse+cert").send().expect(200);
    world.log.mode().set(Mode::Status(503));
    let refused = sign(&client, "dsse+cert").send();
    assert_eq!(refused.status, 503, "{refused}");
    assert_says_why(&world.fixture, &refused, &["fulcio_busy", "fulcio_timed_out", "fulcio_refused"]);
    world.log.mode().set(Mode::Up);
    wait_until("it signs again", || sign(&client, "dsse+cert").send().status == 200);
    // A real Fulcio that was given the log's key verifies its SCTs, and hands on none that is false.
    world.log.answer_with(Scts::False);
    let refused = sign(&client, "dsse+cert").send();
    assert_eq!(refused.status, 503, "{refused}");
    assert_says_why(&world.fixture, &refused, &["fulcio_busy", "fulcio_refused"]);
}

fn assert_says_why(fixture: &Fixture, answer: &testkit::client::Answer, reasons: &[&str]) {
    let records = fixture.appliance.audit_of(&answer.audit_id().unwrap()).unwrap();
    let reason = records.iter().find_map(|record| record["reason"].as_str()).unwrap_or_default();
    assert!(reasons.contains(&reason), "{reason}: {records:?}");
}
