//! Who calls which appliance: options, over environment, over profile.

use std::env;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Deserializer, de};

use super::error::CtlError;
use super::profile;
use crate::config::{SigningMode, Span};

/// Everything that a request needs besides the document.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Settings {
    #[command(flatten)]
    pub(crate) access: Access,
    #[command(flatten)]
    pub(crate) request: Defaults,
}

/// Which appliance, and who calls it.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Access {
    /// Client profile [default: $XDG_CONFIG_HOME/stellaops-signer/client.toml, if there].
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    #[serde(skip)]
    pub(crate) profile: Option<PathBuf>,
    /// The appliance, as in `https://signer.example:8443`.
    #[arg(long, value_name = "URL", help_heading = "Connection")]
    pub(crate) url: Option<String>,
    /// PEM bundle that the appliance's certificate must chain to.
    #[arg(long, value_name = "PEM", help_heading = "Connection")]
    pub(crate) ca: Option<PathBuf>,
    /// PEM certificate chain of this client, leaf first.
    #[arg(long, value_name = "PEM", help_heading = "Connection")]
    pub(crate) cert: Option<PathBuf>,
    /// PEM private key of --cert.
    #[arg(long, value_name = "PEM", help_heading = "Connection")]
    pub(crate) key: Option<PathBuf>,
    /// Longest wait for one answer [default: 60s].
    #[arg(long, value_name = "DURATION", help_heading = "Connection")]
    pub(crate) timeout: Option<Span>,
    /// Try again on 429 and 503 with Retry-After, for this long altogether; `0s` never [default: 30s].
    #[arg(long, value_name = "DURATION", help_heading = "Connection")]
    pub(crate) retry_for: Option<Patience>,

    /// File with the OpTok.
    #[arg(long, value_name = "FILE", help_heading = "OpTok")]
    pub(crate) token_file: Option<PathBuf>,
    /// Issuer to fetch the OpTok from by client_credentials, in place of --token-file.
    #[arg(long, value_name = "URL", help_heading = "OpTok")]
    pub(crate) authority: Option<String>,
    /// PEM bundle that the Authority's certificate must chain to [default: --ca].
    #[arg(long, value_name = "PEM", help_heading = "OpTok")]
    pub(crate) authority_ca: Option<PathBuf>,
    /// This client's name at the Authority.
    #[arg(long, value_name = "ID", help_heading = "OpTok")]
    pub(crate) client_id: Option<String>,
    /// PEM key for private_key_jwt; without it the client proves itself by --cert.
    #[arg(long, value_name = "PEM", help_heading = "OpTok")]
    pub(crate) client_key: Option<PathBuf>,
    /// `kid` of --client-key, where the Authority needs it.
    #[arg(long, value_name = "KID", help_heading = "OpTok")]
    pub(crate) client_key_id: Option<String>,
    /// Scope to ask for [default: signer.sign].
    #[arg(long, value_name = "SCOPE", help_heading = "OpTok")]
    pub(crate) scope: Option<String>,
    /// Resource to ask for (RFC 8707), where the Authority needs it.
    #[arg(long, value_name = "URI", help_heading = "OpTok")]
    pub(crate) resource: Option<String>,
    /// What the fetched token shall be bound to [default: dpop].
    #[arg(long, value_name = "KIND", help_heading = "OpTok")]
    pub(crate) binding: Option<Binding>,
    /// PEM key of the DPoP proofs: P-256, Ed25519 or RSA [default: a fresh one when the token is fetched].
    #[arg(long, value_name = "PEM", help_heading = "OpTok")]
    pub(crate) dpop_key: Option<PathBuf>,
}

