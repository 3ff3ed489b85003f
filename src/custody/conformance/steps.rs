//! What the checks are made of: telling, opening, logging in once, signing on every session at once.

#![forbid(unsafe_code)]

use std::panic::resume_unwind;
use std::sync::Barrier;
use std::thread;

use super::Plan;
use super::figures::Figures;
use super::known_pin::{KnownPin, NotLoggedIn};
use super::report::{Device, Finding, Line, Outcome, Verdict};
use super::signatures::objection;
use crate::custody::PublicKey;
use crate::custody::token::{KeySlot, Lab, TokenError, TokenSession, explain};
use crate::custody::uri::KeyUri;

/// A run in progress.
pub(super) struct Run<'a> {
    pub(super) device: &'a dyn Lab,
    pin: &'a mut KnownPin,
    pub(super) plan: &'a Plan,
    tell: &'a mut dyn FnMut(Line),
    failed: bool,
    /// A login did not succeed: whatever the reason, the PIN is not presented again.
    login_failed: bool,
    pub(super) signed: bool,
    pub(super) facts: Option<Device>,
    pub(super) figures: Option<Figures>,
}

/// A check that found the device wanting.
pub(super) struct Failed {
    pub(super) detail: String,
    pub(super) meaning: &'static str,
}

/// What a check gives to the next ones, and what it saw.
pub(super) type Checked<T> = Result<(T, String), Failed>;

impl<'a> Run<'a> {
    pub(super) fn new(
        device: &'a dyn Lab,
        pin: &'a mut KnownPin,
        plan: &'a Plan,
        tell: &'a mut dyn FnMut(Line),
    ) -> Self {
        Self { device, pin, plan, tell, failed: false, login_failed: false, signed: false, facts: None, figures: None }
    }

    pub(super) fn verdict(self) -> Verdict {
        let conformant = self.signed && !self.failed;
        let verdict = Verdict { conformant, device: self.facts, figures: self.figures };
        (self.tell)(Line::Verdict(verdict.clone()));
        verdict
    }
}

impl Run<'_> {
    /// Runs one check and tells what it found.
    pub(super) fn check<T>(&mut self, name: &str, check: impl FnOnce(&mut Self) -> Checked<T>) -> Option<T> {
        (self.tell)(Line::Begin(name.to_owned()));
        match check(self) {
            Ok((value, detail)) => {
                self.say(name, Outcome::Pass, detail, "");
                Some(value)
            }
            Err(Failed { detail, meaning }) => {
                self.failed = true;
                self.say(name, Outcome::Fail, detail, meaning);
                None
            }
        }
    }

    pub(super) fn say(&mut self, check: &str, outcome: Outcome, detail: String, meaning: &str) {
        let finding = Finding { check: check.to_owned(), outcome, detail, meaning: meaning.to_owned() };
        (self.tell)(Line::Finding(finding));
    }

    pub(super) fn skip(&mut self, check: &str, why: &str) {
        self.say(check, Outcome::Skip, why.to_owned(), "");
    }

    pub(super) fn open(&self) -> Result<Box<dyn TokenSession>, Failed> {
        self.device.open_session().map_err(|error| failed(&error, "the device gives no session; who else uses it?"))
    }

    /// Presents the PIN unless the process is logged in, or an earlier login failed.
    pub(super) fn log_in(&mut self, session: &dyn TokenSession) -> Result<(), Failed> {
        if session.is_logged_in().map_err(|error| failed(&error, ANEW))? {
            return Ok(());
        }
        if self.login_failed {
            let detail = "not logged in, and after a login that failed the PIN is not presented again".to_owned();
            return Err(Failed { detail, meaning: "look at the token and the PIN before you run this again" });
        }
        let facts = self.device.facts().map_err(|error| failed(&error, "the token says nothing of its PIN"))?;
        self.pin.present(session, &facts).map_err(|error| {
            self.login_failed = true;
            match error {
                NotLoggedIn::NotTried(error) => {
                    Failed { detail: explain(&error), meaning: "the PIN was refused before, or may have been" }
                }
                NotLoggedIn::Refused(error @ TokenError::PinRefused(_)) => failed(
                    &error,
                    "the PIN is wrong or locked; it was presented once. Correct it before you run this again",
                ),
                NotLoggedIn::Refused(error) => failed(
                    &error,
                    "the token may have counted the attempt; look at its state before you run this again",
                ),
            }
        })
    }

    pub(super) fn sign_once(&self, session: &dyn TokenSession, uri: &KeyUri, key: &PublicKey) -> Result<(), Failed> {
        let found = session.find_key(uri).map_err(|error| failed(&error, ANEW))?;
        let digest = digest(7);
        let signature = session.sign(found.slot, &digest).map_err(|error| failed(&error, ANEW))?;
        match objection(key, &[(digest, signature)]) {
            None => Ok(()),
            Some(_) => Err(Failed { detail: "the signature does not verify".to_owned(), meaning: ANEW }),
        }
    }

    /// `work` on every session at once: on the one that is open, and on one of its own in each other thread.
    pub(super) fn on_all<T: Send>(
        &self,
        anchor: &dyn TokenSession,
        uri: &KeyUri,
        work: impl Fn(&dyn TokenSession, KeySlot, usize) -> Result<T, TokenError> + Sync,
    ) -> Result<Vec<T>, Failed> {
        let (device, lanes, work) = (self.device, self.lanes(), &work);
        let start = &Barrier::new(lanes);
        let done: Result<Vec<T>, TokenError> = thread::scope(|scope| {
            let other = |lane| {
                scope.spawn(move || {
                    let session = device.open_session();
                    let ready = session.and_then(|session| Ok((session.find_key(uri)?.slot, session)));
                    start.wait();
                    let (slot, session) = ready?;
                    work(&*session, slot, lane)
                })
            };
            let others: Vec<_> = (1..lanes).map(other).collect();
            let slot = anchor.find_key(uri).map(|key| key.slot);
            start.wait();
            let own = slot.and_then(|slot| work(anchor, slot, 0));
            // A thread that panicked is this program's fault, and ends it.
            let joined = others.into_iter().map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
            std::iter::once(own).chain(joined.collect::<Vec<_>>()).collect()
        });
        done.map_err(|error| {
            failed(&error, "it failed while all sessions were signing; `--sessions 1` tells whether it is their number")
        })
    }

    pub(super) fn lanes(&self) -> usize {
        usize::try_from(self.plan.sessions.get()).unwrap_or(usize::MAX)
    }
}

/// With the return code's name, where there is one: its description in prose is no help in a vendor's manual.
pub(super) fn failed(error: &TokenError, meaning: &'static str) -> Failed {
    let detail = match error {
        TokenError::Device { operation, source, .. } => format!("{operation} failed: {source:?}"),
        TokenError::LoginUnclear(source) => format!("{error}: {source:?}"),
        _ => explain(error),
    };
    Failed { detail, meaning }
}

/// Different for every `n`, with all bits in use.
pub(super) fn digest(n: usize) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &n.to_be_bytes());
    digest.as_ref().try_into().unwrap_or_default()
}

/// What a device means that does not come back after a fault.
pub(super) const ANEW: &str = "the worker opens sessions anew after every fault, and this device does not follow";
