//! Objects: their attributes, the lies about them, and finding them.

use std::ptr;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_ATTRIBUTE_PTR, CK_ATTRIBUTE_TYPE, CK_BBOOL, CK_FUNCTION_LIST, CK_KEY_TYPE, CK_MECHANISM,
    CK_OBJECT_CLASS, CK_OBJECT_HANDLE, CK_OBJECT_HANDLE_PTR, CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID, CK_TRUE, CK_ULONG,
    CK_ULONG_PTR, CK_UNAVAILABLE_INFORMATION, CKA_CLASS, CKA_EC_PARAMS, CKA_ID, CKA_KEY_TYPE, CKA_LABEL, CKA_SIGN,
    CKA_TOKEN, CKF_SERIAL_SESSION, CKK_EC, CKM_EC_KEY_PAIR_GEN, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY,
    CKR_ATTRIBUTE_SENSITIVE, CKR_ATTRIBUTE_TYPE_INVALID, CKR_BUFFER_TOO_SMALL, CKR_OK,
};

use super::entry::{Call, On, enter};
use super::{Real, call, lock, virtual_keys};
use crate::{Condition, Function, KeyClass, Says};

pub(super) unsafe extern "C" fn C_FindObjectsInit(
    session: CK_SESSION_HANDLE,
    template: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
) -> CK_RV {
    enter(Function::C_FindObjectsInit, On::Session(session), |call| {
        let real = call.real();
        // SAFETY: the application vouches for the template.
        let wanted = unsafe { pairs(template, count) };
        let here = virtual_keys::names_one(call, &wanted);
        let code = match here {
            true => CKR_OK,
            // SAFETY: the arguments are the application's, handed on as they came.
            false => unsafe { call!(real.list, C_FindObjectsInit(call.session().real, template, count)) },
        };
        if code == CKR_OK {
            let found = virtual_keys::matching(call, &real, &wanted);
            let mut work = lock(&call.session().work);
            (work.found, work.searches_here) = (found, here);
        }
        code
    })
}

pub(super) unsafe extern "C" fn C_FindObjects(
    session: CK_SESSION_HANDLE,
    objects: CK_OBJECT_HANDLE_PTR,
    room: CK_ULONG,
    count: CK_ULONG_PTR,
) -> CK_RV {
    enter(Function::C_FindObjects, On::Session(session), |call| {
        if lock(&call.session().work).searches_here {
            // SAFETY: the application vouches for the pointer, as to the real module.
            unsafe { count.write(0) };
        } else {
            // SAFETY: the arguments are the application's, handed on as they came.
            let code = unsafe { call!(call.real().list, C_FindObjects(call.session().real, objects, room, count)) };
            if code != CKR_OK {
                return code;
            }
        }
        let mut work = lock(&call.session().work);
        // SAFETY: the count was just written, and is at most `room`, the length that the application vouches for.
        unsafe {
            while *count < room {
                let Some(object) = work.found.pop_front() else { break };
                objects.add(*count as usize).write(object);
                *count += 1;
            }
        }
        CKR_OK
    })
}

pub(super) unsafe extern "C" fn C_FindObjectsFinal(session: CK_SESSION_HANDLE) -> CK_RV {
    enter(Function::C_FindObjectsFinal, On::Session(session), |call| {
        if std::mem::take(&mut lock(&call.session().work).searches_here) {
            return CKR_OK;
        }
        // SAFETY: takes no pointer; the session is the real module's own.
        unsafe { call!(call.real().list, C_FindObjectsFinal(call.session().real)) }
    })
}

