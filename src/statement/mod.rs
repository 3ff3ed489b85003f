//! What exactly will be signed: strict JSON in, canonical in-toto Statement v1 bytes out.

#![forbid(unsafe_code)]

pub mod canonical;
pub mod json;
