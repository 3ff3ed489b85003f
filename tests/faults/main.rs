//! Whatever a token does, under load: nothing wrong leaves, nothing leaves without its record, no PIN is wasted, and
//! nobody is needed to go on.
//!
//! The whole appliance runs on a PKCS#11 module that fails on command, under 64 callers, with a supervisor that starts
//! the worker again when it ends, as systemd does with `Restart=always` and `RestartSec=100ms`. Each row of the table
//! is a fault, how many requests there were and how many were refused meanwhile, and how long after the device's return
//! every request was answered with a signature again. A row that takes longer than it may fails.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod codes;
mod fair;
mod load;
mod pins;
mod process;
mod signatures;
mod speed;
mod supervisor;
mod table;
mod token;
mod world;
