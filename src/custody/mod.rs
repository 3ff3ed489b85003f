//! Which key, in which token: the registry and resolver, the wire protocol, the front's client, the worker.

#![deny(unsafe_code)]

mod attributes;
mod public_key;
pub mod token;
pub mod uri;
pub mod wire;

#[cfg(test)]
pub(crate) mod testing;

pub use attributes::KeyAttributes;
pub use public_key::{PublicKey, PublicKeyError, Verifier};
