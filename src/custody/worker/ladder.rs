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
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::state::locked;
use crate::custody::token::Remedy;

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
            outage,
            incident: Mutex::default(),
        }
    }

    /// A session was lost or could not be had, and this is what its error asks for.
    pub(super) fn failed(&self, remedy: Remedy) -> Step {
        self.failed_at(remedy, Instant::now())
    }

    fn failed_at(&self, remedy: Remedy, now: Instant) -> Step {
        self.troubled.store(true, Relaxed);
        let mut incident = locked(&self.incident);
        let fresh = Incident { began: now, last: now, initialized: None, times: 0 };
        // A failure long after the last one is a new story, even when nobody asked for a signature in between.
        let known = incident.take().filter(|incident| now.duration_since(incident.last) < FORGOTTEN);
        let incident = incident.insert(known.unwrap_or(fresh));
        incident.last = now;
        let step = self.step(incident, remedy, now);
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

    /// The device signed.
    pub(super) fn worked(&self) {
        if self.troubled.swap(false, Relaxed) {
            *locked(&self.incident) = None;
            self.outage.over();
        }
    }

    /// A session is open: if this process was started because of an outage, it is over.
    pub(super) fn opened(&self) {
        if !self.inherited.is_zero() {
            self.outage.over();
        }
    }
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
        tenths.iter().map(|at| ladder.failed_at(remedy, ladder.started + seconds(*at))).collect()
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
        ladder.worked();
        assert_eq!(steps(&ladder, Remedy::NewSession, &[11, 20]), [Step::NewSession; 2]);
        assert_eq!(steps(&ladder, Remedy::NewSession, &[80]), [Step::NewSession]);
    }

    #[test]
    fn a_long_outage_is_met_with_patience_until_a_session_is_open() {
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
        later.opened();
        assert_eq!(steps(&ladder(&dir), Remedy::NewProcess, &[0]), [Step::NewProcess], "another outage");
    }
}
