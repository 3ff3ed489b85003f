//! When Fulcio is no longer asked, so that requests fail at once instead of each waiting for the same silence.
//!
//! Closed: everything passes. After so many failures in a row it opens: nothing passes, for a while. Then one request
//! is let through to try (half-open); it closes the circuit or opens it anew. What counts as a failure is that Fulcio
//! does not answer; an answer that is refused here is a matter of trust, and the next tenant's may be right.

#![forbid(unsafe_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config;
use crate::telemetry::alert;

/// The circuit of one Fulcio.
#[derive(Debug)]
pub(super) struct Circuit {
    failures: u32,
    open_for: Duration,
    state: Mutex<State>,
}

/// How the circuit is, for `/readyz` and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    /// Requests pass.
    Closed,
    /// Nothing passes.
    Open,
    /// The while is up: the next request tries, or one is under way that does. It counts as open for nobody, so that
    /// traffic comes back and tries.
    HalfOpen,
}

/// The right to ask Fulcio once. Dropped without a word, as when a request is given up, it counts for nothing, unless
/// it was the one that tries: then the circuit stays open for another while.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    circuit: &'a Circuit,
    probe: bool,
    told: bool,
}

#[derive(Debug)]
enum State {
    Closed { failed: u32 },
    Open { until: Instant },
    HalfOpen,
}

impl Circuit {
    pub(super) fn new(config: &config::Circuit) -> Self {
        let (failures, open_for) = (config.failures.get(), config.open_for.get());
        Self { failures, open_for, state: Mutex::new(State::Closed { failed: 0 }) }
    }

