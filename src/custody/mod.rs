//! Which key, in which token: the registry and resolver, the wire protocol, the front's client, the worker.
//!
//! The front holds a [`Custody`]: it [resolves](Custody::resolve) a tenant to a [`SigningKey`] and
//! [signs](Custody::sign) over a connection to the token's worker. The worker ([`worker`]) is another process, with
//! another user; the two speak [`wire`]. What a device can do is said by [`token`], and only below it there is FFI.

#![deny(unsafe_code)]

mod attributes;
mod client;
pub mod conformance;
mod error;
mod front;
pub mod profiles;
mod public_key;
mod registry;
mod setup;
pub mod token;
pub mod uri;
pub mod wire;
pub mod worker;

#[cfg(test)]
pub(crate) mod testing;

pub use attributes::KeyAttributes;
pub use error::{Cause, CustodyError, CustodySetupError, OutOfService, ResolveError};
pub use front::{Custody, KeyListing, TokenStatus};
pub use public_key::{PublicKey, PublicKeyError};
pub use registry::SigningKey;

/// The number of a user given by name or number.
fn user_id(user: &str) -> Option<u32> {
    if let Ok(number) = user.parse() {
        return Some(number);
    }
    nix::unistd::User::from_name(user).ok().flatten().map(|user| user.uid.as_raw())
}
