//! The configuration: one TOML file and its drop-ins, as data.
//!
//! Everything here is what an operator writes. Unknown keys are errors, secrets are never inline (only paths to
//! them), durations and sizes carry their unit (`"30s"`, `"32 MiB"`). [`load()`] reads and validates.

#![forbid(unsafe_code)]

mod de;
mod error;
mod files;
mod key;
mod keyless;
mod keyless_rules;
mod keys;
mod load;
mod print;
mod profile;
mod release;
mod releases;
mod rules;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod token;
mod tree;
mod units;
mod validate;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::Deserialize;

pub use error::{ConfigError, ConfigErrors, Origin};
pub(crate) use files::SECRET_OPEN;
pub use files::Viewer;
pub use key::{CustodyException, Key, Replica};
pub use keyless::{
    AssertionKey, Circuit, ClientAuthentication, ClientCertificate, ClientCredentials, Identity, IdentitySource,
    Keyless, Reuse, SandboxException, SctPolicy, TenantKeyless, TimestampAuthority, TimestampPolicy, Timestamps,
};
pub use load::{Loaded, UnknownToken, load, open, open_text, open_with};
pub(crate) use print::Print;
pub use release::{
    Notation, Release, ReleaseIdentity, ReleaseSigner, ReleaseSnapshot, Repository, RevokedDigest, TrustedDigest,
};
pub use token::{Backend, BackendError, YubiHsmConnector};
pub use units::{ByteSize, Span};

/// The whole configuration of one appliance, shared by its processes; each reads its own part.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The Signer API and the local listener.
    pub server: Server,
    /// Who issues OpToks, and how they must be bound.
    pub authority: Authority,
    /// Where entitlement comes from.
    pub licensing: Licensing,
    /// Limits by plan name, used where the entitlement itself names none.
    #[serde(default)]
    pub plans: BTreeMap<String, Plan>,
    /// Which scanner images are trusted releases.
    #[serde(default)]
    pub release: Release,
    /// Keyless signing.
    pub keyless: Option<Keyless>,
    /// RFC 3161 timestamps in Sigstore bundles.
    pub timestamps: Option<Timestamps>,
    /// The tokens (HSMs), each served by its own worker process.
    #[serde(default)]
    pub tokens: BTreeMap<String, Token>,
    /// The signing keys, by the name the audit log knows them under.
    #[serde(default)]
    pub keys: BTreeMap<String, Key>,
    /// The tenants, by the OpTok's `tid`.
    pub tenants: BTreeMap<String, Tenant>,
    /// How tokens and keys are watched.
    #[serde(default)]
    pub custody: Custody,
    /// The audit log.
    pub audit: Audit,
    /// Operational logs.
    #[serde(default)]
    pub log: Log,
}

/// `[server]`: listeners and their limits.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Where the Signer API listens, mTLS only.
    pub listen: SocketAddr,
    /// Where `/livez`, `/readyz` and `/metrics` are served: a loopback address or `unix:/path`.
    pub local_listen: LocalListen,
    /// Scheme and authority that clients call, as in `https://signer.example:8443`: what `htu` of a DPoP proof
    /// must name (RFC 9449, section 4.3).
    pub public_url: String,
    /// Event loops, each on a thread of its own. Absent: one per core.
    pub threads: Option<NonZeroU32>,
    /// TLS of the Signer API.
    pub tls: Tls,
    /// What a client may cost before it is known.
    #[serde(default)]
    pub limits: Limits,
}

/// Where the local listener listens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LocalListen {
    /// A TCP address; the loader refuses one that is not loopback.
    Tcp(SocketAddr),
    /// A Unix socket, mode 0660.
    Unix(PathBuf),
}

/// `[server.tls]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM certificate chain, leaf first.
    pub certificate: PathBuf,
    /// PEM private key (PKCS#8, SEC1 or PKCS#1).
    pub private_key: PathBuf,
    /// PEM bundle of the CAs that client certificates must chain to.
    pub client_ca: PathBuf,
    /// PEM CRLs; when any is given, every certificate below a CA must be covered by one.
    #[serde(default)]
    pub client_crl: Vec<PathBuf>,
    /// Lowest protocol version: `"1.3"` or `"1.2"`.
    #[serde(default)]
    pub min_version: TlsVersion,
}

/// A TLS protocol version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246), only with AEAD suites and forward secrecy.
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    #[default]
    #[serde(rename = "1.3")]
    Tls13,
}

