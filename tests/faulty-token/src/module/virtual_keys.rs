//! Thousands of key pairs, without a token that has them.
//!
//! They are answered here and not made in the real module because what is to be measured is an application on a device
//! with many keys; SoftHSM would read a file for each and be the slower of the two.

#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use cryptoki_sys::{CK_ATTRIBUTE_TYPE, CK_OBJECT_HANDLE, CK_SLOT_ID, CKA_CLASS, CKA_ID, CKA_LABEL, CKA_UNIQUE_ID};

use super::entry::Call;
use super::objects::{Side, attribute_of, class_number};
use super::{Real, lock};
use crate::KeyClass;

/// The real keys that the virtual ones are like, once they were looked up.
#[derive(Default)]
pub(super) struct VirtualKeys {
    backing: Mutex<Option<Backing>>,
}

struct Backing {
    epoch: u64,
    slot: CK_SLOT_ID,
    like: String,
    private: Option<CK_OBJECT_HANDLE>,
    public: Option<CK_OBJECT_HANDLE>,
    /// What the real ones have: a device with many keys has what they are in its memory, where SoftHSM reads files.
    attributes: HashMap<(CK_OBJECT_HANDLE, CK_ATTRIBUTE_TYPE), Vec<u8>>,
}

/// A key that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VirtualKey {
    pub(super) class: KeyClass,
    index: u32,
}

impl VirtualKey {
    /// The one of this handle, if it is one.
    pub(super) fn of(handle: CK_OBJECT_HANDLE) -> Option<Self> {
        let index = (handle & 0xffff_ffff) as u32;
        match handle - CK_OBJECT_HANDLE::from(index) {
            PRIVATE => Some(Self { class: KeyClass::Private, index }),
            PUBLIC => Some(Self { class: KeyClass::Public, index }),
            _ => None,
        }
    }

    fn handle(self) -> CK_OBJECT_HANDLE {
        let base = match self.class {
            KeyClass::Private => PRIVATE,
            KeyClass::Public => PUBLIC,
        };
        base + CK_OBJECT_HANDLE::from(self.index)
    }

    pub(super) fn label(self) -> String {
        format!("virtual-{:05}", self.index)
    }

    pub(super) fn id(self) -> Vec<u8> {
        let mut id = b"vk".to_vec();
        id.extend(self.index.to_be_bytes());
        id
    }
}

/// The real key behind the virtual ones of a class, where the application can see it.
pub(super) fn backing(call: &Call, real: &Real<'_>, class: KeyClass) -> Option<CK_OBJECT_HANDLE> {
    let (epoch, keys) = {
        let device = call.module.device();
        (device.epoch, device.virtual_keys())
    };
    let (_, like) = keys?;
    let slot = call.session().slot;
    let mut backing = lock(&call.module.virtual_keys.backing);
    if !backing.as_ref().is_some_and(|known| known.epoch == epoch && known.slot == slot && known.like == like) {
        let side = Side::open(real.list, slot)?;
        let find = |class| {
            side.find(&[(CKA_CLASS, &class_number(class).to_ne_bytes()), (CKA_LABEL, like.as_bytes())]).first().copied()
        };
        let (private, public) = (find(KeyClass::Private), find(KeyClass::Public));
        *backing = Some(Backing { epoch, slot, like, private, public, attributes: HashMap::new() });
    }
    let backing = backing.as_ref()?;
    match class {
        KeyClass::Private => backing.private,
        KeyClass::Public => backing.public,
    }
}

/// An attribute of a real key that virtual ones are like; `None` when it has none, or does not say.
pub(super) fn attribute(
    call: &Call,
    real: &Real<'_>,
    object: CK_OBJECT_HANDLE,
    kind: CK_ATTRIBUTE_TYPE,
) -> Option<Vec<u8>> {
    let known = |backing: &Backing| backing.attributes.get(&(object, kind)).cloned();
    if let Some(value) = lock(&call.module.virtual_keys.backing).as_ref().and_then(known) {
        return Some(value);
    }
    let value = attribute_of(real.list, call.session().real, object, kind)?;
    if let Some(backing) = &mut *lock(&call.module.virtual_keys.backing) {
        backing.attributes.insert((object, kind), value.clone());
    }
    Some(value)
}

/// Whether what is wanted has the label or the id of a virtual key, so that no real object can be meant.
pub(super) fn names_one(call: &Call, wanted: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)]) -> bool {
    let Some((count, _)) = call.module.device().virtual_keys() else { return false };
    wanted.iter().any(|(kind, value)| named(*kind, value).is_some_and(|index| index < count))
}

fn named(kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> Option<u32> {
    match kind {
        CKA_LABEL => std::str::from_utf8(value).ok().and_then(labelled),
        CKA_ID => identified(value),
        _ => None,
    }
}

/// The virtual keys that have these attributes.
pub(super) fn matching(
    call: &Call,
    real: &Real<'_>,
    wanted: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)],
) -> VecDeque<CK_OBJECT_HANDLE> {
    let mut found = VecDeque::new();
    let Some((count, _)) = call.module.device().virtual_keys() else { return found };
    let mut own = None;
    let mut shared = Vec::new();
    for (kind, value) in wanted {
        if !matches!(*kind, CKA_LABEL | CKA_ID | CKA_UNIQUE_ID) {
            shared.push((*kind, value));
            continue;
        }
        let index = named(*kind, value);
        // One that none has, or two of different keys.
        let Some(index) = index.filter(|index| *index < count && own.is_none_or(|own| own == *index)) else {
            return found;
        };
        own = Some(index);
    }
    for class in [KeyClass::Private, KeyClass::Public] {
        let Some(object) = backing(call, real, class) else { continue };
        let read = |kind| attribute(call, real, object, kind);
        if shared.iter().all(|(kind, value)| read(*kind).as_ref() == Some(*value)) {
            let indices = own.map_or(0..count, |index| index..index + 1);
            found.extend(indices.map(|index| VirtualKey { class, index }.handle()));
        }
    }
    found
}

fn labelled(label: &str) -> Option<u32> {
    let index = label.strip_prefix("virtual-")?.parse().ok()?;
    (VirtualKey { class: KeyClass::Private, index }.label() == label).then_some(index)
}

fn identified(id: &[u8]) -> Option<u32> {
    id.strip_prefix(b"vk")?.try_into().ok().map(u32::from_be_bytes)
}

// Far from the small numbers of real modules; the index is in the lower half.
const PRIVATE: CK_OBJECT_HANDLE = 0x5e55_1001_0000_0000;
const PUBLIC: CK_OBJECT_HANDLE = 0x5e55_1002_0000_0000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_labels_and_ids_lead_back_to_their_key() {
        for class in [KeyClass::Private, KeyClass::Public] {
            for index in [0, 1, 9_999, 100_000, u32::MAX] {
                let key = VirtualKey { class, index };
                assert_eq!(VirtualKey::of(key.handle()), Some(key));
                assert_eq!(labelled(&key.label()), Some(index));
                assert_eq!(identified(&key.id()), Some(index));
            }
        }
        assert_eq!(VirtualKey::of(7), None);
        assert_eq!(labelled("virtual-7"), None);
        assert_eq!(identified(b"vk\x01"), None);
    }
}
