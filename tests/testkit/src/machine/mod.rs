//! A Debian of its own, booted by systemd-nspawn: what an operator's machine is to the package.
//!
//! The machine and the test share one network namespace that nobody else is in ([mod@network]), so that the machine
//! reaches the test's services on loopback, and the test's clients reach the machine. Everything else of the machine is
//! its own. Needs root.

#![forbid(unsafe_code)]

mod freeze;
mod network;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{Context, Error, Result, shell};

pub use freeze::Frozen;
pub use network::network;

/// A root directory that machines are made from.
#[derive(Clone, Debug)]
pub struct Image {
    root: PathBuf,
}

/// A booted machine. It is switched off, and gone, when dropped.
pub struct Machine {
    nspawn: Child,
    leader: u32,
    // Absent once somebody else has it.
    dir: Option<TempDir>,
}

impl Image {
    /// The one that an environment variable names: `cargo xtask test` makes them with debootstrap.
    ///
    /// # Errors
    /// When it was not made.
    pub fn named(variable: &str) -> Result<Self> {
        let root = std::env::var_os(variable).map(PathBuf::from).filter(|root| root.is_dir());
        root.map(|root| Self { root })
            .context(format!("find the Debian of {variable}; `cargo xtask test appliance` makes it"))
    }

    /// Its root directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A copy of it, in a directory that goes with the returned value.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn copy(&self) -> Result<TempDir> {
        let dir = tempfile::Builder::new().prefix("machine-").tempdir().context("make a temporary directory")?;
        let to = dir.path().join("root");
        shell::run(Command::new("cp").args(["--archive", "--reflink=auto", "--"]).arg(&self.root).arg(to))?;
        Ok(dir)
    }

    /// Boots a copy of it.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn boot(&self) -> Result<Machine> {
        Machine::boot(self.copy()?)
    }
}

