//! The helper's end at every step, from its start to its last signature: a 503, a record that names the step, and
//! nothing left behind.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use testkit::client::Answer;
use testkit::hostile_fulcio::{Behaviour, ConnectionFault, Stage};
use testkit::keyless::{OwnFulcio, helpers_of, sign, wait_for_helper, wait_for_no_helper, wait_until};

#[test]
fn killed_while_the_way_to_fulcio_is_made() {
    // A proxy that takes connections and never answers: the helper is sealed and has nothing to do.
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let mut world = OwnFulcio::start(|builder| once(builder).set("keyless.proxy", url));
    let (answer, helper) = killed(&mut world, |_| ());
    // That it is gone is noticed when it is to get its job, or before.
    let record = crate::assert_refused(&world.fixture, &answer, "signing_unavailable", "keyless_helper_failed");
    assert!(["spawned", "sealed", "connected"].contains(&record["step"].as_str().unwrap()), "{record}");
    assert_eq!(helpers_of(world.fixture.appliance.front().id()), Vec::<u32>::new(), "{helper} is gone");
}

#[test]
fn killed_at_each_step_of_its_way_through_fulcio() {
    let mut world = OwnFulcio::start(once);
    for stage in [Stage::Connected, Stage::Hello, Stage::Handshake, Stage::Request, Stage::Head, Stage::HalfOfBody] {
        world.fulcio.behave(Behaviour::Connection(ConnectionFault::FallSilent(stage)));
        let before = world.fulcio.connections();
        let (answer, _) = killed(&mut world, |world| {
            wait_until("Fulcio is connected", || world.fulcio.connections() > before);
        });
        let record = crate::assert_refused(&world.fixture, &answer, "signing_unavailable", "keyless_helper_failed");
        println!("{stage:?}: {record}");
        assert!(["connected", "job_sent"].contains(&record["step"].as_str().unwrap()), "{stage:?}: {record}");
    }
    world.fulcio.behave(Behaviour::Honest);
    sign(&world.fixture.client(), "dsse+cert").send().expect(200);
    wait_for_no_helper(world.fixture.appliance.front().id());
}

#[test]
fn killed_while_it_waits_to_sign_again_another_takes_its_place() {
    let mut world = OwnFulcio::start(|builder| once(builder).set("keyless.reuse.max_signatures", 10));
    let (client, front) = (world.fixture.client(), world.fixture.appliance.front().id());
    sign(&client, "dsse+cert").send().expect(200);
    let helper = wait_for_helper(front);
    signal("KILL", helper);
    sign(&client, "dsse+cert").send().expect(200);
    assert_ne!(wait_for_helper(front), helper);
    assert_eq!(world.fulcio.seen().len(), 2, "a new key and a new certificate");
}

#[test]
fn frozen_with_a_digest_in_its_hands_it_is_ended_and_the_request_refused() {
    let mut world = OwnFulcio::start(|builder| {
        once(builder).set("keyless.reuse.max_signatures", 10).set("keyless.step_timeout", "500ms")
    });
    let (client, front) = (world.fixture.client(), world.fixture.appliance.front().id());
    sign(&client, "dsse+cert").send().expect(200);
    let helper = wait_for_helper(front);
    signal("STOP", helper);
    let answer = sign(&client, "dsse+cert").send();
    assert_eq!(answer.status, 503, "{answer}");
    let records = world.fixture.appliance.audit_of(&answer.audit_id().unwrap()).unwrap();
    assert!(records.iter().any(|record| record["step"] == "certificate"), "{records:?}");
    wait_until("the frozen helper is gone", || !helpers_of(front).contains(&helper));
    sign(&client, "dsse+cert").send().expect(200);
}

#[test]
fn a_front_that_is_killed_leaves_no_helper_behind() {
    let mut world = OwnFulcio::start(once);
    world.fulcio.behave(Behaviour::Connection(ConnectionFault::FallSilent(Stage::Request)));
    let front = world.fixture.appliance.front().id();
    let client = world.fixture.client();
    let call = std::thread::spawn(move || sign(&client, "dsse+cert").try_send());
    let helper = wait_for_helper(front);
    wait_until("Fulcio has the request", || !world.fulcio.seen().is_empty());
    world.fixture.appliance.front().kill();
    wait_until("the helper is gone", || !Path::new(&format!("/proc/{helper}")).exists());
    assert!(call.join().unwrap().is_err(), "nobody answered");
}

#[test]
fn one_that_ends_at_once_or_never_says_that_it_is_sealed_gets_nothing() {
    for (script, reason) in [
        ("#!/bin/sh\nexit 1\n", "keyless_helper_failed"),
        ("#!/bin/sh\nexec sleep 60\n", "keyless_helper_failed"),
        ("#!/bin/sh\nhead -c 4096 /dev/zero >&0\nexec sleep 60\n", "keyless_helper_failed"),
    ] {
        let mut world = OwnFulcio::start(|builder| {
            let builder = once(builder).set("keyless.step_timeout", "700ms");
            builder.settings(move |settings, peers| {
                let program = peers.dir.join("no-helper");
                write_program(&program, script);
                settings.set_path("keyless.helper", &program);
            })
        });
        let answer = sign(&world.fixture.client(), "dsse+cert").send();
        let records = world.fixture.appliance.audit_of(&answer.audit_id().unwrap()).unwrap();
        assert_eq!(answer.status, 503, "{script}: {answer}");
        let record = records.iter().find(|record| record["reason"].is_string()).unwrap();
        println!("{script:?}: {record}");
        assert_eq!(record["reason"], reason, "{script}: {record}");
        assert_eq!(world.fulcio.seen().len(), 0, "no token left the front");
        wait_for_no_helper(world.fixture.appliance.front().id());
    }
}

/// What is tried once shows what one failure does.
fn once(builder: testkit::fixture::Builder) -> testkit::fixture::Builder {
    builder.set("keyless.attempts", 1).set("keyless.circuit.failures", 1000)
}

/// Signs, and kills the helper when `ready` returns.
fn killed(world: &mut OwnFulcio, ready: impl FnOnce(&OwnFulcio)) -> (Answer, u32) {
    let front = world.fixture.appliance.front().id();
    wait_for_no_helper(front);
    let client = world.fixture.client();
    let call = std::thread::spawn(move || sign(&client, "dsse+cert").send());
    let helper = wait_for_helper(front);
    ready(world);
    signal("KILL", helper);
    let answer = call.join().unwrap();
    wait_for_no_helper(front);
    (answer, helper)
}

fn signal(name: &str, process: u32) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status().unwrap();
    assert!(status.success(), "kill -{name} {process}");
}

fn write_program(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
