//! Calls that the binding does not make as they are needed here.
//!
//! `C_SignInit` and `C_Sign`, once each: the binding's own `sign` calls `C_Sign` a second time to learn the length of the
//! signature, which is always 64 bytes here; on a network HSM that call may be a round trip. And the search for objects:
//! the binding keeps to itself what `C_FindObjectsFinal` returned, so that a session lost just then would be used again.

#![allow(unsafe_code)]

use std::path::Path;
use std::ptr;

use cryptoki::context::Function;
use cryptoki::error::{Error, Rv};
use cryptoki::object::ObjectHandle;
use cryptoki_sys::{
    CK_ATTRIBUTE, CK_ATTRIBUTE_TYPE, CK_FUNCTION_LIST, CK_MECHANISM, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE,
    CK_ULONG, CKM_ECDSA, Pkcs11 as Library,
};

use super::super::{Remedy, TokenError, watch};
use super::classify::failed;

/// Functions of a loaded module.
pub(super) struct DirectCalls {
    init: unsafe extern "C" fn(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE) -> CK_RV,
    sign: unsafe extern "C" fn(CK_SESSION_HANDLE, *mut u8, CK_ULONG, *mut u8, *mut CK_ULONG) -> CK_RV,
    find_init: unsafe extern "C" fn(CK_SESSION_HANDLE, *mut CK_ATTRIBUTE, CK_ULONG) -> CK_RV,
    find: unsafe extern "C" fn(CK_SESSION_HANDLE, *mut CK_OBJECT_HANDLE, CK_ULONG, *mut CK_ULONG) -> CK_RV,
    find_final: unsafe extern "C" fn(CK_SESSION_HANDLE) -> CK_RV,
    // Keeps the module mapped while the pointers above are in use.
    _library: Library,
}

impl DirectCalls {
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
        let (Some(find_init), Some(find), Some(find_final)) =
            (list.C_FindObjectsInit, list.C_FindObjects, list.C_FindObjectsFinal)
        else {
            return Err(Error::NullFunctionPointer);
        };
        Ok(Self { init, sign, find_init, find, find_final, _library: library })
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

    /// The objects that have all these attributes.
    ///
    /// # Errors
    /// With whatever one of the three calls returned. After one that costs the session, none is made on it any more.
    pub(super) fn objects(
        &self,
        session: CK_SESSION_HANDLE,
        wanted: &[(CK_ATTRIBUTE_TYPE, &[u8])],
    ) -> Result<Vec<ObjectHandle>, TokenError> {
        let mut values: Vec<Vec<u8>> = wanted.iter().map(|(_, value)| value.to_vec()).collect();
        let mut template: Vec<CK_ATTRIBUTE> = wanted
            .iter()
            .zip(&mut values)
            .map(|((kind, _), value)| CK_ATTRIBUTE {
                type_: *kind,
                pValue: value.as_mut_ptr().cast(),
                ulValueLen: value.len() as CK_ULONG,
            })
            .collect();
        let count = template.len() as CK_ULONG;
        // SAFETY: the template and the values that it points to outlive the call, have the lengths said, and are ours
        // alone, because the interface takes them as mutable.
        let init = || unsafe { (self.find_init)(session, template.as_mut_ptr(), count) };
        check(watched("C_FindObjectsInit", init), Function::FindObjectsInit)
            .map_err(|error| failed("C_FindObjectsInit", error))?;
        let found = self.found(session).map_err(|error| failed("C_FindObjects", error));
        if found.as_ref().is_err_and(|error| error.remedy() > Remedy::None) {
            return found;
        }
        // SAFETY: the function pointer is of the mapped module and takes no memory of ours.
        let end = || unsafe { (self.find_final)(session) };
        check(watched("C_FindObjectsFinal", end), Function::FindObjectsFinal)
            .map_err(|error| failed("C_FindObjectsFinal", error))?;
        found
    }

    /// What the search that is under way finds.
    fn found(&self, session: CK_SESSION_HANDLE) -> Result<Vec<ObjectHandle>, Error> {
        let mut found = Vec::new();
        loop {
            let mut some = [0; AT_ONCE];
            let mut count = 0;
            // SAFETY: both outlive the call, and there is room for as many handles as said.
            let next = || unsafe { (self.find)(session, some.as_mut_ptr(), AT_ONCE as CK_ULONG, &mut count) };
            check(watched("C_FindObjects", next), Function::FindObjects)?;
            let count = usize::try_from(count).unwrap_or(AT_ONCE).min(AT_ONCE);
            // SAFETY: a handle is a number that the module gave out; what is unsafe is to make one up.
            found.extend(some[..count].iter().map(|handle| unsafe { ObjectHandle::new_from_raw(*handle) }));
            // Some modules return fewer than there are; only none means that there are no more. Of more than a few,
            // nothing but their number is said, and it need not be exact.
            if count == 0 || found.len() >= ENOUGH {
                return Ok(found);
            }
        }
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

/// Of a key pair one object is expected.
const AT_ONCE: usize = 10;
const ENOUGH: usize = 1000;
