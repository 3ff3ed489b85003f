//! What the module saw.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::process;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Module, lock};
use crate::{Counters, Function, FunctionCounters, Misuse, MisuseKind};

/// Counters, without a lock where every call passes.
pub(super) struct Tally {
    functions: [Calls; Function::ALL.len()],
    under_way: AtomicU64,
    pub(super) signatures: AtomicU64,
    pub(super) corrupted: AtomicU64,
    pub(super) remembered: AtomicU64,
    misuse: Mutex<BTreeMap<(MisuseKind, Function), u64>>,
    loads: u64,
}

impl Tally {
    pub(super) fn new(loads: u64) -> Self {
        Self {
            functions: [const { Calls::new() }; Function::ALL.len()],
            under_way: AtomicU64::new(0),
            signatures: AtomicU64::new(0),
            corrupted: AtomicU64::new(0),
            remembered: AtomicU64::new(0),
            misuse: Mutex::default(),
            loads,
        }
    }

    /// Counts a call, which is under way until the guard is dropped.
    pub(super) fn begin(&self, function: Function, length_query: bool) -> UnderWay<'_> {
        let calls = &self.functions[function as usize];
        add(if length_query { &calls.length_queries } else { &calls.calls });
        let in_flight = add(&calls.in_flight);
        calls.most_in_flight.fetch_max(in_flight, Ordering::Relaxed);
        if function != Function::C_WaitForSlotEvent {
            add(&self.under_way);
        }
        UnderWay { tally: self, function }
    }

    /// Calls that are under way, but for those that only wait for a slot.
    pub(super) fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::Acquire)
    }

    pub(super) fn injected(&self, function: Function) {
        add(&self.functions[function as usize].injected);
    }

    pub(super) fn misuse(&self, kind: MisuseKind, function: Function) {
        *lock(&self.misuse).entry((kind, function)).or_default() += 1;
    }

    pub(super) fn reset(&self) {
        for calls in &self.functions {
            for counter in [&calls.calls, &calls.length_queries, &calls.injected] {
                counter.store(0, Ordering::Relaxed);
            }
            calls.most_in_flight.store(calls.in_flight.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        for counter in [&self.signatures, &self.corrupted, &self.remembered] {
            counter.store(0, Ordering::Relaxed);
        }
        lock(&self.misuse).clear();
    }
}

impl Module {
    /// What the module saw.
    pub(super) fn counters(&self) -> Counters {
        let tally = &self.tally;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let functions = Function::ALL.iter().map(|function| {
            let calls = &tally.functions[*function as usize];
            let counters = FunctionCounters {
                calls: read(&calls.calls),
                length_queries: read(&calls.length_queries),
                injected: read(&calls.injected),
                in_flight: read(&calls.in_flight),
                most_in_flight: read(&calls.most_in_flight),
            };
            (*function, counters)
        });
        let misuse = lock(&tally.misuse);
        let (sessions, most_sessions) = self.sessions.open();
        Counters {
            pid: process::id(),
            loads: tally.loads,
            functions: functions.filter(|(_, counters)| *counters != FunctionCounters::default()).collect(),
            signatures: read(&tally.signatures),
            corrupted: read(&tally.corrupted),
            remembered: read(&tally.remembered),
            sessions,
            most_sessions,
            hanging: self.hold.hanging(),
            late_us: self.lanes.late_us(),
            pin: self.state.read().map(|state| state.pin).unwrap_or_default(),
            misuse: misuse.iter().map(|(&(kind, function), &count)| Misuse { kind, function, count }).collect(),
        }
    }
}

/// A call that is under way.
pub(super) struct UnderWay<'a> {
    tally: &'a Tally,
    function: Function,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.tally.functions[self.function as usize].in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.function != Function::C_WaitForSlotEvent {
            self.tally.under_way.fetch_sub(1, Ordering::Release);
        }
    }
}

struct Calls {
    calls: AtomicU64,
    length_queries: AtomicU64,
    injected: AtomicU64,
    in_flight: AtomicU64,
    most_in_flight: AtomicU64,
}

impl Calls {
    const fn new() -> Self {
        Self {
            calls: AtomicU64::new(0),
            length_queries: AtomicU64::new(0),
            injected: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            most_in_flight: AtomicU64::new(0),
        }
    }
}

/// One more; gives the new value.
pub(super) fn add(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::AcqRel) + 1
}