pub(super) unsafe extern "C" fn C_GetAttributeValue(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    template: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
) -> CK_RV {
    enter(Function::C_GetAttributeValue, On::Session(session), |call| {
        let real = call.real();
        let (backing, mut said) = said(call, &real, object);
        if virtual_keys::VirtualKey::of(object).is_some() && !template.is_null() {
            // SAFETY: the application vouches for the template; nobody else has it during the call.
            let template = unsafe { std::slice::from_raw_parts(template, count as usize) };
            for kind in template.iter().map(|entry| entry.type_) {
                if said.iter().all(|(said, _)| *said != kind)
                    && let Some(value) = virtual_keys::attribute(call, &real, backing, kind)
                {
                    said.push((kind, Answer::Value(value)));
                }
            }
        }
        if said.is_empty() || template.is_null() || count == 0 {
            // SAFETY: the arguments are the application's, but for an object handle, which is the real module's own.
            return unsafe { call!(real.list, C_GetAttributeValue(call.session().real, backing, template, count)) };
        }
        // SAFETY: the application vouches for the template; nobody else has it during the call.
        let template = unsafe { std::slice::from_raw_parts_mut(template, count as usize) };
        let invented = |kind: CK_ATTRIBUTE_TYPE| said.iter().rfind(|(said, _)| *said == kind).map(|(_, says)| says);
        let mut rest: Vec<_> =
            template.iter().filter(|attribute| invented(attribute.type_).is_none()).copied().collect();
        let mut code = match rest.len() as CK_ULONG {
            0 => CKR_OK,
            // SAFETY: the entries are the application's own, with their pointers and lengths.
            count => unsafe {
                call!(real.list, C_GetAttributeValue(call.session().real, backing, rest.as_mut_ptr(), count))
            },
        };
        if !matches!(code, CKR_OK | CKR_ATTRIBUTE_SENSITIVE | CKR_ATTRIBUTE_TYPE_INVALID | CKR_BUFFER_TOO_SMALL) {
            return code;
        }
        let mut rest = rest.into_iter();
        for attribute in template {
            match invented(attribute.type_) {
                None => attribute.ulValueLen = rest.next().map_or(CK_UNAVAILABLE_INFORMATION, |real| real.ulValueLen),
                Some(says) => {
                    // SAFETY: as before the entry is the application's own.
                    let own = unsafe { says.answer(attribute) };
                    if code == CKR_OK {
                        code = own;
                    }
                }
            }
        }
        code
    })
}

/// What is said about an attribute instead of the truth.
enum Answer {
    Value(Vec<u8>),
    Missing,
    Sensitive,
}

impl Answer {
    /// Answers one entry of a template as PKCS#11 3.1, section 5.7.5, has it.
    ///
    /// # Safety
    /// The entry's pointer must be null or have the entry's length.
    unsafe fn answer(&self, entry: &mut CK_ATTRIBUTE) -> CK_RV {
        let value = match self {
            Self::Value(value) => value,
            Self::Missing | Self::Sensitive => {
                entry.ulValueLen = CK_UNAVAILABLE_INFORMATION;
                return if matches!(self, Self::Missing) {
                    CKR_ATTRIBUTE_TYPE_INVALID
                } else {
                    CKR_ATTRIBUTE_SENSITIVE
                };
            }
        };
        if entry.pValue.is_null() {
            entry.ulValueLen = value.len() as CK_ULONG;
            return CKR_OK;
        }
        if (entry.ulValueLen as usize) < value.len() {
            entry.ulValueLen = CK_UNAVAILABLE_INFORMATION;
            return CKR_BUFFER_TOO_SMALL;
        }
        // SAFETY: just seen to be long enough; our vector is no memory of the application's.
        unsafe { ptr::copy_nonoverlapping(value.as_ptr(), entry.pValue.cast(), value.len()) };
        entry.ulValueLen = value.len() as CK_ULONG;
        CKR_OK
    }
}

