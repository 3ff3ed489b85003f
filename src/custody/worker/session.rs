//! One thread, one session: takes requests from the queue, has the device sign, answers.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::device::{NoSession, Opened, unavailable};
use super::ladder::Step;
use super::queue::{Job, Next, Work};
use super::state::{Reopening, Shared, locked};
use crate::custody::GateAttributes;
use crate::custody::token::{FoundKey, KeySlot, Remedy, TokenError, TokenSession, explain};
use crate::custody::uri::KeyUri;
use crate::custody::wire::{Failure, FailureCode, KeyHandle, OpenedKey, Reply, WorkerState};
use crate::telemetry::alert;

/// Keeps one session open until the worker stops. A session that returned a fatal code is closed and never used
/// again. The next one is opened at once when the lost one had done some work, and with growing pauses otherwise; the
/// ladder says when more than that is needed.
pub(super) fn run(shared: &Shared, number: usize) {
    let mut pause = FIRST_PAUSE;
    let mut reopening = None;
    while !shared.state.stopping() {
        let end = {
            let _inside = shared.gate.enter();
            match shared.device.session() {
                Ok(opened) => serve(shared, number, opened, reopening.take()),
                Err(trouble) => {
                    reopening = None;
                    End::Unopened(trouble)
                }
            }
        };
        let (trouble, step) = match end {
            End::Stopped => break,
            End::Recalled => continue,
            End::Lost { error, over, reopening: at_once } => {
                let step = lost(shared, &error, over);
                if at_once.is_some() && step == Step::NewSession {
                    (pause, reopening) = (FIRST_PAUSE, at_once);
                    continue;
                }
                (unavailable(&error), step)
            }
            End::Unopened(trouble) => {
                // While others can sign, one session fewer is no reason to climb.
                let remedy = trouble.remedy.filter(|_| shared.state.sessions() == 0);
                let step = remedy.map_or(Step::NewSession, |remedy| shared.ladder.failed(remedy, None));
                (trouble, step)
            }
        };
        let longest = if trouble.state == WorkerState::PinRefused { PIN_PAUSE } else { LONGEST_PAUSE };
        shared.state.trouble(trouble.state, trouble.detail);
        shared.answer_orphans();
        match step {
            Step::NewSession => {}
            Step::Reinitialize => {
                reinitialize(shared);
                pause = FIRST_PAUSE;
                continue;
            }
            Step::NewProcess => {
                tracing::error!(name: alert::NEW_PROCESS, "only a new process can bring the module back; this one ends");
                shared.state.beyond_repair();
            }
        }
        shared.state.wait(pause);
        pause = (pause * 2).min(longest);
    }
    shared.answer_orphans();
}

/// Why a session is no more.
enum End<'a> {
    /// The worker stops.
    Stopped,
    /// The module is to be initialised anew.
    Recalled,
    /// It must not be used again. Over which key, if any? Had it done some work, the next one is opened at once.
    Lost { error: TokenError, over: Option<Over>, reopening: Option<Reopening<'a>> },
    /// There was none.
    Unopened(NoSession),
}

/// What a session was at with a key when it was lost.
enum Over {
    Signing(KeyHandle),
    Opening(Box<KeyUri>),
}

/// What to do about a lost session. A key that fails alone costs its session and no more, and is tried less often.
fn lost(shared: &Shared, error: &TokenError, over: Option<Over>) -> Step {
    let (key, opening) = match over {
        None => (None, None),
        Some(Over::Signing(handle)) => (Some(handle), None),
        Some(Over::Opening(uri)) => (Some(shared.keys.mark(&uri)), Some(uri)),
    };
    let (alone, remedy) = (key.is_some_and(|key| shared.ladder.ails_alone(key)), error.remedy());
    match opening {
        Some(uri) if alone => {
            shared.ailing.failed(&uri, &explain(error), Instant::now());
            // Whatever its code asks for: were it the module, others would hear of it, too, and soon.
            shared.ladder.failed(remedy.min(Remedy::NewLogin), key)
        }
        _ => {
            if !alone {
                shared.ailing.forget();
            }
            shared.ladder.failed(remedy, key)
        }
    }
}

/// Has the other sessions closed, and finalises and initialises the module. Not while a call is in it: what PKCS#11
/// makes of that is undefined, and the watchdog sees to calls that do not return.
fn reinitialize(shared: &Shared) {
    tracing::warn!("new sessions do not help; the module is finalized and initialized anew");
    shared.queue.recall(true);
    let done = shared.gate.alone(ALONE_PATIENCE, || shared.device.reinitialize());
    shared.queue.recall(false);
    match done {
        None => tracing::warn!("the module was not finalized: a call is pending in it"),
        Some(Ok(())) => {
            shared.counters.reinitialized.fetch_add(1, Relaxed);
        }
        // The session that is tried next says the same.
        Some(Err(error)) => tracing::error!("the module does not initialize: {}", explain(&error)),
    }
}

