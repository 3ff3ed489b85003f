//! `[keyless]` and `[timestamps]`: signing with an ephemeral key and a Fulcio certificate, and RFC 3161 timestamps.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::Deserialize;

use super::{Span, default_skew, nonzero};

/// `[keyless]`: one Fulcio, and how it is asked for certificates.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keyless {
    /// Scheme, host and port of Fulcio, as in `https://fulcio.example`; `/api/v2/signingCert` is asked there. Plain http
    /// is accepted to loopback only.
    pub fulcio_url: String,
    /// PEM bundle that Fulcio's TLS certificate must chain to. Needed with https.
    pub ca: Option<PathBuf>,
    /// A Sigstore `trusted_root.json` with the CAs that certificates must chain to and the CT logs that must vouch for
    /// them.
    pub trusted_root: PathBuf,
    /// An HTTP proxy that is asked to `CONNECT`, as in `http://proxy.example:3128`.
    pub proxy: Option<String>,
    /// The sealed helper. Absent: `signer-keyless` beside the running program, else in the package's own directory.
    pub helper: Option<PathBuf>,
    /// Whether a certificate needs an SCT of a pinned CT log.
    #[serde(default)]
    pub sct: SctPolicy,
    /// Longest accepted life of a certificate, `clock_skew` not included.
    #[serde(default = "default_certificate_lifetime")]
    pub max_certificate_lifetime: Span,
    /// Tolerated difference of clocks.
    #[serde(default = "default_skew")]
    pub clock_skew: Span,
    /// Flows in progress at once, each with a helper process of its own.
    #[serde(default = "default_flows")]
    pub max_flows: NonZeroU32,
    /// Requests that may wait for a flow.
    #[serde(default = "default_waiting")]
    pub max_waiting: NonZeroU32,
    /// Longest time to resolve Fulcio's name and to connect.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Span,
    /// Longest silence of Fulcio, and of the helper between two steps.
    #[serde(default = "default_step_timeout")]
    pub step_timeout: Span,
    /// How long a request waits for its signature, waiting for a flow and trying again included.
    #[serde(default = "default_sign_timeout")]
    pub sign_timeout: Span,
    /// How often a flow is tried at most, where trying again is safe.
    #[serde(default = "default_attempts")]
    pub attempts: NonZeroU32,
    /// When Fulcio is no longer asked.
    #[serde(default)]
    pub circuit: Circuit,
    /// Whether a certificate may be used more than once.
    #[serde(default)]
    pub reuse: Reuse,
    /// Layers of the helper's sandbox that may be missing, each with a reason.
    #[serde(default)]
    pub sandbox_exception: Vec<SandboxException>,
    /// Whom certificates are issued to, by name.
    #[serde(default)]
    pub identity: BTreeMap<String, Identity>,
}

/// Whether a certificate needs a signed certificate timestamp (RFC 6962).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SctPolicy {
    /// One in the certificate that verifies with a key of a pinned CT log. One beside it is lost on the way to a verifier.
    #[default]
    Required,
    /// It may come without, because the private Fulcio has no CT log. A false one of a pinned log is refused all the same.
    Optional,
}

/// `[keyless.circuit]`: after how many failures in a row Fulcio is left alone, and for how long.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Circuit {
    /// Failures in a row that open the circuit.
    pub failures: NonZeroU32,
    /// How long it stays open before one request is let through to try.
    pub open_for: Span,
}

/// `[keyless.reuse]`: how often and how long one certificate, and the helper that holds its key, may sign for a tenant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reuse {
    /// Signatures under one certificate. 1: a fresh key for each.
    pub max_signatures: NonZeroU32,
    /// How long after its certificate was issued a helper may still sign.
    pub max_age: Span,
    /// How long before its certificate ends it signs no more.
    pub margin: Span,
}

/// `[[keyless.sandbox_exception]]`: a layer of the helper's sandbox that this machine does not have.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxException {
    /// Which one, as `docs/keyless.md` lists them.
    pub layer: String,
    /// Why it is let pass; it stands in the log and in the audit log.
    pub reason: String,
}

/// `[keyless.identity.NAME]`: an identity token and where it comes from.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Where the token comes from.
    pub source: IdentitySource,
    /// Exact `iss` of the token.
    pub issuer: String,
    /// What its `aud` must contain: Fulcio's client id.
    #[serde(default = "default_identity_audience")]
    pub audience: String,
    /// How long before its `exp` a token is no longer used, and a new one is fetched.
    #[serde(default = "default_refresh_before")]
    pub refresh_before: Span,
    /// How long a token is held at most, whatever its `exp` says.
    #[serde(default = "default_identity_age")]
    pub max_age: Span,
}

