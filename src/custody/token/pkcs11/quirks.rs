//! Where this process's module differs from the standard, as its profile says. One process has one module.

#![forbid(unsafe_code)]

use std::sync::OnceLock;

use cryptoki::error::{Rv, RvError};

use super::super::Remedy;

/// Differences that change what is called, or what an answer means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quirks {
    /// Return codes by number, and what it takes to go on after each, instead of what the standard suggests.
    pub remedies: Vec<(u64, Remedy)>,
    /// `C_OpenSession` fails without `CKF_RW_SESSION`.
    pub read_write_sessions: bool,
}

static QUIRKS: OnceLock<Quirks> = OnceLock::new();

/// Says how the module of this process differs; before the module is loaded, once. A second call changes nothing.
pub fn set_quirks(quirks: Quirks) {
    let _ = QUIRKS.set(quirks);
}

/// Whether sessions must be opened for reading and writing.
pub(super) fn read_write_sessions() -> bool {
    QUIRKS.get().is_some_and(|quirks| quirks.read_write_sessions)
}

/// What this module's profile says of a code; `None` when it says nothing and the standard stands.
pub(super) fn remedy_of(code: RvError) -> Option<Remedy> {
    QUIRKS.get().and_then(|quirks| among(&quirks.remedies, code))
}

fn among(remedies: &[(u64, Remedy)], code: RvError) -> Option<Remedy> {
    let is = |number: u64| matches!(Rv::from(number as cryptoki_sys::CK_RV), Rv::Error(error) if error == code);
    remedies.iter().find(|(number, _)| is(*number)).map(|(_, remedy)| *remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custody::profiles;

    #[test]
    fn a_code_is_found_by_its_number_and_others_keep_their_meaning() {
        let remedies = [(0x30, Remedy::NewProcess), (0x8000_0001, Remedy::NewLogin)];
        assert_eq!(among(&remedies, RvError::DeviceError), Some(Remedy::NewProcess));
        assert_eq!(among(&remedies, RvError::VendorDefined(0x8000_0001)), Some(Remedy::NewLogin));
        assert_eq!(among(&remedies, RvError::GeneralError), None);
    }

    #[test]
    fn the_names_and_numbers_of_every_profile_agree() {
        for profile in profiles::all() {
            for code in &profile.retry_codes {
                let Rv::Error(error) = Rv::from(code.number as cryptoki_sys::CK_RV) else {
                    panic!("{}: {} is CKR_OK", profile.name, code.code)
                };
                if matches!(error, RvError::VendorDefined(_)) {
                    continue;
                }
                // `CKR_DEVICE_ERROR` is `DeviceError` in the binding.
                let words = code.code.strip_prefix("CKR_").unwrap_or_default().to_lowercase().replace('_', "");
                assert_eq!(format!("{error:?}").to_lowercase(), words, "{}: {:#x}", profile.name, code.number);
            }
        }
    }
}