/// `[server.limits]`: sizes and times of what comes in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections open at once; one more is closed at once.
    pub max_connections: NonZeroU32,
    /// From accept to the end of the TLS handshake.
    pub handshake_timeout: Span,
    /// From the first byte of a request to the end of its headers.
    pub header_timeout: Span,
    /// Longest silence while a body is being sent; a body must also keep 16 KiB/s on average.
    pub body_timeout: Span,
    /// How long an idle connection is kept.
    pub idle_timeout: Span,
    /// From a request's headers until its answer is ready; sending the answer may take as long again.
    pub request_timeout: Span,
    /// Bytes of request line and headers together.
    pub max_header_bytes: ByteSize,
    /// Bytes of a request body.
    pub max_body_bytes: ByteSize,
    /// Bytes of all request bodies held at once; beyond it, 503 `overloaded`.
    pub max_body_bytes_in_flight: ByteSize,
    /// Requests of one tenant per second that sign nothing (`GET /keys`, `POST /verify/dsse`, …); as many may come at once.
    pub reads_per_second: NonZeroU32,
}

/// `[authority]`: OpTok validation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// Exact `iss`.
    pub issuer: String,
    /// Exact member of `aud`; a wildcard is refused.
    #[serde(default = "default_audience")]
    pub audience: String,
    /// Scope that signing needs.
    #[serde(default = "default_scope")]
    pub scope: String,
    /// Where the issuer's keys are.
    pub jwks: JwksSource,
    /// Accepted signature algorithms of the OpTok.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<crate::jose::Algorithm>,
    /// Tolerated difference of clocks.
    #[serde(default = "default_skew")]
    pub clock_skew: Span,
    /// Longest accepted life (`exp` − `iat`) of an OpTok.
    #[serde(default = "default_token_lifetime")]
    pub max_token_lifetime: Span,
    /// How often the key set is fetched again.
    #[serde(default = "default_jwks_refresh")]
    pub jwks_refresh: Span,
    /// How long the last key set is used when the Authority cannot be reached.
    #[serde(default = "default_jwks_max_stale")]
    pub jwks_max_stale: Span,
    /// PEM bundle that the Authority's TLS certificate must chain to.
    pub ca: Option<PathBuf>,
    /// DPoP.
    #[serde(default)]
    pub dpop: Dpop,
}

/// Where a JWK set comes from: exactly one of the three.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum JwksSource {
    /// `{ discovery = "https://…" }`: the issuer's metadata document names it (OpenID Connect Discovery 1.0, RFC 8414).
    Discovery(String),
    /// `{ url = "https://…" }`.
    Url(String),
    /// `{ file = "/…" }`, read again when it changes.
    File(PathBuf),
}

/// `[authority.dpop]` (RFC 9449).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dpop {
    /// When a proof must carry a nonce of ours.
    pub nonce: NoncePolicy,
    /// How long a nonce is accepted.
    pub nonce_lifetime: Span,
    /// How old a proof's `iat` may be, skew not included.
    pub iat_window: Span,
    /// Proofs remembered for replay detection; beyond it, 503 `overloaded`, never a forgotten proof.
    pub max_remembered_proofs: NonZeroU32,
}

/// When a DPoP proof must carry a nonce (RFC 9449, section 8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoncePolicy {
    /// Every proof.
    Always,
    /// Until `iat_window` and twice `clock_skew` have passed since the start, because proofs seen before the start are forgotten.
    #[default]
    AfterRestart,
}

/// `[licensing]`: how a PoE is proven. At least one of the two; a request's PoE format chooses.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Licensing {
    /// Signed PoE JWTs checked against pinned keys.
    pub offline: Option<OfflineLicensing>,
    /// Introspection at the Licensing Service.
    pub online: Option<OnlineLicensing>,
    /// Tolerated difference of clocks.
    #[serde(default = "default_skew")]
    pub clock_skew: Span,
    /// A PoE without `cnf` is refused unless this is false.
    #[serde(default = "default_true")]
    pub require_cnf: bool,
}

/// `[licensing.offline]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfflineLicensing {
    /// Exact `iss` of the PoE.
    pub issuer: String,
    /// JWK set of the pinned licensing keys.
    pub keys: PathBuf,
    /// Accepted signature algorithms.
    #[serde(default = "default_poe_algorithms")]
    pub algorithms: Vec<crate::jose::Algorithm>,
    /// Signed revocation list (a JWT), read again when it changes.
    pub revocation_list: PathBuf,
    /// How old the list's `iat` may be before every PoE is refused.
    #[serde(default = "default_revocation_age")]
    pub revocation_max_age: Span,
}

