//! The token worker as a process, on a real PKCS#11 module (SoftHSM2), through its socket.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stellaops_signer::config::{self, SigningMode};
use stellaops_signer::custody::{Custody, SigningKey, TokenStatus};

const DIGEST: [u8; 32] = [0x42; 32];

#[tokio::test]
async fn a_digest_is_signed_in_the_token_and_verified() {
    let Some(bench) = Bench::new("worker signs") else { return };
    let worker = bench.start();
    let custody = bench.ready().await;
    let key = key(&custody);
    let signature = custody.sign(&key, &DIGEST, soon()).await.unwrap();
    assert!(key.verifies(&DIGEST, &signature));
    assert_eq!(key.custody(), "generated on the device, never readable or extractable");
    for _ in 0..3 {
        custody.sign(&key, &DIGEST, soon()).await.unwrap();
    }
    custody.refresh().await;
    let report = status(&custody).report.unwrap();
    assert_eq!((report.label.as_str(), report.model.as_str()), ("main", "SoftHSM v2"));
    assert_eq!((report.sessions_open, report.sessions_configured), (3, 3));
    assert_eq!((report.counters.sign_requests, report.counters.signatures), (4, 4));
    assert_eq!((report.counters.logins, report.counters.sessions_opened), (1, 3));
    assert!(worker.terminate().success());
}

#[tokio::test]
async fn many_signatures_are_in_flight_at_once() {
    let Some(bench) = Bench::new("many in flight") else { return };
    let worker = bench.start();
    let custody = bench.ready().await;
    let key = key(&custody);
    let mut signing = tokio::task::JoinSet::new();
    for n in 0..200u8 {
        let (custody, key) = (Arc::clone(&custody), Arc::clone(&key));
        signing.spawn(async move { custody.sign(&key, &[n; 32], soon()).await });
    }
    for signed in signing.join_all().await {
        signed.unwrap();
    }
    assert!(worker.terminate().success());
}

