//! The OpTok: a JWT access token (RFC 9068) and what it must say.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Deserialize;

use super::token_cache::VerifiedToken;
use super::{AuthError, Caller, Reason, SenderKey};
use crate::clock::UnixTime;
use crate::jose::{Algorithm, Header, JoseError, NumericDate, base64url_decode};

/// What is expected of every OpTok.
pub(super) struct OpTokPolicy {
    pub(super) issuer: String,
    pub(super) audience: String,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) skew: Duration,
    pub(super) max_lifetime: Duration,
    pub(super) tenants: HashSet<Arc<str>>,
}

impl OpTokPolicy {
    /// Checks the header, before any key is looked for.
    pub(super) fn check_header(&self, header: &Header) -> Result<(), AuthError> {
        if !self.algorithms.contains(&header.alg) {
            return Err(AuthError::new(Reason::OPTOK_ALGORITHM).detail(header.alg.name()));
        }
        // RFC 9068, section 2.1, and what many Authorities still write.
        let access_token =
            header.is_typ("at+jwt") || header.typ.as_deref().is_some_and(|typ| typ.eq_ignore_ascii_case("JWT"));
        if access_token { Ok(()) } else { Err(AuthError::new(Reason::OPTOK_TYPE)) }
    }

    /// Checks the claims of a token whose signature is in order.
    pub(super) fn check_claims(
        &self,
        payload: &[u8],
        signed_by: [u8; 32],
        now: UnixTime,
    ) -> Result<VerifiedToken, AuthError> {
        let claims: Claims =
            serde_json::from_slice(payload).map_err(|error| malformed(Reason::OPTOK_CLAIMS, &error))?;
        if required(claims.iss, "iss")? != self.issuer {
            return Err(AuthError::new(Reason::OPTOK_ISSUER));
        }
        self.check_audience(claims.aud)?;
        let tenant = bounded(claims.tid.filter(|tid| !tid.is_empty()), "tid")?
            .ok_or_else(|| AuthError::new(Reason::OPTOK_TENANT_MISSING))?;
        let tenant = self.tenants.get(tenant.as_str()).ok_or_else(|| AuthError::new(Reason::OPTOK_TENANT_UNKNOWN))?;
        let subject = required(bounded(claims.sub, "sub")?, "sub")?;
        let token_id = required(bounded(claims.jti, "jti")?, "jti")?;
        let Some(NumericDate(expires_at)) = claims.exp else { return Err(missing("exp")) };
        let Some(NumericDate(issued_at)) = claims.iat else { return Err(missing("iat")) };
        if expires_at <= issued_at || expires_at.since(issued_at) > self.max_lifetime {
            let detail = format!(
                "it lives {} s, at most {} are accepted",
                expires_at.0 - issued_at.0,
                self.max_lifetime.as_secs()
            );
            return Err(AuthError::new(Reason::OPTOK_LIFETIME).detail(detail));
        }
        let Confirmation { jkt, certificate } = claims.cnf.unwrap_or_default();
        let (jkt, certificate) = (thumbprint(jkt, "jkt")?, thumbprint(certificate, "x5t#S256")?);
        let sender = match (jkt, certificate) {
            (Some(jkt), _) => SenderKey::Dpop(jkt),
            (None, Some(certificate)) => SenderKey::Certificate(certificate),
            (None, None) => return Err(AuthError::new(Reason::OPTOK_UNBOUND)),
        };
        let scope = match claims.scope {
            None => String::new(),
            Some(Text::One(scope)) => scope,
            Some(Text::Other) => return Err(AuthError::new(Reason::OPTOK_SCOPE_MALFORMED)),
        };
        let caller = Caller {
            tenant: Arc::clone(tenant),
            subject: subject.into(),
            client_id: bounded(claims.client_id, "client_id")?.map(Into::into),
            token_id: token_id.into(),
            installation: bounded(claims.inst, "inst")?.map(Into::into),
            sender,
            expires_at,
        };
        let token = VerifiedToken {
            caller: Arc::new(caller),
            jkt,
            certificate,
            scope: scope.into(),
            not_before: claims.nbf.map(|NumericDate(not_before)| not_before),
            issued_at,
            signed_by,
            proof_key: OnceLock::new(),
        };
        self.check_times(&token, now)?;
        Ok(token)
    }

