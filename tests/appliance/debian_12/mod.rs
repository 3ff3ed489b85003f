//! On Debian 12, whose systemd 252 is the oldest that we support.

mod changes;
mod disk;
mod elsewhere;
mod first_hour;
mod outages;
mod prompt;
mod removal;
mod sandbox;
mod shipped;

pub(crate) use shipped::verify;

/// Where `cargo xtask test` says that it is.
pub(crate) const IMAGE: &str = "SIGNER_PEER_DEBIAN_12";
