//! Whose turn a signature takes in a token's queue.

#![forbid(unsafe_code)]

use aws_lc_rs::digest::{SHA256, digest};

/// A lane of a token's queue. The worker is fair between lanes, so one tenant's burst does not starve another; the
/// worker learns a number, not who the tenant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lane(u64);

impl Lane {
    /// The appliance itself: test signatures, custody reports for the operator.
    pub const APPLIANCE: Self = Self(0);

    /// The tenant's lane: the first 64 bits of SHA-256 over its id, so the same in every process, and never the
    /// appliance's own.
    #[must_use]
    pub fn of_tenant(tid: &str) -> Self {
        let hash = digest(&SHA256, tid.as_bytes());
        let head = hash.as_ref().first_chunk::<8>().copied().map_or(0, u64::from_be_bytes);
        Self(head.max(1))
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_s_lane_is_its_own_and_the_same_everywhere() {
        // printf acme | sha256sum
        assert_eq!(Lane::of_tenant("acme").number(), 0x822b_33ad_87c1_48a0_u64);
        assert_ne!(Lane::of_tenant("acme"), Lane::of_tenant("globex"));
        assert_ne!(Lane::of_tenant(""), Lane::APPLIANCE);
    }
}
