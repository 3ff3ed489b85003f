//! What is known of each kind of device: `hsm-profiles/NAME/profile.toml`, built into the programs.
//!
//! A profile gives a token's worker its defaults; what the configuration says wins over it. Every value carries its
//! reason and where it comes from, and a test holds that. The folder of a profile also has the systemd drop-in that
//! the device's module needs and a page for the operator.

#![forbid(unsafe_code)]

use std::fmt;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize, de};

use super::token::Remedy;
use super::token::pkcs11::Quirks;
use crate::config::Span;

/// The profile called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Profile> {
    all().iter().find(|profile| profile.name == name)
}

/// The names of all profiles, in alphabetical order.
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    all().iter().map(|profile| profile.name.as_str())
}

/// All profiles, in alphabetical order of their names.
#[must_use]
pub fn all() -> &'static [Profile] {
    static ALL: LazyLock<Vec<Profile>> = LazyLock::new(|| {
        let read = |file: &File| toml::from_str(file.profile).expect("a test reads every embedded profile");
        FILES.iter().map(read).collect()
    });
    &ALL
}

/// One kind of device, or one module that leads to it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What the configuration calls it: `profile = "…"`. Its folder has the same name.
    pub name: String,
    /// What people call it.
    pub title: String,
    /// How the worker speaks to it.
    pub backend: Backend,
    /// Was it run here, or is this from documents?
    pub evidence: Evidence,
    /// What exactly was run, or which documents were read.
    pub basis: String,
    /// Where distributions and vendors put the module; the first one that is there. Empty for a device that needs none.
    #[serde(default, rename = "module")]
    pub modules: Vec<ModulePath>,
    /// Sessions that the worker holds open, where the configuration says nothing.
    pub sessions: Stated<NonZeroU32>,
    /// Sessions that the device or its module has; an explicit number above it is refused.
    pub max_sessions: Option<Stated<NonZeroU32>>,
    /// Whether `C_OpenSession` fails without `CKF_RW_SESSION`; absent: no.
    pub read_write_sessions: Option<Stated<bool>>,
    /// How long one call into the module may take, where the configuration says nothing.
    pub call_timeout: Stated<Span>,
    /// How long the login may take, where the configuration says nothing and it is another time than `call_timeout`.
    pub login_timeout: Option<Stated<Span>>,
    /// How often an idle session is used so that nothing between here and the device forgets it. Absent: never.
    pub keep_alive: Option<Stated<Span>>,
    /// How the device takes the PIN.
    pub login: Login,
    /// Return codes that mean more, or something else, on this device than in the standard.
    #[serde(default, rename = "retry_code")]
    pub retry_codes: Vec<RetryCode>,
    /// What else differs from the standard.
    #[serde(default, rename = "quirk")]
    pub quirks: Vec<Quirk>,
}

/// How the worker speaks to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Through the vendor's PKCS#11 module.
    Pkcs11,
    /// Through the YubiHSM connector's protocol, without a module.
    Yubihsm,
}

/// What a profile rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The project's own tests run on it.
    RunHere,
    /// The project's own tests run on a simulation of it, never on the device.
    Simulated,
    /// Nobody here had one.
    Documents,
}

/// A value, why it is that, and who says so.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stated<T> {
    /// The value.
    pub value: T,
    /// What goes wrong with another one.
    pub reason: String,
    /// Who says so.
    pub source: Source,
}

/// Where a module may be.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModulePath {
    /// Its absolute path.
    pub path: PathBuf,
    /// Distributions or packages that put it there.
    pub on: String,
    /// Who says so.
    pub source: Source,
}

/// How a device takes the PIN.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// What the PIN file must hold.
    pub pin: Stated<String>,
    /// Wrong PINs until nobody gets in; absent where the device never locks or nobody says.
    pub locks_after: Option<Stated<NonZeroU32>>,
    /// Whether `CKF_USER_PIN_COUNT_LOW`, `FINAL_TRY` and `LOCKED` can be trusted to be there before the lock-out.
    pub warns: Stated<bool>,
}

/// What a return code means on this device.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryCode {
    /// Its name in PKCS#11, `CKR_…`, or the vendor's name for it.
    pub code: String,
    /// Its number.
    pub number: u64,
    /// What it takes to go on.
    pub remedy: Recovery,
    /// Why the standard's meaning is not enough.
    pub reason: String,
    /// Who says so.
    pub source: Source,
}

/// [`Remedy`], as profiles write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Recovery {
    /// The session is as good as before.
    None,
    /// A new session.
    NewSession,
    /// A new session and a new login.
    NewLogin,
    /// Finalize and initialize.
    Reinitialize,
}

/// A difference from the standard that an operator or this program must know.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quirk {
    /// What it is about.
    pub about: About,
    /// What differs.
    pub what: String,
    /// What follows from it here.
    pub consequence: String,
    /// Who says so.
    pub source: Source,
}

/// What a quirk is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum About {
    /// Attributes of keys.
    Attribute,
    /// Mechanisms and signatures.
    Mechanism,
    /// Sessions, threads and processes.
    Session,
    /// Slots, labels and serial numbers.
    Slot,
    /// The machine around it: files, daemons, network.
    Host,
}

