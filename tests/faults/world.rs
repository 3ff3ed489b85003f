//! The appliance on a faulty token, under load and under supervision.

use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use faulty_token::{Controller, Counters, MisuseKind, StateFile};
use testkit::{Fixture, softhsm};

use crate::load::Load;
use crate::supervisor::{Borrowed, Supervisor};
use crate::table::{self, Recovered, Row};

/// Started by a test, and [finished](Self::finish) by it.
pub(crate) struct World {
    pub(crate) control: Controller,
    pub(crate) device: StateFile,
    pub(crate) load: Load,
    supervisor: Supervisor,
    // After the processes that use what is in it.
    _dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl World {
    /// With a heading for the rows to come. Worlds take turns: times are measured.
    pub(crate) fn start(group: &str) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::Builder::new().prefix("faults-").tempdir().unwrap();
        // Where cargo leaves it, others may be allowed to write; the worker does not load it from there.
        let module = dir.path().join("libfaulty_token.so");
        fs::copy(faulty_token::module_path().unwrap(), &module).unwrap();
        fs::set_permissions(&module, Permissions::from_mode(0o755)).unwrap();
        let (control, device) = (dir.path().join("control"), dir.path().join("device.json"));
        let fixture = Fixture::builder()
            .environment("FAULTY_TOKEN_MODULE", softhsm::find_module().unwrap())
            .environment("FAULTY_TOKEN_CONTROL", &control)
            .environment("FAULTY_TOKEN_STATE", &device)
            .settings(move |settings, _| {
                settings
                    .set_path("tokens.main.module", &module)
                    .set("tokens.main.sessions", SESSIONS)
                    .set("tokens.main.call_timeout", "1500ms")
                    .set("tokens.main.keep_alive", "500ms")
                    .set("tokens.main.sign_timeout", "3s");
            })
            .start();
        let load = Load::start(&fixture.client(), &fixture.keys.acme.point);
        let world = Self {
            control: Controller::connect(control).unwrap(),
            device: StateFile::at(device),
            load,
            supervisor: Supervisor::start(fixture),
            _dir: dir,
            _turn: turn,
        };
        table::heading(group);
        world.settle("the start", 0, Instant::now(), LONG, QUIET);
        world
    }

    /// One fault. `strike` brings it about, sees it through, and gives the moment when the device is well again: from
    /// then on `limit` may pass until every request is signed.
    pub(crate) fn row(&self, fault: &str, limit: Duration, strike: impl FnOnce(&Self) -> Instant) {
        self.row_until(fault, limit, QUIET, strike);
    }

    /// The same, where a shorter time without a refusal is enough to call it over.
    pub(crate) fn row_until(
        &self,
        fault: &str,
        limit: Duration,
        quiet: Duration,
        strike: impl FnOnce(&Self) -> Instant,
    ) {
        let (first, restarts) = (self.load.count(), self.supervisor.restarts());
        let well = strike(self);
        let after = self.settle(fault, first, well, limit, quiet);
        let restarted = self.supervisor.restarts() > restarts;
        let recovered = if restarted { Recovered::ByRestart(after) } else { Recovered::After(after) };
        self.print(fault, first, recovered);
        assert!(after <= limit, "{fault}: every request was signed {after:?} after the device's return, not {limit:?}");
        if limit < RESTARTED {
            assert!(!restarted, "{fault}: no new process is needed for it\n{}", self.log());
        }
        self.blameless(fault);
    }

    pub(crate) fn print(&self, fault: &str, first: usize, recovered: Recovered) {
        let asked = self.load.since(first);
        let refused = asked.iter().filter(|asked| !asked.signed).count();
        Row { fault, requests: asked.len(), refused, recovered }.print();
    }

