//! What the doctor wants to know of a YubiHSM beyond what it asks of every token.

#![forbid(unsafe_code)]

use super::super::auth_session::AuthSession;
use super::super::frame::Command;
use super::super::objects::{
    self, COMMAND_AUDIT, EXPORTABLE_UNDER_WRAP, FACTORY_KEY, FORCE_AUDIT, GET_LOG_ENTRIES, GET_OPAQUE,
    SIGN_ATTESTATION, SIGN_ECDSA, WORKER, kind,
};
use super::{Reach, setup, shown};
use crate::custody::token::admin::{Concern, ConcernKind};
use crate::custody::token::explain;

/// Without a session: whether anybody may do anything. With one: whether the worker's authentication key may do what it
/// must, and nothing else.
pub(super) fn of(reach: &Reach, session: Option<&mut AuthSession>) -> Vec<Concern> {
    let mut concerns = vec![factory_key(reach)];
    if let Some(session) = session {
        concerns.push(worker_key(session, reach.worker_key));
        concerns.push(audit(session));
    }
    concerns
}

fn factory_key(reach: &Reach) -> Concern {
    let concern = |problem, detail: String, remedy: &str| Concern {
        kind: ConcernKind::FactoryKey,
        problem,
        detail,
        remedy: remedy.to_owned(),
    };
    match setup::factory_key_works(reach) {
        Ok(false) => concern(Some(false), format!("{} does not take the factory's password", shown(FACTORY_KEY)), ""),
        Ok(true) => concern(
            Some(true),
            format!(
                "authentication key {} is there with the factory's password, which everybody knows: whoever reaches the \
                 connector may make, use and destroy every key",
                shown(FACTORY_KEY)
            ),
            "on a device without keys of yours: signerctl token init; else make an administrator's key and delete this \
             one: yubihsm-shell -a delete-object -t authentication-key -i 1",
        ),
        Err(fault) => concern(None, format!("whether it was removed cannot be told: {}", explain(&fault)), ""),
    }
}

fn worker_key(session: &mut AuthSession, id: u16) -> Concern {
    let concern = |problem, detail: String| Concern {
        kind: ConcernKind::AuthenticationKey,
        problem,
        detail,
        remedy: "make one with sign-ecdsa, get-log-entries, sign-attestation-certificate and get-opaque, without \
                 delegated capabilities, and name it as auth_key"
            .to_owned(),
    };
    let info = match objects::info(session, id, kind::AUTHENTICATION_KEY) {
        Ok(info) => info,
        Err(error) => return concern(None, format!("{} cannot be looked at: {}", shown(id), explain(&error))),
    };
    let mut wrong = Vec::new();
    if id == FACTORY_KEY {
        wrong.push("it is the factory's".to_owned());
    }
    for (bit, name) in [
        (SIGN_ECDSA, "sign-ecdsa"),
        (GET_LOG_ENTRIES, "get-log-entries, so a full log stops it"),
        (SIGN_ATTESTATION, "sign-attestation-certificate"),
        (GET_OPAQUE, "get-opaque, so the device's certificate cannot be read"),
    ] {
        if info.capabilities & bit == 0 {
            wrong.push(format!("it lacks {name}"));
        }
    }
    let more = info.capabilities & !(WORKER | EXPORTABLE_UNDER_WRAP);
    if more != 0 {
        wrong.push(format!("it may do more than sign (capabilities {more:#014x} beyond what the worker needs)"));
    }
    if info.capabilities & EXPORTABLE_UNDER_WRAP != 0 {
        wrong.push("it may be exported under wrap".to_owned());
    }
    if info.delegated != 0 {
        wrong.push(format!("it may give capabilities to others ({:#014x})", info.delegated));
    }
    if wrong.is_empty() {
        concern(Some(false), format!("{} may sign and nothing else", shown(id)))
    } else {
        concern(Some(true), format!("{}: {}", shown(id), wrong.join("; ")))
    }
}

fn audit(session: &mut AuthSession) -> Concern {
    let concern = |problem, detail: String| Concern {
        kind: ConcernKind::Audit,
        problem,
        detail,
        remedy:
            "yubihsm-shell -a put-option --opt-name command-audit --opt-value 5601, and then --opt-name force-audit \
                 --opt-value 01"
                .to_owned(),
    };
    let mut option = |option| session.command(Command::GetOption, &[&[option]]);
    let (force, commands) = match (option(FORCE_AUDIT), option(COMMAND_AUDIT)) {
        (Ok(force), Ok(commands)) => (force, commands),
        (Err(fault), _) | (_, Err(fault)) => {
            return concern(
                None,
                format!("its options cannot be read: {}; --auth-key names one that may", explain(&fault)),
            );
        }
    };
    let logs = commands.as_chunks::<2>().0.iter().any(|&[code, value]| code == Command::SignEcdsa as u8 && value != 0);
    match (logs, force.first().is_some_and(|&value| value != 0)) {
        (true, true) => concern(Some(false), "signatures are logged, and no entry is overwritten".to_owned()),
        (false, _) => concern(Some(true), "signatures are not logged (command-audit)".to_owned()),
        (true, false) => concern(Some(true), "entries that were not taken may be overwritten (force-audit)".to_owned()),
    }
}
