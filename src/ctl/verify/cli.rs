//! The command line of `signerctl verify`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use crate::config::Span;
use crate::ctl::cli::EXIT_STATUS;

/// Verify an envelope offline, against a public key or against an identity that a pinned Fulcio has certified.
///
/// FILE is a DSSE envelope, the Signer API's answer, or a Sigstore bundle. Checked are: exactly one signature, its keyid,
/// the signature over the PAE, the payload type, the form of the in-toto statement, and what --type, --subject-file and
/// --digest demand; for an identity the certificate, the promise of a CT log, and by a timestamp that the certificate
/// was valid when the signature was made. Nothing is asked for over the network.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
#[command(group = ArgGroup::new("signer").required(true).args(["key", "keys", "certificate_identity"]))]
pub(crate) struct VerifyArgs {
    /// What to verify; `-` reads standard input.
    pub(crate) file: PathBuf,
    /// PEM public key (SubjectPublicKeyInfo, P-256).
    #[arg(long, value_name = "PEM")]
    pub(crate) key: Option<PathBuf>,
    /// JWK set, as `signerctl keys list --jwks` writes it; the keyid chooses the key.
    #[arg(long, value_name = "JWKS")]
    pub(crate) keys: Option<PathBuf>,
    /// The name that the certificate must have: an e-mail address, a URI, or a user name of Fulcio.
    #[arg(long, value_name = "SAN", requires = "certificate_oidc_issuer", requires = "trusted_root")]
    pub(crate) certificate_identity: Option<String>,
    /// The identity provider that must have vouched for that name.
    #[arg(long, value_name = "URL", requires = "certificate_identity")]
    pub(crate) certificate_oidc_issuer: Option<String>,
    /// The pinned Fulcios, CT logs and timestamp authorities, as `signerctl trust` writes them.
    #[arg(long, value_name = "JSON")]
    pub(crate) trusted_root: Option<PathBuf>,
    /// Demand a timestamp of a pinned authority, for a key as well.
    #[arg(long, requires = "trusted_root")]
    pub(crate) require_timestamp: bool,
    /// Judge a certificate without a timestamp by this time (RFC 3339), which you know from elsewhere. Nothing proves
    /// it, and the report says so.
    #[arg(long, value_name = "TIME", requires = "certificate_identity", conflicts_with = "require_timestamp")]
    pub(crate) at: Option<jiff::Timestamp>,
    /// Accept certificates with a life of up to this, as in `20m`, for a Fulcio that issues longer ones [default: 10m30s].
    #[arg(long, value_name = "DURATION", requires = "certificate_identity")]
    pub(crate) max_certificate_lifetime: Option<Span>,
    /// Do not demand the promise of a CT log: for a private Fulcio that has none.
    #[arg(long, requires = "certificate_identity")]
    pub(crate) insecure_ignore_sct: bool,
    /// Demand this predicate type: a short name or the type itself.
    #[arg(long = "type", short = 't', value_name = "TYPE")]
    pub(crate) predicate_type: Option<String>,
    /// Demand that this file is a subject; may be repeated.
    #[arg(long, value_name = "PATH")]
    pub(crate) subject_file: Vec<PathBuf>,
    /// Demand a subject with this digest; may be repeated.
    #[arg(long, value_name = "ALG:HEX")]
    pub(crate) digest: Vec<String>,
}
