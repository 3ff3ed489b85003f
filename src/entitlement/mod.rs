//! What the caller's licence entitles them to: Proof of Entitlement, online or offline.

#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::clock::UnixTime;

/// A proven entitlement. Only this module makes one.
#[derive(Debug, PartialEq, Eq)]
pub struct Entitlement {
    pub(crate) license_id: Arc<str>,
    pub(crate) customer_id: Arc<str>,
    pub(crate) plan: Arc<str>,
    pub(crate) limits: Limits,
    pub(crate) expires_at: UnixTime,
}

/// Limits in force: the PoE's own where it names them, the configured plan's otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sustained signatures per second.
    pub qps: u32,
    /// Signatures that may come at once after a pause.
    pub burst: u32,
    /// Signatures in progress at once.
    pub concurrency: u32,
    /// Largest request body, in bytes.
    pub max_artifact_bytes: u64,
}
