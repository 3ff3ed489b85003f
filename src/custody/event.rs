//! What an auditor must hear of tokens and keys, on its way to the audit log.

#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::health::KeyHealth;
use super::{GateAttribute, KeyAttributes};
use crate::audit::{Detail, Record};

/// Something that belongs into the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CustodyEvent {
    /// The configuration lets pass what the custody gate would refuse. Told at every start.
    Exception {
        /// The key's name.
        key: Arc<str>,
        /// What is let pass.
        attribute: GateAttribute,
        /// The operator's reason.
        reason: Arc<str>,
    },
    /// A key in a token is in another state than before.
    KeyState {
        /// The key's name.
        key: Arc<str>,
        /// The token.
        token: Arc<str>,
        /// The new state.
        state: KeyHealth,
        /// Why; each failing attribute is named. Empty for `live`.
        detail: String,
        /// Changes since the last record that have none of their own, because there were too many.
        untold: u64,
    },
    /// A device describes a key otherwise than when it was last asked.
    AttributesChanged {
        /// The key's name.
        key: Arc<str>,
        /// The token.
        token: Arc<str>,
        /// As they were.
        before: KeyAttributes,
        /// As they are.
        now: KeyAttributes,
        /// Changes in between that have no record of their own, because there were too many.
        untold: u64,
    },
    /// A token is in another state than before.
    TokenState {
        /// The token.
        token: Arc<str>,
        /// The new state; see [`super::TokenStatus::state`].
        state: &'static str,
        /// Why.
        detail: String,
        /// Changes since the last record that have none of their own, because there were too many.
        untold: u64,
    },
}

impl CustodyEvent {
    /// Gives `enter` the record.
    pub fn as_record<T>(&self, enter: impl FnOnce(&Record<'_>) -> T) -> T {
        match self {
            Self::Exception { key, attribute, reason } => enter(&Record::Event {
                event: "custody_exception",
                details: &[
                    ("key", Detail::Text(key)),
                    ("attribute", Detail::Text(attribute.name())),
                    ("reason", Detail::Text(reason)),
                ],
            }),
            Self::KeyState { key, token, state, detail, untold } => {
                let details = [
                    ("key", Detail::Text(key)),
                    ("token", Detail::Text(token)),
                    ("state", Detail::Text(state.name())),
                    ("detail", Detail::Text(detail)),
                ];
                enter(&Record::Event { event: "key_state", details: &with_untold(details, *untold) })
            }
            Self::AttributesChanged { key, token, before, now, untold } => {
                let (before, now) = (spelled(before), spelled(now));
                let details = [
                    ("key", Detail::Text(key)),
                    ("token", Detail::Text(token)),
                    ("before", Detail::Text(&before)),
                    ("now", Detail::Text(&now)),
                ];
                enter(&Record::Event { event: "key_attributes_changed", details: &with_untold(details, *untold) })
            }
            Self::TokenState { token, state, detail, untold } => {
                let details =
                    [("token", Detail::Text(token)), ("state", Detail::Text(state)), ("detail", Detail::Text(detail))];
                enter(&Record::Event { event: "token_state", details: &with_untold(details, *untold) })
            }
        }
    }
}

/// `untold` only where there is something untold.
fn with_untold<'a, const N: usize>(
    details: [(&'static str, Detail<'a>); N],
    untold: u64,
) -> Vec<(&'static str, Detail<'a>)> {
    let untold = (untold > 0).then_some(("untold", Detail::Number(untold)));
    details.into_iter().chain(untold).collect()
}

/// All attributes with their values, so that two lines can be compared by eye.
fn spelled(attributes: &KeyAttributes) -> String {
    let KeyAttributes {
        sensitive,
        extractable,
        always_sensitive,
        never_extractable,
        local,
        private,
        sign,
        unwrap,
        always_authenticate,
        wrap,
    } = *attributes;
    let all = [
        ("CKA_PRIVATE", private),
        ("CKA_SENSITIVE", sensitive),
        ("CKA_ALWAYS_SENSITIVE", always_sensitive),
        ("CKA_EXTRACTABLE", extractable),
        ("CKA_NEVER_EXTRACTABLE", never_extractable),
        ("CKA_LOCAL", local),
        ("CKA_SIGN", sign),
        ("CKA_WRAP", wrap),
        ("CKA_UNWRAP", unwrap),
        ("CKA_ALWAYS_AUTHENTICATE", always_authenticate),
    ];
    all.map(|(name, set)| format!("{name}={set}")).join(" ")
}

/// Where events wait for whoever writes them down.
#[derive(Debug)]
pub(super) struct Events {
    sender: mpsc::UnboundedSender<CustodyEvent>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<CustodyEvent>>>,
}

impl Events {
    pub(super) fn new() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { sender, receiver: Mutex::new(Some(receiver)) }
    }

    /// Changes of state only, of each key in each token so many an hour ([`super::told`]): the queue needs no bound.
    pub(super) fn tell(&self, event: CustodyEvent) {
        // Nobody listens while the front stops; the log has its `stopped` then.
        let _ = self.sender.send(event);
    }

    /// The receiving end; `None` when it was taken before.
    pub(super) fn take(&self) -> Option<mpsc::UnboundedReceiver<CustodyEvent>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
