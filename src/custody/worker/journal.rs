//! What the service manager is told of the token.

use crate::custody::token::TokenFacts;
use crate::custody::wire::{WorkerState, fit};
use crate::telemetry::manager;

/// The token can sign.
pub(super) fn ready(facts: &TokenFacts) {
    manager::ready(&fit(&format!("signing: token {facts}")));
}

/// The token cannot sign, and the worker goes on trying or waits for an operator: its start is over all the same. Were it
/// to time out, the service manager would kill the worker, perhaps in the middle of a login, and a boot would wait for a
/// token that is away.
pub(super) fn trouble(state: WorkerState, detail: &str) {
    manager::ready(&fit(&format!("not signing ({}): {detail}", state.name())));
}
