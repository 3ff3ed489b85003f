//! `GET /keys`: the public keys of the caller's tenant, with their states and custody; `GET /keys/NAME/custody`: the
//! signed report of it.

use std::sync::Arc;

use http::Response;
use http::request::Parts;

use super::contract::{ExceptionBody, KeyBody, KeysBody};
use super::sending::Sending;
use crate::auth::{PeerCertificate, Presented};
use crate::custody::KeyListing;
use crate::pipeline::{Appliance, Case, Refusal, custody_report, json};

/// Lists the keys of the caller's tenant as a JWK set.
///
/// # Errors
/// When the caller is not authenticated.
pub(super) async fn list(
    appliance: &Arc<Appliance>,
    case: &mut Case,
    peer: &PeerCertificate,
    head: &Parts,
) -> Result<Response<Sending>, Refusal> {
    case.asks_for("keys");
    let scopes = [READ_SCOPE, &appliance.config.authority.scope];
    let presented = Presented::of(head, peer, &scopes);
    let authenticated = appliance.authenticator.authenticate(&presented).await?;
    case.authenticated(&authenticated.caller);
    let _permit = appliance.admit_read(&authenticated.caller.tenant)?;
    let keys = appliance.custody.keys(Some(&authenticated.caller.tenant));
    let keys = KeysBody { keys: keys.into_iter().filter_map(published).collect() };
    let body = serde_json::to_vec(&keys).expect("strings always serialize");
    case.answer(|_| body, authenticated.dpop_nonce).await
}

/// The custody report of one key of the caller's tenant.
///
/// # Errors
/// When the caller is not authenticated, the tenant has no such key, or it does not sign now.
pub(super) async fn custody(
    appliance: &Arc<Appliance>,
    case: &mut Case,
    peer: &PeerCertificate,
    head: &Parts,
    name: &str,
) -> Result<Response<Sending>, Refusal> {
    case.asks_for("custody");
    let scopes = [READ_SCOPE, &appliance.config.authority.scope];
    let authenticated = appliance.authenticator.authenticate(&Presented::of(head, peer, &scopes)).await?;
    case.authenticated(&authenticated.caller);
    let _permit = appliance.admit_read(&authenticated.caller.tenant)?;
    let key = appliance.custody.named_key(Some(&authenticated.caller.tenant), name)?;
    Ok(json(custody_report(appliance, case, key).await?, authenticated.dpop_nonce))
}

/// Lets read keys and verify, without the right to sign; who may sign may do this as well.
pub(super) const READ_SCOPE: &str = "signer.read";

/// A key whose public half is known yet.
fn published(key: KeyListing) -> Option<KeyBody> {
    let (public, keyid) = key.public?;
    let (x, y) = public.jwk_coordinates();
    Some(KeyBody {
        kty: "EC",
        crv: "P-256",
        x,
        y,
        kid: keyid.to_string(),
        alg: "ES256",
        r#use: "sig",
        name: key.name.to_string(),
        state: key.state,
        token: key.tokens.split(',').next().unwrap_or_default().to_owned(),
        in_service: key.out_of_service.is_none(),
        custody: key.custody,
        custody_exceptions: key
            .exceptions
            .into_iter()
            .map(|exception| ExceptionBody { attribute: exception.attribute, reason: exception.reason })
            .collect(),
        not_before: key.not_before,
        not_after: key.not_after,
    })
}
