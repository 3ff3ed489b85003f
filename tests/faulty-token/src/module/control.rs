//! The thread that takes commands.

#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;

use nix::sys::signal::SigSet;

use super::{Module, complain};
use crate::{CONTROL_VARIABLE, Request, Response};

/// Listens where the environment says, if it says so.
pub(super) fn listen(module: &'static Module) -> Result<(), String> {
    let Some(path) = env::var_os(CONTROL_VARIABLE) else { return Ok(()) };
    let path = Path::new(&path);
    let said = |error| format!("{}: {error}", path.display());
    if UnixStream::connect(path).is_ok() {
        complain(format!("{}: another process listens there; this one is not steered", path.display()));
        return Ok(());
    }
    // Of a process that is no more.
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        fs::remove_file(path).map_err(said)?;
    }
    let listener = UnixListener::bind(path).map_err(said)?;
    spawn(move || {
        for stream in listener.incoming().flatten() {
            // Where no thread can be had, the controller sees its connection closed.
            let _ = spawn(move || serve(module, &stream));
        }
    })
    .map_err(said)
}

fn spawn(work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let unsignalled = || {
        // The application's signals are for its own threads. If they cannot be blocked, they come here too.
        let _ = SigSet::all().thread_block();
        work();
    };
    thread::Builder::new().name("faulty-token".into()).spawn(unsignalled).map(drop)
}

fn serve(module: &'static Module, stream: &UnixStream) {
    let mut writer = stream;
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let obey = || match serde_json::from_str(&line) {
            Ok(request) => module.obey_request(request),
            Err(error) => Response::Refused(error.to_string()),
        };
        let response = catch_unwind(AssertUnwindSafe(obey)).unwrap_or_else(|_| Response::Refused("it panicked".into()));
        let Ok(mut answer) = serde_json::to_vec(&response) else { return };
        answer.push(b'\n');
        if writer.write_all(&answer).is_err() {
            return;
        }
    }
}

impl Module {
    fn obey_request(&self, request: Request) -> Response {
        match request {
            Request::Inject { fault } => {
                let persist = fault.persist;
                let id = self.faults.arm(fault);
                if persist {
                    self.remember_faults();
                }
                return Response::Armed(id);
            }
            Request::Lift { id } => {
                self.faults.lift(id);
                self.remember_faults();
            }
            Request::Impose { condition } => self.impose(condition),
            Request::Strike { event } => self.strike(event),
            Request::Release => self.hold.release(),
            Request::Clear => self.clear(),
            Request::UnblockPin => self.unblock_pin(),
            Request::Counters => return Response::Counters(Box::new(self.counters())),
            Request::ResetCounters => {
                self.tally.reset();
                self.lanes.reset();
                self.sessions.reset();
                self.remember(|state| {
                    state.pin =
                        crate::Pin { failed: state.pin.failed, refused: state.pin.refused, ..Default::default() }
                });
            }
        }
        Response::Done
    }
}
