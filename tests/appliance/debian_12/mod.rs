//! On Debian 12, whose systemd 252 is the oldest that we support.

mod changes;
mod disk;
mod first_hour;
mod outages;
mod removal;
mod shipped;

pub(crate) use shipped::verify;

/// Where `cargo xtask test` says that it is.
pub(crate) const IMAGE: &str = "SIGNER_PEER_DEBIAN_12";
