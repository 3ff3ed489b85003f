//! One public key as a JWK (RFC 7517).

use aws_lc_rs::digest;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{Algorithm, JoseError, base64url, base64url_decode};

/// A public key: EC P-256, RSA of 2,048 to 8,192 bits, or Ed25519. Its numbers have the right sizes; that they make a
/// usable key is proven by [`VerifyingKey::from_jwk`](super::VerifyingKey::from_jwk).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwk {
    pub(super) material: Material,
    kid: Option<String>,
    alg: Option<Algorithm>,
    key_use: KeyUse,
}

/// Whether a JWK may verify signatures (`use` and `key_ops`; RFC 7517, sections 4.2 and 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// It says so, or says nothing.
    Verify,
    /// It is meant for something else, encryption mostly.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Material {
    P256 { x: [u8; 32], y: [u8; 32] },
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Ed25519 { x: [u8; 32] },
}

impl Jwk {
    /// Reads a JWK from JSON text. Members that it does not know are ignored (RFC 7517, section 4).
    ///
    /// # Errors
    /// A [`JoseError`]: not JSON, a duplicate member, private or symmetric material, another kind of key, numbers of
    /// the wrong size.
    pub fn parse(json: &[u8]) -> Result<Self, JoseError> {
        let members = serde_json::from_slice(json).map_err(|source| JoseError::Json { part: "JWK", source })?;
        Self::from_members(members)
    }

    /// Reads a JWK from parsed JSON.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), except that duplicates are gone by then.
    pub fn from_value(value: &Value) -> Result<Self, JoseError> {
        let members = Members::deserialize(value).map_err(|source| JoseError::Json { part: "JWK", source })?;
        Self::from_members(members)
    }

    /// The P-256 key with this uncompressed point (SEC 1, section 2.3.3: `04 ‖ x ‖ y`).
    ///
    /// # Errors
    /// [`JoseError::KeyInvalid`] when it is not 65 bytes that begin with 04.
    pub fn from_p256_point(sec1: &[u8]) -> Result<Self, JoseError> {
        let wrong = || JoseError::KeyInvalid { what: "a P-256 point is 65 bytes that begin with 04" };
        let [0x04, coordinates @ ..] = sec1 else { return Err(wrong()) };
        let (x, y) = coordinates.split_first_chunk::<32>().ok_or_else(wrong)?;
        let y = y.try_into().map_err(|_| wrong())?;
        Ok(Self { material: Material::P256 { x: *x, y }, kid: None, alg: None, key_use: KeyUse::Verify })
    }

    /// The same key under this name.
    #[must_use]
    pub fn with_kid(mut self, kid: impl Into<String>) -> Self {
        self.kid = Some(kid.into());
        self
    }

    /// `kid`.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// `alg`: the only algorithm that the key may be used with, if it names one.
    #[must_use]
    pub fn alg(&self) -> Option<Algorithm> {
        self.alg
    }

    /// What the key may do.
    #[must_use]
    pub fn key_use(&self) -> KeyUse {
        self.key_use
    }

