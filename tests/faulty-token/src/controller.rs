//! The test's end of the control socket.

#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Condition, Counters, Event, Fault, LIBRARY_VARIABLE, Request, Response};

/// Steers the module that listens on a socket, in this process or another.
///
/// Each command is a connection of its own, so that a controller outlives the process that it steers; while the next
/// process has not loaded the module yet, a command waits for it.
#[derive(Clone, Debug)]
pub struct Controller {
    path: PathBuf,
    patience: Duration,
}

impl Controller {
    /// A controller of the module that listens at `path`, once it does; waits up to ten seconds.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(path: impl Into<PathBuf>) -> Result<Self, ControlError> {
        Self::connect_within(path, Duration::from_secs(10))
    }

    /// The same with another patience, which also holds for the commands.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect_within(path: impl Into<PathBuf>, patience: Duration) -> Result<Self, ControlError> {
        let controller = Self { path: path.into(), patience };
        controller.counters()?;
        Ok(controller)
    }

    /// Arms a fault and gives its number.
    ///
    /// # Errors
    /// The module is not there, or refused.
    pub fn inject(&self, fault: Fault) -> Result<u64, ControlError> {
        match self.command(&Request::Inject { fault })? {
            Response::Armed(id) => Ok(id),
            other => Err(ControlError::Refused(format!("{other:?}"))),
        }
    }

    /// Disarms the fault of this number.
    ///
    /// # Errors
    /// The module is not there.
    pub fn lift(&self, id: u64) -> Result<(), ControlError> {
        self.order(&Request::Lift { id })
    }

    /// Gives the device a property.
    ///
    /// # Errors
    /// The module is not there, or refused.
    pub fn impose(&self, condition: Condition) -> Result<(), ControlError> {
        self.order(&Request::Impose { condition })
    }

    /// Lets something happen to the device.
    ///
    /// # Errors
    /// The module is not there, or refused.
    pub fn strike(&self, event: Event) -> Result<(), ControlError> {
        self.order(&Request::Strike { event })
    }

    /// Lets the calls that hang go on.
    ///
    /// # Errors
    /// The module is not there.
    pub fn release(&self) -> Result<(), ControlError> {
        self.order(&Request::Release)
    }

    /// Undoes all faults, conditions and events, and releases what hangs. Lost sessions stay lost, PIN attempts stay
    /// counted.
    ///
    /// # Errors
    /// The module is not there.
    pub fn clear(&self) -> Result<(), ControlError> {
        self.order(&Request::Clear)
    }

    /// Forgets failed PIN attempts.
    ///
    /// # Errors
    /// The module is not there.
    pub fn unblock_pin(&self) -> Result<(), ControlError> {
        self.order(&Request::UnblockPin)
    }

    /// What the module saw.
    ///
    /// # Errors
    /// The module is not there.
    pub fn counters(&self) -> Result<Counters, ControlError> {
        match self.command(&Request::Counters)? {
            Response::Counters(counters) => Ok(*counters),
            other => Err(ControlError::Refused(format!("{other:?}"))),
        }
    }

    /// Sets the counters to zero.
    ///
    /// # Errors
    /// The module is not there.
    pub fn reset_counters(&self) -> Result<(), ControlError> {
        self.order(&Request::ResetCounters)
    }

    /// Waits until the counters show what is wanted, as a call that hangs, and gives them.
    ///
    /// # Errors
    /// [`ControlError::TimedOut`] when they do not within `limit`.
    pub fn wait_until(&self, limit: Duration, wanted: impl Fn(&Counters) -> bool) -> Result<Counters, ControlError> {
        let deadline = Instant::now() + limit;
        loop {
            let counters = self.counters()?;
            if wanted(&counters) {
                return Ok(counters);
            }
            if Instant::now() > deadline {
                return Err(ControlError::TimedOut(Box::new(counters)));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn order(&self, request: &Request) -> Result<(), ControlError> {
        match self.command(request)? {
            Response::Done => Ok(()),
            other => Err(ControlError::Refused(format!("{other:?}"))),
        }
    }

    fn command(&self, request: &Request) -> Result<Response, ControlError> {
        let unreachable = |source| ControlError::Unreachable { path: self.path.clone(), source };
        let mut stream = self.reach().map_err(unreachable)?;
        let mut line = serde_json::to_vec(request).map_err(|error| ControlError::Refused(error.to_string()))?;
        line.push(b'\n');
        stream.write_all(&line).map_err(unreachable)?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).map_err(unreachable)?;
        match serde_json::from_str(&answer) {
            Ok(Response::Refused(reason)) => Err(ControlError::Refused(reason)),
            Ok(response) => Ok(response),
            Err(error) => Err(unreachable(io::Error::new(io::ErrorKind::InvalidData, error))),
        }
    }

    fn reach(&self) -> io::Result<UnixStream> {
        let deadline = Instant::now() + self.patience;
        loop {
            match UnixStream::connect(&self.path) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(self.patience.max(Duration::from_secs(1))))?;
                    return Ok(stream);
                }
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

/// Why a command was not obeyed.
#[derive(Debug)]
pub enum ControlError {
    /// Nobody listens at the socket, or it went away in the middle.
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The module's reason.
    Refused(String),
    /// The counters, as they were at the end.
    TimedOut(Box<Counters>),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { path, .. } => {
                write!(f, "no faulty token answers at {}; is the module loaded?", path.display())
            }
            Self::Refused(reason) => write!(f, "the faulty token refused the command: {reason}"),
            Self::TimedOut(counters) => write!(f, "the faulty token did not come to it; it saw {counters:?}"),
        }
    }
}

impl std::error::Error for ControlError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreachable { source, .. } => Some(source),
            Self::Refused(_) | Self::TimedOut(_) => None,
        }
    }
}

/// The path of the module's library, as cargo builds it for a package that depends on this one: beside the running
/// executable, in its `deps`, or above it; the newest of them. `FAULTY_TOKEN_LIBRARY` overrides it.
///
/// # Errors
/// There is none.
pub fn module_path() -> io::Result<PathBuf> {
    if let Some(path) = env::var_os(LIBRARY_VARIABLE) {
        return Ok(path.into());
    }
    let executable = env::current_exe()?;
    let folder = executable.parent().unwrap_or_else(|| Path::new("."));
    let above = folder.parent().filter(|_| folder.file_name() == Some(OsStr::new("deps")));
    [Some(folder.to_path_buf()), Some(folder.join("deps")), above.map(Path::to_path_buf)]
        .into_iter()
        .flatten()
        .map(|folder| folder.join("libfaulty_token.so"))
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .max_by_key(|(modified, _)| *modified)
        .map(|(_, path)| path)
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("no libfaulty_token.so near {}; build the package faulty-token", executable.display()),
            )
        })
}
