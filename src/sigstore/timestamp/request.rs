//! `TimeStampReq` (RFC 3161, section 2.4.1).

use aws_lc_rs::digest::{SHA256, digest};

use super::TimestampError;
use crate::sigstore::der;

/// A request to an authority, and what the answer must repeat.
#[derive(Clone, Debug)]
pub struct Request {
    der: Vec<u8>,
    imprint: [u8; 32],
    nonce: [u8; NONCE],
}

impl Request {
    /// For `message`, of which only the SHA-256 goes out: for a bundle, the raw DER of the envelope's signature. The
    /// answer is asked to carry the authority's certificate, and a random nonce.
    ///
    /// # Errors
    /// [`TimestampError::Random`].
    pub fn new(message: &[u8]) -> Result<Self, TimestampError> {
        let mut nonce = [0; NONCE];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| TimestampError::Random)?;
        // A positive INTEGER in its shortest form, whatever the rest is.
        nonce[0] = nonce[0] & 0x3f | 0x40;
        let mut imprint = [0; 32];
        imprint.copy_from_slice(digest(&SHA256, message).as_ref());
        let message_imprint = der::wrap(der::SEQUENCE, &[SHA256_ALGORITHM, &der::wrap(der::OCTET_STRING, &[&imprint])]);
        let der = der::wrap(
            der::SEQUENCE,
            &[V1, &message_imprint, &der::wrap(der::INTEGER, &[&nonce]), &der::wrap(der::BOOLEAN, &[&[0xff]])],
        );
        Ok(Self { der, imprint, nonce })
    }

    /// What is sent, as `application/timestamp-query`.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    pub(super) fn imprint(&self) -> &[u8; 32] {
        &self.imprint
    }

    /// Contents of the nonce's INTEGER.
    pub(super) fn nonce(&self) -> &[u8] {
        &self.nonce
    }
}

/// 127 bits of chance.
const NONCE: usize = 16;

/// `INTEGER 1`.
const V1: &[u8] = &[0x02, 0x01, 0x01];

/// AlgorithmIdentifier of SHA-256 with NULL, as every client writes it.
const SHA256_ALGORITHM: &[u8] =
    &[0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00];
