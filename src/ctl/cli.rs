//! The command line as data; `--help`, completions and man pages are made from it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::attest::KeysAttestArgs;
use super::init::cli::InitArgs;
use super::keys::cli::{
    KeysCsrArgs, KeysDeleteArgs, KeysExportArgs, KeysGenerateArgs, KeysImportCertArgs, KeysRetireArgs, KeysRotateArgs,
};
use super::release::ReleaseCommand;
use super::request;
use super::settings::{Access, Settings};
use super::token::cli::TokenCommand;
use super::trust::cli::TrustCommand;
use super::verify::cli::VerifyArgs;
use crate::custody::conformance;

/// Sign, verify and operate with the StellaOps Signer.
///
/// `sign` and `keys list` call an appliance's Signer API over mTLS. `verify` works offline, with what `trust` writes.
/// `config`, `status`, `token` and the other commands of `keys` serve the operator on the appliance itself.
#[derive(Debug, Parser)]
#[command(name = "signerctl", version, after_long_help = EXIT_STATUS, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Print one JSON document on standard output, errors included (but not those of the command line itself).
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Sign(Box<SignArgs>),
    Verify(VerifyArgs),
    /// The signing keys of an appliance, from their making to their end.
    #[command(subcommand, after_long_help = EXIT_STATUS)]
    Keys(KeysCommand),
    /// The tokens (HSMs) of an appliance.
    #[command(subcommand, after_long_help = EXIT_STATUS)]
    Token(TokenCommand),
    /// The scanner releases that an appliance trusts.
    #[command(subcommand, after_long_help = EXIT_STATUS)]
    Release(ReleaseCommand),
    /// Whom an offline verifier trusts.
    #[command(subcommand, after_long_help = EXIT_STATUS)]
    Trust(TrustCommand),
    /// The configuration of an appliance.
    #[command(subcommand, after_long_help = EXIT_STATUS)]
    Config(ConfigCommand),
    Init(Box<InitArgs>),
    Status(StatusArgs),
    /// Print a completion script for a shell.
    #[command(after_long_help = EXIT_STATUS)]
    Completions(CompletionsArgs),
    /// Write a man page for every command.
    #[command(after_long_help = EXIT_STATUS)]
    Man(ManArgs),
}

/// Have a document signed by the appliance.
///
/// FILE is the predicate: one JSON object, such as an SBOM or a VEX document. It is sent over mTLS together with an
/// OpTok, the proof that the token is this client's, and a PoE; what comes back is compared with what was sent and
/// written as a DSSE envelope or a Sigstore bundle.
///
/// Every option under Connection, OpTok and Request may come from the profile or from the environment instead
/// (SIGNER_ and the option's name, as in SIGNER_TOKEN_FILE); an option wins over the environment, the environment
/// over the profile.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct SignArgs {
    /// The predicate, a JSON object; `-` reads standard input.
    pub(crate) file: PathBuf,
    /// Predicate type: a short name such as `sbom`, or the type as the catalog has it.
    #[arg(long = "type", short = 't', value_name = "TYPE", long_help = type_help())]
    pub(crate) predicate_type: String,
    /// What the predicate is about: a name and its digest; may be repeated.
    #[arg(long, value_name = "NAME@ALG:HEX", required_unless_present = "subject_file")]
    pub(crate) subject: Vec<String>,
    /// A file that the predicate is about; its SHA-256 is taken, its file name is the subject's name; may be repeated.
    #[arg(long, value_name = "PATH")]
    pub(crate) subject_file: Vec<PathBuf>,
    /// Where the envelope or bundle goes; `-` is standard output [default: FILE.dsse.json or FILE.sigstore.json].
    #[arg(long, short, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the output file when it exists.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// Commands on keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    List(Box<KeysListArgs>),
    Attest(Box<KeysAttestArgs>),
    Generate(KeysGenerateArgs),
    Csr(KeysCsrArgs),
    ImportCert(KeysImportCertArgs),
    Export(KeysExportArgs),
    Rotate(KeysRotateArgs),
    Retire(KeysRetireArgs),
    Delete(KeysDeleteArgs),
}

/// List the keys that the appliance publishes for the caller's tenant: active, next and retired.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct KeysListArgs {
    /// Print the JWK set as the appliance gave it.
    #[arg(long, conflicts_with = "pem")]
    pub(crate) jwks: bool,
    /// Print each key as PEM, below a line that names it.
    #[arg(long, conflicts_with = "json")]
    pub(crate) pem: bool,
    /// Only the key with this keyid.
    #[arg(long, value_name = "KEYID")]
    pub(crate) keyid: Option<String>,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// Commands on the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    Check(ConfigCheckArgs),
    Reload(ConfigReloadArgs),
}

/// Read and validate the configuration as the appliance would, without starting anything.
///
/// Each problem is printed with file, line, column and key. Files that the configuration names are looked at as far
/// as you may see them: there, what they should be, and not open to strangers.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct ConfigCheckArgs {
    /// The configuration file; the drop-ins in FILE.d belong to it.
    #[arg(long, value_name = "FILE", env = "SIGNER_CONFIG", default_value = DEFAULT_CONFIG)]
    pub(crate) config: PathBuf,
    /// Judge the configuration alone, not the files that it names: for another machine than the appliance.
    #[arg(long)]
    pub(crate) no_files: bool,
}

