//! Why a timestamp does not count.

use crate::clock::UnixTime;

/// The first check that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// The system gave no random nonce.
    #[error("the system has no random numbers for the nonce of a timestamp request")]
    Random,
    /// Larger than any timestamp.
    #[error("the timestamp response is larger than {0} bytes")]
    TooLarge(usize),
    /// Not the DER of a TimeStampResp with a CMS SignedData; `.0` says which part is not.
    #[error("the timestamp cannot be read: its {0} is not the DER that RFC 3161 prescribes")]
    Malformed(&'static str),
    /// The authority refused.
    #[error("the timestamp authority refused with status {status}{}", .text.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    NotGranted {
        /// `PKIStatus`, 2 to 5; in an answer that is to go into a bundle 1 as well, granted with modifications.
        status: u8,
        /// What it said, where it said something.
        text: Option<String>,
    },
    /// Over other bytes.
    #[error("the timestamp is over other bytes than the signature")]
    Imprint,
    /// Of another request, or of none.
    #[error("the timestamp does not carry the nonce of the request: it may be an old one")]
    Nonce,
    /// Not exactly one signer.
    #[error("the timestamp has {0} signers; it must have exactly one")]
    Signers(usize),
    /// A signed attribute is missing, there twice, or says something else.
    #[error("the signed attribute {0} of the timestamp is missing or wrong")]
    Attribute(&'static str),
    /// The signed digest is not the one of the content.
    #[error("the content of the timestamp was changed after it was signed")]
    MessageDigest,
    /// Neither in the token nor pinned.
    #[error("the certificate that signed the timestamp is neither in it nor pinned")]
    NoCertificate,
    /// The signer's certificate is in the token, and another one stands before it.
    #[error("the first certificate in the timestamp is not the signer's; cosign and sigstore-go take none but that")]
    SignerNotFirst,
    /// The certificate is not the one that the signature is bound to (ESSCertID).
    #[error("the timestamp is bound to another certificate than the one that should have signed it")]
    SigningCertificate,
    /// Another certificate than the pinned one, or from another authority.
    #[error("no pinned timestamp authority has signed it")]
    Untrusted,
    /// The authority's certificate, its issuers or its pin do not count at the time that it states.
    #[error("the certificates of the timestamp authority are not valid at {}, the time it states", .0.rfc3339())]
    NotValid(UnixTime),
    /// The certificate is for other purposes.
    #[error("the certificate of the timestamp authority must have a critical extended key usage of timeStamping alone")]
    ExtendedKeyUsage,
    /// Its issuers may not issue it.
    #[error("the certificates of the timestamp authority make no path: {0}")]
    Path(String),
    /// A signature algorithm that is not accepted.
    #[error("the signature algorithm of the timestamp is not accepted; it must be ECDSA or RSA PKCS#1 with SHA-2")]
    Algorithm,
    /// The signature does not verify.
    #[error("the signature of the timestamp does not verify")]
    Signature,
    /// It states a time to come.
    #[error("the timestamp says {}, which is still to come", .0.rfc3339())]
    Future(UnixTime),
}

impl TimestampError {
    /// A stable word for audit records and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Random => "timestamp_random",
            Self::TooLarge(_) => "timestamp_too_large",
            Self::Malformed(_) => "timestamp_malformed",
            Self::NotGranted { .. } => "timestamp_not_granted",
            Self::Imprint => "timestamp_imprint",
            Self::Nonce => "timestamp_nonce",
            Self::Signers(_) => "timestamp_signers",
            Self::Attribute(_) => "timestamp_attribute",
            Self::MessageDigest => "timestamp_message_digest",
            Self::NoCertificate => "timestamp_no_certificate",
            Self::SigningCertificate => "timestamp_signing_certificate",
            Self::SignerNotFirst => "timestamp_signer_not_first",
            Self::Untrusted => "timestamp_untrusted",
            Self::NotValid(_) => "timestamp_not_valid",
            Self::ExtendedKeyUsage => "timestamp_extended_key_usage",
            Self::Path(_) => "timestamp_path",
            Self::Algorithm => "timestamp_algorithm",
            Self::Signature => "timestamp_signature",
            Self::Future(_) => "timestamp_future",
        }
    }
}
