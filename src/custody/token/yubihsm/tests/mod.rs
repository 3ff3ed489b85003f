#![allow(clippy::unwrap_used)]

mod log;

use std::time::Instant;

use yubihsm_sim::control::Attest;
use yubihsm_sim::object::capability;
use yubihsm_sim::{Control, Device, Settings, Simulator};

use super::*;
use crate::custody::token::explain;

/// A device with an authentication key 2 and a key 0x0123 labelled `acme`, and a worker's view of it.
struct World {
    simulator: Simulator,
    dir: tempfile::TempDir,
}

const AUTH: u64 = capability::SIGN_ECDSA
    | capability::GET_LOG_ENTRIES
    | capability::SIGN_ATTESTATION_CERTIFICATE
    | capability::GET_OPAQUE;

impl World {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let simulator = Simulator::start(settings).unwrap();
        simulator.with(|device| device.put_authentication_key(2, b"correct horse", 0b1, AUTH));
        let world = Self { simulator, dir: tempfile::tempdir().unwrap() };
        world.generate(0x0123, "acme", 0b1, capability::SIGN_ECDSA);
        world
    }

    fn generate(&self, id: u16, label: &str, domains: u16, capabilities: u64) {
        self.simulator.with(|device| device.generate_p256(id, label, domains, capabilities));
    }

    fn options(&self) -> Options {
        Options {
            connector: self.simulator.url().parse().unwrap(),
            serial: None,
            auth_key: 2,
            attestation_roots: None,
            sessions: 2,
            state_dir: self.dir.path().to_owned(),
        }
    }

    /// Of another worker, which keeps the log elsewhere.
    fn elsewhere(&self) -> Options {
        let state_dir = self.dir.path().join("elsewhere");
        std::fs::create_dir_all(&state_dir).unwrap();
        Options { state_dir, ..self.options() }
    }

    fn token(&self) -> YubiHsmToken {
        YubiHsmToken::new(&self.options()).unwrap()
    }

    fn pinned(&self) -> YubiHsmToken {
        let roots = self.dir.path().join("roots.pem");
        std::fs::write(&roots, self.simulator.with(Device::attestation_roots)).unwrap();
        YubiHsmToken::new(&Options { attestation_roots: Some(roots), ..self.options() }).unwrap()
    }

    fn pin(&self, text: &str) -> Pin {
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = self.dir.path().join("pin");
        let _ = std::fs::remove_file(&path);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        Pin::read(&path).unwrap()
    }

    fn session(&self, token: &YubiHsmToken) -> Box<dyn TokenSession> {
        let session = token.open_session().unwrap();
        assert!(!session.is_logged_in().unwrap());
        session.login(&self.pin("correct horse")).unwrap();
        assert!(session.is_logged_in().unwrap());
        session
    }

    fn open_sessions(&self) -> usize {
        self.simulator.with(Device::open_sessions)
    }

    fn audit_signatures(&self) {
        self.simulator.with(|device| device.audit_commands(&[0x56], true));
    }

    fn lines(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.dir.path().join("yubihsm-log.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn uri(text: &str) -> KeyUri {
    text.parse().unwrap()
}

fn acme() -> KeyUri {
    uri("pkcs11:id=%01%23")
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + std::time::Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn unsuitable(error: TokenError) -> String {
    match error {
        TokenError::KeyUnsuitable { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_digest_is_signed_by_the_key_of_an_object_id_or_a_label() {
    let world = World::new();
    let token = world.token();
    let session = world.session(&token);
    for name in ["pkcs11:id=%01%23", "pkcs11:object=acme", "pkcs11:object=acme;id=%01%23;serial=7550140"] {
        let key = session.find_key(&uri(name)).unwrap();
        let signature = session.sign(key.slot, &[7; 32]).unwrap();
        let signature = dsse::Signature::from_raw(&signature).unwrap();
        dsse::verify_digest(&key.public_key.verifier().unwrap(), &[7; 32], &signature).unwrap();
    }
    let facts = token.facts().unwrap();
    assert_eq!((facts.serial.as_str(), facts.firmware.as_str()), ("7550140", "2.4.0"));
}

#[test]
fn a_key_that_is_not_there_or_not_ours_is_not_found() {
    let world = World::new();
    world.generate(0x0200, "other", 0b10, capability::SIGN_ECDSA);
    world.generate(0x0300, "twin", 0b1, capability::SIGN_ECDSA);
    world.generate(0x0301, "twin", 0b1, capability::SIGN_ECDSA);
    let token = world.token();
    let session = world.session(&token);
    for name in [
        "pkcs11:id=%09%09",
        "pkcs11:id=%01",
        "pkcs11:object=none",
        "pkcs11:object=twin;id=%01%23",
        "pkcs11:id=%02%00",
        "pkcs11:object=other",
        "pkcs11:id=%01%23;serial=1",
        "pkcs11:id=%01%23;token=else",
    ] {
        assert!(matches!(session.find_key(&uri(name)), Err(TokenError::KeyNotFound { .. })), "{name}");
    }
    let several = session.find_key(&uri("pkcs11:object=twin")).unwrap_err();
    assert!(matches!(several, TokenError::SeveralKeys { count: 2, .. }), "{several:?}");
}

#[test]
fn a_key_of_another_curve_or_without_the_capability_or_exportable_is_unsuitable() {
    let world = World::new();
    world.simulator.with(|device| device.generate_p384(0x0400, "p384", 0b1, capability::SIGN_ECDSA));
    world.generate(0x0401, "mute", 0b1, 0);
    world.generate(0x0402, "leaves", 0b1, capability::SIGN_ECDSA | capability::EXPORTABLE_UNDER_WRAP);
    let token = world.token();
    let session = world.session(&token);
    for (name, why) in [("pkcs11:object=p384", "P-256"), ("pkcs11:object=mute", "capability sign-ecdsa")] {
        let said = unsuitable(session.find_key(&uri(name)).unwrap_err());
        assert!(said.contains(why), "{said}");
    }
    // That it can leave is for the custody gate to judge, which knows the exceptions.
    let leaves = session.find_key(&uri("pkcs11:object=leaves")).unwrap().attributes;
    assert!(leaves.extractable && leaves.objection().is_some_and(|why| why.contains("CKA_EXTRACTABLE")));
    world.simulator.with(|device| device.put_authentication_key(2, b"correct horse", 0b1, capability::GET_LOG_ENTRIES));
    let said = unsuitable(session.find_key(&acme()).unwrap_err());
    assert!(said.contains("authentication key that this worker uses lacks"), "{said}");
}

#[test]
fn an_imported_key_is_not_taken_for_one_made_on_the_device() {
    let world = World::new();
    world.simulator.with(|device| device.import_p256(0x0500, "brought", 0b1, capability::SIGN_ECDSA, &[5; 32]));
    let token = world.token();
    // Refused by the custody gate where that asks for more than this backend does.
    match world.session(&token).find_key(&uri("pkcs11:object=brought")) {
        Ok(key) => assert!(!key.attributes.local && !key.attributes.never_extractable),
        Err(error) => assert!(unsuitable(error).contains("CKA_"), "an attribute is named"),
    }
}

#[test]
fn a_wrong_password_is_refused_once_and_leaves_no_session_on_the_device() {
    let world = World::new();
    let token = world.token();
    let session = token.open_session().unwrap();
    assert!(matches!(session.login(&world.pin("wrong")), Err(TokenError::PinRefused(_))));
    assert_eq!(world.open_sessions(), 0);
    assert!(!session.is_logged_in().unwrap());
    let missing = YubiHsmToken::new(&Options { auth_key: 9, ..world.elsewhere() }).unwrap();
    let error = missing.open_session().unwrap().login(&world.pin("correct horse")).unwrap_err();
    assert!(explain(&error).contains("no authentication key 0x0009"), "{error:?}");
}

#[test]
fn sessions_are_closed_on_drop_and_never_more_than_configured() {
    let world = World::new();
    let token = world.token();
    let open: Vec<_> = (0..2).map(|_| world.session(&token)).collect();
    eventually("the log was taken and its session closed", || world.open_sessions() == 2);
    let third = world.session(&token);
    let fourth = token.open_session().unwrap();
    let error = fourth.login(&world.pin("correct horse")).unwrap_err();
    assert!(explain(&error).contains("3 sessions are open"), "{error:?}");
    drop((open, third, fourth));
    eventually("all are closed", || world.open_sessions() == 0);
}

#[test]
fn a_full_device_is_named_and_serves_again_when_there_is_room() {
    let world = World::new();
    let token = world.token();
    world.simulator.control(Control::OccupySessions { count: 16 });
    let session = token.open_session().unwrap();
    let error = session.login(&world.pin("correct horse")).unwrap_err();
    assert_eq!(error.remedy(), Remedy::NewSession);
    assert!(explain(&error).contains("all 16 sessions"), "{error:?}");
    world.simulator.control(Control::DropSessions);
    session.login(&world.pin("correct horse")).unwrap();
}

#[test]
fn a_session_that_the_device_dropped_is_opened_again_and_the_command_carried_out() {
    let world = World::new();
    let token = world.token();
    let session = world.session(&token);
    let key = session.find_key(&acme()).unwrap();
    eventually("the log was taken", || world.open_sessions() == 1);
    let other = world.session(&token);
    world.simulator.control(Control::DropSessions);
    // The first one takes the number that the other one still believes to have.
    session.sign(key.slot, &[1; 32]).unwrap();
    other.sign(key.slot, &[1; 32]).unwrap();
    session.sign(key.slot, &[1; 32]).unwrap();
    assert_eq!(world.simulator.with(|device| device.signatures()), 3);
}

#[test]
fn a_session_whose_renewal_fails_is_lost_and_never_used_again() {
    let world = World::new();
    let token = world.token();
    let session = world.session(&token);
    let key = session.find_key(&acme()).unwrap();
    world.simulator.control(Control::DropSessions);
    world.simulator.with(|device| device.put_authentication_key(2, b"changed", 0b1, AUTH));
    assert_eq!(session.sign(key.slot, &[1; 32]).unwrap_err().remedy(), Remedy::NewLogin);
    world.simulator.with(|device| device.put_authentication_key(2, b"correct horse", 0b1, AUTH));
    assert_eq!(session.sign(key.slot, &[1; 32]).unwrap_err().remedy(), Remedy::NewSession, "it is over");
    drop(session);
    world.session(&token).sign(key.slot, &[1; 32]).unwrap();
}

#[test]
fn an_idle_session_is_renewed_before_it_is_used() {
    let world = World::new();
    let places = Places::new(1);
    let bus = Arc::new(Bus::new(&world.options().connector, None).unwrap());
    let opener = Opener { bus: &bus, places: &places, auth_key: 2 };
    let mut session = opener.open(authentication::Key::derive_from_password(b"correct horse")).unwrap();
    session.command(Command::GetPublicKey, &[&[0x01, 0x23]]).unwrap();
    // As if it had been idle: the device has dropped it, and our clock says so.
    world.simulator.control(Control::DropSessions);
    session.age(std::time::Duration::from_secs(31));
    session.command(Command::GetPublicKey, &[&[0x01, 0x23]]).unwrap();
    // Idle for less than the device allows: the old one is closed first.
    session.age(std::time::Duration::from_secs(26));
    session.command(Command::GetPublicKey, &[&[0x01, 0x23]]).unwrap();
    assert_eq!(world.open_sessions(), 1);
    drop(session);
    assert_eq!(world.open_sessions(), 0);
}

#[test]
fn errors_of_the_device_end_a_session_only_where_they_are_about_it() {
    use yubihsm_sim::device::error;
    let world = World::new();
    let token = world.token();
    let session = world.session(&token);
    let key = session.find_key(&acme()).unwrap();
    for (code, remedy) in [
        (error::INVALID_DATA, Remedy::None),
        (error::INSUFFICIENT_PERMISSIONS, Remedy::None),
        (error::STORAGE_FAILED, Remedy::NewSession),
        (0x77, Remedy::NewSession),
    ] {
        world.simulator.control(Control::FailNext { command: Some(0x56), code, count: 1 });
        assert_eq!(session.sign(key.slot, &[1; 32]).unwrap_err().remedy(), remedy, "{code:#04x}");
    }
    session.sign(key.slot, &[1; 32]).unwrap();
}

#[test]
fn a_device_that_is_gone_is_said_so_and_must_be_the_same_when_it_is_back() {
    let world = World::new();
    let token = world.token();
    let session = world.session(&token);
    let key = session.find_key(&acme()).unwrap();
    world.simulator.control(Control::Unplug);
    let error = session.sign(key.slot, &[1; 32]).unwrap_err();
    assert_eq!(error.remedy(), Remedy::NewLogin, "{error:?}");
    assert!(token.facts().is_err() && token.open_session().is_err());
    world.simulator.control(Control::Plug);
    drop(session);
    let session = world.session(&token);
    session.sign(key.slot, &[1; 32]).unwrap();
    let signed = world.simulator.with(|device| device.signatures());
    world.simulator.control(Control::Serial { serial: 99 });
    let error = token.facts().unwrap_err();
    assert!(explain(&error).contains("this is YubiHSM 99, not 7550140"), "{error:?}");
    // A device with the same password and the same key, put there while a session was open.
    let error = session.sign(key.slot, &[1; 32]).unwrap_err();
    assert!(explain(&error).contains("this is YubiHSM 99"), "{error:?}");
    assert_eq!(world.simulator.with(|device| device.signatures()), signed, "it signed nothing");
    let configured = YubiHsmToken::new(&Options { serial: Some(7_550_140), ..world.elsewhere() }).unwrap();
    assert!(configured.facts().is_err());
}

#[test]
fn an_attestation_up_to_a_pinned_root_is_returned_and_any_other_refuses_the_key() {
    let world = World::new();
    let chain = world.session(&world.pinned()).find_key(&acme()).unwrap().attestation;
    assert_eq!(chain.len(), 4, "key, device, intermediate, root");
    for (how, why) in [
        (Attest::OtherRoot, "none of `attestation_roots`"),
        (Attest::OtherSerial, "another device"),
        (Attest::OtherKey, "another public key"),
        (Attest::ByAttestedKey, "not for a device"),
    ] {
        world.simulator.control(Control::Attest { how });
        let said = unsuitable(world.session(&world.pinned()).find_key(&acme()).unwrap_err());
        assert!(said.contains(why), "{how:?}: {said}");
    }
    world.simulator.control(Control::Attest { how: Attest::Good });
    world.simulator.with(|device| device.put_authentication_key(2, b"correct horse", 0b1, capability::SIGN_ECDSA));
    let said = unsuitable(world.session(&world.pinned()).find_key(&acme()).unwrap_err());
    assert!(said.contains("sign-attestation-certificate"), "{said}");
    let unpinned = world.session(&world.token()).find_key(&acme()).unwrap();
    assert!(unpinned.attestation.is_empty(), "nothing to pass on, and nothing was asked for");
}

/// A key that may sign anything, in a genuine device with a genuine certificate, issues a certificate to a key outside.
#[test]
fn a_certificate_that_a_mere_key_of_the_device_issued_proves_nothing() {
    use crate::custody::evidence::attestation::{AttestationError, Subject, check};
    use rcgen::{CertificateParams, DnType, Issuer, KeyPair};

    let world = World::new();
    let [inside, outside] = [(); 2].map(|()| KeyPair::generate().unwrap());
    // The scalar of a P-256 key in PKCS#8 (RFC 5958 around RFC 5915) as this library writes it.
    let scalar = &inside.serialized_der()[36..68];
    world.simulator.with(|device| device.import_p256(0x0666, "busy", 0b1, capability::SIGN_ECDSA, scalar));
    let genuine = world.session(&world.pinned()).find_key(&uri("pkcs11:object=busy")).unwrap();
    let subject = |key| Subject { key, serial: Some("7550140"), object: None };
    let now = jiff::Timestamp::now();
    let root = genuine.attestation.last().unwrap();
    assert_eq!(check(&genuine.attestation, &subject(&genuine.public_key), root, now), Ok(()));
    assert_eq!(
        check(&genuine.attestation, &Subject { serial: Some("99"), ..subject(&genuine.public_key) }, root, now),
        Err(AttestationError::OtherSerial(0))
    );

    let mut issuer = CertificateParams::default();
    issuer.distinguished_name.remove(DnType::CommonName);
    issuer.distinguished_name.push(DnType::CommonName, "YubiHSM Attestation id:0x0666");
    let forged = CertificateParams::default().signed_by(&outside, &Issuer::from_params(&issuer, &inside)).unwrap();
    let chain = [&[forged.der().to_vec()], &genuine.attestation[..]].concat();
    let key = PublicKey::from_pem(outside.public_key_pem().as_bytes()).unwrap();
    assert_eq!(check(&chain, &subject(&key), root, now), Err(AttestationError::NotADevice(1)));
    assert_eq!(check(&chain[..1], &subject(&key), &chain[1], now), Err(AttestationError::NotADevice(1)));
}

#[test]
fn roots_that_are_none_are_refused_at_the_start() {
    let world = World::new();
    let file = world.dir.path().join("roots.pem");
    for text in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&file, text).unwrap();
        let refused = YubiHsmToken::new(&Options { attestation_roots: Some(file.clone()), ..world.options() });
        assert!(matches!(refused, Err(YubiHsmError::Roots(_))), "{text}");
    }
}
