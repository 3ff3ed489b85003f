//! Looking after tokens and keys: how each worker is, what each device says of each key, whether each key signs.

#![forbid(unsafe_code)]

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::client::{Channel, LinkError};
use super::event::CustodyEvent;
use super::front::Custody;
use super::health::KeyHealth;
use super::registry::Entry;
use super::replica::Replica;
use super::seen::{Grade, NotSigned, TokenSeen};
use super::wire::{FailureCode, WorkerState};
use super::{Lane, canary};
use crate::config::KeyState;

impl Custody {
    /// Asks every worker how it is, opens the keys that are not open, and makes the test signatures that are due: once.
    pub async fn refresh(self: &Arc<Self>) {
        let mut tokens = JoinSet::new();
        for index in 0..self.tokens.len() {
            let custody = Arc::clone(self);
            tokens.spawn(async move {
                custody.look_at(index).await;
                custody.test_keys(index).await;
            });
        }
        tokens.join_all().await;
    }

    /// Does so for ever: looks every 250 ms while something is not ready, every five seconds otherwise, and at once
    /// when a signature failed; tests keys as often as configured. Runs on the runtime that polls it, over connections
    /// of its own.
    pub async fn watch(self: Arc<Self>) {
        let mut tokens = JoinSet::new();
        for index in 0..self.tokens.len() {
            let custody = Arc::clone(&self);
            tokens.spawn(async move {
                loop {
                    custody.look_at(index).await;
                    let calm = CALM.min(custody.timing.check_interval.get());
                    let pause = if custody.token_status(index).ready { calm } else { EAGER };
                    // A failed signature is news, though not more often than this.
                    tokio::time::sleep(BRIEF).await;
                    let _ = tokio::time::timeout(pause, custody.tokens[index].doubted.notified()).await;
                }
            });
            // Apart from the above, so that a slow token is still asked how it is.
            let custody = Arc::clone(&self);
            tokens.spawn(async move {
                loop {
                    custody.test_keys(index).await;
                    tokio::time::sleep(BRIEF).await;
                }
            });
        }
        tokens.join_all().await;
    }

    async fn look_at(&self, index: usize) {
        let token = &self.tokens[index];
        let deadline = Instant::now() + LOOK_TIMEOUT;
        match token.configured.link.channel(deadline).await {
            Ok(channel) => {
                let report = channel.status(deadline).await;
                let ready = report.as_ref().is_ok_and(|report| report.state == WorkerState::Ready);
                let back = token.saw(report);
                if ready {
                    for (entry, replica) in self.keys_in(index) {
                        if back {
                            replica.health.canaries().due_now();
                        }
                        self.check(token, entry, replica, &channel, deadline).await;
                    }
                }
            }
            Err(error) => _ = token.saw(Err(error)),
        }
        self.tell_states(index);
    }

    /// Opens a key that is not open, is in trouble, or was not read from the device for the time that the
    /// configuration allows. What is wrong with it is written down with the key.
    async fn check(&self, token: &TokenSeen, entry: &Entry, replica: &Replica, channel: &Channel, deadline: Instant) {
        let known = channel.handle(entry.index).is_some() && !replica.health.in_trouble();
        if known && replica.checked_within(self.timing.check_interval.get()) {
            return;
        }
        let _ = token.open(entry, replica, channel, deadline).await;
    }

    /// Makes the test signatures that are due in this token, one after the other.
    async fn test_keys(&self, index: usize) {
        let token = &self.tokens[index];
        for (entry, replica) in self.keys_in(index) {
            let may = entry.state == KeyState::Active
                && !token.is_drained()
                && token.grade() != Grade::Doubtful
                && !replica.health.in_trouble()
                && replica.attributes().is_some();
            if may && replica.test_due(self.timing.canary_interval.get()) {
                let took = self.test(token, entry, replica).await;
                self.tell_states(index);
                // Tests take one part in twenty of one session at most, however many keys there are.
                tokio::time::sleep(
                    took.map_or(Duration::ZERO, |took| took * 19).min(self.timing.canary_interval.get()),
                )
                .await;
            }
        }
    }

