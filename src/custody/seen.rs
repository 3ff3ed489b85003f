//! One token as the front sees it: the way to its worker, what the worker last said, and how busy it is.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::Lane;
use super::client::{Channel, LinkError};
use super::error::OutOfService;
use super::evidence::Device;
use super::load::Load;
use super::registry::Entry;
use super::replica::Replica;
use super::setup::Configured;
use super::told::Told;
use super::wire::{FailureCode, KeyHandle, StatusReport, WireError, WorkerState};

/// A token and what is known of it.
#[derive(Debug)]
pub(super) struct TokenSeen {
    pub(super) configured: Configured,
    pub(super) load: Load,
    pub(super) drained: Arc<AtomicBool>,
    pub(super) bad_signatures: AtomicU64,
    /// Requests that this token signed after another one could not.
    pub(super) taken_over: AtomicU64,
    /// Somebody could not reach the worker, or a key left service: it is time to look.
    pub(super) doubted: Notify,
    /// What the audit log was last told.
    pub(super) told: Mutex<Told<&'static str>>,
    /// The keys in it, by the configuration: each one's place among the entries, and the token's among its replicas.
    pub(super) keys: Vec<(usize, usize)>,
    /// Where the next round of reading keys from the device begins, among `keys`.
    pub(super) next_check: AtomicUsize,
    pub(super) silence: Mutex<Silence>,
    seen: Mutex<Option<Result<StatusReport, LinkError>>>,
    /// [`Grade`] of `seen`, to be read on every signature.
    grade: AtomicU8,
}

/// What the worker's last account says of its token, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Grade {
    /// All is as configured.
    Good = 0,
    /// It signs, with fewer sessions than configured or with trouble in one of them.
    Degraded = 1,
    /// It could not be asked, or cannot sign. Still worth an attempt when there is no better token: it may be back.
    Doubtful = 2,
}

/// Why there is no signature, and whether somebody may have made one all the same.
#[derive(Debug)]
pub(super) enum NotSigned {
    /// Nobody who could have signed saw the request, and a fresh connection or handle may do better.
    Unseen,
    /// Certainly nothing was signed.
    Refused(LinkError),
    /// Neither, and the worker is not there: it may be about to be.
    Away(LinkError),
    /// The request was under way when it was lost.
    Unclear(LinkError),
    /// The device says that it signed, and it is no signature.
    BadSignature,
    /// The key must not be used in this token; nothing was signed.
    OutOfService(OutOfService),
}

/// Test signatures that failed with no signature of the token between them.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// How many signatures it had made when it began.
    since: u64,
    /// How many tests failed.
    failed: u32,
    /// Keys with which they failed, up to [`KEYS_OF_A_SILENCE`].
    keys: Vec<usize>,
}

impl Silence {
    /// A test failed when the token had made `completed` signatures, with this key, or because the token was gone. Returns
    /// whether it is the token that fails, and not single keys: as many different ones failed as prove it, of the `of`
    /// that there are.
    pub(super) fn failed(&mut self, key: Option<usize>, completed: u64, of: usize) -> bool {
        if self.since != completed {
            *self = Self { since: completed, ..Self::default() };
        }
        self.failed = self.failed.saturating_add(1);
        if let Some(key) = key
            && self.keys.len() < KEYS_OF_A_SILENCE
            && !self.keys.contains(&key)
        {
            self.keys.push(key);
        }
        of > 1 && self.keys.len() >= KEYS_OF_A_SILENCE.min(of) && self.failed >= TESTS_OF_A_SILENCE
    }

    /// How many tests failed in the silence that goes on, if one does.
    pub(super) fn lasts(&self, completed: u64) -> u32 {
        if self.since == completed { self.failed } else { 0 }
    }
}

const KEYS_OF_A_SILENCE: usize = 3;

/// Two keys must both fail twice.
const TESTS_OF_A_SILENCE: u32 = 4;

impl TokenSeen {
    /// `keys`: see the field.
    pub(super) fn new(configured: Configured, keys: Vec<(usize, usize)>) -> Self {
        Self {
            drained: Arc::clone(&configured.drained),
            configured,
            load: Load::new(),
            bad_signatures: AtomicU64::new(0),
            taken_over: AtomicU64::new(0),
            doubted: Notify::new(),
            told: Mutex::new(Told::starting_with("not_asked_yet")),
            keys,
            next_check: AtomicUsize::new(0),
            silence: Mutex::default(),
            seen: Mutex::default(),
            grade: AtomicU8::new(Grade::Doubtful as u8),
        }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.configured.link.name
    }

    pub(super) fn is_drained(&self) -> bool {
        self.drained.load(Relaxed)
    }

