//! What the tests of this module share: keys in software, a token that fails on demand, a worker around it.

#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use aws_lc_rs::digest::{Digest, SHA256};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

use super::token::{FoundKey, KeySlot, Pin, PinState, Remedy, Token, TokenError, TokenFacts, TokenSession};
use super::uri::KeyUri;
use super::worker::{Plan, Worker};
use super::{KeyAttributes, PublicKey};
use crate::config::Config;

/// A fresh key pair in software.
pub(crate) fn key_pair() -> (EcdsaKeyPair, PublicKey) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let public_key = PublicKey::from_sec1(pair.public_key().as_ref()).unwrap();
    (pair, public_key)
}

/// Signs a digest, raw r ‖ s.
pub(crate) fn sign(pair: &EcdsaKeyPair, digest: &[u8; 32]) -> [u8; 64] {
    let digest = Digest::import_less_safe(digest, &SHA256).unwrap();
    pair.sign_digest(&digest).unwrap().as_ref().try_into().unwrap()
}

pub(crate) const GOOD: KeyAttributes = KeyAttributes {
    sensitive: true,
    extractable: false,
    always_sensitive: true,
    never_extractable: true,
    local: true,
    private: true,
    sign: true,
    unwrap: false,
    always_authenticate: false,
    wrap: false,
};

/// The PIN that every fake token accepts.
pub(crate) const PIN: &str = "1234";

/// A token in memory. Clones are the same token.
#[derive(Clone)]
pub(crate) struct FakeToken(pub(crate) Arc<Fake>);

pub(crate) struct Fake {
    keys: Mutex<HashMap<String, Arc<(EcdsaKeyPair, PublicKey)>>>,
    pub(crate) attributes: Mutex<KeyAttributes>,
    pub(crate) pin_state: Mutex<PinState>,
    pub(crate) attestation: Mutex<Vec<Vec<u8>>>,
    pub(crate) login_attempts: AtomicU32,
    pub(crate) logged_in: AtomicBool,
    /// It goes on saying that somebody is logged in, whatever happens, until it is told to log out.
    pub(crate) claims_login: AtomicBool,
    pub(crate) logouts: AtomicU32,
    pub(crate) reinitialized: AtomicU32,
    open_sessions: AtomicU32,
    pub(crate) sessions_made: AtomicU32,
    pub(crate) absent: AtomicBool,
    /// Signatures come out wrong.
    pub(crate) corrupt: AtomicBool,
    /// What comes out is no signature at all.
    pub(crate) odd: AtomicBool,
    /// What the next calls of `sign` fail with.
    pub(crate) failures: Mutex<VecDeque<Remedy>>,
    /// What every call of `sign` fails with.
    pub(crate) failing: Mutex<Option<Remedy>>,
    /// Labels of keys that cannot be opened, and what that costs.
    pub(crate) unopenable: Mutex<HashMap<String, Remedy>>,
    /// Labels of keys whose opening takes this long.
    pub(crate) slow_to_open: Mutex<HashMap<String, Duration>>,
    /// How long a session takes to open.
    pub(crate) slow_sessions: Mutex<Duration>,
    /// The login fails in a way that says nothing about the PIN.
    pub(crate) unclear: AtomicBool,
    closed: Mutex<bool>,
    gate: Condvar,
    /// What each call of `sign` takes.
    pub(crate) delay: Mutex<Duration>,
    /// Calls of `sign` that have begun.
    pub(crate) signing: AtomicU32,
}

impl FakeToken {
    /// A token with a key labelled `k`.
    pub(crate) fn new() -> Self {
        let token = Self(Arc::new(Fake {
            keys: Mutex::default(),
            attributes: Mutex::new(GOOD),
            pin_state: Mutex::default(),
            attestation: Mutex::default(),
            login_attempts: AtomicU32::new(0),
            logged_in: AtomicBool::new(false),
            claims_login: AtomicBool::new(false),
            logouts: AtomicU32::new(0),
            reinitialized: AtomicU32::new(0),
            open_sessions: AtomicU32::new(0),
            sessions_made: AtomicU32::new(0),
            absent: AtomicBool::new(false),
            corrupt: AtomicBool::new(false),
            odd: AtomicBool::new(false),
            failures: Mutex::default(),
            failing: Mutex::default(),
            unopenable: Mutex::default(),
            slow_to_open: Mutex::default(),
            slow_sessions: Mutex::default(),
            unclear: AtomicBool::new(false),
            closed: Mutex::new(false),
            gate: Condvar::new(),
            delay: Mutex::default(),
            signing: AtomicU32::new(0),
        }));
        token.replace_key("k");
        token
    }

    /// Another token that holds the same keys.
    pub(crate) fn twin(&self) -> Self {
        let twin = Self::new();
        *twin.0.keys.lock().unwrap() = self.0.keys.lock().unwrap().clone();
        twin
    }

