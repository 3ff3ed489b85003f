//! What the log says of the revocation list.

use std::time::Duration;

use super::{Refreshed, RevocationListError, RevocationListStatus};
use crate::clock::UnixTime;

/// What was logged of the revocation list last, so that each state is logged once.
#[derive(Debug, Default)]
pub(super) struct ListJournal {
    error: Option<String>,
    age: Age,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Age {
    #[default]
    Fresh,
    EndsSoon,
    Ended,
}

impl ListJournal {
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
        let age = if now >= status.fresh_until {
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
                Age::Ended => tracing::error!(sequence, "the revocation list is too old: every PoE is refused"),
            }
        }
    }
}

/// How long before its end the operator is warned.
const LIST_WARNING: Duration = Duration::from_secs(24 * 3600);
