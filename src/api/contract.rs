//! The bodies of the Signer API as types: the OpenAPI document is made from them, and what is not on the hot path is
//! serialized from them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::config::{KeyState, SigningMode};
use crate::custody::GateAttribute;
use crate::custody::evidence::KeyCustody;

/// Body of `POST /sign/dsse`. `api::request` reads it; unknown members are refused at every level but inside
/// `predicate`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignRequestBody {
    /// What the statement is about: 1 to 1,024 artifacts.
    #[schemars(length(min = 1, max = 1024))]
    pub subject: Vec<SubjectBody>,
    /// A type of the catalog.
    pub predicate_type: String,
    /// The predicate, any JSON object that RFC 8785 carries without loss.
    pub predicate: BTreeMap<String, Value>,
    /// The image that made the evidence.
    #[schemars(regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub scanner_image_digest: String,
    /// Proof of Entitlement; here or in the `X-PoE` header, never both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poe: Option<PoeBody>,
    /// How to sign and what to return.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<OptionsBody>,
}

/// One artifact.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubjectBody {
    /// What the artifact is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its digests by algorithm, in lowercase hexadecimal: 1 to 32.
    pub digest: BTreeMap<String, String>,
}

/// A Proof of Entitlement.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoeBody {
    /// What it is.
    pub format: PoeFormatBody,
    /// Itself.
    pub value: String,
}

/// The forms of a Proof of Entitlement.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PoeFormatBody {
    /// A JWT signed by the Licensing Service.
    Jwt,
    /// A reference that the Licensing Service is asked about.
    Opaque,
}

/// `options` of `POST /sign/dsse`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OptionsBody {
    /// Absent: the tenant's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_mode: Option<SigningMode>,
    /// Wanted life of a certificate in seconds, a hint for keyless signing: Fulcio decides how long one lives. A certificate
    /// that was used before is not used again when it lives shorter than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiry_seconds: Option<u32>,
    /// Absent: `dsse+cert`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_bundle: Option<ReturnBundleBody>,
}

/// What a signature comes back in.
#[derive(Serialize, JsonSchema)]
pub enum ReturnBundleBody {
    /// The envelope.
    #[serde(rename = "dsse")]
    Dsse,
    /// The envelope and the key's certificate chain.
    #[serde(rename = "dsse+cert")]
    DsseCert,
    /// A Sigstore bundle v0.3 beside the envelope.
    #[serde(rename = "sigstore")]
    Sigstore,
}

/// 200 of `POST /sign/dsse`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignResponseBody {
    /// The signature and what verifies it.
    pub bundle: BundleBody,
    /// What the plan has left.
    pub policy: PolicyBody,
    /// The audit record of this signature.
    pub audit_id: String,
}

/// `bundle` of `POST /sign/dsse`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BundleBody {
    /// The DSSE envelope; with `sigstore` it is inside that bundle instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dsse: Option<EnvelopeBody>,
    /// PEM, leaf first; only with `dsse+cert`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_chain: Option<Vec<String>>,
    /// A Sigstore bundle v0.3; only with `sigstore`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigstore: Option<Value>,
    /// How it was signed.
    pub mode: SigningMode,
    /// By which key, or under which identity.
    pub signing_identity: SigningIdentityBody,
}

/// A DSSE envelope (dsse `envelope.md`).
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvelopeBody {
    /// `application/vnd.in-toto+json`.
    pub payload_type: String,
    /// The statement, in base64.
    pub payload: String,
    /// Exactly one from this appliance.
    pub signatures: Vec<SignatureBody>,
}

/// One signature of an envelope.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignatureBody {
    /// SSH fingerprint of the public key: `SHA256:` and unpadded base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keyid: Option<String>,
    /// ECDSA P-256 with SHA-256 over the PAE, ASN.1 DER, in base64.
    pub sig: String,
}

/// Who signed.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub enum SigningIdentityBody {
    /// With `kms`: a key in a token.
    Key(KeyIdentityBody),
    /// With `keyless`: whoever Fulcio issued the certificate to.
    Certificate(CertificateIdentityBody),
}

