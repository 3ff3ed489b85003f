//! The functions that are handed on as they come, and the list of all.

use cryptoki_sys::{
    CK_ATTRIBUTE_PTR, CK_BYTE_PTR, CK_FUNCTION_LIST, CK_MECHANISM_INFO_PTR, CK_MECHANISM_PTR, CK_MECHANISM_TYPE,
    CK_MECHANISM_TYPE_PTR, CK_OBJECT_HANDLE, CK_OBJECT_HANDLE_PTR, CK_RV, CK_SESSION_HANDLE, CK_SESSION_INFO_PTR,
    CK_SLOT_ID, CK_ULONG, CK_ULONG_PTR, CK_VERSION,
};

use super::entry::{On, enter};
use super::{call, library, objects, session, sign};
use crate::Function;

/// What the application is given.
pub(super) static LIST: CK_FUNCTION_LIST = CK_FUNCTION_LIST {
    version: CK_VERSION { major: 2, minor: 40 },
    C_Initialize: Some(library::C_Initialize),
    C_Finalize: Some(library::C_Finalize),
    C_GetInfo: Some(library::C_GetInfo),
    C_GetFunctionList: Some(super::C_GetFunctionList),
    C_GetSlotList: Some(library::C_GetSlotList),
    C_GetSlotInfo: Some(library::C_GetSlotInfo),
    C_GetTokenInfo: Some(library::C_GetTokenInfo),
    C_GetMechanismList: Some(C_GetMechanismList),
    C_GetMechanismInfo: Some(C_GetMechanismInfo),
    C_InitToken: Some(library::C_InitToken),
    C_InitPIN: Some(session::C_InitPIN),
    C_SetPIN: Some(session::C_SetPIN),
    C_OpenSession: Some(session::C_OpenSession),
    C_CloseSession: Some(session::C_CloseSession),
    C_CloseAllSessions: Some(session::C_CloseAllSessions),
    C_GetSessionInfo: Some(C_GetSessionInfo),
    C_GetOperationState: Some(C_GetOperationState),
    C_SetOperationState: Some(C_SetOperationState),
    C_Login: Some(session::C_Login),
    C_Logout: Some(session::C_Logout),
    C_CreateObject: Some(C_CreateObject),
    C_CopyObject: Some(C_CopyObject),
    C_DestroyObject: Some(C_DestroyObject),
    C_GetObjectSize: Some(C_GetObjectSize),
    C_GetAttributeValue: Some(objects::C_GetAttributeValue),
    C_SetAttributeValue: Some(C_SetAttributeValue),
    C_FindObjectsInit: Some(objects::C_FindObjectsInit),
    C_FindObjects: Some(objects::C_FindObjects),
    C_FindObjectsFinal: Some(objects::C_FindObjectsFinal),
    C_EncryptInit: Some(C_EncryptInit),
    C_Encrypt: Some(C_Encrypt),
    C_EncryptUpdate: Some(C_EncryptUpdate),
    C_EncryptFinal: Some(C_EncryptFinal),
    C_DecryptInit: Some(C_DecryptInit),
    C_Decrypt: Some(C_Decrypt),
    C_DecryptUpdate: Some(C_DecryptUpdate),
    C_DecryptFinal: Some(C_DecryptFinal),
    C_DigestInit: Some(C_DigestInit),
    C_Digest: Some(C_Digest),
    C_DigestUpdate: Some(C_DigestUpdate),
    C_DigestKey: Some(C_DigestKey),
    C_DigestFinal: Some(C_DigestFinal),
    C_SignInit: Some(sign::C_SignInit),
    C_Sign: Some(sign::C_Sign),
    C_SignUpdate: Some(C_SignUpdate),
    C_SignFinal: Some(C_SignFinal),
    C_SignRecoverInit: Some(C_SignRecoverInit),
    C_SignRecover: Some(C_SignRecover),
    C_VerifyInit: Some(C_VerifyInit),
    C_Verify: Some(C_Verify),
    C_VerifyUpdate: Some(C_VerifyUpdate),
    C_VerifyFinal: Some(C_VerifyFinal),
    C_VerifyRecoverInit: Some(C_VerifyRecoverInit),
    C_VerifyRecover: Some(C_VerifyRecover),
    C_DigestEncryptUpdate: Some(C_DigestEncryptUpdate),
    C_DecryptDigestUpdate: Some(C_DecryptDigestUpdate),
    C_SignEncryptUpdate: Some(C_SignEncryptUpdate),
    C_DecryptVerifyUpdate: Some(C_DecryptVerifyUpdate),
    C_GenerateKey: Some(C_GenerateKey),
    C_GenerateKeyPair: Some(C_GenerateKeyPair),
    C_WrapKey: Some(C_WrapKey),
    C_UnwrapKey: Some(C_UnwrapKey),
    C_DeriveKey: Some(C_DeriveKey),
    C_SeedRandom: Some(C_SeedRandom),
    C_GenerateRandom: Some(C_GenerateRandom),
    C_GetFunctionStatus: Some(C_GetFunctionStatus),
    C_CancelFunction: Some(C_CancelFunction),
    C_WaitForSlotEvent: Some(library::C_WaitForSlotEvent),
};