    /// Another key under the same label.
    pub(crate) fn replace_key(&self, label: &str) -> PublicKey {
        let (pair, public_key) = key_pair();
        self.0.keys.lock().unwrap().insert(label.to_owned(), Arc::new((pair, public_key)));
        public_key
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        self.0.keys.lock().unwrap()["k"].1
    }

    /// From now on signatures wait.
    pub(crate) fn close_gate(&self) {
        *self.0.closed.lock().unwrap() = true;
    }

    pub(crate) fn open_gate(&self) {
        *self.0.closed.lock().unwrap() = false;
        self.0.gate.notify_all();
    }
}

impl Token for FakeToken {
    fn facts(&self) -> Result<TokenFacts, TokenError> {
        if self.0.absent.load(SeqCst) {
            return Err(TokenError::Absent { present: "none".into() });
        }
        let pin = *self.0.pin_state.lock().unwrap();
        Ok(TokenFacts { label: "fake".into(), serial: "1".into(), pin, ..TokenFacts::default() })
    }

    fn open_session(&self) -> Result<Box<dyn TokenSession>, TokenError> {
        self.facts()?;
        std::thread::sleep(*self.0.slow_sessions.lock().unwrap());
        self.0.open_sessions.fetch_add(1, SeqCst);
        self.0.sessions_made.fetch_add(1, SeqCst);
        Ok(Box::new(FakeSession { token: self.clone(), broken: AtomicBool::new(false) }))
    }

    fn reinitialize(&self) -> Result<(), TokenError> {
        assert_eq!(self.0.open_sessions.load(SeqCst), 0, "finalised with sessions open");
        self.0.reinitialized.fetch_add(1, SeqCst);
        Ok(())
    }
}

struct FakeSession {
    token: FakeToken,
    broken: AtomicBool,
}

impl Drop for FakeSession {
    fn drop(&mut self) {
        // PKCS#11: the last session that is closed takes the login with it.
        if self.token.0.open_sessions.fetch_sub(1, SeqCst) == 1 {
            self.token.0.logged_in.store(false, SeqCst);
        }
    }
}

impl TokenSession for FakeSession {
    fn is_logged_in(&self) -> Result<bool, TokenError> {
        Ok(self.token.0.logged_in.load(SeqCst) || self.token.0.claims_login.load(SeqCst))
    }

    fn logout(&self) -> Result<(), TokenError> {
        self.token.0.logouts.fetch_add(1, SeqCst);
        self.token.0.logged_in.store(false, SeqCst);
        self.token.0.claims_login.store(false, SeqCst);
        Ok(())
    }

    fn login(&self, pin: &Pin) -> Result<(), TokenError> {
        self.token.0.login_attempts.fetch_add(1, SeqCst);
        if self.token.0.unclear.load(SeqCst) {
            return Err(TokenError::LoginUnclear("the device burped".into()));
        }
        if pin.expose() != PIN.as_bytes() {
            return Err(TokenError::PinRefused("PinIncorrect".into()));
        }
        self.token.0.logged_in.store(true, SeqCst);
        Ok(())
    }

    fn find_key(&self, uri: &KeyUri) -> Result<FoundKey, TokenError> {
        assert!(!self.broken.load(SeqCst), "a session was used after a fatal code");
        let label = uri.object.clone().unwrap_or_default();
        let slow = self.token.0.slow_to_open.lock().unwrap().get(&label).copied();
        std::thread::sleep(slow.unwrap_or_default());
        if let Some(remedy) = self.token.0.unopenable.lock().unwrap().get(&label).copied() {
            self.broken.store(remedy > Remedy::None, SeqCst);
            return Err(TokenError::Device { operation: "C_FindObjects", remedy, source: "CKR_OF_THE_KEY".into() });
        }
        let keys = self.token.0.keys.lock().unwrap();
        let key = keys.get(&label).ok_or_else(|| TokenError::KeyNotFound { uri: uri.to_string() })?;
        let attributes = *self.token.0.attributes.lock().unwrap();
        let slot = slot_of(&label);
        Ok(FoundKey {
            slot,
            public_key: key.1,
            attributes,
            attestation: self.token.0.attestation.lock().unwrap().clone(),
        })
    }

