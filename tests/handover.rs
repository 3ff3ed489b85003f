//! Processes that are replaced, and a configuration that is, while callers go on signing; and what the service manager
//! hears of it.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use testkit::{Fixture, client, sample};

#[test]
fn a_front_and_a_worker_that_are_restarted_refuse_nobody() {
    let mut fixture = Fixture::builder().activated().start();
    let callers = Callers::start(&fixture);
    for round in 0..3 {
        callers.sign_more(&format!("before round {round}"));
        fixture.appliance.front().terminate().unwrap();
        fixture.appliance.start_front().unwrap();
        fixture.appliance.wait_until_ready().unwrap();
        callers.sign_more(&format!("after the front's restart {round}"));
        fixture.appliance.worker("main").terminate().unwrap();
        fixture.appliance.start_worker("main").unwrap();
        callers.sign_more(&format!("after the worker's restart {round}"));
    }
    callers.all_were_served();
}

#[test]
fn without_a_socket_that_is_held_a_worker_that_is_restarted_refuses_nobody_either() {
    let mut fixture = Fixture::start();
    let callers = Callers::start(&fixture);
    for round in 0..2 {
        callers.sign_more(&format!("before round {round}"));
        fixture.appliance.worker("main").terminate().unwrap();
        fixture.appliance.start_worker("main").unwrap();
        callers.sign_more(&format!("after round {round}"));
    }
    callers.all_were_served();
}

#[test]
fn a_worker_that_stays_away_is_not_waited_for() {
    let mut fixture = Fixture::builder().set("tokens.main.sign_timeout", "1s").start();
    let client = fixture.client();
    client.sign(&sample::request()).send().expect(200);
    fixture.appliance.worker("main").terminate().unwrap();
    let gone = Instant::now();
    client.sign(&sample::request()).send().expect(503);
    assert!(gone.elapsed() > Duration::from_millis(900), "the next one might have come");
    std::thread::sleep(Duration::from_secs(16).saturating_sub(gone.elapsed()));
    let late = Instant::now();
    client.sign(&sample::request()).send().expect(503);
    assert!(late.elapsed() < Duration::from_millis(500), "{:?}", late.elapsed());
}

