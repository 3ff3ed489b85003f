//! Trusted identities: `x509.subject: C=US, ST=WA, O=wabbit-networks.io` (`trust-store-trust-policy.md`, "Trusted
//! Identities Constraints").

use std::collections::BTreeMap;

use crate::sigstore::der::{self, NotDer, Reader};

/// Some attributes of a subject, each of which a certificate must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::release) struct Subject(BTreeMap<&'static str, String>);

impl Subject {
    /// Reads a trusted identity as the operator writes it.
    ///
    /// # Errors
    /// What is wrong with it and what would be right.
    pub(in crate::release) fn parse(identity: &str) -> Result<Self, String> {
        let name = identity.strip_prefix(PREFIX).ok_or_else(|| format!("must begin with `{PREFIX}`"))?;
        let mut attributes = BTreeMap::new();
        for part in split(name)? {
            let (kind, value) = part.split_once('=').ok_or_else(|| format!("`{part}` has no `=`"))?;
            // Another name of the same.
            let kind = if kind.trim() == "S" { "ST" } else { kind.trim() };
            let known = ATTRIBUTES
                .iter()
                .find(|(name, _)| *name == kind)
                .ok_or_else(|| format!("`{kind}` is none of {}", ATTRIBUTES.map(|(name, _)| name).join(", ")))?;
            let value = unescaped(value)?;
            if value.is_empty() {
                return Err(format!("`{kind}` is empty"));
            }
            if attributes.insert(known.0, value).is_some() {
                return Err(format!("`{kind}` is there twice"));
            }
        }
        match MANDATORY.iter().find(|name| !attributes.contains_key(*name)) {
            Some(name) => Err(format!("`{name}` is missing; C, ST and O must be there")),
            None => Ok(Self(attributes)),
        }
    }

    /// Whether a certificate could be of both. The specification wants identities that no certificate has two of.
    pub(in crate::release) fn overlaps(&self, other: &Self) -> bool {
        let within = |one: &Self, other: &Self| one.0.iter().all(|(kind, value)| other.0.get(kind) == Some(value));
        within(self, other) || within(other, self)
    }

    /// Whether a certificate's subject, a raw Name, has every one of the attributes, letter by letter.
    pub(super) fn is_of(&self, name: &[u8]) -> bool {
        attributes_of(name).is_ok_and(|found| self.0.iter().all(|(kind, value)| found.get(kind) == Some(value)))
    }
}

/// What a certificate's subject says, for a message.
pub(super) fn shown(name: &[u8]) -> String {
    match attributes_of(name) {
        Ok(found) => {
            let parts: Vec<String> = found.iter().map(|(kind, value)| format!("{kind}={value}")).collect();
            crate::release::claim::shown(&parts.join(", "))
        }
        Err(NotDer) => "a subject that has two of one kind, or cannot be read".to_owned(),
    }
}

/// The attributes of a Name that have one of our names. One that is there twice, or several in one place, could be read
/// in two ways: notation does not take them either.
fn attributes_of(name: &[u8]) -> Result<BTreeMap<&'static str, String>, NotDer> {
    let mut found = BTreeMap::new();
    let mut names = Reader::new(der::whole(name, der::SEQUENCE)?.value);
    while !names.is_empty() {
        let mut set = names.enter(der::SET)?;
        let mut attribute = set.enter(der::SEQUENCE)?;
        set.end()?;
        let (oid, value) = (attribute.oid()?, attribute.any()?);
        attribute.end()?;
        let Some((kind, _)) = ATTRIBUTES.iter().find(|(_, known)| *known == oid) else { continue };
        if !TEXTS.contains(&value.tag) {
            return Err(NotDer);
        }
        let text = std::str::from_utf8(value.value).map_err(|_| NotDer)?;
        if found.insert(*kind, text.to_owned()).is_some() {
            return Err(NotDer);
        }
    }
    Ok(found)
}

/// At commas that are not escaped.
fn split(name: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in name.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&name[start..at]);
                start = at + 1;
            }
            ';' | '+' | '"' => return Err(format!("`{c}` must be escaped, as in `\\{c}`")),
            _ => {}
        }
    }
    parts.push(&name[start..]);
    Ok(parts)
}

/// A value without the spaces around it and without the backslashes in it.
fn unescaped(value: &str) -> Result<String, String> {
    let value = value.trim_start_matches(' ');
    let (mut text, mut kept) = (String::new(), 0);
    let mut characters = value.chars();
    while let Some(c) = characters.next() {
        if c == '\\' {
            match characters.next() {
                Some(escaped @ (' ' | ',' | ';' | '\\' | '+' | '"' | '=' | '<' | '>' | '#')) => text.push(escaped),
                _ => return Err(format!("`{value}` has a backslash before what needs none")),
            }
            kept = text.len();
        } else {
            text.push(c);
            if c != ' ' {
                kept = text.len();
            }
        }
    }
    text.truncate(kept);
    Ok(text)
}

/// What identities begin with.
const PREFIX: &str = "x509.subject:";

