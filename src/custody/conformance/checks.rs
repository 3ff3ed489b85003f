//! The checks, in their order. One that others stand on ends the run when it fails.

#![forbid(unsafe_code)]

use std::time::Instant;

use super::Key;
use super::figures::Figures;
use super::report::{Device, Outcome};
use super::signatures::{Objection, Signed, objection};
use super::steps::{ANEW, Checked, Failed, Run, digest, failed};
use crate::custody::token::{FoundKey, KeySlot, PinState, TokenError, TokenSession};
use crate::custody::uri::KeyUri;
use crate::custody::{KeyAttributes, PublicKey};

impl Run<'_> {
    pub(super) fn all(&mut self) {
        if self.check("token", Self::token).is_none() {
            return;
        }
        let Some(session) = self.check("login", Self::login) else { return };
        let uri = match &self.plan.key {
            Key::Existing(uri) => Some(uri.clone()),
            Key::Generate { .. } => self.check("generate", Self::generate),
        };
        if let Some(uri) = uri {
            self.with_key(session, &uri);
        }
        if let Key::Generate { .. } = &self.plan.key {
            self.check("clean-up", Self::clean_up);
        }
    }

    fn with_key(&mut self, anchor: Box<dyn TokenSession>, uri: &KeyUri) {
        let Some(key) = self.check("key", |run| run.key(&*anchor, uri)) else { return };
        let public_key = key.public_key;
        self.attributes(&key.attributes);
        let several = self.plan.sessions.get() > 1;
        if several {
            self.check("shared login", Self::shared_login);
        } else {
            self.skip("shared login", ONE_SESSION);
        }
        if self.check("sessions", Self::sessions).is_none() {
            return;
        }
        self.check("signatures", |run| run.signatures(&*anchor, uri, &public_key));
        self.figures = self.check("speed", |run| run.speed(&*anchor, uri));
        self.check("unknown handle", |run| run.unknown_handle(anchor, uri, &public_key));
        self.check("reopen", |run| run.reopen(uri, &public_key));
        if several {
            self.check("log out", |run| run.log_out(uri, &public_key));
        } else {
            self.skip("log out", ONE_SESSION);
        }
    }

    fn token(&mut self) -> Checked<()> {
        let facts = self.device.facts().map_err(|error| {
            failed(&error, "name the token as the device knows it: its label, or a URI with its serial number")
        })?;
        self.facts = Some(Device::from(&facts));
        match facts.pin.objection() {
            Some(objection) => Err(Failed { detail: objection.to_owned(), meaning: "no login was tried" }),
            None if facts.pin == PinState::CountLow => {
                Ok(((), format!("{facts}; a wrong PIN was presented since the last good one (CKF_USER_PIN_COUNT_LOW)")))
            }
            None => Ok(((), facts.to_string())),
        }
    }

    fn login(&mut self) -> Checked<Box<dyn TokenSession>> {
        let session = self.open()?;
        self.log_in(&*session)?;
        match session.is_logged_in() {
            Ok(true) => Ok((session, "with one attempt".to_owned())),
            Ok(false) => Err(Failed {
                detail: "C_Login succeeded and C_GetSessionInfo says that nobody is logged in".to_owned(),
                meaning: "the worker would present the PIN again for every session",
            }),
            Err(error) => Err(failed(&error, "the worker asks each session whether it is logged in")),
        }
    }

    fn generate(&mut self) -> Checked<KeyUri> {
        let Key::Generate { label, id } = &self.plan.key else {
            return Err(Failed { detail: "no key was asked for".to_owned(), meaning: "" });
        };
        self.device.generate(label, id).map_err(|error| {
            failed(
                &error,
                "the device does not make keys with the safe template; make one with its own tool and name it by --key",
            )
        })?;
        let id: String = id.iter().map(|byte| format!("%{byte:02x}")).collect();
        let uri = format!("pkcs11:object={label};id={id}");
        let parsed = uri.parse().map_err(|_| Failed { detail: format!("`{uri}` is no URI"), meaning: "" })?;
        Ok((parsed, format!("`{uri}`, private, sensitive, not extractable")))
    }

    fn key(&mut self, session: &dyn TokenSession, uri: &KeyUri) -> Checked<FoundKey> {
        let key = session.find_key(uri).map_err(|error| {
            failed(&error, "the worker refuses this key; `signerctl token profiles` says what the device is known for")
        })?;
        let described = format!("P-256, {}", key.public_key.keyid());
        Ok((key, described))
    }

    /// What the custody gate wants of a key, attribute by attribute.
    fn attributes(&mut self, attributes: &KeyAttributes) {
        let wanted = [
            (attributes.private, "CKA_PRIVATE is not set"),
            (attributes.sensitive, "CKA_SENSITIVE is not set"),
            (attributes.always_sensitive, "CKA_ALWAYS_SENSITIVE is not set"),
            (!attributes.extractable, "CKA_EXTRACTABLE is set"),
            (attributes.never_extractable, "CKA_NEVER_EXTRACTABLE is not set"),
            (attributes.local, "CKA_LOCAL is not set"),
            (!attributes.unwrap, "CKA_UNWRAP is set"),
            (!attributes.always_authenticate, "CKA_ALWAYS_AUTHENTICATE is set"),
        ];
        let missing: Vec<&str> = wanted.iter().filter(|(holds, _)| !holds).map(|(_, what)| *what).collect();
        let (outcome, detail, meaning) = if missing.is_empty() {
            (Outcome::Pass, attributes.summary().to_owned(), "")
        } else {
            let meaning = "the custody gate refuses the key unless [[keys.NAME.custody_exception]] names each, with a \
                           reason";
            (Outcome::Note, missing.join(", "), meaning)
        };
        self.say("attributes", outcome, detail, meaning);
    }

    fn shared_login(&mut self) -> Checked<()> {
        let second = self.open()?;
        match second.is_logged_in() {
            Ok(true) => Ok(((), "a second session needs no PIN".to_owned())),
            Ok(false) => Err(Failed {
                detail: "a second session of the process is not logged in".to_owned(),
                meaning: "the worker would present the PIN for every session (PKCS#11 3.1, section 5.6.8 shares it)",
            }),
            Err(error) => Err(failed(&error, "the worker asks each session whether it is logged in")),
        }
    }

    /// On top of the one that is open.
    fn sessions(&mut self) -> Checked<()> {
        let mut more = Vec::new();
        while more.len() + 1 < self.lanes() {
            match self.device.open_session() {
                Ok(session) => more.push(session),
                Err(error) => {
                    return Err(Failed {
                        detail: format!("after {} open sessions: {}", more.len() + 1, failed(&error, "").detail),
                        meaning: "set `sessions` to no more than the device gives, other programs' sessions counted",
                    });
                }
            }
        }
        Ok(((), format!("{} open at once", more.len() + 1)))
    }

    fn signatures(&mut self, anchor: &dyn TokenSession, uri: &KeyUri, key: &PublicKey) -> Checked<()> {
        let lanes = self.lanes();
        let signed = self.on_all(anchor, uri, |session, slot, lane| {
            let mine = (lane..self.plan.signatures as usize).step_by(lanes);
            mine.map(|n| {
                let digest = digest(n);
                Ok((digest, session.sign(slot, &digest)?))
            })
            .collect::<Result<Vec<Signed>, TokenError>>()
        })?;
        let signed: Vec<Signed> = signed.into_iter().flatten().collect();
        match objection(key, &signed) {
            None => {
                self.signed = !signed.is_empty();
                let made = signed.len();
                Ok(((), format!("{made} on {lanes} sessions at once: 64 bytes, in range, verified")))
            }
            Some(Objection::SharedNonce) => Err(Failed {
                detail: "signatures of different digests share r".to_owned(),
                meaning: "whoever has two of them can compute the private key: destroy this key, do not use this device",
            }),
            Some(Objection::OutOfRange(n)) => Err(Failed {
                detail: format!("{n} of {} signatures have an r or s outside 1 to n - 1", signed.len()),
                meaning: "the device or its module is broken, or gives signatures in another form",
            }),
            Some(Objection::Wrong(n)) => Err(Failed {
                detail: format!("{n} of {} signatures do not verify under the key's own public key", signed.len()),
                meaning: "the device is broken, not safe under threads, or the public object belongs to another key",
            }),
        }
    }

    fn speed(&mut self, anchor: &dyn TokenSession, uri: &KeyUri) -> Checked<Figures> {
        let (lanes, measure) = (self.lanes(), self.plan.measure);
        let began = Instant::now();
        let latencies = self.on_all(anchor, uri, |session, slot, lane| {
            let deadline = Instant::now() + measure;
            let mut latencies = Vec::new();
            while latencies.is_empty() || Instant::now() < deadline {
                let digest = digest(latencies.len() * lanes + lane);
                let call = Instant::now();
                session.sign(slot, &digest)?;
                latencies.push(call.elapsed());
            }
            Ok(latencies)
        })?;
        let elapsed = began.elapsed();
        let sessions = self.plan.sessions.get();
        let figures = Figures::of(sessions, latencies.into_iter().flatten().collect(), elapsed)
            .ok_or_else(|| Failed { detail: "nothing was signed".to_owned(), meaning: "the device stopped signing" })?;
        let Figures { per_second, p50_ms, p99_ms, .. } = figures;
        let words = format!("{per_second:.1} a second on {sessions} sessions, p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms");
        Ok((figures, words))
    }

    fn unknown_handle(&mut self, anchor: Box<dyn TokenSession>, uri: &KeyUri, key: &PublicKey) -> Checked<()> {
        let refusal = match anchor.sign(NO_SUCH_KEY, &digest(0)) {
            Ok(_) => {
                return Err(Failed {
                    detail: "a handle that was never given out gave a signature".to_owned(),
                    meaning: "the device may sign with another key than the one asked for",
                });
            }
            Err(error) => failed(&error, "").detail,
        };
        // The worker opens a new session after such an error, so a new one must do.
        drop(anchor);
        let fresh = self.open()?;
        self.log_in(&*fresh)?;
        self.sign_once(&*fresh, uri, key)?;
        Ok(((), refusal))
    }

    /// With the last session goes the login (PKCS#11 3.1, section 5.6.2); after it everything begins anew.
    fn reopen(&mut self, uri: &KeyUri, key: &PublicKey) -> Checked<()> {
        let session = self.open()?;
        let kept = session.is_logged_in().map_err(|error| failed(&error, ANEW))?;
        self.log_in(&*session)?;
        self.sign_once(&*session, uri, key)?;
        let login = if kept { "the login outlived the sessions" } else { "the login ended with the last session" };
        Ok(((), format!("signs again after all sessions were closed; {login}")))
    }

    fn log_out(&mut self, uri: &KeyUri, key: &PublicKey) -> Checked<()> {
        let session = self.open()?;
        self.log_in(&*session)?;
        let slot = session.find_key(uri).map_err(|error| failed(&error, ANEW))?.slot;
        self.device.log_out().map_err(|error| failed(&error, "the login cannot be given back"))?;
        if session.sign(slot, &digest(0)).is_ok() {
            return Err(Failed {
                detail: "the key signs after C_Logout".to_owned(),
                meaning: "whoever runs code as the worker's user can sign without the PIN, or the device logs in by itself",
            });
        }
        drop(session);
        let session = self.open()?;
        self.log_in(&*session)?;
        self.sign_once(&*session, uri, key)?;
        Ok(((), "no signature while logged out, and again after a new login".to_owned()))
    }

    fn clean_up(&mut self) -> Checked<()> {
        let Key::Generate { label, id } = &self.plan.key else { return Ok(((), String::new())) };
        let meaning = "remove the objects with this label by the vendor's tool";
        let session = self.open()?;
        self.log_in(&*session)?;
        let objects = self.device.destroy(label, id).map_err(|error| failed(&error, meaning))?;
        let left = self.device.destroy(label, id).map_err(|error| failed(&error, meaning))?;
        if left > 0 {
            return Err(Failed { detail: format!("{left} objects labelled `{label}` are still there"), meaning });
        }
        Ok(((), format!("{objects} objects labelled `{label}` removed")))
    }
}

/// PKCS#11 gives handles out from 1 up; no module is known to give this one.
const NO_SUCH_KEY: KeySlot = KeySlot(0x7fff_fff1);

const ONE_SESSION: &str = "it takes two sessions";
