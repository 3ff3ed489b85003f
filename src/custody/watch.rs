//! Looking after tokens and keys: how each worker is, what each device says of each key, whether each key signs.

#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::client::{Channel, LinkError};
use super::error::OutOfService;
use super::event::CustodyEvent;
use super::front::Custody;
use super::health::KeyHealth;
use super::registry::Entry;
use super::replica::Replica;
use super::seen::{Grade, NotSigned, TokenSeen};
use super::wire::FailureCode;
use super::{Lane, canary};
use crate::config::KeyState;
use crate::telemetry::alert;

impl Custody {
    /// Asks every worker how it is, opens the keys that are not open, and makes the test signatures that are due: once.
    pub async fn refresh(self: &Arc<Self>) {
        let mut tokens = JoinSet::new();
        for index in 0..self.tokens.len() {
            let custody = Arc::clone(self);
            tokens.spawn(async move {
                custody.look_at(index).await;
                custody.check_keys(index).await;
                custody.test_keys(index).await;
                custody.tell_states(index);
            });
        }
        tokens.join_all().await;
    }

    /// Does so for ever: looks every 250 ms while something is not ready, every five seconds otherwise, and at once
    /// when a signature failed; reads and tests keys as often as configured. Runs on the runtime that polls it, over
    /// connections of its own.
    pub async fn watch(self: Arc<Self>) {
        let mut tokens = JoinSet::new();
        for index in 0..self.tokens.len() {
            // Three tasks, so that a token that is slow, or has many keys, is still asked how it is.
            let custody = Arc::clone(&self);
            tokens.spawn(async move {
                loop {
                    custody.look_at(index).await;
                    custody.tell_states(index);
                    let calm = CALM.min(custody.timing.check_interval.get());
                    let pause = if custody.token_status(index).ready { calm } else { EAGER };
                    // A failed signature is news, though not more often than this.
                    tokio::time::sleep(BRIEF).await;
                    let _ = tokio::time::timeout(pause, custody.tokens[index].doubted.notified()).await;
                }
            });
            let custody = Arc::clone(&self);
            tokens.spawn(async move {
                loop {
                    custody.check_keys(index).await;
                    tokio::time::sleep(BRIEF).await;
                }
            });
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
                if token.saw(channel.status(deadline).await) {
                    for (_, replica) in self.keys_in(index) {
                        replica.health.canaries().due_now();
                    }
                }
            }
            Err(error) => _ = token.saw(Err(error)),
        }
    }

    /// Opens the keys that are not open, are in trouble, or were not read from the device for the time that the
    /// configuration allows: one round, which begins where the last one ended. What is wrong with a key is written down
    /// with it. Each key has its own deadline, and a round is given up only when the token as a whole does not answer;
    /// the next one goes on with the key after.
    async fn check_keys(&self, index: usize) {
        let token = &self.tokens[index];
        let first = token.next_check.load(Relaxed);
        let mut strikes = 0;
        for urgent in [true, false] {
            for step in 0..token.keys.len() {
                let at = (first + step) % token.keys.len();
                let (entry, replica) = self.key_at(token.keys[at]);
                if replica.is_urgent() != urgent || token.grade() == Grade::Doubtful {
                    continue;
                }
                let began = Instant::now();
                let deadline = began + KEY_TIMEOUT;
                let Ok(channel) = token.configured.link.channel(deadline).await else { return };
                if !self.check_due(entry, replica, &channel) {
                    continue;
                }
                token.next_check.store((at + 1) % token.keys.len(), Relaxed);
                let opened = token.open(entry, replica, &channel, deadline).await;
                self.tell_key(entry, replica);
                match opened {
                    Err(NotSigned::Refused(LinkError::Refused(failure)))
                        if failure.code == FailureCode::TokenUnavailable =>
                    {
                        strikes += 1;
                    }
                    Err(NotSigned::Refused(LinkError::Timeout)) => strikes += 1,
                    Err(NotSigned::Unseen | NotSigned::Away(_)) => return,
                    Ok(_) | Err(_) => strikes = 0,
                }
                if strikes >= STRIKES {
                    return;
                }
                // Of what is not urgent no more than a fourth of one session's time, unless that is too little.
                if !urgent && replica.checked_within(self.timing.check_interval.get() * 2) {
                    tokio::time::sleep(began.elapsed() * 3).await;
                }
            }
        }
    }

    fn check_due(&self, entry: &Entry, replica: &Replica, channel: &Channel) -> bool {
        match replica.health.trouble() {
            // No look at it ends this.
            None | Some(OutOfService::BadSignature) if replica.health.opened_well() => {
                channel.handle(entry.index).is_none() || !replica.checked_within(self.timing.check_interval.get())
            }
            _ => replica.health.opening_due(),
        }
    }

    /// Makes the test signatures that are due in this token, one after the other: first with keys on their way back,
    /// then with those that wait longest. Returns after a while, so that the order is made anew.
    async fn test_keys(&self, index: usize) {
        let token = &self.tokens[index];
        let (interval, completed) = (self.timing.canary_interval.get(), token.load.completed());
        let due = self.keys_in(index).filter(|at| self.may_test(token, *at) && at.1.test_due(interval, completed));
        let mut due: Vec<(&Entry, &Replica)> = due.collect();
        due.sort_by_cached_key(|(_, replica)| {
            let canaries = replica.health.canaries();
            (!canaries.is_returning(), canaries.is_routine(), canaries.last)
        });
        let began = Instant::now();
        for (entry, replica) in due {
            if !self.may_test(token, (entry, replica)) {
                continue;
            }
            let routine = replica.health.canaries().is_routine();
            let pause = match self.test(index, entry, replica).await {
                // Tests take one part in twenty of one session at most, however many keys there are; those that decide
                // whether a key is in service do not wait.
                Tested::Signed(took) if routine => (took * 19).min(interval),
                Tested::Signed(_) => Duration::ZERO,
                Tested::Failed => {
                    let lasts = locked(&token.silence).lasts(token.load.completed()).saturating_sub(1);
                    (BRIEF * (1 << lasts.min(10))).min(LONGEST_SILENCE).min(interval)
                }
            };
            self.tell_key(entry, replica);
            tokio::time::sleep(pause).await;
            if began.elapsed() >= EAGER {
                return;
            }
        }
    }

    fn may_test(&self, token: &TokenSeen, (entry, replica): (&Entry, &Replica)) -> bool {
        entry.state == KeyState::Active
            && !token.is_drained()
            && token.grade() != Grade::Doubtful
            && !replica.health.in_trouble()
            && replica.attributes().is_some()
    }

    /// One test signature.
    async fn test(&self, index: usize, entry: &Entry, replica: &Replica) -> Tested {
        let token = &self.tokens[index];
        let Some(key) = entry.pinned.get() else { return Tested::Failed };
        let Ok(digest) = canary::digest(token.name(), &entry.name) else {
            replica.health.canaries().observe(KeyHealth::OutOfService, "this system gives no random numbers");
            return Tested::Failed;
        };
        let made_before = token.load.completed();
        let deadline = Instant::now() + token.configured.sign_timeout;
        let signed = token.signature(entry, replica, Lane::APPLIANCE, &digest, deadline).await;
        match signed {
            Ok((signature, took)) if key.verifies(&digest, &signature) => {
                self.passed(index, replica, took);
                Tested::Signed(took)
            }
            Ok(_) | Err(NotSigned::BadSignature) => {
                self.bad_signature(entry, replica);
                Tested::Failed
            }
            Err(NotSigned::Refused(error) | NotSigned::Unclear(error) | NotSigned::Away(error)) => {
                let completed = token.load.completed();
                match judge(&error, completed > made_before) {
                    Some(health) => {
                        let why = super::token::explain(&error);
                        replica.health.canaries().failed(health, &why, completed);
                        if health == KeyHealth::OutOfService {
                            self.suspect(index, entry, &why, completed);
                        }
                    }
                    // The token or its worker is gone, which is noted with the token; the key is tested on its return.
                    None => {
                        locked(&token.silence).failed(None, completed, 0);
                        replica.health.canaries().due_now();
                    }
                }
                Tested::Failed
            }
            // What is wrong was noted with the key.
            Err(NotSigned::OutOfService(_) | NotSigned::Unseen) => Tested::Failed,
        }
    }

    /// A test signature was good. Where the key comes back by it, those that left service with it do, too: an outage of
    /// the token that hundreds of keys noticed must not end for them one by one.
    fn passed(&self, index: usize, replica: &Replica, took: Duration) {
        let slow = self.timing.canary_slow.get();
        let left_in = {
            let mut canaries = replica.health.canaries();
            let left_in = canaries.left_in();
            canaries.good = Some((took, jiff::Timestamp::now()));
            if took > slow {
                canaries.observe(KeyHealth::Degraded, &format!("a test signature took {took:.1?}, over {slow:?}"));
            } else {
                canaries.observe(KeyHealth::Live, "");
            }
            left_in.filter(|_| canaries.left_in().is_none())
        };
        if let Some(silence) = left_in {
            for (entry, other) in self.keys_in(index) {
                if other.health.canaries().pardon(silence) {
                    self.tell_key(entry, other);
                }
            }
        }
    }

    /// A test signature failed. When several keys have failed and none signed meanwhile, it is the token: then all its
    /// keys are out of service, before callers find out with each of them.
    fn suspect(&self, index: usize, entry: &Entry, why: &str, completed: u64) {
        let token = &self.tokens[index];
        let tested = self.keys_in(index).filter(|at| self.may_test(token, *at)).count();
        if locked(&token.silence).failed(Some(entry.index), completed, tested) {
            for (entry, replica) in self.keys_in(index).filter(|(entry, _)| entry.state == KeyState::Active) {
                replica.health.canaries().condemn(why, completed);
                self.tell_key(entry, replica);
            }
        }
    }

    /// Tells the audit log what has changed in this token since it was last told.
    pub(super) fn tell_states(&self, index: usize) {
        let status = self.token_status(index);
        if let Some(news) = locked(&self.tokens[index].told).note(status.state) {
            let (token, state, detail) = (Arc::clone(&status.name), status.state, status.detail);
            tracing::info!(name: alert::TOKEN_STATE, token = &*token, state, detail, "token state");
            self.events.tell(CustodyEvent::TokenState { token, state, detail, untold: news.untold });
        }
        for (entry, replica) in self.keys_in(index) {
            self.tell_key(entry, replica);
        }
    }

    /// The same of one key.
    fn tell_key(&self, entry: &Entry, replica: &Replica) {
        if replica.attributes().is_none() && !replica.health.in_trouble() {
            return;
        }
        let state = replica.health.grade();
        if let Some(news) = locked(&replica.health.told).note(state) {
            let (_, detail) = replica.health.of_key();
            let (key, token) = (Arc::clone(&entry.name), Arc::clone(&replica.token));
            tracing::info!(key = &*key, token = &*token, state = state.name(), detail, "key state");
            self.events.tell(CustodyEvent::KeyState { key, token, state, detail, untold: news.untold });
        }
    }

    /// The keys that this token holds, by the configuration.
    pub(super) fn keys_in(&self, index: usize) -> impl Iterator<Item = (&Entry, &Replica)> {
        self.tokens[index].keys.iter().map(|place| self.key_at(*place))
    }

    fn key_at(&self, (entry, replica): (usize, usize)) -> (&Entry, &Replica) {
        let entry = &self.registry.entries[entry];
        (entry, &entry.replicas[replica])
    }
}

