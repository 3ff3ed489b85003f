//! Starts the worker again when it has ended, as the service manager does.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use testkit::Fixture;

/// Looks after a fixture's worker until it is told to stop.
pub(crate) struct Supervisor {
    fixture: Arc<Mutex<Option<Fixture>>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    restarts: AtomicU64,
}

impl Supervisor {
    pub(crate) fn start(fixture: Fixture) -> Self {
        let (fixture, shared) = (Arc::new(Mutex::new(Some(fixture))), Arc::<Shared>::default());
        let (watched, told) = (Arc::clone(&fixture), Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            while !told.over.load(SeqCst) {
                std::thread::sleep(LOOK);
                let runs =
                    locked(&watched).as_mut().is_none_or(|fixture| fixture.appliance.worker("main").is_running());
                if runs {
                    continue;
                }
                std::thread::sleep(RESTART_PAUSE);
                if let Some(fixture) = &mut *locked(&watched) {
                    fixture.appliance.start_worker("main").unwrap();
                }
                told.restarts.fetch_add(1, SeqCst);
            }
        });
        Self { fixture, shared, thread: Some(thread) }
    }

    /// The fixture, for a moment: while it is held nobody starts the worker.
    pub(crate) fn fixture(&self) -> Borrowed<'_> {
        Borrowed(locked(&self.fixture))
    }

    /// How often the worker was started again.
    pub(crate) fn restarts(&self) -> u64 {
        self.shared.restarts.load(SeqCst)
    }

    /// Looks no longer, and gives the fixture back.
    pub(crate) fn stop(mut self) -> Fixture {
        self.end();
        locked(&self.fixture).take().expect("it is taken out here only")
    }

    fn end(&mut self) {
        self.shared.over.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.end();
    }
}

/// See [`Supervisor::fixture`].
pub(crate) struct Borrowed<'a>(MutexGuard<'a, Option<Fixture>>);

impl Deref for Borrowed<'_> {
    type Target = Fixture;

    fn deref(&self) -> &Fixture {
        self.0.as_ref().expect("the supervisor has it until it is stopped")
    }
}

impl DerefMut for Borrowed<'_> {
    fn deref_mut(&mut self) -> &mut Fixture {
        self.0.as_mut().expect("the supervisor has it until it is stopped")
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const LOOK: Duration = Duration::from_millis(5);

/// `RestartSec=100ms`.
const RESTART_PAUSE: Duration = Duration::from_millis(100);
