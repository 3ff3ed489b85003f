//! The package on a booted Debian, as an operator has it: installed, initialised by `signerctl init`, run by the units
//! that are shipped, in their sandboxes, and called from outside.
//!
//! Every test boots a machine of its own; one at a time, because all of them listen on the same port.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod crowd;
mod debian_12;
mod debian_13;
mod debian_sid;
mod site;
