//! What the codec accepts is exactly what it writes.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn job<'a>(roots: &[&'a [u8]], token: &'a str) -> Job<'a> {
    Job {
        transport: Transport::Tls { server_name: "fulcio.example", roots: roots.to_vec() },
        authority: "fulcio.example:8443",
        path: "/api/v2/signingCert",
        token: Token::new(token).unwrap(),
        digest: [7; 32],
        bounds: Bounds { answer: 32 * 1024, signatures: 3 },
    }
}

fn signed() -> Signed {
    Signed {
        signature: vec![0x30; 71],
        certificates: vec![vec![1; 900], vec![2; 700]],
        sct: Some(vec![3; 200]),
        public_key: [4; 65],
    }
}

fn body(frame: &[u8]) -> &[u8] {
    let (header, body) = frame.split_first_chunk::<HEADER>().unwrap();
    assert_eq!(body_length(*header, MAX_TO_HELPER), Ok(body.len()));
    body
}

#[test]
fn a_job_comes_back_as_it_was_sent_and_its_buffer_never_grew() {
    let root = [9_u8; 1200];
    for message in [
        ToHelper::Job(job(&[&root, &root[..600]], "eyJh.eyJi.c2ln")),
        ToHelper::Job(Job { transport: Transport::PlainLoopback, ..job(&[], "a.b.c") }),
        ToHelper::Digest([5; 32]),
    ] {
        let frame = encode_to_helper(&message).unwrap();
        assert_eq!(frame.capacity(), frame.len(), "a buffer that grows leaves a copy of the token behind");
        assert_eq!(decode_to_helper(body(&frame)).unwrap(), message);
    }
}

#[test]
fn every_message_of_the_helper_comes_back_as_it_was_sent() {
    let failed = Failed::new(Step::Answer, FailureKind::Busy, "no").answered(Some(429), Some(3));
    for message in [
        FromHelper::Sealed(Sealed { layers: Layers::all(), landlock_abi: 7, uid: 65534 }),
        FromHelper::Signed(signed()),
        FromHelper::Signed(Signed { sct: None, ..signed() }),
        FromHelper::Signature(vec![0x30; 72]),
        FromHelper::Failed(failed),
        FromHelper::Failed(Failed::new(Step::Seal, FailureKind::Sandbox, "")),
    ] {
        assert_eq!(decode_from_helper(body(&encode_from_helper(&message).unwrap())).unwrap(), message);
    }
}

#[test]
fn a_frame_cut_short_or_with_a_byte_too_many_is_refused_at_every_length() {
    let root = [9_u8; 40];
    let frame = encode_to_helper(&ToHelper::Job(job(&[&root], "a.b.c"))).unwrap();
    let whole = body(&frame);
    for end in 0..whole.len() {
        assert!(decode_to_helper(&whole[..end]).is_err(), "cut at {end}");
    }
    assert_eq!(decode_to_helper(&[whole, &[0]].concat()), Err(WireError::Trailing(1)));

    let frame = encode_from_helper(&FromHelper::Signed(signed())).unwrap();
    let whole = body(&frame);
    for end in 0..whole.len() {
        assert!(decode_from_helper(&whole[..end]).is_err(), "cut at {end}");
    }
    assert_eq!(decode_from_helper(&[whole, &[0]].concat()), Err(WireError::Trailing(1)));
}

#[test]
fn another_version_is_named_as_such() {
    let mut frame = encode_to_helper(&ToHelper::Job(job(&[&[1]], "a.b.c"))).unwrap();
    frame[HEADER + 2] = 9;
    assert_eq!(decode_to_helper(body(&frame)), Err(WireError::Version(9)));
}