/// The attributes that have a name (RFC 4514, section 3), and their OBJECT IDENTIFIERs, 2.5.4.x.
const ATTRIBUTES: [(&str, &[u8]); 9] = [
    ("C", &[0x55, 4, 6]),
    ("ST", &[0x55, 4, 8]),
    ("L", &[0x55, 4, 7]),
    ("O", &[0x55, 4, 10]),
    ("OU", &[0x55, 4, 11]),
    ("CN", &[0x55, 4, 3]),
    ("STREET", &[0x55, 4, 9]),
    ("POSTALCODE", &[0x55, 4, 17]),
    ("SERIALNUMBER", &[0x55, 4, 5]),
];

const MANDATORY: [&str; 3] = ["C", "ST", "O"];

/// UTF8String, PrintableString, IA5String; the others of a DirectoryString are of another alphabet.
const TEXTS: [u8; 3] = [der::UTF8_STRING, 0x13, 0x16];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use testkit::sigstore::der::{oid, seq, set, tlv, utf8};

    use super::*;

    fn subject(text: &str) -> Subject {
        Subject::parse(&format!("x509.subject: {text}")).unwrap()
    }

    fn name(attributes: &[(&str, &[u8])]) -> Vec<u8> {
        let parts: Vec<Vec<u8>> = attributes.iter().map(|(kind, value)| set(&[&seq(&[&oid(kind), value])])).collect();
        seq(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    #[test]
    fn an_identity_is_some_attributes_of_a_subject_letter_by_letter() {
        let (us, wa, org) = (utf8("US"), utf8("WA"), utf8("wabbit, inc"));
        let base = [("2.5.4.6", &us[..]), ("2.5.4.8", &wa), ("2.5.4.10", &org)];
        let named = name(&base);
        assert!(subject(r"C=US,ST=WA,O=wabbit\, inc").is_of(&named));
        assert!(subject(r"  O = wabbit\, inc  , S=WA, C=US").is_of(&named));
        for other in ["C=US, ST=WA, O=wabbit", r"C=us, ST=WA, O=wabbit\, inc", r"C=US, ST=WA, O=wabbit\, inc, CN=x"] {
            assert!(!subject(other).is_of(&named), "{other}");
        }
        let cn = tlv(0x13, &[b"release"]);
        let more = name(&[&base[..], &[("2.5.4.3", &cn), ("1.2.840.113549.1.9.1", &utf8("a@b"))]].concat());
        assert!(subject(r"C=US, ST=WA, O=wabbit\, inc, CN=release").is_of(&more));
        assert!(subject(r"C=US, ST=WA, O=wabbit\, inc").is_of(&more));
        // Two of a kind, two in one place, another alphabet, bytes that are no text, no name at all.
        let twice = name(&[&base[..], &[("2.5.4.8", &wa)]].concat());
        let pair = seq(&[&set(&[&seq(&[&oid("2.5.4.6"), &us]), &seq(&[&oid("2.5.4.8"), &wa])])]);
        let bmp = name(&[&base[..], &[("2.5.4.3", &tlv(0x1e, &[&[0, 65]]))]].concat());
        let bad = name(&[&base[..], &[("2.5.4.3", &tlv(0x0c, &[&[0xff]]))]].concat());
        for wrong in [twice, pair, bmp, bad, vec![0x30, 0x03, 0x31], Vec::new()] {
            assert!(!subject(r"C=US, ST=WA, O=wabbit\, inc").is_of(&wrong), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_no_identity_says_what_would_be_one() {
        for (text, why) in [
            ("C=US", "must begin with `x509.subject:`"),
            ("x509.subject: C=US, ST=WA", "`O` is missing"),
            ("x509.subject: C=US, ST=WA, O=", "`O` is empty"),
            ("x509.subject: C=US, ST=WA, O=a, O=b", "`O` is there twice"),
            ("x509.subject: C=US, ST=WA, S=WA, O=a", "`ST` is there twice"),
            ("x509.subject: C=US, ST=WA, O=a, X=b", "`X` is none of C, ST, L, O"),
            ("x509.subject: C=US, ST=WA, O=a;b", "`;` must be escaped"),
            ("x509.subject: C=US, ST=WA, O=a+CN=b", "`+` must be escaped"),
            (r"x509.subject: C=US, ST=WA, O=a\q", "has a backslash before what needs none"),
            (r"x509.subject: C=US, ST=WA, O=a\", "has a backslash before what needs none"),
            ("x509.subject: C=US, ST=WA, O=a,", "`` has no `=`"),
        ] {
            let error = Subject::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert_eq!(subject(r"C=US, ST=WA, O=\ a\ ").0["O"], " a ");
        assert_eq!(subject(r"C=US, ST=WA, O=a\\\;b").0["O"], r"a\;b");
    }

    #[test]
    fn identities_overlap_when_one_says_nothing_that_the_other_does_not() {
        let (one, more, other) =
            (subject("C=US, ST=WA, O=a"), subject("C=US, ST=WA, O=a, OU=b"), subject("C=US, ST=WA, O=c"));
        assert!(one.overlaps(&more) && more.overlaps(&one) && one.overlaps(&one));
        assert!(!one.overlaps(&other) && !more.overlaps(&other));
    }
}
