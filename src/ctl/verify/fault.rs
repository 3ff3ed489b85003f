//! Why an envelope is not verified.

use crate::clock::UnixTime;
use crate::ctl::output::plain;
use crate::dsse::{PAYLOAD_TYPE, SignatureError};
use crate::sigstore::sct::SctError;
use crate::sigstore::verify::VerifyError;
use crate::sigstore::{CertificateError, TimestampError};
use crate::statement::StatementError;

/// The first check that failed. Texts from the file are escaped for a terminal where they are shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// Not one of the three forms.
    #[error("no envelope: {}", plain(.0))]
    NotAnEnvelope(String),
    /// Two envelopes where one was expected.
    #[error("it holds more than one envelope or bundle; which of them counts is not said")]
    Ambiguous,
    /// A bundle of another version or kind.
    #[error("the bundle's mediaType is `{}`; only {} is read", plain(.0), super::form::SIGSTORE_MEDIA_TYPE)]
    MediaType(String),
    /// A bundle of a certificate, where a key is given.
    #[error("the bundle carries a certificate (keyless), and a public key was given to verify it with")]
    Certificate,
    /// No certificate, where an identity is demanded: a key has signed, or the form leaves the certificate out.
    #[error("it carries no certificate, so no identity can be checked")]
    NoCertificate,
    /// The certificate of an answer is for another key than the one that is given.
    #[error("its certificateChain begins with a certificate for another key than the one that has signed")]
    ForeignCertificate,
    /// Certificate, promise of a log, or timestamp.
    #[error("{}", plain(&.0.to_string()))]
    Proof(#[source] VerifyError),
    /// The bundle's key hint is missing or names another key.
    #[error(
        "the bundle's publicKey.hint is `{}`, its signature's keyid is `{}`; they must be equal",
        plain(hint),
        plain(keyid)
    )]
    Hint {
        /// What the bundle says.
        hint: String,
        /// What the signature says.
        keyid: String,
    },
    /// Not exactly one signature.
    #[error("it has {0} signatures; exactly one is accepted")]
    SignatureCount(usize),
    /// The signature names no key.
    #[error("its signature names no keyid; the appliance always names one")]
    KeyidMissing,
    /// The signature names another key.
    #[error("it is signed with the key `{}`; this key is {expected}", plain(found))]
    Keyid {
        /// What the envelope says.
        found: String,
        /// The key at hand.
        expected: String,
    },
    /// No key of the set has the keyid.
    #[error("it is signed with the key `{}`, which is none of the {known} usable keys given", plain(found))]
    UnknownKey {
        /// What the envelope says.
        found: String,
        /// How many keys there are.
        known: usize,
    },
    /// A key that does not sign yet.
    #[error("its key has the state `next`: it is announced, and the appliance does not sign with it yet")]
    KeyNext,
    /// A key that did not sign then.
    #[error("it was stamped at {}, when its key was not in use: {why}", .at.rfc3339())]
    KeyNotInUse {
        /// The earliest timestamp.
        at: UnixTime,
        /// What its publisher says.
        why: String,
    },
    /// Another payload type.
    #[error("its payloadType is `{}`; it must be {PAYLOAD_TYPE}", plain(.0))]
    PayloadType(String),
    /// Not base64.
    #[error("its {0} is not padded base64")]
    Base64(&'static str),
    /// Not an ECDSA signature.
    #[error("its signature cannot be read: {0}")]
    SignatureForm(#[source] SignatureError),
    /// The signature is not the key's over these bytes.
    #[error("the signature does not verify: type or payload were changed, or another key made it")]
    Signature,
    /// The payload is not strict JSON, or not an in-toto Statement v1.
    #[error("it is signed, but {}", plain(&.0.to_string()))]
    Statement(#[source] StatementError),
    /// Another predicate type than demanded.
    #[error("its predicate type is `{}`; `{wanted}` was demanded", plain(found))]
    Type {
        /// What the statement says.
        found: String,
        /// What was demanded.
        wanted: String,
    },
    /// A demanded subject is not there.
    #[error("no subject of it is {wanted}")]
    Subject {
        /// What was demanded.
        wanted: String,
    },
}

impl From<VerifyError> for Fault {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Keyid { found, expected } => Self::Keyid { found, expected },
            VerifyError::NoCertificate => Self::NoCertificate,
            VerifyError::Signature(SignatureError::Mismatch) => Self::Signature,
            VerifyError::Signature(error) => Self::SignatureForm(error),
            VerifyError::Statement(error) => Self::Statement(error),
            other => Self::Proof(other),
        }
    }
}

