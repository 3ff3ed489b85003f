//! `signer-token admin`: what an operator does to a token, in a process of its own.
//!
//! It alone loads a vendor's module for administration; `signerctl` starts it as a child, passes no secret, and reads
//! [`Message`]s from its standard output. PINs come from files that their owner alone may read, or from the terminal
//! without echo: never from the command line or the environment, which others can read.

#![forbid(unsafe_code)]

mod cli;
mod csr;
mod message;
mod pins;
mod probe;
mod target;

pub use cli::AdminArgs;
pub(crate) use cli::{object_id, run};
pub use csr::SubjectError;
pub(crate) use csr::{alternative_name, subject};
pub use message::{Csr, Failure, Message, Probe, ProbedKey, Step};
