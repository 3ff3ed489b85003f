//! What the audit log is told of something that changes: every change while changes are rare, and of one that changes
//! without end how often it did.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

/// A state as the audit log knows it. Of each, [`BURST`] changes in a row are told, and then one every
/// [`REFILL`]; what was left out is counted, and told with the state that came of it.
#[derive(Debug)]
pub(super) struct Told<S> {
    /// As last told.
    told: Option<S>,
    /// As last seen.
    seen: Option<S>,
    /// Changes seen since something was told.
    changes: u64,
    left: u32,
    refilled: Option<Instant>,
}

/// What is to be told now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct News<S> {
    /// What was told last; `None` when nothing was.
    pub(super) before: Option<S>,
    /// Changes in between that were not told.
    pub(super) untold: u64,
}

impl<S> Default for Told<S> {
    fn default() -> Self {
        Self { told: None, seen: None, changes: 0, left: BURST, refilled: None }
    }
}

impl<S: Copy + PartialEq> Told<S> {
    /// One that is known to be in this state.
    pub(super) fn starting_with(state: S) -> Self {
        Self { told: Some(state), seen: Some(state), ..Self::default() }
    }

    /// Notes the state as it is now. Ask again also when nothing has changed: what could not be told before may be due.
    pub(super) fn note(&mut self, state: S) -> Option<News<S>> {
        self.note_at(state, Instant::now())
    }

    fn note_at(&mut self, state: S, now: Instant) -> Option<News<S>> {
        if self.seen != Some(state) {
            self.seen = Some(state);
            self.changes += 1;
        }
        if self.changes == 0 {
            return None;
        }
        let since = self.refilled.get_or_insert(now);
        while self.left < BURST && now.saturating_duration_since(*since) >= REFILL {
            self.left += 1;
            *since += REFILL;
        }
        if self.left == BURST {
            *since = now;
        }
        self.left = self.left.checked_sub(1)?;
        let news = News { before: self.told, untold: self.changes - 1 };
        (self.told, self.changes) = (Some(state), 0);
        Some(news)
    }
}

/// An outage with its end, twice.
const BURST: u32 = 4;

/// Of one key in one token no more than twelve records an hour.
const REFILL: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_changes_are_told_each_and_nothing_is_told_twice() {
        let (mut told, start) = (Told::starting_with('a'), Instant::now());
        assert_eq!(told.note_at('a', start), None);
        for (hour, state) in (0..).zip(['b', 'a', 'b', 'a', 'b', 'a', 'b', 'a']) {
            let now = start + hour * Duration::from_secs(3600);
            assert!(told.note_at(state, now).is_some_and(|news| news.untold == 0), "change {hour}");
            assert_eq!(told.note_at(state, now), None);
        }
    }

    #[test]
    fn a_state_that_flaps_is_told_rarely_with_its_count_and_with_how_it_ended() {
        let (mut told, start) = (Told::starting_with('a'), Instant::now());
        let mut news = Vec::new();
        // Ten changes a second for ten minutes.
        for tick in 1..=6_000u32 {
            let state = if tick % 2 == 0 { 'a' } else { 'b' };
            news.extend(told.note_at(state, start + tick * Duration::from_millis(100)));
        }
        assert_eq!(news.len(), 5, "four at once, one after five minutes: {news:?}");
        assert!(news[4].untold > 2_900, "{news:?}");
        let later = start + Duration::from_secs(3600);
        let last = told.note_at('a', later);
        assert!(last.is_some_and(|last| last.untold > 2_900), "it ended as it was told before, and flapped: {last:?}");
        let said: u64 = news.iter().chain(&last).map(|news| news.untold + 1).sum();
        assert_eq!(said, 6_000, "no change is lost from the count");
        assert_eq!(told.note_at('a', later), None);
    }
}