/// What a request says besides its subjects and predicate; seldom another one from call to call.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Defaults {
    /// File with the PoE.
    #[arg(long, value_name = "FILE", help_heading = "Request")]
    pub(crate) poe_file: Option<PathBuf>,
    /// Send the PoE in the X-PoE header, not in the body.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "Request")]
    pub(crate) poe_in_header: Option<bool>,
    /// Digest of the scanner image that made the evidence.
    #[arg(long, value_name = "sha256:HEX", help_heading = "Request")]
    pub(crate) scanner_digest: Option<String>,
    /// How the signature is made: `kms` or `keyless` [default: the tenant's].
    #[arg(long, value_name = "MODE", help_heading = "Request", value_parser = mode)]
    pub(crate) mode: Option<SigningMode>,
    /// What comes back [default: dsse].
    #[arg(long, value_name = "FORM", help_heading = "Request")]
    pub(crate) bundle: Option<BundleForm>,
}

/// What a fetched token is bound to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Binding {
    /// The DPoP key (RFC 9449).
    #[default]
    Dpop,
    /// The client certificate (RFC 8705).
    Mtls,
}

/// `options.returnBundle`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
pub(crate) enum BundleForm {
    /// The DSSE envelope.
    #[default]
    #[serde(rename = "dsse")]
    Dsse,
    /// The envelope, the certificate chain and the signing identity.
    #[value(name = "dsse+cert")]
    #[serde(rename = "dsse+cert")]
    DsseCert,
    /// A Sigstore bundle v0.3.
    #[serde(rename = "sigstore")]
    Sigstore,
}

impl BundleForm {
    /// As the request names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dsse => "dsse",
            Self::DsseCert => "dsse+cert",
            Self::Sigstore => "sigstore",
        }
    }
}

/// A duration that may be zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience(pub(crate) Duration);

impl FromStr for Patience {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "0" | "0s" => Ok(Self(Duration::ZERO)),
            _ => text.parse().map(|span: Span| Self(span.get())),
        }
    }
}

impl<'de> Deserialize<'de> for Patience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Settings {
    /// These options, over the environment, over the profile.
    pub(crate) fn complete(self) -> Result<Self, CtlError> {
        let environment = Self::from_environment()?;
        let named = self.access.profile.clone().or_else(|| environment.access.profile.clone());
        let profile = match (named, default_profile()) {
            (Some(path), _) => profile::read(&path)?,
            (None, Some(path)) if path.exists() => profile::read(&path)?,
            _ => Self::default(),
        };
        self.access.one_token_source("the command line")?;
        environment.access.one_token_source("the environment")?;
        Ok(self.over(environment.over(profile)))
    }

    fn from_environment() -> Result<Self, CtlError> {
        Ok(Self { access: Access::from_environment()?, request: Defaults::from_environment()? })
    }

    fn over(self, below: Self) -> Self {
        Self { access: self.access.over(below.access), request: self.request.over(below.request) }
    }
}

/// The value, or a usage error that says the three ways to give it.
pub(crate) fn required<T: Clone>(value: &Option<T>, option: &str) -> Result<T, CtlError> {
    value.clone().ok_or_else(|| {
        let name = option.replace('-', "_");
        CtlError::Usage(format!(
            "--{option} is missing; give it, set SIGNER_{}, or write `{name} = …` into the client profile",
            name.to_uppercase()
        ))
    })
}

impl Access {
    /// An OpTok comes from a file or from an Authority; `place` is where both are named.
    pub(super) fn one_token_source(&self, place: &str) -> Result<(), CtlError> {
        if self.token_file.is_some() && self.authority.is_some() {
            return Err(CtlError::Usage(format!(
                "{place} names a token file and an Authority; the OpTok comes from one of them, drop the other"
            )));
        }
        Ok(())
    }

    fn from_environment() -> Result<Self, CtlError> {
        Ok(Self {
            profile: path_variable("SIGNER_PROFILE"),
            url: variable("SIGNER_URL")?,
            ca: path_variable("SIGNER_CA"),
            cert: path_variable("SIGNER_CERT"),
            key: path_variable("SIGNER_KEY"),
            timeout: variable("SIGNER_TIMEOUT")?,
            retry_for: variable("SIGNER_RETRY_FOR")?,
            token_file: path_variable("SIGNER_TOKEN_FILE"),
            authority: variable("SIGNER_AUTHORITY")?,
            authority_ca: path_variable("SIGNER_AUTHORITY_CA"),
            client_id: variable("SIGNER_CLIENT_ID")?,
            client_key: path_variable("SIGNER_CLIENT_KEY"),
            client_key_id: variable("SIGNER_CLIENT_KEY_ID")?,
            scope: variable("SIGNER_SCOPE")?,
            resource: variable("SIGNER_RESOURCE")?,
            binding: choice_variable("SIGNER_BINDING")?,
            dpop_key: path_variable("SIGNER_DPOP_KEY"),
        })
    }

