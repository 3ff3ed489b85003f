//! Does this device do what the worker relies on? The same checks for every device, on the code that the worker uses.
//!
//! [`run`] drives a device and tells each [`Finding`] as soon as it is known. It runs in `signer-token conformance`,
//! a process of its own, because only that program loads vendors' modules; `signerctl token conformance` starts it and
//! reads its lines. A wrong PIN is never presented: one that is refused ends the run after one attempt.

#![forbid(unsafe_code)]

mod checks;
mod cli;
mod figures;
mod known_pin;
mod report;
mod signatures;
mod steps;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use cli::{Arguments, main};
pub use figures::Figures;
pub use known_pin::KnownPin;
pub use report::{Device, Finding, Line, Outcome, Verdict};

use std::num::NonZeroU32;
use std::time::Duration;

use super::token::Lab;
use super::uri::KeyUri;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Sessions to hold open at once.
    pub sessions: NonZeroU32,
    /// Digests to have signed and verified, over all sessions.
    pub signatures: u32,
    /// How long to measure the throughput.
    pub measure: Duration,
    /// Which key.
    pub key: Key,
}

/// The key to sign with.
#[derive(Clone, Debug)]
pub enum Key {
    /// One that is there and stays there.
    Existing(KeyUri),
    /// One that is made for the run, with the safe template, and removed after it.
    Generate {
        /// Its label.
        label: String,
        /// Its id.
        id: Vec<u8>,
    },
}

/// Runs every check that the ones before it allow. Returns the verdict, which is also told as the last line.
pub fn run(device: &dyn Lab, pin: &mut KnownPin, plan: &Plan, tell: &mut dyn FnMut(Line)) -> Verdict {
    let mut run = steps::Run::new(device, pin, plan, tell);
    run.all();
    run.verdict()
}
