//! What a token's section says against what its device's profile knows.

use super::error::{listed, nearest};
use super::validate::{Report, key};
use super::{Backend, Token};
use crate::custody::profiles;

/// A profile that nobody knows, and more sessions than any token or than the profile's device has.
pub(super) fn sessions(name: &String, token: &Token, report: &mut Report<'_>) {
    let profile = token.profile.as_deref().and_then(|profile| {
        let found = profiles::find(profile);
        if found.is_none() {
            let meant = nearest(profile, profiles::names()).map(|meant| format!("did you mean `{meant}`? "));
            let (meant, known) = (meant.unwrap_or_default(), listed(profiles::names()));
            let message = format!("there is no profile `{profile}`; {meant}known: {known}");
            report.problem(key!["tokens", name, "profile"], message);
        }
        found
    });
    // Of a section that names neither kind of device, or both, that is said elsewhere.
    if let (Some(profile), Ok(backend)) = (profile, token.backend()) {
        let fits = match backend {
            Backend::Pkcs11 { .. } => profile.backend == profiles::Backend::Pkcs11,
            Backend::YubiHsm { .. } => profile.backend == profiles::Backend::Yubihsm,
        };
        if !fits {
            let other =
                if matches!(backend, Backend::YubiHsm { .. }) { "a PKCS#11 module" } else { "a YubiHSM's connector" };
            let message = format!("`{}` is for {other}, which this section does not name", profile.name);
            report.problem(key!["tokens", name, "profile"], message);
        }
    }
    let Some(sessions) = token.sessions else { return };
    if sessions.get() > 1024 {
        let message = format!("{sessions} sessions are more than tokens have; write at most 1024");
        report.problem(key!["tokens", name, "sessions"], message);
    } else if let Some((profile, max)) = profile.and_then(|profile| Some((profile, profile.max_sessions.as_ref()?)))
        && sessions > max.value
    {
        let message = format!("{sessions} sessions are more than {} has; write at most {}", profile.title, max.value);
        report.problem(key!["tokens", name, "sessions"], message);
    }
}