#[test]
fn what_is_beyond_a_bound_is_neither_written_nor_read() {
    let long = "a".repeat(MAX_TOKEN + 1);
    for token in ["", "a b", "a\nb", "a\"b", "é", &long] {
        assert_eq!(Token::new(token), Err(WireError::Value("identity token")), "{token:.20}");
    }
    let (root, too_long) = (vec![0; MAX_CERTIFICATE], vec![0; MAX_CERTIFICATE + 1]);
    let refused = |job| encode_to_helper(&ToHelper::Job(job)).unwrap_err();
    assert_eq!(refused(job(&[], "a.b.c")), WireError::Value("roots"));
    assert_eq!(refused(job(&[&[]], "a.b.c")), WireError::Value("roots"));
    assert_eq!(refused(job(&[&too_long], "a.b.c")), WireError::Value("roots"));
    assert!(matches!(refused(job(&[&root[..]; 60], "a.b.c")), WireError::Length(_)));
    for (authority, path) in [("", "/"), ("a b", "/"), ("a\r\nb", "/"), ("a", ""), ("a", "api"), ("a", "/a b")] {
        assert!(encode_to_helper(&ToHelper::Job(Job { authority, path, ..job(&[&[1]], "a") })).is_err());
    }
    for bounds in [
        Bounds { answer: 0, signatures: 1 },
        Bounds { answer: MAX_ANSWER + 1, signatures: 1 },
        Bounds { answer: 1, signatures: 0 },
    ] {
        assert_eq!(refused(Job { bounds, ..job(&[&[1]], "a") }), WireError::Value("bounds"));
    }
    for signed in [
        Signed { certificates: vec![], ..signed() },
        Signed { certificates: vec![vec![1]; MAX_CERTIFICATES + 1], ..signed() },
        Signed { signature: vec![0; MAX_SIGNATURE + 1], ..signed() },
        Signed { sct: Some(vec![0; MAX_SCT + 1]), ..signed() },
    ] {
        assert!(encode_from_helper(&FromHelper::Signed(signed)).is_err());
    }
    assert_eq!(body_length([0; 4], MAX_FROM_HELPER), Err(WireError::Length(0)));
    assert_eq!(body_length([0xff; 4], MAX_FROM_HELPER), Err(WireError::Length(0xffff_ffff)));
}

#[test]
fn a_token_prints_nothing() {
    let root = [1_u8];
    let text = format!("{:?}", ToHelper::Job(job(&[&root], "eyJzZWNyZXQ.eyJi.c2ln")));
    assert!(!text.contains("eyJ"), "{text}");
}

#[test]
fn the_detail_of_a_failure_is_fit_for_a_log() {
    let detail = |text: &str| Failed::new(Step::Answer, FailureKind::Refused, text).detail().to_owned();
    assert_eq!(detail("bad\x1b[31m\r\nheader"), "bad [31m  header");
    let token = "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJzaWduZXItb2YtdGVuYW50LTEifQ.x";
    assert_eq!(detail(&format!("cannot parse {token}")), "cannot parse […].[…].x");
    assert_eq!(
        detail("There was an error processing the identity token"),
        "There was an error processing the identity token"
    );
    let long = detail(&"né ".repeat(400));
    assert!(long.len() <= MAX_DETAIL && long.starts_with("né né"), "{long}");
}

#[test]
fn exceptions_are_named_one_by_one_and_nothing_else_is_understood() {
    let layers: Layers = [Layer::Landlock, Layer::Unprivileged].into_iter().collect();
    assert_eq!(arguments(layers), ["--without", "unprivileged", "--without", "landlock"]);
    assert_eq!(exceptions(arguments(layers)), Ok(layers));
    assert_eq!(exceptions::<&str>([]), Ok(Layers::default()));
    for bad in [&["--without"][..], &["landlock"], &["--without", "sandbox"], &["--with", "landlock"]] {
        assert!(exceptions(bad.iter().copied()).is_err(), "{bad:?}");
    }
    assert_eq!(layers.missing().missing(), layers);
    assert_eq!(layers.to_string(), "unprivileged, landlock");
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoders_panic_and_what_they_take_is_canonical(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(message) = decode_to_helper(&bytes) {
            let frame = encode_to_helper(&message).unwrap();
            prop_assert_eq!(body(&frame), &bytes[..]);
        }
        if let Ok(message) = decode_from_helper(&bytes) {
            prop_assert!(encode_from_helper(&message).is_ok());
        }
    }

    #[test]
    fn a_frame_with_any_byte_changed_still_decodes_to_what_it_says_or_not_at_all(at in 0_usize..300, to: u8) {
        let root = [9_u8; 90];
        let frame = encode_to_helper(&ToHelper::Job(job(&[&root, &root], "eyJh.eyJi.c2ln"))).unwrap();
        let mut bytes = body(&frame).to_vec();
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok(message) = decode_to_helper(&bytes) {
            let again = encode_to_helper(&message).unwrap();
            prop_assert_eq!(body(&again), &bytes[..]);
        }
    }

    #[test]
    fn an_answer_with_any_byte_changed_never_panics(at: usize, to: u8) {
        let mut frame = encode_from_helper(&FromHelper::Signed(signed())).unwrap();
        let at = HEADER + at % (frame.len() - HEADER);
        frame[at] = to;
        if let Ok(message) = decode_from_helper(&frame[HEADER..]) {
            prop_assert!(encode_from_helper(&message).is_ok());
        }
    }
}