    /// Waits until nothing has been refused for a while; how long after `well` the last refusal was, or the first
    /// signature where that is later.
    fn settle(&self, fault: &str, first: usize, well: Instant, limit: Duration, quiet: Duration) -> Duration {
        loop {
            std::thread::sleep(Duration::from_millis(10));
            let asked = self.load.since(first);
            let now = Instant::now();
            let last_refused = asked.iter().filter(|asked| !asked.signed).map(|asked| asked.ended).max();
            let signed =
                asked.iter().filter(|asked| asked.signed && asked.began >= well).map(|asked| asked.ended).min();
            let calm = last_refused.map_or(well, |last| last.max(well));
            if let Some(signed) = signed
                && now.duration_since(calm) >= quiet
            {
                return signed.max(calm).duration_since(well);
            }
            let over = now.saturating_duration_since(well) > limit + LONG;
            assert!(!over, "{fault}: requests are still refused\n{}", self.log());
        }
    }

    /// No PIN was wasted, and the module was not misused.
    pub(crate) fn blameless(&self, fault: &str) {
        let violations = self.load.violations();
        assert!(violations.is_empty(), "{fault}: {violations:#?}");
        let seen = self.control.counters().unwrap();
        assert_eq!((seen.pin.incorrect, seen.pin.while_locked), (0, 0), "{fault}: a PIN was wasted");
        self.well_used(fault, &seen);
    }

    pub(crate) fn well_used(&self, fault: &str, seen: &Counters) {
        // A fault may end an operation behind our back, or claim that there is none: what we do next is right.
        let ours = |kind| !matches!(kind, MisuseKind::OperationNotInitialized | MisuseKind::OperationActive);
        let misuse = seen.misuse.iter().filter(|misuse| ours(misuse.kind)).collect::<Vec<_>>();
        assert!(misuse.is_empty(), "{fault}: the module was misused: {misuse:?}\n{}", self.log());
    }

    /// The fixture, for a moment.
    pub(crate) fn fixture(&self) -> Borrowed<'_> {
        self.supervisor.fixture()
    }

    pub(crate) fn restarts(&self) -> u64 {
        self.supervisor.restarts()
    }

    /// Kills the worker; it is started again.
    pub(crate) fn kill_worker(&self) {
        self.fixture().appliance.worker("main").kill();
    }

    /// Waits until the fixture's worker is another process than this one.
    pub(crate) fn wait_for_another(&self, pid: u32) {
        let began = Instant::now();
        while self.fixture().appliance.worker("main").id() == pid {
            assert!(began.elapsed() < LONG, "the worker was not started again\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn log(&self) -> String {
        testkit::shell::tail(&self.fixture().dir().join("signer-token-main.log"), 40)
    }

    /// Stops everything and holds the audit log against what left.
    pub(crate) fn finish(self) {
        let (signed, violations) = self.load.stop();
        assert!(violations.is_empty(), "{violations:#?}");
        let mut fixture = self.supervisor.stop();
        fixture.appliance.stop().unwrap();
        let records = fixture.appliance.audit().unwrap();
        for (index, record) in records.iter().enumerate() {
            assert_eq!(record["seq"].as_u64().unwrap(), records[0]["seq"].as_u64().unwrap() + index as u64, "a gap");
        }
        let of = |kind: &str| {
            let of_kind = records.iter().filter(move |record| record["kind"] == kind);
            of_kind.map(|record| record["auditId"].as_str().unwrap_or_default()).collect::<HashSet<_>>()
        };
        let intents = of("intent");
        let ended_well = records.iter().filter(|record| record["kind"] == "outcome" && record["outcome"] == "signed");
        let outcomes: HashSet<_> = ended_well.map(|record| record["auditId"].as_str().unwrap_or_default()).collect();
        assert!(signed.len() > 100, "only {} signatures left", signed.len());
        for id in &signed {
            assert!(intents.contains(id.as_str()), "signature {id} has no record of its intent");
            assert!(outcomes.contains(id.as_str()), "signature {id} has no record that says it was signed");
        }
    }
}

pub(crate) const SESSIONS: i64 = 4;

/// Without a new process.
pub(crate) const RECOVERED: Duration = Duration::from_secs(2);

/// With one.
pub(crate) const RESTARTED: Duration = Duration::from_secs(5);

/// So long nothing may be refused before a fault counts as over.
pub(crate) const QUIET: Duration = Duration::from_millis(300);

pub(crate) const LONG: Duration = Duration::from_secs(20);
