//! Helpers: started by one thread, reaped by another, so that no event loop waits for either and none is left behind.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use signer_keyless::wire::{self, Layers};
use tokio::sync::oneshot;

use super::program::Program;

/// Starts helpers.
#[derive(Clone, Debug)]
pub(super) struct Launcher {
    starting: Sender<oneshot::Sender<io::Result<Started>>>,
}

/// A helper that runs. Dropped, it is killed; in any case it is reaped.
#[derive(Debug)]
pub(super) struct Process {
    child: Option<Child>,
    reaper: Sender<Ending>,
}

/// A helper and the parent's end of its socket.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) process: Process,
    pub(super) socket: UnixStream,
}

/// A helper on its way out.
struct Ending {
    child: Child,
    /// Until when it may end by itself.
    until: Instant,
    tell: Option<oneshot::Sender<ExitStatus>>,
}

impl Launcher {
    /// Helpers of this program, with these exceptions from their sandbox.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(super) fn new(program: Program, exceptions: Layers) -> io::Result<Self> {
        let (reaper, endings) = mpsc::channel();
        std::thread::Builder::new().name("keyless-reap".to_owned()).spawn(move || reap(&endings))?;
        let (starting, orders) = mpsc::channel::<oneshot::Sender<io::Result<Started>>>();
        // The standard library starts a child like this by vfork and exec (posix_spawn); what it costs is waiting.
        std::thread::Builder::new().name("keyless-start".to_owned()).spawn(move || {
            for order in orders {
                if !order.is_closed() {
                    // Whoever ordered it may be gone by now; then it is dropped, and so killed.
                    let _ = order.send(start(&program, exceptions, &reaper));
                }
            }
        })?;
        Ok(Self { starting })
    }

    /// Starts one.
    ///
    /// # Errors
    /// What the system says.
    pub(super) async fn start(&self) -> io::Result<Started> {
        let (order, started) = oneshot::channel();
        let stopping = || io::Error::other("the process is stopping");
        self.starting.send(order).map_err(|_| stopping())?;
        started.await.map_err(|_| stopping())?
    }
}

impl Process {
    /// Lets it end by itself, which it does when it has signed for the last time or sees its socket closed; kills it
    /// when it takes long.
    pub(super) fn dismiss(mut self) {
        self.end(GRACE, None);
    }

    /// Ends it, and says how it ended: by itself already, or now. `sealed`: whether it had closed its sandbox.
    pub(super) async fn post_mortem(mut self, sealed: bool) -> String {
        let (tell, told) = oneshot::channel();
        self.end(Duration::ZERO, Some(tell));
        match tokio::time::timeout(GRACE, told).await {
            Ok(Ok(status)) => ended(status, sealed),
            _ => "how it ended is not known".to_owned(),
        }
    }

    fn end(&mut self, grace: Duration, tell: Option<oneshot::Sender<ExitStatus>>) {
        let Some(child) = self.child.take() else { return };
        let ending = Ending { child, until: Instant::now() + grace, tell };
        if let Err(mpsc::SendError(mut ending)) = self.reaper.send(ending) {
            // The reaper goes with the process only; be sure all the same.
            let _ = ending.child.kill();
            let _ = ending.child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(Duration::ZERO, None);
    }
}

fn start(program: &Program, exceptions: Layers, reaper: &Sender<Ending>) -> io::Result<Started> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let child = Command::new(program.path())
        .args(wire::arguments(exceptions))
        .env_clear()
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Started { process: Process { child: Some(child), reaper: reaper.clone() }, socket: ours })
}

fn reap(endings: &mpsc::Receiver<Ending>) {
    let mut pending: Vec<Ending> = Vec::new();
    loop {
        let next = if pending.is_empty() {
            endings.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            endings.recv_timeout(LOOK)
        };
        match next {
            Ok(ending) => pending.push(ending),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) if pending.is_empty() => return,
            // Nobody sends any more: what is left is waited for without haste.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK),
        }
        pending.retain_mut(|ending| !has_ended(ending));
    }
}

