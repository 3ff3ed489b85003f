//! When a new session does not help: which rung comes next, and how soon.
//!
//! The ladder of recovery is session, login, finalize and initialize, process. What a code asks for is where it begins;
//! after that it is climbed by the clock, because many modules give the same code for everything, and because some
//! notice a token that came back only when they are initialised, or loaded, anew. One second without success brings
//! the module's initialisation, a second one follows, then the process ends and the service manager starts the next.
//! An outage that lasts is met with longer pauses; it is remembered over the restarts.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::state::locked;
use crate::custody::token::Remedy;
use crate::custody::wire::KeyHandle;

/// What to do now; whatever it is, a session is tried after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// No more than that, and no less than a login where the token has forgotten the last one.
    NewSession,
    /// Finalise and initialise the module first.
    Reinitialize,
    /// End this process.
    NewProcess,
}

pub(super) struct Ladder {
    started: Instant,
    /// How old the outage was that this process began in.
    inherited: Duration,
    outage: Outage,
    troubled: AtomicBool,
    /// The keys that signed well in this process, and those that failed since the last good signature: a bit for each
    /// handle. Two handles may share one; that only makes us climb where we need not.
    signed: AtomicU64,
    failing: AtomicU64,
    incident: Mutex<Option<Incident>>,
}

/// Failures with no success between them.
struct Incident {
    began: Instant,
    last: Instant,
    /// When the module was initialised anew last, and how often.
    initialized: Option<Instant>,
    times: u32,
}

impl Ladder {
    pub(super) fn new(outage: Outage) -> Self {
        Self {
            started: Instant::now(),
            inherited: outage.age(),
            troubled: AtomicBool::new(outage.file.exists()),
            signed: AtomicU64::new(0),
            failing: AtomicU64::new(0),
            outage,
            incident: Mutex::default(),
        }
    }

    /// A session was lost, over this key if over any, or could not be had; and this is what its error asks for.
    pub(super) fn failed(&self, remedy: Remedy, key: Option<KeyHandle>) -> Step {
        self.failed_at(remedy, key, Instant::now())
    }

    fn failed_at(&self, remedy: Remedy, key: Option<KeyHandle>, now: Instant) -> Step {
        self.troubled.store(true, Relaxed);
        let ailing = key.is_some_and(|key| self.ails_alone(key));
        let mut incident = locked(&self.incident);
        let fresh = Incident { began: now, last: now, initialized: None, times: 0 };
        // A failure long after the last one is a new story, even when nobody asked for a signature in between.
        let known = incident.take().filter(|incident| now.duration_since(incident.last) < FORGOTTEN);
        let incident = incident.insert(known.unwrap_or(fresh));
        incident.last = now;
        // One key that ails is no reason to take the module or the process from the others.
        let step = match remedy {
            Remedy::None | Remedy::NewSession | Remedy::NewLogin if ailing => Step::NewSession,
            _ => self.step(incident, remedy, now),
        };
        match step {
            Step::NewSession => {}
            Step::Reinitialize => {
                incident.initialized = Some(now);
                incident.times += 1;
            }
            Step::NewProcess => self.outage.note(),
        }
        step
    }

    fn step(&self, incident: &Incident, remedy: Remedy, now: Instant) -> Step {
        let lasting = self.inherited + now.duration_since(self.started) >= LASTING && !self.inherited.is_zero();
        let process_may_end = !lasting || now.duration_since(self.started) >= LONG_LIFE;
        let pause = if lasting { LONG_PAUSE } else { PAUSE };
        let due = now.duration_since(incident.initialized.unwrap_or(incident.began)) >= pause;
        match remedy {
            Remedy::NewProcess if process_may_end => Step::NewProcess,
            Remedy::Reinitialize | Remedy::NewProcess if incident.times == 0 => Step::Reinitialize,
            _ if !due => Step::NewSession,
            _ if incident.times >= REINITIALIZATIONS && process_may_end => Step::NewProcess,
            _ => Step::Reinitialize,
        }
    }

    /// Has no other key failed since the last good signature, while there is another one that signed well before? It
    /// counts as failing from here on.
    pub(super) fn ails_alone(&self, key: KeyHandle) -> bool {
        let failing = self.failing.fetch_or(bit(key), Relaxed) | bit(key);
        failing == bit(key) && self.signed.load(Relaxed) & !bit(key) != 0
    }

    /// The device signed with this key. Only that ends an outage: a session can be had of many a token that does not
    /// sign.
    pub(super) fn worked(&self, key: KeyHandle) {
        if self.signed.load(Relaxed) & bit(key) == 0 {
            self.signed.fetch_or(bit(key), Relaxed);
        }
        if self.troubled.swap(false, Relaxed) {
            *locked(&self.incident) = None;
            self.failing.store(0, Relaxed);
            self.outage.over();
        }
    }
}

fn bit(key: KeyHandle) -> u64 {
    1 << (key.0 % u64::BITS)
}

/// A file that is there while the token is lost, as old as the outage.
pub(super) struct Outage {
    file: PathBuf,
}

impl Outage {
    pub(super) fn at(file: PathBuf) -> Self {
        Self { file }
    }

    /// Zero when there is none.
    fn age(&self) -> Duration {
        let begun = fs::metadata(&self.file).and_then(|file| file.modified()).ok();
        begun.map_or(Duration::ZERO, |begun| begun.elapsed().unwrap_or_default().max(Duration::from_nanos(1)))
    }

