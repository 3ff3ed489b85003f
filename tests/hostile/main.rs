//! Bad input: hostile requests by name, each with its documented answer and its audit record.
//!
//! A row of a table is a [`Case`](case::Case): a name, what is sent, what must come back. A family of rows is one test
//! on an appliance that all families share, one after another. Whatever the row, the [`referee`] asks for the same: the
//! documented status, code and reason; a record that says the same; nothing in answer, audit log or logs that should
//! not be there; and a signature counter, at the front and in the token's worker, that moved for accepted requests
//! alone.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]
#![allow(clippy::type_complexity)] // a table says what its columns are where it stands

mod case;
mod counters;
mod frames;
mod framing;
mod http2;
mod json_schema;
mod json_syntax;
mod leaks;
mod outages;
mod poe;
mod proof;
mod referee;
mod routes;
mod sizes;
mod stalls;
mod tls;
mod token;
mod verify;
mod wire;
mod world;

use std::collections::HashSet;

use case::Case;
use referee::judge;

/// Families on the shared appliance, and [`outages`], which breaks its own.
const FAMILIES: [(&str, fn() -> Vec<Case>); 13] = [
    ("token", token::cases),
    ("proof", proof::cases),
    ("PoE", poe::cases),
    ("JSON syntax", json_syntax::cases),
    ("JSON schema", json_schema::cases),
    ("envelopes to verify", verify::cases),
    ("TLS", tls::cases),
    ("HTTP/1.1 framing", framing::cases),
    ("HTTP/2", http2::cases),
    ("routes and headers", routes::cases),
    ("stalls", stalls::cases),
    ("sizes", sizes::cases),
    ("outages", outages::cases),
];

#[test]
fn there_are_at_least_150_rows_and_each_has_a_name_of_its_own() {
    let names: Vec<String> = FAMILIES.iter().flat_map(|(_, cases)| cases()).map(|case| case.name).collect();
    let mut seen = HashSet::new();
    let repeated: Vec<&String> = names.iter().filter(|name| !seen.insert(*name)).collect();
    assert!(repeated.is_empty(), "{repeated:#?}");
    println!("{} rows", names.len());
    assert!(names.len() >= 150, "{}", names.len());
}

#[test]
fn a_token_that_is_not_right_in_every_way_opens_nothing() {
    judge("token", token::cases());
}

#[test]
fn a_proof_must_be_fresh_and_of_this_request_and_of_the_tokens_key() {
    judge("proof", proof::cases());
}

#[test]
fn a_poe_that_is_not_the_callers_or_not_in_force_entitles_to_nothing() {
    judge("PoE", poe::cases());
}

#[test]
fn text_that_is_not_exactly_one_json_value_is_refused_with_its_place() {
    judge("JSON syntax", json_syntax::cases());
}

#[test]
fn json_that_is_no_signing_request_is_refused() {
    judge("JSON schema", json_schema::cases());
}

#[test]
fn json_that_is_no_envelope_is_not_verified() {
    judge("envelopes to verify", verify::cases());
}

#[test]
fn a_handshake_without_a_good_client_certificate_ends_there() {
    judge("TLS", tls::cases());
}

#[test]
fn http_1_messages_that_two_readers_could_read_differently_are_refused() {
    judge("HTTP/1.1 framing", framing::cases());
}

#[test]
fn http_2_that_breaks_the_protocol_or_floods_it_is_cut_off() {
    judge("HTTP/2", http2::cases());
}

#[test]
fn routes_and_headers_mean_one_thing_only() {
    judge("routes and headers", routes::cases());
}

#[test]
fn who_stalls_is_cut_off() {
    judge("stalls", stalls::cases());
}

#[test]
fn what_is_too_large_or_too_much_is_refused_with_the_limit_that_it_meets() {
    judge("sizes", sizes::cases());
}

#[test]
fn what_cannot_be_decided_is_refused() {
    referee::judge_on(&world::World::with_outages(), "outages", outages::cases());
}
