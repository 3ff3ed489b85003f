//! Everything `signerctl token doctor` wants to know of the module, the token and the keys, in one go.

use super::message::{Failure, Message, Probe, ProbedKey, Step};
use super::pins::{Chosen, log_in};
use crate::custody::presenting::Memories;
use crate::custody::token::admin::{AdminSession, TokenAdmin};
use crate::custody::uri::{KeyUri, TokenUri};

/// Goes as far as it gets. `pin` was fetched before the module was loaded; `None`: no login is wanted.
pub(super) fn run(
    admin: &dyn TokenAdmin,
    token: &TokenUri,
    keys: &[KeyUri],
    pin: Option<Result<(Chosen, &mut Memories), Failure>>,
    account: &str,
) -> Probe {
    Message::Step { step: Step::Look }.say();
    let mut probe = Probe::default();
    let session = match admin.open(token) {
        Ok(session) => session,
        Err(error) => {
            probe.token_failure = Some(error.into());
            return probe;
        }
    };
    probe.token = Some(session.slot().clone());
    if let Some(pin) = pin {
        Message::Step { step: Step::Login }.say();
        let login = pin.and_then(|(chosen, memories)| log_in(&*session, &chosen, memories, account));
        probe.logged_in = login.is_ok();
        probe.login_failure = login.err();
    }
    Message::Step { step: Step::Work }.say();
    probe.concerns = session.concerns();
    probe.keys = keys.iter().map(|uri| key(&*session, uri, probe.logged_in)).collect();
    probe
}

fn key(session: &dyn AdminSession, uri: &KeyUri, logged_in: bool) -> ProbedKey {
    let mut probed = ProbedKey { uri: uri.to_string(), ..ProbedKey::default() };
    if logged_in {
        match session.key(uri) {
            Ok(facts) => {
                probed.public_key = Some(facts.public_key.clone());
                probed.facts = Some(facts);
            }
            Err(error) => probed.failure = Some(error.into()),
        }
    } else {
        match session.public_key(uri) {
            Ok(public_key) => probed.public_key = public_key.map(|key| key.to_pem()),
            Err(error) => probed.failure = Some(error.into()),
        }
    }
    probed
}
