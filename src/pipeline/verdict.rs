//! What the caller is told and what the audit log says are one: whoever decides first decides for both.

use std::sync::atomic::{AtomicU8, Ordering::AcqRel, Ordering::Acquire};

/// How a request ends, from the view of the two who can end it: the one who carries it out, about to record an outcome,
/// and the one who watches its time limit. Decided once.
#[derive(Debug, Default)]
pub(crate) struct Verdict(AtomicU8);

impl Verdict {
    /// An outcome is about to be recorded. `false`: too late, the caller was told that the time is up.
    #[must_use]
    pub(crate) fn settle(&self) -> bool {
        self.decide(SETTLED)
    }

    /// The time is up. `false`: too late, an outcome is being recorded, and the caller must be told that.
    #[must_use]
    pub(crate) fn give_up(&self) -> bool {
        self.decide(GIVEN_UP)
    }

    fn decide(&self, way: u8) -> bool {
        match self.0.compare_exchange(OPEN, way, AcqRel, Acquire) {
            Ok(_) => true,
            Err(decided) => decided == way,
        }
    }
}

const OPEN: u8 = 0;
const SETTLED: u8 = 1;
const GIVEN_UP: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_decide_decides_for_both() {
        let settled = Verdict::default();
        assert!(settled.settle() && !settled.give_up() && settled.settle());
        let given_up = Verdict::default();
        assert!(given_up.give_up() && !given_up.settle() && given_up.give_up());
    }
}
