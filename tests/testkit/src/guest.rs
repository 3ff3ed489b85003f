//! A Debian with a kernel of its own, emulated by QEMU: for what the kernel of this machine does not do, such as AppArmor
//! and SELinux.
//!
//! Slower than [`machine`](crate::machine) by far: it is emulated and not virtualised, so that it runs wherever QEMU does. As
//! there, it is in a network namespace that nobody else is in. The test's clients reach its port 8443 on loopback, and it
//! reaches those services of the test on its own loopback that it is told of ([`Guest::forward`]). Needs root.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::machine::network;
use crate::{Context, Error, Result, shell};

/// What confines programs in a guest.
#[derive(Clone, Copy, Debug)]
pub enum Lsm {
    /// With the profiles that the package brings.
    AppArmor,
    /// With Debian's reference policy, enforced.
    SeLinux,
}

/// A guest that runs. It is switched off, and gone, when dropped.
pub struct Guest {
    qemu: Child,
    dir: TempDir,
}

impl Guest {
    /// Boots what the environment variable names: `cargo xtask test` makes it. What is written in it is gone afterwards.
    ///
    /// # Errors
    /// When it was not made or does not come up; with the end of what it printed.
    pub fn boot(variable: &str, lsm: Lsm) -> Result<Self> {
        network()?;
        let image = std::env::var_os(variable).map(PathBuf::from).filter(|image| image.is_dir());
        let image = image.context(format!("find the guest of {variable}; `cargo xtask test confined` makes it"))?;
        let dir = tempfile::Builder::new().prefix("guest-").tempdir().context("make a temporary directory")?;
        let output = File::create(dir.path().join("qemu")).context("make a file for QEMU's output")?;
        let lsm = match lsm {
            Lsm::AppArmor => "security=apparmor apparmor=1",
            Lsm::SeLinux => "security=selinux selinux=1 enforcing=1",
        };
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "2048", "-nodefaults", "-no-reboot"]);
        qemu.args(["-display", "none", "-serial"]).arg(format!("file:{}", dir.path().join("console").display()));
        qemu.arg("-kernel").arg(image.join("vmlinuz")).arg("-initrd").arg(image.join("initrd"));
        // With a daemon for audit events, or without auditing, some are dropped or are somewhere else.
        qemu.arg("-append").arg(format!("root=/dev/vda rw console=ttyS0 audit=1 audit_backlog_limit=8192 {lsm}"));
        qemu.arg("-drive").arg(format!("file={},if=virtio,format=raw,snapshot=on", image.join("disk").display()));
        qemu.args(["-device", "virtio-rng-pci", "-device", "virtio-net-pci,netdev=net", "-netdev"]);
        qemu.arg(format!("user,id=net,hostfwd=tcp:127.0.0.1:8443-:8443,hostfwd=tcp:127.0.0.1:{AGENT}-:{AGENT}"));
        qemu.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // Where it keeps what is written to the disk.
        qemu.env("TMPDIR", dir.path());
        let qemu = qemu.spawn().context("run qemu-system-x86_64")?;
        let mut guest = Self { qemu, dir };
        let start = Instant::now();
        while !guest.sh("systemctl is-system-running --wait || true").is_ok_and(|state| state.contains("running")) {
            if guest.qemu.try_wait()?.is_some() || start.elapsed() > BOOT_PATIENCE {
                return Err(Error(format!("the guest did not boot:\n{}", guest.said())));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(guest)
    }

    /// Runs a script of shell as root and returns what it printed, on either output.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.feed(script, b"")
    }

    /// The same, with bytes on its standard input.
    ///
    /// # Errors
    /// As [`Guest::sh`].
    pub fn feed(&self, script: &str, input: &[u8]) -> Result<String> {
        let script = format!("set -e\n{script}\n");
        let mut stream = TcpStream::connect(("127.0.0.1", AGENT)).context("reach the guest")?;
        stream.set_read_timeout(Some(PATIENCE)).context("bound the guest's time")?;
        let request = [format!("{}\n{script}", script.len()).as_bytes(), input].concat();
        stream.write_all(&request).and_then(|()| stream.shutdown(Shutdown::Write)).context("speak to the guest")?;
        let mut said = Vec::new();
        stream.read_to_end(&mut said).context(format!("hear from the guest what became of:{script}"))?;
        let said = String::from_utf8_lossy(&said).into_owned();
        match said.rsplit_once('\n') {
            Some((said, "0")) => Ok(said.to_owned()),
            Some((said, status)) => Err(Error(format!("failed with status {status}:{script}It said:\n{said}"))),
            None => Err(Error::new("the guest does not answer yet")),
        }
    }

    /// Writes a file, with its directory.
    ///
    /// # Errors
    /// When the guest cannot.
    pub fn put(&self, path: &str, content: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        let script = format!("mkdir -p \"$(dirname '{path}')\"; cat >'{path}'; chmod {mode:o} '{path}'");
        self.feed(&script, content.as_ref()).map(drop)
    }

    /// Makes the service behind this URL, on the test's loopback, one on the guest's.
    ///
    /// # Errors
    /// When the URL names no port, or the guest cannot.
    pub fn forward(&self, url: &str) -> Result<()> {
        let port: Option<u16> = url.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let port = port.context(format!("find the port of {url}"))?;
        self.sh(&format!("systemctl start forward@{port}.socket")).map(drop)
    }

    /// Waits until a line of shell succeeds.
    ///
    /// # Errors
    /// When it does not within `patience`; with the journal's end.
    pub fn wait(&self, patience: Duration, script: &str) -> Result<String> {
        let start = Instant::now();
        loop {
            match self.sh(script) {
                Ok(said) => return Ok(said),
                Err(error) if start.elapsed() > patience => {
                    let journal = self.sh("journalctl --no-pager --lines=60").unwrap_or_default();
                    return Err(Error(format!("not within {patience:?}: {error}\n{journal}")));
                }
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    fn said(&self) -> String {
        let tail = |name: &str| shell::tail(&self.dir.path().join(name), 40);
        [tail("qemu"), tail("console")].join("\n")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let journal = self.sh("journalctl --no-pager --lines=120").unwrap_or_else(|_| self.said());
            eprintln!("the guest's journal ends so:\n{journal}");
        }
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// The port of the guest's agent, `tests/peers/guest/agent@.service`.
const AGENT: u16 = 2222;
/// A minute is usual.
const BOOT_PATIENCE: Duration = Duration::from_secs(400);
/// The longest of a test's scripts; SELinux compiles its policy for a minute.
const PATIENCE: Duration = Duration::from_secs(400);
const PAUSE: Duration = Duration::from_millis(500);
