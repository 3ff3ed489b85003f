//! What the log says of the licensing keys and of the revocation list.

use std::time::Duration;

use super::{EntitlementSetupError, Refreshed, RevocationListError, RevocationListStatus};
use crate::clock::UnixTime;
use crate::telemetry::alert;

/// What was logged last, so that each state is logged once.
#[derive(Debug, Default)]
pub(super) struct Journal {
    keys_error: Option<String>,
    error: Option<String>,
    age: Age,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Age {
    #[default]
    Fresh,
    EndsSoon,
    Ended,
    Disowned,
}

impl Journal {
    /// What is news of it: new keys, or why others were not taken.
    pub(super) fn note_keys(&mut self, outcome: Result<bool, EntitlementSetupError>) -> Option<Result<(), String>> {
        match outcome {
            Ok(false) => None,
            Ok(true) => {
                self.keys_error = None;
                tracing::warn!("new licensing keys are in force");
                Some(Ok(()))
            }
            Err(error) => {
                let text = error.to_string();
                if self.keys_error.as_ref() == Some(&text) {
                    return None;
                }
                tracing::error!(%error, "the licensing keys were not taken; those in force stay");
                self.keys_error = Some(text.clone());
                Some(Err(text))
            }
        }
    }

    pub(super) fn note(&mut self, outcome: &Result<Refreshed, RevocationListError>) {
        match outcome {
            Ok(Refreshed::Unchanged) => {}
            Ok(Refreshed::Replaced { sequence }) => {
                self.error = None;
                tracing::info!(sequence, "a new revocation list is in force");
            }
            Err(error) => {
                let text = error.to_string();
                if self.error.as_ref() != Some(&text) {
                    tracing::error!(%error, "the revocation list was not taken; the one in force stays");
                    self.error = Some(text);
                }
            }
        }
    }

    pub(super) fn note_age(&mut self, status: RevocationListStatus, now: UnixTime) {
        let age = if status.disowned {
            Age::Disowned
        } else if now >= status.fresh_until {
            Age::Ended
        } else if now.plus(LIST_WARNING) >= status.fresh_until {
            Age::EndsSoon
        } else {
            Age::Fresh
        };
        if std::mem::replace(&mut self.age, age) != age {
            let sequence = status.sequence;
            match age {
                Age::Fresh => {}
                Age::EndsSoon => tracing::warn!(sequence, "the revocation list will be too old within a day"),
                Age::Disowned => tracing::error!(
                    sequence,
                    "the revocation list was signed by a key that is no longer pinned: every PoE is refused; install a \
                     list signed by one that is"
                ),
                Age::Ended => {
                    tracing::error!(name: alert::REVOCATIONS_STALE, sequence, "the revocation list is too old: every PoE is refused");
                }
            }
        }
    }
}

/// How long before its end the operator is warned.
const LIST_WARNING: Duration = Duration::from_secs(24 * 3600);
