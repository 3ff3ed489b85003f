//! Keyless signing: with a real Fulcio, a real timestamp authority and real verifiers, and with a Fulcio that is hostile.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod fulcio;
