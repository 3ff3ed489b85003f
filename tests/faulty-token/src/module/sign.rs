//! Signing: at the device's speed, and wrongly on command.

use std::collections::HashMap;
use std::ptr;
use std::slice;

use cryptoki_sys::{
    CK_BYTE_PTR, CK_MECHANISM, CK_MECHANISM_PTR, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_ULONG, CK_ULONG_PTR,
    CKM_ECDSA, CKO_PRIVATE_KEY, CKR_BUFFER_TOO_SMALL, CKR_FUNCTION_FAILED, CKR_OK, CKR_OPERATION_ACTIVE,
};

use super::entry::{Call, On, enter, enter_query};
use super::objects::Side;
use super::sessions::{Signing, Work};
use super::tally::add;
use super::virtual_keys::{self, VirtualKey};
use super::{Real, call, lock};
use crate::{Corruption, Function};

pub(super) unsafe extern "C" fn C_SignInit(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    enter(Function::C_SignInit, On::Session(session), |call| {
        let real = call.real();
        let key = VirtualKey::of(key).and_then(|key| virtual_keys::backing(call, &real, key.class)).unwrap_or(key);
        // SAFETY: the application vouches for a mechanism that is not null; nobody writes to it during the call.
        let given = unsafe { mechanism.as_ref() };
        let signing = given.map(|mechanism| Signing {
            mechanism: mechanism.mechanism,
            plain: mechanism.ulParameterLen == 0,
            key,
            deferred: false,
        });
        let (epoch, has_speed) = {
            let device = call.module.device();
            (device.epoch, device.has_speed())
        };
        let mut work = lock(&call.session().work);
        if work.signing.is_some_and(|signing| signing.deferred) {
            return CKR_OPERATION_ACTIVE;
        }
        let deferrable = signing.is_some_and(|signing| signing.plain && signing.mechanism == CKM_ECDSA);
        if has_speed && deferrable && lock(&call.module.memo).keys.contains_key(&(epoch, key)) {
            work.signing = signing.map(|signing| Signing { deferred: true, ..signing });
            return CKR_OK;
        }
        // SAFETY: the arguments are the application's, but for a key handle, which is the real module's own.
        let code = unsafe { call!(real.list, C_SignInit(call.session().real, mechanism, key)) };
        if code == CKR_OK {
            work.signing = signing;
        }
        code
    })
}

pub(super) unsafe extern "C" fn C_Sign(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    data_length: CK_ULONG,
    signature: CK_BYTE_PTR,
    length: CK_ULONG_PTR,
) -> CK_RV {
    if data.is_null() || length.is_null() {
        return enter(Function::C_Sign, On::Session(session), |call| {
            // SAFETY: the arguments are the application's, handed on as they came.
            unsafe { call!(call.real().list, C_Sign(call.session().real, data, data_length, signature, length)) }
        });
    }
    if signature.is_null() {
        return enter_query(Function::C_Sign, On::Session(session), |call| {
            if let Some(known) = known_length(call) {
                // SAFETY: not null, and the application vouches for the rest.
                unsafe { length.write(known as CK_ULONG) };
                return CKR_OK;
            }
            // SAFETY: the arguments are the application's, handed on as they came.
            unsafe { call!(call.real().list, C_Sign(call.session().real, data, data_length, signature, length)) }
        });
    }
    enter(Function::C_Sign, On::Session(session), |call| {
        // SAFETY: the application vouches that its data has this length, and nobody writes to it during the call.
        let data = unsafe { slice::from_raw_parts(data, data_length as usize) };
        if call.ending {
            end(call, data);
            return CKR_OK;
        }
        // SAFETY: not null, and the application vouches for the rest.
        let room = unsafe { length.read() } as usize;
        let booking = call.module.lanes.book();
        let made = make(call, data, room);
        if let Some(booking) = booking {
            call.module.lanes.wait(booking);
            // A token that was pulled in the meantime gives no signature.
            let trouble = call.module.device().session_trouble(Function::C_Sign, call.session().fate());
            if let Some(code) = trouble {
                return code;
            }
        }
        match made {
            Ok(made) => {
                let given = &made[..made.len().min(room)];
                // SAFETY: the application vouches for `room` bytes, and these are not more; ours are elsewhere.
                unsafe {
                    ptr::copy_nonoverlapping(given.as_ptr(), signature, given.len());
                    length.write(given.len() as CK_ULONG);
                }
                let tally = &call.module.tally;
                let good = matches!(call.corruption, None | Some(Corruption::HighBits | Corruption::ShortR));
                add(if good { &tally.signatures } else { &tally.corrupted });
                CKR_OK
            }
            Err(Refused { code, needed }) => {
                if code == CKR_BUFFER_TOO_SMALL {
                    // SAFETY: not null, and the application vouches for the rest.
                    unsafe { length.write(needed) };
                }
                code
            }
        }
    })
}

