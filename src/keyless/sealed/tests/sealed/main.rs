//! The sealed helper as its parent sees it, and as a privileged observer does.
//!
//! `release` needs root and a release build, which `cargo xtask test sealed` provides: it stops the real binary with
//! ptrace, tries to break out of it, and searches what it leaves behind.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod flow;
mod fulcio;
mod helper;
mod release;
