//! Certificates, CAs and revocation lists that are replaced while the front runs.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use testkit::pki::Leaf;
use testkit::raw::Raw;
use testkit::{Fixture, sample};

#[test]
fn a_client_that_a_new_list_revokes_loses_its_connections_and_gets_no_new_one() {
    let fixture = Fixture::start();
    let pki = &fixture.pki;
    let (acme, globex) = (fixture.client(), fixture.globex());
    acme.sign(&sample::request()).send().expect(200);
    globex.sign(&sample::request()).send().expect(200);
    let next_update = || fixture.appliance.metrics().unwrap().sum("signer_crl_next_update_seconds", &[]);
    assert!(next_update() > 0.0);
    let mut open = Raw::tls(fixture.appliance.addr(), acme.tls()).unwrap();

    pki.client_ca.write_crl("client.crl", &[&pki.revoked, &pki.acme]).unwrap();
    let ended = open.receive(PATIENCE);
    assert!(ended.ended() && ended.bytes.is_empty(), "{ended:?}");
    assert!(acme.fork().keys().try_send().is_err(), "a revoked client");
    globex.fork().keys().send().expect(200);

    // What cannot be used leaves the list in force, and so does a file that is gone, and a good list of another CA.
    let others = std::fs::read_to_string(pki.server_ca.write_crl("other.crl", &[]).unwrap()).unwrap();
    for broken in [Some("-----BEGIN X509 CRL-----\nMIIB\n-----END X509 CRL-----\n"), Some(&*others), Some(""), None] {
        let before = complaints(&fixture);
        match broken {
            Some(text) => std::fs::write(&pki.client_crl, text).unwrap(),
            None => std::fs::remove_file(&pki.client_crl).unwrap(),
        }
        until("the file is complained of", || complaints(&fixture) > before);
        assert!(acme.fork().keys().try_send().is_err(), "a revoked client, with {broken:?}");
        globex.fork().keys().send().expect(200);
    }

    pki.client_ca.write_crl("client.crl", &[&pki.revoked]).unwrap();
    until("the client is let in again", || acme.fork().keys().try_send().is_ok_and(|answer| answer.status == 200));
}

#[test]
fn a_renewed_server_certificate_is_shown_without_a_restart() {
    let fixture = Fixture::start();
    let expiry = || {
        let metrics = fixture.appliance.metrics().unwrap();
        metrics.sum("signer_certificate_expiry_seconds", &[("certificate", "server")])
    };
    let before = expiry();
    let held = fixture.client();
    held.keys().send().expect(200);
    // Certificate and key are written one after the other: the pair that does not fit is not taken.
    let week = 7 * 24 * 3600;
    fixture.pki.server_ca.issue(&Leaf::server("signer").valid(-60, week + 4242)).unwrap();
    until("the new certificate is in force", || expiry() > before + 1000.0);
    fixture.client().fork().keys().send().expect(200);
    held.keys().send().expect(200);
}

/// Errors in the front's log about the files of `[server.tls]`.
fn complaints(fixture: &Fixture) -> usize {
    fixture.appliance.logs().matches("the files of [server.tls] were not taken").count()
}

fn until(what: &str, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const PATIENCE: Duration = Duration::from_secs(10);
