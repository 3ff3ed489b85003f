//! The appliance that the rows attack, and what they need to do it.

#![forbid(unsafe_code)]

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::counters;
use testkit::client::{Answer, Call, Client};
use testkit::fixture::{Builder, Fixture};
use testkit::key::Key;
use testkit::{Context as _, Result, sample};

/// A running appliance with short time limits, and the keys of its enemies.
pub(crate) struct World {
    pub(crate) fixture: Fixture,
    pub(crate) keys: Keys,
    worker: u32,
    accepted: AtomicU64,
    secrets: Mutex<Vec<String>>,
    /// Signatures that the front had made to see whether its keys sign, before the first request.
    pub(crate) canaries: u64,
}

/// Keys beside the Authority's own; its JWK set lists all but the first.
pub(crate) struct Keys {
    /// Published by nobody.
    pub(crate) stranger: Key,
    pub(crate) second_p256: Key,
    pub(crate) ed25519: Key,
    pub(crate) rsa: Key,
    pub(crate) rsa_pss: Key,
    /// 1,024 bits.
    pub(crate) weak_rsa: Key,
    pub(crate) p384: Key,
}

impl World {
    /// The world that the families share: started for the first of them, stopped after the last.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<World>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let world = Arc::new(Self::start(|builder| builder));
            *shared = Arc::downgrade(&world);
            world
        })
    }

    /// Families take turns, so that a counter that moves is known to have moved for this one.
    pub(crate) fn turn() -> MutexGuard<'static, ()> {
        static TURN: Mutex<()> = Mutex::new(());
        TURN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of its own, where little is enough to be too much.
    pub(crate) fn with_outages() -> Self {
        Self::start(|builder| {
            builder
                .set("authority.dpop.max_remembered_proofs", REMEMBERED_PROOFS)
                .set("authority.jwks_refresh", "1s")
                .set("authority.jwks_max_stale", "2s")
                .set("server.limits.max_connections", MAX_CONNECTIONS)
                .set("licensing.online.negative_cache_ttl", "1s")
                .set("plans.pro.max_artifact_bytes", "1536 KiB")
                .set("server.limits.max_body_bytes", "1536 KiB")
                .set("server.limits.max_body_bytes_in_flight", "1536 KiB")
        })
    }

    fn start(change: impl FnOnce(Builder) -> Builder) -> Self {
        let keys = Keys::generate();
        let published = keys.published();
        let builder = Fixture::builder()
            // Requests at the worker are counted; the front's own tests of its keys must not come in between.
            .set("custody.canary_interval", "1h")
            .set("authority.dpop.nonce", "always")
            .set("audit.max_noise_records_per_second", 100_000)
            .set("licensing.online.timeout", "1s")
            .set("server.limits.handshake_timeout", SHORT)
            .set("server.limits.header_timeout", SHORT)
            .set("server.limits.body_timeout", SHORT)
            .set("server.limits.idle_timeout", "4s")
            .set("server.limits.max_body_bytes_in_flight", "48 MiB")
            .set("server.limits.reads_per_second", 100_000)
            .settings(move |_, peers| {
                published.iter().for_each(|key| peers.authority.publish(key));
                peers.licensing.revoke_license(REVOKED_LICENSE).unwrap();
                peers.licensing.revoke_poe(REVOKED_POE).unwrap();
            });
        let mut fixture = change(builder).start();
        let worker = fixture.appliance.worker("main").id();
        let canaries = counters::made(&fixture.appliance).unwrap();
        let world = Self { fixture, keys, worker, accepted: AtomicU64::new(0), secrets: Mutex::default(), canaries };
        // Now the nonce is known, and so a hostile proof can be good in that.
        world.expect_signed(world.sign());
        world
    }

    /// Tenant acme's client, DPoP-bound, on a connection of its own.
    pub(crate) fn client(&self) -> Client {
        self.fixture.client().fork()
    }

    /// The same, bound by its certificate.
    pub(crate) fn bound_by_certificate(&self) -> Client {
        self.fixture.client().bound_by_certificate()
    }

    /// A request that would be signed.
    pub(crate) fn sign(&self) -> Call {
        self.client().sign(&sample::request())
    }

    /// The same, bound by certificate.
    pub(crate) fn sign_by_certificate(&self) -> Call {
        self.bound_by_certificate().sign(&sample::request())
    }

    /// `localhost:PORT`.
    pub(crate) fn host(&self) -> String {
        self.fixture.appliance.url().trim_start_matches("https://").to_owned()
    }

    /// Sends what must be signed, as part of a row.
    #[track_caller]
    pub(crate) fn expect_signed(&self, call: Call) -> Answer {
        let answer = call.send().expect(200);
        self.accepted.fetch_add(1, Ordering::Relaxed);
        answer
    }

    /// Requests that rows had signed on the way.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Something that must turn up nowhere.
    pub(crate) fn keep_secret(&self, secret: impl Into<String>) {
        self.secrets.lock().unwrap().push(secret.into());
    }

    /// Everything that must turn up in no answer, and why.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let pin = std::fs::read_to_string(self.fixture.token.pin_file()).unwrap_or_default();
        let mut secrets = self.secrets.lock().unwrap().clone();
        secrets.push(pin.trim().to_owned());
        secrets
    }

    /// Sends a signal to the token's worker, as in `STOP`.
    pub(crate) fn signal_worker(&self, signal: &str) -> Result<()> {
        let status = Command::new("kill").arg(format!("-{signal}")).arg(self.worker.to_string()).status();
        status.context("run kill")?.success().then_some(()).context("signal the worker")
    }

    /// Waits until a record of the audit log is there.
    ///
    /// # Errors
    /// When it is not in time.
    pub(crate) fn wait_for_record(&self, wanted: impl Fn(&serde_json::Value) -> bool) -> Result<()> {
        let deadline = std::time::Instant::now() + crate::wire::PATIENCE;
        while !self.fixture.appliance.audit()?.iter().any(&wanted) {
            (std::time::Instant::now() < deadline).then_some(()).context("find the record in the audit log")?;
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Keys {
    fn generate() -> Self {
        Self {
            stranger: Key::p256(),
            second_p256: Key::p256(),
            ed25519: Key::ed25519(),
            rsa: Key::rsa(),
            rsa_pss: Key::rsa_pss(),
            weak_rsa: Key::weak_rsa().unwrap(),
            p384: Key::p384(),
        }
    }

    fn published(&self) -> Vec<Key> {
        [&self.second_p256, &self.ed25519, &self.rsa, &self.rsa_pss, &self.weak_rsa, &self.p384].map(Key::clone).into()
    }
}

/// On the revocation list.
pub(crate) const REVOKED_LICENSE: &str = "lic-hostile-revoked";
/// On the revocation list, by its `jti`.
pub(crate) const REVOKED_POE: &str = "poe-hostile-revoked";

/// Of [`World::with_outages`].
pub(crate) const REMEMBERED_PROOFS: i64 = 1000;
/// Of [`World::with_outages`].
pub(crate) const MAX_CONNECTIONS: i64 = 12;

const SHORT: &str = "2s";
