//! A device with one fault each, and what the run makes of it.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::custody::KeyAttributes;
use crate::custody::testing::{FakeToken, GOOD, PIN, SLOTS, slot_of};
use crate::custody::token::{FoundKey, KeySlot, Pin, PinState, Remedy, Token, TokenError, TokenFacts, TokenSession};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    WrongSignature,
    OneSignatureForAll,
    SignsWithAnyHandle,
    HasSessions(u32),
    LoginOfEachSession,
    SignsLoggedOut,
    KeepsWhatIsDestroyed,
    MakesNoKey,
    BurpsAfterTheFirstLogin,
}

struct Bench {
    fault: Fault,
    inner: FakeToken,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    logged_out: AtomicBool,
    open: AtomicU32,
    first: Mutex<Option<[u8; 64]>>,
    made: Mutex<BTreeSet<String>>,
}

impl Bench {
    fn with(fault: Fault) -> Self {
        Self { fault, inner: FakeToken::new(), state: Arc::default() }
    }

    fn run(&self, key: Key) -> (Verdict, Vec<Finding>) {
        let plan =
            Plan { sessions: NonZeroU32::new(3).unwrap(), signatures: 10, measure: Duration::from_millis(1), key };
        let mut findings = Vec::new();
        let mut last = None;
        let mut pin = KnownPin::unknown(Pin::from_bytes(PIN.as_bytes()).unwrap());
        let verdict = run(self, &mut pin, &plan, &mut |line| match line {
            Line::Finding(finding) => findings.push(finding),
            Line::Verdict(verdict) => last = Some(verdict),
            Line::Begin(_) => {}
        });
        assert_eq!(last.as_ref(), Some(&verdict), "the verdict is the last line");
        (verdict, findings)
    }

    fn failures(&self) -> Vec<String> {
        let (verdict, findings) = self.run(generate());
        assert!(!verdict.conformant, "{findings:?}");
        let failed = findings.into_iter().filter(|finding| finding.outcome == Outcome::Fail);
        failed.map(|finding| format!("{}: {}", finding.check, finding.detail)).collect()
    }
}

fn generate() -> Key {
    Key::Generate { label: "conformance-1".to_owned(), id: vec![1] }
}

fn existing() -> Key {
    Key::Existing("pkcs11:object=k".parse().unwrap())
}

fn refused(what: &'static str) -> TokenError {
    TokenError::Device { operation: "C_Sign", remedy: Remedy::NewSession, source: what.into() }
}

impl Token for Bench {
    fn facts(&self) -> Result<TokenFacts, TokenError> {
        self.inner.facts()
    }

    fn open_session(&self) -> Result<Box<dyn TokenSession>, TokenError> {
        let number = self.state.open.fetch_add(1, SeqCst);
        if matches!(self.fault, Fault::HasSessions(limit) if number >= limit) {
            self.state.open.fetch_sub(1, SeqCst);
            return Err(refused("CKR_SESSION_COUNT"));
        }
        let (fault, state) = (self.fault, Arc::clone(&self.state));
        let token = self.inner.clone();
        Ok(Box::new(BenchSession { fault, number, inner: token.open_session()?, token, state }))
    }
}

impl Lab for Bench {
    fn log_out(&self) -> Result<(), TokenError> {
        self.state.logged_out.store(true, SeqCst);
        Ok(())
    }

    fn generate(&self, label: &str, _: &[u8]) -> Result<(), TokenError> {
        if self.fault == Fault::MakesNoKey {
            return Err(refused("CKR_TEMPLATE_INCONSISTENT"));
        }
        self.inner.replace_key(label);
        self.state.made.lock().unwrap().insert(label.to_owned());
        Ok(())
    }

    fn destroy(&self, label: &str, _: &[u8]) -> Result<usize, TokenError> {
        let mut made = self.state.made.lock().unwrap();
        let there = if self.fault == Fault::KeepsWhatIsDestroyed { made.contains(label) } else { made.remove(label) };
        Ok(2 * usize::from(there))
    }
}

struct BenchSession {
    fault: Fault,
    number: u32,
    inner: Box<dyn TokenSession>,
    token: FakeToken,
    state: Arc<State>,
}

impl Drop for BenchSession {
    fn drop(&mut self) {
        self.state.open.fetch_sub(1, SeqCst);
    }
}

impl TokenSession for BenchSession {
    fn is_logged_in(&self) -> Result<bool, TokenError> {
        let not_shared = self.fault == Fault::LoginOfEachSession && self.number > 0;
        Ok(self.inner.is_logged_in()? && !self.state.logged_out.load(SeqCst) && !not_shared)
    }

    fn login(&self, pin: &Pin) -> Result<(), TokenError> {
        self.inner.login(pin)?;
        if self.fault == Fault::BurpsAfterTheFirstLogin {
            self.token.0.unclear.store(true, SeqCst);
        }
        self.state.logged_out.store(false, SeqCst);
        Ok(())
    }

    fn find_key(&self, uri: &KeyUri) -> Result<FoundKey, TokenError> {
        self.inner.find_key(uri)
    }