/// Works until the worker stops or the session is lost.
fn serve<'a>(shared: &'a Shared, number: usize, opened: Opened, reopening: Option<Reopening<'a>>) -> End<'a> {
    shared.counters.sessions_opened.fetch_add(1, Relaxed);
    if opened.logged_in_now {
        shared.counters.logins.fetch_add(1, Relaxed);
    }
    shared.state.session_opened(opened.facts);
    drop(reopening);
    let _open = OpenSession(shared);
    let _working = shared.queue.joined();
    let mut session = Session { shared, number, session: opened.session, slots: Vec::new() };
    let mut worked = false;
    loop {
        let patience = shared.plan.keep_alive.map(|idle| Instant::now() + idle);
        let done = match shared.queue.pop(patience) {
            Next::Work(job) => session.carry_out(job).map(|()| worked = true),
            Next::Idle => session.keep_alive(),
            Next::Leave => return End::Recalled,
            Next::End => return End::Stopped,
        };
        if let Err(Lost { error, over }) = done {
            shared.counters.sessions_lost.fetch_add(1, Relaxed);
            tracing::error!("session closed: {}", explain(&error));
            if error.remedy() == Remedy::NewLogin {
                shared.device.doubt_login(opened.login);
            }
            // Before it counts as closed, so that nobody is sent away in between.
            return End::Lost { error, over, reopening: worked.then(|| shared.state.reopening()) };
        }
    }
}

/// Counted as open for exactly as long as it lives, whatever ends it.
struct OpenSession<'a>(&'a Shared);

impl Drop for OpenSession<'_> {
    fn drop(&mut self) {
        self.0.state.session_closed();
        self.0.answer_orphans();
    }
}

struct Lost {
    error: TokenError,
    over: Option<Over>,
}

struct Session<'a> {
    shared: &'a Shared,
    number: usize,
    session: Box<dyn TokenSession>,
    /// Where each key is in this session, by handle; looking it up costs a search on the device.
    slots: Vec<Option<KeySlot>>,
}

impl Session<'_> {
    fn carry_out(&mut self, job: Job) -> Result<(), Lost> {
        if Instant::now() >= job.deadline || self.shared.queue.is_hopeless(&job) {
            expire(self.shared, &job);
            return Ok(());
        }
        // Here the watchdog finds it, should the device not return; whoever takes it out again answers it.
        let work = job.work.clone();
        *locked(&self.shared.in_hand[self.number]) = Some(job);
        let done = match &work {
            Work::Sign { handle, digest } => self.sign(*handle, digest).map(Reply::Signed),
            Work::Open { uri } => self.open(uri).map(Reply::KeyOpened),
        };
        let Some(mut job) = locked(&self.shared.in_hand[self.number]).take() else { return Ok(()) };
        match done {
            // What waits is worth more of this session's time than what is done.
            Ok(reply) if self.shared.queue.is_waiting() => job.connection.leave(job.id, &reply),
            Ok(reply) => job.connection.reply(job.id, &reply),
            Err(Refused::Unknown(detail)) => job.connection.fail(job.id, FailureCode::UnknownKey, detail),
            Err(Refused::Unsuitable(detail)) => job.connection.fail(job.id, FailureCode::KeyUnsuitable, detail),
            Err(Refused::BadRequest(detail)) => job.connection.fail(job.id, FailureCode::BadRequest, detail),
            Err(Refused::Token(error)) => {
                let lost = error.remedy() > Remedy::None;
                let over = over(work);
                // Where the device returned an error, no signature was handed out: one that it may have made all the
                // same is nobody's, and another over the same digest does no harm. So another session may try, once;
                // what the loss of a session costs is then borne here, not by callers. Not for a key that is known to
                // cost every session that opens it.
                let unsigned = !matches!(error, TokenError::OddSignature { .. });
                let chronic = matches!(&over, Some(Over::Opening(uri)) if self.shared.ailing.times(uri) > 0);
                if lost && unsigned && !job.retried && !chronic {
                    job.retried = true;
                    self.shared.queue.put_back(job);
                } else {
                    self.shared.counters.failed.fetch_add(1, Relaxed);
                    job.connection.fail(job.id, code(&error), explain(&error));
                }
                return if lost { Err(Lost { error, over }) } else { Ok(()) };
            }
        }
        Ok(())
    }

    /// A call that costs the device nothing, so that nobody between us and it takes the silence for the end.
    fn keep_alive(&mut self) -> Result<(), Lost> {
        self.shared.counters.kept_alive.fetch_add(1, Relaxed);
        match self.session.is_logged_in() {
            Ok(true) => Ok(()),
            Ok(false) => {
                let error = TokenError::Device {
                    operation: "keeping the session alive",
                    remedy: Remedy::NewLogin,
                    source: "nobody is logged in any more".into(),
                };
                Err(Lost { error, over: None })
            }
            Err(error) => Err(Lost { error, over: None }),
        }
    }

    fn sign(&mut self, handle: KeyHandle, digest: &[u8; 32]) -> Result<[u8; 64], Refused> {
        let index = usize::try_from(handle.0).unwrap_or(usize::MAX);
        let slot = match self.slots.get(index) {
            Some(Some(slot)) => *slot,
            _ => self.look_up(handle)?,
        };
        let began = Instant::now();
        let signature = self.session.sign(slot, digest)?;
        self.shared.queue.took(began.elapsed());
        self.shared.counters.signatures.fetch_add(1, Relaxed);
        self.shared.ladder.worked(handle);
        Ok(signature)
    }

    fn look_up(&mut self, handle: KeyHandle) -> Result<KeySlot, Refused> {
        let known = self
            .shared
            .keys
            .key(handle)
            .ok_or_else(|| Refused::Unknown("a key handle that was never given out".to_owned()))?;
        let found = self.find(&known.uri)?;
        if found.public_key != known.public_key {
            let uri = &known.uri;
            return Err(Refused::Unknown(format!("`{uri}` names another key now than when it was opened")));
        }
        self.remember(handle, found.slot);
        Ok(found.slot)
    }

    fn open(&mut self, uri: &str) -> Result<OpenedKey, Refused> {
        let uri: KeyUri = uri.parse().map_err(|error| Refused::BadRequest(format!("`{uri}`: {error}")))?;
        if let Some(why) = self.shared.ailing.barred(&uri, Instant::now()) {
            return Err(Refused::Unsuitable(format!("the key `{uri}` is not opened now: {why}")));
        }
        let FoundKey { slot, public_key, attributes, attestation } = self.find(&uri)?;
        self.shared.ailing.opened(&uri);
        let handle = self
            .shared
            .keys
            .handle(&uri, public_key)
            .ok_or_else(|| Refused::BadRequest("too many different keys were opened".to_owned()))?;
        self.remember(handle, slot);
        Ok(OpenedKey { handle, public_key, attributes, attestation })
    }

    /// The key as the device describes it now, if it may sign.
    fn find(&self, uri: &KeyUri) -> Result<FoundKey, Refused> {
        let found = self.session.find_key(uri)?;
        match found.attributes.objection_with(self.exceptions(uri)) {
            None => Ok(found),
            Some(why) => Err(Refused::Unsuitable(format!("the key `{uri}` may not sign: {why}"))),
        }
    }

    fn exceptions(&self, uri: &KeyUri) -> GateAttributes {
        let excepted = self.shared.plan.exceptions.iter().find(|(excepted, _)| excepted == uri);
        excepted.map_or(GateAttributes::NONE, |(_, attributes)| *attributes)
    }

    fn remember(&mut self, handle: KeyHandle, slot: KeySlot) {
        // Handles are given out densely and are bounded in number.
        let index = usize::try_from(handle.0).unwrap_or(0);
        if self.slots.len() <= index {
            self.slots.resize(index + 1, None);
        }
        self.slots[index] = Some(slot);
    }
}

