//! What the child says to `signerctl`: JSON, one message a line.

use std::fmt;
use std::io::Write as _;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::custody::token::admin::{AdminError, Concern, KeyFacts, Slot};
use crate::custody::token::explain;
use crate::custody::token::pkcs11::ModuleError;
use crate::custody::token::yubihsm::YubiHsmError;

/// One line. A vendor's module may print on standard output, too: what is none of these is not ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "signerTokenAdmin", rename_all = "camelCase")]
pub enum Message {
    /// What comes next. When nothing follows, the module crashed or hung in it.
    Step {
        /// It.
        step: Step,
    },
    /// The last line of a command that did its work.
    Done {
        /// What it found or made.
        result: Value,
    },
    /// The last line of a command that did not.
    Failed {
        /// Why.
        failure: Failure,
    },
}

/// What the module is about to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// `dlopen` and `C_Initialize`.
    Load,
    /// Slots and tokens.
    Look,
    /// `C_Login`.
    Login,
    /// Objects and signatures.
    Work,
    /// `C_InitToken`.
    Initialise,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// A stable word, one of [`AdminError::code`] or `module_load`, `module_initialise`, `config`, `pin`, `input`.
    pub code: String,
    /// In words.
    pub message: String,
    /// What would help, where the message does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// The answer of `csr`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Csr {
    /// PKCS#10, PEM.
    pub csr: String,
    /// The key that signed it.
    pub key: KeyFacts,
}

/// The answer of `probe`: as far as it came.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// The token that the URI names.
    pub token: Option<Slot>,
    /// Why there is none.
    pub token_failure: Option<Failure>,
    /// Was the PIN presented and taken?
    pub logged_in: bool,
    /// Why it was not.
    pub login_failure: Option<Failure>,
    /// The keys that were asked for, in that order.
    pub keys: Vec<ProbedKey>,
    /// What there is to say of this kind of device alone.
    #[serde(default)]
    pub concerns: Vec<Concern>,
}

/// One key of a [`Probe`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbedKey {
    /// Its URI, as it was asked for.
    pub uri: String,
    /// The public half, PEM, from the public key object or with the private key.
    pub public_key: Option<String>,
    /// The private key; only after login.
    pub facts: Option<KeyFacts>,
    /// Why it was not found.
    pub failure: Option<Failure>,
}

impl Message {
    /// The message in a line, or `None` when it is not ours.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    /// Writes it, whole and at once: the module may end the process at the next call.
    pub(super) fn say(&self) {
        if let Ok(line) = serde_json::to_string(self) {
            let mut out = std::io::stdout().lock();
            // Nobody is left to hear that standard output is gone.
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
    }
}

impl Failure {
    /// # Errors
    /// When a message's result is not what the command answers.
    pub fn result<T: DeserializeOwned>(value: Value) -> Result<T, Self> {
        serde_json::from_value(value).map_err(|error| {
            Self::new("protocol", format!("signer-token and signerctl are of different versions: {error}"))
        })
    }

    /// One without a remedy.
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), remedy: None }
    }

    pub(crate) fn with_remedy(mut self, remedy: &str) -> Self {
        self.remedy = Some(remedy.to_owned());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        Self { code: error.code().to_owned(), message: explain(&error), remedy: error.remedy().map(str::to_owned) }
    }
}

impl From<ModuleError> for Failure {
    fn from(error: ModuleError) -> Self {
        Self::new("module_load", explain(&error))
    }
}

impl From<YubiHsmError> for Failure {
    fn from(error: YubiHsmError) -> Self {
        Self::new("input", explain(&error))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_its_line_and_a_vendors_chatter_is_none() {
        let failure = Failure::new("pin", "no PIN\nhere").with_remedy("type it");
        for message in [
            Message::Step { step: Step::Load },
            Message::Done { result: serde_json::json!({ "slots": [] }) },
            Message::Failed { failure },
        ] {
            let line = serde_json::to_string(&message).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(Message::read(&line), Some(message));
        }
        for chatter in ["", "libacs: 3 HSMs", "{}", "[1]", "{\"signerTokenAdmin\":\"other\"}"] {
            assert_eq!(Message::read(chatter), None, "{chatter}");
        }
    }
}
