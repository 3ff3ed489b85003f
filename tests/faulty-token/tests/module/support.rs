//! A token, and an application on it.

use std::env;
use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::Error;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use faulty_token::{CONTROL_VARIABLE, Ckr, Controller, MODULE_VARIABLE, STATE_VARIABLE, StateFile, module_path};
use tempfile::TempDir;

/// Runs `body` as an application in a process of its own, on a new token.
macro_rules! as_application {
    ($body:expr) => {{
        fn here() {}
        let name = std::any::type_name_of_val(&here);
        $crate::support::run(name, $body);
    }};
}
pub(crate) use as_application;

pub(crate) const PIN: &str = "648219";
pub(crate) const WRONG_PIN: &str = "000000";
pub(crate) const LABEL: &str = "faulty";
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The real module of these tests.
const SOFTHSM: [&str; 3] =
    ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/pkcs11/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so"];
const ROLE_VARIABLE: &str = "FAULTY_TOKEN_TEST_ROLE";

pub(crate) fn run(here: &str, body: impl FnOnce(&Application)) {
    let name = test_name(here);
    if env::var(ROLE_VARIABLE).is_ok_and(|role| role == name) {
        body(&Application::start());
    } else {
        let status = Token::new().act(&name, &name);
        assert!(status.success(), "the application of {name} failed: {status}");
    }
}

/// The name by which the test harness knows the test in which the function `here` stands.
pub(crate) fn test_name(here: &str) -> String {
    let path = here.strip_suffix("::here").unwrap();
    path.split_once("::").unwrap().1.trim_end_matches("::{{closure}}").to_owned()
}

/// What this process was started for, if it was started by a test.
pub(crate) fn role() -> Option<String> {
    env::var(ROLE_VARIABLE).ok()
}

/// A token of SoftHSM2 in a folder of its own.
pub(crate) struct Token {
    folder: TempDir,
}

impl Token {
    pub(crate) fn new() -> Self {
        let token = Self { folder: tempfile::tempdir().unwrap() };
        let tokens = token.path("tokens");
        fs::create_dir(&tokens).unwrap();
        let configuration =
            format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
        fs::write(token.path("softhsm2.conf"), configuration).unwrap();
        let made = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", LABEL, "--so-pin", "12345678", "--pin", PIN])
            .env("SOFTHSM2_CONF", token.path("softhsm2.conf"))
            .output()
            .expect("softhsm2-util is installed with SoftHSM2");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        token
    }

    /// This test again, in another role.
    pub(crate) fn command(&self, test: &str, role: &str) -> Command {
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args([test, "--exact", "--nocapture", "--test-threads=1", "--include-ignored"])
            .env(ROLE_VARIABLE, role)
            .env("SOFTHSM2_CONF", self.path("softhsm2.conf"))
            .env(MODULE_VARIABLE, SOFTHSM.iter().find(|path| fs::exists(path).unwrap()).expect("SoftHSM2 is installed"))
            .env(CONTROL_VARIABLE, self.path("control"))
            .env(STATE_VARIABLE, self.path("state"));
        command
    }

    /// The same, to its end.
    pub(crate) fn act(&self, test: &str, role: &str) -> ExitStatus {
        let done = self.command(test, role).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        // The harness of the child is content with no test at all.
        assert!(!done.status.success() || said.contains("1 passed"), "{test} is no test: {said}");
        println!("{said}");
        eprintln!("{}", String::from_utf8_lossy(&done.stderr));
        done.status
    }