fn over(work: Work) -> Option<Over> {
    match work {
        Work::Sign { handle, .. } => Some(Over::Signing(handle)),
        Work::Open { uri } => uri.parse().ok().map(|uri| Over::Opening(Box::new(uri))),
    }
}

/// Answers a job whose deadline has passed.
pub(super) fn expire(shared: &Shared, job: &Job) {
    shared.counters.expired.fetch_add(1, Relaxed);
    let late = if shared.state.starting() {
        Failure::new(FailureCode::TokenUnavailable, "no session with the token is open yet")
    } else {
        Failure::new(FailureCode::DeadlineExceeded, "the request waited longer than it had time")
    };
    job.connection.leave(job.id, &Reply::Failed(late));
}

enum Refused {
    Unknown(String),
    Unsuitable(String),
    BadRequest(String),
    Token(TokenError),
}

impl From<TokenError> for Refused {
    fn from(error: TokenError) -> Self {
        Self::Token(error)
    }
}

fn code(error: &TokenError) -> FailureCode {
    match error {
        TokenError::KeyNotFound { .. } | TokenError::SeveralKeys { .. } => FailureCode::UnknownKey,
        TokenError::KeyUnsuitable { .. } => FailureCode::KeyUnsuitable,
        TokenError::Absent { .. } | TokenError::SeveralTokens { .. } => FailureCode::TokenUnavailable,
        TokenError::PinRefused(_) | TokenError::LoginUnclear(_) => FailureCode::PinRefused,
        TokenError::OddSignature { .. } => FailureCode::BadSignature,
        TokenError::Device { remedy, .. } if *remedy >= Remedy::NewLogin => FailureCode::TokenUnavailable,
        TokenError::Device { .. } => FailureCode::DeviceError,
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// A token that is back must not wait long for the next attempt.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A refused PIN takes an operator, who corrects its file.
const PIN_PAUSE: Duration = Duration::from_secs(2);

/// Longer than any signature on a device that is in order.
const ALONE_PATIENCE: Duration = Duration::from_millis(500);
