//! Which key, in which token: the registry and resolver, the wire protocol, the front's client, the worker.
//!
//! The front holds a [`Custody`]: it [resolves](Custody::resolve) a tenant to its key and
//! [signs](Custody::sign) over a connection to the worker of a token that holds it; of several, the best. It
//! [watches](Custody::watch) tokens and keys, and can prove by [`evidence`] where a key lives. The worker ([`worker`])
//! is another process, with another user; the two speak [`wire`]. What a device can do is said by [`token`], and only
//! below it there is FFI.

#![deny(unsafe_code)]

pub mod admin;
mod attributes;
mod canary;
mod client;
pub mod conformance;
mod drain;
mod error;
mod event;
pub mod evidence;
mod front;
mod health;
pub mod history;
mod lane;
mod load;
mod presenting;
pub mod profiles;
mod public_key;
mod registry;
mod replica;
mod seen;
mod setup;
mod status;
pub mod token;
mod told;
pub mod uri;
mod watch;
pub mod wire;
pub mod worker;

#[cfg(test)]
mod many_keys_tests;
#[cfg(test)]
mod several_tests;
#[cfg(test)]
pub(crate) mod testing;

pub use attributes::{GateAttribute, GateAttributes, KeyAttributes};
pub use drain::Drained;
pub use error::{Cause, CustodyError, CustodySetupError, DrainError, OutOfService, ResolveError};
pub use event::CustodyEvent;
pub use front::{Custody, Signed};
pub use health::KeyHealth;
pub use lane::Lane;
pub use public_key::{PublicKey, PublicKeyError};
pub use registry::{SigningKey, TenantKey};
pub use status::{KeyFigures, KeyListing, TokenStatus};

/// The number of a user given by name or number.
fn user_id(user: &str) -> Option<u32> {
    if let Ok(number) = user.parse() {
        return Some(number);
    }
    nix::unistd::User::from_name(user).ok().flatten().map(|user| user.uid.as_raw())
}
