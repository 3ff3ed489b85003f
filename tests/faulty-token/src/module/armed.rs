//! The faults that wait for their call.

#![forbid(unsafe_code)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{Module, lock};
use crate::{Chance, Delay, Effect, Fault, Function, Times};

/// The faults that wait.
#[derive(Default)]
pub(super) struct Faults {
    armed: Mutex<Armory>,
    // Read without the lock, because most calls find none.
    count: AtomicUsize,
}

impl Faults {
    /// Arms a fault and gives its number.
    pub(super) fn arm(&self, fault: Fault) -> u64 {
        let mut armory = lock(&self.armed);
        armory.last_id += 1;
        let id = armory.last_id;
        armory.faults.push(Armed {
            id,
            left: match fault.times {
                Times::Forever => None,
                Times::Count(times) => Some(times),
            },
            skip: fault.skip,
            random: Random::new(fault.chance.map_or(id, |chance| chance.seed)),
            fault,
        });
        self.count.store(armory.faults.len(), Ordering::Release);
        id
    }

    pub(super) fn lift(&self, id: u64) {
        self.keep(|armed| armed.id != id);
    }

    pub(super) fn clear(&self) {
        self.keep(|_| false);
    }

    /// The faults to be kept for the next process, as they stand.
    pub(super) fn persistent(&self) -> Vec<Fault> {
        let armory = lock(&self.armed);
        let standing = |armed: &Armed| Fault {
            times: armed.left.map_or(Times::Forever, Times::Count),
            skip: armed.skip,
            ..armed.fault.clone()
        };
        armory.faults.iter().filter(|armed| armed.fault.persist).map(standing).collect()
    }

    /// What falls on this call of `function`.
    fn draw(&self, function: Function) -> Drawn {
        let mut drawn = Drawn::default();
        if self.count.load(Ordering::Acquire) == 0 {
            return drawn;
        }
        let mut armory = lock(&self.armed);
        for armed in &mut armory.faults {
            let concerned = armed.fault.function.map_or(function.is_any(), |named| named == function);
            let delay_only = armed.fault.effect == Effect::Proceed;
            if !concerned || (drawn.effect.is_some() && !delay_only) || !armed.falls() {
                continue;
            }
            drawn.fallen = true;
            drawn.changed |= armed.fault.persist;
            drawn.delay += armed.fault.delay.map_or(Duration::ZERO, |delay| armed.random.delay(delay));
            if !delay_only {
                drawn.effect = Some(armed.fault.effect.clone());
            }
        }
        armory.faults.retain(|armed| armed.left != Some(0));
        self.count.store(armory.faults.len(), Ordering::Release);
        drawn
    }

    fn keep(&self, keep: impl Fn(&Armed) -> bool) {
        let mut armory = lock(&self.armed);
        armory.faults.retain(keep);
        self.count.store(armory.faults.len(), Ordering::Release);
    }
}

impl Module {
    /// What falls on this call; the next process is told of what is spent before it happens.
    pub(super) fn draw(&self, function: Function) -> Drawn {
        let drawn = self.faults.draw(function);
        if drawn.changed {
            self.remember_faults();
        }
        drawn
    }

    pub(super) fn remember_faults(&self) {
        let faults = self.faults.persistent();
        self.remember(|state| state.faults = faults);
    }
}

/// What falls on a call.
#[derive(Default)]
pub(super) struct Drawn {
    pub(super) fallen: bool,
    pub(super) delay: Duration,
    pub(super) effect: Option<Effect>,
    changed: bool,
}

#[derive(Default)]
struct Armory {
    faults: Vec<Armed>,
    last_id: u64,
}

struct Armed {
    id: u64,
    fault: Fault,
    left: Option<u64>,
    skip: u64,
    random: Random,
}

impl Armed {
    fn falls(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if self.fault.chance.is_some_and(|Chance { probability, .. }| self.random.unit() >= probability) {
            return false;
        }
        if let Some(left) = &mut self.left {
            let Some(fewer) = left.checked_sub(1) else { return false };
            *left = fewer;
        }
        true
    }
}

