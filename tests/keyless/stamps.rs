//! What an authority states and the certificate must agree, or no verifier would ever take the bundle.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::{Value, json};
use testkit::keyless::{OwnFulcio, sign};
use testkit::sigstore::tsa::Answer;
use testkit::sigstore::{Tsa, trusted_root};
use testkit::{now, sample, sha256};

#[test]
fn a_stamp_before_the_certificate_does_not_leave_and_signatures_by_keys_do() {
    let tsa = Tsa::new(now());
    let root = trusted_root(None, &[], &[&tsa], now()).to_string();
    let signer: String = sha256(&tsa.signer.certificate).iter().map(|byte| format!("{byte:02x}")).collect();
    // Less behind than would be noticed without a certificate.
    let url = serve(tsa, -40);
    let world = OwnFulcio::start(|builder| {
        builder.settings(move |settings, peers| {
            let file = peers.dir.join("tsa.json");
            std::fs::write(&file, root).unwrap();
            settings.set_path("timestamps.trusted_root", &file).set("timestamps.authority.main.url", url);
        })
    });
    let client = world.fixture.client();
    let answer = sign(&client, "sigstore").send();
    crate::assert_refused(&world.fixture, &answer, "dependency_unavailable", "timestamp_outside_certificate");
    let labels = [("authority", "main"), ("reason", "timestamp_outside_certificate")];
    let metrics = world.fixture.appliance.metrics().unwrap();
    assert_eq!(metrics.count("signer_timestamp_failures_total", &labels), 1);
    sign(&client, "dsse+cert").send().expect(200);

    let options = json!({ "signingMode": "kms", "returnBundle": "sigstore" });
    let answer = client.sign(&sample::request()).body(|body: &mut Value| body["options"] = options).send().expect(200);
    let records = world.fixture.appliance.audit_of(&answer.audit_id().unwrap()).unwrap();
    let stamped = records.iter().find_map(|record| record["timestampSigners"].as_array()).unwrap();
    assert_eq!(*stamped, [json!(format!("main:{signer}"))]);
}

/// An authority whose clock is off by so many seconds. Its thread ends with the test's process.
fn serve(tsa: Tsa, off: i64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let body = tsa.answer(&query(&mut stream), &Answer::at(now() + off));
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
        }
    });
    url
}

fn query(stream: &mut TcpStream) -> Vec<u8> {
    let mut seen = Vec::new();
    loop {
        let mut more = [0; 4096];
        let read = stream.read(&mut more).unwrap();
        assert_ne!(read, 0, "the client closed early");
        seen.extend_from_slice(&more[..read]);
        let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(seen[..end].to_vec()).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if seen.len() == end + 4 + length.parse::<usize>().unwrap() {
            return seen[end + 4..].to_vec();
        }
    }
}
