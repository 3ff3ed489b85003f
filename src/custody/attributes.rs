//! What a device says about a private key, and which of it forbids signing with the key: the custody gate.

#![forbid(unsafe_code)]

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Attributes of a private key as its device reports them. Where a device does not report one, the less safe value
/// stands here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_excessive_bools, reason = "each is an attribute of its own in PKCS#11")]
pub struct KeyAttributes {
    /// `CKA_SENSITIVE`: its value cannot be read in plain text.
    pub sensitive: bool,
    /// `CKA_EXTRACTABLE`: its value can leave the device, wrapped or not.
    pub extractable: bool,
    /// `CKA_ALWAYS_SENSITIVE`: it was never readable.
    pub always_sensitive: bool,
    /// `CKA_NEVER_EXTRACTABLE`: it could never leave.
    pub never_extractable: bool,
    /// `CKA_LOCAL`: it was generated on the device.
    pub local: bool,
    /// `CKA_PRIVATE`: it is invisible without login.
    pub private: bool,
    /// `CKA_SIGN`.
    pub sign: bool,
    /// `CKA_UNWRAP`: it may decrypt keys into the device.
    pub unwrap: bool,
    /// `CKA_ALWAYS_AUTHENTICATE`: the PIN is asked for at each signature.
    pub always_authenticate: bool,
    /// `CKA_WRAP`: it may encrypt keys out of the device. PKCS#11 3.1, section 4.9, gives private keys no such
    /// attribute, so a device that does not report it is taken at its word.
    pub wrap: bool,
}

/// An attribute that the custody gate judges, and that an exception in the configuration can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum GateAttribute {
    /// Must be true.
    #[serde(rename = "CKA_PRIVATE")]
    Private,
    /// Must be true.
    #[serde(rename = "CKA_SENSITIVE")]
    Sensitive,
    /// Must be true.
    #[serde(rename = "CKA_ALWAYS_SENSITIVE")]
    AlwaysSensitive,
    /// Must be false.
    #[serde(rename = "CKA_EXTRACTABLE")]
    Extractable,
    /// Must be true.
    #[serde(rename = "CKA_NEVER_EXTRACTABLE")]
    NeverExtractable,
    /// Must be true.
    #[serde(rename = "CKA_LOCAL")]
    Local,
    /// Must be false.
    #[serde(rename = "CKA_WRAP")]
    Wrap,
    /// Must be false.
    #[serde(rename = "CKA_UNWRAP")]
    Unwrap,
}

impl GateAttribute {
    /// All of them, in the order in which they are named to people.
    pub const ALL: [Self; 8] = [
        Self::Private,
        Self::Sensitive,
        Self::AlwaysSensitive,
        Self::Extractable,
        Self::NeverExtractable,
        Self::Local,
        Self::Wrap,
        Self::Unwrap,
    ];

    /// As PKCS#11 spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Private => "CKA_PRIVATE",
            Self::Sensitive => "CKA_SENSITIVE",
            Self::AlwaysSensitive => "CKA_ALWAYS_SENSITIVE",
            Self::Extractable => "CKA_EXTRACTABLE",
            Self::NeverExtractable => "CKA_NEVER_EXTRACTABLE",
            Self::Local => "CKA_LOCAL",
            Self::Wrap => "CKA_WRAP",
            Self::Unwrap => "CKA_UNWRAP",
        }
    }

    /// What it means that a key fails here.
    #[must_use]
    pub fn fault(self) -> &'static str {
        match self {
            Self::Private => "it can be seen without login",
            Self::Sensitive => "its value can be read out",
            Self::AlwaysSensitive => "its value could be read out at some time",
            Self::Extractable => "it can leave the device",
            Self::NeverExtractable => "it could leave the device at some time",
            Self::Local => "it was not generated on the device",
            Self::Wrap => "it may encrypt other keys out of the device",
            Self::Unwrap => "it may decrypt other keys into the device",
        }
    }
}

/// A set of attributes: those that a key fails, or those that the configuration excepts, each with a written reason.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct GateAttributes(u8);

impl GateAttributes {
    /// No attribute.
    pub const NONE: Self = Self(0);

    /// All that does not say that the key can leave now: for whoever does not know the exceptions of the configuration.
    #[must_use]
    pub fn but_extraction() -> Self {
        let leaving = [GateAttribute::Sensitive, GateAttribute::Extractable].into_iter().collect();
        GateAttribute::ALL.into_iter().collect::<Self>().without(leaving)
    }

    /// Is it among them?
    #[must_use]
    pub fn contains(self, attribute: GateAttribute) -> bool {
        self.0 & (1 << attribute as u8) != 0
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// These, without those.
    #[must_use]
    pub fn without(self, those: Self) -> Self {
        Self(self.0 & !those.0)
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = GateAttribute> {
        GateAttribute::ALL.into_iter().filter(move |attribute| self.contains(*attribute))
    }
}

impl FromIterator<GateAttribute> for GateAttributes {
    fn from_iter<I: IntoIterator<Item = GateAttribute>>(attributes: I) -> Self {
        Self(attributes.into_iter().fold(0, |bits, attribute| bits | 1 << attribute as u8))
    }
}

impl fmt::Debug for GateAttributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(GateAttribute::name)).finish()
    }
}

/// Each attribute with what is wrong about it, for people.
impl fmt::Display for GateAttributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, attribute) in self.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{} ({})", attribute.name(), attribute.fault())?;
        }
        Ok(())
    }
}

