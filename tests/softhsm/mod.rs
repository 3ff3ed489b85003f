//! A SoftHSM2 token of its own for each test, and a worker process on it.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stellaops_signer::config;
use stellaops_signer::custody::{Custody, TokenStatus};

/// A token of its own in a directory of its own, with one key, and a configuration for it.
pub(crate) struct Rig {
    dir: tempfile::TempDir,
}

impl Rig {
    /// `None`, with a word on why, when SoftHSM2 is not installed.
    pub(crate) fn new(test: &str) -> Option<Self> {
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
        let rig = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(rig.path("tokens")).unwrap();
        let tokens = rig.path("tokens");
        let conf =
            format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
        rig.write("softhsm2.conf", &conf, 0o600);
        rig.write("pin", "1234\n", 0o400);
        let mut init = rig.with_token(Command::new("softhsm2-util"));
        run(init.args(["--init-token", "--free", "--label", "main", "--pin", "1234", "--so-pin", "5678"]));
        rig.generate("k", "01", &[]);
        rig.configure(&rig.config());
        Some(rig)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str, mode: u32) {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) fn generate(&self, label: &str, id: &str, more: &[&str]) {
        let mut tool = self.with_token(Command::new("pkcs11-tool"));
        tool.arg("--module").arg(module().unwrap());
        tool.args(["--token-label", "main", "--login", "--pin", "1234", "--keypairgen", "--key-type", "EC:prime256v1"]);
        run(tool.args(["--label", label, "--id", id, "--usage-sign", "--sensitive"]).args(more));
    }

    pub(crate) fn config(&self) -> String {
        let uid = nix::unistd::getuid().to_string();
        CONFIG
            .replace("@DIR@", self.dir.path().to_str().unwrap())
            .replace("@UID@", &uid)
            .replace("@MODULE@", module().unwrap().to_str().unwrap())
    }

    pub(crate) fn configure(&self, text: &str) {
        self.write("signer.toml", text, 0o600);
    }

    pub(crate) fn custody(&self) -> Arc<Custody> {
        Arc::new(Custody::new(&config::load(self.path("signer.toml")).unwrap()).unwrap())
    }

    pub(crate) async fn ready(&self) -> Arc<Custody> {
        let custody = self.custody();
        until(&custody, |status| status.ready).await;
        custody
    }

    pub(crate) fn arguments(&self, subcommand: &[&str]) -> Vec<String> {
        let config = self.path("signer.toml").display().to_string();
        let own = ["--config", &config, "--name", "main"].map(str::to_owned);
        subcommand.iter().map(|s| (*s).to_owned()).chain(own).collect()
    }

    pub(crate) fn command(&self, subcommand: &[&str]) -> Command {
        let mut command = self.with_token(Command::new(env!("CARGO_BIN_EXE_signer-token")));
        command.args(self.arguments(subcommand));
        command
    }

    pub(crate) fn start(&self) -> Worker {
        self.spawn(self.command(&[]))
    }

    pub(crate) fn spawn(&self, mut command: Command) -> Worker {
        let log = fs::File::create(self.path("log")).unwrap();
        Worker { child: command.stdin(Stdio::null()).stderr(log).spawn().unwrap() }
    }

    fn with_token(&self, mut command: Command) -> Command {
        command.env("SOFTHSM2_CONF", self.path("softhsm2.conf"));
        command
    }
}

/// The worker's process; killed when the test ends before it.
pub(crate) struct Worker {
    pub(crate) child: Child,
}

impl Worker {
    pub(crate) fn terminate(mut self) -> ExitStatus {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        self.child.wait().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    pub(crate) fn kill(mut self) {
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
pub(crate) fn module() -> Option<PathBuf> {
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

pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

pub(crate) fn status(custody: &Custody) -> TokenStatus {
    custody.status().remove(0)
}

/// Asks the worker until it is so.
pub(crate) async fn until(custody: &Arc<Custody>, is_so: impl Fn(&TokenStatus) -> bool) -> TokenStatus {
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

/// On a build machine everything must be there: a test that is skipped in silence proves nothing.
pub(crate) fn skipped(test: &str, missing: &str) {
    assert!(std::env::var_os("CI").is_none(), "cannot run `{test}`: {missing} is not installed");
    eprintln!("SKIPPED `{test}`: {missing} is not installed");
}

pub(crate) const LONG: Duration = Duration::from_secs(30);

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
state_dir = "@DIR@/state"
sessions = 3
[keys.release]
token = "main"
uri = "pkcs11:object=k;id=%01"
state = "active"
[[keys.release.custody_exception]]
attribute = "CKA_UNWRAP"
reason = "pkcs11-tool cannot make a key without it on SoftHSM2"
[tenants.acme]
keys = ["release"]
predicate_types = ["*"]
[audit]
path = "/var/log/signer/audit.jsonl"
"#;
