#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

#[test]
fn every_request_comes_back_as_it_was() {
    let requests = [
        Request::Hello(Hello::new("signerd")),
        Request::OpenKey { uri: "pkcs11:object=a".into() },
        Request::Sign { handle: KeyHandle(7), lane: u64::MAX - 1, budget_ms: 5_000, digest: [9; 32] },
        Request::Status,
        Request::Ping,
    ];
    for (id, request) in (0u64..).zip(requests) {
        let mut out = Vec::new();
        encode_request(id, &request, &mut out);
        assert_eq!(decode_request(&out[4..]), Ok((id, request)));
    }
}

#[test]
fn every_reply_comes_back_as_it_was() {
    let (_, public_key) = crate::custody::testing::key_pair();
    let counters = Counters {
        sign_requests: 1,
        signatures: 2,
        failed: 3,
        expired: 4,
        refused_full: 5,
        logins: 6,
        sessions_opened: 7,
        sessions_lost: 8,
        refused_peers: 9,
        reinitialized: 16,
        kept_alive: 17,
        uptime_ms: 10,
    };
    let report = StatusReport {
        state: WorkerState::Ready,
        detail: "a".into(),
        label: "b".into(),
        serial: "c".into(),
        manufacturer: "d".into(),
        model: "e".into(),
        firmware: "f".into(),
        sessions_open: 11,
        sessions_configured: 12,
        queue_depth: 13,
        max_queue: 14,
        connections: 15,
        counters,
    };
    let replies = [
        Reply::Hello(Hello::new("main")),
        Reply::KeyOpened(OpenedKey {
            handle: KeyHandle(1),
            public_key,
            attributes: KeyAttributes { sensitive: true, local: true, ..KeyAttributes::default() },
            attestation: vec![vec![0x30; MAX_CERTIFICATE]; MAX_CERTIFICATES],
        }),
        Reply::Signed([3; 64]),
        Reply::Status(Box::new(report)),
        Reply::Pong,
        Reply::Goodbye,
        Reply::Failed(Failure::new(FailureCode::BadRequest, "no")),
        Reply::Failed(Failure::new(FailureCode::Unclear, "perhaps")),
        Reply::Failed(Failure::new(FailureCode::BadSignature, "63 bytes")),
    ];
    for (id, reply) in (0u64..).zip(replies) {
        let mut out = Vec::new();
        encode_reply(id, &reply, &mut out);
        assert_eq!(decode_reply(&out[4..]), Ok((id, reply)));
    }
}

#[test]
fn a_frame_that_is_not_exactly_its_message_is_refused() {
    let mut out = Vec::new();
    encode_request(1, &Request::Sign { handle: KeyHandle(1), lane: 0, budget_ms: 1, digest: [0; 32] }, &mut out);
    let frame = &out[4..];
    for cut in 0..frame.len() {
        assert_eq!(decode_request(&frame[..cut]), Err(WireError::Truncated), "{cut}");
    }
    let longer = [frame, &[0]].concat();
    assert_eq!(decode_request(&longer), Err(WireError::Trailing(1)));
    assert_eq!(decode_reply(frame), Err(WireError::UnknownKind(0x03)), "a request is no reply");
}

#[test]
fn the_longest_chain_of_certificates_fits_a_frame_and_a_longer_one_is_left_out() {
    let (_, public_key) = crate::custody::testing::key_pair();
    let encoded = |attestation: Vec<Vec<u8>>| {
        let key = OpenedKey { handle: KeyHandle(1), public_key, attributes: KeyAttributes::default(), attestation };
        let mut out = Vec::new();
        encode_reply(1, &Reply::KeyOpened(key), &mut out);
        out
    };
    assert!(encoded(vec![vec![0; MAX_CERTIFICATE]; MAX_CERTIFICATES]).len() <= MAX_FRAME);
    for beyond in [vec![vec![0; MAX_CERTIFICATE + 1]], vec![vec![0]; MAX_CERTIFICATES + 1]] {
        let out = encoded(beyond);
        let Ok((_, Reply::KeyOpened(key))) = decode_reply(&out[4..]) else { panic!("an opened key") };
        assert!(key.attestation.is_empty());
    }
    let mut out = encoded(Vec::new());
    *out.last_mut().unwrap() = 7;
    assert_eq!(decode_reply(&out[4..]), Err(WireError::BadValue("the number of certificates")));
}