/// Defines functions that hand a call on, with the handle that the real module knows in place of ours.
macro_rules! hand_on {
    ($on:ident $from:ident: $($name:ident($($argument:ident: $type:ty),*);)*) => {
        $(hand_on!(@$on $from $name($($argument: $type),*));)*
    };
    (@Session $from:ident $name:ident($($argument:ident: $type:ty),*)) => {
        unsafe extern "C" fn $name(session: CK_SESSION_HANDLE, $($argument: $type),*) -> CK_RV {
            enter(Function::$name, On::Session(session), |call| {
                let $from = call.session().real;
                // SAFETY: the arguments are the application's, handed on as they came, and it vouches for them to the
                // same contract; the session is the real module's own.
                unsafe { call!(call.real().list, $name($from, $($argument),*)) }
            })
        }
    };
    (@Slot $from:ident $name:ident($($argument:ident: $type:ty),*)) => {
        unsafe extern "C" fn $name($from: CK_SLOT_ID, $($argument: $type),*) -> CK_RV {
            enter(Function::$name, On::Slot, |call| {
                // SAFETY: the arguments are the application's, handed on as they came, and it vouches for them to the
                // same contract.
                unsafe { call!(call.real().list, $name($from, $($argument),*)) }
            })
        }
    };
}

hand_on! { Slot slot:
    C_GetMechanismList(mechanisms: CK_MECHANISM_TYPE_PTR, count: CK_ULONG_PTR);
    C_GetMechanismInfo(mechanism: CK_MECHANISM_TYPE, info: CK_MECHANISM_INFO_PTR);
}