/// `[licensing.online]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnlineLicensing {
    /// `https://…/license/introspect`.
    pub introspection_url: String,
    /// PEM bundle that the service's certificate must chain to.
    pub ca: PathBuf,
    /// PEM certificate that this appliance presents.
    pub certificate: PathBuf,
    /// Its private key.
    pub private_key: PathBuf,
    /// How long an answer is used, never past its own `exp`.
    #[serde(default = "default_introspection_ttl")]
    pub cache_ttl: Span,
    /// How long a refusal (`active: false`) is used.
    #[serde(default = "default_negative_ttl")]
    pub negative_cache_ttl: Span,
    /// Answers kept at once.
    #[serde(default = "default_cache_entries")]
    pub max_cache_entries: NonZeroU32,
    /// One call's deadline.
    #[serde(default = "default_dependency_timeout")]
    pub timeout: Span,
}

/// `[plans.NAME]`: a plan's limits, each for PoEs that do not name that limit themselves. A PoE of a plan that is not
/// listed here must name all of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Sustained signatures per second, per licence and tenant.
    pub qps: NonZeroU32,
    /// Signatures that may come at once after a pause. Absent: `qps`.
    pub burst: Option<NonZeroU32>,
    /// Signatures in progress at once.
    pub concurrency: NonZeroU32,
    /// Largest request body.
    pub max_artifact_bytes: ByteSize,
}

/// `[tokens.NAME]`: one token and its worker.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The worker's Unix socket.
    pub socket: PathBuf,
    /// The user (name or number) that the worker lets connect: the front's.
    pub front_user: String,
    /// The user that the front lets serve the socket: the worker's.
    pub worker_user: String,
    /// Absolute path of the vendor's PKCS#11 module. Which keys go together is judged by [`Token::backend`].
    pub module: Option<PathBuf>,
    /// RFC 7512 URI that names the token: `pkcs11:token=…;serial=…`.
    pub uri: Option<String>,
    /// Where a YubiHSM 2 is, instead of `module` and `uri`.
    pub connector: Option<YubiHsmConnector>,
    /// Serial number that the YubiHSM must have. Absent: that of the device that is there first.
    pub serial: Option<u32>,
    /// Object id of the YubiHSM's authentication key; `pin_file` holds its password.
    pub auth_key: Option<u16>,
    /// PEM file with the certificates that must vouch for the YubiHSM.
    pub attestation_roots: Option<PathBuf>,
    /// File or systemd credential with the user PIN; its last line feed is not part of it.
    pub pin_file: PathBuf,
    /// SHA-256 that the module's file must have, in hexadecimal.
    pub module_sha256: Option<String>,
    /// What kind of device it is: a folder of `hsm-profiles/`. Gives defaults for what is not said here.
    pub profile: Option<String>,
    /// Sessions held open, and so signatures in progress at once. Absent: what the profile says, else 4.
    pub sessions: Option<NonZeroU32>,
    /// Longest that one call into the module may take before the worker's process is ended.
    pub call_timeout: Option<Span>,
    /// The same for the login, which takes some devices much longer than anything else. Absent: what the profile says,
    /// else as `call_timeout`.
    pub login_timeout: Option<Span>,
    /// How long a session is left idle before a call is made on it to keep its connection alive.
    pub keep_alive: Option<Span>,
    /// The worker's directory for what must outlive it: the PINs that were refused. Absent: `$STATE_DIRECTORY`.
    pub state_dir: Option<PathBuf>,
    /// Requests that may wait for a session.
    #[serde(default = "default_queue")]
    pub max_queue: NonZeroU32,
    /// How long the front waits for a signature, queueing included.
    #[serde(default = "default_sign_timeout")]
    pub sign_timeout: Span,
}

/// The life of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// Published, does not sign yet.
    Next,
    /// Signs.
    Active,
    /// Verifies only.
    Retired,
}

/// `[tenants.TID]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Names under `[keys]`; exactly one of them signs at any time. A tenant that signs keyless may have none.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Predicate types this tenant may have signed, exactly as the catalog lists them; `"*"` is the whole catalog.
    pub predicate_types: Vec<String>,
    /// Mode when a request names none.
    #[serde(default)]
    pub default_mode: SigningMode,
    /// As whom the tenant signs keyless. Absent: it does not.
    pub keyless: Option<TenantKeyless>,
}

/// How a signature is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SigningMode {
    /// With the tenant's key in a token.
    #[default]
    Kms,
    /// With an ephemeral key and a Fulcio certificate.
    Keyless,
}