    pub(crate) fn state(&self) -> StateFile {
        StateFile::at(self.path("state"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// An application that has loaded and initialised the module.
pub(crate) struct Application {
    pub(crate) module: Pkcs11,
    pub(crate) control: Controller,
    pub(crate) slot: Slot,
}

impl Application {
    /// Makes the keys `signing` and `other` where they are not there yet, then forgets what was counted.
    pub(crate) fn start() -> Self {
        let application = Self::plain();
        let session = application.module.open_rw_session(application.slot).unwrap();
        session.login(UserType::User, Some(&AuthPin::new(PIN.into()))).unwrap();
        for label in ["signing", "other"] {
            if session.find_objects(&[Attribute::Label(label.into())]).unwrap().is_empty() {
                generate(&session, label);
            }
        }
        session.close().unwrap();
        application.control.reset_counters().unwrap();
        application
    }

    /// Initialises the module and touches nothing.
    pub(crate) fn plain() -> Self {
        let (module, control) = load();
        module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
        let slot = token_slot(&module).expect("the token is there");
        Self { module, control, slot }
    }

    pub(crate) fn open(&self) -> cryptoki::error::Result<Session> {
        self.module.open_ro_session(self.slot)
    }

    /// A session with the user logged in, unless another session did it.
    pub(crate) fn logged_in(&self) -> Session {
        let session = self.open().unwrap();
        match login(&session, PIN) {
            Ok(()) | Err(Error::Pkcs11(cryptoki::error::RvError::UserAlreadyLoggedIn, _)) => session,
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Signs on a new session and says whether the signature is good.
    pub(crate) fn signs(&self) -> bool {
        let session = self.logged_in();
        let signature = sign(&session, b"hello").unwrap();
        is_good(&session, b"hello", &signature)
    }
}

pub(crate) fn load() -> (Pkcs11, Controller) {
    let module = Pkcs11::new(module_path().unwrap()).unwrap();
    (module, Controller::connect(env::var_os(CONTROL_VARIABLE).unwrap()).unwrap())
}

/// The module's functions, for what cryptoki does not do.
pub(crate) fn functions() -> cryptoki_sys::CK_FUNCTION_LIST {
    // SAFETY: the module is loaded already, this only counts a reference.
    let library = unsafe { cryptoki_sys::Pkcs11::new(module_path().unwrap()) }.unwrap();
    let mut list = std::ptr::null_mut();
    // SAFETY: it writes one pointer, to a list that lives as long as the process.
    unsafe {
        assert_eq!(library.C_GetFunctionList(&mut list), 0);
        *list
    }
}

pub(crate) fn token_slot(module: &Pkcs11) -> Option<Slot> {
    let slots = module.get_slots_with_token().unwrap();
    slots.into_iter().find(|slot| module.get_token_info(*slot).is_ok_and(|info| info.label() == LABEL))
}

pub(crate) fn login(session: &Session, pin: &str) -> cryptoki::error::Result<()> {
    session.login(UserType::User, Some(&AuthPin::new(pin.into())))
}

pub(crate) fn key(session: &Session, class: ObjectClass, label: &str) -> ObjectHandle {
    let found = session.find_objects(&[Attribute::Class(class), Attribute::Label(label.into())]).unwrap();
    assert_eq!(found.len(), 1, "one {label} of class {class:?}");
    found[0]
}

pub(crate) fn private(session: &Session) -> ObjectHandle {
    key(session, ObjectClass::PRIVATE_KEY, "signing")
}

/// Signs the SHA-256 of the message with the key `signing`.
pub(crate) fn sign(session: &Session, message: &[u8]) -> cryptoki::error::Result<Vec<u8>> {
    sign_with(session, private(session), message)
}

pub(crate) fn sign_with(session: &Session, key: ObjectHandle, message: &[u8]) -> cryptoki::error::Result<Vec<u8>> {
    session.sign(&Mechanism::Ecdsa, key, digest::digest(&digest::SHA256, message).as_ref())
}

/// Whether the key `signing` made it.
pub(crate) fn is_good(session: &Session, message: &[u8], signature: &[u8]) -> bool {
    is_of(session, "signing", message, signature)
}

pub(crate) fn is_of(session: &Session, label: &str, message: &[u8], signature: &[u8]) -> bool {
    let point = point(session, key(session, ObjectClass::PUBLIC_KEY, label));
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).verify(message, signature).is_ok()
}

/// The public key's uncompressed point, out of its OCTET STRING.
pub(crate) fn point(session: &Session, key: ObjectHandle) -> Vec<u8> {
    match session.get_attributes(key, &[AttributeType::EcPoint]).unwrap().remove(0) {
        Attribute::EcPoint(wrapped) => wrapped[2..].to_vec(),
        other => panic!("{other:?}"),
    }
}

/// Holds that a call gave this code.
#[track_caller]
pub(crate) fn gives<T: Debug>(result: cryptoki::error::Result<T>, code: Ckr) {
    let plain = |name: &str| name.replace('_', "").to_ascii_lowercase();
    let wanted = plain(code.name().unwrap().trim_start_matches("CKR_"));
    match result {
        Err(Error::Pkcs11(error, _)) if plain(&format!("{error:?}")) == wanted => {}
        other => panic!("{other:?} instead of {code}"),
    }
}

fn generate(session: &Session, label: &str) {
    // DER of prime256v1.
    let curve = vec![0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let common = || [Attribute::Token(true), Attribute::Label(label.into()), Attribute::Id(label.into())];
    let mut public = vec![Attribute::KeyType(KeyType::EC), Attribute::EcParams(curve), Attribute::Verify(true)];
    public.extend(common());
    let mut private = vec![Attribute::Private(true), Attribute::Sensitive(true), Attribute::Sign(true)];
    private.extend(common());
    session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).unwrap();
}
