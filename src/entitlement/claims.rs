//! The claims of a PoE, from the JSON of a JWT or of an introspection answer.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::version::Version;
use super::{PoeError, json};
use crate::clock::UnixTime;
use crate::jose::{NumericDate, base64url_decode};

/// The claims, each of them readable; which of them must be there is decided by [`require`].
#[derive(Debug)]
pub(super) struct Claims {
    pub(super) issuer: Option<Text>,
    pub(super) subject: Option<Text>,
    pub(super) audience: Option<Audience>,
    pub(super) issued_at: Option<UnixTime>,
    pub(super) not_before: Option<UnixTime>,
    pub(super) expires_at: Option<UnixTime>,
    pub(super) token_id: Option<Text>,
    pub(super) tenant: Option<Text>,
    pub(super) license_id: Option<Text>,
    pub(super) customer_id: Option<Text>,
    pub(super) plan: Option<Text>,
    pub(super) valid_release_year: Option<u32>,
    pub(super) max_version: Option<Version>,
    pub(super) limits: ClaimedLimits,
    pub(super) confirmation: Option<Confirmation>,
}

/// The limits that a PoE names itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ClaimedLimits {
    pub(super) qps: Option<NonZeroU32>,
    pub(super) burst: Option<NonZeroU32>,
    pub(super) concurrency: Option<NonZeroU32>,
    pub(super) max_artifact_bytes: Option<NonZeroU64>,
}

/// The key that a PoE is bound to (RFC 7800, section 3.1: one and only one).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawConfirmation")]
pub(super) enum Confirmation {
    /// `jkt` (RFC 9449, section 6.1).
    Dpop([u8; 32]),
    /// `x5t#S256` (RFC 8705, section 3.1).
    Certificate([u8; 32]),
}

/// `aud` (RFC 7519, section 4.1.3).
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Many(Vec<String>),
}

/// A name from outside that goes into audit records: not empty, bounded, without control characters.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Text(pub(super) Arc<str>);

impl Claims {
    /// Reads claims. A claim that is `null` counts as absent; claims that it does not know are ignored (RFC 7519,
    /// section 4).
    ///
    /// # Errors
    /// [`PoeError::Payload`] when there is no JSON object or a claim occurs twice, [`PoeError::Claim`] for the first
    /// claim that is not of its type.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, PoeError> {
        let raw: RawClaims = json::parse(payload).map_err(|source| PoeError::Payload { source })?;
        let time = |claim, date: Option<Claimed<NumericDate>>| Ok(readable(claim, date)?.map(|NumericDate(at)| at));
        Ok(Self {
            issuer: readable(Claim::Iss, raw.iss)?,
            subject: readable(Claim::Sub, raw.sub)?,
            audience: readable(Claim::Aud, raw.aud)?,
            issued_at: time(Claim::Iat, raw.iat)?,
            not_before: time(Claim::Nbf, raw.nbf)?,
            expires_at: time(Claim::Exp, raw.exp)?,
            token_id: readable(Claim::Jti, raw.jti)?,
            tenant: readable(Claim::Tid, raw.tid)?,
            license_id: readable(Claim::LicenseId, raw.license_id)?,
            customer_id: readable(Claim::CustomerId, raw.customer_id)?,
            plan: one_plan(readable(Claim::Plan, raw.plan)?, readable(Claim::Tier, raw.tier)?)?,
            valid_release_year: readable(Claim::ValidReleaseYear, raw.valid_release_year)?.map(|Year(year)| year),
            max_version: readable(Claim::MaxVersion, raw.max_version)?.map(|MaxVersion(version)| version),
            limits: readable(Claim::Limits, raw.limits)?.map(ClaimedLimits::read).transpose()?.unwrap_or_default(),
            confirmation: readable(Claim::Cnf, raw.cnf)?,
        })
    }
}

impl Audience {
    pub(super) fn names(&self, us: &str) -> bool {
        match self {
            Self::One(audience) => audience == us,
            Self::Many(audiences) => audiences.iter().any(|audience| audience == us),
        }
    }
}

/// The value of a claim that must be there.
///
/// # Errors
/// [`PoeError::Claim`] when it is not.
pub(super) fn require<T>(claim: Claim, value: Option<T>) -> Result<T, PoeError> {
    value.ok_or(PoeError::Claim { claim, fault: Fault::Missing })
}

/// What is wrong with a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is absent and must not be.
    Missing,
    /// It is not of its type or out of its range.
    Invalid,
    /// It is readable, and not what it must equal.
    Mismatch,
}

impl Fault {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Missing => "is missing",
            Self::Invalid => "is not of its type or out of its range",
            Self::Mismatch => "is not the one expected",
        }
    }
}

