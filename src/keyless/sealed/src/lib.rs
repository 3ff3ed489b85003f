//! The sealed helper of one Fulcio flow, and what it says to its parent.
//!
//! | module | what it answers |
//! |---|---|
//! | [`wire`] | what the two say to each other; all that the parent links |
//! | `flow` | the way of one flow, top to bottom |
//! | `sandbox` | what the process gives up first, the memory it lives in, how it leaves nothing behind |
//! | `key` | the ephemeral key, its certificate signing request, its signatures |
//! | `tls` | TLS 1.3 over the socket that was passed in |
//! | `fulcio` | the request, and what an answer says |
//! | `http` | one answer of HTTP/1.1, bounded |
//!
//! Everything but [`wire`] comes with the feature `sealed`. `unsafe` lives in `sandbox` alone.

#![deny(unsafe_code)]

pub mod wire;

#[cfg(feature = "sealed")]
mod flow;
#[cfg(feature = "sealed")]
mod fulcio;
#[cfg(feature = "sealed")]
mod http;
#[cfg(feature = "sealed")]
mod key;
#[cfg(feature = "sealed")]
#[allow(unsafe_code)]
mod sandbox;
#[cfg(feature = "sealed")]
mod tls;

#[cfg(feature = "sealed")]
pub use flow::run;
#[cfg(feature = "sealed")]
pub use sandbox::Arena;
