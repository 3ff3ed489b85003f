//! A child process and its log.

#![forbid(unsafe_code)]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::{Context, Error, Result, shell};

/// A child process; it is killed when dropped.
pub struct Process {
    /// What messages call it.
    pub name: String,
    /// File with everything it printed, over all its restarts.
    pub log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts it; its output is appended to `dir/NAME.log`.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(name: &str, command: Command, dir: &Path) -> Result<Self> {
        Self::start_with(name, command, Stdio::null(), dir)
    }

    /// As [`start`](Self::start), with this on its standard input.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start_with(name: &str, mut command: Command, input: Stdio, dir: &Path) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).context(format!("open {}", log.display()))?;
        let child = command
            .stdin(input)
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context(format!("start {}", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), log, child })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it goes on for more than ten seconds; it is killed then.
    pub fn terminate(&mut self) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        self.signal("TERM")?;
        self.wait(Duration::from_secs(10)).map(drop).inspect_err(|_| self.kill())
    }

    /// Sends a signal by its name, as in `STOP`.
    ///
    /// # Errors
    /// When there is no such process or signal.
    pub fn signal(&self, signal: &str) -> Result<()> {
        shell::run(Command::new("kill").arg(format!("-{signal}")).arg(self.id().to_string())).map(drop)
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    /// When it does not in that time; the message holds the end of its log.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                let log = shell::tail(&self.log, 20);
                return Err(Error(format!("{} still runs after {patience:?}\n{log}", self.name)));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// CPU time it has used, user and system together (Linux, in clock ticks of 10 ms).
    ///
    /// # Errors
    /// When `/proc` does not tell.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).context("read /proc")?;
        // The second field is the name in parentheses and may hold spaces; 14 and 15 are utime and stime.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).context("read /proc");
        Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
    }

    /// Resident memory in bytes (Linux).
    ///
    /// # Errors
    /// When `/proc` does not tell.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).context("read /proc")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("find VmRSS")?;
        let kib = line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).context("read VmRSS")?;
        Ok(kib * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