    fn sign(&self, key: KeySlot, digest: &[u8; 32]) -> Result<[u8; 64], TokenError> {
        let known = key.0 < SLOTS;
        if !known && self.fault != Fault::SignsWithAnyHandle {
            return Err(refused("CKR_KEY_HANDLE_INVALID"));
        }
        if self.state.logged_out.load(SeqCst) && self.fault != Fault::SignsLoggedOut {
            return Err(refused("CKR_USER_NOT_LOGGED_IN"));
        }
        let key = if known { key } else { slot_of("k") };
        let mut signature = self.inner.sign(key, digest)?;
        match self.fault {
            Fault::WrongSignature => signature[40] ^= 1,
            Fault::OneSignatureForAll => signature = *self.state.first.lock().unwrap().get_or_insert(signature),
            _ => {}
        }
        Ok(signature)
    }
}

#[test]
fn a_device_that_does_as_it_should_is_conformant_with_a_key_of_the_run_and_with_one_that_is_there() {
    for (key, checks) in [(generate(), 13), (existing(), 11)] {
        let bench = Bench::with(Fault::None);
        let (verdict, findings) = bench.run(key);
        assert!(verdict.conformant, "{findings:?}");
        assert!(findings.iter().all(|finding| finding.outcome == Outcome::Pass), "{findings:?}");
        assert_eq!(findings.len(), checks, "{findings:?}");
        assert_eq!(verdict.device.unwrap().label, "fake");
        assert_eq!(verdict.figures.unwrap().sessions, 3);
        assert!(bench.state.made.lock().unwrap().is_empty(), "nothing is left behind");
    }
}

#[test]
fn each_fault_is_named_by_the_check_that_is_about_it() {
    for (fault, expected) in [
        (Fault::WrongSignature, "signatures: 10 of 10 signatures do not verify"),
        (Fault::OneSignatureForAll, "signatures: signatures of different digests share r"),
        (Fault::SignsWithAnyHandle, "unknown handle: a handle that was never given out gave a signature"),
        (Fault::HasSessions(2), "sessions: after 2 open sessions"),
        (Fault::LoginOfEachSession, "shared login: a second session of the process is not logged in"),
        (Fault::SignsLoggedOut, "log out: the key signs after C_Logout"),
        (Fault::KeepsWhatIsDestroyed, "clean-up: 2 objects labelled `conformance-1` are still there"),
        (Fault::MakesNoKey, "generate: C_Sign failed: \"CKR_TEMPLATE_INCONSISTENT\""),
    ] {
        let failures = Bench::with(fault).failures();
        assert!(failures.iter().any(|failure| failure.starts_with(expected)), "{fault:?}: {failures:?}");
    }
}

#[test]
fn a_pin_that_is_refused_is_presented_once_and_the_run_ends() {
    let bench = Bench::with(Fault::None);
    let plan = Plan { sessions: NonZeroU32::MIN, signatures: 1, measure: Duration::ZERO, key: existing() };
    let mut findings = Vec::new();
    let verdict = run(&bench, &mut KnownPin::unknown(Pin::from_bytes(b"9999").unwrap()), &plan, &mut |line| {
        if let Line::Finding(finding) = line {
            findings.push(finding);
        }
    });
    assert!(!verdict.conformant);
    assert_eq!(bench.inner.0.login_attempts.load(SeqCst), 1);
    assert_eq!(findings.last().map(|finding| (&*finding.check, finding.outcome)), Some(("login", Outcome::Fail)));
    assert!(!format!("{findings:?}").contains("9999"));
}

#[test]
fn after_a_login_of_which_nobody_knows_whether_it_was_counted_the_pin_is_not_presented_again() {
    let bench = Bench::with(Fault::BurpsAfterTheFirstLogin);
    let (verdict, findings) = bench.run(generate());
    assert!(!verdict.conformant);
    assert_eq!(bench.inner.0.login_attempts.load(SeqCst), 2, "one that went well and one that did not: {findings:?}");
    let last = findings.last().unwrap();
    assert_eq!((&*last.check, last.outcome), ("clean-up", Outcome::Fail));
    assert!(last.detail.contains("not presented again"), "{last:?}");
}

#[test]
fn no_pin_is_presented_to_a_token_whose_flags_forbid_it() {
    for state in [PinState::FinalTry, PinState::Locked, PinState::NotInitialized, PinState::MustChange] {
        let bench = Bench::with(Fault::None);
        *bench.inner.0.pin_state.lock().unwrap() = state;
        let (verdict, findings) = bench.run(existing());
        assert!(!verdict.conformant && findings.len() == 1, "{findings:?}");
        assert_eq!(bench.inner.0.login_attempts.load(SeqCst), 0, "{state:?}");
    }
}

#[test]
fn what_the_custody_gate_would_refuse_is_noted_attribute_by_attribute() {
    let bench = Bench::with(Fault::None);
    *bench.inner.0.attributes.lock().unwrap() = KeyAttributes { local: false, unwrap: true, ..GOOD };
    let (_, findings) = bench.run(existing());
    let noted = findings.iter().find(|finding| finding.check == "attributes").unwrap();
    assert_eq!((noted.outcome, &*noted.detail), (Outcome::Note, "CKA_LOCAL is not set, CKA_UNWRAP is set"));
    assert!(noted.meaning.contains("custody_exception"));
}

#[test]
fn every_line_survives_the_pipe() {
    let bench = Bench::with(Fault::HasSessions(2));
    let plan = Plan { sessions: NonZeroU32::MIN, signatures: 1, measure: Duration::ZERO, key: existing() };
    run(&bench, &mut KnownPin::unknown(Pin::from_bytes(PIN.as_bytes()).unwrap()), &plan, &mut |line| {
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
        assert!(!text.contains('\n'));
    });
}
