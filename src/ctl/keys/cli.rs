//! The command line of `signerctl keys`, but for `list`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::ctl::cli::EXIT_STATUS;
use crate::ctl::token::cli::Reach;

/// Make a P-256 key pair inside a token, by a template that keeps it there.
///
/// The private key is private, sensitive, never extractable, and may sign and nothing else. What the device made is
/// read back; a key that is not as asked is destroyed again. The new key signs once, and that signature is verified.
/// Then the configuration to add is printed: nothing uses the key before you add it.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct KeysGenerateArgs {
    /// The key's name in the configuration, audit records and key lists.
    pub(crate) name: String,
    /// The token in the configuration.
    #[arg(long, value_name = "NAME")]
    pub(crate) token: String,
    /// The object's id in hex, 1 to 32 bytes [default: eight random bytes]; of a YubiHSM two bytes.
    #[arg(long, value_name = "HEX")]
    pub(crate) id: Option<String>,
    /// The object's label [default: the key's name].
    #[arg(long)]
    pub(crate) label: Option<String>,
    /// Write the public key here, and name it in the printed configuration; an existing file is not replaced.
    #[arg(long, value_name = "PEM")]
    pub(crate) public_key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// Write a certificate signing request for a key, signed inside its token.
///
/// PKCS#10 with ECDSA-SHA256; it asks for a code signing certificate.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct KeysCsrArgs {
    /// The key's name in the configuration.
    pub(crate) key: String,
    /// Whom the certificate is for: CN, O, OU, L, ST, C; `\` before a comma in a value.
    #[arg(long, value_name = "CN=…,O=…")]
    pub(crate) subject: String,
    /// A further name: DNS:…, URI:…, email:… or IP:…; may be repeated.
    #[arg(long, value_name = "KIND:NAME")]
    pub(crate) san: Vec<String>,
    /// Where the request goes [default: standard output].
    #[arg(long, short, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the output file when it exists.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// Take in the certificate chain that a CA issued for a key.
///
/// Checked are: the leaf's key is the one in the token, each certificate is signed by the next, all are valid now. The
/// chain is written, whole or not at all, to where the key's `certificate_chain` says.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct KeysImportCertArgs {
    /// The key's name in the configuration.
    pub(crate) key: String,
    /// PEM certificates, leaf first.
    #[arg(long, value_name = "PEM")]
    pub(crate) chain: PathBuf,
    /// Where to, when the configuration names no `certificate_chain` for the key.
    #[arg(long, value_name = "PEM")]
    pub(crate) to: Option<PathBuf>,
    /// Store the leaf certificate in the token, too, under the key's id.
    #[arg(long)]
    pub(crate) into_token: bool,
    /// Do not ask before an existing chain is replaced.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// Print the public keys of the configuration: active, next and retired.
///
/// From the configured `public_key` or `certificate_chain`, else from the key history, else from the token (without a
/// PIN). With --all, also the keys that the history knows and the configuration no longer has.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct KeysExportArgs {
    /// The form.
    #[arg(long, value_enum, default_value_t = ExportForm::Jwks)]
    pub(crate) format: ExportForm,
    /// Every public key that this appliance was ever seen with.
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// How keys are exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportForm {
    /// A JWK set (RFC 7517), for `signerctl verify --keys`.
    Jwks,
    /// PUBLIC KEY blocks, each below a line that names it.
    Pem,
}

/// Let a `next` key take over from the `active` one at a moment, and keep both published.
///
/// Computes the change of the configuration, shows it, asks, and puts it in force as a drop-in (FILE.d/90-keys.toml)
/// that the appliance's own loader has accepted. The old key stays `active` until the moment and verifies after it;
/// `signerctl keys retire` makes it `retired` later. The public halves of both are written down first.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct KeysRotateArgs {
    /// The key that takes over; its state is `next`.
    pub(crate) key: String,
    /// When (RFC 3339, as in 2027-01-01T00:00:00Z) [default: now].
    #[arg(long, value_name = "MOMENT")]
    pub(crate) at: Option<jiff::Timestamp>,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// Make an `active` key that no longer signs `retired`: it verifies only.
///
/// As with `rotate`, the change is shown, asked about, accepted by the loader and put in force as a drop-in; the public
/// half is written down first.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct KeysRetireArgs {
    /// The key's name in the configuration.
    pub(crate) key: String,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// Destroy a key in its token: the private key, the public key object and the certificates of its id.
///
/// Refuses an `active` key, and one whose public half is not kept: signatures must stay verifiable. Asks by having
/// the object's id typed.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct KeysDeleteArgs {
    /// The key's name in the configuration.
    pub(crate) key: String,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) reach: Reach,
}
