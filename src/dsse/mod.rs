//! The envelope and the bundle around a signature (DSSE v1, Sigstore bundle v0.3).

#![forbid(unsafe_code)]