/// The real object behind a handle, and what is said of it that is not its own.
fn said(
    call: &Call,
    real: &Real<'_>,
    object: CK_OBJECT_HANDLE,
) -> (CK_OBJECT_HANDLE, Vec<(CK_ATTRIBUTE_TYPE, Answer)>) {
    let session = call.session();
    let mut said = Vec::new();
    let mut backing = object;
    let mut label = None;
    if let Some(key) = virtual_keys::VirtualKey::of(object) {
        backing = virtual_keys::backing(call, real, key.class).unwrap_or(object);
        said.push((CKA_LABEL, Answer::Value(key.label().into_bytes())));
        said.push((CKA_ID, Answer::Value(key.id())));
        label = Some(key.label().into_bytes());
    }
    let conditions = call.module.device().conditions.clone();
    for condition in &conditions {
        let Condition::Lie { attribute, says, class, label: wanted_label } = condition else { continue };
        let read = |kind| attribute_of(real.list, session.real, backing, kind);
        let of_class = |class: KeyClass| read(CKA_CLASS) == Some(class_number(class).to_ne_bytes().to_vec());
        let of_label = |wanted: &String| label.clone().or_else(|| read(CKA_LABEL)) == Some(wanted.as_bytes().to_vec());
        if !class.is_none_or(of_class) || !wanted_label.as_ref().is_none_or(of_label) {
            continue;
        }
        let answer = match says {
            Says::Bool(value) => Answer::Value(vec![CK_BBOOL::from(*value)]),
            Says::Ulong(value) => Answer::Value((*value as CK_ULONG).to_ne_bytes().to_vec()),
            Says::Bytes(value) => Answer::Value(value.clone()),
            Says::Missing => Answer::Missing,
            Says::Sensitive => Answer::Sensitive,
            Says::OfAnotherKey => {
                let class = read(CKA_CLASS).unwrap_or_default();
                let other = Side::open(real.list, session.slot).and_then(|side| {
                    let class = class.first_chunk().map(|bytes| CK_OBJECT_CLASS::from_ne_bytes(*bytes))?;
                    let other = side.another_key(class, backing)?;
                    attribute_of(real.list, side.session, other, attribute.0)
                });
                other.map_or(Answer::Missing, Answer::Value)
            }
        };
        said.push((attribute.0, answer));
    }
    (backing, said)
}

/// A session of our own for a moment, on a slot where the application has one, whose login it shares. It is gone
/// before the call returns, so that it keeps no login alive.
pub(super) struct Side<'a> {
    list: &'a CK_FUNCTION_LIST,
    pub(super) session: CK_SESSION_HANDLE,
}

impl<'a> Side<'a> {
    pub(super) fn open(list: &'a CK_FUNCTION_LIST, slot: CK_SLOT_ID) -> Option<Self> {
        let mut session = 0;
        // SAFETY: `session` outlives the call, and there is no callback.
        let code = unsafe { call!(list, C_OpenSession(slot, CKF_SERIAL_SESSION, ptr::null_mut(), None, &mut session)) };
        (code == CKR_OK).then_some(Self { list, session })
    }

    /// The objects, 64 at most, that have these attributes.
    pub(super) fn find(&self, attributes: &[(CK_ATTRIBUTE_TYPE, &[u8])]) -> Vec<CK_OBJECT_HANDLE> {
        let mut template: Vec<_> = attributes.iter().map(|(kind, value)| entry(*kind, value)).collect();
        let mut objects = [0; 64];
        let mut count = 0;
        // SAFETY: the template points to values that outlive the calls, which only read them; the array has the length
        // said.
        unsafe {
            let length = template.len() as CK_ULONG;
            if call!(self.list, C_FindObjectsInit(self.session, template.as_mut_ptr(), length)) != CKR_OK {
                return Vec::new();
            }
            let room = objects.len() as CK_ULONG;
            if call!(self.list, C_FindObjects(self.session, objects.as_mut_ptr(), room, &mut count)) != CKR_OK {
                count = 0;
            }
            call!(self.list, C_FindObjectsFinal(self.session));
        }
        objects[..objects.len().min(count as usize)].to_vec()
    }

    /// An EC key of this class that is not the one given: another one of the token, else a new one that is gone with
    /// this session.
    pub(super) fn another_key(&self, class: CK_OBJECT_CLASS, not: CK_OBJECT_HANDLE) -> Option<CK_OBJECT_HANDLE> {
        let ec: CK_KEY_TYPE = CKK_EC;
        let keys = self.find(&[(CKA_CLASS, &class.to_ne_bytes()), (CKA_KEY_TYPE, &ec.to_ne_bytes())]);
        let other = keys.into_iter().find(|key| *key != not);
        other.or_else(|| {
            let (public, private) = self.generate()?;
            Some(if class == CKO_PUBLIC_KEY { public } else { private })
        })
    }

