//! The other side of the signer, written a second time: nothing here uses the signer's own library.
//!
//! Everything a test or a demonstration needs to run the real programs on one machine and talk to them.
//!
//! | module | what it is |
//! |---|---|
//! | [`fixture`] | all of it started together: begin here |
//! | [`client`] | a client of the Signer API, every part of whose requests can be replaced |
//! | [`raw`] | bytes over TCP or TLS, for what no HTTP client would send |
//! | [`appliance`] | `signerd` and `signer-token` as child processes, with their configuration, logs, metrics, audit |
//! | [`authority`] | a development Authority: discovery, JWK set, token endpoint, tokens minted at will |
//! | [`licensing`] | a development Licensing Service: offline PoEs, revocation list, introspection |
//! | [`token`] | the token of a fixture, one of the next two |
//! | [`registry`] | an OCI registry that says whatever it is told to, and two real ones |
//! | [`softhsm`] | a SoftHSM2 token of its own, with keys made inside it |
//! | [`yubihsm`] | a simulated YubiHSM 2, with keys made inside it |
//! | [`device`] | the other devices that the same tests run on |
//! | [`fulcio`], [`tsa`] | a real Fulcio and a real timestamp authority |
//! | [`ct_log`], [`fulcio_ca`] | a CT log and a CA such as Fulcio needs, [`trusted_root`] what is pinned of them |
//! | [`hostile_fulcio`] | a Fulcio of our own: honest and fast, or hostile in one way at a time |
//! | [`keyless`] | the fixture with one of these Fulcios |
//! | [`fulcio_client`] | a plain client of Fulcio: the control of an experiment |
//! | [`verifiers`] | who else judges our bundles: offline, and [`later`] too |
//! | [`machine`] | a Debian of its own, booted, for the package and its units |
//! | [`guest`] | a Debian with a kernel of its own, emulated, for AppArmor and SELinux |
//! | [`pki`] | certificate authorities, certificates and a CRL that live for one run |
//! | [`jwt`] | JWTs, well-formed or precisely not |
//! | [`envelope`] | DSSE: the PAE and the verification of a signature |
//! | [`sigstore`] | a Fulcio, a CT log and a timestamp authority that sign whatever they are told |
//! | [`sample`] | subjects and predicates to be signed |
//! | [`schema`] | whether an answer is what the OpenAPI document says |
//! | [`peers`] | programs that are not ours: where they are, and why one is missing |
//!
//! Functions block; what has to wait for others runs on [`runtime`]. Mistakes of the set-up are [`Error`]s with a
//! sentence that says what to do; mistakes in a test panic.

#![forbid(unsafe_code)]

pub mod appliance;
pub mod authority;
pub mod client;
pub mod ct_log;
pub mod der;
pub mod device;
pub mod envelope;
pub mod fixture;
pub mod fulcio;
pub mod fulcio_ca;
pub mod fulcio_client;
pub mod guest;
pub mod hostile_fulcio;
pub mod https;
pub mod jwt;
pub mod key;
pub mod keyless;
pub mod later;
pub mod licensing;
pub mod machine;
pub mod notary;
pub mod peers;
pub mod pki;
pub mod raw;
pub mod registry;
pub mod sample;
pub mod schema;
pub mod shell;
pub mod sigstore;
pub mod softhsm;
pub mod tls_front;
pub mod token;
pub mod trusted_root;
pub mod tsa;
pub mod verifiers;
pub mod yubihsm;

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{error, fmt, io};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

pub use fixture::Fixture;

/// What went wrong while setting up, in words for the person who started the run.
#[derive(Debug)]
pub struct Error(pub String);

/// Results of the set-up.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Adds what was being done to an error.
pub trait Context<T> {
    /// `doing` reads as in "cannot DOING: cause".
    ///
    /// # Errors
    /// The error it is called on, with the words added.
    fn context(self, doing: impl fmt::Display) -> Result<T>;
}

/// The runtime that the test peers and the clients share: one per process, never stopped.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .thread_name("testkit")
            .build()
            .expect("a runtime can be built where threads can be started")
    })
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(since.as_secs()).expect("the clock is before the year 292 billion")
}

/// Base64url without padding (RFC 7515, appendix C).
#[must_use]
pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Standard base64 with padding.
#[must_use]
pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// Reads standard base64 with padding.
///
/// # Errors
/// When it is none.
pub fn from_base64(text: &str) -> Result<Vec<u8>> {
    STANDARD.decode(text).context("decode base64")
}

/// Reads base64url without padding.
///
/// # Errors
/// When it is none.
pub fn from_base64url(text: &str) -> Result<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).context("decode base64url")
}

/// PEM (RFC 7468).
#[must_use]
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = base64(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Lowercase hexadecimal.
#[must_use]
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256.
#[must_use]
pub fn sha256(bytes: impl AsRef<[u8]>) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes.as_ref());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// A random identifier: 32 hexadecimal digits.
#[must_use]
pub fn random_id() -> String {
    // No `-` in front, which a program would take for an option.
    uuid::Uuid::new_v4().simple().to_string()
}

impl Error {
    /// From words.
    pub fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error(format!("cannot {doing}: {error}")))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, doing: impl fmt::Display) -> Result<T> {
        self.ok_or_else(|| Error(format!("cannot {doing}")))
    }
}
