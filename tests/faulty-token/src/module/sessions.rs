//! The sessions of the application.
//!
//! The application is given handles of our own, which are never given twice: a handle that it should have forgotten is
//! recognised, and the real session behind a lost one is closed without it.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use cryptoki_sys::{CK_MECHANISM_TYPE, CK_OBJECT_HANDLE, CK_SESSION_HANDLE, CK_SLOT_ID, CK_ULONG};

use super::lock;
use crate::Ckr;

/// All sessions that there ever were.
#[derive(Default)]
pub(super) struct Sessions {
    all: RwLock<BTreeMap<CK_SESSION_HANDLE, Arc<Session>>>,
    last: AtomicU64,
    most: AtomicU64,
    /// Held while one is opened, so that a limit is exact.
    pub(super) opening: Mutex<()>,
}

impl Sessions {
    /// Enters a session that the real module opened, and gives the handle for the application.
    pub(super) fn enter(&self, real: CK_SESSION_HANDLE, slot: CK_SLOT_ID) -> CK_SESSION_HANDLE {
        let handle = FIRST + self.last.fetch_add(1, Ordering::Relaxed) as CK_ULONG;
        let session = Session {
            real,
            slot,
            fate: Mutex::new(Fate::Open),
            busy: AtomicBool::new(false),
            known_lost: AtomicBool::new(false),
            used: Mutex::new(Instant::now()),
            work: Mutex::default(),
        };
        self.all.write().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::new(session));
        self.most.fetch_max(self.open().0, Ordering::Relaxed);
        handle
    }

    pub(super) fn find(&self, handle: CK_SESSION_HANDLE) -> Option<Arc<Session>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).get(&handle).cloned()
    }

    /// How many are open, and how many were at most.
    pub(super) fn open(&self) -> (u64, u64) {
        let open = self.having(|session| session.fate() == Fate::Open).len() as u64;
        (open, self.most.load(Ordering::Relaxed))
    }

    /// From now on, those that are open now are the most.
    pub(super) fn reset(&self) {
        self.most.store(self.open().0, Ordering::Relaxed);
    }

    /// Those of which `wanted` holds.
    pub(super) fn having(&self, wanted: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.values().filter(|session| wanted(session)).cloned().collect()
    }
}

/// A session.
pub(super) struct Session {
    pub(super) real: CK_SESSION_HANDLE,
    pub(super) slot: CK_SLOT_ID,
    fate: Mutex<Fate>,
    busy: AtomicBool,
    /// Whether the application was told that it is gone.
    pub(super) known_lost: AtomicBool,
    used: Mutex<Instant>,
    pub(super) work: Mutex<Work>,
}

impl Session {
    pub(super) fn fate(&self) -> Fate {
        *lock(&self.fate)
    }

    /// Changes its fate; whether it was open until now.
    pub(super) fn meets(&self, fate: Fate) -> bool {
        let mut now = lock(&self.fate);
        let was_open = *now == Fate::Open;
        // The application's own close is the end; a session that is lost is lost in the way it was first.
        if was_open || fate == Fate::Closed {
            *now = fate;
        }
        was_open
    }

    /// Marks a call on it; `None` where another is under way.
    pub(super) fn occupy(self: &Arc<Self>) -> Option<Busy> {
        (!self.busy.swap(true, Ordering::AcqRel)).then(|| Busy(Arc::clone(self)))
    }

    /// How long nobody used it; from now on, no time.
    pub(super) fn use_now(&self) -> Duration {
        let mut used = lock(&self.used);
        let idle = used.elapsed();
        *used = Instant::now();
        idle
    }
}

/// What became of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Open,
    /// The device dropped it and gives this.
    Lost(Ckr),
    /// The application closed it.
    Closed,
}

/// What is under way on a session.
#[derive(Default)]
pub(super) struct Work {
    pub(super) signing: Option<Signing>,
    /// Virtual objects that a search still has to give.
    pub(super) found: VecDeque<CK_OBJECT_HANDLE>,
    /// The search is for one of them by name, and the real module was not asked.
    pub(super) searches_here: bool,
}

/// A signing operation.
#[derive(Clone, Copy)]
pub(super) struct Signing {
    pub(super) mechanism: CK_MECHANISM_TYPE,
    /// Whether the mechanism came without parameters, so that it can be used again.
    pub(super) plain: bool,
    pub(super) key: CK_OBJECT_HANDLE,
    /// Whether the real module was not told yet.
    pub(super) deferred: bool,
}

/// A call on a session.
pub(super) struct Busy(Arc<Session>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
        *lock(&self.0.used) = Instant::now();
    }
}

// Far from the small numbers of real modules, so that one cannot be taken for the other.
const FIRST: CK_SESSION_HANDLE = 0x5e55_0001;