impl Machine {
    /// Boots what is in `dir/root`.
    ///
    /// # Errors
    /// When it does not come up; the message holds what was printed.
    pub fn boot(dir: TempDir) -> Result<Self> {
        let namespace = network()?;
        let log = dir.path().join("console");
        let console = File::create(&log).context("make a file for the console")?;
        // A minimal system has no names at all.
        fs::write(dir.path().join("root/etc/hosts"), "127.0.0.1 localhost\n").context("name the machine")?;
        let name = machine_name(dir.path());
        let mut command = Command::new("sh");
        command
            .args(["-ec", &format!("{CGROUP}{ENTER}exec \"$@\""), "sh"])
            .arg(dir.path().join("cgroup"))
            .arg(&name)
            .arg("systemd-nspawn")
            .args(["--quiet", "--boot", "--register=no", "--keep-unit", "--link-journal=no", "--console=pipe"])
            .args(["--resolv-conf=off", "--timezone=off", "--hostname=signer"])
            .arg(format!("--directory={}", dir.path().join("root").display()))
            .arg(format!("--machine={name}"))
            .arg(format!("--network-namespace-path={}", namespace.display()))
            // The filter of nspawn itself forbids what a machine's kernel lets everybody do, and the sealed helper needs.
            .arg("--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self")
            // Without this it takes over the host's cgroup version, which a newer systemd may no longer run on.
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console);
        let nspawn = command.spawn().context("run systemd-nspawn")?;
        let mut machine = Self { nspawn, leader: 0, dir: Some(dir) };
        let deadline = Instant::now() + BOOT_PATIENCE;
        while !machine.is_up() {
            if machine.nspawn.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(Error(format!("the machine did not boot:\n{}", shell::tail(&log, 40))));
            }
            std::thread::sleep(PAUSE);
        }
        // Degraded is up, too: the tests look at their own units.
        let _ = machine.output(&["systemctl", "is-system-running", "--wait"])?;
        Ok(machine)
    }

    fn is_up(&mut self) -> bool {
        let nspawn = self.nspawn.id();
        let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children")).unwrap_or_default();
        let Some(leader) = children.split_whitespace().next().and_then(|id| id.parse().ok()) else { return false };
        self.leader = leader;
        fs::read_to_string(format!("/proc/{leader}/comm")).is_ok_and(|name| name == "systemd\n")
            && self.output(&["systemctl", "is-system-running"]).is_ok_and(|said| {
                let state = String::from_utf8_lossy(&said.stdout).into_owned();
                // Before that, systemctl finds no bus.
                ["initializing", "starting", "running", "degraded"].contains(&state.trim())
            })
    }

    /// Where a file of the machine's is for us.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        let dir = self.dir.as_ref().map_or(Path::new("/nonexistent"), TempDir::path);
        dir.join("root").join(inside.trim_start_matches('/'))
    }

    /// A command as root, in all namespaces of the machine.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.leader.to_string(), "--all", "--wdns=/", "--"]).args(arguments);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        command
    }

    /// Runs it, whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments).output().context(format!("run {}", arguments.join(" ")))
    }

    /// Runs it and returns what it printed.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        let said = [text(&output.stderr), text(&output.stdout)].concat();
        Err(Error(format!("`{}` failed ({}):\n{}", arguments.join(" "), output.status, said.trim())))
    }

    /// Runs a line of shell.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn sh(&self, script: &str) -> Result<String> {
        self.run(&["sh", "-ec", script])
    }

    /// A property of a unit, as in `("signerd.service", "MainPID")`.
    ///
    /// # Errors
    /// When systemctl fails.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        Ok(self.run(&["systemctl", "show", "--value", "--property", name, unit])?.trim().to_owned())
    }

    /// The id of a unit's main process as the machine counts, and as we do.
    ///
    /// # Errors
    /// When it has none.
    pub fn main_process(&self, unit: &str) -> Result<(u32, u32)> {
        let inside: u32 = self.property(unit, "MainPID")?.parse().context(format!("read the process id of {unit}"))?;
        if inside == 0 {
            return Err(Error(format!("{unit} has no process")));
        }
        Ok((inside, self.outside(inside)?))
    }

    /// What we call a process of the machine's.
    ///
    /// # Errors
    /// When there is none.
    pub fn outside(&self, inside: u32) -> Result<u32> {
        let namespace = |id: &str| fs::read_link(format!("/proc/{id}/ns/pid")).ok();
        let ours = namespace(&self.leader.to_string());
        let ids = fs::read_dir("/proc").context("read /proc")?.flatten();
        let mut ids = ids.filter_map(|entry| entry.file_name().into_string().ok());
        let found = ids.find(|id| {
            let Ok(status) = fs::read_to_string(format!("/proc/{id}/status")) else { return false };
            let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            line.split_whitespace().last() == Some(&inside.to_string()) && namespace(id) == ours
        });
        found.and_then(|id| id.parse().ok()).context(format!("find process {inside} of the machine"))
    }

    /// Waits until something holds.
    ///
    /// # Errors
    /// When it does not within `patience`; with the journal's end.
    pub fn wait(&self, patience: Duration, what: &str, mut holds: impl FnMut(&Self) -> bool) -> Result<Duration> {
        let start = Instant::now();
        while !holds(self) {
            if start.elapsed() > patience {
                return Err(Error(format!("not within {patience:?}: {what}\n{}", self.journal(60))));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(start.elapsed())
    }

    /// The end of the journal.
    #[must_use]
    pub fn journal(&self, lines: usize) -> String {
        let lines = format!("--lines={lines}");
        let output = self.output(&["journalctl", "--no-pager", "--output=short-precise", &lines]);
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    }

    /// Switches it off in good order. Returns what is on its disk, to be booted again.
    ///
    /// # Errors
    /// When it does not end.
    pub fn power_off(mut self) -> Result<TempDir> {
        // The connection ends with the machine, so what it returns says nothing.
        let _ = self.output(&["systemctl", "poweroff"]);
        let deadline = Instant::now() + BOOT_PATIENCE;
        while self.nspawn.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err(Error::new("the machine does not switch itself off"));
            }
            std::thread::sleep(PAUSE);
        }
        self.dir.take().context("keep the machine's disk")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if matches!(self.nspawn.try_wait(), Ok(None)) {
            if std::thread::panicking() {
                eprintln!("the machine's journal ends so:\n{}", self.journal(120));
            }
            // Its first process takes all others along.
            if self.leader != 0 {
                let _ = Command::new("kill").args(["-KILL", &self.leader.to_string()]).status();
            } else {
                let _ = self.nspawn.kill();
            }
            let _ = self.nspawn.wait();
        }
        if let Some(dir) = &self.dir {
            // What is left there is empty, and costs nobody anything.
            let mut leave = Command::new("sh");
            leave.args(["-ec", &format!("{CGROUP}{LEAVE}"), "sh"]).arg(dir.path().join("cgroup"));
            let _ = leave.arg(machine_name(dir.path())).stderr(Stdio::null()).status();
        }
    }
}

/// At most 64 letters, and not the same as another's.
fn machine_name(dir: &Path) -> String {
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.chars().filter(char::is_ascii_alphanumeric).collect()
}

/// A machine has a control group to itself: two that shared one would end each other's services. `$1` is where the
/// hierarchy of version 2 can be seen for a moment, which not every host has mounted; `$2` the machine's name.
const CGROUP: &str = r#"
mkdir -p "$1"
mount -t cgroup2 none "$1"
own=$(sed -n 's/^0:://p' /proc/self/cgroup)
group="$1${own%/}/$2"
"#;
const ENTER: &str = r#"
mkdir -p "$group"
echo $$ >"$group/cgroup.procs"
umount "$1"
shift 2
"#;
const LEAVE: &str = r#"
find "$group" -depth -type d -exec rmdir {} \; || true
umount "$1"
"#;

const BOOT_PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);