/// Who says that a value is so. Written as `KIND: WHERE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `doc: …`: the vendor's document, by title or address.
    Document(String),
    /// `code: …`: a repository and the file in it.
    Code(String),
    /// `issue: …`: a repository and the thread in it.
    Issue(String),
    /// `run: …`: seen in a test of this project, and which.
    Run(String),
    /// `unverified: …`: nobody; chosen with care, and why.
    Unverified(String),
}

/// What a worker goes by after configuration and profile have been put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Sessions held open.
    pub sessions: NonZeroU32,
    /// Longest time of one call into the module.
    pub call_timeout: Span,
    /// Longest time of a login; `None`: as any other call.
    pub login_timeout: Option<Span>,
    /// How often an idle session is used; `None`: never.
    pub keep_alive: Option<Span>,
}

impl Defaults {
    /// Those of a device that nobody named.
    pub const UNNAMED: Self =
        Self { sessions: FOUR, call_timeout: Span::seconds(10), login_timeout: None, keep_alive: None };

    /// Those of `profile`; without one, [`Self::UNNAMED`].
    #[must_use]
    pub fn of(profile: Option<&Profile>) -> Self {
        profile.map_or(Self::UNNAMED, |profile| Self {
            sessions: profile.sessions.value,
            call_timeout: profile.call_timeout.value,
            login_timeout: profile.login_timeout.as_ref().map(|stated| stated.value),
            keep_alive: profile.keep_alive.as_ref().map(|stated| stated.value),
        })
    }
}

impl Profile {
    /// What the PKCS#11 layer must do differently: for [`set_quirks`](super::token::pkcs11::set_quirks).
    #[must_use]
    pub fn module_quirks(&self) -> Quirks {
        Quirks {
            remedies: self.retry_codes.iter().map(|code| (code.number, code.remedy.into())).collect(),
            read_write_sessions: self.read_write_sessions.as_ref().is_some_and(|stated| stated.value),
        }
    }

    /// The first module path that is a file of the system below `root`: of this machine below `/`.
    #[must_use]
    pub fn installed_module(&self, root: &Path) -> Option<&ModulePath> {
        let below = |module: &ModulePath| root.join(module.path.strip_prefix("/").unwrap_or(&module.path));
        // The target of an image's link is the image's, and cannot be followed from here.
        let linked = |path: &Path| root != Path::new("/") && path.is_symlink();
        self.modules.iter().find(|module| {
            let path = below(module);
            path.is_file() || linked(&path)
        })
    }

    /// What the operator must know: the profile's `README.md`.
    #[must_use]
    pub fn manual(&self) -> &'static str {
        self.file().map_or("", |file| file.manual)
    }

    /// The systemd drop-in that the device needs: `signer-token.conf`.
    #[must_use]
    pub fn drop_in(&self) -> &'static str {
        self.file().map_or("", |file| file.drop_in)
    }

    fn file(&self) -> Option<&'static File> {
        FILES.iter().find(|file| file.name == self.name)
    }
}

impl Evidence {
    /// In words.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::RunHere => "run here",
            Self::Simulated => "run here on a simulation",
            Self::Documents => "from documents",
        }
    }
}

impl From<Recovery> for Remedy {
    fn from(recovery: Recovery) -> Self {
        match recovery {
            Recovery::None => Self::None,
            Recovery::NewSession => Self::NewSession,
            Recovery::NewLogin => Self::NewLogin,
            Recovery::Reinitialize => Self::Reinitialize,
        }
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no source; write `doc: …`, `code: …`, `issue: …`, `run: …` or `unverified: …`, and where"
            )
        };
        let (kind, place) = text.split_once(": ").ok_or_else(wrong)?;
        let kind = match kind {
            "doc" => Self::Document,
            "code" => Self::Code,
            "issue" => Self::Issue,
            "run" => Self::Run,
            "unverified" => Self::Unverified,
            _ => return Err(wrong()),
        };
        if place.trim().is_empty() { Err(wrong()) } else { Ok(kind(place.to_owned())) }
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document(place) => write!(f, "doc: {place}"),
            Self::Code(place) => write!(f, "code: {place}"),
            Self::Issue(place) => write!(f, "issue: {place}"),
            Self::Run(place) => write!(f, "run: {place}"),
            Self::Unverified(why) => write!(f, "unverified: {why}"),
        }
    }
}

/// A profile's folder.
struct File {
    name: &'static str,
    profile: &'static str,
    drop_in: &'static str,
    manual: &'static str,
}

macro_rules! folders {
    ($($name:literal),+ $(,)?) => {
        &[$(File {
            name: $name,
            profile: include_str!(concat!("../../hsm-profiles/", $name, "/profile.toml")),
            drop_in: include_str!(concat!("../../hsm-profiles/", $name, "/signer-token.conf")),
            manual: include_str!(concat!("../../hsm-profiles/", $name, "/README.md")),
        }),+]
    };
}

const FILES: &[File] = folders![
    "aws-cloudhsm",
    "entrust-nshield",
    "kryoptic",
    "nitrokey-nethsm",
    "opensc",
    "softhsm2",
    "thales-luna",
    "tpm2-pkcs11",
    "utimaco",
    "yubihsm2",
    "yubihsm2-pkcs11",
];

const FOUR: NonZeroU32 = NonZeroU32::new(4).expect("a literal above zero");

#[cfg(test)]
mod tests;