/// The certificate of a keyless signature.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateIdentityBody {
    /// The OIDC issuer that vouched for the identity.
    pub issuer: String,
    /// The subject alternative name: a URI or an email address.
    pub san: String,
    /// Until when the certificate is valid (RFC 3339).
    pub cert_expiry: String,
}

/// The key that signed.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyIdentityBody {
    /// The key's name in the appliance.
    pub key_id: String,
    /// The token that holds it.
    pub token: String,
    /// How the token holds it.
    pub custody: String,
}

/// `policy` of `POST /sign/dsse`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyBody {
    /// The plan's name.
    pub plan: String,
    /// Largest request body that it allows.
    pub max_artifact_bytes: u64,
    /// Signatures that may come at once now.
    pub qps_remaining: u32,
}

/// 200 of `GET /keys`: a JWK set (RFC 7517, section 5) of the caller's tenant.
#[derive(Serialize, JsonSchema)]
pub struct KeysBody {
    /// The keys, in the order of their names.
    pub keys: Vec<KeyBody>,
}

/// One public key with its state. `kid` is the `keyid` of envelopes.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyBody {
    /// `EC`.
    pub kty: &'static str,
    /// `P-256`.
    pub crv: &'static str,
    /// X coordinate, base64url.
    pub x: String,
    /// Y coordinate, base64url.
    pub y: String,
    /// SSH fingerprint: `SHA256:` and unpadded base64.
    pub kid: String,
    /// `ES256`.
    pub alg: &'static str,
    /// `sig`.
    pub r#use: &'static str,
    /// The key's name in the appliance.
    pub name: String,
    /// `next`, `active` or `retired`.
    pub state: KeyState,
    /// The token that holds it; of several, the first in the configuration.
    pub token: String,
    /// Whether any token may sign with it now; a key that fails custody or verification in all is out of service.
    pub in_service: bool,
    /// How each token holds it, with what the device says of it.
    pub custody: Vec<KeyCustody>,
    /// What the operator lets pass at the custody gate.
    pub custody_exceptions: Vec<ExceptionBody>,
    /// Signs from this moment on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub not_before: Option<Timestamp>,
    /// Signs up to this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub not_after: Option<Timestamp>,
}

/// What the operator lets pass at the custody gate, which would refuse the key otherwise.
#[derive(Serialize, JsonSchema)]
pub struct ExceptionBody {
    /// The attribute.
    pub attribute: GateAttribute,
    /// The operator's reason.
    pub reason: String,
}

/// Body of `POST /verify/dsse`.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequestBody {
    /// The envelope to check.
    pub envelope: EnvelopeBody,
}

/// 200 of `POST /verify/dsse`, for a good signature and for a bad one.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerifyResponseBody {
    /// Whether a current or retired key of the caller's tenant signed exactly this.
    pub verified: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The key that signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<VerifiedKeyBody>,
    /// What the statement says of its predicate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicate_type: Option<String>,
    /// What the statement is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Vec<SubjectBody>>,
    /// The audit record of this answer.
    pub audit_id: String,
}

/// 200 of `GET /verify/referrers`, for a trusted image and for another.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReferrersResponseBody {
    /// Whether the image is a trusted release.
    pub trusted: bool,
    /// The image that was asked about.
    pub image_digest: String,
    /// What it is trusted for; empty when it is not.
    pub signatures: Vec<ReleaseSignatureBody>,
    /// Why it is not: the check that failed, of the signature that came furthest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The audit record of this answer.
    pub audit_id: String,
}

/// Why an image is trusted.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseSignatureBody {
    /// `cosign` or `notation` for a signature, by who makes such; `operator` for the operator's word.
    pub r#type: &'static str,
    /// Digest of the signature's manifest; none of an operator's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// SHA-256 of the signature's bytes, in hexadecimal: one manifest may hold several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature_sha256: Option<String>,
    /// Who signed or vouches.
    pub signed_by: String,
}

/// The key that an envelope verified against.
#[derive(Serialize, JsonSchema)]
pub struct VerifiedKeyBody {
    /// Its name in the appliance.
    pub name: String,
    /// SSH fingerprint.
    pub keyid: String,
    /// Its state now.
    pub state: KeyState,
}