/// Keys that have signed, and signatures that are remembered. A device with a speed of its own is told of an operation
/// with a known key only in `C_Sign`, where its work is part of the time that a signature takes.
#[derive(Default)]
pub(super) struct Memo {
    keys: HashMap<(u64, CK_OBJECT_HANDLE), KeyMemo>,
    last: Option<Vec<u8>>,
}

impl Memo {
    pub(super) fn forget(&mut self) {
        self.keys.clear();
    }

    fn learn(&mut self, epoch: u64, key: CK_OBJECT_HANDLE, length: usize, made: Option<(&[u8], &[u8])>) {
        let memo = self.keys.entry((epoch, key)).or_default();
        memo.length = length;
        if memo.made.len() >= MOST_REMEMBERED {
            memo.made.clear();
        }
        memo.made.extend(made.map(|(data, signature)| (data.to_vec(), signature.to_vec())));
    }
}

#[derive(Default)]
struct KeyMemo {
    length: usize,
    made: HashMap<Vec<u8>, Vec<u8>>,
}

/// A signature that was not made.
struct Refused {
    code: CK_RV,
    needed: CK_ULONG,
}

impl Refused {
    fn with(code: CK_RV) -> Self {
        Self { code, needed: 0 }
    }
}

/// The length of the signature to come, where the real module was not told of it.
fn known_length(call: &Call) -> Option<usize> {
    let signing = lock(&call.session().work).signing.filter(|signing| signing.deferred)?;
    let epoch = call.module.device().epoch;
    lock(&call.module.memo).keys.get(&(epoch, signing.key)).map(|memo| memo.length)
}

/// Ends the operation without a signature.
fn end(call: &Call, data: &[u8]) {
    let real = call.real();
    let mut work = lock(&call.session().work);
    if !work.signing.take().is_some_and(|signing| signing.deferred) {
        // However it ends, it ends.
        let _ = sign(call, &real, data, SCRATCH);
    }
}

/// Makes the signature, good or bad.
fn make(call: &Call, data: &[u8], room: usize) -> Result<Vec<u8>, Refused> {
    let real = call.real();
    let mut guard = lock(&call.session().work);
    let work = &mut *guard;
    let previous = lock(&call.module.memo).last.clone();
    let mut signature = match call.corruption {
        Some(Corruption::OtherDigest) => {
            let mut other = data.to_vec();
            if let Some(last) = other.last_mut() {
                *last ^= 1;
            }
            sign_once(call, &real, work, &other, room)?
        }
        Some(Corruption::OtherKey) => {
            let signing = work.signing.take();
            if !signing.is_some_and(|signing| signing.deferred) {
                sign(call, &real, data, SCRATCH)?;
            }
            sign_with_another_key(call, &real, signing, data).ok_or(Refused::with(CKR_FUNCTION_FAILED))?
        }
        Some(Corruption::HighBits) => sign_until(call, &real, work, data, room, |made| {
            made.chunks(made.len().div_ceil(2).max(1)).all(|half| half.first().is_some_and(|byte| byte & 0x80 != 0))
        })?,
        Some(Corruption::ShortR) => sign_until(call, &real, work, data, room, |made| made.first() == Some(&0))?,
        _ => sign_once(call, &real, work, data, room)?,
    };
    drop(real);
    if let Some(how) = call.corruption {
        spoil(&mut signature, how, previous.as_deref());
    }
    lock(&call.module.memo).last = Some(signature.clone());
    Ok(signature)
}

/// Finishes the operation of the session as the device does.
fn sign_once(call: &Call, real: &Real<'_>, work: &mut Work, data: &[u8], room: usize) -> Result<Vec<u8>, Refused> {
    let (epoch, memo, has_speed) = {
        let device = call.module.device();
        (device.epoch, device.memo(), device.has_speed())
    };
    if let Some(signing) = work.signing.filter(|signing| signing.deferred) {
        let remembered = || {
            let memo = lock(&call.module.memo);
            memo.keys.get(&(epoch, signing.key)).and_then(|known| known.made.get(data).cloned())
        };
        if let Some(signature) = memo.then(remembered).flatten() {
            if room < signature.len() {
                return Err(Refused { code: CKR_BUFFER_TOO_SMALL, needed: signature.len() as CK_ULONG });
            }
            work.signing = None;
            add(&call.module.tally.remembered);
            return Ok(signature);
        }
        begin(call, real, signing)?;
        work.signing = Some(Signing { deferred: false, ..signing });
    }
    let made = sign(call, real, data, room);
    if !matches!(made, Err(Refused { code: CKR_BUFFER_TOO_SMALL, .. })) {
        let signing = work.signing.take();
        if let (true, Some(signing), Ok(signature)) = (has_speed, signing.filter(|signing| signing.plain), &made) {
            lock(&call.module.memo).learn(
                epoch,
                signing.key,
                signature.len(),
                memo.then_some((data, signature.as_slice())),
            );
        }
    }
    made
}