#[tokio::test]
async fn a_killed_worker_is_replaced_and_the_front_goes_on() {
    let Some(bench) = Bench::new("killed worker") else { return };
    let worker = bench.start();
    let custody = bench.ready().await;
    let key = key(&custody);
    custody.sign(&key, &DIGEST, soon()).await.unwrap();
    worker.kill();
    let error = custody.sign(&key, &DIGEST, soon()).await.unwrap_err();
    assert_eq!(error.code(), "signing_unavailable", "{error}");
    assert!(bench.path("t.sock").exists(), "the stale socket is there to be replaced");
    let next = bench.start();
    let began = Instant::now();
    while let Err(error) = custody.sign(&key, &DIGEST, soon()).await {
        assert!(began.elapsed() < LONG, "{error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(next.terminate().success());
}

#[tokio::test]
async fn a_wrong_pin_is_tried_once_and_the_worker_stays_up_to_say_so() {
    let Some(bench) = Bench::new("wrong PIN") else { return };
    bench.write("pin", "9999\n", 0o400);
    let worker = bench.start();
    let custody = bench.custody();
    let status = until(&custody, |status| status.state == "pin_refused").await;
    assert!(status.detail.contains("it is not tried again"), "{}", status.detail);
    assert!(!status.detail.contains("9999"));
    assert!(worker.terminate().success());
    let log = fs::read_to_string(bench.path("log")).unwrap();
    assert_eq!(log.matches("the token refused the PIN").count(), 1, "{log}");
    assert!(!log.contains("9999"), "{log}");
}

#[tokio::test]
async fn an_extractable_key_is_not_used() {
    let Some(bench) = Bench::new("extractable key") else { return };
    bench.generate("leaky", "02", &["--extractable"]);
    bench.configure(&bench.config().replace("pkcs11:object=k;id=%01", "pkcs11:object=leaky"));
    let worker = bench.start();
    let custody = bench.custody();
    let status = until(&custody, |status| status.state == "ready").await;
    assert!(!status.ready && status.detail.contains("CKA_EXTRACTABLE"), "{}", status.detail);
    assert_eq!(custody.resolve("acme", SigningMode::Kms).unwrap_err().reason(), "key_out_of_service");
    assert!(worker.terminate().success());
}

#[tokio::test]
async fn a_uri_must_name_exactly_one_key() {
    let Some(bench) = Bench::new("one key") else { return };
    bench.generate("k", "02", &[]);
    bench.configure(&bench.config().replace("pkcs11:object=k;id=%01", "pkcs11:object=k"));
    let worker = bench.start();
    let custody = bench.custody();
    let status = until(&custody, |status| status.state == "ready" && status.detail.contains("match")).await;
    assert!(status.detail.contains("2 private keys match"), "{}", status.detail);
    bench.configure(&bench.config().replace("pkcs11:object=k;id=%01", "pkcs11:object=k;id=%02"));
    let custody = bench.ready().await;
    custody.sign(&key(&custody), &DIGEST, soon()).await.unwrap();
    assert!(worker.terminate().success());
}

#[tokio::test]
async fn the_process_is_hardened_and_its_socket_is_not_open_to_all() {
    let Some(bench) = Bench::new("hardened process") else { return };
    let worker = bench.start();
    bench.ready().await;
    assert_eq!(fs::metadata(bench.path("t.sock")).unwrap().permissions().mode() & 0o7777, 0o660);
    let proc = PathBuf::from(format!("/proc/{}", worker.child.id()));
    let status = fs::read_to_string(proc.join("status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let limits = fs::read_to_string(proc.join("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    if !nix::unistd::getuid().is_root() {
        // What is not dumpable belongs to root in /proc.
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(proc.join("mem")).unwrap());
        assert_eq!(owner, 0);
    }
    assert!(worker.terminate().success());
}

#[tokio::test]
async fn one_token_has_one_worker() {
    let Some(bench) = Bench::new("one worker") else { return };
    let worker = bench.start();
    bench.ready().await;
    let output = bench.command(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("another worker is listening"), "{said}");
    assert!(worker.terminate().success());
}

#[test]
fn what_cannot_start_says_why_and_what_would_be_right() {
    let Some(bench) = Bench::new("start errors") else { return };
    let said = |from: &str, to: &str| {
        bench.configure(&bench.config().replace(from, to));
        let output = bench.command(&[]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{to}");
        String::from_utf8(output.stderr).unwrap()
    };
    let module = module().unwrap().display().to_string();
    assert!(said(&module, "/bin/true").contains("cannot load the PKCS#11 module /bin/true"));
    assert!(said("[tokens.main]\n", "[tokens.main]\nsessionz = 3\n").contains("sessionz"));
    assert!(said("front_user = \"", "front_user = \"nobody-at-all-").contains("tokens.main.front_user"));
    bench.write("pin", "1234", 0o644);
    assert!(said("", "").contains("chmod"));
}

#[tokio::test]
async fn a_socket_from_the_service_manager_is_taken() {
    let Some(bench) = Bench::new("socket activation") else { return };
    let Some(activate) = program("systemd-socket-activate") else {
        return skipped("socket activation", "systemd-socket-activate");
    };
    let socket = bench.path("t.sock");
    let listen = format!("--listen={}", socket.display());
    let conf = format!("--setenv=SOFTHSM2_CONF={}", bench.path("softhsm2.conf").display());
    let mut command = Command::new(activate);
    command.args([&listen, &conf]).arg(env!("CARGO_BIN_EXE_signer-token")).args(bench.arguments(&[]));
    let worker = bench.spawn(command);
    let custody = bench.ready().await;
    custody.sign(&key(&custody), &DIGEST, soon()).await.unwrap();
    assert!(!bench.path("t.sock.lock").exists(), "it did not bind one of its own");
    assert!(worker.terminate().success());
    assert!(socket.exists(), "the socket is the service manager's, and stays");
}

#[test]
fn the_bare_rate_of_the_token_is_measured_as_json() {
    let Some(bench) = Bench::new("bench") else { return };
    let output = bench.command(&["bench"]).args(["--seconds", "1", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let measured: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(measured["sessions"], 3);
    assert!(measured["per_second"].as_f64().unwrap() > 10.0, "{measured}");
    assert!(measured["cpu_us_per_signature"].as_f64().unwrap() > 1.0, "{measured}");
}

fn soon() -> Instant {
    Instant::now() + LONG
}

fn key(custody: &Custody) -> Arc<SigningKey> {
    custody.resolve("acme", SigningMode::Kms).unwrap()
}

fn status(custody: &Custody) -> TokenStatus {
    custody.status().remove(0)
}

/// Asks the worker until it is so.
async fn until(custody: &Arc<Custody>, is_so: impl Fn(&TokenStatus) -> bool) -> TokenStatus {
    let began = Instant::now();
    loop {
        custody.refresh().await;
        let status = status(custody);
        if is_so(&status) {
            return status;
        }
        assert!(began.elapsed() < LONG, "never: {status:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A token of its own in a directory of its own, with one key, and a configuration for it.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    /// `None`, with a word on why, when SoftHSM2 is not installed.
    fn new(test: &str) -> Option<Self> {
        for (found, what) in [
            (module().is_some(), "libsofthsm2.so (SoftHSM2; or SIGNER_TEST_PKCS11_MODULE)"),
            (program("softhsm2-util").is_some(), "softhsm2-util (SoftHSM2)"),
            (program("pkcs11-tool").is_some(), "pkcs11-tool (OpenSC)"),
        ] {
            if !found {
                skipped(test, what);
                return None;
            }
        }
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(bench.path("tokens")).unwrap();
        let tokens = bench.path("tokens");
        let conf =
            format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
        bench.write("softhsm2.conf", &conf, 0o600);
        bench.write("pin", "1234\n", 0o400);
        let mut init = bench.with_token(Command::new("softhsm2-util"));
        run(init.args(["--init-token", "--free", "--label", "main", "--pin", "1234", "--so-pin", "5678"]));
        bench.generate("k", "01", &[]);
        bench.configure(&bench.config());
        Some(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: &str, mode: u32) {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn generate(&self, label: &str, id: &str, more: &[&str]) {
        let mut tool = self.with_token(Command::new("pkcs11-tool"));
        tool.arg("--module").arg(module().unwrap());
        tool.args(["--token-label", "main", "--login", "--pin", "1234", "--keypairgen", "--key-type", "EC:prime256v1"]);
        run(tool.args(["--label", label, "--id", id, "--usage-sign", "--sensitive"]).args(more));
    }

    fn config(&self) -> String {
        let uid = nix::unistd::getuid().to_string();
        CONFIG
            .replace("@DIR@", self.dir.path().to_str().unwrap())
            .replace("@UID@", &uid)
            .replace("@MODULE@", module().unwrap().to_str().unwrap())
    }

    fn configure(&self, text: &str) {
        self.write("signer.toml", text, 0o600);
    }

    fn custody(&self) -> Arc<Custody> {
        Arc::new(Custody::new(&config::load(self.path("signer.toml")).unwrap()).unwrap())
    }

    async fn ready(&self) -> Arc<Custody> {
        let custody = self.custody();
        until(&custody, |status| status.ready).await;
        custody
    }

    fn arguments(&self, subcommand: &[&str]) -> Vec<String> {
        let config = self.path("signer.toml").display().to_string();
        let own = ["--config", &config, "--name", "main"].map(str::to_owned);
        subcommand.iter().map(|s| (*s).to_owned()).chain(own).collect()
    }

    fn command(&self, subcommand: &[&str]) -> Command {
        let mut command = self.with_token(Command::new(env!("CARGO_BIN_EXE_signer-token")));
        command.args(self.arguments(subcommand));
        command
    }

    fn start(&self) -> Worker {
        self.spawn(self.command(&[]))
    }

    fn spawn(&self, mut command: Command) -> Worker {
        let log = fs::File::create(self.path("log")).unwrap();
        Worker { child: command.stdin(Stdio::null()).stderr(log).spawn().unwrap() }
    }

    fn with_token(&self, mut command: Command) -> Command {
        command.env("SOFTHSM2_CONF", self.path("softhsm2.conf"));
        command
    }
}

/// The worker's process; killed when the test ends before it.
struct Worker {
    child: Child,
}

impl Worker {
    fn terminate(mut self) -> ExitStatus {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        self.child.wait().unwrap()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The first SoftHSM2 module that is there.
fn module() -> Option<PathBuf> {
    let named = std::env::var_os("SIGNER_TEST_PKCS11_MODULE").map(PathBuf::from);
    let usual = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/lib64/softhsm/libsofthsm.so",
        "/usr/local/lib/softhsm/libsofthsm2.so",
    ];
    named.into_iter().chain(usual.map(PathBuf::from)).find(|path| is_library(path))
}

fn is_library(path: &Path) -> bool {
    let mut magic = [0; 4];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// On a build machine everything must be there: a test that is skipped in silence proves nothing.
fn skipped(test: &str, missing: &str) {
    assert!(std::env::var_os("CI").is_none(), "cannot run `{test}`: {missing} is not installed");
    eprintln!("SKIPPED `{test}`: {missing} is not installed");
}

const LONG: Duration = Duration::from_secs(30);

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:8443"
local_listen = "127.0.0.1:9443"
public_url = "https://signer.test:8443"
[server.tls]
certificate = "/etc/signer/tls.pem"
private_key = "/etc/signer/tls.key"
client_ca = "/etc/signer/ca.pem"
[authority]
issuer = "https://authority.test"
jwks = { file = "/etc/signer/jwks.json" }
[licensing.offline]
issuer = "https://licensing.test"
keys = "/etc/signer/licensing.json"
revocation_list = "/etc/signer/revoked.jwt"
[tokens.main]
socket = "@DIR@/t.sock"
front_user = "@UID@"
worker_user = "@UID@"
module = "@MODULE@"
uri = "pkcs11:token=main"
pin_file = "@DIR@/pin"
sessions = 3
[keys.release]
token = "main"
uri = "pkcs11:object=k;id=%01"
state = "active"
[tenants.acme]
keys = ["release"]
predicate_types = ["*"]
[audit]
path = "/var/log/signer/audit.jsonl"
"#;