#[test]
fn a_configuration_is_read_anew_under_load_as_a_whole_or_not_at_all() {
    let mut fixture = Fixture::builder().activated().start();
    let callers = Callers::start(&fixture);
    let reloads = |fixture: &Fixture, result| {
        let metrics = fixture.appliance.metrics().unwrap();
        metrics.count("signer_config_reloads_total", &[("result", result)])
    };
    // Something new for every part: tokens and keys, tenants, licensing, TLS, limits.
    let good = fixture.appliance.settings.clone();
    for (round, change) in [
        ("custody.canary_interval", "9s"),
        ("licensing.clock_skew", "31s"),
        ("authority.max_token_lifetime", "11m"),
        ("server.limits.idle_timeout", "90s"),
        ("server.tls.min_version", "1.2"),
        ("release.trusted_ttl", "59m"),
    ]
    .into_iter()
    .enumerate()
    {
        fixture.appliance.settings.set(change.0, change.1);
        fixture.appliance.write_config().unwrap();
        callers.sign_more("before a reload");
        fixture.appliance.front().signal("HUP").unwrap();
        until(change.0, || reloads(&fixture, "taken") == round as u64 + 1);
        callers.sign_more(change.0);
    }

    // What is wrong is told with its place, and changes nothing, not even what would be right.
    fixture.appliance.settings.set("tenants.initech.keys", vec!["no-such-key"]);
    fixture.appliance.settings.set("tenants.initech.predicate_types", vec!["*"]);
    fixture.appliance.settings.set("server.limits.reads_per_second", 1);
    fixture.appliance.write_config().unwrap();
    fixture.appliance.front().signal("HUP").unwrap();
    until("the reload is refused", || reloads(&fixture, "refused") == 1);
    let refused = last(&fixture, "configuration_refused");
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("signer.toml:") && detail.contains("tenants.initech.keys[0]"), "{detail}");
    assert!(fixture.appliance.logs().contains("tenants.initech.keys[0]: there is no key `no-such-key`"));
    for _ in 0..5 {
        fixture.client().keys().send().expect(200);
    }
    let metrics = fixture.appliance.metrics().unwrap();
    assert_eq!(metrics.count("signer_config_reload_refused", &[]), 1);

    // What only a start can change is refused as a whole.
    fixture.appliance.settings = good;
    fixture.appliance.settings.set("server.threads", 1);
    fixture.appliance.write_config().unwrap();
    fixture.appliance.front().signal("HUP").unwrap();
    until("the reload is refused", || reloads(&fixture, "refused") == 2);
    let detail = last(&fixture, "configuration_refused")["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("server.threads: it cannot change while signerd runs"), "{detail}");
    // So is what would take away what works.
    fixture.appliance.settings.set("server.threads", 2);
    fixture.appliance.settings.set("tokens.main.socket", "/nonexistent/main.sock");
    fixture.appliance.write_config().unwrap();
    fixture.appliance.front().signal("HUP").unwrap();
    until("the reload is refused", || reloads(&fixture, "refused") == 3);
    let detail = last(&fixture, "configuration_refused")["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("nothing could be signed for acme, globex") || detail.contains("globex, acme"), "{detail}");
    callers.sign_more("after the refusals");

    let path = fixture.dir().join("main.sock");
    fixture.appliance.settings.set_path("tokens.main.socket", &path);
    fixture.appliance.write_config().unwrap();
    fixture.appliance.front().signal("HUP").unwrap();
    until("the reload is done", || reloads(&fixture, "taken") == 7);
    let metrics = fixture.appliance.metrics().unwrap();
    assert_eq!(metrics.count("signer_config_reload_refused", &[]), 0);
    callers.all_were_served();
    let records = fixture.appliance.audit().unwrap();
    let started = records.iter().find(|record| record["event"] == "started").unwrap();
    let taken = last(&fixture, "configuration_reloaded");
    assert_eq!(started["sha256"], taken["sha256"], "the values are those of the start again");
    assert_eq!(taken["by"], "SIGHUP");
}

#[test]
fn a_proof_that_was_used_before_a_reload_is_not_accepted_after_it() {
    let mut fixture = Fixture::start();
    let client = fixture.client();
    client.sign(&sample::request()).send().expect(200);
    let jti = testkit::random_id();
    let used = |jti: String| client.sign(&sample::request()).proof(move |proof| proof.claim("jti", jti.as_str()));
    used(jti.clone()).send().expect(200);
    fixture.appliance.settings.set("authority.max_token_lifetime", "11m");
    fixture.appliance.write_config().unwrap();
    fixture.appliance.front().signal("HUP").unwrap();
    until("the reload is done", || {
        fixture.appliance.logs().contains("the configuration was read anew and is in force")
    });
    used(jti).send().expect(401);
    client.sign(&sample::request()).without_nonce_retry().send().expect(200);
}

#[test]
fn the_service_manager_hears_when_the_front_is_ready_reloads_lives_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let heard = || {
        let mut buffer = [0; 4096];
        let next = || {
            let length = manager.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        std::iter::from_fn(next).collect::<Vec<String>>()
    };
    let mut fixture = Fixture::builder()
        .front_environment("NOTIFY_SOCKET", &path)
        .front_environment("WATCHDOG_USEC", "800000")
        .start();
    let mut all = Vec::new();
    let mut hear = |what: &str| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            all.extend(heard());
            if let Some(at) = all.iter().position(|message| message.contains(what)) {
                let message = all.remove(at);
                all.drain(..at);
                return message;
            }
            assert!(Instant::now() < deadline, "{what} did not come; {all:?}");
        }
    };
    let ready = hear("READY=1");
    assert!(ready.contains("STATUS=serving: 1 of 1 tokens ready"), "{ready}");
    hear("WATCHDOG=1");
    fixture.appliance.front().signal("HUP").unwrap();
    let reloading = hear("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    hear("READY=1");
    fixture.appliance.settings.set("server.threads", 1);
    fixture.appliance.write_config().unwrap();
    fixture.appliance.front().signal("HUP").unwrap();
    hear("RELOADING=1");
    let refused = hear("READY=1");
    assert!(refused.contains("reload refused") && refused.contains("server.threads"), "{refused}");
    hear("WATCHDOG=1");
    // A process that hangs says nothing, which is what the service manager acts on.
    fixture.appliance.front().signal("STOP").unwrap();
    heard();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(heard(), [""; 0]);
    fixture.appliance.front().signal("CONT").unwrap();
    hear("WATCHDOG=1");
    fixture.appliance.front().signal("TERM").unwrap();
    let stopping = hear("STOPPING=1");
    assert!(stopping.contains("EXTEND_TIMEOUT_USEC="), "{stopping}");
}

