//! An identity token in memory: never copied, never printed, wiped when the last holder lets go of it.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::IdentityError;
use crate::clock::UnixTime;
use crate::jose::NumericDate;

/// A JWT that Fulcio takes for an identity, and the claims of it that were looked at. Its signature is Fulcio's to
/// judge; it is looked at here so that a mistake is named where it was made.
pub(in crate::keyless) struct IdentityToken {
    /// Of exactly its length: a vector that grows leaves its old places behind.
    bytes: Zeroizing<Box<[u8]>>,
    expires: UnixTime,
}

/// What a token must say.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) issuer: String,
    pub(super) audience: String,
}

impl IdentityToken {
    /// Takes the token out of `text`, where blanks around it are not part of it, and looks at its claims.
    ///
    /// # Errors
    /// [`IdentityError`], which says what is wrong without repeating any of it but issuer and audience.
    pub(super) fn read(text: &[u8], expected: &Expected, now: UnixTime) -> Result<Self, IdentityError> {
        let text = text.trim_ascii();
        let malformed = |what| IdentityError::Malformed { what };
        if text.is_empty() {
            return Err(malformed("it is empty"));
        }
        if text.len() > MAX_BYTES {
            return Err(malformed("it is longer than 16 KiB"));
        }
        let mut parts = text.split(|byte| *byte == b'.');
        let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(malformed("it is no JWT, which is three base64url parts separated by two dots"));
        };
        if !text.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
            return Err(malformed("it has characters that no JWT has"));
        }
        let mut json = Zeroizing::new(vec![0; base64::decoded_len_estimate(payload.len())]);
        let length = URL_SAFE_NO_PAD
            .decode_slice(payload, &mut json)
            .map_err(|_| malformed("its payload is not unpadded base64url"))?;
        // The error is left out: it may quote the token.
        let claims: Claims<'_> = serde_json::from_slice(&json[..length])
            .map_err(|_| malformed("its payload has no `iss`, `aud` and `exp` as a JWT has them"))?;
        claims.check(expected, now)?;
        let mut bytes = Zeroizing::new(vec![0; text.len()].into_boxed_slice());
        bytes.copy_from_slice(text);
        Ok(Self { bytes, expires: claims.exp.0 })
    }

    /// The token itself, for Fulcio alone.
    pub(in crate::keyless) fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// Its `exp`.
    pub(in crate::keyless) fn expires(&self) -> UnixTime {
        self.expires
    }
}

impl fmt::Debug for IdentityToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityToken").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// Borrowed from the decoded payload wherever JSON lets it be.
#[derive(Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    iss: Cow<'a, str>,
    #[serde(borrow)]
    aud: Audience<'a>,
    exp: NumericDate,
    nbf: Option<NumericDate>,
}

impl Claims<'_> {
    fn check(&self, expected: &Expected, now: UnixTime) -> Result<(), IdentityError> {
        if self.iss != expected.issuer {
            return Err(IdentityError::Issuer { found: shortened(&self.iss), expected: expected.issuer.clone() });
        }
        if !self.aud.0.iter().any(|audience| **audience == *expected.audience) {
            let found = self.aud.0.iter().take(4).map(|audience| shortened(audience)).collect::<Vec<_>>().join(", ");
            return Err(IdentityError::Audience { found, expected: expected.audience.clone() });
        }
        if self.exp.0 <= now {
            return Err(IdentityError::Expired { by: now.since(self.exp.0) });
        }
        match self.nbf {
            Some(NumericDate(from)) if from > now.plus(SKEW) => {
                Err(IdentityError::Malformed { what: "its `nbf` lies in the future; compare the clocks" })
            }
            _ => Ok(()),
        }
    }
}

/// `aud` is one text or a list of them (RFC 7519, section 4.1.3).
struct Audience<'a>(Vec<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Audience<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Audience<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Audience(vec![Cow::Borrowed(text)]))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Audience(vec![Cow::Owned(text.to_owned())]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut audiences = Vec::new();
                while let Some(Text(audience)) = list.next_element()? {
                    audiences.push(audience);
                }
                Ok(Audience(audiences))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A claim fit for a log line.
fn shortened(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect()
}

/// Longer than any token that Fulcio takes.
pub(super) const MAX_BYTES: usize = 16 << 10;
const SKEW: std::time::Duration = std::time::Duration::from_secs(30);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    pub(in crate::keyless) fn jwt(claims: &str) -> Vec<u8> {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode("{\"alg\":\"ES256\"}"), URL_SAFE_NO_PAD.encode(claims))
            .into_bytes()
    }

    fn expected() -> Expected {
        Expected { issuer: "https://id.example".to_owned(), audience: "sigstore".to_owned() }
    }

    fn read(claims: &str) -> Result<IdentityToken, IdentityError> {
        IdentityToken::read(&jwt(claims), &expected(), UnixTime(1000))
    }

    #[test]
    fn a_token_for_fulcio_is_taken_as_it_is_without_the_line_feed() {
        for aud in ["\"sigstore\"", "[\"other\",\"sigstore\"]", "[\"\\u0073igstore\"]"] {
            let mut text = jwt(&format!("{{\"iss\":\"https://id.example\",\"aud\":{aud},\"exp\":1600,\"x\":[1]}}"));
            let length = text.len();
            text.push(b'\n');
            let token = IdentityToken::read(&text, &expected(), UnixTime(1000)).unwrap();
            assert_eq!(token.expose(), &text[..length]);
            assert_eq!(token.expires(), UnixTime(1600));
            assert!(!format!("{token:?}").contains("c2ln"));
        }
    }

    #[test]
    fn a_token_that_fulcio_would_refuse_is_named_here() {
        let good = "\"iss\":\"https://id.example\",\"aud\":\"sigstore\",\"exp\":1600";
        assert!(read(&format!("{{{good}}}")).is_ok());
        let refused = |claims: &str| read(claims).unwrap_err().reason();
        assert_eq!(refused("{\"iss\":\"https://x\",\"aud\":\"sigstore\",\"exp\":1600}"), "identity_issuer");
        assert_eq!(refused("{\"iss\":\"https://id.example\",\"aud\":\"signer\",\"exp\":1600}"), "identity_audience");
        assert_eq!(refused("{\"iss\":\"https://id.example\",\"aud\":[],\"exp\":1600}"), "identity_audience");
        assert_eq!(refused("{\"iss\":\"https://id.example\",\"aud\":\"sigstore\",\"exp\":1000}"), "identity_expired");
        for claims in [
            "",
            "{}",
            "[]",
            "{\"iss\":1}",
            "{\"iss\":\"https://id.example\",\"aud\":7,\"exp\":1600}",
            "{\"iss\":\"https://id.example\",\"aud\":\"sigstore\"}",
            &format!("{{{good},\"exp\":1}}"),
            &format!("{{{good},\"nbf\":1100}}"),
        ] {
            assert_eq!(refused(claims), "identity_malformed", "{claims}");
        }
        for text in [&b""[..], b" \n", b"hunter2", b"a.b", b"a.b.c.d", b"a.!.c", b"a.e30.\xff", &[b'a'; 20_000]] {
            let error = IdentityToken::read(text, &expected(), UnixTime(0)).unwrap_err();
            assert_eq!(error.reason(), "identity_malformed");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
