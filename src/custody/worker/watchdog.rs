//! A call into the module that never returns cannot be interrupted, only ended with its process.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::state::{Shared, locked};
use super::thread;
use crate::custody::token::watch;
use crate::telemetry::{alert, manager};

/// Watches the calls of this process, from before the module is loaded.
#[derive(Clone, Default)]
pub(super) struct Watchdog {
    worker: Arc<Mutex<Weak<Shared>>>,
}

/// How long calls may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Any call but a login.
    pub(super) call: Duration,
    /// A login.
    pub(super) login: Duration,
}

impl Limits {
    /// The call that is furthest beyond its limit.
    fn exceeded(self, pending: impl Iterator<Item = watch::Pending>) -> Option<watch::Pending> {
        let beyond = pending.filter_map(|call| Some((call.takes.checked_sub(self.of(call.name))?, call)));
        beyond.max_by_key(|(beyond, _)| *beyond).map(|(_, call)| call)
    }

    fn of(self, call: &str) -> Duration {
        if call == watch::LOGIN { self.login } else { self.call }
    }
}

impl Watchdog {
    /// Starts to watch.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start(limits: Limits) -> io::Result<Self> {
        let watchdog = Self::default();
        let watching = watchdog.clone();
        let look = (limits.call.min(limits.login) / 20).clamp(Duration::from_millis(5), Duration::from_millis(250));
        let feed = manager::watchdog().map(|limit| limit / 3);
        thread("watchdog", move || {
            let mut fed: Option<Instant> = None;
            let mut frozen = Frozen::default();
            let mut before = Instant::now();
            loop {
                std::thread::sleep(look);
                let now = Instant::now();
                frozen.slept(before, now, look);
                before = now;
                let pending = frozen.corrected(watch::pending(), now);
                if let Some(call) = limits.exceeded(pending.into_iter()) {
                    watching.end_process(call);
                }
                if feed.is_some_and(|every| fed.is_none_or(|last| now - last >= every)) {
                    // Its own dog watches this thread, and by it the locks that all others need.
                    watching.pulse();
                    manager::alive();
                    fed = Some(now);
                }
            }
        })?;
        Ok(watchdog)
    }

    /// Whose requests are answered before the process ends.
    pub(super) fn attend(&self, worker: &Arc<Shared>) {
        *locked(&self.worker) = Arc::downgrade(worker);
    }

    fn pulse(&self) {
        let worker = locked(&self.worker).upgrade();
        if let Some(worker) = worker {
            worker.pulse();
        }
    }

    fn end_process(&self, call: watch::Pending) {
        let detail = format!("{} did not return within {} ms", call.name, call.takes.as_millis());
        tracing::error!(
            name: alert::CALL_HANGS,
            "{detail}; the process is killed, so that the service manager starts it anew"
        );
        let worker = locked(&self.worker).upgrade();
        // On a thread of its own: a front that does not read must not be a second thing to wait for.
        let (answered, all) = mpsc::channel::<()>();
        let answering = thread("last answers", move || {
            if let Some(worker) = worker {
                worker.answer_all(&detail);
            }
            drop(answered);
        });
        if answering.is_ok() {
            let _ = all.recv_timeout(ANSWER_PATIENCE);
        }
        // Leaving in good order would run the module's exit handlers under a call that is still in it.
        let _ = kill(Pid::this(), Signal::SIGKILL);
    }
}

/// When this process did not run: stopped, frozen with its control group, or with the whole machine. The device had no
/// chance to answer then, so that time is not held against a call.
#[derive(Default)]
struct Frozen(VecDeque<(Instant, Instant)>);

impl Frozen {
    /// A sleep that was to take `intended` went from `began` to `ended`.
    fn slept(&mut self, began: Instant, ended: Instant, intended: Duration) {
        let awake = began + intended;
        if awake < ended {
            self.0.push_back((awake, ended));
        }
    }

    /// The calls, without the time that nothing ran.
    fn corrected(&mut self, mut calls: Vec<watch::Pending>, now: Instant) -> Vec<watch::Pending> {
        let since = |call: &watch::Pending| now.checked_sub(call.takes).unwrap_or(now);
        let oldest = calls.iter().map(since).min();
        self.0.retain(|(_, ended)| oldest.is_some_and(|oldest| *ended > oldest));
        for call in &mut calls {
            let since = since(call);
            let lost = self.0.iter().map(|(from, to)| to.saturating_duration_since(since.max(*from)));
            call.takes = call.takes.saturating_sub(lost.sum());
        }
        calls
    }
}

const ANSWER_PATIENCE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(250);

    fn call(name: &'static str, takes: Duration) -> watch::Pending {
        watch::Pending { name, takes }
    }

    fn takes(frozen: &mut Frozen, wall: Duration, now: Instant) -> Option<Duration> {
        frozen.corrected(vec![call("C_Sign", wall)], now).first().map(|call| call.takes)
    }

    #[test]
    fn a_call_is_not_charged_with_the_time_that_the_process_was_frozen() {
        let (mut frozen, start) = (Frozen::default(), Instant::now());
        let second = Duration::from_secs(1);
        frozen.slept(start, start + LOOK, LOOK);
        frozen.slept(start + LOOK, start + LOOK + 60 * second, LOOK);
        let thawed = start + LOOK + 60 * second;
        assert_eq!(takes(&mut frozen, 61 * second, thawed), Some(second + LOOK), "it began before the freeze");
        assert_eq!(
            takes(&mut frozen, 70 * second, thawed + 9 * second),
            Some(10 * second + LOOK),
            "it goes on hanging"
        );
        let after = thawed + 9 * second;
        assert_eq!(takes(&mut frozen, 3 * second, after), Some(3 * second), "it began after the thaw");
        assert!(frozen.0.is_empty(), "nobody is left to be credited");
    }

    #[test]
    fn without_a_freeze_nothing_is_credited() {
        let (mut frozen, start) = (Frozen::default(), Instant::now());
        frozen.slept(start, start + LOOK, LOOK);
        assert_eq!(takes(&mut frozen, LOOK * 4, start + LOOK), Some(LOOK * 4));
        assert_eq!(frozen.corrected(Vec::new(), start + LOOK), []);
    }

    #[test]
    fn a_login_has_a_limit_of_its_own_and_hides_no_other_call() {
        let second = Duration::from_secs(1);
        let limits = Limits { call: second, login: 30 * second };
        let exceeded = |calls: &[watch::Pending]| limits.exceeded(calls.iter().copied()).map(|call| call.name);
        let login = |seconds: u32| call(watch::LOGIN, seconds * second);
        assert_eq!(exceeded(&[login(29), call("C_Sign", second / 2)]), None);
        assert_eq!(exceeded(&[login(29), call("C_Sign", second)]), Some("C_Sign"), "the older one may go on");
        assert_eq!(exceeded(&[login(30)]), Some("C_Login"));
        let strict = Limits { call: 30 * second, login: second };
        assert_eq!(strict.exceeded([login(1)].into_iter()).map(|call| call.name), Some("C_Login"));
    }

    #[test]
    fn each_call_is_credited_with_what_was_frozen_since_it_began() {
        let (mut frozen, start) = (Frozen::default(), Instant::now());
        let second = Duration::from_secs(1);
        frozen.slept(start, start + LOOK + 10 * second, LOOK);
        let calls = vec![call("C_Login", 12 * second), call("C_Sign", second)];
        let takes: Vec<Duration> =
            frozen.corrected(calls, start + LOOK + 12 * second).iter().map(|call| call.takes).collect();
        assert_eq!(takes, [2 * second, second]);
    }
}