macro_rules! claims {
    ($($(#[$doc:meta])* $variant:ident: $name:literal, $slug:literal;)*) => {
        /// A claim of a PoE.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Claim {
            $($(#[$doc])* $variant,)*
        }

        impl Claim {
            /// As it is written.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            pub(super) fn reason(self, fault: Fault) -> &'static str {
                match (self, fault) {
                    $((Self::$variant, Fault::Missing) => concat!("poe_", $slug, "_missing"),
                      (Self::$variant, Fault::Invalid) => concat!("poe_", $slug, "_invalid"),
                      (Self::$variant, Fault::Mismatch) => concat!("poe_", $slug, "_mismatch"),)*
                }
            }
        }
    };
}

claims! {
    /// Who issued it.
    Iss: "iss", "iss";
    /// Whom it entitles.
    Sub: "sub", "sub";
    /// Whom it is meant for.
    Aud: "aud", "aud";
    /// Issued at.
    Iat: "iat", "iat";
    /// Not before.
    Nbf: "nbf", "nbf";
    /// Expires at.
    Exp: "exp", "exp";
    /// Its own identifier.
    Jti: "jti", "jti";
    /// The tenant.
    Tid: "tid", "tid";
    /// The licence.
    LicenseId: "license_id", "license_id";
    /// The customer.
    CustomerId: "customer_id", "customer_id";
    /// The plan.
    Plan: "plan", "plan";
    /// The plan, by its other name.
    Tier: "tier", "tier";
    /// The last release year that the licence covers.
    ValidReleaseYear: "valid_release_year", "valid_release_year";
    /// The last version that the licence covers.
    MaxVersion: "max_version", "max_version";
    /// Limits of its own.
    Limits: "limits", "limits";
    /// Sustained requests per second.
    LimitsQps: "limits.qps", "limits_qps";
    /// Requests at once.
    LimitsBurst: "limits.burst", "limits_burst";
    /// Requests in progress at once.
    LimitsConcurrency: "limits.concurrency", "limits_concurrency";
    /// Largest artifact.
    LimitsMaxArtifactBytes: "limits.max_artifact_bytes", "limits_max_artifact_bytes";
    /// The key that it is bound to.
    Cnf: "cnf", "cnf";
}

// Every claim is read as "its type, or anything", so that a wrong type is reported by the claim's name. Duplicates are
// still refused: the derived visitors see every member.
#[derive(Deserialize)]
struct RawClaims {
    iss: Option<Claimed<Text>>,
    sub: Option<Claimed<Text>>,
    aud: Option<Claimed<Audience>>,
    iat: Option<Claimed<NumericDate>>,
    nbf: Option<Claimed<NumericDate>>,
    exp: Option<Claimed<NumericDate>>,
    jti: Option<Claimed<Text>>,
    tid: Option<Claimed<Text>>,
    license_id: Option<Claimed<Text>>,
    customer_id: Option<Claimed<Text>>,
    plan: Option<Claimed<Text>>,
    tier: Option<Claimed<Text>>,
    valid_release_year: Option<Claimed<Year>>,
    max_version: Option<Claimed<MaxVersion>>,
    limits: Option<Claimed<RawLimits>>,
    cnf: Option<Claimed<Confirmation>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Claimed<T> {
    Readable(T),
    Unreadable(IgnoredAny),
}

#[derive(Deserialize)]
struct RawLimits {
    qps: Option<Claimed<NonZeroU32>>,
    burst: Option<Claimed<NonZeroU32>>,
    concurrency: Option<Claimed<NonZeroU32>>,
    max_artifact_bytes: Option<Claimed<NonZeroU64>>,
}

#[derive(Deserialize)]
struct RawConfirmation {
    jkt: Option<String>,
    #[serde(rename = "x5t#S256")]
    x5t_s256: Option<String>,
}

#[derive(Deserialize)]
#[serde(try_from = "u32")]
struct Year(u32);

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct MaxVersion(Version);

fn readable<T>(claim: Claim, claimed: Option<Claimed<T>>) -> Result<Option<T>, PoeError> {
    match claimed {
        None => Ok(None),
        Some(Claimed::Readable(value)) => Ok(Some(value)),
        Some(Claimed::Unreadable(_)) => Err(PoeError::Claim { claim, fault: Fault::Invalid }),
    }
}

/// `plan` and `tier` are two names of one thing; when both are there, they must agree.
fn one_plan(plan: Option<Text>, tier: Option<Text>) -> Result<Option<Text>, PoeError> {
    match (plan, tier) {
        (Some(plan), Some(tier)) if plan != tier => Err(PoeError::Claim { claim: Claim::Tier, fault: Fault::Mismatch }),
        (plan, tier) => Ok(plan.or(tier)),
    }
}

impl ClaimedLimits {
    fn read(raw: RawLimits) -> Result<Self, PoeError> {
        Ok(Self {
            qps: readable(Claim::LimitsQps, raw.qps)?,
            burst: readable(Claim::LimitsBurst, raw.burst)?,
            concurrency: readable(Claim::LimitsConcurrency, raw.concurrency)?,
            max_artifact_bytes: readable(Claim::LimitsMaxArtifactBytes, raw.max_artifact_bytes)?,
        })
    }
}

impl TryFrom<String> for Text {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.is_empty() || text.len() > MAX_TEXT_BYTES || text.chars().any(char::is_control) {
            return Err("a name has 1 to 256 bytes and no control characters");
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<u32> for Year {
    type Error = &'static str;

    fn try_from(year: u32) -> Result<Self, Self::Error> {
        if (2000..=9999).contains(&year) { Ok(Self(year)) } else { Err("a year from 2000 to 9999") }
    }
}

impl TryFrom<String> for MaxVersion {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self).map_err(|_| "a version like 2026.03.1 or 1.2.3")
    }
}

impl TryFrom<RawConfirmation> for Confirmation {
    type Error = &'static str;

    fn try_from(raw: RawConfirmation) -> Result<Self, Self::Error> {
        let thumbprint = |text: &str| -> Result<[u8; 32], Self::Error> {
            let bytes = base64url_decode(text, "confirmation").map_err(|_| "unpadded base64url")?;
            bytes.try_into().map_err(|_| "a SHA-256 thumbprint of 32 bytes")
        };
        match (raw.jkt, raw.x5t_s256) {
            (Some(jkt), None) => thumbprint(&jkt).map(Self::Dpop),
            (None, Some(x5t)) => thumbprint(&x5t).map(Self::Certificate),
            _ => Err("exactly one of `jkt` and `x5t#S256`"),
        }
    }
}

const MAX_TEXT_BYTES: usize = 256;
