//! A JWS in compact form.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Algorithm, Header, JoseError, VerifyingKey, base64url_decode};

/// A token whose header has been read and whose signature has not been checked.
#[derive(Debug)]
pub struct Jws<'a> {
    compact: Compact<'a>,
    header: Header,
}

impl<'a> Jws<'a> {
    /// Reads the header of a token of at most `max_bytes`.
    ///
    /// # Errors
    /// A [`JoseError`] that names the first thing wrong with its form, size or header.
    pub fn parse(compact: &'a str, max_bytes: usize) -> Result<Self, JoseError> {
        let compact = Compact::split(compact, max_bytes)?;
        let header = Header::parse(compact.header())?;
        Ok(Self { compact, header })
    }

    /// What the header says. Nothing vouches for it yet.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The payload, if `key` signed it.
    ///
    /// # Errors
    /// [`JoseError::KeyMismatch`], [`JoseError::Signature`], or [`JoseError::Base64`].
    pub fn verify(&self, key: &VerifyingKey) -> Result<Vec<u8>, JoseError> {
        self.compact.verify(self.header.alg, key)
    }

    /// The parts as they were written.
    #[must_use]
    pub fn compact(&self) -> &Compact<'a> {
        &self.compact
    }
}

/// The three parts of a token, still encoded.
#[derive(Clone, Copy)]
pub struct Compact<'a> {
    whole: &'a str,
    header_end: usize,
    payload_end: usize,
}

impl<'a> Compact<'a> {
    /// Finds the parts of a token of at most `max_bytes`.
    ///
    /// # Errors
    /// [`JoseError::TooLarge`] or [`JoseError::NotCompact`].
    pub fn split(compact: &'a str, max_bytes: usize) -> Result<Self, JoseError> {
        if compact.len() > max_bytes {
            return Err(JoseError::TooLarge { bytes: compact.len(), limit: max_bytes });
        }
        let mut dots = memchr::memchr_iter(b'.', compact.as_bytes());
        let (Some(header_end), Some(payload_end), None) = (dots.next(), dots.next(), dots.next()) else {
            return Err(JoseError::NotCompact);
        };
        if header_end == 0 || payload_end == header_end + 1 || payload_end + 1 == compact.len() {
            return Err(JoseError::NotCompact);
        }
        Ok(Self { whole: compact, header_end, payload_end })
    }

    /// The header, in base64url.
    #[must_use]
    pub fn header(&self) -> &'a str {
        &self.whole[..self.header_end]
    }

    /// The payload, if `key` signed it with `algorithm`, which the header must have been found to name.
    ///
    /// # Errors
    /// [`JoseError::KeyMismatch`], [`JoseError::Signature`], or [`JoseError::Base64`].
    pub fn verify(&self, algorithm: Algorithm, key: &VerifyingKey) -> Result<Vec<u8>, JoseError> {
        let mut buffer = [0; MAX_SIGNATURE_BYTES];
        let encoded = &self.whole[self.payload_end + 1..];
        let length = URL_SAFE_NO_PAD.decode_slice(encoded, &mut buffer).map_err(|error| match error {
            base64::DecodeSliceError::DecodeError(source) => JoseError::Base64 { part: "JWT signature", source },
            // Longer than any of the four algorithms makes it.
            base64::DecodeSliceError::OutputSliceTooSmall => JoseError::Signature,
        })?;
        key.verify(algorithm, &self.whole.as_bytes()[..self.payload_end], &buffer[..length])?;
        base64url_decode(&self.whole[self.header_end + 1..self.payload_end], "JWT payload")
    }
}

// A token is a credential: its parts are never printed.
impl std::fmt::Debug for Compact<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Compact({} bytes)", self.whole.len())
    }
}

/// An RSA signature of 8,192 bits.
const MAX_SIGNATURE_BYTES: usize = 1024;
