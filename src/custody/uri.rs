//! PKCS#11 URIs (RFC 7512) as the configuration writes them: one for a token, one for a key within it.
//!
//! Stricter than the RFC in one respect: an attribute that this program does not match on is an error, because
//! ignoring it would let the URI name more objects than its author meant.

#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

/// Names one token: `pkcs11:token=…;serial=…`. Every attribute given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TokenUri {
    /// `token`: the label, `CK_TOKEN_INFO.label`.
    pub token: Option<String>,
    /// `serial`: `CK_TOKEN_INFO.serialNumber`.
    pub serial: Option<String>,
    /// `manufacturer`: `CK_TOKEN_INFO.manufacturerID`.
    pub manufacturer: Option<String>,
    /// `model`: `CK_TOKEN_INFO.model`.
    pub model: Option<String>,
    /// `slot-id`: the number of the slot.
    pub slot_id: Option<u64>,
}

/// Names one private key: `pkcs11:object=…;id=…`. Every attribute given must match, the token's included.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyUri {
    /// The token it must be in, where the URI says so.
    pub token: TokenUri,
    /// `object`: `CKA_LABEL`.
    pub object: Option<String>,
    /// `id`: `CKA_ID`.
    pub id: Option<Vec<u8>>,
    text: String,
}

/// Why a text is not a usable PKCS#11 URI.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Another scheme, or none.
    #[error("a PKCS#11 URI begins with `pkcs11:` (RFC 7512)")]
    Scheme,
    /// Longer than anything a token or key needs to be named by.
    #[error("longer than {MAX_URI} bytes")]
    TooLong,
    /// Not `name=value`.
    #[error("`{0}` is not an attribute; write `name=value`, separated by `;`")]
    NotAnAttribute(String),
    /// A character that must be percent-encoded, or a broken escape.
    #[error("the value of `{0}` has a character that must be percent-encoded, or a `%` without two hex digits")]
    Encoding(String),
    /// A text attribute whose bytes are not UTF-8.
    #[error("the value of `{0}` is not UTF-8")]
    NotUtf8(String),
    /// The same attribute twice.
    #[error("`{0}` is given twice")]
    Duplicate(String),
    /// An attribute that is not matched on here.
    #[error(
        "`{0}` is not supported here; a token is named by token, serial, manufacturer, model and slot-id, a key by object and id"
    )]
    Unsupported(String),
    /// A PIN in the configuration file.
    #[error("a PIN is never written in a URI; put it in a file and name that file in `pin_file`")]
    PinInline,
    /// An object class that cannot sign.
    #[error("`type={0}` does not sign; leave it out or write `type=private`")]
    Type(String),
    /// `slot-id` is no number.
    #[error("`slot-id` is a decimal number")]
    SlotId,
    /// A token URI that names an object.
    #[error("`{0}` names an object; a token's URI has token, serial, manufacturer, model or slot-id")]
    ObjectInTokenUri(&'static str),
    /// Nothing to match on.
    #[error(
        "names nothing; a token needs at least one of token, serial, manufacturer, model, slot-id, a key needs object or id"
    )]
    Empty,
}

impl TokenUri {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl FromStr for TokenUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let parts = Parts::parse(text)?;
        if parts.object.is_some() {
            return Err(UriError::ObjectInTokenUri("object"));
        }
        if parts.id.is_some() {
            return Err(UriError::ObjectInTokenUri("id"));
        }
        if parts.private {
            return Err(UriError::ObjectInTokenUri("type"));
        }
        if parts.token.is_empty() { Err(UriError::Empty) } else { Ok(parts.token) }
    }
}

impl FromStr for KeyUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let parts = Parts::parse(text)?;
        if parts.object.is_none() && parts.id.is_none() {
            return Err(UriError::Empty);
        }
        Ok(Self { token: parts.token, object: parts.object, id: parts.id, text: text.to_owned() })
    }
}

impl fmt::Display for KeyUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[derive(Default)]
struct Parts {
    token: TokenUri,
    object: Option<String>,
    id: Option<Vec<u8>>,
    private: bool,
}

impl Parts {
    fn parse(text: &str) -> Result<Self, UriError> {
        if text.len() > MAX_URI {
            return Err(UriError::TooLong);
        }
        let rest = match text.split_at_checked(SCHEME.len()) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => rest,
            _ => return Err(UriError::Scheme),
        };
        let (path, query) = rest.split_once('?').map_or((rest, ""), |(path, query)| (path, query));
        let mut parts = Self::default();
        for attribute in path.split(';').filter(|attribute| !attribute.is_empty()) {
            let (name, value) = name_and_value(attribute)?;
            parts.set(name, decode(name, value)?)?;
        }
        if let Some(attribute) = query.split('&').find(|attribute| !attribute.is_empty()) {
            let (name, _) = name_and_value(attribute)?;
            return Err(if name == "pin-value" { UriError::PinInline } else { UriError::Unsupported(name.to_owned()) });
        }
        Ok(parts)
    }

    fn set(&mut self, name: &str, value: Vec<u8>) -> Result<(), UriError> {
        let again = match name {
            "token" => self.token.token.replace(utf8(name, value)?).is_some(),
            "serial" => self.token.serial.replace(utf8(name, value)?).is_some(),
            "manufacturer" => self.token.manufacturer.replace(utf8(name, value)?).is_some(),
            "model" => self.token.model.replace(utf8(name, value)?).is_some(),
            "slot-id" => {
                let number = utf8(name, value)?;
                if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(UriError::SlotId);
                }
                self.token.slot_id.replace(number.parse().map_err(|_| UriError::SlotId)?).is_some()
            }
            "object" => self.object.replace(utf8(name, value)?).is_some(),
            "id" => self.id.replace(value).is_some(),
            "type" => {
                let class = utf8(name, value)?;
                if class != "private" {
                    return Err(UriError::Type(class));
                }
                std::mem::replace(&mut self.private, true)
            }
            "pin-value" => return Err(UriError::PinInline),
            _ => return Err(UriError::Unsupported(name.to_owned())),
        };
        if again { Err(UriError::Duplicate(name.to_owned())) } else { Ok(()) }
    }
}

