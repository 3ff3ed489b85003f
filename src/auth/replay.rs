//! The memory of the proofs that were accepted, so that none is accepted twice.
//!
//! A proof is remembered as a keyed 64-bit hash of its key and `jti`, for at least as long as it could be accepted.
//! Two proofs that collide by chance (one in 10^13 at two million remembered ones) cost one of them a refusal, never
//! an acceptance. Time is cut into spans; what was remembered in one span is forgotten together.
//!
//! One tenant cannot take all the room: from three quarters on, whoever holds more than half of it waits.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::UnixTime;

pub(super) struct ReplayMemory {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    remembered: AtomicUsize,
    limit: usize,
    started: Instant,
    /// For how long every proof is remembered at least.
    keep: Duration,
    span: Duration,
}

/// Why a proof must not be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It was accepted before.
    Replayed,
    /// By its own account it is as old as proofs that are forgotten already, so nobody can tell. Only a wall clock that
    /// was set back, or one that had run ahead, brings one here.
    Forgotten,
    /// There is no room to remember it, or what is left is for other tenants. One that is still acceptable is never
    /// forgotten to make room.
    Full,
}

#[derive(Default)]
struct Shard {
    span: u64,
    generations: [Generation; GENERATIONS],
    /// The latest moment up to which a forgotten proof was acceptable.
    forgotten_until: Option<UnixTime>,
}

#[derive(Default)]
struct Generation {
    proofs: HashSet<u64, BuildHasherDefault<Hashed>>,
    /// How many of them each tenant brought, by a keyed hash of its name.
    tenants: HashMap<u64, usize, BuildHasherDefault<Hashed>>,
    acceptable_until: Option<UnixTime>,
}

impl ReplayMemory {
    /// Remembers at most `limit` proofs, each for at least `keep`.
    pub(super) fn new(limit: usize, keep: Duration, started: Instant) -> Self {
        // What is remembered in one span is kept for the next three. The extra seconds cover that proofs count in
        // whole ones.
        let span = (keep + Duration::from_secs(2)) / 3 + Duration::from_millis(1);
        let shards = std::array::from_fn(|_| Mutex::default());
        let (hasher, remembered) = (RandomState::new(), AtomicUsize::new(0));
        Self { shards, hasher, remembered, limit, started, keep, span }
    }

    /// Remembers a proof with this key and `jti`, acceptable until `until`, if it has not been seen. `age` is
    /// how long ago it can have been made at most, by the steady clock, where that is known. `tenant` is who brings it,
    /// where there are several: a quarter of the room is for tenants that hold less than half of it.
    pub(super) fn remember(
        &self,
        tenant: Option<&str>,
        (jkt, jti): (&[u8; 32], &str),
        until: UnixTime,
        age: Option<Duration>,
        now: Instant,
    ) -> Result<(), Refusal> {
        let proof = self.hasher.hash_one((jkt, jti));
        let tenant = tenant.map(|tenant| self.hasher.hash_one(tenant));
        let span = self.span_at(now);
        // One made within the time that is remembered would be remembered, had it been used.
        let recent = age.is_some_and(|age| age <= self.keep);
        match self.remember_hashed(tenant, proof, until, recent, span) {
            Err(Refusal::Full) => {
                self.forget_old(now);
                self.remember_hashed(tenant, proof, until, recent, span)
            }
            verdict => verdict,
        }
    }

    /// Forgets what no longer needs remembering in every shard, the quiet ones too.
    pub(super) fn forget_old(&self, now: Instant) {
        let span = self.span_at(now);
        for shard in &self.shards {
            self.advance(&mut lock(shard), span);
        }
    }

    /// How long until some room is made for sure.
    pub(super) fn room_after(&self) -> Duration {
        self.span
    }