#[test]
fn an_idle_connection_is_told_that_it_ends_before_it_does() {
    let mut fixture = Fixture::builder().activated().start();
    let client = fixture.client().bound_by_certificate();
    client.sign(&sample::request()).send().expect(200);
    fixture.appliance.front().signal("TERM").unwrap();
    until("it stops", || fixture.appliance.logs().contains("signerd stops"));
    // On the connection from before, which was idle when the front was asked to stop.
    let answer = client.sign(&sample::request()).send().expect(200);
    assert_eq!(answer.header("connection"), Some("close"));
    fixture.appliance.front().wait(PATIENCE).unwrap();
}

#[test]
fn connections_from_before_a_reload_keep_nothing_of_the_appliance_that_was() {
    let mut fixture = Fixture::start();
    let reloads = |fixture: &Fixture| {
        let metrics = fixture.appliance.metrics().unwrap();
        metrics.count("signer_config_reloads_total", &[("result", "taken")])
    };
    let descriptors = format!("/proc/{}/fd", fixture.appliance.front().id());
    let open = || {
        let links = std::fs::read_dir(&descriptors).unwrap();
        let to = |link: std::io::Result<std::fs::DirEntry>| std::fs::read_link(link.ok()?.path()).ok();
        links.filter_map(to).filter(|to| to.to_string_lossy().starts_with("socket:")).count()
    };
    let clients = [fixture.client(), fixture.client().over_http2()];
    let sign = || clients.iter().for_each(|client| _ = client.sign(&sample::request()).send().expect(200));
    sign();
    let before = open();
    for round in 1..=5 {
        // Another custody, with connections to the worker of its own.
        fixture.appliance.settings.set("custody.canary_interval", format!("{}s", 10 + round));
        fixture.appliance.write_config().unwrap();
        fixture.appliance.front().signal("HUP").unwrap();
        until("it is read anew", || reloads(&fixture) == round);
        sign();
    }
    until("what was before is gone", || open() <= before + 2);
    // Nor do they escape what the settings of today say of them.
    fixture.appliance.settings.set("server.tls.min_version", "1.2");
    fixture.appliance.write_config().unwrap();
    fixture.appliance.front().signal("HUP").unwrap();
    until("it is read anew", || reloads(&fixture) == 6);
    until("they are told to leave", || {
        let answer = clients[0].sign(&sample::request()).send().expect(200);
        answer.header("connection") == Some("close")
    });
    sign();
}

/// Callers who sign all the time, over both versions of HTTP.
struct Callers {
    stop: Arc<AtomicBool>,
    signed: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Callers {
    fn start(fixture: &Fixture) -> Self {
        let (stop, signed) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let threads = (0..6).map(|number| {
            let client: client::Client = fixture.client().bound_by_certificate();
            let client = if number % 3 == 0 { client.over_http2() } else { client.fork() };
            let (stop, signed) = (Arc::clone(&stop), Arc::clone(&signed));
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match client.sign(&sample::request()).try_send() {
                        Ok(answer) if answer.status == 200 => _ = signed.fetch_add(1, Ordering::Relaxed),
                        Ok(answer) => failures.push(format!("{number}: {} {}", answer.status, answer.text())),
                        Err(error) => failures.push(format!("{number}: {error}")),
                    }
                }
                failures
            })
        });
        let threads = threads.collect();
        Self { stop, signed, threads }
    }

    /// Waits until each has signed again, about.
    fn sign_more(&self, what: &str) {
        let enough = self.signed.load(Ordering::Relaxed) + 3 * self.threads.len() as u64;
        until(what, || self.signed.load(Ordering::Relaxed) >= enough);
    }

    fn all_were_served(self) {
        self.stop.store(true, Ordering::Relaxed);
        let failures: Vec<String> = self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        let signed = self.signed.load(Ordering::Relaxed);
        assert!(failures.is_empty(), "{} of {signed} failed: {failures:#?}", failures.len());
        println!("{signed} signed, none refused");
    }
}

/// The details of the last event of this name.
fn last(fixture: &Fixture, event: &str) -> serde_json::Value {
    let records = fixture.appliance.audit().unwrap();
    records.into_iter().rfind(|record| record["event"] == event).unwrap()
}

fn until(what: &str, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
