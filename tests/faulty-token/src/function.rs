//! The functions of PKCS#11 2.40, which are those of 3.x that this module carries.

#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! functions {
    ($($name:ident),* $(,)?) => {
        /// A function that the module exports.
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Function {
            $(#[doc = concat!("`", stringify!($name), "`")] $name),*
        }

        impl Function {
            /// Every function, in the order of the function list.
            pub const ALL: &[Function] = &[$(Function::$name),*];

            /// The name in `pkcs11f.h`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Function::$name => stringify!($name)),*
                }
            }
        }
    };
}

impl Function {
    /// Whether a fault on any function falls on this one. Those that load, start and stop the module are named or
    /// left alone.
    #[must_use]
    pub const fn is_any(self) -> bool {
        !matches!(self, Self::C_GetFunctionList | Self::C_Initialize | Self::C_Finalize)
    }

    /// Whether a call that fails ends the session's operation nevertheless (PKCS#11 3.1, section 5.2 and the function's
    /// own).
    pub(crate) const fn ends_operation(self) -> bool {
        matches!(
            self,
            Self::C_Decrypt
                | Self::C_DecryptFinal
                | Self::C_Digest
                | Self::C_DigestFinal
                | Self::C_Encrypt
                | Self::C_EncryptFinal
                | Self::C_FindObjectsFinal
                | Self::C_Sign
                | Self::C_SignFinal
                | Self::C_SignRecover
                | Self::C_Verify
                | Self::C_VerifyFinal
                | Self::C_VerifyRecover
        )
    }

    /// Whether the device wants a logged-in user for it, whatever the object.
    pub(crate) const fn needs_login(self) -> bool {
        matches!(
            self,
            Self::C_Decrypt
                | Self::C_DecryptFinal
                | Self::C_DecryptInit
                | Self::C_DecryptUpdate
                | Self::C_DeriveKey
                | Self::C_GenerateKey
                | Self::C_GenerateKeyPair
                | Self::C_Sign
                | Self::C_SignFinal
                | Self::C_SignInit
                | Self::C_SignUpdate
                | Self::C_UnwrapKey
                | Self::C_WrapKey
        )
    }
}

impl FromStr for Function {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|function| function.name() == text);
        found.copied().ok_or_else(|| format!("{text} is no function of PKCS#11 2.40"))
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

functions! {
    C_Initialize,
    C_Finalize,
    C_GetInfo,
    C_GetFunctionList,
    C_GetSlotList,
    C_GetSlotInfo,
    C_GetTokenInfo,
    C_GetMechanismList,
    C_GetMechanismInfo,
    C_InitToken,
    C_InitPIN,
    C_SetPIN,
    C_OpenSession,
    C_CloseSession,
    C_CloseAllSessions,
    C_GetSessionInfo,
    C_GetOperationState,
    C_SetOperationState,
    C_Login,
    C_Logout,
    C_CreateObject,
    C_CopyObject,
    C_DestroyObject,
    C_GetObjectSize,
    C_GetAttributeValue,
    C_SetAttributeValue,
    C_FindObjectsInit,
    C_FindObjects,
    C_FindObjectsFinal,
    C_EncryptInit,
    C_Encrypt,
    C_EncryptUpdate,
    C_EncryptFinal,
    C_DecryptInit,
    C_Decrypt,
    C_DecryptUpdate,
    C_DecryptFinal,
    C_DigestInit,
    C_Digest,
    C_DigestUpdate,
    C_DigestKey,
    C_DigestFinal,
    C_SignInit,
    C_Sign,
    C_SignUpdate,
    C_SignFinal,
    C_SignRecoverInit,
    C_SignRecover,
    C_VerifyInit,
    C_Verify,
    C_VerifyUpdate,
    C_VerifyFinal,
    C_VerifyRecoverInit,
    C_VerifyRecover,
    C_DigestEncryptUpdate,
    C_DecryptDigestUpdate,
    C_SignEncryptUpdate,
    C_DecryptVerifyUpdate,
    C_GenerateKey,
    C_GenerateKeyPair,
    C_WrapKey,
    C_UnwrapKey,
    C_DeriveKey,
    C_SeedRandom,
    C_GenerateRandom,
    C_GetFunctionStatus,
    C_CancelFunction,
    C_WaitForSlotEvent,
}
