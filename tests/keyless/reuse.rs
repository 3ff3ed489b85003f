//! One certificate for several signatures, where the operator allows it: bounded, and of one tenant alone.

use std::collections::BTreeSet;

use testkit::client::Client;
use testkit::hostile_fulcio::{AnswerFault, Behaviour};
use testkit::keyless::{OwnFulcio, helpers_of, sign, wait_for_helper, wait_for_no_helper};

#[test]
fn each_signature_has_a_key_of_its_own_unless_the_operator_says_otherwise() {
    let mut world = OwnFulcio::start(|builder| builder);
    let certificates: BTreeSet<String> = (0..5).map(|_| certificate(&world.fixture.client())).collect();
    assert_eq!((certificates.len(), world.fulcio.seen().len()), (5, 5));
    wait_for_no_helper(world.fixture.appliance.front().id());
}

#[test]
fn a_certificate_signs_as_often_as_allowed_and_for_its_tenant_alone() {
    let mut world = OwnFulcio::start(|builder| builder.set("keyless.reuse.max_signatures", 3));
    let (acme, globex) = (world.fixture.client(), world.fixture.globex());
    let front = world.fixture.appliance.front().id();
    let first = certificate(&acme);
    let others = certificate(&globex);
    assert_ne!(first, others, "globex gets nothing of acme's");
    assert_eq!(helpers_of(front).len(), 2, "one waits for each tenant");
    assert_eq!([certificate(&acme), certificate(&acme)], [first.clone(), first.clone()]);
    assert_ne!(certificate(&acme), first, "the fourth has another");
    assert_eq!(certificate(&globex), others);
    assert_eq!(world.fulcio.seen().len(), 3);
    // With Fulcio down, what is kept signs on, and then nothing does.
    world.fulcio.behave(Behaviour::Answer(AnswerFault::Status(400)));
    assert_eq!(certificate(&globex), others);
    assert_eq!(sign(&globex, "dsse+cert").send().status, 503);
}

#[test]
fn a_helper_that_has_waited_long_enough_ends_with_its_key() {
    let mut world = OwnFulcio::start(|builder| {
        builder.set("keyless.reuse.max_signatures", 1000).set("keyless.reuse.max_age", "1s")
    });
    let client = world.fixture.client();
    let first = certificate(&client);
    let _ = wait_for_helper(world.fixture.appliance.front().id());
    wait_for_no_helper(world.fixture.appliance.front().id());
    assert_ne!(certificate(&client), first);
}

/// The certificate of a new signature, which verifies by the certificate's key.
fn certificate(client: &Client) -> String {
    let answer = sign(client, "dsse+cert").send().expect(200);
    let certificate = answer.json()["bundle"]["certificateChain"][0].as_str().unwrap().to_owned();
    let der = testkit::from_base64(&certificate.lines().filter(|line| !line.starts_with('-')).collect::<String>());
    let der = der.unwrap();
    let spki = testkit::der::public_key(&der).unwrap();
    answer.envelope().verify(&spki[spki.len() - 65..]).unwrap();
    certificate
}