    fn remember_hashed(
        &self,
        tenant: Option<u64>,
        proof: u64,
        until: UnixTime,
        recent: bool,
        span: u64,
    ) -> Result<(), Refusal> {
        // The set's own table takes the low and the topmost bits.
        let mut shard = lock(&self.shards[(proof >> 40) as usize % SHARDS]);
        self.advance(&mut shard, span);
        if !recent && shard.forgotten_until.is_some_and(|forgotten| until <= forgotten) {
            return Err(Refusal::Forgotten);
        }
        if shard.generations.iter().any(|generation| generation.proofs.contains(&proof)) {
            return Err(Refusal::Replayed);
        }
        let before = self.remembered.fetch_add(1, Ordering::Relaxed);
        // Proofs fall into the shards by chance, so that this one tells how the tenants share all of them.
        let scarce = before >= self.limit - self.limit / 4;
        if before >= self.limit || scarce && tenant.is_some_and(|tenant| shard.holds_more_than_half(tenant)) {
            self.remembered.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Full);
        }
        let current = (shard.span % GENERATIONS as u64) as usize;
        let generation = &mut shard.generations[current];
        generation.proofs.insert(proof);
        if let Some(tenant) = tenant {
            *generation.tenants.entry(tenant).or_default() += 1;
        }
        generation.acceptable_until = generation.acceptable_until.max(Some(until));
        Ok(())
    }

    fn advance(&self, shard: &mut Shard, span: u64) {
        let passed = span.saturating_sub(shard.span).min(GENERATIONS as u64);
        for step in 1..=passed {
            let oldest = std::mem::take(&mut shard.generations[((shard.span + step) % GENERATIONS as u64) as usize]);
            self.remembered.fetch_sub(oldest.proofs.len(), Ordering::Relaxed);
            shard.forgotten_until = shard.forgotten_until.max(oldest.acceptable_until);
        }
        shard.span = shard.span.max(span);
    }

    fn span_at(&self, now: Instant) -> u64 {
        let spans = now.saturating_duration_since(self.started).as_millis() / self.span.as_millis().max(1);
        u64::try_from(spans).unwrap_or(u64::MAX)
    }
}

impl Shard {
    fn holds_more_than_half(&self, tenant: u64) -> bool {
        let own = |generation: &Generation| generation.tenants.get(&tenant).copied().unwrap_or(0);
        let own: usize = self.generations.iter().map(own).sum();
        let all: usize = self.generations.iter().map(|generation| generation.proofs.len()).sum();
        own > all / 2
    }
}

// Every update leaves a shard consistent, so a panic elsewhere in a holder does no harm.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What comes in is a keyed hash already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

