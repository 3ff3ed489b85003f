//! Callers who never stop asking, and what they were answered.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use testkit::client::{Answer, Client};
use testkit::sample;

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    pub(crate) signed: bool,
}

/// The callers together.
pub(crate) struct Load {
    shared: Arc<Shared>,
    callers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    asked: Mutex<Vec<Asked>>,
    /// Audit ids of all signatures that left.
    signed: Mutex<HashSet<String>>,
    /// What must not happen.
    violations: Mutex<Vec<String>>,
    paused: AtomicBool,
    over: AtomicBool,
    /// Callers in a request.
    busy: AtomicUsize,
}

impl Load {
    /// Callers with a connection each, whose signatures must be by the key of this point.
    pub(crate) fn start(client: &Client, point: &[u8]) -> Self {
        let shared = Arc::<Shared>::default();
        let callers = (0..CALLERS)
            .map(|_| {
                let (shared, client, point) = (Arc::clone(&shared), client.fork(), point.to_vec());
                std::thread::spawn(move || shared.call(&client, &point))
            })
            .collect();
        Self { shared, callers }
    }

    /// Requests so far.
    pub(crate) fn count(&self) -> usize {
        locked(&self.shared.asked).len()
    }

    /// The requests from this one on.
    pub(crate) fn since(&self, first: usize) -> Vec<Asked> {
        locked(&self.shared.asked)[first..].to_vec()
    }

    /// Nobody asks while this acts, and no request is under way.
    pub(crate) fn paused<T>(&self, act: impl FnOnce() -> T) -> T {
        self.shared.paused.store(true, SeqCst);
        while self.shared.busy.load(SeqCst) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let done = act();
        self.shared.paused.store(false, SeqCst);
        done
    }

    /// What should not have happened so far.
    pub(crate) fn violations(&self) -> Vec<String> {
        locked(&self.shared.violations).clone()
    }

    /// Has everybody stop; gives the audit ids of the signatures that left, and what should not have happened.
    pub(crate) fn stop(mut self) -> (HashSet<String>, Vec<String>) {
        self.shared.over.store(true, SeqCst);
        for caller in self.callers.drain(..) {
            caller.join().unwrap();
        }
        (std::mem::take(&mut locked(&self.shared.signed)), std::mem::take(&mut locked(&self.shared.violations)))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.over.store(true, SeqCst);
    }
}

impl Shared {
    fn call(&self, client: &Client, point: &[u8]) {
        while !self.over.load(SeqCst) {
            self.busy.fetch_add(1, SeqCst);
            if self.paused.load(SeqCst) {
                self.busy.fetch_sub(1, SeqCst);
                std::thread::sleep(PAUSE);
                continue;
            }
            // No two requests are alike: a signature made for one is wrong for every other.
            let mut body = sample::request();
            body["subject"][0]["digest"]["sha256"] = testkit::hex(testkit::sha256(testkit::random_id())).into();
            let began = Instant::now();
            let answer = client.sign(&body).try_send();
            let ended = Instant::now();
            let signed = match answer {
                Ok(answer) => self.judge(&answer, point),
                Err(error) => {
                    locked(&self.violations).push(format!("no answer: {error}"));
                    false
                }
            };
            locked(&self.asked).push(Asked { began, ended, signed });
            self.busy.fetch_sub(1, SeqCst);
            std::thread::sleep(PAUSE);
        }
    }

    fn judge(&self, answer: &Answer, point: &[u8]) -> bool {
        match answer.status {
            200 => {
                if let Err(error) = answer.envelope().verify(point) {
                    locked(&self.violations).push(format!("a wrong signature left: {error}: {answer}"));
                }
                let id = answer.audit_id().unwrap_or_else(|| panic!("a signature without an audit id: {answer}"));
                locked(&self.signed).insert(id);
                true
            }
            429 | 503 => {
                if answer.header("retry-after").is_none() {
                    locked(&self.violations).push(format!("a refusal without Retry-After: {answer}"));
                }
                false
            }
            _ => {
                locked(&self.violations).push(format!("neither 200 nor 429 nor 503: {answer}"));
                false
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const CALLERS: usize = 64;

/// Between two requests of one caller: together they still ask for more than a test machine can sign.
const PAUSE: Duration = Duration::from_millis(20);