    // Only pauses depend on it: what cannot be written is not missed.
    fn note(&self) {
        let _ = File::options().write(true).create_new(true).open(&self.file);
    }

    fn over(&self) {
        let _ = fs::remove_file(&self.file);
    }
}

/// Short enough that a token that is back signs within two seconds, where the module must be initialised for it.
const PAUSE: Duration = Duration::from_secs(1);

/// Of one incident, before the process ends.
const REINITIALIZATIONS: u32 = 2;

/// Without a failure for so long, the next one begins at the first rung.
const FORGOTTEN: Duration = Duration::from_secs(5);

/// An outage as long as this will not end within seconds; then the module is initialised and the process restarted
/// only so often.
const LASTING: Duration = Duration::from_secs(600);
const LONG_PAUSE: Duration = Duration::from_secs(10);
const LONG_LIFE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn ladder(dir: &tempfile::TempDir) -> Ladder {
        Ladder::new(Outage::at(dir.path().join("outage")))
    }

    fn seconds(tenths: u64) -> Duration {
        Duration::from_millis(tenths * 100)
    }

    /// The steps that failures at these tenths of a second bring.
    fn steps(ladder: &Ladder, remedy: Remedy, tenths: &[u64]) -> Vec<Step> {
        tenths.iter().map(|at| ladder.failed_at(remedy, None, ladder.started + seconds(*at))).collect()
    }

    #[test]
    fn what_does_not_help_for_a_second_is_followed_by_the_next_rung() {
        use Step::{NewProcess, NewSession, Reinitialize};
        let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
        for remedy in [Remedy::NewSession, Remedy::NewLogin] {
            let climbed = steps(&ladder(&dir), remedy, &[0, 5, 10, 15, 20, 25, 30]);
            let up = [NewSession, NewSession, Reinitialize, NewSession, Reinitialize, NewSession, NewProcess];
            assert_eq!(climbed, up, "{remedy:?}");
        }
    }

    #[test]
    fn a_code_may_ask_for_a_higher_rung_at_once() {
        use Step::{NewProcess, NewSession, Reinitialize};
        let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
        let climbed = steps(&ladder(&dir), Remedy::Reinitialize, &[0, 1, 10, 20]);
        assert_eq!(climbed, [Reinitialize, NewSession, Reinitialize, NewProcess], "once, not at each session's word");
        assert_eq!(steps(&ladder(&dir), Remedy::NewProcess, &[0]), [NewProcess]);
    }

    #[test]
    fn a_signature_or_a_quiet_time_begins_at_the_first_rung_again() {
        let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
        let ladder = ladder(&dir);
        assert_eq!(steps(&ladder, Remedy::NewSession, &[0, 9]), [Step::NewSession; 2]);
        ladder.worked(KeyHandle(0));
        assert_eq!(steps(&ladder, Remedy::NewSession, &[11, 20]), [Step::NewSession; 2]);
        assert_eq!(steps(&ladder, Remedy::NewSession, &[80]), [Step::NewSession]);
    }

    #[test]
    fn one_key_that_ails_costs_its_session_and_a_token_that_ails_costs_more() {
        let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
        let (good, bad) = (KeyHandle(0), KeyHandle(1));
        let failures = |ladder: &Ladder, keys: &[KeyHandle]| -> Vec<Step> {
            let at = |tenths: u64| ladder.started + seconds(tenths);
            (0..10)
                .zip(keys.iter().cycle())
                .map(|(n, key)| ladder.failed_at(Remedy::NewSession, Some(*key), at(n * 5)))
                .collect()
        };
        let only = ladder(&dir);
        only.worked(bad);
        assert!(failures(&only, &[bad]).contains(&Step::NewProcess), "nobody else is served by the module as it is");
        let several = ladder(&dir);
        several.worked(good);
        several.worked(bad);
        assert_eq!(failures(&several, &[bad]), [Step::NewSession; 10]);
        assert!(failures(&several, &[bad, good]).contains(&Step::NewProcess), "it is not the key");
    }

    #[test]
    fn a_long_outage_is_met_with_patience_until_something_is_signed() {
        let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
        let first = ladder(&dir);
        assert_eq!(steps(&first, Remedy::NewProcess, &[0]), [Step::NewProcess]);
        let file = File::options().write(true).open(&first.outage.file).unwrap_or_else(|e| panic!("{e}"));
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
        file.set_modified(long_ago).unwrap_or_else(|e| panic!("{e}"));
        let later = ladder(&dir);
        assert_eq!(steps(&later, Remedy::NewProcess, &[0, 10]), [Step::Reinitialize, Step::NewSession]);
        let tenths = [0, 40, 80, 120, 160, 200, 240, 280];
        let waiting = steps(&ladder(&dir), Remedy::NewLogin, &tenths);
        assert_eq!(waiting.iter().filter(|step| **step == Step::Reinitialize).count(), 2, "{waiting:?}");
        assert!(!waiting.contains(&Step::NewProcess), "{waiting:?}");
        later.worked(KeyHandle(0));
        assert_eq!(steps(&ladder(&dir), Remedy::NewProcess, &[0]), [Step::NewProcess], "another outage");
    }
}
