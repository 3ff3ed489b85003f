//! What the parent may rely on, whatever Fulcio, the operator or the parent itself does.

use std::io::Write as _;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use p256::ecdsa::{DerSignature, VerifyingKey};
use signer_keyless::wire::{
    Failed, FailureKind, FromHelper, Layer, Layers, Signed, Step, ToHelper, Transport, encode_to_helper,
};
use x509_parser::prelude::*;

use crate::fulcio::{Fulcio, Manner};
use crate::helper::{DIGEST, Helper, TOKEN, debug_build, job};

/// One flow and its last word.
fn flow(manner: Manner) -> FromHelper {
    let fulcio = Fulcio::start(manner);
    let mut helper = Helper::start(&debug_build(), &[]);
    assert_eq!(helper.sealed().layers, Layers::all());
    helper.work(&fulcio, |_| ());
    let word = helper.hear().unwrap();
    let code = helper.end().code();
    assert_eq!(code, Some(if matches!(word, FromHelper::Signed(_)) { 0 } else { 1 }), "{word:?}");
    word
}

fn signed(word: FromHelper) -> Signed {
    match word {
        FromHelper::Signed(signed) => signed,
        other => panic!("not signed: {other:?}"),
    }
}

fn failed(word: FromHelper) -> Failed {
    match word {
        FromHelper::Failed(failed) => failed,
        other => panic!("did not fail: {other:?}"),
    }
}

fn verify(public_key: &[u8], digest: &[u8], signature: &[u8]) {
    let key = VerifyingKey::from_sec1_bytes(public_key).unwrap();
    key.verify_prehash(digest, &DerSignature::from_bytes(signature).unwrap()).unwrap();
}

#[test]
fn a_flow_ends_with_a_certificate_for_the_key_that_signed_the_digest() {
    for manner in [Manner::Issue, Manner::Chunked, Manner::Plain, Manner::Detached] {
        let signed = signed(flow(manner));
        verify(&signed.public_key, &DIGEST, &signed.signature);
        assert_eq!(signed.certificates.len(), 2, "{manner:?}");
        let (_, leaf) = X509Certificate::from_der(&signed.certificates[0]).unwrap();
        assert_eq!(*leaf.public_key().subject_public_key.data, signed.public_key);
        assert_eq!(signed.sct.is_some(), manner == Manner::Detached);
    }
}

#[test]
fn every_flow_has_a_key_of_its_own() {
    let keys: Vec<_> = (0..3).map(|_| signed(flow(Manner::Issue)).public_key).collect();
    assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
}

#[test]
fn each_way_that_a_fulcio_fails_is_told_apart() {
    for (manner, step, kind, status) in [
        (Manner::Status(400), Step::Answer, FailureKind::Refused, Some(400)),
        (Manner::Status(401), Step::Answer, FailureKind::Refused, Some(401)),
        (Manner::Status(302), Step::Answer, FailureKind::Refused, Some(302)),
        (Manner::Status(429), Step::Answer, FailureKind::Busy, Some(429)),
        (Manner::Status(503), Step::Answer, FailureKind::Busy, Some(503)),
        (Manner::Status(200), Step::Answer, FailureKind::BadAnswer, Some(200)),
        (Manner::HangUp, Step::Answer, FailureKind::Closed, None),
        (Manner::Huge, Step::Answer, FailureKind::TooLarge, None),
        (Manner::Noise, Step::Answer, FailureKind::BadAnswer, None),
        (Manner::OtherRoot, Step::Handshake, FailureKind::TlsRefused, None),
    ] {
        let failed = failed(flow(manner));
        assert_eq!((failed.step, failed.kind, failed.status), (step, kind, status), "{manner:?}: {failed}");
        let echoed = TOKEN.split('.').any(|part| failed.detail().contains(part));
        assert!(!echoed && !failed.detail().contains('\x1b'), "{failed}");
    }
}