/// Have signerd read its configuration anew, and wait for the verdict.
///
/// The new configuration is taken into force as a whole or not at all: when something is wrong with it, or it would take
/// away what works, each problem is printed with file, line and key, and the old one stays in force. By the Unix socket
/// only, as root or the user of signerd. `systemctl reload signerd` runs this.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct ConfigReloadArgs {
    /// The local listener, as `unix:/path` [default: what the configuration says].
    #[arg(long, value_name = "ADDRESS", env = "SIGNER_LOCAL")]
    pub(crate) local: Option<String>,
    /// Where the configuration is, for want of --local.
    #[arg(long, value_name = "FILE", env = "SIGNER_CONFIG", default_value = DEFAULT_CONFIG)]
    pub(crate) config: PathBuf,
}

/// Show whether the appliance on this machine lives, is ready, and what it waits for.
///
/// Reads the local listener. Exit code 0 says that it is ready to sign.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct StatusArgs {
    /// The local listener: `unix:/path`, or a loopback address such as `127.0.0.1:9464`
    /// [default: what the configuration says].
    #[arg(long, value_name = "ADDRESS", env = "SIGNER_LOCAL")]
    pub(crate) local: Option<String>,
    /// Where the configuration is, for want of --local.
    #[arg(long, value_name = "FILE", env = "SIGNER_CONFIG", default_value = DEFAULT_CONFIG)]
    pub(crate) config: PathBuf,
}

/// List the kinds of devices that this program knows: what `profile` in the configuration may say.
///
/// Says of each whether it was run by this project or written from documents, how many sessions the worker opens where
/// the configuration says nothing, and where on this machine its module is.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct ProfilesArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ProfilesCommand>,
}

/// Commands on one device profile.
#[derive(Debug, Subcommand)]
pub(crate) enum ProfilesCommand {
    Show(ProfileShowArgs),
}

/// Show one profile: its values with their reasons and sources, the operator's page, the systemd drop-in.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct ProfileShowArgs {
    /// The profile.
    pub(crate) name: String,
    /// Print the systemd drop-in alone, to be installed as it is.
    #[arg(long, conflicts_with = "json")]
    pub(crate) drop_in: bool,
}

/// Check whether a device does what the appliance relies on.
///
/// Logs in with the right PIN, signs on several sessions at once and verifies each signature, closes and reopens
/// sessions, logs out and in. A wrong PIN is never presented: one that is refused ends the run after one attempt.
/// The module is loaded by `signer-token`, never by this program. Exit code 0 says that the device is conformant.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct ConformanceArgs {
    #[command(flatten)]
    pub(crate) run: conformance::Arguments,
    /// How long one check may take before the device is taken to hang.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) patience: u64,
}

/// `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    pub(crate) shell: clap_complete::Shell,
}

/// `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The directory; made when it does not exist.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

fn type_help() -> String {
    format!("Predicate type: the type as the catalog has it, or its short name: {}", request::short_names())
}

/// The exit codes, for `--help` and the man pages.
pub(crate) const EXIT_STATUS: &str = "\
Exit status:
  0  done, verified, or ready
  1  not verified, not ready, not confirmed, a problem found, or an answer that is not what was asked for
  2  the command line is wrong or incomplete
  3  refused by the appliance or the Authority (4xx, client certificate), or by the token
  4  unavailable: 429, 5xx, network, TLS or device failure; a later attempt may succeed
  5  the configuration or the client profile is invalid
  6  a local file cannot be read or written, or does not hold what it should";

pub(crate) const DEFAULT_CONFIG: &str = "/etc/stellaops-signer/signer.toml";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Words of a shell line: quotes hold together, a comment or a redirection ends it.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quoted = false;
        for c in line.chars() {
            match c {
                '"' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                c => words.last_mut().unwrap().push(c),
            }
        }
        words.into_iter().filter(|word| !word.is_empty()).take_while(|word| word != "#" && word != ">").collect()
    }

    #[test]
    fn every_command_of_the_documents_is_one() {
        let mut commands = 0;
        let pages = [
            include_str!("../../docs/keys.md"),
            include_str!("../../docs/cli.md"),
            include_str!("../../docs/verify.md"),
            include_str!("../../docs/release.md"),
            include_str!("../../docs/install.md"),
            include_str!("../../docs/operations.md"),
        ];
        for page in pages {
            let page = page.replace("\\\n", " ");
            for line in page.lines().filter_map(|line| line.strip_prefix("    ")) {
                let Some(at) = line.find("signerctl ").filter(|at| *at == 0 || line.starts_with("sudo ")) else {
                    continue;
                };
                // What stands for a value in the text is none.
                let line = line[at..].replace("sha256:<hex>", "sha256:00").replace("SHA256:…", "SHA256:x");
                let parsed = Cli::try_parse_from(words(&line));
                assert!(parsed.is_ok(), "`{line}`: {}", parsed.unwrap_err());
                commands += 1;
            }
        }
        assert!(commands > 15, "only {commands} commands were found");
    }
}
