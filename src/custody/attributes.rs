//! What a device says about a private key, and which of it forbids signing with the key.

#![forbid(unsafe_code)]

/// Attributes of a private key as its device reports them. Where a device does not report one, the less safe value
/// stands here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
}

impl KeyAttributes {
    /// Why a key with these attributes must not sign; `None` when it may.
    #[must_use]
    pub fn objection(&self) -> Option<&'static str> {
        if !self.sensitive {
            Some("it is not sensitive (CKA_SENSITIVE): its value can be read out")
        } else if self.extractable {
            Some("it is extractable (CKA_EXTRACTABLE): it can leave the device")
        } else if !self.sign {
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
        (bits >> 9 == 0).then(|| Self {
            sensitive: bit(0),
            extractable: bit(1),
            always_sensitive: bit(2),
            never_extractable: bit(3),
            local: bit(4),
            private: bit(5),
            sign: bit(6),
            unwrap: bit(7),
            always_authenticate: bit(8),
        })
    }

    fn all(&self) -> [bool; 9] {
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
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_survives_the_wire() {
        for bits in 0..512 {
            assert_eq!(KeyAttributes::from_bits(bits).map(|a| a.bits()), Some(bits));
        }
        assert_eq!(KeyAttributes::from_bits(512), None);
    }

    #[test]
    fn a_key_that_could_leave_the_device_may_not_sign() {
        let good = KeyAttributes { sensitive: true, sign: true, ..KeyAttributes::default() };
        assert_eq!(good.objection(), None);
        for bad in [
            KeyAttributes { sensitive: false, ..good },
            KeyAttributes { extractable: true, ..good },
            KeyAttributes { sign: false, ..good },
            KeyAttributes { always_authenticate: true, ..good },
        ] {
            assert!(bad.objection().is_some(), "{bad:?}");
        }
    }
}