    /// May the key verify signatures made with `algorithm`?
    #[must_use]
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        let kind = match algorithm {
            Algorithm::Es256 => matches!(self.material, Material::P256 { .. }),
            Algorithm::Ps256 | Algorithm::Rs256 => matches!(self.material, Material::Rsa { .. }),
            Algorithm::EdDsa => matches!(self.material, Material::Ed25519 { .. }),
        };
        kind && self.key_use == KeyUse::Verify && self.alg.is_none_or(|alg| alg == algorithm)
    }

    /// SHA-256 thumbprint (RFC 7638; RFC 8037, appendix A.3 for Ed25519): the `jkt` of a confirmation.
    #[must_use]
    pub fn thumbprint(&self) -> [u8; 32] {
        // The required members in lexicographic order, without whitespace. Base64url needs no escaping.
        let required = match &self.material {
            Material::P256 { x, y } => {
                format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, base64url(x), base64url(y))
            }
            Material::Rsa { n, e } => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, base64url(e), base64url(n)),
            Material::Ed25519 { x } => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, base64url(x)),
        };
        let mut thumbprint = [0; 32];
        thumbprint.copy_from_slice(digest::digest(&digest::SHA256, required.as_bytes()).as_ref());
        thumbprint
    }

    /// The key as it is published: its public members, `use`, and `alg` and `kid` where it has them.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut jwk = match &self.material {
            Material::P256 { x, y } => json!({ "kty": "EC", "crv": "P-256", "x": base64url(x), "y": base64url(y) }),
            Material::Rsa { n, e } => json!({ "kty": "RSA", "n": base64url(n), "e": base64url(e) }),
            Material::Ed25519 { x } => json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(x) }),
        };
        if self.key_use == KeyUse::Verify {
            jwk["use"] = "sig".into();
        }
        if let Some(alg) = self.alg {
            jwk["alg"] = alg.name().into();
        }
        if let Some(kid) = &self.kid {
            jwk["kid"] = kid.as_str().into();
        }
        jwk
    }

    pub(super) fn from_members(members: Members) -> Result<Self, JoseError> {
        members.refuse_secrets()?;
        let material = match members.kty.as_str() {
            "EC" if members.crv.as_deref() == Some("P-256") => {
                Material::P256 { x: coordinate(members.x, "x")?, y: coordinate(members.y, "y")? }
            }
            "OKP" if members.crv.as_deref() == Some("Ed25519") => Material::Ed25519 { x: coordinate(members.x, "x")? },
            "RSA" => rsa(members.n, members.e)?,
            "EC" => return Err(JoseError::KeyUnsupported { what: "an EC key on another curve" }),
            "OKP" => return Err(JoseError::KeyUnsupported { what: "an OKP key on another curve" }),
            _ => return Err(JoseError::KeyUnsupported { what: "another `kty`" }),
        };
        let signs = members.key_use.as_deref().is_none_or(|name| name == "sig");
        let verifies = members.key_ops.is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        let key_use = if signs && verifies { KeyUse::Verify } else { KeyUse::Other };
        let alg = match members.alg.as_deref().map(Algorithm::from_name) {
            Some(None) => return Err(JoseError::KeyUnsupported { what: "its `alg` is another one" }),
            Some(alg) => alg,
            None => None,
        };
        let jwk = Self { material, kid: members.kid, alg, key_use };
        match jwk.alg {
            Some(alg) if key_use == KeyUse::Verify && !jwk.fits(alg) => {
                Err(JoseError::KeyInvalid { what: "its `alg` does not fit its `kty`" })
            }
            _ => Ok(jwk),
        }
    }
}

/// The members of a JWK that matter. Secrets are seen, never kept.
#[derive(Deserialize)]
pub(super) struct Members {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    key_use: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    d: Option<IgnoredAny>,
    p: Option<IgnoredAny>,
    q: Option<IgnoredAny>,
    dp: Option<IgnoredAny>,
    dq: Option<IgnoredAny>,
    qi: Option<IgnoredAny>,
    oth: Option<IgnoredAny>,
    k: Option<IgnoredAny>,
}

impl Members {
    fn refuse_secrets(&self) -> Result<(), JoseError> {
        if self.kty == "oct" || self.k.is_some() {
            return Err(JoseError::SymmetricKey);
        }
        let secrets = [
            ("d", self.d),
            ("p", self.p),
            ("q", self.q),
            ("dp", self.dp),
            ("dq", self.dq),
            ("qi", self.qi),
            ("oth", self.oth),
        ];
        match secrets.into_iter().find(|(_, value)| value.is_some()) {
            Some((member, _)) => Err(JoseError::PrivateKey { member }),
            None => Ok(()),
        }
    }
}

fn coordinate(text: Option<String>, what: &'static str) -> Result<[u8; 32], JoseError> {
    let text = text.ok_or(JoseError::KeyInvalid { what })?;
    base64url_decode(&text, "JWK coordinate")?.try_into().map_err(|_| JoseError::KeyInvalid { what })
}

fn rsa(n: Option<String>, e: Option<String>) -> Result<Material, JoseError> {
    let n = base64url_decode(&n.ok_or(JoseError::KeyInvalid { what: "n" })?, "JWK modulus")?;
    let e = base64url_decode(&e.ok_or(JoseError::KeyInvalid { what: "e" })?, "JWK exponent")?;
    // Base64urlUInt is the shortest form (RFC 7518, section 2); a leading zero would be a second thumbprint.
    if n.first() == Some(&0) || e.first() == Some(&0) {
        return Err(JoseError::KeyInvalid { what: "a number with a leading zero octet" });
    }
    let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
    if !(2048..=8192).contains(&bits) {
        return Err(JoseError::KeyUnsupported { what: "an RSA key of another size" });
    }
    let small_and_odd = e.len() <= 4 && e.last().is_some_and(|last| last % 2 == 1) && e != [1];
    if !small_and_odd || n.last().is_none_or(|last| last % 2 == 0) {
        return Err(JoseError::KeyInvalid { what: "an RSA modulus and exponent are odd, the exponent from 3 to 2^32" });
    }
    Ok(Material::Rsa { n, e })
}