    fn generate(&self) -> Option<(CK_OBJECT_HANDLE, CK_OBJECT_HANDLE)> {
        let mut mechanism =
            CK_MECHANISM { mechanism: CKM_EC_KEY_PAIR_GEN, pParameter: ptr::null_mut(), ulParameterLen: 0 };
        let mut of_public = [entry(CKA_EC_PARAMS, P256_OID), entry(CKA_TOKEN, &[0])];
        let mut of_private = [entry(CKA_TOKEN, &[0]), entry(CKA_SIGN, &[CK_TRUE])];
        let (mut public, mut private) = (0, 0);
        // SAFETY: the templates have the lengths said and point to constants, which the call only reads; all outlive it.
        let code = unsafe {
            call!(
                self.list,
                C_GenerateKeyPair(
                    self.session,
                    &mut mechanism,
                    of_public.as_mut_ptr(),
                    of_public.len() as CK_ULONG,
                    of_private.as_mut_ptr(),
                    of_private.len() as CK_ULONG,
                    &mut public,
                    &mut private,
                )
            )
        };
        (code == CKR_OK).then_some((public, private))
    }
}

impl Drop for Side<'_> {
    fn drop(&mut self) {
        // SAFETY: takes no pointer; the session is our own.
        unsafe { call!(self.list, C_CloseSession(self.session)) };
    }
}

/// The value of an attribute, `None` where the object is not there or does not give it.
pub(super) fn attribute_of(
    list: &CK_FUNCTION_LIST,
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    kind: CK_ATTRIBUTE_TYPE,
) -> Option<Vec<u8>> {
    let mut asked = CK_ATTRIBUTE { type_: kind, pValue: ptr::null_mut(), ulValueLen: 0 };
    // SAFETY: one entry without a buffer, which outlives the call.
    let code = unsafe { call!(list, C_GetAttributeValue(session, object, &mut asked, 1)) };
    if code != CKR_OK || asked.ulValueLen == CK_UNAVAILABLE_INFORMATION {
        return None;
    }
    let mut value = vec![0_u8; asked.ulValueLen as usize];
    asked.pValue = value.as_mut_ptr().cast();
    // SAFETY: one entry, whose buffer has the length said.
    let code = unsafe { call!(list, C_GetAttributeValue(session, object, &mut asked, 1)) };
    value.truncate(asked.ulValueLen as usize);
    (code == CKR_OK).then_some(value)
}

pub(super) fn class_number(class: KeyClass) -> CK_OBJECT_CLASS {
    match class {
        KeyClass::Private => CKO_PRIVATE_KEY,
        KeyClass::Public => CKO_PUBLIC_KEY,
    }
}

/// An entry for a function that reads it.
fn entry(kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> CK_ATTRIBUTE {
    CK_ATTRIBUTE { type_: kind, pValue: value.as_ptr().cast_mut().cast(), ulValueLen: value.len() as CK_ULONG }
}

/// A template as values.
///
/// # Safety
/// The template must be null or have `count` entries, each with a pointer that is null or has the entry's length.
unsafe fn pairs(template: CK_ATTRIBUTE_PTR, count: CK_ULONG) -> Vec<(CK_ATTRIBUTE_TYPE, Vec<u8>)> {
    if template.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller's promise.
    let entries = unsafe { std::slice::from_raw_parts(template, count as usize) };
    let value = |entry: &CK_ATTRIBUTE| match entry.pValue.is_null() {
        true => Vec::new(),
        // SAFETY: the caller's promise.
        false => unsafe { std::slice::from_raw_parts(entry.pValue.cast::<u8>(), entry.ulValueLen as usize) }.to_vec(),
    };
    entries.iter().map(|entry| (entry.type_, value(entry))).collect()
}

// DER of 1.2.840.10045.3.1.7, prime256v1 (RFC 5480, section 2.1.1.1).
const P256_OID: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