    /// What the worker last said; `None` while it was never asked.
    pub(super) fn last_seen(&self) -> Option<Result<StatusReport, LinkError>> {
        self.seen().clone()
    }

    pub(super) fn grade(&self) -> Grade {
        match self.grade.load(Relaxed) {
            0 => Grade::Good,
            1 => Grade::Degraded,
            _ => Grade::Doubtful,
        }
    }

    /// Notes what the worker said, or why it could not be asked. Returns whether it can sign now and could not before.
    pub(super) fn saw(&self, asked: Result<StatusReport, LinkError>) -> bool {
        let short = |asked: &Result<StatusReport, LinkError>| asked.as_ref().is_ok_and(|r| shortfall(r).is_some());
        let mut seen = self.seen();
        let grade = match &asked {
            Ok(report) if report.state != WorkerState::Ready => Grade::Doubtful,
            // Twice in a row: a worker that opens its sessions, or replaces one, is not in trouble yet.
            Ok(_) if short(&asked) && seen.as_ref().is_some_and(short) => Grade::Degraded,
            Ok(_) => Grade::Good,
            Err(_) => Grade::Doubtful,
        };
        *seen = Some(asked);
        drop(seen);
        let before = self.grade.swap(grade as u8, Relaxed);
        before == Grade::Doubtful as u8 && grade != Grade::Doubtful
    }

    /// Notes that the worker could not be reached, so that `/readyz` says so at once, and has it looked at.
    pub(super) fn doubt(&self, error: &LinkError) {
        match error {
            // A worker that is slow or busy is there; only one that is gone must not count as ready.
            LinkError::Timeout | LinkError::Overloaded => {}
            LinkError::Refused(failure) => {
                use FailureCode::{PinRefused, TokenUnavailable, Unclear};
                if matches!(failure.code, TokenUnavailable | PinRefused | Unclear) {
                    self.doubted.notify_one();
                }
            }
            _ => {
                self.saw(Err(error.clone()));
                self.doubted.notify_one();
            }
        }
    }

    /// One signature, not verified yet; once more when nobody saw the first request. Counts as load while it lasts.
    pub(super) async fn signature(
        &self,
        entry: &Entry,
        replica: &Replica,
        lane: Lane,
        digest: &[u8; 32],
        deadline: Instant,
    ) -> Result<([u8; 64], std::time::Duration), NotSigned> {
        let deadline = deadline.min(Instant::now() + self.configured.sign_timeout);
        let flight = self.load.begin();
        let signed = match self.attempt(entry, replica, lane, digest, deadline).await {
            Err(NotSigned::Unseen) => self.attempt(entry, replica, lane, digest, deadline).await,
            signed => signed,
        };
        match signed {
            Ok(signature) => Ok((signature, flight.done())),
            Err(NotSigned::Unseen) => {
                let twice = LinkError::Lost("it ended twice before the request was sent".into());
                self.doubt(&twice);
                Err(NotSigned::Away(twice))
            }
            Err(NotSigned::Away(error)) => {
                self.doubt(&error);
                Err(NotSigned::Away(error))
            }
            Err(NotSigned::Refused(error)) => {
                self.doubt(&error);
                Err(NotSigned::Refused(error))
            }
            Err(NotSigned::Unclear(error)) => {
                self.doubt(&error);
                Err(NotSigned::Unclear(error))
            }
            Err(NotSigned::BadSignature) => Err(NotSigned::BadSignature),
            Err(NotSigned::OutOfService(why)) => {
                // What takes a key out may pass; it is looked at again soon, not when all was calm.
                self.doubted.notify_one();
                Err(NotSigned::OutOfService(why))
            }
        }
    }

    async fn attempt(
        &self,
        entry: &Entry,
        replica: &Replica,
        lane: Lane,
        digest: &[u8; 32],
        deadline: Instant,
    ) -> Result<[u8; 64], NotSigned> {
        let channel = self.configured.link.channel(deadline).await.map_err(before)?;
        let handle = self.handle(entry, replica, &channel, deadline).await?;
        match channel.sign(handle, lane, digest, deadline).await {
            Ok(signature) => Ok(signature),
            Err(LinkError::Unsent(_)) => Err(NotSigned::Unseen),
            Err(LinkError::Refused(failure)) if failure.code == FailureCode::Stopping => Err(NotSigned::Unseen),
            Err(LinkError::Refused(failure)) if failure.code == FailureCode::UnknownKey => {
                // The token has something else under the URI now; opening it again says what.
                channel.set_handle(entry.index, None);
                Err(NotSigned::Unseen)
            }
            Err(LinkError::Refused(failure)) if failure.code == FailureCode::BadSignature => {
                tracing::error!(token = &**self.name(), "what the token returned is no signature: {}", failure.detail);
                Err(NotSigned::BadSignature)
            }
            Err(LinkError::Refused(failure)) if failure.code == FailureCode::Unclear => {
                Err(NotSigned::Unclear(LinkError::Refused(failure)))
            }
            Err(error @ (LinkError::Refused(_) | LinkError::Overloaded)) => Err(NotSigned::Refused(error)),
            Err(error) => Err(NotSigned::Unclear(error)),
        }
    }

