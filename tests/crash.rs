//! A power cut or SIGKILL at any point: nothing was released without a durable record, and the log goes on.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;
use testkit::{Fixture, sample};

#[test]
fn whatever_was_answered_before_the_front_was_killed_is_in_the_log() {
    let mut fixture = Fixture::start();
    let mut answered = Vec::new();
    for round in 1..=3 {
        answered.extend(sign_until_killed(&mut fixture, 40 * round));
        fixture.appliance.start_front().unwrap();
        fixture.appliance.wait_until_ready().unwrap();
    }
    let records = fixture.appliance.audit().unwrap();
    let mut kinds: HashMap<&str, Vec<&str>> = HashMap::new();
    for record in &records {
        if let Some(id) = record["auditId"].as_str() {
            kinds.entry(id).or_default().push(record["kind"].as_str().unwrap());
        }
    }
    assert!(answered.len() >= 120, "only {} answers in three rounds", answered.len());
    for id in &answered {
        assert_eq!(kinds[id.as_str()], ["intent", "outcome"], "{id} was answered");
    }
    for (index, record) in records.iter().enumerate() {
        assert_eq!(record["seq"].as_u64().unwrap(), records[0]["seq"].as_u64().unwrap() + index as u64, "a gap");
    }
    let started = records.iter().filter(|record| record["event"] == "started").count();
    assert_eq!(started, 4, "each start says so");
}

#[test]
fn a_killed_worker_costs_503_and_its_return_needs_nobody() {
    let mut fixture = Fixture::start();
    let client = fixture.client();
    client.sign(&sample::request()).send().expect(200);
    fixture.appliance.worker("main").kill();

    let refused = client.sign(&sample::request()).send();
    assert_eq!(refused.refusal(), (503, "signing_unavailable".to_owned()), "{refused}");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    let records = fixture.appliance.audit_of(&refused.audit_id().unwrap()).unwrap();
    let outcomes: Vec<&Value> = records.iter().map(|record| &record["outcome"]).collect();
    assert_eq!(outcomes, [&Value::Null, &Value::from("failed")], "an intent, and its failed outcome");
    assert_eq!(
        fixture.appliance.local("/livez").unwrap().status,
        200,
        "a lost token is no reason to restart the front"
    );

    fixture.appliance.start_worker("main").unwrap();
    fixture.appliance.wait_until_ready().unwrap();
    client.sign(&sample::request()).send().expect(200).envelope().verify(&fixture.keys.acme.point).unwrap();
}

#[test]
fn a_stopped_front_finishes_what_it_has_begun() {
    let mut fixture = Fixture::start();
    fixture.client().sign(&sample::request()).send().expect(200);
    fixture.appliance.stop().unwrap();
    let records = fixture.appliance.audit().unwrap();
    assert_eq!(records.last().unwrap()["event"], "stopped");
}

/// Signs on several connections and kills the front in the midst of it; returns what was answered.
fn sign_until_killed(fixture: &mut Fixture, answers: usize) -> Vec<String> {
    let (seen, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let clients: Vec<_> = (0..CALLERS).map(|_| fixture.client().fork()).collect();
    std::thread::scope(|scope| {
        let callers: Vec<_> = clients
            .iter()
            .map(|client| {
                scope.spawn(|| {
                    let mut answered = Vec::new();
                    while !over.load(Ordering::Relaxed) {
                        let Ok(answer) = client.sign(&sample::request()).try_send() else { break };
                        if answer.status == 200 {
                            answered.push(answer.audit_id().unwrap());
                            seen.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    answered
                })
            })
            .collect();
        while seen.load(Ordering::Relaxed) < answers && callers.iter().any(|caller| !caller.is_finished()) {
            std::thread::yield_now();
        }
        fixture.appliance.front().kill();
        over.store(true, Ordering::Relaxed);
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    })
}

const CALLERS: usize = 6;