#[test]
fn a_foreign_protocol_is_told_from_another_version() {
    let mut out = Vec::new();
    encode_request(0, &Request::Hello(Hello { version: 9, name: String::new() }), &mut out);
    let (_, Request::Hello(hello)) = decode_request(&out[4..]).unwrap() else { panic!("a hello") };
    assert_eq!(hello.check_version(), Err(WireError::Version { theirs: 9 }));
    out[13] ^= 1;
    assert_eq!(decode_request(&out[4..]), Err(WireError::NotHello));
}

#[test]
fn text_with_control_characters_never_reaches_a_log() {
    let mut out = Vec::new();
    encode_reply(1, &Reply::Failed(Failure { code: FailureCode::BadRequest, detail: "a\x1b[2J".into() }), &mut out);
    let (_, Reply::Failed(failure)) = decode_reply(&out[4..]).unwrap() else { panic!("a failure") };
    assert_eq!(failure.detail, "a [2J", "replaced when sent");
    let at = out.len() - 4;
    out[at] = 0x1b;
    assert_eq!(decode_reply(&out[4..]), Err(WireError::BadText), "refused when received");
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_the_frame_arrives() {
    let mut inbox = Inbox::new();
    feed(&mut inbox, &257u32.to_be_bytes());
    assert_eq!(inbox.next_frame(), Err(WireError::TooLong { length: 257, limit: 256 }), "before the hello");
    inbox.lift_limit();
    assert_eq!(inbox.next_frame(), Ok(None), "after it");
    let mut inbox = Inbox::new();
    inbox.lift_limit();
    feed(&mut inbox, &u32::MAX.to_be_bytes());
    assert_eq!(inbox.next_frame(), Err(WireError::TooLong { length: u32::MAX, limit: MAX_FRAME }));
}

#[test]
fn the_longest_frame_fits_and_memory_stays_bounded() {
    let mut inbox = Inbox::new();
    inbox.lift_limit();
    let body = vec![7u8; MAX_FRAME];
    for _ in 0..3 {
        feed(&mut inbox, &u32::try_from(MAX_FRAME).unwrap().to_be_bytes());
        assert_eq!(inbox.next_frame(), Ok(None));
        feed(&mut inbox, &body);
        assert_eq!(inbox.next_frame().unwrap(), Some(&body[..]));
        assert!(inbox.space().len() <= MAX_FRAME + 4);
    }
}

fn feed(inbox: &mut Inbox, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let space = inbox.space();
        let n = space.len().min(bytes.len());
        space[..n].copy_from_slice(&bytes[..n]);
        inbox.filled(n);
        bytes = &bytes[n..];
    }
}

proptest! {
    #[test]
    fn no_bytes_make_decoding_panic(kind in any::<u8>(), bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let frame = [&[kind][..], &bytes].concat();
        let _ = decode_request(&frame);
        let _ = decode_reply(&frame);
        let _ = decode_reply(&bytes);
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(kind in 1u8..6, body in proptest::collection::vec(any::<u8>(), 8..200)) {
        let frame = [&[kind][..], &body].concat();
        if let Ok((id, request)) = decode_request(&frame) {
            let mut out = Vec::new();
            encode_request(id, &request, &mut out);
            prop_assert_eq!(&out[4..], &frame[..]);
        }
    }

    #[test]
    fn frames_come_out_however_the_stream_is_cut(
        sizes in proptest::collection::vec(9usize..3000, 1..20),
        cuts in proptest::collection::vec(1usize..5000, 1..50),
    ) {
        let mut stream = Vec::new();
        for (n, size) in sizes.iter().enumerate() {
            stream.extend_from_slice(&u32::try_from(*size).unwrap().to_be_bytes());
            stream.extend(std::iter::repeat_n(u8::try_from(n).unwrap(), *size));
        }
        let mut inbox = Inbox::new();
        inbox.lift_limit();
        let (mut seen, mut rest, mut cuts) = (Vec::new(), &stream[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let space = inbox.space();
            let n = (*cuts.next().unwrap()).min(rest.len()).min(space.len());
            space[..n].copy_from_slice(&rest[..n]);
            inbox.filled(n);
            rest = &rest[n..];
            while let Some(frame) = inbox.next_frame().unwrap() {
                prop_assert!(frame.iter().all(|b| usize::from(*b) == seen.len()));
                seen.push(frame.len());
            }
        }
        prop_assert_eq!(seen, sizes);
    }
}