impl Fault {
    /// A stable word for scripts.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NotAnEnvelope(_) | Self::Base64(_) => "not_an_envelope",
            Self::Ambiguous => "ambiguous",
            Self::MediaType(_) => "media_type",
            Self::Certificate => "keyless_bundle",
            Self::NoCertificate => "no_certificate",
            Self::ForeignCertificate => "certificate_key_mismatch",
            Self::Proof(error) => error.reason(),
            Self::Hint { .. } => "hint_mismatch",
            Self::SignatureCount(_) => "signature_count",
            Self::KeyidMissing => "keyid_missing",
            Self::Keyid { .. } | Self::UnknownKey { .. } => "key_mismatch",
            Self::KeyNext => "key_next",
            Self::KeyNotInUse { .. } => "key_not_in_use",
            Self::PayloadType(_) => "payload_type",
            Self::SignatureForm(_) => "signature_form",
            Self::Signature => "signature_invalid",
            Self::Statement(_) => "statement_invalid",
            Self::Type { .. } => "type_mismatch",
            Self::Subject { .. } => "subject_mismatch",
        }
    }

    /// What would help.
    pub(crate) fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Keyid { .. } | Self::UnknownKey { .. } => {
                Some("take the key from the appliance: `signerctl keys list --jwks`, then --keys")
            }
            Self::Certificate => {
                Some("give --trusted-root, --certificate-identity and --certificate-oidc-issuer in place of the key")
            }
            Self::NoCertificate => {
                Some("verify it with --key or --keys; signed keyless, it must be in the form `sigstore` or `dsse+cert`")
            }
            Self::Proof(error) => proof_remedy(error),
            Self::KeyNext => {
                Some("if it signs by now, take the keys from the appliance anew: `signerctl keys list --jwks`")
            }
            Self::Signature => Some("do not use this file; have the document signed again"),
            _ => None,
        }
    }
}

fn proof_remedy(error: &VerifyError) -> Option<&'static str> {
    match error {
        VerifyError::Untimed { .. } => Some(
            "have it signed again in the form `sigstore` by an appliance that asks a timestamp authority; or, if you \
             know from elsewhere when it was signed, give that time with --at",
        ),
        VerifyError::TimestampMissing => {
            Some("have it signed in the form `sigstore` by an appliance that asks a timestamp authority")
        }
        VerifyError::Timestamp(TimestampError::Untrusted) => {
            Some("the trusted root must have the chain of that authority: `signerctl trust make --tsa-chain`")
        }
        VerifyError::Certificate(CertificateError::UntrustedIssuer) => Some(
            "the trusted root must have root and intermediates of that Fulcio: `signerctl trust make --fulcio-chain`",
        ),
        VerifyError::Certificate(CertificateError::Lifetime { .. }) => {
            Some("if you accept what that Fulcio issues, give --max-certificate-lifetime")
        }
        VerifyError::Sct(SctError::UnknownLog) => {
            Some("the trusted root must have the key of that CT log: `signerctl trust make --ct-key`")
        }
        VerifyError::Sct(SctError::Missing) => {
            Some("if its Fulcio has no CT log, and you accept that, give --insecure-ignore-sct")
        }
        VerifyError::Certificate(CertificateError::Expired { .. } | CertificateError::NotYetValid { .. }) => {
            Some("it was not signed while its certificate was valid; do not use it")
        }
        _ => None,
    }
}
