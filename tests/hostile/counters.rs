//! How many signatures were made: the front's own count, and the count of the token's worker, asked directly.

#![forbid(unsafe_code)]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use stellaops_signer::custody::wire::{Hello, Inbox, Reply, Request, decode_reply, encode_request};
use testkit::appliance::Appliance;
use testkit::{Context as _, Result};

use crate::world::World;

/// Signatures so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signatures {
    /// That the front got, verified and released.
    pub(crate) front: u64,
    /// Requests to sign that reached the token's worker, the front's own tests of its keys left out.
    pub(crate) asked: u64,
    /// That the token made, those tests left out.
    pub(crate) made: u64,
}

impl Signatures {
    /// As of now.
    ///
    /// # Errors
    /// When the front or the worker does not tell.
    pub(crate) fn read(world: &World) -> Result<Self> {
        let appliance = &world.fixture.appliance;
        let front = appliance.metrics()?.count("signer_kms_sign_total", &[]);
        let (asked, made) = ask_worker(&appliance.dir.join("main.sock"))?;
        Ok(Self { front, asked: asked - world.canaries, made: made - world.canaries })
    }

    /// After `more` requests that were granted.
    pub(crate) fn plus(self, more: u64) -> Self {
        Self { front: self.front + more, asked: self.asked + more, made: self.made + more }
    }
}

/// Signatures that the token has made, whoever asked for them.
///
/// # Errors
/// When the worker does not tell.
pub(crate) fn made(appliance: &Appliance) -> Result<u64> {
    ask_worker(&appliance.dir.join("main.sock")).map(|(_, made)| made)
}

/// The worker's counters of sign requests and signatures, over a connection of its own.
fn ask_worker(socket: &Path) -> Result<(u64, u64)> {
    let mut stream = UnixStream::connect(socket).context("connect to the worker")?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut frames = Vec::new();
    encode_request(0, &Request::Hello(Hello::new("signerd")), &mut frames);
    encode_request(1, &Request::Status, &mut frames);
    stream.write_all(&frames).context("ask the worker")?;
    let mut inbox = Inbox::new();
    inbox.lift_limit();
    loop {
        let count = stream.read(inbox.space()).context("hear from the worker")?;
        (count > 0).then_some(()).context("hear from the worker: it closed the connection")?;
        inbox.filled(count);
        while let Some(frame) = inbox.next_frame().context("read the worker's answer")? {
            if let (1, Reply::Status(report)) = decode_reply(frame).context("read the worker's answer")? {
                return Ok((report.counters.sign_requests, report.counters.signatures));
            }
        }
    }
}
