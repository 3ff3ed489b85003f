//! What each PKCS#11 return code means for the session it came from.

#![forbid(unsafe_code)]

use cryptoki::error::{Error, RvError};

use super::super::{Remedy, TokenError};
use super::quirks;

/// Wraps an error of the module with what it takes to go on.
pub(super) fn failed(operation: &'static str, error: Error) -> TokenError {
    TokenError::Device { operation, remedy: remedy(&error), source: Box::new(error) }
}

/// Wraps an error of `C_Login`. Codes about the PIN become [`TokenError::PinRefused`]; where the code leaves open
/// whether the token counted the attempt, [`TokenError::LoginUnclear`].
pub(super) fn login_failed(error: Error) -> TokenError {
    use RvError as R;
    let Error::Pkcs11(code, _) = error else { return failed("C_Login", error) };
    match code {
        R::PinIncorrect | R::PinInvalid | R::PinLenRange | R::PinExpired | R::PinLocked | R::UserPinNotInitialized => {
            TokenError::PinRefused(format!("{code:?}"))
        }
        // Said before the PIN is looked at.
        R::CryptokiNotInitialized
        | R::DeviceRemoved
        | R::SessionClosed
        | R::SessionHandleInvalid
        | R::TokenNotPresent
        | R::TokenNotRecognized
        | R::HostMemory
        | R::OperationActive => failed("C_Login", error),
        _ => TokenError::LoginUnclear(Box::new(error)),
    }
}

fn remedy(error: &Error) -> Remedy {
    match error {
        Error::Pkcs11(code, _) => quirks::remedy_of(*code).unwrap_or_else(|| remedy_of_code(*code)),
        // A module that misses a function now will miss it in a new session, too.
        Error::LibraryLoading(_) | Error::MissingSymbol(_) | Error::NullFunctionPointer => Remedy::NewProcess,
        // The call may have gone through and its answer made no sense: the session's state is unknown.
        Error::NotSupported
        | Error::TryFromInt(_)
        | Error::TryFromSlice(_)
        | Error::ParseInt(_)
        | Error::Utf8(_)
        | Error::NulError(_)
        | Error::InvalidValue
        | Error::PinNotSet => Remedy::NewSession,
    }
}