    /// Lets one request through, or says how long it makes no sense to ask again. Who has not `enough` time to hear
    /// Fulcio out is not the one that tries: it would find out nothing, and keep the others away.
    pub(super) fn pass(&self, now: Instant, enough: bool) -> Result<Pass<'_>, Duration> {
        let mut state = self.lock();
        let probe = match *state {
            State::Closed { .. } => false,
            State::Open { until } if now < until => return Err(until - now),
            State::Open { .. } if !enough => return Err(WHILE_TRYING),
            State::Open { .. } => {
                *state = State::HalfOpen;
                true
            }
            // The one that tries will know soon.
            State::HalfOpen => return Err(WHILE_TRYING),
        };
        Ok(Pass { circuit: self, probe, told: false })
    }

    /// How long nothing would pass, if so. It lets nobody through: [`pass`](Self::pass) does.
    pub(super) fn closed_for(&self, now: Instant) -> Option<Duration> {
        match *self.lock() {
            State::Open { until } if now < until => Some(until - now),
            State::HalfOpen => Some(WHILE_TRYING),
            State::Open { .. } | State::Closed { .. } => None,
        }
    }

    /// Once the while is up it is half open, though nobody has tried yet: were it open until somebody does, `/readyz`
    /// would keep away whoever could.
    pub(super) fn state(&self, now: Instant) -> CircuitState {
        match *self.lock() {
            State::Closed { .. } => CircuitState::Closed,
            State::Open { until } if now < until => CircuitState::Open,
            State::Open { .. } | State::HalfOpen => CircuitState::HalfOpen,
        }
    }

    fn open(&self, state: &mut State, for_at_least: Option<Duration>) {
        let open_for = for_at_least.map_or(self.open_for, |wanted| wanted.clamp(self.open_for, LONGEST));
        tracing::error!(name: alert::FULCIO_UNANSWERED, seconds = open_for.as_secs(), "Fulcio does not answer: it is left alone for a while");
        *state = State::Open { until: Instant::now() + open_for };
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// Fulcio answered, whatever it said.
    pub(super) fn answered(mut self) {
        self.told = true;
        let mut state = self.circuit.lock();
        match *state {
            State::Closed { .. } => *state = State::Closed { failed: 0 },
            // Somebody who asked before it opened says nothing about how Fulcio is now.
            _ if !self.probe => {}
            _ => {
                tracing::info!("Fulcio answers again");
                *state = State::Closed { failed: 0 };
            }
        }
    }

    /// Fulcio did not answer, or said that it cannot now, and for how long where it said that.
    pub(super) fn failed(mut self, retry_after: Option<Duration>) {
        self.told = true;
        let mut state = self.circuit.lock();
        match *state {
            State::Closed { failed } if failed + 1 < self.circuit.failures => {
                *state = State::Closed { failed: failed + 1 };
            }
            State::Closed { .. } => self.circuit.open(&mut state, retry_after),
            _ if self.probe => self.circuit.open(&mut state, retry_after),
            _ => {}
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.probe && !self.told {
            let mut state = self.circuit.lock();
            self.circuit.open(&mut state, None);
        }
    }
}

impl CircuitState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// For metrics and `/readyz`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What is told to those who ask while another one tries.
const WHILE_TRYING: Duration = Duration::from_secs(1);
/// However long a service says it wants to be left alone.
const LONGEST: Duration = Duration::from_secs(300);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Span;

    fn circuit(failures: u32, open_for: Span) -> Circuit {
        Circuit::new(&config::Circuit { failures: failures.try_into().unwrap(), open_for })
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_one_success_forgets_them() {
        let circuit = circuit(3, Span::seconds(10));
        let now = Instant::now();
        for _ in 0..2 {
            circuit.pass(now, true).unwrap().failed(None);
        }
        circuit.pass(now, true).unwrap().answered();
        for _ in 0..3 {
            assert_eq!(circuit.state(Instant::now()), CircuitState::Closed);
            circuit.pass(now, true).unwrap().failed(None);
        }
        assert_eq!(circuit.state(Instant::now()), CircuitState::Open);
        let wait = circuit.pass(Instant::now(), true).unwrap_err();
        assert!(wait > Duration::from_secs(9) && wait <= Duration::from_secs(10), "{wait:?}");
    }

    #[test]
    fn when_the_time_is_up_one_tries_for_all() {
        let circuit = circuit(1, Span::seconds(10));
        circuit.pass(Instant::now(), true).unwrap().failed(None);
        let later = Instant::now() + Duration::from_secs(11);
        let probe = circuit.pass(later, true).unwrap();
        assert_eq!(circuit.state(Instant::now()), CircuitState::HalfOpen);
        assert_eq!(circuit.pass(later, true).unwrap_err(), WHILE_TRYING);
        probe.answered();
        assert_eq!(circuit.state(Instant::now()), CircuitState::Closed);
        circuit.pass(later, true).unwrap().answered();
    }

    #[test]
    fn when_the_time_is_up_it_is_no_longer_open_though_nobody_has_tried() {
        let circuit = circuit(1, Span::seconds(10));
        circuit.pass(Instant::now(), true).unwrap().failed(None);
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(11));
        assert_eq!(circuit.state(now), CircuitState::Open);
        assert!(circuit.closed_for(now).is_some());
        assert_eq!(circuit.state(later), CircuitState::HalfOpen);
        assert_eq!(circuit.closed_for(later), None);
    }

    #[test]
    fn who_has_too_little_time_is_not_the_one_that_tries() {
        let circuit = circuit(1, Span::seconds(10));
        circuit.pass(Instant::now(), false).unwrap().failed(None);
        let later = Instant::now() + Duration::from_secs(11);
        assert_eq!(circuit.pass(later, false).unwrap_err(), WHILE_TRYING);
        circuit.pass(later, true).unwrap().answered();
        assert_eq!(circuit.state(later), CircuitState::Closed);
    }

    #[test]
    fn a_failed_or_abandoned_attempt_opens_it_anew() {
        let circuit = circuit(1, Span::seconds(10));
        circuit.pass(Instant::now(), true).unwrap().failed(None);
        let later = || Instant::now() + Duration::from_secs(11);
        circuit.pass(later(), true).unwrap().failed(None);
        assert_eq!(circuit.state(Instant::now()), CircuitState::Open);
        drop(circuit.pass(later(), true).unwrap());
        assert_eq!(circuit.state(Instant::now()), CircuitState::Open);
    }

    #[test]
    fn who_asked_before_it_opened_neither_closes_nor_prolongs_it() {
        let circuit = circuit(1, Span::seconds(10));
        let now = Instant::now();
        let (late_answer, late_failure) = (circuit.pass(now, true).unwrap(), circuit.pass(now, true).unwrap());
        circuit.pass(now, true).unwrap().failed(None);
        late_answer.answered();
        late_failure.failed(Some(Duration::from_secs(100)));
        assert_eq!(circuit.state(Instant::now()), CircuitState::Open);
        assert!(circuit.pass(Instant::now(), true).unwrap_err() <= Duration::from_secs(10));
    }

    #[test]
    fn fulcio_may_ask_for_more_time_within_reason() {
        let circuit = circuit(1, Span::seconds(10));
        circuit.pass(Instant::now(), true).unwrap().failed(Some(Duration::from_secs(1_000_000)));
        assert!(circuit.pass(Instant::now(), true).unwrap_err() <= LONGEST);
    }
}