#[test]
fn a_silent_fulcio_costs_the_sockets_time_out() {
    let fulcio = Fulcio::start(Manner::Silent);
    let mut helper = Helper::start(&debug_build(), &[]);
    helper.sealed();
    let socket = TcpStream::connect(fulcio.address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    helper.pass(&job(&fulcio, |_| ()), &[&socket]);
    assert_eq!(failed(helper.hear().unwrap()).kind, FailureKind::TimedOut);
}

#[test]
fn another_name_than_the_certificates_is_refused_before_the_token_is_sent() {
    let fulcio = Fulcio::start(Manner::Issue);
    let mut helper = Helper::start(&debug_build(), &[]);
    helper.sealed();
    helper.work(&fulcio, |job| {
        if let Transport::Tls { server_name, .. } = &mut job.transport {
            *server_name = "other.test";
        }
    });
    assert_eq!(failed(helper.hear().unwrap()).kind, FailureKind::TlsRefused);
    assert!(fulcio.requests().is_empty());
}

#[test]
fn a_helper_signs_as_often_as_its_bound_says_under_one_certificate() {
    let fulcio = Fulcio::start(Manner::Issue);
    let mut helper = Helper::start(&debug_build(), &[]);
    helper.sealed();
    helper.work(&fulcio, |job| job.bounds.signatures = 3);
    let key = signed(helper.hear().unwrap()).public_key;
    for byte in [1, 2] {
        helper.say(&ToHelper::Digest([byte; 32]));
        match helper.hear() {
            Some(FromHelper::Signature(signature)) => verify(&key, &[byte; 32], &signature),
            other => panic!("no signature: {other:?}"),
        }
    }
    assert_eq!(helper.hear(), None, "the bound is reached");
    assert_eq!(helper.child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_parents_end_ends_it_at_any_time() {
    let mut helper = Helper::start(&debug_build(), &[]);
    helper.sealed();
    assert_eq!(helper.end().code(), Some(0), "before the job");

    let fulcio = Fulcio::start(Manner::Issue);
    let mut helper = Helper::start(&debug_build(), &[]);
    helper.sealed();
    helper.work(&fulcio, |job| job.bounds.signatures = u32::MAX);
    signed(helper.hear().unwrap());
    assert_eq!(helper.end().code(), Some(0), "between two digests");
}

#[test]
fn a_parent_that_is_killed_takes_it_along_while_fulcio_is_waited_for() {
    let fulcio = Fulcio::start(Manner::Silent);
    // The shell is the parent that is killed; the socket is here, so that its end says nothing.
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "exec 3<&0; env -i \"$0\" <&3 3<&- & wait"]).arg(debug_build());
    let mut helper = Helper::from(&mut shell);
    helper.sealed();
    helper.work(&fulcio, |_| ());
    while fulcio.requests().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    helper.child.kill().unwrap();
    helper.child.wait().unwrap();
    assert_eq!(helper.hear(), None, "it went with its parent, before Fulcio's time was up");
}

#[test]
fn a_parent_that_breaks_the_protocol_gets_no_signature() {
    let fulcio = Fulcio::start(Manner::Issue);
    let job = job(&fulcio, |_| ());
    let digest = encode_to_helper(&ToHelper::Digest([0; 32])).unwrap();
    let (one, two) = (fulcio.connect(), fulcio.connect());
    for (what, bytes, with) in [
        ("noise", &b"GET / HTTP/1.1\r\n\r\n"[..], &[&one][..]),
        ("an empty frame", &[0, 0, 0, 0], &[&one]),
        ("a digest first", &digest, &[&one]),
        ("no socket", &job, &[]),
        ("two sockets", &job, &[&one, &two]),
        ("a cut frame", &job[..job.len() - 1], &[&one]),
    ] {
        let mut helper = Helper::start(&debug_build(), &[]);
        helper.sealed();
        helper.pass(bytes, with);
        helper.control.shutdown(Shutdown::Write).unwrap();
        let failed = failed(helper.hear().unwrap_or_else(|| panic!("{what}: it ended without a word")));
        assert_eq!(failed.step, Step::Receive, "{what}: {failed}");
        assert_eq!(helper.hear(), None);
    }
    assert!(fulcio.requests().is_empty());
}

#[test]
fn it_says_which_layers_an_operator_named_as_exceptions() {
    for layer in Layer::ALL {
        let mut helper = Helper::start(&debug_build(), &[layer]);
        if layer == Layer::NoNewPrivileges {
            // Landlock and the filter cannot be had without it, by a process without capabilities.
            let failed = failed(helper.hear().unwrap());
            assert_eq!((failed.step, failed.kind), (Step::Seal, FailureKind::Sandbox));
            continue;
        }
        let sealed = helper.sealed();
        assert_eq!(sealed.layers.missing(), [layer].into_iter().collect());
        assert_eq!(sealed.landlock_abi == 0, layer == Layer::Landlock);
    }
}

#[test]
fn it_refuses_to_run_in_any_way_but_the_one_it_is_meant_to_be_started_in() {
    let refused = |command: &mut Command| {
        let mut helper = Helper::from(command);
        let failed = failed(helper.hear().unwrap());
        assert_eq!((failed.step, failed.kind), (Step::Seal, FailureKind::Sandbox), "{failed}");
        assert_eq!(helper.end().code(), Some(1));
    };
    refused(Command::new(debug_build()).env_clear().env("LANG", "C"));
    refused(Command::new(debug_build()).env_clear().arg("--without"));
    refused(Command::new(debug_build()).env_clear().args(["--without", "everything"]));

    let by_hand = |stdin: Stdio| Command::new(debug_build()).env_clear().stdin(stdin).output().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for stdin in [Stdio::null(), OwnedFd::from(listener).into()] {
        let output = by_hand(stdin);
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty() && output.stderr.is_empty());
    }
}

#[test]
fn openssl_reads_the_request_and_finds_it_signed_by_its_key() {
    let fulcio = Fulcio::start(Manner::Issue);
    let mut helper = Helper::start(&debug_build(), &[]);
    helper.sealed();
    helper.work(&fulcio, |_| ());
    signed(helper.hear().unwrap());
    let mut openssl = Command::new("openssl")
        .args(["req", "-verify", "-noout", "-text"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    openssl.stdin.take().unwrap().write_all(fulcio.requests()[0].as_bytes()).unwrap();
    let output = openssl.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && text.contains("verify OK") && text.contains("prime256v1"), "{text}");
}
