//! The command line of `signerctl trust`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::ctl::cli::EXIT_STATUS;
use crate::ctl::token::cli::Reach;

/// Commands on trust.
#[derive(Debug, Subcommand)]
pub(crate) enum TrustCommand {
    Make(TrustMakeArgs),
    Export(Box<TrustExportArgs>),
}

/// Make a `trusted_root.json` of PEM files: for a private Fulcio, CT log or timestamp authority.
///
/// Each chain is checked: every certificate is signed by the next, the last one is a CA. The file is what signerctl,
/// cosign, sigstore-go and the appliance's own configuration read.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct TrustMakeArgs {
    /// PEM chain of a Fulcio, intermediate first, root last; with its URL before it, if you like, as in
    /// `https://fulcio.example=chain.pem`. May be repeated.
    #[arg(long, value_name = "[URL=]PEM")]
    pub(crate) fulcio_chain: Vec<String>,
    /// PEM public key of a CT log; may be repeated.
    #[arg(long, value_name = "[URL=]PEM")]
    pub(crate) ct_key: Vec<String>,
    /// PEM chain of a timestamp authority, its own certificate first, root last; may be repeated.
    #[arg(long, value_name = "[URL=]PEM")]
    pub(crate) tsa_chain: Vec<String>,
    /// Trusted roots whose content goes in as well; may be repeated.
    #[arg(long, value_name = "JSON")]
    pub(crate) from: Vec<PathBuf>,
    /// From when on what is made here counts (RFC 3339) [default: a chain from its own beginning, a CT log from that of the
    /// first Fulcio].
    #[arg(long, value_name = "TIME")]
    pub(crate) start: Option<jiff::Timestamp>,
    /// Until when it counts (RFC 3339) [default: a chain until its own end, a CT log without end].
    #[arg(long, value_name = "TIME")]
    pub(crate) end: Option<jiff::Timestamp>,
    /// Where it goes; `-` is standard output.
    #[arg(long, short, value_name = "PATH")]
    pub(crate) output: PathBuf,
    /// Replace the output file when it exists.
    #[arg(long)]
    pub(crate) force: bool,
}

/// Write the offline kit: everything that a verifier without a network needs, and the commands to type.
///
/// A folder with `trusted_root.json` and its certificates in PEM, as the configuration names them for keyless signing
/// and for timestamps; the public keys of the appliance, past ones included, as a JWK set and as PEM; and a README.txt.
/// Hand it over by a way that you trust: whoever can change it decides what verifies.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct TrustExportArgs {
    /// The folder; made when it does not exist, and must be empty when it does.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Trusted roots to export in place of those of the configuration; may be repeated.
    #[arg(long, value_name = "JSON")]
    pub(crate) trusted_root: Vec<PathBuf>,
    /// A JWK set, as `signerctl keys list --jwks` prints it, in place of the keys of configuration and history.
    #[arg(long, value_name = "JWKS")]
    pub(crate) keys: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) reach: Reach,
}
