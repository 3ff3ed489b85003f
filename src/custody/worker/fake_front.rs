//! What the worker's tests share: a front that does as it is told, and a worker that has opened every session.

#![allow(clippy::unwrap_used)]

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{Plan, Worker};
use crate::custody::testing::{FakeToken, Place, eventually};
use crate::custody::wire::{
    FailureCode, Hello, Inbox, KeyHandle, OpenedKey, Reply, Request, decode_reply, encode_request,
};

/// The front's end of a connection, to misbehave with.
pub(super) struct FakeFront {
    pub(super) stream: UnixStream,
    pub(super) inbox: Inbox,
    last: u64,
}

impl FakeFront {
    pub(super) fn raw(place: &Place) -> Self {
        let stream = UnixStream::connect(place.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { stream, inbox: Inbox::new(), last: 0 }
    }

    pub(super) fn connect(place: &Place) -> Self {
        let mut front = Self::raw(place);
        front.send(0, &Request::Hello(Hello::new("signerd")));
        assert_eq!(front.next(), Some((0, Reply::Hello(Hello::new("main")))));
        front.inbox.lift_limit();
        front
    }

    pub(super) fn send(&mut self, id: u64, request: &Request) {
        let mut out = Vec::new();
        encode_request(id, request, &mut out);
        self.stream.write_all(&out).unwrap();
    }

    /// `None` at the end of the stream.
    pub(super) fn next(&mut self) -> Option<(u64, Reply)> {
        loop {
            if let Some(frame) = self.inbox.next_frame().unwrap() {
                return Some(decode_reply(frame).unwrap());
            }
            match self.stream.read(self.inbox.space()) {
                Ok(count) if count > 0 => self.inbox.filled(count),
                Ok(_) => return None,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(super) fn ask(&mut self, request: &Request) -> Reply {
        self.last += 1;
        self.send(self.last, request);
        let (id, reply) = self.next().unwrap();
        assert_eq!(id, self.last);
        reply
    }

    pub(super) fn open(&mut self) -> OpenedKey {
        match self.ask(&Request::OpenKey { uri: "pkcs11:object=k".into() }) {
            Reply::KeyOpened(key) => key,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn failure(&mut self, request: &Request) -> FailureCode {
        match self.ask(request) {
            Reply::Failed(failure) => failure.code,
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn sign(handle: KeyHandle, budget_ms: u32) -> Request {
    Request::Sign { handle, lane: 0, budget_ms, digest: [5; 32] }
}

pub(super) fn ready(place: &Place, token: &FakeToken) -> Worker {
    started(place, token, place.plan())
}

pub(super) fn started(place: &Place, token: &FakeToken, plan: Plan) -> Worker {
    let sessions = plan.sessions;
    let worker = place.worker(plan, token);
    eventually("every session is open", || worker.status().sessions_open == sessions);
    worker
}
