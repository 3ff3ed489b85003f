//! An operator's desk: a token directory of its own, a configuration, PIN files, and `signerctl`.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use testkit::softhsm::find_module;

pub(crate) const PIN: &str = "471100-user-pin";
pub(crate) const SO_PIN: &str = "081500-officer-pin";

pub(crate) struct Desk {
    dir: tempfile::TempDir,
    config: RefCell<String>,
    environment: RefCell<Vec<(String, String)>>,
}

/// What one run of a program said.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON: {error}\n{self:?}"))
    }

    #[track_caller]
    pub(crate) fn succeeds(&self) -> &Self {
        assert_eq!(self.code, 0, "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// It ended with this code and said each of these words to a person.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}\n{}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not in:\n{}", self.stderr);
        }
    }
}

impl From<Output> for Run {
    /// Wherever a program speaks, no PIN is heard.
    #[track_caller]
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let run = Self {
            code: output.status.code().expect("ended by a signal"),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        };
        for pin in [PIN, SO_PIN] {
            assert!(!run.stdout.contains(pin) && !run.stderr.contains(pin), "a PIN was printed: {run:?}");
        }
        run
    }
}

impl Desk {
    /// An empty token directory.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let desk = Self { dir, config: RefCell::default(), environment: RefCell::default() };
        for directory in ["tokens", "audit", "run"] {
            fs::create_dir(desk.path(directory)).unwrap();
            fs::set_permissions(desk.path(directory), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(desk.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let tokens = desk.path("tokens").display().to_string();
        let conf = format!("directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n");
        desk.write("softhsm2.conf", &conf, 0o600);
        // The loader wants these to be there and to be PEM or JSON; no appliance runs at this desk.
        desk.write("tls.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 0o644);
        desk.write("tls.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 0o600);
        desk.write("jwks.json", "{\"keys\": [{}]}", 0o644);
        desk.write("pin", format!("{PIN}\n"), 0o400);
        desk.write("so-pin", format!("{SO_PIN}\n"), 0o400);
        desk.set_env("SOFTHSM2_CONF", &desk.path("softhsm2.conf").display().to_string());
        let uid = fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own)).unwrap().to_string();
        let module = fs::canonicalize(find_module().unwrap()).unwrap().display().to_string();
        let text = CONFIG.replace("@DIR@", &desk.dir.path().display().to_string());
        desk.configure(&text.replace("@UID@", &uid).replace("@MODULE@", &module));
        desk
    }

    /// With a token `main` and the key `release` in it.
    pub(crate) fn furnished() -> Self {
        let desk = Self::new();
        desk.signerctl(&["token", "init", "main", "--so-pin-file", "so-pin", "--yes"]).succeeds();
        let whole = desk.config();
        // The key is not in the configuration before it is made.
        desk.configure(&whole.replace("[keys.release]", "[keys.other]").replace("\"release\"", "\"other\""));
        desk.signerctl(&[
            "keys",
            "generate",
            "release",
            "--token",
            "main",
            "--id",
            "01",
            "--public-key",
            "release.pub",
        ])
        .succeeds();
        desk.configure(&whole);
        desk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn config(&self) -> String {
        self.config.borrow().clone()
    }

    pub(crate) fn configure(&self, text: &str) {
        self.write("signer.toml", text, 0o644);
        text.clone_into(&mut self.config.borrow_mut());
    }

    /// Replaces a part of the configuration that is there.
    #[track_caller]
    pub(crate) fn change(&self, from: &str, to: &str) {
        let text = self.config();
        assert!(text.contains(from), "`{from}` is not in the configuration");
        self.configure(&text.replace(from, to));
    }

    /// As after a rotation: the key `release` verifies only, and its tenant signs with another one.
    #[track_caller]
    pub(crate) fn retire_release(&self) {
        self.change("state = \"active\"", "state = \"retired\"");
        let spare = "[keys.spare]\ntoken = \"main\"\nuri = \"pkcs11:object=spare\"\nstate = \"active\"\n";
        self.change("[tenants.acme]\nkeys = [\"release\"]", &format!("{spare}[tenants.acme]\nkeys = [\"spare\"]"));
    }

    /// The line of the configuration that begins so, counted from 1.
    #[track_caller]
    pub(crate) fn line(&self, start: &str) -> u64 {
        let text = self.config();
        let at = text.lines().position(|line| line.starts_with(start));
        at.unwrap_or_else(|| panic!("no line begins with `{start}`")) as u64 + 1
    }

    pub(crate) fn set_env(&self, name: &str, value: &str) {
        self.environment.borrow_mut().push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dir.path()).env("SIGNER_CONFIG", self.path("signer.toml"));
        command.envs(self.environment.borrow().iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    #[track_caller]
    pub(crate) fn signerctl(&self, arguments: &[&str]) -> Run {
        self.command(env!("CARGO_BIN_EXE_signerctl")).args(arguments).output().unwrap().into()
    }

    /// A program that is not ours; its output.
    #[track_caller]
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        let run = Run::from(self.command(program).args(arguments).output().unwrap());
        assert_eq!(run.code, 0, "{program} {arguments:?}\n{}{}", run.stdout, run.stderr);
        run.stdout + &run.stderr
    }

    /// A key pair that `signerctl` would not make.
    pub(crate) fn foreign_key(&self, label: &str, id: &str, more: &[&str]) {
        let make = ["--keypairgen", "--key-type", "EC:prime256v1", "--usage-sign", "--label", label, "--id", id];
        self.pkcs11_tool(&[&make[..], more].concat());
    }

    pub(crate) fn pkcs11_tool(&self, arguments: &[&str]) {
        let mut tool = self.command("pkcs11-tool");
        tool.env("DESK_PIN", PIN).arg("--module").arg(find_module().unwrap());
        let output = tool.args(["--token-label", "main", "--login", "--pin", "env:DESK_PIN"]).args(arguments).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A CA in `NAME.pem` and `NAME.key`.
    pub(crate) fn certificate_authority(&self, name: &str) {
        let (key, pem, subject) = (format!("{name}.key"), format!("{name}.pem"), format!("/CN=Test {name}"));
        self.run("openssl", &["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", &key]);
        self.run("openssl", &["req", "-x509", "-new", "-key", &key, "-subj", &subject, "-days", "30", "-out", &pem]);
    }

    /// The certificate that the CA issues for a request, in `OUT`, alone.
    pub(crate) fn issue(&self, ca: &str, request: &str, out: &str, days: &str) {
        let (pem, key) = (format!("{ca}.pem"), format!("{ca}.key"));
        let issue = ["x509", "-req", "-in", request, "-CA", &pem, "-CAkey", &key, "-CAcreateserial", "-days", days];
        self.run("openssl", &[&issue[..], &["-copy_extensions", "copy", "-out", out]].concat());
    }
}

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:8443"
local_listen = "unix:@DIR@/run/local.sock"
public_url = "https://signer.test:8443"
[server.tls]
certificate = "@DIR@/tls.pem"
private_key = "@DIR@/tls.key"
client_ca = "@DIR@/tls.pem"
[authority]
issuer = "https://authority.test"
jwks = { file = "@DIR@/jwks.json" }
[licensing.offline]
issuer = "https://licensing.test"
keys = "@DIR@/jwks.json"
revocation_list = "@DIR@/jwks.json"
[tokens.main]
socket = "@DIR@/run/t.sock"
front_user = "@UID@"
worker_user = "@UID@"
module = "@MODULE@"
uri = "pkcs11:token=main"
pin_file = "@DIR@/pin"
sessions = 3
state_dir = "@DIR@/state"
[keys.release]
token = "main"
uri = "pkcs11:object=release;id=%01"
state = "active"
[tenants.acme]
keys = ["release"]
predicate_types = ["*"]
[audit]
path = "@DIR@/audit/audit.jsonl"
"#;