    /// One test signature. Returns how long it took, where one was made and the pause after it is worth keeping.
    async fn test(&self, token: &TokenSeen, entry: &Entry, replica: &Replica) -> Option<Duration> {
        let key = entry.pinned.get()?;
        let Ok(digest) = canary::digest(token.name(), &entry.name) else {
            replica.health.canaries().observe(KeyHealth::OutOfService, "this system gives no random numbers");
            return None;
        };
        let (first, made_before) = (replica.health.canaries().grade.is_none(), token.load.completed());
        let deadline = Instant::now() + token.configured.sign_timeout;
        let signed = token.signature(entry, replica, Lane::APPLIANCE, &digest, deadline).await;
        let busy = token.load.completed() > made_before;
        let mut canaries = replica.health.canaries();
        match signed {
            Ok((signature, _)) if !key.verifies(&digest, &signature) => {
                drop(canaries);
                self.bad_signature(entry, replica);
                None
            }
            Err(NotSigned::BadSignature) => {
                drop(canaries);
                self.bad_signature(entry, replica);
                None
            }
            Ok((_, took)) => {
                canaries.good = Some((took, jiff::Timestamp::now()));
                let slow = self.timing.canary_slow.get();
                if took > slow {
                    canaries.observe(KeyHealth::Degraded, &format!("a test signature took {took:.1?}, over {slow:?}"));
                } else {
                    canaries.observe(KeyHealth::Live, "");
                }
                (!first).then_some(took)
            }
            Err(NotSigned::Refused(error) | NotSigned::Unclear(error)) => {
                match judge(&error, busy) {
                    Some(health) => canaries.observe(health, &super::token::explain(&error)),
                    // The token or its worker is gone, which is noted with the token; the key is tested on its return.
                    None => canaries.due_now(),
                }
                None
            }
            // What is wrong was noted with the key.
            Err(NotSigned::OutOfService(_) | NotSigned::Unseen) => None,
        }
    }

    /// Tells the audit log what has changed in this token since it was last told.
    pub(super) fn tell_states(&self, index: usize) {
        let status = self.token_status(index);
        let told = &self.tokens[index].told;
        let before = std::mem::replace(&mut *told.lock().unwrap_or_else(PoisonError::into_inner), status.state);
        if before != status.state {
            let (token, state, detail) = (Arc::clone(&status.name), status.state, status.detail);
            tracing::info!(token = &*token, state, detail, "token state");
            self.events.tell(CustodyEvent::TokenState { token, state, detail });
        }
        for (entry, replica) in self.keys_in(index) {
            if replica.attributes().is_none() && !replica.health.in_trouble() {
                continue;
            }
            let (state, detail) = replica.health.of_key();
            if replica.health.tell(state) {
                let (key, token) = (Arc::clone(&entry.name), Arc::clone(&replica.token));
                tracing::info!(key = &*key, token = &*token, state = state.name(), detail, "key state");
                self.events.tell(CustodyEvent::KeyState { key, token, state, detail });
            }
        }
    }

    /// The keys that this token holds, by the configuration.
    pub(super) fn keys_in(&self, index: usize) -> impl Iterator<Item = (&Entry, &Replica)> {
        self.registry.entries.iter().filter_map(move |entry| {
            entry.replicas.iter().find(|replica| replica.link == index).map(|replica| (entry, replica))
        })
    }
}

/// What a failed test signature says of the key; `None` when it says something of the token as a whole. A token that
/// made other signatures meanwhile is busy, not broken.
fn judge(error: &LinkError, busy: bool) -> Option<KeyHealth> {
    let overloaded = match error {
        LinkError::Timeout | LinkError::Overloaded => true,
        LinkError::Refused(failure) => match failure.code {
            FailureCode::QueueFull | FailureCode::DeadlineExceeded => true,
            FailureCode::TokenUnavailable | FailureCode::PinRefused | FailureCode::Unclear => return None,
            FailureCode::UnknownKey
            | FailureCode::KeyUnsuitable
            | FailureCode::DeviceError
            | FailureCode::BadRequest
            | FailureCode::BadSignature => false,
        },
        LinkError::Connect { .. }
        | LinkError::Peer { .. }
        | LinkError::Hello(_)
        | LinkError::Protocol(_)
        | LinkError::Unsent(_)
        | LinkError::Lost(_) => return None,
    };
    Some(if overloaded && busy { KeyHealth::Degraded } else { KeyHealth::OutOfService })
}

const BRIEF: Duration = Duration::from_millis(100);
const EAGER: Duration = Duration::from_millis(250);
const CALM: Duration = Duration::from_secs(5);
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
