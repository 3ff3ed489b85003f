//! What the service manager is told (`sd_notify(3)`). Without a service manager these do nothing.

use sd_notify::NotifyState;

use crate::custody::token::TokenFacts;
use crate::custody::wire::{WorkerState, fit};

/// The token can sign.
pub(super) fn ready(facts: &TokenFacts) {
    tell(&[NotifyState::Ready, NotifyState::Status(&fit(&format!("ready: token {facts}")))]);
}

/// The token cannot sign. A refused PIN is told as readiness: were the start to time out, the service manager would
/// start the worker again, and it would present the same PIN again.
pub(super) fn trouble(state: WorkerState, detail: &str) {
    let text = fit(detail);
    match state {
        WorkerState::PinRefused => tell(&[NotifyState::Ready, NotifyState::Status(&text)]),
        _ => tell(&[NotifyState::Status(&text)]),
    }
}

pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("finishing what is in flight")]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be notified");
    }
}
