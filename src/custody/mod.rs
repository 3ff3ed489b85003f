//! Which key, in which token: the registry and resolver, the wire protocol, the front's client, the worker.

#![deny(unsafe_code)]

mod attributes;
mod public_key;
pub mod token;
pub mod uri;
pub mod wire;
pub mod worker;

#[cfg(test)]
pub(crate) mod testing;

pub use attributes::KeyAttributes;
pub use public_key::{PublicKey, PublicKeyError, Verifier};

/// The number of a user given by name or number.
fn user_id(user: &str) -> Option<u32> {
    if let Ok(number) = user.parse() {
        return Some(number);
    }
    nix::unistd::User::from_name(user).ok().flatten().map(|user| user.uid.as_raw())
}
