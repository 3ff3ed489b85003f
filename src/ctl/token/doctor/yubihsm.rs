//! What there is of a YubiHSM in the place of a module: who vouches for it, and who may do what in it.

use super::Patient;
use crate::custody::admin::{Failure, Probe};
use crate::custody::token::admin::ConcernKind;
use crate::custody::token::yubihsm::check_attestation_roots;

/// Whether it makes sense to speak to the device: always.
pub(super) fn look(patient: &mut Patient<'_>) -> bool {
    const CHECK: &str = "attestation roots";
    match &patient.token.attestation_roots {
        None => patient.skipped(CHECK, "none are configured: what the device says of a key is passed on unchecked"),
        Some(file) => match check_attestation_roots(file) {
            Ok(count) => patient.ok(CHECK, format!("{} certificates in {}", count, file.display())),
            Err(why) => {
                let remedy = "write the path of a PEM file with Yubico's root and the intermediate for your device";
                let detail = format!("{}: {why}", file.display());
                patient.problem(CHECK, "attestation_roots", detail, remedy);
            }
        },
    }
    true
}

pub(super) fn refused(patient: &mut Patient<'_>, failure: &Failure) {
    let remedy = failure.remedy.clone().unwrap_or_else(|| "see what it says".to_owned());
    patient.problem("connector", "connector", failure.message.as_str(), remedy);
}

pub(super) fn concerns(patient: &mut Patient<'_>, probe: &Probe) {
    for concern in &probe.concerns {
        let (check, field) = match concern.kind {
            ConcernKind::FactoryKey => ("factory key", "connector"),
            ConcernKind::AuthenticationKey => ("auth key", "auth_key"),
            ConcernKind::Audit => ("device's log", "connector"),
        };
        match concern.problem {
            Some(true) => patient.problem(check, field, concern.detail.as_str(), concern.remedy.as_str()),
            Some(false) => patient.ok(check, concern.detail.as_str()),
            None => patient.skipped(check, concern.detail.as_str()),
        }
    }
}
