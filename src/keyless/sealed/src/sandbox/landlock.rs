//! Landlock with no rule at all: whatever it handles is denied.

#![forbid(unsafe_code)]

use std::io;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, LandlockStatus, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

/// Denies all files (required, ABI 1), and as far as the kernel has it TCP (4), signals to others and abstract sockets
/// (6), and what came later. Returns the ABI that is in force.
pub(super) fn restrict() -> io::Result<u8> {
    let status = ruleset().map_err(io::Error::other)?;
    match status {
        (RulesetStatus::NotEnforced, _) => Err(io::Error::other("the kernel has no Landlock, or it is switched off")),
        (_, LandlockStatus::Available { effective_abi, .. }) => Ok(effective_abi as u8),
        (_, _) => Err(io::Error::other("Landlock does not say what it enforces")),
    }
}

fn ruleset() -> Result<(RulesetStatus, LandlockStatus), RulesetError> {
    let newest = ABI::V10;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(newest))?
        .handle_access(AccessNet::from_all(newest))?
        .scope(Scope::from_all(newest))?
        .create()?
        // A layer of its own, which is already in force.
        .no_new_privs(false)
        .restrict_self()?;
    Ok((status.ruleset, status.landlock))
}
