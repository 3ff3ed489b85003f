//! The writer: takes what has come together, makes it durable, tells those who wait.

use std::cell::RefCell;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::batch::{Append, Batch};
use super::file::{self, LogFile};
use super::noise::Noise;
use super::pace::Pace;
use super::record::{Detail, Record};
use super::{AuditError, Failure, MAX_PENDING_BYTES};
use crate::config;
use crate::telemetry::{AuditMetrics, alert};

/// What appenders and the writer share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// The writer waits here while there is nothing to write.
    work: Condvar,
    metrics: OnceLock<AuditMetrics>,
}

#[derive(Debug)]
struct State {
    pending: Batch,
    /// Records that came in since the last sync.
    entered: u32,
    next_seq: u64,
    /// The writer waits and must be woken; while it paces itself or writes, it looks by itself.
    idle: bool,
    closing: bool,
    /// Since when the writer waits for the disk.
    writing_since: Option<Instant>,
    failure: Option<Arc<Failure>>,
    /// Records refused since the failure.
    refused: u64,
    noise: Noise,
}

struct Scratch {
    thread: ThreadId,
    body: Vec<u8>,
}

thread_local! {
    // A record is written outside the lock, into memory that is there already.
    static SCRATCH: RefCell<Scratch> =
        RefCell::new(Scratch { thread: std::thread::current().id(), body: Vec::with_capacity(2048) });
}

impl Shared {
    pub(super) fn new(config: &config::Audit, next_seq: u64) -> Self {
        let state = State {
            pending: Batch::default(),
            entered: 0,
            next_seq,
            idle: false,
            closing: false,
            writing_since: None,
            failure: None,
            refused: 0,
            noise: Noise::new(config.max_noise_records_per_second),
        };
        Self { state: Mutex::new(state), work: Condvar::new(), metrics: OnceLock::new() }
    }

    pub(super) fn append_noise(&self, record: &Record<'_>) -> Append {
        let mut state = self.lock();
        if state.noise.admit(record.reason(), Instant::now()) {
            drop(state);
            return self.append(record);
        }
        // What is only counted is not even written out. The writer may sleep and not know yet that there will be
        // something to tell.
        let wake = state.noise.begins();
        drop(state);
        if wake {
            self.work.notify_one();
        }
        Append::settled(Ok(()))
    }

    /// Why the log takes no records: it failed, or the disk does not answer.
    pub(super) fn trouble(&self) -> Option<AuditError> {
        self.lock().trouble()
    }

    #[cfg(test)]
    pub(super) fn pretend_to_write_since(&self, moment: Option<Instant>) {
        self.lock().writing_since = moment;
    }

    pub(super) fn observe(&self, metrics: AuditMetrics) {
        metrics.failed.set(i64::from(self.lock().failure.is_some()));
        // Set once; a second set of metrics would split the counts.
        let _ = self.metrics.set(metrics);
    }

    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.work.notify_one();
    }

    pub(super) fn append(&self, record: &Record<'_>) -> Append {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.body.clear();
            record.write(&mut scratch.body);
            let mut state = self.lock();
            if let Err(error) = state.enter(&scratch.body) {
                return Append::settled(Err(error));
            }
            let answer = state.pending.answer(scratch.thread);
            let wake = std::mem::take(&mut state.idle);
            drop(state);
            if wake {
                self.work.notify_one();
            }
            if let Some(metrics) = self.metrics.get() {
                metrics.records(record.kind()).inc();
            }
            answer
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held can only come from a failed allocation between two whole lines.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, body: &[u8]) -> Result<(), AuditError> {
        if let Some(trouble) = self.trouble() {
            self.refused += 1;
            return Err(trouble);
        }
        if self.pending.lines.len() + body.len() > MAX_PENDING_BYTES {
            return Err(AuditError::Backlog);
        }
        file::push_body(&mut self.pending.lines, self.next_seq, body);
        self.next_seq += 1;
        self.entered = self.entered.saturating_add(1);
        Ok(())
    }

    fn trouble(&self) -> Option<AuditError> {
        if let Some(failure) = &self.failure {
            return Some(AuditError::Failed(Arc::clone(failure)));
        }
        let waiting = self.writing_since?.elapsed();
        (waiting > STALLED).then_some(AuditError::Stalled { seconds: waiting.as_secs() })
    }

    /// Enters what the noise limiter left out, when it is time to tell.
    fn tell_left_out(&mut self, at_once: bool) {
        if let Some(left_out) = self.noise.left_out(Instant::now(), at_once) {
            let details = [("count", Detail::Number(left_out.total)), ("reasons", Detail::Text(&left_out.reasons))];
            let mut body = Vec::new();
            Record::Event { event: "noise_left_out", details: &details }.write(&mut body);
            // When the log refuses it, the failure counts one more refused record.
            let _ = self.enter(&body);
        }
    }
}