const SHARDS: usize = 16;
const GENERATIONS: usize = 4;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The only one.
    const TENANT: Option<&str> = None;
    const KEY: [u8; 32] = [7; 32];
    const KEEP: Duration = Duration::from_secs(120);

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_proof_is_remembered_as_long_as_it_could_be_accepted() {
        let start = Instant::now();
        // Whatever the place in the span it is first seen at.
        for first in 0..200 {
            let memory = ReplayMemory::new(10, KEEP, start);
            let until = UnixTime(i64::try_from(1_000_000 + first + 120).unwrap());
            memory.remember(TENANT, (&KEY, "a"), until, None, at(start, first)).unwrap();
            for later in [0, 1, 60, 119, 120, 121] {
                let verdict = memory.remember(TENANT, (&KEY, "a"), until, None, at(start, first + later));
                assert_eq!(verdict, Err(Refusal::Replayed), "first {first}, later {later}");
            }
        }
    }

    #[test]
    fn a_forgotten_proof_is_refused_even_when_the_wall_clock_goes_back() {
        let start = Instant::now();
        let memory = ReplayMemory::new(10, KEEP, start);
        memory.remember(TENANT, (&KEY, "a"), UnixTime(1_000_120), None, start).unwrap();
        assert_eq!(
            memory.remember(TENANT, (&KEY, "a"), UnixTime(1_000_120), None, at(start, 1000)),
            Err(Refusal::Forgotten)
        );
        // What is forgotten makes room, and fresh proofs pass.
        assert_eq!(memory.remembered.load(Ordering::Relaxed), 0);
        memory.remember(TENANT, (&KEY, "b"), UnixTime(1_001_120), None, at(start, 1000)).unwrap();
    }

    #[test]
    fn a_proof_that_is_recent_by_the_steady_clock_passes_where_the_wall_clock_had_run_ahead() {
        let start = Instant::now();
        let memory = ReplayMemory::new(10, KEEP, start);
        // Accepted while the wall clock was a day ahead, and forgotten since.
        memory.remember(TENANT, (&KEY, "a"), UnixTime(1_086_400), None, start).unwrap();
        let later = at(start, 1000);
        let until = UnixTime(1_001_120);
        assert_eq!(memory.remember(TENANT, (&KEY, "a"), until, None, later), Err(Refusal::Forgotten));
        let beyond = Some(KEEP + Duration::from_secs(1));
        assert_eq!(memory.remember(TENANT, (&KEY, "a"), until, beyond, later), Err(Refusal::Forgotten));
        memory.remember(TENANT, (&KEY, "a"), until, Some(KEEP), later).unwrap();
        assert_eq!(memory.remember(TENANT, (&KEY, "a"), until, Some(KEEP), later), Err(Refusal::Replayed));
    }

    #[test]
    fn the_same_jti_of_another_key_is_another_proof() {
        let start = Instant::now();
        let memory = ReplayMemory::new(10, KEEP, start);
        memory.remember(TENANT, (&KEY, "a"), UnixTime(120), None, start).unwrap();
        memory.remember(TENANT, (&[8; 32], "a"), UnixTime(120), None, start).unwrap();
        memory.remember(TENANT, (&KEY, "b"), UnixTime(120), None, start).unwrap();
        // A later proof with the same jti is still a second use.
        assert_eq!(memory.remember(TENANT, (&KEY, "a"), UnixTime(180), None, at(start, 60)), Err(Refusal::Replayed));
    }

    #[test]
    fn a_full_memory_refuses_and_forgets_nothing() {
        let start = Instant::now();
        let memory = ReplayMemory::new(100, KEEP, start);
        for n in 0..100 {
            memory.remember(TENANT, (&KEY, &n.to_string()), UnixTime(120), None, start).unwrap();
        }
        assert_eq!(memory.remember(TENANT, (&KEY, "one more"), UnixTime(120), None, at(start, 1)), Err(Refusal::Full));
        for n in 0..100 {
            let verdict = memory.remember(TENANT, (&KEY, &n.to_string()), UnixTime(120), None, at(start, 1));
            assert_eq!(verdict, Err(Refusal::Replayed), "{n}");
        }
    }

    #[test]
    fn one_tenant_cannot_take_the_room_of_the_others() {
        let start = Instant::now();
        let memory = ReplayMemory::new(4000, KEEP, start);
        let brought = |tenant: &str, n: usize| {
            memory.remember(Some(tenant), (&KEY, &format!("{tenant} {n}")), UnixTime(120), None, start).is_ok()
        };
        let greedy = (0..4000).filter(|n| brought("greedy", *n)).count();
        assert_eq!(greedy, 3000);
        for n in 0..1000 {
            assert!(brought("modest", n), "{n}");
        }
        assert!(!brought("modest", 1000), "it is full");
        // Alone on the appliance a tenant has all of it.
        let memory = ReplayMemory::new(100, KEEP, start);
        assert!(
            (0..100)
                .all(|n: u32| { memory.remember(TENANT, (&KEY, &n.to_string()), UnixTime(120), None, start).is_ok() })
        );
    }

    #[test]
    fn old_proofs_in_quiet_shards_make_room() {
        let start = Instant::now();
        let memory = ReplayMemory::new(1, KEEP, start);
        // One place, and a new proof in some other shard each time.
        for n in 0..50u32 {
            let second = u64::from(n) * 300;
            let until = UnixTime(i64::from(n) * 300 + 120);
            memory.remember(TENANT, (&KEY, &n.to_string()), until, None, at(start, second)).unwrap();
            assert_eq!(memory.remembered.load(Ordering::Relaxed), 1);
        }
    }

    #[test]
    fn of_many_at_once_exactly_one_is_accepted() {
        let start = Instant::now();
        let memory = ReplayMemory::new(1000, KEEP, start);
        for round in 0..200 {
            let accepted: usize = std::thread::scope(|scope| {
                let attempt = || {
                    usize::from(memory.remember(TENANT, (&KEY, &round.to_string()), UnixTime(120), None, start).is_ok())
                };
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(attempt)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(accepted, 1);
        }
    }
}
