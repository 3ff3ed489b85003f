//! What a record says. Never a payload, a token or a secret: identifiers, digests and reasons only.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::line::Line;
use crate::auth::{Caller, PeerCertificate, SenderKey};
use crate::config::SigningMode;
use crate::entitlement::Entitlement;

/// One record; a line of the log.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// A request passed every check and its statement is about to be signed.
    Intent(&'a Facts<'a>),
    /// How a request ended that had an intent: with a signature, or, when `refused` says so, without one.
    Outcome {
        /// As in the intent.
        facts: &'a Facts<'a>,
        /// Why there is no signature.
        refused: Option<Refused<'a>>,
        /// From the first byte of the request to this record.
        latency: Duration,
    },
    /// A request that was refused before any intent. Says only what was proven before the refusal.
    Refusal {
        /// What was known by then.
        facts: &'a Facts<'a>,
        /// Why it was refused.
        refused: Refused<'a>,
        /// From the first byte of the request to this record.
        latency: Duration,
    },
    /// A connection that never came to a request.
    ConnectionRefused {
        /// Where it came from.
        remote: SocketAddr,
        /// A stable name for why.
        reason: &'static str,
        /// More of why, in words.
        detail: Option<&'a str>,
    },
    /// Something about the appliance itself: a start, a stop, a key taken out of service.
    Event {
        /// A stable name.
        event: &'static str,
        /// What belongs to it; names in camel case.
        details: &'a [(&'static str, Detail<'a>)],
    },
}

/// A request's name in the log, in its answer and in its errors: a UUID version 7 (RFC 9562), which sorts by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AuditId(Uuid);

/// What is known of a request so far.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The request's name.
    pub audit_id: AuditId,
    /// What was asked for: `"sign"`, `"verify"`, `"keys"`.
    pub operation: &'static str,
    /// Where the request came from.
    pub remote: Option<SocketAddr>,
    /// The certificate it came with.
    pub peer: Option<&'a PeerCertificate>,
    /// Who asked.
    pub caller: Option<&'a Caller>,
    /// By which licence.
    pub entitlement: Option<&'a Entitlement>,
    /// The scanner image that was asked about: of a signature, the one that made the evidence.
    pub image: Option<&'a str>,
    /// Who vouches for that image.
    pub release: Option<ReleaseFacts<'a>>,
    /// Why nobody does, where that is the answer and not a refusal.
    pub untrusted: Option<&'static str>,
    /// What is to be signed.
    pub statement: Option<StatementFacts<'a>>,
    /// With which key.
    pub key: Option<KeyFacts<'a>>,
    /// As whom, where no key of ours signs.
    pub identity: Option<IdentityFacts<'a>>,
    /// Under which certificate.
    pub certificate: Option<CertificateFacts<'a>>,
    /// Who stamped the signature.
    pub timestamps: &'a [StampFacts<'a>],
    /// How.
    pub mode: Option<SigningMode>,
}

/// A timestamp of the signature.
#[derive(Clone, Copy, Debug)]
pub struct StampFacts<'a> {
    /// Name of the authority in the configuration.
    pub authority: &'a str,
    /// When (RFC 3339).
    pub time: &'a str,
    /// Who it really was: SHA-256 of the certificate that signed, in hexadecimal.
    pub signer_sha256: &'a str,
}

/// Why the scanner image is trusted.
#[derive(Clone, Copy, Debug)]
pub struct ReleaseFacts<'a> {
    /// Who signed or vouches for the release.
    pub signed_by: &'a str,
    /// On what grounds.
    pub evidence: &'static str,
    /// Digest of the manifest with the signature that carries it.
    pub signature: Option<&'a str>,
    /// SHA-256 of that signature's bytes, in hexadecimal.
    pub signature_sha256: Option<&'a str>,
}

/// What is to be signed, by its digests.
#[derive(Clone, Copy, Debug)]
pub struct StatementFacts<'a> {
    /// As the catalog spells it.
    pub predicate_type: &'a str,
    /// Algorithm and hex digest of subjects; the first [`MAX_SUBJECTS`] are recorded.
    pub subjects: &'a [(&'a str, &'a str)],
    /// How many subjects there are.
    pub subject_count: usize,
    /// SHA-256 of the canonical statement.
    pub payload_sha256: &'a [u8; 32],
    /// SHA-256 of its pre-authentication encoding: what the token is asked to sign.
    pub pae_sha256: &'a [u8; 32],
}

/// The key that signs.
#[derive(Clone, Copy, Debug)]
pub struct KeyFacts<'a> {
    /// Its name under `[keys]`.
    pub name: &'a str,
    /// `SHA256:<base64>`.
    pub keyid: &'a str,
    /// The token it is in.
    pub token: &'a str,
}