hand_on! { Session session:
    C_GetSessionInfo(info: CK_SESSION_INFO_PTR);
    C_GetOperationState(state: CK_BYTE_PTR, length: CK_ULONG_PTR);
    C_SetOperationState(state: CK_BYTE_PTR, length: CK_ULONG, encryption: CK_OBJECT_HANDLE, authentication: CK_OBJECT_HANDLE);
    C_CreateObject(template: CK_ATTRIBUTE_PTR, count: CK_ULONG, object: CK_OBJECT_HANDLE_PTR);
    C_CopyObject(object: CK_OBJECT_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG, copy: CK_OBJECT_HANDLE_PTR);
    C_DestroyObject(object: CK_OBJECT_HANDLE);
    C_GetObjectSize(object: CK_OBJECT_HANDLE, size: CK_ULONG_PTR);
    C_SetAttributeValue(object: CK_OBJECT_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG);
    C_EncryptInit(mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_Encrypt(data: CK_BYTE_PTR, data_length: CK_ULONG, out: CK_BYTE_PTR, length: CK_ULONG_PTR);
    C_EncryptUpdate(data: CK_BYTE_PTR, data_length: CK_ULONG, out: CK_BYTE_PTR, length: CK_ULONG_PTR);
    C_EncryptFinal(out: CK_BYTE_PTR, length: CK_ULONG_PTR);
    C_DecryptInit(mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_Decrypt(data: CK_BYTE_PTR, data_length: CK_ULONG, out: CK_BYTE_PTR, length: CK_ULONG_PTR);
    C_DecryptUpdate(data: CK_BYTE_PTR, data_length: CK_ULONG, out: CK_BYTE_PTR, length: CK_ULONG_PTR);
    C_DecryptFinal(out: CK_BYTE_PTR, length: CK_ULONG_PTR);
    C_DigestInit(mechanism: CK_MECHANISM_PTR);
    C_Digest(data: CK_BYTE_PTR, data_length: CK_ULONG, out: CK_BYTE_PTR, length: CK_ULONG_PTR);
    C_DigestUpdate(data: CK_BYTE_PTR, data_length: CK_ULONG);
    C_DigestKey(key: CK_OBJECT_HANDLE);
    C_DigestFinal(out: CK_BYTE_PTR, length: CK_ULONG_PTR);
    C_SignUpdate(data: CK_BYTE_PTR, data_length: CK_ULONG);
    C_SignFinal(out: CK_BYTE_PTR, length: CK_ULONG_PTR);
    C_SignRecoverInit(mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_SignRecover(data: CK_BYTE_PTR, data_length: CK_ULONG, out: CK_BYTE_PTR, length: CK_ULONG_PTR);
    C_VerifyInit(mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_Verify(data: CK_BYTE_PTR, data_length: CK_ULONG, signature: CK_BYTE_PTR, length: CK_ULONG);
    C_VerifyUpdate(data: CK_BYTE_PTR, data_length: CK_ULONG);
    C_VerifyFinal(signature: CK_BYTE_PTR, length: CK_ULONG);
    C_VerifyRecoverInit(mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_VerifyRecover(signature: CK_BYTE_PTR, signature_length: CK_ULONG, out: CK_BYTE_PTR, length: CK_ULONG_PTR);
    C_DigestEncryptUpdate(data: CK_BYTE_PTR, data_length: CK_ULONG, out: CK_BYTE_PTR, length: CK_ULONG_PTR);
    C_DecryptDigestUpdate(data: CK_BYTE_PTR, data_length: CK_ULONG, out: CK_BYTE_PTR, length: CK_ULONG_PTR);
    C_SignEncryptUpdate(data: CK_BYTE_PTR, data_length: CK_ULONG, out: CK_BYTE_PTR, length: CK_ULONG_PTR);
    C_DecryptVerifyUpdate(data: CK_BYTE_PTR, data_length: CK_ULONG, out: CK_BYTE_PTR, length: CK_ULONG_PTR);
    C_GenerateKey(mechanism: CK_MECHANISM_PTR, template: CK_ATTRIBUTE_PTR, count: CK_ULONG, key: CK_OBJECT_HANDLE_PTR);
    C_GenerateKeyPair(mechanism: CK_MECHANISM_PTR, public: CK_ATTRIBUTE_PTR, public_count: CK_ULONG, private: CK_ATTRIBUTE_PTR, private_count: CK_ULONG, public_key: CK_OBJECT_HANDLE_PTR, private_key: CK_OBJECT_HANDLE_PTR);
    C_WrapKey(mechanism: CK_MECHANISM_PTR, wrapping: CK_OBJECT_HANDLE, key: CK_OBJECT_HANDLE, out: CK_BYTE_PTR, length: CK_ULONG_PTR);
    C_UnwrapKey(mechanism: CK_MECHANISM_PTR, unwrapping: CK_OBJECT_HANDLE, wrapped: CK_BYTE_PTR, length: CK_ULONG, template: CK_ATTRIBUTE_PTR, count: CK_ULONG, key: CK_OBJECT_HANDLE_PTR);
    C_DeriveKey(mechanism: CK_MECHANISM_PTR, base: CK_OBJECT_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG, key: CK_OBJECT_HANDLE_PTR);
    C_SeedRandom(seed: CK_BYTE_PTR, length: CK_ULONG);
    C_GenerateRandom(out: CK_BYTE_PTR, length: CK_ULONG);
    C_GetFunctionStatus();
    C_CancelFunction();
}
