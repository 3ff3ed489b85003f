//! StellaOps Signer: a signing appliance whose keys never leave the HSM.
//!
//! Four programs are built from this library. `signerd` is the front: TLS, HTTP, policy, audit. `signer-token`
//! is the token worker: one vendor module, one PIN, one socket. `signer-keyless` is the sealed helper of one
//! Fulcio flow. `signerctl` is what the operator and the client type.
//!
//! Start at [`pipeline`]: the way of a request, top to bottom. Each step is one module:
//!
//! | module | what it answers |
//! |---|---|
//! | [`api`] | who listens where, which routes there are, how an error looks on the wire |
//! | [`auth`] | who is calling, and is the token theirs ([`jose`] reads the JWTs) |
//! | [`entitlement`] | what does the caller's licence entitle them to |
//! | [`quota`] | may this request run now |
//! | [`release`] | was the evidence made by a scanner that somebody released |
//! | [`statement`] | what exactly will be signed: strict JSON in, canonical in-toto bytes out |
//! | [`custody`] | which key, in which token; the wire to the worker, and the worker |
//! | [`keyless`] | or no key of ours: an ephemeral one, in a sealed helper, under a certificate of Fulcio |
//! | [`dsse`] | the envelope and the bundle around a signature |
//! | [`sigstore`] | what Fulcio, CT logs and timestamp authorities signed, verified against pinned roots |
//! | [`timestamp`] | when was it signed, says a timestamp authority that is asked |
//! | [`audit`] | what happened, durably, before anyone hears of it |
//!
//! [`config`], [`telemetry`], [`outbound`], [`clock`] and `live_file` serve them all; [`daemon`] starts the front, [`ctl`] is
//! `signerctl`.
//!
//! `unsafe` and FFI live in `custody::token` and, in a package of its own, in the sandbox of `signer-keyless`.

#![deny(unsafe_code)]

pub mod api;
pub mod audit;
pub mod auth;
pub mod clock;
pub mod config;
pub mod ctl;
pub mod custody;
pub mod daemon;
pub mod dsse;
pub mod entitlement;
mod hex;
pub mod jose;
pub mod keyless;
mod live_file;
pub mod outbound;
pub mod pipeline;
pub mod quota;
pub mod release;
pub mod sigstore;
pub mod statement;
pub mod telemetry;
pub mod timestamp;