    fn over(self, mut below: Self) -> Self {
        // A token source named above replaces one of the other kind below, it does not clash with it.
        if self.token_file.is_some() || self.authority.is_some() {
            (below.token_file, below.authority) = (None, None);
        }
        Self {
            profile: self.profile.or(below.profile),
            url: self.url.or(below.url),
            ca: self.ca.or(below.ca),
            cert: self.cert.or(below.cert),
            key: self.key.or(below.key),
            timeout: self.timeout.or(below.timeout),
            retry_for: self.retry_for.or(below.retry_for),
            token_file: self.token_file.or(below.token_file),
            authority: self.authority.or(below.authority),
            authority_ca: self.authority_ca.or(below.authority_ca),
            client_id: self.client_id.or(below.client_id),
            client_key: self.client_key.or(below.client_key),
            client_key_id: self.client_key_id.or(below.client_key_id),
            scope: self.scope.or(below.scope),
            resource: self.resource.or(below.resource),
            binding: self.binding.or(below.binding),
            dpop_key: self.dpop_key.or(below.dpop_key),
        }
    }
}

impl Defaults {
    fn from_environment() -> Result<Self, CtlError> {
        let mode = variable::<String>("SIGNER_MODE")?.map(|text| mode(&text)).transpose();
        Ok(Self {
            poe_file: path_variable("SIGNER_POE_FILE"),
            poe_in_header: variable("SIGNER_POE_IN_HEADER")?,
            scanner_digest: variable("SIGNER_SCANNER_DIGEST")?,
            mode: mode.map_err(|why| CtlError::Usage(format!("SIGNER_MODE: {why}")))?,
            bundle: choice_variable("SIGNER_BUNDLE")?,
        })
    }

    fn over(self, below: Self) -> Self {
        Self {
            poe_file: self.poe_file.or(below.poe_file),
            poe_in_header: self.poe_in_header.or(below.poe_in_header),
            scanner_digest: self.scanner_digest.or(below.scanner_digest),
            mode: self.mode.or(below.mode),
            bundle: self.bundle.or(below.bundle),
        }
    }
}

fn mode(text: &str) -> Result<SigningMode, String> {
    match text {
        "kms" => Ok(SigningMode::Kms),
        "keyless" => Ok(SigningMode::Keyless),
        _ => Err(format!("`{text}` is no signing mode; write `kms` or `keyless`")),
    }
}

fn default_profile() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(config.join("stellaops-signer/client.toml"))
}

/// An empty variable is an absent one: that is how a caller unsets it in most CI systems.
fn path_variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn variable<T: FromStr>(name: &str) -> Result<Option<T>, CtlError>
where
    T::Err: std::fmt::Display,
{
    let Some(value) = env::var_os(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    let text = value.to_str().ok_or_else(|| CtlError::Usage(format!("{name} is not UTF-8")))?;
    text.parse().map(Some).map_err(|why| CtlError::Usage(format!("{name}: {why}")))
}

fn choice_variable<T: ValueEnum>(name: &str) -> Result<Option<T>, CtlError> {
    let Some(text) = variable::<String>(name)? else { return Ok(None) };
    T::from_str(&text, false).map(Some).map_err(|_| {
        let known: Vec<String> =
            T::value_variants().iter().filter_map(|v| Some(v.to_possible_value()?.get_name().to_owned())).collect();
        CtlError::Usage(format!("{name}: `{text}` is none of {}", known.join(", ")))
    })
}
