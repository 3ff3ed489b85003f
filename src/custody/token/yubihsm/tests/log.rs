use super::*;

#[test]
fn every_entry_of_the_device_s_log_is_kept_and_joined_to_the_digest_that_was_signed() {
    let world = World::new();
    world.audit_signatures();
    let token = world.token();
    let session = world.session(&token);
    let key = session.find_key(&acme()).unwrap();
    for round in 0..40u8 {
        session.sign(key.slot, &[round; 32]).unwrap();
    }
    let signatures = || world.lines().into_iter().filter(|line| line["command"] == "0x56").collect::<Vec<_>>();
    eventually("all are taken", || signatures().len() == 40);
    for (round, line) in signatures().iter().enumerate() {
        let digest = format!("{round:02x}").repeat(32);
        assert_eq!((&line["asked"]["paeSha256"], &line["targetKey"]), (&digest.into(), &"0x0123".into()), "{line}");
    }
    let lines = world.lines();
    let numbers: Vec<u64> = lines.iter().map(|line| line["number"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    assert!(world.simulator.with(|device| device.log_used()) < 62);
}

#[test]
fn a_full_log_is_taken_at_once_and_the_signature_made() {
    let world = World::new();
    world.audit_signatures();
    let token = world.token();
    let session = world.session(&token);
    let key = session.find_key(&acme()).unwrap();
    eventually("the log was taken", || world.open_sessions() == 1);
    for _ in 0..3 {
        world.simulator.control(Control::FillLog);
        session.sign(key.slot, &[9; 32]).unwrap();
    }
    assert!(world.lines().len() > 3 * 50);
}

#[test]
fn without_the_capability_to_read_the_log_a_full_device_signs_nothing() {
    let world = World::new();
    world.audit_signatures();
    world.simulator.with(|device| device.put_authentication_key(2, b"correct horse", 0b1, capability::SIGN_ECDSA));
    let token = world.token();
    let session = world.session(&token);
    let key = session.find_key(&acme()).unwrap();
    session.sign(key.slot, &[9; 32]).unwrap();
    world.simulator.control(Control::FillLog);
    let error = session.sign(key.slot, &[9; 32]).unwrap_err();
    assert!(explain(&error).contains("log is full"), "{error:?}");
    assert_eq!(error.remedy(), Remedy::None);
}

#[test]
fn a_log_that_was_tampered_with_or_lost_entries_says_so() {
    let world = World::new();
    world.audit_signatures();
    let token = world.token();
    let session = world.session(&token);
    let key = session.find_key(&acme()).unwrap();
    session.sign(key.slot, &[1; 32]).unwrap();
    world.simulator.control(Control::TamperLog);
    session.sign(key.slot, &[2; 32]).unwrap();
    eventually("the break is on record", || world.lines().iter().any(|line| line["kind"] == "broken"));
}

#[test]
fn the_log_goes_on_where_it_ended_and_a_torn_line_is_cut_off() {
    let world = World::new();
    world.audit_signatures();
    let sign = |digest: [u8; 32]| {
        let token = world.token();
        let session = world.session(&token);
        let key = session.find_key(&acme()).unwrap();
        session.sign(key.slot, &digest).unwrap();
        let wanted = format!("{:02x}", digest[0]).repeat(32);
        eventually("taken", || world.lines().iter().any(|line| line["asked"]["paeSha256"] == wanted.as_str()));
    };
    sign([1; 32]);
    let path = world.dir.path().join("yubihsm-log.jsonl");
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str("{\"at\":\"torn");
    std::fs::write(&path, text).unwrap();
    sign([2; 32]);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(!text.contains("torn") && !text.contains("broken"));
    for pair in lines.windows(2) {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, pair[0].as_bytes());
        let line: serde_json::Value = serde_json::from_str(pair[1]).unwrap();
        assert_eq!(line["previous"], crate::hex::hex(digest.as_ref()));
    }
}

#[test]
fn a_device_that_logs_no_signatures_still_leaves_a_line_for_each() {
    let world = World::new();
    let token = world.token();
    let session = world.session(&token);
    let key = session.find_key(&acme()).unwrap();
    session.sign(key.slot, &[3; 32]).unwrap();
    eventually("on record", || world.lines().iter().any(|line| line["kind"] == "unlogged"));
    let lines = world.lines();
    let line = lines.iter().find(|line| line["kind"] == "unlogged").unwrap();
    assert_eq!((&line["paeSha256"], &line["sequence"]), (&"03".repeat(32).into(), &1.into()));
}

#[test]
fn a_log_that_cannot_be_written_stays_on_the_device_and_nothing_is_taken_twice() {
    let world = World::new();
    world.audit_signatures();
    let journal = Journal::open(&world.dir.path().join("yubihsm-log.jsonl")).unwrap();
    let ledger = Ledger::new(journal, 2);
    let bus = Arc::new(Bus::new(&world.options().connector, None).unwrap());
    let opener = Opener { bus: &bus, places: &Places::new(1), auth_key: 2 };
    let mut session = opener.open(authentication::Key::derive_from_password(b"correct horse")).unwrap();
    ledger.sign(&mut session, 0x0123, &[1; 32]).unwrap();
    // A limit on the size of files would hit the whole test process; a full device file hits this one.
    ledger.break_journal(Path::new("/dev/full"));
    let before = world.simulator.with(|device| device.log_used());
    assert!(matches!(ledger.drain(&mut session, 7_550_140), Err(DrainError::Journal(_))));
    assert_eq!((world.simulator.with(|device| device.log_used()), ledger.waiting()), (before, 1));
    ledger.break_journal(&world.dir.path().join("yubihsm-log.jsonl"));
    ledger.drain(&mut session, 7_550_140).unwrap();
    assert_eq!((world.simulator.with(|device| device.log_used()), ledger.waiting()), (0, 0));
    let lines = world.lines();
    let joined: Vec<_> = lines.iter().filter(|line| line["asked"]["sequence"] == 1).collect();
    assert_eq!((joined.len(), lines.len()), (1, before));
}

#[test]
fn a_device_that_was_not_told_to_forget_is_told_again_though_nothing_is_new() {
    let world = World::new();
    world.audit_signatures();
    let journal = Journal::open(&world.dir.path().join("yubihsm-log.jsonl")).unwrap();
    let ledger = Ledger::new(journal, 2);
    let bus = Arc::new(Bus::new(&world.options().connector, None).unwrap());
    let opener = Opener { bus: &bus, places: &Places::new(1), auth_key: 2 };
    let mut session = opener.open(authentication::Key::derive_from_password(b"correct horse")).unwrap();
    world.simulator.control(Control::FillLog);
    world.simulator.control(Control::FailNext { command: Some(0x67), code: 0x05, count: 1 });
    assert!(matches!(ledger.drain(&mut session, 7_550_140), Err(DrainError::Device(_))));
    let taken = world.lines().len();
    ledger.drain(&mut session, 7_550_140).unwrap();
    assert_eq!((world.simulator.with(|device| device.log_used()), world.lines().len()), (0, taken));
}

/// A worker that begins, one whose session has expired, and one that looks for a key: each finds the log full, and none
/// stays outside.
#[test]
fn a_log_that_is_full_when_a_session_is_opened_or_renewed_keeps_nobody_out() {
    let world = World::new();
    world.audit_signatures();
    world.simulator.control(Control::FillLog);
    let token = world.token();
    let session = world.session(&token);
    let key = session.find_key(&acme()).unwrap();
    session.sign(key.slot, &[1; 32]).unwrap();
    assert!(world.lines().len() > 50, "what was in the log is kept");
    eventually("the log was taken", || world.open_sessions() == 1);
    for _ in 0..2 {
        world.simulator.control(Control::FillLog);
        world.simulator.control(Control::DropSessions);
        session.sign(key.slot, &[2; 32]).unwrap();
    }
    world.simulator.control(Control::FillLog);
    session.find_key(&acme()).unwrap();
    world.simulator.control(Control::FillLog);
    world.simulator.control(Control::DropSessions);
    session.find_key(&acme()).unwrap();
    assert!(world.lines().iter().all(|line| line["kind"] == "entry" || line["kind"] == "overflow"));
}

#[test]
fn of_a_device_with_a_full_log_nothing_but_the_log_is_asked_before_it_says_which_one_it_is() {
    let world = World::new();
    world.audit_signatures();
    let token = world.token();
    let session = world.session(&token);
    let key = session.find_key(&acme()).unwrap();
    eventually("the log was taken", || world.open_sessions() == 1);
    // Another device with the same password and keys, and no room to say its serial number.
    world.simulator.control(Control::Serial { serial: 99 });
    world.simulator.control(Control::FillLog);
    let error = session.sign(key.slot, &[1; 32]).unwrap_err();
    assert!(explain(&error).contains("this is YubiHSM 99"), "{error:?}");
    assert_eq!(world.simulator.with(|device| device.signatures()), 0, "it signed nothing");
    let other = |line: &serde_json::Value| line["kind"] == "other-device" && line["found"] == 99;
    assert!(world.lines().iter().any(other), "whose entries they are is on record");
}

#[test]
fn without_the_capability_to_read_it_a_full_log_says_why_nobody_can_log_in() {
    let world = World::new();
    world.audit_signatures();
    world.simulator.with(|device| device.put_authentication_key(2, b"correct horse", 0b1, capability::SIGN_ECDSA));
    world.simulator.control(Control::FillLog);
    let token = world.token();
    let error = token.open_session().unwrap().login(&world.pin("correct horse")).unwrap_err();
    let said = explain(&error);
    assert!(said.contains("log, which is full") && said.contains("insufficient permissions"), "{said}");
}

#[test]
fn two_workers_do_not_keep_one_file() {
    let world = World::new();
    let first = world.token();
    let second = YubiHsmToken::new(&world.options());
    assert!(matches!(&second, Err(YubiHsmError::JournalInUse(path)) if path.ends_with("yubihsm-log.jsonl")));
    let said = second.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(said.contains("`state_dir` of its own"), "{said}");
    drop(first);
    world.token();
}
