//! What can go wrong between the front and a worker.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::custody::wire::{Failure, WireError};

/// Cloned to everyone who waited when it happened.
#[derive(Clone, Debug, thiserror::Error)]
pub(in crate::custody) enum LinkError {
    /// Nobody listens, or the front may not connect.
    #[error("cannot connect to the worker's socket {path}; is signer-token running?")]
    Connect { path: PathBuf, source: Arc<io::Error> },
    /// Somebody else serves the socket.
    #[error("{path} is served by user {found}, where `worker_user` says {expected}")]
    Peer { path: PathBuf, found: u32, expected: u32 },
    /// Root listens, and somebody else might have brought that about.
    #[error("{path}: {why}")]
    Socket { path: PathBuf, why: String },
    /// The hello failed.
    #[error("the worker did not introduce itself: {0}")]
    Hello(Arc<str>),
    /// It broke the protocol, in the hello or after it.
    #[error("the worker sent {0}")]
    Protocol(WireError),
    /// The connection ended before the request left this process.
    #[error("the connection to the worker ended before the request was sent: {0}")]
    Unsent(Arc<str>),
    /// The connection ended while the request was under way.
    #[error("the connection to the worker ended: {0}")]
    Lost(Arc<str>),
    /// No answer within the deadline.
    #[error("the worker did not answer in time")]
    Timeout,
    /// More requests wait than the front keeps.
    #[error("too many requests wait for the worker")]
    Overloaded,
    /// The worker's own answer.
    #[error("the worker could not: {}", .0.detail)]
    Refused(Failure),
}