    fn sign(&self, key: KeySlot, digest: &[u8; 32]) -> Result<[u8; 64], TokenError> {
        assert!(!self.broken.load(SeqCst), "a session was used after a fatal code");
        self.token.0.signing.fetch_add(1, SeqCst);
        let closed = self.token.0.closed.lock().unwrap();
        drop(self.token.0.gate.wait_while(closed, |closed| *closed).unwrap());
        let next = self.token.0.failures.lock().unwrap().pop_front();
        if let Some(remedy) = next.or(*self.token.0.failing.lock().unwrap()) {
            self.broken.store(remedy > Remedy::None, SeqCst);
            return Err(TokenError::Device { operation: "C_Sign", remedy, source: "CKR_OF_THE_TEST".into() });
        }
        if self.token.0.odd.load(SeqCst) {
            self.broken.store(true, SeqCst);
            return Err(TokenError::OddSignature { operation: "C_Sign", length: 63 });
        }
        let delay = *self.token.0.delay.lock().unwrap();
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        let pair = {
            let keys = self.token.0.keys.lock().unwrap();
            Arc::clone(keys.iter().find(|(label, _)| slot_of(label) == key).unwrap().1)
        };
        let mut signature = sign(&pair.0, digest);
        if self.token.0.corrupt.load(SeqCst) {
            signature[40] ^= 1;
        }
        Ok(signature)
    }
}

/// Where a fake token has the key of this label: below [`SLOTS`].
pub(crate) fn slot_of(label: &str) -> KeySlot {
    let mut hasher = DefaultHasher::new();
    label.hash(&mut hasher);
    KeySlot(hasher.finish() % SLOTS)
}

/// Far more than keys, so that no two are in one place.
pub(crate) const SLOTS: u64 = 1 << 24;

/// A directory with a PIN file, a socket in it, and room for more.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        place.write_pin(PIN);
        place
    }

    pub(crate) fn write_pin(&self, pin: &str) {
        let path = self.path("pin");
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, pin).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("t.sock")
    }

    pub(crate) fn plan(&self) -> Plan {
        Plan {
            name: "main".into(),
            front_uid: nix::unistd::getuid().as_raw(),
            sessions: 2,
            max_queue: 64,
            pin_file: self.path("pin"),
            pin_warns: true,
            state_dir: self.path("state"),
            keep_alive: None,
            exceptions: Vec::new(),
        }
    }

    /// A worker that listens on this place's socket, replacing one that has gone.
    pub(crate) fn worker(&self, plan: Plan, token: &FakeToken) -> Worker {
        Worker::start(plan, Box::new(token.clone()), listen(&self.socket())).unwrap()
    }

    /// The worker of a second token, `standby`.
    pub(crate) fn standby(&self, token: &FakeToken) -> Worker {
        let plan = Plan { name: "standby".into(), ..self.plan() };
        Worker::start(plan, Box::new(token.clone()), listen(&self.path("s.sock"))).unwrap()
    }

    /// A configuration in which the key `a` is in the tokens `main` and `standby`, with quick canaries and checks.
    pub(crate) fn config_of_two(&self, extra: &str) -> Config {
        let uid = nix::unistd::getuid();
        let dir = self.dir.path().display();
        self.config(&format!(
            "[[keys.a.replica]]\ntoken = \"standby\"\nuri = \"pkcs11:object=k\"\n{extra}\n\
             [tokens.standby]\nsocket = \"{dir}/s.sock\"\nfront_user = \"{uid}\"\nworker_user = \"{uid}\"\n\
             module = \"/x\"\nuri = \"pkcs11:token=fake\"\npin_file = \"{dir}/pin\"\n\
             [custody]\ncanary_interval = \"20ms\"\ncheck_interval = \"20ms\"\ncanary_slow = \"200ms\"\n\
             drained_file = \"{dir}/drained\"\n"
        ))
    }

    /// A configuration with one token `main` at this socket, and `extra` after it.
    pub(crate) fn config(&self, extra: &str) -> Config {
        let uid = nix::unistd::getuid().as_raw();
        let dir = self.dir.path().display();
        let text = BASE.replace("@DIR@", &dir.to_string()).replace("@UID@", &uid.to_string()) + extra;
        toml::from_str(&text).unwrap()
    }
}

pub(crate) fn listen(socket: &Path) -> UnixListener {
    let _ = std::fs::remove_file(socket);
    UnixListener::bind(socket).unwrap()
}

/// Asks until it is so. Fails after ten seconds, which is only ever seen when it never will be.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..5_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("never: {what}");
}

/// The key `a` of tenant `acme` is in every configuration.
const BASE: &str = r#"
[server]
listen = "127.0.0.1:0"
local_listen = "127.0.0.1:0"
public_url = "https://localhost"
[server.tls]
certificate = "/x"
private_key = "/x"
client_ca = "/x"
[authority]
issuer = "https://authority"
jwks = { file = "/x" }
[licensing]
[tokens.main]
socket = "@DIR@/t.sock"
front_user = "@UID@"
worker_user = "@UID@"
module = "/x"
uri = "pkcs11:token=fake"
pin_file = "@DIR@/pin"
[audit]
path = "/x"
[tenants.acme]
keys = ["a"]
predicate_types = ["*"]
[keys.a]
token = "main"
uri = "pkcs11:object=k"
state = "active"
"#;
