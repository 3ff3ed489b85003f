//! What each PKCS#11 return code means for the session it came from.

#![forbid(unsafe_code)]

use cryptoki::error::{Error, RvError};
use cryptoki_sys::{
    CK_RV, CKR_AEAD_DECRYPT_FAILED, CKR_KEY_EXHAUSTED, CKR_OPERATION_CANCEL_FAILED, CKR_OPERATION_NOT_VALIDATED,
    CKR_PARAMETER_SET_NOT_SUPPORTED, CKR_PENDING, CKR_SEED_RANDOM_REQUIRED, CKR_SESSION_ASYNC_NOT_SUPPORTED,
    CKR_TOKEN_NOT_INITIALIZED, CKR_TOKEN_RESOURCE_EXCEEDED,
};

use super::super::{Remedy, TokenError};
use super::quirks;

/// Wraps an error of the module with what it takes to go on.
pub(super) fn failed(operation: &'static str, error: Error) -> TokenError {
    TokenError::Device { operation, remedy: remedy(&error), source: Box::new(error) }
}

/// Wraps an error of `C_Initialize`, after which no session can be had.
pub(super) fn initialize_failed(error: Error) -> TokenError {
    let remedy = remedy(&error).max(Remedy::Reinitialize);
    TokenError::Device { operation: "C_Initialize", remedy, source: Box::new(error) }
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
        // Said before the PIN is looked at. A token that went away may have gone with the PIN in its hand.
        R::CryptokiNotInitialized | R::SessionClosed | R::SessionHandleInvalid | R::OperationActive => {
            failed("C_Login", error)
        }
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

/// What it takes to go on after this code, wherever it came from.
///
/// Exhaustive on purpose: a code that PKCS#11 adds must be thought about, not fall into a default. A code says where to
/// begin on the ladder; where its rung does not help, the worker climbs to the next by itself.
fn remedy_of_code(code: RvError) -> Remedy {
    use RvError as R;
    match code {
        // About the request: the session goes on. C_Sign has ended its operation with any of them (PKCS#11 3.1, 5.13.2).
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

        // About the session, the handles cached in it, or an operation left open in it. CKR_GENERAL_ERROR and
        // CKR_DEVICE_ERROR name no cause; most modules mean the connection behind this session.
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

        // The module's own state, which C_Initialize makes: that it was initialised at all, its locks, the libraries
        // that it loads itself, and the self-tests, whose failure lasts until they are run again (PKCS#11 3.1, 5.1.2).
        R::CryptokiNotInitialized | R::MutexBad | R::MutexNotLocked | R::LibraryLoadFailed | R::FipsSelfTestFailed => {
            Remedy::Reinitialize
        }

        // Says that the module is initialised when we have just finalised it or have not begun; or that it cannot live
        // with the threads and locks of this process. Both are settled where a process begins.
        R::CryptokiAlreadyInitialized | R::CantLock | R::NeedToCreateThreads => Remedy::NewProcess,

        R::UnknownErrorCode(number) => remedy_of_number(number),
        // A vendor's own code says nothing we know; a new session is the cheapest thing that may help.
        R::VendorDefined(_) => Remedy::NewSession,
    }
}

/// The codes that the binding has no name for.
fn remedy_of_number(number: CK_RV) -> Remedy {
    match number {
        // About the request, as above.
        CKR_AEAD_DECRYPT_FAILED
        | CKR_KEY_EXHAUSTED
        | CKR_PARAMETER_SET_NOT_SUPPORTED
        | CKR_SEED_RANDOM_REQUIRED
        | CKR_OPERATION_NOT_VALIDATED => Remedy::None,
        // An operation is still open in the session, or the token has run out of what a closed session gives back.
        CKR_OPERATION_CANCEL_FAILED | CKR_TOKEN_RESOURCE_EXCEEDED | CKR_PENDING | CKR_SESSION_ASYNC_NOT_SUPPORTED => {
            Remedy::NewSession
        }
        // Nobody can log in to it before it is initialised again.
        CKR_TOKEN_NOT_INITIALIZED => Remedy::NewLogin,
        _ => Remedy::NewSession,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptoki::context::Function;
    use cryptoki::error::Rv;

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
            (RvError::CryptokiNotInitialized, Remedy::Reinitialize),
            (RvError::CantLock, Remedy::NewProcess),
            (RvError::VendorDefined(0x8000_0001), Remedy::NewSession),
        ] {
            assert_eq!(failed("C_Sign", Error::Pkcs11(code, Function::Sign)).remedy(), expected, "{code:?}");
        }
    }

    #[test]
    fn every_code_of_pkcs11_has_a_name_here() {
        for (name, code) in faulty_token::ckr::ALL {
            let Rv::Error(error) = Rv::from(code.0) else { continue };
            let remedy = remedy_of_code(error);
            // What is neither known to the binding nor to us would be as good as a number made up.
            let made_up = matches!(error, RvError::UnknownErrorCode(_)) && !NAMED_HERE.contains(&code.0);
            assert!(!made_up, "{name} is treated as unknown ({remedy:?})");
        }
        assert_eq!(remedy_of_number(0x7fff_0000), Remedy::NewSession);
    }

    const NAMED_HERE: [CK_RV; 10] = [
        CKR_AEAD_DECRYPT_FAILED,
        CKR_KEY_EXHAUSTED,
        CKR_PARAMETER_SET_NOT_SUPPORTED,
        CKR_SEED_RANDOM_REQUIRED,
        CKR_OPERATION_NOT_VALIDATED,
        CKR_OPERATION_CANCEL_FAILED,
        CKR_TOKEN_RESOURCE_EXCEEDED,
        CKR_PENDING,
        CKR_SESSION_ASYNC_NOT_SUPPORTED,
        CKR_TOKEN_NOT_INITIALIZED,
    ];

    #[test]
    fn a_module_that_does_not_initialise_is_initialised_anew_or_given_up() {
        let remedy = |code| initialize_failed(Error::Pkcs11(code, Function::Initialize)).remedy();
        assert_eq!(remedy(RvError::DeviceError), Remedy::Reinitialize);
        assert_eq!(remedy(RvError::ArgumentsBad), Remedy::Reinitialize);
        assert_eq!(remedy(RvError::CryptokiAlreadyInitialized), Remedy::NewProcess);
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
            (RvError::TokenNotPresent, "unclear"),
            (RvError::DeviceRemoved, "unclear"),
            (RvError::HostMemory, "unclear"),
            (RvError::OperationActive, "not tried"),
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