    /// Checks the token's times, which passes or fails with the clock.
    pub(super) fn check_times(&self, token: &VerifiedToken, now: UnixTime) -> Result<(), AuthError> {
        let expired_at = token.caller.expires_at.plus(self.skew);
        let soon = now.plus(self.skew);
        if now >= expired_at {
            let detail = format!("{} s ago", now.since(token.caller.expires_at).as_secs());
            Err(AuthError::new(Reason::OPTOK_EXPIRED).detail(detail))
        } else if token.not_before.is_some_and(|not_before| not_before > soon) {
            Err(AuthError::new(Reason::OPTOK_NOT_YET_VALID))
        } else if token.issued_at > soon {
            let detail = format!("{} s ahead", token.issued_at.since(now).as_secs());
            Err(AuthError::new(Reason::OPTOK_ISSUED_IN_FUTURE).detail(detail))
        } else {
            Ok(())
        }
    }

    fn check_audience(&self, audience: Option<Audience>) -> Result<(), AuthError> {
        let audience = match audience {
            None => return Err(missing("aud")),
            Some(Audience::One(one)) => vec![one],
            Some(Audience::Several(several)) => several,
        };
        if audience.iter().any(|name| name.contains('*')) {
            return Err(AuthError::new(Reason::OPTOK_AUDIENCE_WILDCARD));
        }
        if audience.contains(&self.audience) { Ok(()) } else { Err(AuthError::new(Reason::OPTOK_AUDIENCE)) }
    }
}

/// What a token that cannot even be read is refused for.
pub(super) fn unreadable(error: &JoseError) -> AuthError {
    let reason = match error {
        JoseError::TooLarge { .. } => Reason::OPTOK_TOO_LARGE,
        JoseError::AlgorithmUnknown { .. } | JoseError::AlgorithmMissing => Reason::OPTOK_ALGORITHM,
        _ => Reason::OPTOK_MALFORMED,
    };
    AuthError::new(reason).detail(error.to_string())
}

/// A JSON error may quote what it found; only its kind and place are told.
pub(super) fn malformed(reason: Reason, error: &serde_json::Error) -> AuthError {
    AuthError::new(reason).detail(format!(
        "{:?} error at line {}, column {}",
        error.classify(),
        error.line(),
        error.column()
    ))
}

/// Does `scope` (RFC 6749, section 3.3) grant `required`?
pub(super) fn grants(scope: &str, required: &str) -> bool {
    scope.split(' ').any(|name| name == required)
}

#[derive(Deserialize)]
struct Claims {
    iss: Option<String>,
    sub: Option<String>,
    aud: Option<Audience>,
    exp: Option<NumericDate>,
    nbf: Option<NumericDate>,
    iat: Option<NumericDate>,
    jti: Option<String>,
    scope: Option<Text>,
    tid: Option<String>,
    inst: Option<String>,
    client_id: Option<String>,
    cnf: Option<Confirmation>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    One(String),
    #[serde(deserialize_with = "anything")]
    Other,
}

fn anything<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| ())
}

/// `cnf` (RFC 7800). Other members do not count: a token must be bound in a way that is checked here.
#[derive(Default, Deserialize)]
struct Confirmation {
    jkt: Option<String>,
    #[serde(rename = "x5t#S256")]
    certificate: Option<String>,
}

fn required(claim: Option<String>, name: &'static str) -> Result<String, AuthError> {
    claim.filter(|claim| !claim.is_empty()).ok_or_else(|| missing(name))
}

fn missing(name: &'static str) -> AuthError {
    AuthError::new(Reason::OPTOK_CLAIM_MISSING).detail(name)
}

fn bounded(claim: Option<String>, name: &'static str) -> Result<Option<String>, AuthError> {
    match claim {
        Some(claim) if claim.len() > MAX_CLAIM_BYTES => Err(AuthError::new(Reason::OPTOK_CLAIM_TOO_LONG).detail(name)),
        claim => Ok(claim),
    }
}

fn thumbprint(text: Option<String>, name: &'static str) -> Result<Option<[u8; 32]>, AuthError> {
    let Some(text) = text else { return Ok(None) };
    let thumbprint = base64url_decode(&text, name).ok().and_then(|bytes| bytes.try_into().ok());
    thumbprint.map(Some).ok_or_else(|| AuthError::new(Reason::OPTOK_CONFIRMATION).detail(name))
}

const MAX_CLAIM_BYTES: usize = 256;
