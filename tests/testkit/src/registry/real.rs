//! Registries that are not ours: go-containerregistry's and zot, which have the referrers API, and distribution 2.8, which
//! has not.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::appliance::{Process, free_port};
use crate::pki::Pki;
use crate::{Context, Error, Result, hex, random_id, sha256, shell};

/// zot, with TLS and passwords; it ends when dropped.
pub struct Zot(Running);

/// Debian's `docker-registry`, with TLS and passwords; it ends when dropped.
pub struct Distribution(Running);

/// The registry of go-containerregistry, with TLS and a password; it ends when dropped.
pub struct GoRegistry {
    child: Child,
    port: u16,
    password: String,
}

struct Running {
    port: u16,
    password: String,
    process: Process,
}

impl Zot {
    /// Starts it.
    ///
    /// # Errors
    /// When it was not built, or does not start.
    pub fn start(pki: &Pki, dir: &Path) -> Result<Self> {
        let program = crate::peers::zot()?;
        let dir = dir.join("zot");
        let (port, password) = (free_port()?, random_id());
        let passwords = prepare(&dir, &password)?;
        let config = json!({
            "distSpecVersion": "1.1.1",
            "storage": { "rootDirectory": dir.join("store"), "gc": false, "dedupe": false },
            "http": {
                "address": "127.0.0.1", "port": port.to_string(),
                "tls": { "cert": pki.services.certificate(), "key": pki.services.private_key() },
                "auth": { "htpasswd": { "path": passwords }, "failDelay": 0 },
            },
            "log": { "level": "error" },
        });
        let file = dir.join("config.json");
        std::fs::write(&file, config.to_string()).context("write zot's configuration")?;
        let mut command = Command::new(program);
        command.arg("serve").arg(file).env("HOME", &dir);
        Running::start("zot", command, &dir, port, password).map(Self)
    }

    /// `localhost:PORT`.
    #[must_use]
    pub fn host(&self) -> String {
        self.0.host()
    }

    /// The password of [`USER`].
    #[must_use]
    pub fn password(&self) -> &str {
        &self.0.password
    }
}

impl Distribution {
    /// Starts it.
    ///
    /// # Errors
    /// When it is not there, or does not start.
    pub fn start(pki: &Pki, dir: &Path) -> Result<Self> {
        let program = crate::peers::distribution()?;
        let dir = dir.join("distribution");
        let (port, password) = (free_port()?, random_id());
        let passwords = prepare(&dir, &password)?;
        // YAML is a superset of JSON.
        let config = json!({
            "version": 0.1,
            "log": { "level": "error" },
            "storage": { "filesystem": { "rootdirectory": dir.join("store") }, "delete": { "enabled": true } },
            "http": {
                "addr": format!("127.0.0.1:{port}"), "secret": random_id(),
                "tls": { "certificate": pki.services.certificate(), "key": pki.services.private_key() },
            },
            "auth": { "htpasswd": { "realm": "test", "path": passwords } },
        });
        let file = dir.join("config.yml");
        std::fs::write(&file, config.to_string()).context("write docker-registry's configuration")?;
        let mut command = Command::new(program);
        command.arg("serve").arg(file);
        Running::start("docker-registry", command, &dir, port, password).map(Self)
    }

    /// `localhost:PORT`.
    #[must_use]
    pub fn host(&self) -> String {
        self.0.host()
    }

    /// The password of [`USER`].
    #[must_use]
    pub fn password(&self) -> &str {
        &self.0.password
    }
}

impl GoRegistry {
    /// Starts it.
    ///
    /// # Errors
    /// When it was not built, or does not start.
    pub fn start(pki: &Pki) -> Result<Self> {
        let password = random_id();
        let mut child = Command::new(crate::peers::registry()?)
            .env("TLS_CERT", pki.services.certificate())
            .env("TLS_KEY", pki.services.private_key())
            .env("REGISTRY_USER", USER)
            .env("REGISTRY_PASSWORD", &password)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("run the registry")?;
        let lines = BufReader::new(child.stdout.take().context("read from the registry")?).lines();
        let port = lines.map_while(std::io::Result::ok).find_map(|line| line.strip_prefix("listening ")?.parse().ok());
        // It ends with its standard input, and so with this.
        let port = port.ok_or_else(|| Error::new("the registry ended before it was listening"))?;
        Ok(Self { child, port, password })
    }

    /// `localhost:PORT`.
    #[must_use]
    pub fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// The password of [`USER`].
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }
}

impl Drop for GoRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(name: &str, command: Command, dir: &Path, port: u16, password: String) -> Result<Self> {
        let mut process = Process::start(name, command, dir)?;
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if !process.is_running() || Instant::now() > deadline {
                return Err(Error(format!("{name} does not listen\n{}", shell::tail(&process.log, 20))));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { port, password, process })
    }

    fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.process.kill();
    }
}

/// The directory, and a file with the password of [`USER`], hashed by bcrypt as the system's crypt(3) does.
fn prepare(dir: &Path, password: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(dir).context(format!("make {}", dir.display()))?;
    let salt: String = hex(sha256(random_id())).chars().take(21).chain(['u']).collect();
    let mut perl = Command::new("perl");
    perl.args(["-e", "print crypt($ARGV[0], $ARGV[1])", "--", password, &format!("$2b$05${salt}")]);
    let hash = String::from_utf8(shell::run(&mut perl)?).context("read a hash")?;
    if !hash.starts_with("$2b$") {
        return Err(Error::new("this system's crypt(3) has no bcrypt"));
    }
    let file = dir.join("htpasswd");
    std::fs::write(&file, format!("{USER}:{hash}\n")).context("write the passwords")?;
    Ok(file)
}

/// Who may pull and push.
pub const USER: &str = "robot";

const PATIENCE: Duration = Duration::from_secs(30);
