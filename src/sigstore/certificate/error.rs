//! Why a certificate is not believed.

use std::time::Duration;

use crate::clock::UnixTime;

/// The first check that failed. [`reason`](Self::reason) is a stable word for audit records and metrics.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// There is none.
    #[error("there is no certificate")]
    Missing,
    /// More or larger certificates than a Fulcio sends.
    #[error("the certificate chain is larger than any that Fulcio issues")]
    TooLarge,
    /// Not DER of an X.509 v3 certificate.
    #[error("the certificate cannot be read; it must be an X.509 v3 certificate in DER")]
    Malformed,
    /// Judged by a time before its validity.
    #[error("the certificate is valid from {}; it was judged by {}", .not_before.rfc3339(), .at.rfc3339())]
    NotYetValid {
        /// The time it was judged by.
        at: UnixTime,
        /// When it becomes valid.
        not_before: UnixTime,
    },
    /// Judged by a time after its validity.
    #[error("the certificate expired at {}; it was judged by {}", .not_after.rfc3339(), .at.rfc3339())]
    Expired {
        /// The time it was judged by.
        at: UnixTime,
        /// The last second of its validity.
        not_after: UnixTime,
    },
    /// No pinned Fulcio signed it.
    #[error("no pinned Fulcio has issued the certificate; pin root and intermediates of the one that should have")]
    UntrustedIssuer,
    /// The Fulcio that signed it does not count at that time.
    #[error("the pinned Fulcio that issued the certificate is not valid at that time")]
    IssuerNotValid,
    /// The Fulcio that signed it may not issue such a certificate.
    #[error("the pinned Fulcio may not issue this certificate: {0}")]
    IssuerNotAllowed(String),
    /// A critical extension that is not understood; contents of its OBJECT IDENTIFIER.
    #[error("the certificate has a critical extension that is not understood")]
    UnknownCritical(Vec<u8>),
    /// A CA certificate.
    #[error("the certificate is one of a CA; a signer's is not")]
    IsCa,
    /// Longer validity than Fulcio gives.
    #[error("the certificate is valid for {} s; at most {} s are accepted", lifetime.as_secs(), max.as_secs())]
    Lifetime {
        /// Its validity.
        lifetime: Duration,
        /// What is accepted.
        max: Duration,
    },
    /// A subject, which Fulcio never writes.
    #[error("the subject of the certificate is not empty; Fulcio leaves it so")]
    SubjectNotEmpty,
    /// Other extended key usage than code signing alone.
    #[error("the extended key usage of the certificate must be codeSigning and nothing else")]
    ExtendedKeyUsage,
    /// No digital signatures, or certificates and CRLs as well.
    #[error("the key usage of the certificate must have digitalSignature and not keyCertSign or cRLSign")]
    KeyUsage,
    /// Not exactly one name.
    #[error("the certificate has {0} subject alternative names; it must have exactly one")]
    SanCount(usize),
    /// Not critical, or a kind of name that Fulcio does not write.
    #[error("the subject alternative name must be critical, and one e-mail address, URI or Fulcio user name")]
    SanForm,
    /// The extension with the issuer of the token is missing.
    #[error("the certificate does not say who vouched for its owner: extension 1.3.6.1.4.1.57264.1.8 is missing")]
    OidcIssuerMissing,
    /// It is not what it should be, or the deprecated form beside it says something else.
    #[error("the issuer extensions of the certificate cannot be read, or contradict each other")]
    OidcIssuerForm,
    /// No ECDSA key on P-256.
    #[error("the key of the certificate is not on P-256")]
    KeyType,
    /// Another name than expected.
    #[error("the certificate was issued to `{found}`; `{expected}` was expected")]
    SanMismatch {
        /// What it says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// Another issuer than expected.
    #[error("the identity was vouched for by `{found}`; `{expected}` was expected")]
    IssuerMismatch {
        /// What it says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// Another key than the one that signed.
    #[error("the certificate is for another key")]
    KeyMismatch,
}

impl CertificateError {
    /// A stable word for it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "certificate_missing",
            Self::TooLarge => "certificate_too_large",
            Self::Malformed => "certificate_malformed",
            Self::NotYetValid { .. } => "certificate_not_yet_valid",
            Self::Expired { .. } => "certificate_expired",
            Self::UntrustedIssuer => "certificate_untrusted",
            Self::IssuerNotValid => "certificate_issuer_not_valid",
            Self::IssuerNotAllowed(_) => "certificate_issuer_not_allowed",
            Self::UnknownCritical(_) => "certificate_unknown_critical_extension",
            Self::IsCa => "certificate_is_ca",
            Self::Lifetime { .. } => "certificate_lifetime",
            Self::SubjectNotEmpty => "certificate_subject",
            Self::ExtendedKeyUsage => "certificate_extended_key_usage",
            Self::KeyUsage => "certificate_key_usage",
            Self::SanCount(_) => "certificate_san_count",
            Self::SanForm => "certificate_san_form",
            Self::OidcIssuerMissing => "certificate_oidc_issuer_missing",
            Self::OidcIssuerForm => "certificate_oidc_issuer_form",
            Self::KeyType => "certificate_key_type",
            Self::SanMismatch { .. } => "certificate_san_mismatch",
            Self::IssuerMismatch { .. } => "certificate_oidc_issuer_mismatch",
            Self::KeyMismatch => "certificate_key_mismatch",
        }
    }
}
