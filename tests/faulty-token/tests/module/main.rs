//! Each fault is seen by an application, through cryptoki and SoftHSM2, and is gone when it is cleared.
//!
//! A module is configured by its process's environment, so each test runs itself again as a child.

#![allow(clippy::unwrap_used, missing_docs)]

mod calls;
mod device;
mod objects;
mod pin;
mod processes;
mod signatures;
mod speed;
mod support;
mod witness;