/// SplitMix64: small, seeded, and good enough to scatter faults.
#[derive(Default)]
pub(super) struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A delay drawn from its range.
    pub(super) fn delay(&mut self, delay: Delay) -> Duration {
        let jitter = if delay.jitter_us == 0 { 0 } else { self.next() % delay.jitter_us.saturating_add(1) };
        Duration::from_micros(delay.fixed_us.saturating_add(jitter))
    }

    /// From 0, to 1 but for 1.
    fn unit(&mut self) -> f64 {
        #[allow(clippy::cast_precision_loss)]
        let unit = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        unit
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ckr::{CKR_DEVICE_ERROR, CKR_GENERAL_ERROR};

    fn codes(faults: &Faults, function: Function, calls: usize) -> Vec<Option<Effect>> {
        (0..calls).map(|_| faults.draw(function).effect).collect()
    }

    #[test]
    fn a_fault_lets_calls_go_by_then_falls_as_often_as_told_and_is_spent() {
        let faults = Faults::default();
        faults.arm(Fault::on(Function::C_Sign).returns(CKR_DEVICE_ERROR).after(2).times(1));
        let effect = Some(Effect::Return { code: CKR_DEVICE_ERROR });
        assert_eq!(codes(&faults, Function::C_Login, 3), [None, None, None]);
        assert_eq!(codes(&faults, Function::C_Sign, 4), [None, None, effect, None]);
        assert_eq!(faults.count.load(Ordering::Acquire), 0);
    }

    #[test]
    fn a_fault_on_any_function_spares_those_that_start_and_stop_the_module() {
        let faults = Faults::default();
        faults.arm(Fault::on_any().returns(CKR_DEVICE_ERROR));
        assert!(!faults.draw(Function::C_Initialize).fallen);
        assert!(faults.draw(Function::C_GetTokenInfo).fallen);
    }

    #[test]
    fn delays_add_up_and_the_first_of_the_other_effects_wins() {
        let faults = Faults::default();
        let delayed = || Fault::on(Function::C_Sign).delayed(Duration::from_millis(3));
        faults.arm(delayed());
        faults.arm(delayed().returns(CKR_DEVICE_ERROR));
        faults.arm(delayed().returns(CKR_GENERAL_ERROR).once());
        faults.arm(delayed());
        let drawn = faults.draw(Function::C_Sign);
        assert_eq!(drawn.effect, Some(Effect::Return { code: CKR_DEVICE_ERROR }));
        assert_eq!(drawn.delay, Duration::from_millis(9));
        assert_eq!(lock(&faults.armed).faults.len(), 4, "a fault that did not fall must not be spent");
    }

    #[test]
    fn a_chance_is_kept_and_the_same_seed_repeats_it() {
        let run = |seed| {
            let faults = Faults::default();
            faults.arm(Fault::on(Function::C_Sign).returns(CKR_DEVICE_ERROR).with_chance(0.25, seed));
            (0..4000).map(|_| faults.draw(Function::C_Sign).fallen).collect::<Vec<_>>()
        };
        let fallen = run(7).into_iter().filter(|fallen| *fallen).count();
        assert!((800..1200).contains(&fallen), "{fallen} of 4000 at a chance of a quarter");
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn what_outlives_the_process_is_what_is_left_of_it() {
        let faults = Faults::default();
        faults.arm(Fault::on(Function::C_Sign).returns(CKR_DEVICE_ERROR));
        faults.arm(Fault::on(Function::C_Login).returns(CKR_DEVICE_ERROR).times(3).persistent());
        assert!(faults.draw(Function::C_Login).changed);
        let kept = faults.persistent();
        assert_eq!(kept.iter().map(|fault| fault.times).collect::<Vec<_>>(), [Times::Count(2)]);
    }
}