/// Exhaustive on purpose: a code that PKCS#11 adds must be thought about, not fall into a default.
fn remedy_of_code(code: RvError) -> Remedy {
    use RvError as R;
    match code {
        // About the request: the session goes on.
        R::ArgumentsBad
        | R::AttributeReadOnly
        | R::AttributeSensitive
        | R::AttributeTypeInvalid
        | R::AttributeValueInvalid
        | R::ActionProhibited
        | R::DataInvalid
        | R::DataLenRange
        | R::EncryptedDataInvalid
        | R::EncryptedDataLenRange
        | R::CurveNotSupported
        | R::KeySizeRange
        | R::KeyTypeInconsistent
        | R::KeyNotNeeded
        | R::KeyNeeded
        | R::KeyIndigestible
        | R::KeyFunctionNotPermitted
        | R::KeyNotWrappable
        | R::KeyUnextractable
        | R::MechanismInvalid
        | R::MechanismParamInvalid
        | R::FunctionNotSupported
        | R::FunctionRejected
        | R::DomainParamsInvalid
        | R::InformationSensitive
        | R::TemplateIncomplete
        | R::TemplateInconsistent
        | R::PublicKeyInvalid
        | R::NoEvent
        | R::RandomNoRng
        | R::RandomSeedNotSupported
        | R::SignatureInvalid
        | R::SignatureLenRange
        | R::SessionReadOnly
        | R::TokenWriteProtected
        | R::WrappedKeyInvalid
        | R::WrappedKeyLenRange
        | R::WrappingKeyHandleInvalid
        | R::WrappingKeySizeRange
        | R::WrappingKeyTypeInconsistent
        | R::UnwrappingKeyHandleInvalid
        | R::UnwrappingKeySizeRange
        | R::UnwrappingKeyTypeInconsistent
        | R::ExceededMaxIterations => Remedy::None,

        // About the session, the handles cached in it, or an operation left open in it.
        R::Cancel
        | R::FunctionCanceled
        | R::FunctionFailed
        | R::FunctionNotParallel
        | R::HostMemory
        | R::DeviceMemory
        | R::KeyHandleInvalid
        | R::KeyChanged
        | R::ObjectHandleInvalid
        | R::OperationActive
        | R::OperationNotInitialized
        | R::BufferTooSmall
        | R::SavedStateInvalid
        | R::StateUnsaveable
        | R::SessionClosed
        | R::SessionCount
        | R::SessionHandleInvalid
        | R::SessionParallelNotSupported
        | R::SessionExists
        | R::SessionReadOnlyExists
        | R::SessionReadWriteSoExists
        | R::SlotIdInvalid
        | R::DeviceError
        | R::GeneralError
        | R::NewPinMode
        | R::NextOtp => Remedy::NewSession,

        // The token forgot that we logged in, or is another one now.
        R::DeviceRemoved
        | R::TokenNotPresent
        | R::TokenNotRecognized
        | R::UserNotLoggedIn
        | R::UserAlreadyLoggedIn
        | R::UserAnotherAlreadyLoggedIn
        | R::UserTooManyTypes
        | R::UserTypeInvalid
        | R::UserPinNotInitialized
        | R::PinIncorrect
        | R::PinInvalid
        | R::PinLenRange
        | R::PinExpired
        | R::PinLocked
        | R::PinTooWeak => Remedy::NewLogin,

        // The module itself is beyond repair from within.
        R::CryptokiNotInitialized
        | R::CryptokiAlreadyInitialized
        | R::CantLock
        | R::MutexBad
        | R::MutexNotLocked
        | R::NeedToCreateThreads
        | R::LibraryLoadFailed
        | R::FipsSelfTestFailed => Remedy::NewProcess,

        // A vendor's own code says nothing we know; a new session is the cheapest thing that may help.
        R::VendorDefined(_) | R::UnknownErrorCode(_) => Remedy::NewSession,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptoki::context::Function;

    #[test]
    fn a_session_is_kept_only_after_codes_about_the_request() {
        for (code, expected) in [
            (RvError::DataLenRange, Remedy::None),
            (RvError::KeyFunctionNotPermitted, Remedy::None),
            (RvError::SessionHandleInvalid, Remedy::NewSession),
            (RvError::ObjectHandleInvalid, Remedy::NewSession),
            (RvError::DeviceError, Remedy::NewSession),
            (RvError::UserNotLoggedIn, Remedy::NewLogin),
            (RvError::DeviceRemoved, Remedy::NewLogin),
            (RvError::GeneralError, Remedy::NewSession),
            (RvError::CryptokiNotInitialized, Remedy::NewProcess),
            (RvError::VendorDefined(0x8000_0001), Remedy::NewSession),
        ] {
            assert_eq!(failed("C_Sign", Error::Pkcs11(code, Function::Sign)).remedy(), expected, "{code:?}");
        }
    }

    #[test]
    fn a_failed_login_says_whether_the_pin_was_tried() {
        for (code, expected) in [
            (RvError::PinIncorrect, "refused"),
            (RvError::PinLocked, "refused"),
            (RvError::FunctionFailed, "unclear"),
            (RvError::DeviceError, "unclear"),
            (RvError::VendorDefined(0x8000_0001), "unclear"),
            (RvError::SessionHandleInvalid, "not tried"),
            (RvError::TokenNotPresent, "not tried"),
        ] {
            let outcome = match login_failed(Error::Pkcs11(code, Function::Login)) {
                TokenError::PinRefused(_) => "refused",
                TokenError::LoginUnclear(_) => "unclear",
                _ => "not tried",
            };
            assert_eq!(outcome, expected, "{code:?}");
        }
    }
}