impl KeyAttributes {
    /// What the custody gate finds wrong, exceptions not considered.
    #[must_use]
    pub fn failing(&self) -> GateAttributes {
        let fails = |attribute: &GateAttribute| match attribute {
            GateAttribute::Private => !self.private,
            GateAttribute::Sensitive => !self.sensitive,
            GateAttribute::AlwaysSensitive => !self.always_sensitive,
            GateAttribute::Extractable => self.extractable,
            GateAttribute::NeverExtractable => !self.never_extractable,
            GateAttribute::Local => !self.local,
            GateAttribute::Wrap => self.wrap,
            GateAttribute::Unwrap => self.unwrap,
        };
        GateAttribute::ALL.into_iter().filter(fails).collect()
    }

    /// Why a key with these attributes must not sign, each failing attribute named; `None` when it may. `exceptions`
    /// are those that the configuration has written down for this key, each with a reason.
    #[must_use]
    pub fn objection_with(&self, exceptions: GateAttributes) -> Option<String> {
        let failing = self.failing().without(exceptions);
        if !failing.is_empty() {
            return Some(format!("the custody gate refuses it: {failing}"));
        }
        self.unusable().map(str::to_owned)
    }

    /// [`Self::objection_with`] no exceptions.
    #[must_use]
    pub fn objection(&self) -> Option<String> {
        self.objection_with(GateAttributes::NONE)
    }

    /// Why a service cannot sign with such a key at all; no exception helps.
    fn unusable(&self) -> Option<&'static str> {
        if !self.sign {
            Some("it may not sign (CKA_SIGN)")
        } else if self.always_authenticate {
            Some("it wants the PIN at each signature (CKA_ALWAYS_AUTHENTICATE), which a service cannot give")
        } else {
            None
        }
    }

    /// One line for people: what is proven about the key's custody.
    #[must_use]
    pub fn summary(&self) -> &'static str {
        if self.extractable || !self.sensitive {
            return "the key can leave its device";
        }
        match (self.local, self.always_sensitive && self.never_extractable) {
            (true, true) => "generated on the device, never readable or extractable",
            (false, true) => "never readable or extractable, not generated on the device",
            (true, false) => "generated on the device, not extractable now",
            (false, false) => "not extractable now, origin unknown",
        }
    }

    /// For the wire: one bit each, in the order of the fields.
    #[must_use]
    pub fn bits(&self) -> u16 {
        self.all().into_iter().rev().fold(0, |bits, set| bits << 1 | u16::from(set))
    }

    /// `None` when a bit is set that means nothing.
    #[must_use]
    pub fn from_bits(bits: u16) -> Option<Self> {
        let bit = |n: u16| bits >> n & 1 == 1;
        (bits >> 10 == 0).then(|| Self {
            sensitive: bit(0),
            extractable: bit(1),
            always_sensitive: bit(2),
            never_extractable: bit(3),
            local: bit(4),
            private: bit(5),
            sign: bit(6),
            unwrap: bit(7),
            always_authenticate: bit(8),
            wrap: bit(9),
        })
    }

    fn all(&self) -> [bool; 10] {
        [
            self.sensitive,
            self.extractable,
            self.always_sensitive,
            self.never_extractable,
            self.local,
            self.private,
            self.sign,
            self.unwrap,
            self.always_authenticate,
            self.wrap,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custody::testing::GOOD;

    #[test]
    fn every_combination_survives_the_wire() {
        for bits in 0..1024 {
            assert_eq!(KeyAttributes::from_bits(bits).map(|a| a.bits()), Some(bits));
        }
        assert_eq!(KeyAttributes::from_bits(1024), None);
    }

    #[test]
    fn each_attribute_of_the_gate_is_named_and_can_be_excepted_by_itself() {
        use GateAttribute::{AlwaysSensitive, Extractable, Local, NeverExtractable, Private, Sensitive, Unwrap, Wrap};
        assert_eq!(GOOD.objection(), None);
        let table = [
            (Private, KeyAttributes { private: false, ..GOOD }),
            (Sensitive, KeyAttributes { sensitive: false, ..GOOD }),
            (AlwaysSensitive, KeyAttributes { always_sensitive: false, ..GOOD }),
            (Extractable, KeyAttributes { extractable: true, ..GOOD }),
            (NeverExtractable, KeyAttributes { never_extractable: false, ..GOOD }),
            (Local, KeyAttributes { local: false, ..GOOD }),
            (Wrap, KeyAttributes { wrap: true, ..GOOD }),
            (Unwrap, KeyAttributes { unwrap: true, ..GOOD }),
        ];
        assert_eq!(table.map(|(attribute, _)| attribute), GateAttribute::ALL);
        for (attribute, bad) in table {
            let objection = bad.objection().unwrap_or_default();
            assert!(objection.contains(attribute.name()), "{objection}");
            for excepted in GateAttribute::ALL {
                let exceptions = GateAttributes::from_iter([excepted]);
                assert_eq!(bad.objection_with(exceptions).is_none(), excepted == attribute, "{attribute:?}");
            }
        }
    }

    #[test]
    fn all_that_fails_is_named_at_once() {
        let bad = KeyAttributes { local: false, unwrap: true, ..GOOD };
        let objection = bad.objection().unwrap_or_default();
        assert!(objection.contains("CKA_LOCAL") && objection.contains("CKA_UNWRAP"), "{objection}");
    }

    #[test]
    fn a_key_that_a_service_cannot_use_is_refused_whatever_is_excepted() {
        let all = GateAttributes::from_iter(GateAttribute::ALL);
        for bad in [KeyAttributes { sign: false, ..GOOD }, KeyAttributes { always_authenticate: true, ..GOOD }] {
            assert!(bad.objection_with(all).is_some(), "{bad:?}");
        }
    }
}