    /// The key's handle on this connection. The first use of a connection opens the key and compares it with what is
    /// pinned: another worker process may have another token.
    async fn handle(
        &self,
        entry: &Entry,
        replica: &Replica,
        channel: &Channel,
        deadline: Instant,
    ) -> Result<KeyHandle, NotSigned> {
        match channel.handle(entry.index) {
            Some(handle) if !replica.health.in_trouble() => Ok(handle),
            _ => self.open(entry, replica, channel, deadline).await,
        }
    }

    /// Has the worker read the key from the device again, and judges what it says.
    pub(super) async fn open(
        &self,
        entry: &Entry,
        replica: &Replica,
        channel: &Channel,
        deadline: Instant,
    ) -> Result<KeyHandle, NotSigned> {
        let opened = channel.open_key(&replica.uri, deadline).await;
        match opened {
            Ok(opened) => {
                let handle = opened.handle;
                let judged = entry.judge(replica, opened, self.device());
                channel.set_handle(entry.index, judged.is_ok().then_some(handle));
                replica.health.was_opened(judged.is_ok());
                judged.map(|()| handle).map_err(NotSigned::OutOfService)
            }
            Err(LinkError::Refused(failure))
                if matches!(failure.code, FailureCode::UnknownKey | FailureCode::KeyUnsuitable) =>
            {
                channel.set_handle(entry.index, None);
                replica.health.was_opened(false);
                let why = OutOfService::Refused(failure.detail.into());
                entry.take_out(replica, why.clone());
                Err(NotSigned::OutOfService(why))
            }
            Err(error) => {
                replica.health.was_opened(false);
                Err(before(error))
            }
        }
    }

    fn device(&self) -> Device {
        match &*self.seen() {
            Some(Ok(report)) => report.into(),
            _ => Device::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Option<Result<StatusReport, LinkError>>> {
        // One assignment each: a panic elsewhere cannot have left it half-changed.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In what a token that signs falls short of what is configured.
pub(super) fn shortfall(report: &StatusReport) -> Option<String> {
    if report.sessions_open < report.sessions_configured {
        let trouble = if report.detail.is_empty() { String::new() } else { format!(": {}", report.detail) };
        return Some(format!("{} of {} sessions are open{trouble}", report.sessions_open, report.sessions_configured));
    }
    // A worker that signs and has something to say, for instance that the PIN count is low.
    (!report.detail.is_empty()).then(|| report.detail.clone())
}

/// An error from before the request was handed to a connection.
fn before(error: LinkError) -> NotSigned {
    match error {
        LinkError::Unsent(_) => NotSigned::Unseen,
        LinkError::Refused(failure) if failure.code == FailureCode::Stopping => NotSigned::Unseen,
        // Another version is the other half of an upgrade, and a connection that ends, while the key is opened, leaves
        // nothing signed.
        error @ (LinkError::Connect { .. }
        | LinkError::Hello(_)
        | LinkError::Lost(_)
        | LinkError::Protocol(WireError::Version { .. })) => NotSigned::Away(error),
        error => NotSigned::Refused(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_keys_that_fail_in_a_row_prove_that_it_is_the_token_and_one_signature_that_it_is_not() {
        let failures = |keys: &[usize], of: usize| {
            let mut silence = Silence::default();
            keys.iter().map(|key| silence.failed(Some(*key), 7, of)).collect::<Vec<_>>()
        };
        assert_eq!(failures(&[1, 2, 3, 1], 20), [false, false, false, true]);
        assert_eq!(failures(&[1, 2, 1, 2], 2), [false, false, false, true], "two of two");
        assert!(!failures(&[1, 1, 2, 2, 1, 1], 20).contains(&true), "two of twenty may be two");
        assert!(!failures(&[1; 10], 1).contains(&true), "a single key stands for itself");
        let mut silence = Silence::default();
        for _ in 0..10 {
            assert!(!silence.failed(None, 7, 0), "that the token is gone says nothing of its keys");
        }
        assert_eq!((silence.lasts(7), silence.lasts(8)), (10, 0));
        assert!(!silence.failed(Some(1), 8, 20) && silence.lasts(8) == 1, "something was signed: it begins anew");
    }
}
