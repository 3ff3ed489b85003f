//! Certificates, CAs and revocation lists that are replaced while the front runs.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;
use testkit::pki::Leaf;
use testkit::raw::Raw;
use testkit::{Fixture, hex, sample, sha256};

#[test]
fn a_client_that_a_new_list_revokes_loses_its_connections_and_gets_no_new_one() {
    let fixture = Fixture::start();
    let pki = &fixture.pki;
    let (acme, globex) = (fixture.client(), fixture.globex());
    acme.sign(&sample::request()).send().expect(200);
    globex.sign(&sample::request()).send().expect(200);
    let next_update = || fixture.appliance.metrics().unwrap().sum("signer_crl_next_update_seconds", &[]);
    assert!(next_update() > 0.0);
    until("that of the start is in the record", || events(&fixture, "tls_in_force").len() == 1);
    let first = events(&fixture, "tls_in_force");
    let list = CertificateRevocationListDer::from_pem_file(&pki.client_crl).unwrap();
    assert_eq!(first[0]["clientCrlSha256"], json!([hex(sha256(list))]));
    let mut open = Raw::tls(fixture.appliance.addr(), acme.tls()).unwrap();

    pki.client_ca.write_crl("client.crl", &[&pki.revoked, &pki.acme]).unwrap();
    let ended = open.receive(PATIENCE);
    assert!(ended.ended() && ended.bytes.is_empty(), "{ended:?}");
    assert!(acme.fork().keys().try_send().is_err(), "a revoked client");
    globex.fork().keys().send().expect(200);
    until("the new list is in the record", || events(&fixture, "tls_in_force").len() == 2);
    let second = &events(&fixture, "tls_in_force")[1];
    assert_ne!(second["clientCrlSha256"], first[0]["clientCrlSha256"]);
    for (same, text) in
        [("certificateSha256", &second["certificateSha256"]), ("clientCaSha256", &second["clientCaSha256"][0])]
    {
        assert_eq!(second[same], first[0][same], "{same}");
        assert_eq!(text.as_str().unwrap().len(), 64, "{same}");
    }

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

    let refused = events(&fixture, "tls_refused");
    assert!(refused.len() >= 4, "{refused:?}");
    assert!(refused.iter().all(|event| event["detail"].as_str().unwrap().contains("client_crl")), "{refused:?}");

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

#[test]
fn by_which_licensing_keys_callers_are_judged_is_in_the_record() {
    let fixture = Fixture::start();
    let file = &fixture.licensing.keys_file;
    let good = std::fs::read_to_string(file).unwrap();
    until("those of the start are in the record", || events(&fixture, "licensing_keys_in_force").len() == 1);
    std::fs::write(file, "{}").unwrap();
    until("what is no set of keys is in the record", || events(&fixture, "licensing_keys_refused").len() == 1);
    fixture.client().sign(&sample::request()).send().expect(200);
    std::fs::write(file, format!("{good}\n")).unwrap();
    until("the next are in the record", || events(&fixture, "licensing_keys_in_force").len() == 2);
    let told = events(&fixture, "licensing_keys_in_force");
    assert_eq!((&told[0]["keys"], &told[0]["thumbprints"]), (&told[1]["keys"], &told[1]["thumbprints"]));
    assert_eq!(told[1]["thumbprints"][0].as_str().unwrap().len(), 43, "{told:?}");
}

/// Records of something about the appliance.
fn events(fixture: &Fixture, event: &str) -> Vec<serde_json::Value> {
    fixture.appliance.audit().unwrap().into_iter().filter(|record| record["event"] == event).collect()
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