/// The thread that writes.
pub(super) struct Writer {
    shared: Arc<Shared>,
    file: LogFile,
    pace: Pace,
    batch: Batch,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, file: LogFile, group_commit: Duration) -> Self {
        Self { shared, file, pace: Pace::new(group_commit), batch: Batch::default() }
    }

    /// Writes until the log is closed.
    pub(super) fn run(mut self) {
        let mut last_sync = Instant::now();
        let mut interval = Duration::ZERO;
        while self.wait_for_work() {
            // Under load, what comes in until then shares the sync. When idle, that moment has passed long ago.
            std::thread::sleep((last_sync + interval).saturating_duration_since(Instant::now()));
            let started = Instant::now();
            let records = {
                let mut state = self.shared.lock();
                std::mem::swap(&mut state.pending, &mut self.batch);
                state.writing_since = Some(started);
                std::mem::take(&mut state.entered)
            };
            let outcome = self.file.commit(&self.batch.lines);
            self.shared.lock().writing_since = None;
            let took = started.elapsed();
            interval = self.pace.after(records, started.duration_since(last_sync));
            last_sync = started;
            if let Some(metrics) = self.shared.metrics.get() {
                metrics.flush.observe(took.as_secs_f64());
            }
            match outcome {
                Ok(()) => self.batch.complete(&Ok(())),
                Err(failure) => self.fail(failure),
            }
        }
    }

    /// False when the log is closed and everything is written.
    fn wait_for_work(&self) -> bool {
        let mut state = self.shared.lock();
        loop {
            let closing = state.closing;
            state.tell_left_out(closing);
            if !state.pending.lines.is_empty() {
                state.idle = false;
                return true;
            }
            if closing {
                return false;
            }
            state.idle = true;
            state = match state.noise.due() {
                None => self.shared.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(due) => {
                    let patience = due.saturating_duration_since(Instant::now());
                    self.shared.work.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Refuses records until what could not be written is written after all, together with a record that says so.
    fn fail(&mut self, failure: Failure) {
        let failure = Arc::new(failure);
        tracing::error!(name: alert::AUDIT_FAILED, error = %failure, "no signature is released until the audit log takes records again");
        // Kept, so that the sequence has no gap and nothing that happened is missing: those who wait are told that
        // their records are not durable, which remains true until then.
        let mut unwritten = std::mem::take(&mut self.batch.lines);
        let mut behind = {
            let mut state = self.shared.lock();
            state.failure = Some(Arc::clone(&failure));
            state.refused = 0;
            std::mem::take(&mut state.pending)
        };
        self.set_failed(true);
        unwritten.append(&mut behind.lines);
        self.batch.complete(&Err(Arc::clone(&failure)));
        behind.complete(&Err(Arc::clone(&failure)));

        let mut patience = FIRST_RETRY;
        loop {
            let closing = self.pause(patience);
            patience = (patience * 2).min(LAST_RETRY);
            let mut state = self.shared.lock();
            let written = unwritten.len();
            let since = failure.since.to_string();
            let cause = failure.to_string();
            let details = [
                ("since", Detail::Text(&since)),
                ("cause", Detail::Text(&cause)),
                ("refusedRecords", Detail::Number(state.refused)),
            ];
            file::push(&mut unwritten, state.next_seq, &Record::Event { event: "resumed", details: &details });
            let refused = state.refused;
            drop(state);
            let outcome = self.file.commit(&unwritten);
            state = self.shared.lock();
            match outcome {
                Ok(()) => {
                    state.next_seq += 1;
                    state.failure = None;
                    drop(state);
                    self.set_failed(false);
                    tracing::warn!(name: alert::AUDIT_RESUMED, refused, "the audit log takes records again");
                    return;
                }
                Err(again) => {
                    drop(state);
                    tracing::error!(error = %again, "the audit log is still out of order");
                    unwritten.truncate(written);
                    if closing {
                        return;
                    }
                }
            }
        }
    }

    /// Waits, or not when the log is being closed: true then.
    fn pause(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.shared.lock();
        while !state.closing {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.shared.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.closing
    }

    fn set_failed(&self, failed: bool) {
        if let Some(metrics) = self.shared.metrics.get() {
            metrics.failed.set(i64::from(failed));
        }
    }
}

impl Drop for Writer {
    /// Whatever ends this thread, nobody waits for it in vain.
    fn drop(&mut self) {
        let gone = self.file.failure("keeping", io::Error::other("its writer has ended"));
        let mut state = self.shared.lock();
        let failure = Arc::clone(state.failure.get_or_insert_with(|| Arc::new(gone)));
        let mut pending = std::mem::take(&mut state.pending);
        drop(state);
        self.batch.complete(&Err(Arc::clone(&failure)));
        pending.complete(&Err(failure));
    }
}

/// A disk that takes this long for one sync is not one to wait for: requests are refused at once instead, until it answers.
const STALLED: Duration = Duration::from_secs(3);

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(10);