/// As whom something is signed keyless.
#[derive(Clone, Copy, Debug)]
pub struct IdentityFacts<'a> {
    /// Its name under `[keyless.identity]`.
    pub name: &'a str,
    /// The subject alternative name that the certificate must have.
    pub san: &'a str,
    /// The OIDC issuer that it must name.
    pub issuer: &'a str,
}

/// A certificate that Fulcio issued for one signature, or for a few.
#[derive(Clone, Copy, Debug)]
pub struct CertificateFacts<'a> {
    /// SHA-256 of its DER, in hexadecimal.
    pub sha256: &'a str,
    /// `SHA256:<base64>`, of its key.
    pub keyid: &'a str,
    /// Until when it is valid (RFC 3339).
    pub expires: &'a str,
}

/// Why a request got no signature.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    /// HTTP status of the answer.
    pub status: u16,
    /// The answer's stable code.
    pub code: &'static str,
    /// The precise reason, stable.
    pub reason: &'static str,
    /// The last step of a keyless flow that was completed.
    pub step: Option<&'static str>,
    /// More of it in words, for the auditor only.
    pub detail: Option<&'a str>,
}

/// A detail of an event.
#[derive(Clone, Copy, Debug)]
pub enum Detail<'a> {
    /// A text; bounded and escaped when written.
    Text(&'a str),
    /// A number.
    Number(u64),
    /// Texts, each as [`Text`](Self::Text); the first sixteen are written.
    List(&'a [String]),
}

impl AuditId {
    /// A new one, of now.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "each one is another")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for AuditId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Facts<'_> {
    /// Nothing but the name and what is asked for.
    #[must_use]
    pub fn new(audit_id: AuditId, operation: &'static str) -> Self {
        Self {
            audit_id,
            operation,
            remote: None,
            peer: None,
            caller: None,
            entitlement: None,
            image: None,
            untrusted: None,
            release: None,
            statement: None,
            key: None,
            identity: None,
            certificate: None,
            timestamps: &[],
            mode: None,
        }
    }
}

impl Record<'_> {
    /// The name of its kind, a label of `signer_audit_records_total` too.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Intent(_) => Kind::Intent,
            Self::Outcome { .. } => Kind::Outcome,
            Self::Refusal { .. } => Kind::Refusal,
            Self::ConnectionRefused { .. } => Kind::ConnectionRefused,
            Self::Event { .. } => Kind::Event,
        }
    }

    /// By what a record is counted when there are too many of its sort.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Refusal { refused, .. } | Self::Outcome { refused: Some(refused), .. } => refused.reason,
            Self::ConnectionRefused { reason, .. } => reason,
            Self::Event { event, .. } => event,
            Self::Intent(_) | Self::Outcome { .. } => "none",
        }
    }

    /// Everything after the `seq`, up to the closing brace.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut line = Line(out);
        line.plain("time", format_args!("{:.6}", jiff::Timestamp::now()));
        line.word("kind", self.kind().name());
        match *self {
            Self::Intent(facts) => facts.write(&mut line),
            Self::Outcome { facts, refused, latency } => {
                facts.write_identity(&mut line);
                // Of a signature the intent has said it.
                if facts.operation != "sign" {
                    facts.write_release(&mut line);
                }
                if let Some(statement) = &facts.statement {
                    line.hex("payloadSha256", statement.payload_sha256);
                }
                line.word(
                    "outcome",
                    match (refused, facts.operation) {
                        (Some(_), _) => "failed",
                        (None, "sign") => "signed",
                        (None, _) => "answered",
                    },
                );
                if let Some(refused) = refused {
                    refused.write(&mut line);
                }
                line.number("latencyMicros", micros(latency));
            }
            Self::Refusal { facts, refused, latency } => {
                facts.write(&mut line);
                line.word("outcome", "refused");
                refused.write(&mut line);
                line.number("latencyMicros", micros(latency));
            }
            Self::ConnectionRefused { remote, reason, detail } => {
                line.plain("remote", remote);
                line.word("reason", reason);
                if let Some(detail) = detail {
                    line.text("detail", detail);
                }
            }
            Self::Event { event, details } => {
                line.word("event", event);
                for &(name, detail) in details {
                    match detail {
                        Detail::Text(text) => line.text(name, text),
                        Detail::Number(number) => line.number(name, number),
                        Detail::List(texts) => line.list(name, texts.iter().take(MAX_LISTED)),
                    }
                }
            }
        }
    }
}

/// Kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// See [`Record::Intent`].
    Intent,
    /// See [`Record::Outcome`].
    Outcome,
    /// See [`Record::Refusal`].
    Refusal,
    /// See [`Record::ConnectionRefused`].
    ConnectionRefused,
    /// See [`Record::Event`].
    Event,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Intent, Self::Outcome, Self::Refusal, Self::ConnectionRefused, Self::Event];

    /// As in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Outcome => "outcome",
            Self::Refusal => "refusal",
            Self::ConnectionRefused => "connection_refused",
            Self::Event => "event",
        }
    }
}

impl Facts<'_> {
    fn write(&self, line: &mut Line<'_>) {
        self.write_identity(line);
        if let Some(remote) = self.remote {
            line.plain("remote", remote);
        }
        if let Some(peer) = self.peer {
            line.text("peer", &peer.subject);
            line.plain("peerThumbprint", Base64Url(&peer.thumbprint));
        }
        if let Some(caller) = self.caller {
            if let Some(client_id) = &caller.client_id {
                line.text("clientId", client_id);
            }
            line.text("tokenId", &caller.token_id);
            if let Some(installation) = &caller.installation {
                line.text("installation", installation);
            }
            match &caller.sender {
                SenderKey::Dpop(thumbprint) => line.plain("senderJkt", Base64Url(thumbprint)),
                SenderKey::Certificate(thumbprint) => line.plain("senderX5t", Base64Url(thumbprint)),
            }
        }
        self.write_release(line);
        if let Some(statement) = &self.statement {
            line.text("predicateType", statement.predicate_type);
            line.pairs("subjects", statement.subjects.iter().copied().take(MAX_SUBJECTS));
            line.number("subjectCount", statement.subject_count as u64);
            line.hex("payloadSha256", statement.payload_sha256);
            line.hex("paeSha256", statement.pae_sha256);
        }
    }

    fn write_release(&self, line: &mut Line<'_>) {
        if let Some(image) = self.image {
            line.text("imageDigest", image);
        }
        if let Some(release) = &self.release {
            line.text("releaseSignedBy", release.signed_by);
            line.word("releaseEvidence", release.evidence);
            if let Some(signature) = release.signature {
                line.text("releaseSignature", signature);
            }
            if let Some(sha256) = release.signature_sha256 {
                line.text("releaseSignatureSha256", sha256);
            }
        }
        if let Some(reason) = self.untrusted {
            line.word("releaseUntrusted", reason);
        }
    }

    /// What an outcome repeats of its intent, so that most questions need one line only.
    fn write_identity(&self, line: &mut Line<'_>) {
        line.plain("auditId", self.audit_id);
        line.word("operation", self.operation);
        if let Some(caller) = self.caller {
            line.text("tenant", &caller.tenant);
            line.text("subject", &caller.subject);
        }
        if let Some(entitlement) = self.entitlement {
            line.text("license", &entitlement.license_id);
            line.text("customer", &entitlement.customer_id);
            line.text("plan", &entitlement.plan);
        }
        if let Some(key) = &self.key {
            line.text("key", key.name);
            line.text("keyid", key.keyid);
            line.text("token", key.token);
        }
        if let Some(identity) = &self.identity {
            line.text("identity", identity.name);
            line.text("san", identity.san);
            line.text("oidcIssuer", identity.issuer);
        }
        if let Some(certificate) = &self.certificate {
            line.text("certificateSha256", certificate.sha256);
            line.text("certificateExpires", certificate.expires);
            line.text("keyid", certificate.keyid);
        }
        if !self.timestamps.is_empty() {
            line.pairs("timestamps", self.timestamps.iter().map(|stamp| (stamp.authority, stamp.time)));
            let signers = self.timestamps.iter().map(|stamp| (stamp.authority, stamp.signer_sha256));
            line.pairs("timestampSigners", signers);
        }
        if let Some(mode) = self.mode {
            line.word(
                "mode",
                match mode {
                    SigningMode::Kms => "kms",
                    SigningMode::Keyless => "keyless",
                },
            );
        }
    }
}

impl Refused<'_> {
    fn write(&self, line: &mut Line<'_>) {
        line.number("status", self.status.into());
        line.word("code", self.code);
        line.word("reason", self.reason);
        if let Some(step) = self.step {
            line.word("step", step);
        }
        if let Some(detail) = self.detail {
            line.text("detail", detail);
        }
    }
}

struct Base64Url<'a>(&'a [u8; 32]);

impl fmt::Display for Base64Url<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 43];
        let length = URL_SAFE_NO_PAD.encode_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text[..length]).map_err(|_| fmt::Error)?)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Subjects recorded of one statement; the payload's digest commits to all of them.
pub const MAX_SUBJECTS: usize = 16;

/// Texts of one list in an event.
const MAX_LISTED: usize = 16;
