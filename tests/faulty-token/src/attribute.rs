//! The attributes that a custody gate reads, by name and number.

#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A type of attribute. As text it is its name in `pkcs11t.h`, or `0x` and hexadecimal digits where this table has none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Attribute(pub cryptoki_sys::CK_ATTRIBUTE_TYPE);

impl FromStr for Attribute {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, attribute)) = ALL.iter().find(|(name, _)| *name == text) {
            return Ok(*attribute);
        }
        let digits = text.strip_prefix("0x").ok_or_else(|| format!("{text} is no known CKA name and no 0x number"))?;
        cryptoki_sys::CK_ATTRIBUTE_TYPE::from_str_radix(digits, 16)
            .map(Attribute)
            .map_err(|error| format!("{text}: {error}"))
    }
}

impl TryFrom<String> for Attribute {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Attribute> for String {
    fn from(attribute: Attribute) -> Self {
        attribute.to_string()
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ALL.iter().find(|(_, attribute)| attribute == self) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

impl fmt::Debug for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! attributes {
    ($($name:ident),* $(,)?) => {
        $(
            #[doc = concat!("`", stringify!($name), "`")]
            pub const $name: Attribute = Attribute(cryptoki_sys::$name);
        )*

        /// The attributes that have a name here.
        pub const ALL: &[(&str, Attribute)] = &[$((stringify!($name), $name)),*];
    };
}

attributes! {
    CKA_ALLOWED_MECHANISMS,
    CKA_ALWAYS_AUTHENTICATE,
    CKA_ALWAYS_SENSITIVE,
    CKA_CERTIFICATE_TYPE,
    CKA_CLASS,
    CKA_COPYABLE,
    CKA_DECRYPT,
    CKA_DERIVE,
    CKA_DESTROYABLE,
    CKA_EC_PARAMS,
    CKA_EC_POINT,
    CKA_ENCRYPT,
    CKA_END_DATE,
    CKA_EXTRACTABLE,
    CKA_ID,
    CKA_KEY_GEN_MECHANISM,
    CKA_KEY_TYPE,
    CKA_LABEL,
    CKA_LOCAL,
    CKA_MODIFIABLE,
    CKA_NEVER_EXTRACTABLE,
    CKA_PRIVATE,
    CKA_PUBLIC_KEY_INFO,
    CKA_SENSITIVE,
    CKA_SIGN,
    CKA_SIGN_RECOVER,
    CKA_START_DATE,
    CKA_SUBJECT,
    CKA_TOKEN,
    CKA_TRUSTED,
    CKA_UNIQUE_ID,
    CKA_UNWRAP,
    CKA_VALUE,
    CKA_VERIFY,
    CKA_WRAP,
    CKA_WRAP_WITH_TRUSTED,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_number_finds_the_other() {
        for (name, attribute) in ALL {
            assert_eq!(name.parse::<Attribute>().unwrap(), *attribute);
            assert_eq!(attribute.to_string(), *name);
        }
        assert_eq!("0x80000001".parse::<Attribute>().unwrap().to_string(), "0x80000001");
        assert!("CKA_NO_SUCH_THING".parse::<Attribute>().is_err());
    }
}
