//! The command line of `signerctl token`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::ctl::cli::{ConformanceArgs, DEFAULT_CONFIG, EXIT_STATUS, ProfilesArgs};
use crate::ctl::drain::TokenDrainArgs;

/// Commands on tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    List(TokenListArgs),
    Init(TokenInitArgs),
    Doctor(TokenDoctorArgs),
    /// Take a token off: it gets no more requests; what is under way in it is finished.
    ///
    /// Keys that another token holds as well go on signing there. The decision outlasts a restart of signerd. Needs the
    /// appliance's local listener on a Unix socket, and root or the user of signerd.
    Drain(TokenDrainArgs),
    /// Take a drained token back.
    Undrain(TokenDrainArgs),
    Profiles(ProfilesArgs),
    Conformance(Box<ConformanceArgs>),
}

/// How a token is reached: by a `signer-token admin` that this program starts.
#[derive(Debug, Args)]
pub(crate) struct Reach {
    /// The configuration file; the drop-ins in FILE.d belong to it.
    #[arg(long, value_name = "FILE", env = "SIGNER_CONFIG", default_value = DEFAULT_CONFIG)]
    pub(crate) config: PathBuf,
    /// Of a YubiHSM: the authentication key to act as, whose password --pin-file holds [default: the configured one].
    #[arg(long, value_name = "ID", value_parser = crate::custody::admin::object_id)]
    pub(crate) auth_key: Option<u16>,
    /// File with the user PIN, mode 0400 [default: the configured one; else the PIN is asked for].
    #[arg(long, value_name = "FILE")]
    pub(crate) pin_file: Option<PathBuf>,
    /// The program that loads the vendor's module [default: the one beside signerctl].
    #[arg(long, value_name = "PATH")]
    pub(crate) signer_token: Option<PathBuf>,
}

/// List the slots and tokens that a module shows, with their flags in words.
///
/// Run it as a user who may use the device, such as the worker's. No PIN is needed, except with --objects --login.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct TokenListArgs {
    /// The token in the configuration whose module is asked.
    #[arg(required_unless_present = "module")]
    pub(crate) name: Option<String>,
    /// A PKCS#11 module, where there is no configuration yet.
    #[arg(long, value_name = "PATH", conflicts_with = "name")]
    pub(crate) module: Option<PathBuf>,
    /// List the keys and certificates on the token, not the tokens.
    #[arg(long, requires = "name")]
    pub(crate) objects: bool,
    /// Log in before the objects are listed: private keys are invisible otherwise.
    #[arg(long, requires = "objects")]
    pub(crate) login: bool,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// Initialise an empty token: label, security officer's PIN, user PIN.
///
/// A YubiHSM that is as it left the factory gets an authentication key for the worker (`auth_key`, which may sign and
/// nothing else), one for an administrator (--auth-key, 3 if not given), its log switched on, and loses the factory's key.
///
/// Destroys what is on the token, so it asks by having the label typed, and refuses a token that is initialised
/// already unless --reinitialise is given. PINs come from files of mode 0400 or are asked for on the terminal. Run it
/// as the worker's user where the token is a directory (SoftHSM2): what it creates belongs to who runs it.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct TokenInitArgs {
    /// The token in the configuration; its `uri` gives the label, its `pin_file` the user PIN.
    #[arg(required_unless_present = "module")]
    pub(crate) name: Option<String>,
    /// A PKCS#11 module, where there is no configuration yet; with --label.
    #[arg(long, value_name = "PATH", conflicts_with = "name", requires = "label")]
    pub(crate) module: Option<PathBuf>,
    /// The token's label, at most 32 bytes [default: the `token` of the configured URI].
    #[arg(long)]
    pub(crate) label: Option<String>,
    /// File with the security officer's PIN, mode 0400 [default: it is asked for].
    #[arg(long, value_name = "FILE")]
    pub(crate) so_pin_file: Option<PathBuf>,
    /// The slot [default: the first one with an empty token].
    #[arg(long, value_name = "ID")]
    pub(crate) slot: Option<u64>,
    /// Destroy an initialised token with every key on it.
    #[arg(long)]
    pub(crate) reinitialise: bool,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// Say what keeps a token from signing, and which line of which file mends it.
///
/// Looks in this order: users, module file, PIN file, socket, then in a process of its own at the module, the token,
/// its flags and limits, and each configured key; last at the running worker. The PIN is not tried unless --login is
/// given; without it private keys, and so their attributes, stay invisible. Exit code 0: nothing is wrong; 1: a
/// problem was found; 5: the configuration itself is invalid.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct TokenDoctorArgs {
    /// The token in the configuration.
    pub(crate) name: String,
    /// Log in, once, and look at the private keys.
    #[arg(long)]
    pub(crate) login: bool,
    /// Look at module and token from inside the worker's unit, with its environment and its sandbox, and say which directive of
    /// it stands in the way, if one does. As root, where systemd runs; takes up to a minute then.
    #[arg(long)]
    pub(crate) in_unit: bool,
    /// Longest wait for one answer of the module.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub(crate) patience: crate::config::Span,
    #[command(flatten)]
    pub(crate) reach: Reach,
}