/// Signs again and again until the signature is as wanted.
fn sign_until(
    call: &Call,
    real: &Real<'_>,
    work: &mut Work,
    data: &[u8],
    room: usize,
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>, Refused> {
    let signing = work.signing.filter(|signing| signing.plain);
    if let Some(signing) = signing.filter(|signing| signing.deferred) {
        begin(call, real, signing)?;
    }
    let mut made = sign(call, real, data, room)?;
    work.signing = None;
    // One in 256 is the rarest that is wanted.
    for _ in 0..10_000 {
        let Some(signing) = signing.filter(|_| !wanted(&made)) else { return Ok(made) };
        begin(call, real, signing)?;
        made = sign(call, real, data, room)?;
    }
    Err(Refused::with(CKR_FUNCTION_FAILED))
}

fn sign_with_another_key(call: &Call, real: &Real<'_>, signing: Option<Signing>, data: &[u8]) -> Option<Vec<u8>> {
    let signing = signing.filter(|signing| signing.plain)?;
    let side = Side::open(real.list, call.session().slot)?;
    let key = side.another_key(CKO_PRIVATE_KEY, signing.key)?;
    begin_on(real, side.session, Signing { key, ..signing }).ok()?;
    sign_on(real, side.session, data, SCRATCH).ok()
}

fn begin(call: &Call, real: &Real<'_>, signing: Signing) -> Result<(), Refused> {
    begin_on(real, call.session().real, signing)
}

fn begin_on(real: &Real<'_>, session: CK_SESSION_HANDLE, signing: Signing) -> Result<(), Refused> {
    let mut mechanism = CK_MECHANISM { mechanism: signing.mechanism, pParameter: ptr::null_mut(), ulParameterLen: 0 };
    // SAFETY: the mechanism has no parameter and outlives the call.
    match unsafe { call!(real.list, C_SignInit(session, &mut mechanism, signing.key)) } {
        CKR_OK => Ok(()),
        code => Err(Refused::with(code)),
    }
}

fn sign(call: &Call, real: &Real<'_>, data: &[u8], room: usize) -> Result<Vec<u8>, Refused> {
    sign_on(real, call.session().real, data, room)
}

fn sign_on(real: &Real<'_>, session: CK_SESSION_HANDLE, data: &[u8], room: usize) -> Result<Vec<u8>, Refused> {
    let mut signature = [0_u8; SCRATCH];
    let mut length = room.min(SCRATCH) as CK_ULONG;
    // SAFETY: both buffers have the lengths said and outlive the call, which does not write to the data; PKCS#11 lacks
    // the const.
    let code = unsafe {
        call!(
            real.list,
            C_Sign(session, data.as_ptr().cast_mut(), data.len() as CK_ULONG, signature.as_mut_ptr(), &mut length)
        )
    };
    match code {
        CKR_OK => Ok(signature[..SCRATCH.min(length as usize)].to_vec()),
        code => Err(Refused { code, needed: length }),
    }
}

fn spoil(signature: &mut Vec<u8>, how: Corruption, previous: Option<&[u8]>) {
    let flip = |signature: &mut Vec<u8>| {
        let middle = signature.len() / 2 + 3;
        if let Some(byte) = signature.get_mut(middle) {
            *byte ^= 0x10;
        }
    };
    match how {
        Corruption::FlipBit => flip(signature),
        Corruption::Resize(length) => signature.resize(length.min(SCRATCH), 0),
        Corruption::Previous => match previous {
            Some(previous) => *signature = previous.to_vec(),
            None => flip(signature),
        },
        Corruption::AllZero => signature.fill(0),
        Corruption::ROutOfRange => signature.splice(..signature.len().min(32), P256_ORDER).for_each(drop),
        Corruption::SOutOfRange => signature.splice(signature.len().min(32).., P256_ORDER).for_each(drop),
        Corruption::OtherDigest | Corruption::OtherKey | Corruption::HighBits | Corruption::ShortR => {}
    }
}

// The longest signature of RSA keys in use, of 16,384 bits, and more than any of ECDSA.
const SCRATCH: usize = 2048;
const MOST_REMEMBERED: usize = 65_536;
// SEC 2, section 2.4.2.
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