fn name_and_value(attribute: &str) -> Result<(&str, &str), UriError> {
    match attribute.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name, value)),
        // The text is not repeated whole: a mistyped `pin-value` must not reach a log.
        _ => Err(UriError::NotAnAttribute(attribute.chars().take(16).collect())),
    }
}

/// Percent-decodes a path attribute's value: `*pk11-pchar` of RFC 7512, section 2.3.
fn decode(name: &str, value: &str) -> Result<Vec<u8>, UriError> {
    let wrong = || UriError::Encoding(name.to_owned());
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let high = bytes.next().and_then(hex).ok_or_else(wrong)?;
                let low = bytes.next().and_then(hex).ok_or_else(wrong)?;
                out.push(high << 4 | low);
            }
            _ if byte.is_ascii_alphanumeric() || b"-._~:[]@!$'()*+,=&".contains(&byte) => out.push(byte),
            _ => return Err(wrong()),
        }
    }
    Ok(out)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn utf8(name: &str, value: Vec<u8>) -> Result<String, UriError> {
    String::from_utf8(value).map_err(|_| UriError::NotUtf8(name.to_owned()))
}

const SCHEME: &str = "pkcs11:";

/// Labels are at most 32 bytes in practice and identifiers rarely longer; percent-encoding triples them.
const MAX_URI: usize = 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_is_named_by_label_and_id() {
        let uri: KeyUri = "pkcs11:token=Signer%20A;object=release%2D1;type=private;id=%01%a0b".parse().unwrap();
        assert_eq!(uri.token.token.as_deref(), Some("Signer A"));
        assert_eq!(uri.object.as_deref(), Some("release-1"));
        assert_eq!(uri.id.as_deref(), Some(&b"\x01\xa0b"[..]));
    }

    #[test]
    fn a_token_is_named_by_any_of_its_facts() {
        let uri: TokenUri = "PKCS11:token=a;serial=b;manufacturer=c;model=d;slot-id=7".parse().unwrap();
        let whole = TokenUri {
            token: Some("a".into()),
            serial: Some("b".into()),
            manufacturer: Some("c".into()),
            model: Some("d".into()),
            slot_id: Some(7),
        };
        assert_eq!(uri, whole);
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let table: [(&str, UriError); 15] = [
            ("", UriError::Scheme),
            ("http://x", UriError::Scheme),
            ("pkcs11:", UriError::Empty),
            ("pkcs11:token=t", UriError::Empty),
            ("pkcs11:object", UriError::NotAnAttribute("object".into())),
            ("pkcs11:=x", UriError::NotAnAttribute("=x".into())),
            ("pkcs11:object=a;object=b", UriError::Duplicate("object".into())),
            ("pkcs11:object=a;type=private;type=private", UriError::Duplicate("type".into())),
            ("pkcs11:object=a b", UriError::Encoding("object".into())),
            ("pkcs11:object=a%2", UriError::Encoding("object".into())),
            ("pkcs11:object=%ff", UriError::NotUtf8("object".into())),
            ("pkcs11:object=a;type=cert", UriError::Type("cert".into())),
            ("pkcs11:object=a;library-version=3", UriError::Unsupported("library-version".into())),
            ("pkcs11:object=a?pin-value=1234", UriError::PinInline),
            ("pkcs11:object=a?module-path=/x.so", UriError::Unsupported("module-path".into())),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<KeyUri>(), Err(expected), "{text}");
        }
    }

    #[test]
    fn a_token_uri_names_no_object() {
        for (text, expected) in [
            ("pkcs11:token=t;object=o", UriError::ObjectInTokenUri("object")),
            ("pkcs11:token=t;id=%01", UriError::ObjectInTokenUri("id")),
            ("pkcs11:token=t;type=private", UriError::ObjectInTokenUri("type")),
            ("pkcs11:slot-id=-1", UriError::SlotId),
            ("pkcs11:slot-id=99999999999999999999", UriError::SlotId),
            ("pkcs11:", UriError::Empty),
        ] {
            assert_eq!(text.parse::<TokenUri>(), Err(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_label_and_id_survive_encoding(label in "\\PC{0,40}", id in proptest::collection::vec(any::<u8>(), 0..40)) {
            let escape = |bytes: &[u8]| bytes.iter().fold(String::new(), |text, b| format!("{text}%{b:02x}"));
            let text = format!("pkcs11:object={};id={}", escape(label.as_bytes()), escape(&id));
            let uri: KeyUri = text.parse().unwrap();
            prop_assert_eq!(uri.object.unwrap(), label);
            prop_assert_eq!(uri.id.unwrap(), id);
        }

        #[test]
        fn no_text_panics(text in "(pkcs11:)?\\PC{0,200}") {
            let _ = text.parse::<KeyUri>();
            let _ = text.parse::<TokenUri>();
        }
    }
}
