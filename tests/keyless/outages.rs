//! Fulcio down, and up again: the circuit.

use std::time::Duration;

use testkit::hostile_fulcio::{Behaviour, ConnectionFault, Stage};
use testkit::keyless::{OwnFulcio, sign, wait_for_no_helper, wait_until};

const DOWN: Behaviour = Behaviour::Connection(ConnectionFault::HangUp(Stage::Connected));

#[test]
fn after_some_failures_fulcio_is_not_asked_and_after_a_while_it_is_again() {
    let mut world = OwnFulcio::start(|builder| {
        builder.set("keyless.attempts", 1).set("keyless.circuit.failures", 3).set("keyless.circuit.open_for", "2s")
    });
    let (client, front) = (world.fixture.client(), world.fixture.appliance.front().id());
    let circuit = |world: &OwnFulcio| {
        world.fixture.appliance.local("/readyz").unwrap().json()["keyless"]["circuit"].as_str().unwrap().to_owned()
    };
    sign(&client, "dsse").send().expect(200);
    assert_eq!(circuit(&world), "closed");

    world.fulcio.behave(DOWN);
    for _ in 0..3 {
        let answer = sign(&client, "dsse").send();
        crate::assert_refused(&world.fixture, &answer, "dependency_unavailable", "fulcio_closed");
    }
    assert_eq!(circuit(&world), "open");
    let asked = world.fulcio.connections();
    let answer = sign(&client, "dsse").send();
    crate::assert_refused(&world.fixture, &answer, "dependency_unavailable", "fulcio_circuit_open");
    assert_eq!(world.fulcio.connections(), asked, "Fulcio is left alone");
    let retry_after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&retry_after), "{retry_after}");

    // Nobody asks, and yet whoever watches /readyz learns that it may be asked again.
    wait_until("it is half open", || circuit(&world) == "half_open");
    assert_eq!(world.fulcio.connections(), asked, "by the clock alone");
    assert_eq!(world.fixture.appliance.local("/readyz").unwrap().json()["keyless"]["usable"], true);

    // Still down when it is tried: the circuit opens again at the first failure.
    wait_until("it is asked again", || {
        let _ = sign(&client, "dsse").send();
        world.fulcio.connections() > asked
    });
    let answer = sign(&client, "dsse").send();
    crate::assert_refused(&world.fixture, &answer, "dependency_unavailable", "fulcio_circuit_open");

    world.fulcio.behave(Behaviour::Honest);
    wait_until("it signs again", || sign(&client, "dsse").send().status == 200);
    assert_eq!(circuit(&world), "closed");
    sign(&client, "dsse").send().expect(200);
    wait_for_no_helper(front);
}

#[test]
fn an_unreachable_fulcio_is_a_503_and_keys_in_tokens_sign_on() {
    let world = OwnFulcio::start(|builder| {
        builder.settings(|settings, _| {
            // A port of the machine that nobody listens on, bound and given up a moment ago.
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            settings.set("keyless.fulcio_url", format!("https://127.0.0.1:{port}"));
        })
    });
    let client = world.fixture.client();
    let answer = sign(&client, "dsse").send();
    crate::assert_refused(&world.fixture, &answer, "dependency_unavailable", "fulcio_unreachable");
    client.sign(&testkit::sample::request()).send().expect(200);
}

#[test]
fn a_fulcio_that_was_busy_once_is_asked_again_within_the_request() {
    use testkit::hostile_fulcio::AnswerFault;
    let world = OwnFulcio::start(|builder| builder.set("keyless.attempts", 5).set("keyless.sign_timeout", "9s"));
    world.fulcio.behave(Behaviour::Answer(AnswerFault::Status(503)));
    let client = world.fixture.client();
    let call = std::thread::spawn({
        let client = client.clone();
        move || sign(&client, "dsse").patience(Duration::from_secs(20)).send()
    });
    wait_until("it was refused once", || !world.fulcio.seen().is_empty());
    world.fulcio.behave(Behaviour::Honest);
    call.join().unwrap().expect(200);
    let csrs: Vec<String> = world.fulcio.seen().into_iter().map(|seen| seen.csr).collect();
    assert!(csrs.len() > 1 && csrs.windows(2).all(|pair| pair[0] != pair[1]), "each attempt has a key of its own");
}
