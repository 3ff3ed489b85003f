//! Verdicts that are kept for a while, and look-ups that many wait for and one makes.
//!
//! A verdict is used until its bound and not a moment longer. Before that, the next request after most of its time has
//! passed starts another look-up beside, so that an image in use is never cold. When that look-up finds nobody to ask, the
//! verdict at hand stays, up to its bound.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::digest::Digest;
use super::verdict::{ReleaseError, TrustedRelease};
use crate::clock::Now;

pub(super) type Verdict = Result<TrustedRelease, ReleaseError>;

/// The verdicts at hand.
#[derive(Debug)]
pub(super) struct Verdicts {
    /// Apart, so that digests made up by one caller displace nobody's trusted ones.
    trusted: moka::sync::Cache<Digest, Arc<Kept>>,
    refused: moka::sync::Cache<Digest, Arc<Kept>>,
    trusted_ttl: Duration,
    refused_ttl: Duration,
    under_way: Mutex<HashMap<Digest, UnderWay>>,
}

#[derive(Debug)]
struct Kept {
    verdict: Verdict,
    until: Now,
    /// From when on another look-up may be started beside.
    refresh: Now,
}

#[derive(Debug)]
struct UnderWay {
    tenant: Arc<str>,
    outcome: watch::Receiver<Option<Verdict>>,
}

/// What is to be done about an image that somebody asks for.
pub(super) enum Turn {
    /// It was decided meanwhile.
    Decided(Verdict),
    /// Somebody is looking it up.
    Wait(watch::Receiver<Option<Verdict>>),
    /// Whoever gets this looks it up, and says so to the others by it.
    LookUp(LookUp, watch::Receiver<Option<Verdict>>),
}

/// The one look-up of an image. Dropped unfinished, it gives up its place, and those who wait hear of it.
pub(super) struct LookUp {
    verdicts: Arc<Verdicts>,
    image: Digest,
    tell: watch::Sender<Option<Verdict>>,
}

impl Verdicts {
    pub(super) fn new(trusted_ttl: Duration, refused_ttl: Duration) -> Self {
        let cache = |ttl| moka::sync::Cache::builder().max_capacity(MAX_KEPT).time_to_live(ttl).build();
        Self {
            trusted: cache(trusted_ttl),
            refused: cache(refused_ttl),
            trusted_ttl,
            refused_ttl,
            under_way: Mutex::default(),
        }
    }

    /// The verdict at hand, and whether it is time for another look-up.
    pub(super) fn get(&self, image: Digest, now: Now) -> Option<(Verdict, bool)> {
        let good = |kept: &Arc<Kept>| !now.is_past(kept.until);
        let kept = self.trusted.get(&image).filter(good).or_else(|| self.refused.get(&image).filter(good))?;
        Some((kept.verdict.clone(), kept.verdict.is_ok() && now.is_past(kept.refresh)))
    }