/// `[custody]`: how the front watches tokens and keys, and what it keeps about them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Custody {
    /// How often each active key signs a test digest in each of its tokens.
    pub canary_interval: Span,
    /// A test signature that takes longer than this, again and again, makes the key degraded in that token.
    pub canary_slow: Span,
    /// How often each key is opened anew, its attributes read from the device and compared with before.
    pub check_interval: Span,
    /// Where the names of drained tokens are kept over a restart. Absent: `drained-tokens` beside the audit log.
    pub drained_file: Option<PathBuf>,
    /// The file with every public key that was ever seen. Absent: `key-history.jsonl` beside the audit log.
    pub history: Option<PathBuf>,
}

/// `[audit]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// The log file; its directory must exist and belong to the front's user.
    pub path: PathBuf,
    /// Records are made durable at once as long as few come. Under load they are made so together, up to four times this
    /// far apart the more records come.
    #[serde(default = "default_group_commit")]
    pub group_commit: Span,
    /// Refused connections and unreadable requests recorded per second; the rest is counted in one record.
    #[serde(default = "default_noise")]
    pub max_noise_records_per_second: NonZeroU32,
}

/// `[log]`: operational logs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `tracing` filter, as in `info,stellaops_signer::auth=debug`.
    pub filter: Option<String>,
    /// Where they go.
    pub target: LogTarget,
}

/// Where operational logs go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogTarget {
    /// journald when standard error is connected to it, text otherwise.
    #[default]
    Auto,
    /// journald, with structured fields.
    Journald,
    /// Text on standard error.
    Text,
    /// JSON lines on standard error.
    Json,
}

impl TryFrom<String> for LocalListen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err(format!(
                    "`{text}` needs an absolute path, as in \"unix:/run/stellaops-signer/local.sock\""
                ));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            format!("`{text}` is neither `unix:/path` nor an address and port, as in \"127.0.0.1:9443\"")
        })?;
        if !address.ip().is_loopback() {
            return Err(format!(
                "`{text}` is not loopback; metrics and health are not authenticated, so write 127.0.0.1, [::1] or `unix:/path`"
            ));
        }
        Ok(Self::Tcp(address))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: nonzero(4096),
            handshake_timeout: Span::seconds(10),
            header_timeout: Span::seconds(10),
            body_timeout: Span::seconds(10),
            idle_timeout: Span::seconds(120),
            request_timeout: Span::seconds(60),
            max_header_bytes: ByteSize::kib(32),
            max_body_bytes: ByteSize::mib(32),
            max_body_bytes_in_flight: ByteSize::mib(256),
            reads_per_second: nonzero(100),
        }
    }
}

impl Default for Custody {
    fn default() -> Self {
        Self {
            canary_interval: Span::seconds(10),
            canary_slow: Span::seconds(1),
            check_interval: Span::seconds(300),
            drained_file: None,
            history: None,
        }
    }
}

impl Default for Dpop {
    fn default() -> Self {
        Self {
            nonce: NoncePolicy::default(),
            nonce_lifetime: Span::seconds(300),
            iat_window: Span::seconds(60),
            max_remembered_proofs: nonzero(4_000_000),
        }
    }
}

const fn nonzero(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).expect("a literal above zero")
}

fn default_audience() -> String {
    "signer".to_owned()
}
fn default_scope() -> String {
    "signer.sign".to_owned()
}
fn default_algorithms() -> Vec<crate::jose::Algorithm> {
    use crate::jose::Algorithm::{EdDsa, Es256, Ps256, Rs256};
    vec![Es256, Ps256, Rs256, EdDsa]
}
fn default_poe_algorithms() -> Vec<crate::jose::Algorithm> {
    use crate::jose::Algorithm::{Es256, Rs256};
    vec![Es256, Rs256]
}
fn default_true() -> bool {
    true
}
fn default_skew() -> Span {
    Span::seconds(30)
}
fn default_token_lifetime() -> Span {
    Span::seconds(600)
}
fn default_jwks_refresh() -> Span {
    Span::seconds(300)
}
fn default_jwks_max_stale() -> Span {
    Span::seconds(3600)
}
fn default_revocation_age() -> Span {
    Span::seconds(7 * 24 * 3600)
}
fn default_introspection_ttl() -> Span {
    Span::seconds(120)
}
fn default_negative_ttl() -> Span {
    Span::seconds(10)
}
fn default_cache_entries() -> NonZeroU32 {
    nonzero(10_000)
}
fn default_dependency_timeout() -> Span {
    Span::seconds(5)
}
fn default_queue() -> NonZeroU32 {
    nonzero(1024)
}
fn default_sign_timeout() -> Span {
    Span::seconds(5)
}
fn default_group_commit() -> Span {
    Span::micros(500)
}
fn default_noise() -> NonZeroU32 {
    nonzero(10)
}