/// Where an identity token comes from: exactly one of the three.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum IdentitySource {
    /// `{ file = "/…" }`: something else keeps the file fresh; it is read again when it changes.
    File(PathBuf),
    /// `{ credential = "NAME" }`: a credential of signerd's systemd unit.
    Credential(String),
    /// The Authority, by client credentials (RFC 6749, section 4.4).
    ClientCredentials(Box<ClientCredentials>),
}

/// `[keyless.identity.NAME.source.client_credentials]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCredentials {
    /// The token endpoint.
    pub token_url: String,
    /// PEM bundle that the Authority's TLS certificate must chain to.
    pub ca: PathBuf,
    /// The `client_id` that this appliance has at the Authority.
    pub client_id: String,
    /// How the appliance proves to be that client.
    pub authentication: ClientAuthentication,
    /// `scope` of the request.
    pub scope: Option<String>,
    /// `resource` of the request (RFC 8707).
    pub resource: Option<String>,
    /// `audience` of the request, which some servers read instead.
    pub audience: Option<String>,
    /// One call's deadline.
    #[serde(default = "super::default_dependency_timeout")]
    pub timeout: Span,
}

/// How a client proves itself at a token endpoint. A shared secret is not among them: it would lie on disk.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientAuthentication {
    /// `{ mtls = { certificate = "/…", private_key = "/…" } }` (RFC 8705, section 2).
    Mtls(ClientCertificate),
    /// `{ private_key_jwt = { key = "NAME" } }` (RFC 7523, section 2.2): a JWT signed by a key in a token.
    PrivateKeyJwt(AssertionKey),
}

/// A certificate to show and its key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// PEM certificate chain, leaf first.
    pub certificate: PathBuf,
    /// PEM private key.
    pub private_key: PathBuf,
}

/// The key that signs client assertions.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssertionKey {
    /// A name under `[keys]`, of a key that no tenant signs with.
    pub key: String,
    /// `kid` of the assertion's header. Absent: the key's `keyid`.
    pub kid: Option<String>,
    /// `aud` of the assertion. Absent: the token endpoint.
    pub audience: Option<String>,
}

/// `[tenants.TID.keyless]`: as whom the tenant signs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantKeyless {
    /// A name under `[keyless.identity]`.
    pub identity: String,
    /// The one subject alternative name that its certificates must have: a URI, or an email address.
    pub san: String,
    /// The OIDC issuer that its certificates must name. Absent: the identity's issuer.
    pub issuer: Option<String>,
}

/// `[timestamps]`: RFC 3161 timestamps in Sigstore bundles.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timestamps {
    /// A Sigstore `trusted_root.json` with the timestamp authorities that are trusted.
    pub trusted_root: PathBuf,
    /// How many of the authorities must answer.
    #[serde(default)]
    pub policy: TimestampPolicy,
    /// One call's deadline.
    #[serde(default = "super::default_dependency_timeout")]
    pub timeout: Span,
    /// The authorities, by name.
    pub authority: BTreeMap<String, TimestampAuthority>,
}

/// How many authorities must answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimestampPolicy {
    /// The first that answers rightly, in the order of their names.
    #[default]
    One,
    /// Every one, and each by another signer.
    All,
}

/// `[timestamps.authority.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimestampAuthority {
    /// Where time-stamp queries are posted (RFC 3161, section 3.4).
    pub url: String,
    /// PEM bundle that its TLS certificate must chain to.
    pub ca: Option<PathBuf>,
}

impl Default for Circuit {
    fn default() -> Self {
        Self { failures: nonzero(5), open_for: Span::seconds(10) }
    }
}

impl Default for Reuse {
    fn default() -> Self {
        Self { max_signatures: nonzero(1), max_age: Span::seconds(60), margin: Span::seconds(60) }
    }
}

impl Reuse {
    /// Whether a certificate is used more than once.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.max_signatures.get() > 1
    }
}

fn default_certificate_lifetime() -> Span {
    Span::seconds(600)
}
fn default_flows() -> NonZeroU32 {
    nonzero(32)
}
fn default_waiting() -> NonZeroU32 {
    nonzero(256)
}
fn default_connect_timeout() -> Span {
    Span::seconds(2)
}
fn default_step_timeout() -> Span {
    Span::seconds(5)
}
fn default_sign_timeout() -> Span {
    Span::seconds(10)
}
fn default_attempts() -> NonZeroU32 {
    nonzero(3)
}
fn default_identity_audience() -> String {
    "sigstore".to_owned()
}
fn default_refresh_before() -> Span {
    Span::seconds(60)
}
fn default_identity_age() -> Span {
    Span::seconds(3600)
}