    /// Whose turn it is to look `image` up.
    ///
    /// # Errors
    /// [`ReleaseError::Busy`] when too many are under way, of all or of this tenant.
    pub(super) fn turn(
        self: &Arc<Self>,
        image: Digest,
        tenant: &Arc<str>,
        refresh: bool,
    ) -> Result<Turn, ReleaseError> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = under_way.get(&image) {
            return Ok(Turn::Wait(running.outcome.clone()));
        }
        // It may have been decided between the caller's look and this one.
        match self.get(image, Now::read()) {
            Some((verdict, due)) if !(refresh && due) => return Ok(Turn::Decided(verdict)),
            _ => {}
        }
        let of_tenant = under_way.values().filter(|running| running.tenant == *tenant).count();
        for (count, limit) in [(under_way.len(), MAX_LOOK_UPS), (of_tenant, MAX_LOOK_UPS_OF_TENANT)] {
            if count >= limit {
                return Err(ReleaseError::Busy { limit });
            }
        }
        let (tell, outcome) = watch::channel(None);
        under_way.insert(image, UnderWay { tenant: Arc::clone(tenant), outcome: outcome.clone() });
        Ok(Turn::LookUp(LookUp { verdicts: Arc::clone(self), image, tell }, outcome))
    }

    fn keep(&self, image: Digest, verdict: &Verdict, lasts: Option<Duration>, asked: Now) {
        let ttl = match verdict {
            Ok(_) => lasts.map_or(self.trusted_ttl, |lasts| lasts.min(self.trusted_ttl)),
            Err(ReleaseError::Unavailable { .. }) => self.refused_ttl.min(OUTAGE_TTL),
            Err(_) => self.refused_ttl,
        };
        // Counted from the question: what has happened since is not in the answer.
        let (until, refresh) = (asked.plus(ttl), asked.plus(ttl.mul_f64(FRESH)));
        let kept = Arc::new(Kept { verdict: verdict.clone(), until, refresh });
        match verdict {
            Ok(_) => {
                self.trusted.insert(image, kept);
                self.refused.invalidate(&image);
            }
            Err(ReleaseError::Unavailable { .. }) => self.postpone(image, kept),
            Err(_) => {
                self.trusted.invalidate(&image);
                self.refused.insert(image, kept);
            }
        }
    }

    /// Nobody could be asked: what is at hand stays up to its bound, and is not asked for again at once.
    fn postpone(&self, image: Digest, outage: Arc<Kept>) {
        let now = Now::read();
        match self.trusted.get(&image) {
            Some(kept) if !now.is_past(kept.until) => {
                let refresh = now.plus(REFRESH_PAUSE);
                let kept = Kept { verdict: kept.verdict.clone(), until: kept.until, refresh };
                self.trusted.insert(image, Arc::new(kept));
            }
            _ => self.refused.insert(image, outage),
        }
    }
}

impl LookUp {
    /// Keeps the verdict and tells everybody. `lasts` is how long its grounds last at most; `asked` is when the look-up
    /// began.
    pub(super) fn finish(self, verdict: Verdict, lasts: Option<Duration>, asked: Now) {
        self.verdicts.keep(self.image, &verdict, lasts, asked);
        self.tell.send_replace(Some(verdict));
    }
}

impl Drop for LookUp {
    fn drop(&mut self) {
        self.verdicts.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.image);
    }
}

/// Of trusted images, and of others.
const MAX_KEPT: u64 = 10_000;

/// The part of its time after which a verdict is looked up again on the next request.
const FRESH: f64 = 0.75;

/// How long a failure to ask is kept: enough that a registry that is down is not asked by every request.
const OUTAGE_TTL: Duration = Duration::from_secs(1);
const REFRESH_PAUSE: Duration = Duration::from_secs(5);

