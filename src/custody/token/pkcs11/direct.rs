//! `C_SignInit` and `C_Sign`, called once each.
//!
//! The binding's own `sign` calls `C_Sign` a second time to learn the length of the signature. It is always 64 bytes
//! here, and on a network HSM that call may be a round trip.

#![allow(unsafe_code)]

use std::path::Path;
use std::ptr;

use cryptoki::context::Function;
use cryptoki::error::{Error, Rv};
use cryptoki_sys::{
    CK_FUNCTION_LIST, CK_MECHANISM, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_ULONG, CKM_ECDSA, Pkcs11 as Library,
};

use super::super::watch;

/// The two functions of a loaded module.
pub(super) struct SignCalls {
    init: unsafe extern "C" fn(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE) -> CK_RV,
    sign: unsafe extern "C" fn(CK_SESSION_HANDLE, *mut u8, CK_ULONG, *mut u8, *mut CK_ULONG) -> CK_RV,
    // Keeps the module mapped while the pointers above are in use.
    _library: Library,
}

impl SignCalls {
    /// Takes the functions from the module at `path`, which the caller has already loaded and will initialise: the
    /// loader gives the same mapping again.
    pub(super) fn of(path: &Path) -> Result<Self, Error> {
        // SAFETY: the module's initialisers ran when the caller loaded it; loading it again only counts a reference.
        let library = unsafe { Library::new(path) }.map_err(Error::LibraryLoading)?;
        if library.C_GetFunctionList.is_err() {
            return Err(Error::MissingSymbol("C_GetFunctionList"));
        }
        let mut list: *mut CK_FUNCTION_LIST = ptr::null_mut();
        // SAFETY: the symbol was just found to exist; it writes one pointer, and may be called before C_Initialize.
        check(unsafe { library.C_GetFunctionList(&mut list) }, Function::GetFunctionList)?;
        if list.is_null() {
            return Err(Error::NullFunctionPointer);
        }
        // SAFETY: not null, and PKCS#11 has the module own the list for as long as it is mapped. Unaligned, because
        // some platforms pack the structure.
        let list = unsafe { ptr::read_unaligned(list) };
        let (Some(init), Some(sign)) = (list.C_SignInit, list.C_Sign) else { return Err(Error::NullFunctionPointer) };
        Ok(Self { init, sign, _library: library })
    }

    /// Signs a digest with `CKM_ECDSA`: the signature, or how long it is where that is not 64 bytes.
    ///
    /// The session must be one of this process and used by this thread alone; a handle that means nothing to the
    /// module is an error of the module, not undefined.
    pub(super) fn ecdsa(
        &self,
        session: CK_SESSION_HANDLE,
        key: CK_OBJECT_HANDLE,
        digest: &[u8; 32],
    ) -> Result<Result<[u8; 64], CK_ULONG>, Error> {
        let mut mechanism = CK_MECHANISM { mechanism: CKM_ECDSA, pParameter: ptr::null_mut(), ulParameterLen: 0 };
        // SAFETY: the function pointer is of the mapped module; the mechanism outlives the call and has no parameter.
        check(watched("C_SignInit", || unsafe { (self.init)(session, &mut mechanism, key) }), Function::SignInit)?;
        let mut data = *digest;
        let mut signature = [0; ROOM];
        let mut length = ROOM as CK_ULONG;
        // SAFETY: both buffers outlive the call and are as long as said; `data` is a copy because the interface takes
        // it as mutable.
        let sign = || unsafe { (self.sign)(session, data.as_mut_ptr(), 32, signature.as_mut_ptr(), &mut length) };
        check(watched("C_Sign", sign), Function::Sign)?;
        Ok(signature.first_chunk().copied().filter(|_| length == 64).ok_or(length))
    }
}

fn watched(name: &'static str, call: impl FnOnce() -> CK_RV) -> CK_RV {
    let _call = watch::call(name);
    call()
}

fn check(code: CK_RV, function: Function) -> Result<(), Error> {
    match Rv::from(code) {
        Rv::Ok => Ok(()),
        Rv::Error(error) => Err(Error::Pkcs11(error, function)),
    }
}

/// More than the longest P-256 signature in any form, so that an odd module is recognised by its length instead of by
/// `CKR_BUFFER_TOO_SMALL`, which would leave the operation open.
const ROOM: usize = 128;
