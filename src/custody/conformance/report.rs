//! What a conformance run says: JSON lines, one object each, told apart by their one member.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use super::Figures;
use crate::custody::token::TokenFacts;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Line {
    /// This check begins. When nothing follows, it is the one that hangs.
    Begin(String),
    /// What a check found.
    Finding(Finding),
    /// The last line.
    Verdict(Verdict),
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Its name.
    pub check: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What was seen.
    pub detail: String,
    /// What that means for the operator, and what mends it; empty after a pass.
    pub meaning: String,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As the worker needs it.
    Pass,
    /// It works, and the operator must decide something.
    Note,
    /// The device is not conformant.
    Fail,
    /// Not run, because of an earlier one or of what was asked for.
    Skip,
}

/// The whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// No check failed, and the signing checks ran.
    pub conformant: bool,
    /// The token, where one was found.
    pub device: Option<Device>,
    /// Speed, where it was measured.
    pub figures: Option<Figures>,
}

/// What the token says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Given at initialisation.
    pub label: String,
    /// Of the device.
    pub serial: String,
    /// Who made it.
    pub manufacturer: String,
    /// What it is.
    pub model: String,
    /// Version of its firmware.
    pub firmware: String,
}

impl From<&TokenFacts> for Device {
    fn from(facts: &TokenFacts) -> Self {
        Self {
            label: facts.label.clone(),
            serial: facts.serial.clone(),
            manufacturer: facts.manufacturer.clone(),
            model: facts.model.clone(),
            firmware: facts.firmware.clone(),
        }
    }
}