fn has_ended(ending: &mut Ending) -> bool {
    if Instant::now() >= ending.until {
        // One that ended by itself keeps the status that it ended with.
        let _ = ending.child.kill();
    }
    match ending.child.try_wait() {
        Ok(Some(status)) => {
            if let Some(tell) = ending.tell.take() {
                let _ = tell.send(status);
            }
            true
        }
        Ok(None) => false,
        Err(error) => {
            tracing::error!(%error, pid = ending.child.id(), "a keyless helper could not be waited for");
            true
        }
    }
}

fn ended(status: ExitStatus, sealed: bool) -> String {
    match (status.code(), status.signal()) {
        (_, Some(libc::SIGSYS)) if sealed => "it was ended by its seccomp filter (SIGSYS)".to_owned(),
        (_, Some(libc::SIGSYS)) => {
            "it was ended by a seccomp filter (SIGSYS) while it closed its sandbox: the filter of \
                                    signerd's unit may forbid what it needs; allow `@system-service @sandbox` there"
                .to_owned()
        }
        (_, Some(signal)) => format!("it was ended by signal {signal}"),
        (Some(code), None) => format!("it ended with status {code}"),
        (None, None) => "how it ended is not known".to_owned(),
    }
}

/// How long a helper may take to wipe and to say goodbye to Fulcio.
const GRACE: Duration = Duration::from_secs(2);
/// How often those on their way out are looked at.
const LOOK: Duration = Duration::from_millis(5);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::path::Path;

    fn launcher(program: &str) -> Launcher {
        Launcher::new(Program::find(Some(Path::new(program))).unwrap(), Layers::default()).unwrap()
    }

    fn exists(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    fn wait_until_gone(pid: u32) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while exists(pid) {
            assert!(Instant::now() < deadline, "{pid} is still there");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[tokio::test]
    async fn a_helper_has_its_socket_as_standard_input_and_nothing_of_the_environment() {
        // cat copies standard input to /dev/null; env prints nothing where anybody sees it, but ends with status 0.
        let mut started = launcher("/bin/cat").start().await.unwrap();
        started.socket.set_nonblocking(false).unwrap();
        started.socket.write_all(b"anything").unwrap();
        let pid = started.process.child.as_ref().unwrap().id();
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert!(environment.is_empty(), "{}", String::from_utf8_lossy(&environment));
        let stdin = std::fs::read_link(format!("/proc/{pid}/fd/0")).unwrap();
        assert!(stdin.to_str().unwrap().starts_with("socket:"), "{stdin:?}");
        drop(started.socket);
        started.process.dismiss();
        wait_until_gone(pid);
    }

    #[tokio::test]
    async fn one_that_is_dropped_is_killed_and_reaped() {
        let started = launcher("/bin/cat").start().await.unwrap();
        let pid = started.process.child.as_ref().unwrap().id();
        assert!(exists(pid));
        drop(started.process);
        wait_until_gone(pid);
        let mut socket = started.socket;
        socket.set_nonblocking(false).unwrap();
        assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0, "its end of the socket is closed");
    }

    #[tokio::test]
    async fn how_one_ended_is_told() {
        let by_itself = launcher("/bin/false").start().await.unwrap();
        let mut socket = by_itself.socket;
        socket.set_nonblocking(false).unwrap();
        // False reads nothing; the end of the file comes when it is gone.
        let _ = socket.read(&mut [0; 1]);
        assert_eq!(by_itself.process.post_mortem(false).await, "it ended with status 1");
        let killed = launcher("/bin/cat").start().await.unwrap();
        assert_eq!(killed.process.post_mortem(false).await, "it was ended by signal 9");
        for (sealed, filter) in [(false, "of signerd's unit"), (true, "by its seccomp filter")] {
            let told = ended(ExitStatus::from_raw(libc::SIGSYS), sealed);
            assert!(told.contains(filter), "{told}");
        }
    }

    #[tokio::test]
    async fn a_program_that_is_gone_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("helper");
        std::fs::copy("/bin/cat", &path).unwrap();
        let launcher = launcher(path.to_str().unwrap());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(launcher.start().await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
