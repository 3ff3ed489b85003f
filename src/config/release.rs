//! `[release]`: which scanner images are trusted releases, who signs them, and where their signatures are.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Span, units};

/// `[release]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Release {
    /// Image digests that the operator vouches for by hand, each with a reason.
    pub trusted: Vec<TrustedDigest>,
    /// Image digests that nothing makes trusted any more, each with a reason.
    pub revoked: Vec<RevokedDigest>,
    /// Who signs releases.
    pub identity: Vec<ReleaseIdentity>,
    /// Where their signatures are; asked in this order.
    pub repository: Vec<Repository>,
    /// Signatures in a file, for a site without a registry; looked into before any repository.
    pub snapshot: Option<ReleaseSnapshot>,
    /// How long a verdict is used that an image is trusted.
    pub trusted_ttl: Span,
    /// How long a verdict is used that it is not.
    pub untrusted_ttl: Span,
    /// How long one repository is asked about one image.
    pub timeout: Span,
}

/// `[[release.trusted]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustedDigest {
    /// `sha256:<64 lowercase hex digits>`.
    pub digest: String,
    /// Who is named as signer in answers and audit records.
    pub signed_by: String,
    /// Why the operator vouches for it.
    pub reason: String,
}

/// `[[release.revoked]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedDigest {
    /// `sha256:<64 lowercase hex digits>`.
    pub digest: String,
    /// Why it is withdrawn.
    pub reason: String,
}

/// `[[release.identity]]`: somebody who signs releases, known by a key, by a Fulcio certificate, or by a certificate that a
/// trust store of the Notary Project leads to.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseIdentity {
    /// Who is named as signer in answers and audit records.
    pub name: String,
    /// PEM public key: ECDSA on P-256, P-384 or P-521, RSA from 2,048 bits on, or Ed25519.
    pub public_key: Option<PathBuf>,
    /// Subject alternative name that the certificate must have, exactly.
    pub san: Option<String>,
    /// Issuer of the token that Fulcio saw, exactly.
    pub issuer: Option<String>,
    /// Who signs with notation.
    pub notation: Option<Notation>,
    /// `trusted_root.json` with the Fulcio, its CT log, and what proves the time: time stamp authorities and transparency
    /// logs. A key needs it for the latter only.
    pub trusted_root: Option<PathBuf>,
    /// A signature counts only with a time proven by the trusted root; always so for certificates.
    #[serde(default)]
    pub require_time: bool,
    /// A certificate counts only with the promise of a pinned CT log.
    #[serde(default = "super::default_true")]
    pub require_sct: bool,
    /// Signatures count that were made from this moment on (RFC 3339). Only where something says that a signature was not
    /// made earlier: for certificates of Fulcio, and for signing authorities.
    #[serde(default, deserialize_with = "units::moment")]
    pub not_before: Option<jiff::Timestamp>,
    /// Signatures count that were made up to this moment (RFC 3339); without a proven time, up to this moment at all.
    #[serde(default, deserialize_with = "units::moment")]
    pub not_after: Option<jiff::Timestamp>,
}

/// `[release.identity.notation]`: a trust policy of the Notary Project, at its level `strict` but for revocation, which no
/// responder is asked about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notation {
    /// PEM certificates, the trust store `x509/ca`: for signatures of the scheme `notary.x509`.
    pub ca: Option<PathBuf>,
    /// PEM certificates, the trust store `x509/signingAuthority`: for signatures of the scheme
    /// `notary.x509.signingAuthority`.
    pub signing_authority: Option<PathBuf>,
    /// PEM certificates, the trust store `x509/tsa`: roots of time stamp authorities.
    pub tsa: Option<PathBuf>,
    /// `x509.subject: C=…, ST=…, O=…` and what else the subject must have; or `*` alone for every certificate.
    pub trusted_identities: Vec<String>,
    /// Keys whose certificates count no more, in whatever place of a chain, that of a time stamp included: `sha256:` and
    /// the hex digits of the SubjectPublicKeyInfo's DER.
    #[serde(default)]
    pub revoked: Vec<String>,
}

/// How the signatures of an identity are known.
#[derive(Clone, Copy, Debug)]
pub enum ReleaseSigner<'a> {
    /// By the key in this file.
    Key(&'a std::path::Path),
    /// By a certificate.
    Certificate {
        /// Subject alternative name.
        san: &'a str,
        /// Issuer of the token that Fulcio saw.
        issuer: &'a str,
    },
    /// By a certificate that a trust store leads to.
    Notation(&'a Notation),
}

/// `[[release.repository]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    /// `https://registry.example/team/scanner`: the registry and the repository in it.
    pub url: String,
    /// PEM bundle that the registry's certificate must chain to; absent, the system's.
    pub ca: Option<PathBuf>,
    /// PEM certificate that this appliance presents.
    pub certificate: Option<PathBuf>,
    /// Its private key.
    pub private_key: Option<PathBuf>,
    /// File with one line, `user:password`.
    pub credentials: Option<PathBuf>,
    /// URL of the token service, where that is not on the registry's own host.
    pub token_service: Option<String>,
    /// Origins, as in `https://storage.example`, that the registry may redirect to. Credentials never go there.
    #[serde(default)]
    pub redirects: Vec<String>,
}

/// `[release.snapshot]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseSnapshot {
    /// The file that `signerctl release snapshot` made, read again when it changes.
    pub file: PathBuf,
    /// PEM public key of whoever makes snapshots.
    pub public_key: PathBuf,
    /// How old it may be, whatever it says itself.
    #[serde(default = "default_snapshot_age")]
    pub max_age: Span,
}

impl ReleaseIdentity {
    /// How its signatures are known. The loader has refused several ways and none.
    #[must_use]
    pub fn signer(&self) -> ReleaseSigner<'_> {
        match (&self.public_key, &self.notation, &self.san, &self.issuer) {
            (Some(key), ..) => ReleaseSigner::Key(key),
            (None, Some(notation), ..) => ReleaseSigner::Notation(notation),
            (None, None, san, issuer) => ReleaseSigner::Certificate {
                san: san.as_deref().unwrap_or_default(),
                issuer: issuer.as_deref().unwrap_or_default(),
            },
        }
    }
}

impl Default for Release {
    fn default() -> Self {
        Self {
            trusted: Vec::new(),
            revoked: Vec::new(),
            identity: Vec::new(),
            repository: Vec::new(),
            snapshot: None,
            trusted_ttl: Span::seconds(600),
            untrusted_ttl: Span::seconds(30),
            timeout: Span::seconds(10),
        }
    }
}

fn default_snapshot_age() -> Span {
    Span::seconds(90 * 24 * 3600)
}