/// Images that are looked up at once; one tenant can take a share of the places only. In the hands of a hostile registry
/// each holds, at its worst moment, a list of four megabytes while it is parsed, cosign's manifest of four, eight manifests
/// and eight signatures of one each, and what is known of 20,000 descriptors.
const MAX_LOOK_UPS: usize = 32;
const MAX_LOOK_UPS_OF_TENANT: usize = 8;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::release::verdict::Evidence;

    fn image() -> Digest {
        Digest::of(b"image")
    }

    fn trusted() -> Verdict {
        Ok(TrustedRelease {
            digest: image().to_string().into(),
            signed_by: "x".into(),
            evidence: Evidence::OperatorList { reason: "y".into() },
        })
    }

    fn outage() -> Verdict {
        Err(ReleaseError::Unavailable { digest: image(), reason: "r", detail: "d".into() })
    }

    fn untrusted() -> Verdict {
        Err(ReleaseError::Untrusted { digest: image(), reason: "r", detail: "d".into() })
    }

    fn verdicts() -> Arc<Verdicts> {
        Arc::new(Verdicts::new(Duration::from_secs(600), Duration::from_secs(30)))
    }

    fn begin(verdicts: &Arc<Verdicts>, image: Digest, tenant: &str) -> Option<LookUp> {
        match verdicts.turn(image, &tenant.into(), true) {
            Ok(Turn::LookUp(look_up, _)) => Some(look_up),
            _ => None,
        }
    }

    fn decide(verdicts: &Arc<Verdicts>, verdict: Verdict, asked: Now) {
        begin(verdicts, image(), "t").unwrap().finish(verdict, None, asked);
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_verdict_is_used_to_its_bound_and_not_a_moment_longer() {
        let (verdicts, asked) = (verdicts(), Now::read());
        decide(&verdicts, trusted(), asked);
        assert_eq!(verdicts.get(image(), asked), Some((trusted(), false)));
        assert_eq!(verdicts.get(image(), asked.plus(seconds(450))), Some((trusted(), true)), "due for another look-up");
        assert_eq!(verdicts.get(image(), asked.plus(seconds(600))), None);
    }

    #[test]
    fn grounds_that_end_sooner_end_the_verdict_sooner() {
        let (verdicts, asked) = (verdicts(), Now::read());
        begin(&verdicts, image(), "t").unwrap().finish(trusted(), Some(seconds(10)), asked);
        assert!(verdicts.get(image(), asked.plus(seconds(9))).is_some());
        assert_eq!(verdicts.get(image(), asked.plus(seconds(10))), None);
    }

    #[test]
    fn an_outage_leaves_what_is_at_hand_up_to_its_bound() {
        let verdicts = verdicts();
        let asked = Now::ago(seconds(500));
        decide(&verdicts, trusted(), asked);
        decide(&verdicts, outage(), Now::read());
        let now = Now::read();
        assert_eq!(verdicts.get(image(), now), Some((trusted(), false)), "and is not asked for again at once");
        assert_eq!(verdicts.get(image(), now.plus(seconds(6))), Some((trusted(), true)));
        assert_eq!(verdicts.get(image(), asked.plus(seconds(600))), None, "stale is never used");
    }

    #[test]
    fn a_verdict_that_turned_is_used_at_once() {
        let verdicts = verdicts();
        let asked = Now::ago(seconds(500));
        decide(&verdicts, trusted(), asked);
        decide(&verdicts, untrusted(), Now::read());
        assert_eq!(verdicts.get(image(), Now::read()), Some((untrusted(), false)));
    }

    #[test]
    fn an_outage_is_kept_for_a_second_and_a_refusal_for_its_time() {
        for (verdict, kept) in [(outage(), 1), (untrusted(), 30)] {
            let (verdicts, asked) = (verdicts(), Now::read());
            decide(&verdicts, verdict.clone(), asked);
            let last = asked.plus(seconds(kept) - Duration::from_millis(1));
            assert_eq!(verdicts.get(image(), last), Some((verdict, false)));
            assert_eq!(verdicts.get(image(), asked.plus(seconds(kept))), None);
        }
    }

    #[test]
    fn one_looks_up_and_the_others_wait_and_one_that_breaks_off_makes_room() {
        let verdicts = verdicts();
        let look_up = begin(&verdicts, image(), "t").unwrap();
        let Ok(Turn::Wait(mut outcome)) = verdicts.turn(image(), &"u".into(), false) else { panic!("it waits") };
        drop(look_up);
        assert!(outcome.has_changed().is_err(), "and hears that nothing comes");
        let Ok(Turn::LookUp(look_up, _)) = verdicts.turn(image(), &"u".into(), false) else { panic!("its turn") };
        let Ok(Turn::Wait(waiting)) = verdicts.turn(image(), &"v".into(), false) else { panic!("it waits") };
        outcome = waiting;
        look_up.finish(trusted(), None, Now::read());
        assert_eq!(*outcome.borrow_and_update(), Some(trusted()));
        assert!(matches!(verdicts.turn(image(), &"v".into(), false), Ok(Turn::Decided(_))));
    }

    #[test]
    fn one_tenant_takes_a_share_of_the_places() {
        let verdicts = verdicts();
        let other = |n: usize| Digest::of(&n.to_le_bytes());
        let look_ups: Vec<_> = (0..MAX_LOOK_UPS_OF_TENANT).map(|n| begin(&verdicts, other(n), "t").unwrap()).collect();
        let refused = verdicts.turn(image(), &"t".into(), false).err().unwrap();
        assert_eq!(refused, ReleaseError::Busy { limit: MAX_LOOK_UPS_OF_TENANT });
        assert!(begin(&verdicts, image(), "u").is_some());
        drop(look_ups);
        assert!(begin(&verdicts, image(), "t").is_some());
    }
}
