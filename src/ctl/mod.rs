//! `signerctl`: what the operator and the client type.

#![forbid(unsafe_code)]
