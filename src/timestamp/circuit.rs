//! When an authority is left alone, so that requests do not all wait for the same silence.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::LONGEST_PAUSE;

/// What is known of one authority. After `limit` failures in a row nobody asks it for a while; then one does, and the
/// others wait for what becomes of that.
#[derive(Debug)]
pub(super) struct Circuit {
    limit: u32,
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    closed_until: Option<Instant>,
}

/// The right to ask once. Dropped without a word, as when a request is given up, it counts for nothing.
#[must_use]
pub(super) struct Pass<'a> {
    circuit: &'a Circuit,
    tries: bool,
}

impl Circuit {
    pub(super) fn new(limit: u32, pause: Duration) -> Self {
        Self { limit: limit.max(1), pause, state: Mutex::default() }
    }

    /// Lets one through, or says how long nobody should ask. One that tries after a pause keeps the others away for as
    /// long as its call may last, so that one given up in between blocks nothing for good.
    pub(super) fn pass(&self, now: Instant, call: Duration) -> Result<Pass<'_>, Duration> {
        let mut state = self.lock();
        match state.closed_until {
            Some(until) if now < until => return Err(until - now),
            Some(_) => state.closed_until = Some(now + call),
            None => return Ok(Pass { circuit: self, tries: false }),
        }
        Ok(Pass { circuit: self, tries: true })
    }

    /// Failures in a row, and how long it is left alone.
    pub(super) fn state(&self, now: Instant) -> (u32, Option<Duration>) {
        let state = self.lock();
        let left =
            state.closed_until.and_then(|until| until.checked_duration_since(now)).filter(|left| !left.is_zero());
        (state.failures, left)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    pub(super) fn succeeded(self) {
        *self.circuit.lock() = State::default();
    }

    /// Returns the failures in a row.
    pub(super) fn failed(self, now: Instant) -> u32 {
        let (limit, pause) = (self.circuit.limit, self.circuit.pause);
        let mut state = self.circuit.lock();
        // Many that were under way together fail together; that is one outage, not many in a row.
        if state.closed_until.is_some() && !self.tries {
            return state.failures;
        }
        state.failures = state.failures.saturating_add(1);
        if state.failures >= limit {
            let doublings = (state.failures - limit).min(16);
            let pause = pause.saturating_mul(1 << doublings).min(LONGEST_PAUSE.max(pause));
            state.closed_until = Some(now + pause);
        }
        state.failures
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const CALL: Duration = Duration::from_secs(5);
    const PAUSE: Duration = Duration::from_secs(1);

    #[test]
    fn failures_in_a_row_pause_it_longer_each_time_and_one_success_forgives_all() {
        let circuit = Circuit::new(2, PAUSE);
        let mut now = Instant::now();
        circuit.pass(now, CALL).unwrap().failed(now);
        circuit.pass(now, CALL).unwrap().failed(now);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let left = circuit.pass(now, CALL).err().unwrap();
            assert_eq!(left, Duration::from_secs(seconds));
            now += left;
            circuit.pass(now, CALL).unwrap().failed(now);
        }
        now += LONGEST_PAUSE;
        circuit.pass(now, CALL).unwrap().succeeded();
        assert_eq!(circuit.state(now), (0, None));
        circuit.pass(now, CALL).unwrap().failed(now);
        assert!(circuit.pass(now, CALL).is_ok(), "one failure alone pauses nothing");
    }

    #[test]
    fn what_failed_together_is_one_failure_in_a_row() {
        let circuit = Circuit::new(1, PAUSE);
        let now = Instant::now();
        let under_way: Vec<Pass<'_>> = (0..50).map(|_| circuit.pass(now, CALL).unwrap()).collect();
        for pass in under_way {
            pass.failed(now);
        }
        assert_eq!(circuit.state(now), (1, Some(PAUSE)));
    }

    #[test]
    fn one_tries_after_a_pause_and_if_it_is_given_up_the_next_one_may() {
        let circuit = Circuit::new(1, PAUSE);
        let now = Instant::now();
        circuit.pass(now, CALL).unwrap().failed(now);
        let later = now + PAUSE;
        drop(circuit.pass(later, CALL).unwrap());
        assert_eq!(circuit.pass(later, CALL).err(), Some(CALL));
        assert!(circuit.pass(later + CALL, CALL).is_ok());
    }
}
