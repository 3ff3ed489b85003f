//! The JOSE header of a token.

use std::fmt;

use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::jwk::Members;
use super::{Algorithm, JoseError, Jwk, base64url_decode, quoted};

/// What a JOSE header says (RFC 7515, section 4), as far as it is listened to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Header {
    /// `alg`: one of the four; nothing else parses.
    pub alg: Algorithm,
    /// `typ`, as written.
    pub typ: Option<String>,
    /// `kid`.
    pub kid: Option<String>,
    /// `jwk`: the public key that a DPoP proof carries.
    pub jwk: Option<Jwk>,
}

impl Header {
    /// Reads a header from its base64url form.
    ///
    /// # Errors
    /// A [`JoseError`] that names the first thing wrong: base64url, JSON, a duplicate member, `crit` or `b64`, an
    /// algorithm outside the four, an unacceptable `jwk`.
    pub fn parse(segment: &str) -> Result<Self, JoseError> {
        let json = base64url_decode(segment, "JWT header")?;
        let raw: RawHeader =
            serde_json::from_slice(&json).map_err(|source| JoseError::Json { part: "JWT header", source })?;
        if let Some(name) = raw.duplicate {
            return Err(JoseError::DuplicateMember { name: quoted(&name) });
        }
        if let Some(member) = raw.extension {
            return Err(JoseError::Critical { member });
        }
        let name = raw.alg.ok_or(JoseError::AlgorithmMissing)?;
        let alg = Algorithm::from_name(&name).ok_or_else(|| JoseError::AlgorithmUnknown { name: quoted(&name) })?;
        let jwk = raw.jwk.map(Jwk::from_members).transpose()?;
        Ok(Self { alg, typ: raw.typ, kid: raw.kid, jwk })
    }

    /// Is `typ` this media type? Compared as RFC 7515, section 4.1.9 has it: without regard to case, and
    /// `application/` may be left out.
    #[must_use]
    pub fn is_typ(&self, expected: &str) -> bool {
        self.typ.as_deref().is_some_and(|typ| {
            let prefix = typ.get(..12).filter(|prefix| prefix.eq_ignore_ascii_case("application/"));
            prefix.map_or(typ, |prefix| &typ[prefix.len()..]).eq_ignore_ascii_case(expected)
        })
    }
}

#[derive(Default)]
struct RawHeader {
    alg: Option<String>,
    typ: Option<String>,
    kid: Option<String>,
    jwk: Option<Members>,
    extension: Option<&'static str>,
    duplicate: Option<String>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

// By hand, because a derived visitor lets a duplicate of an unknown member pass.
struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JOSE header, which is an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let mut header = RawHeader::default();
        let mut seen: Vec<String> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if seen.len() >= MAX_MEMBERS {
                return Err(de::Error::custom("too many members"));
            }
            match name.as_str() {
                "alg" => header.alg = Some(map.next_value()?),
                "typ" => header.typ = Some(map.next_value()?),
                "kid" => header.kid = Some(map.next_value()?),
                "jwk" => header.jwk = Some(map.next_value()?),
                other => {
                    header.extension = match other {
                        "crit" => Some("crit"),
                        "b64" => Some("b64"),
                        _ => header.extension,
                    };
                    map.next_value::<IgnoredAny>()?;
                }
            }
            if header.duplicate.is_none() && seen.contains(&name) {
                header.duplicate = Some(name);
            } else {
                seen.push(name);
            }
        }
        Ok(header)
    }
}

/// More members than any header needs; it bounds the search for duplicates.
const MAX_MEMBERS: usize = 32;