/// What a test signature has come to.
enum Tested {
    Signed(Duration),
    Failed,
}

/// What a failed test signature says of the key; `None` when it says something of the token as a whole. A token that
/// made other signatures meanwhile is busy, not broken.
fn judge(error: &LinkError, busy: bool) -> Option<KeyHealth> {
    let overloaded = match error {
        LinkError::Timeout | LinkError::Overloaded => true,
        LinkError::Refused(failure) => match failure.code {
            FailureCode::QueueFull | FailureCode::DeadlineExceeded => true,
            FailureCode::TokenUnavailable | FailureCode::PinRefused | FailureCode::Unclear | FailureCode::Stopping => {
                return None;
            }
            FailureCode::UnknownKey
            | FailureCode::KeyUnsuitable
            | FailureCode::DeviceError
            | FailureCode::BadRequest
            | FailureCode::BadSignature => false,
        },
        LinkError::Connect { .. }
        | LinkError::Peer { .. }
        | LinkError::Socket { .. }
        | LinkError::Hello(_)
        | LinkError::Protocol(_)
        | LinkError::Unsent(_)
        | LinkError::Lost(_) => return None,
    };
    Some(if overloaded && busy { KeyHealth::Degraded } else { KeyHealth::OutOfService })
}

/// Plain values behind each of these locks: a panic elsewhere cannot have left them half-changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const BRIEF: Duration = Duration::from_millis(100);
const EAGER: Duration = Duration::from_millis(250);
const CALM: Duration = Duration::from_secs(5);
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// For one key to be read from the device.
const KEY_TIMEOUT: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(5) };

/// Keys in a row that are not answered, until the token is left alone for a moment.
const STRIKES: u32 = 3;

/// Between test signatures of a token that makes none: it must be in service again within two seconds of its return.
const LONGEST_SILENCE: Duration = Duration::from_secs(1);
