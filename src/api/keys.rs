//! `GET /keys`: the public keys of the caller's tenant, with their states and custody.

use std::sync::Arc;

use http::Response;
use http::request::Parts;

use super::contract::{CustodyBody, KeyBody, KeysBody};
use super::sending::Sending;
use crate::auth::{PeerCertificate, Presented};
use crate::custody::KeyListing;
use crate::pipeline::{Appliance, Case, Refusal};

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
        token: key.token.to_string(),
        in_service: key.out_of_service.is_none(),
        custody: key.attributes.map(|attributes| CustodyBody {
            sensitive: attributes.sensitive,
            always_sensitive: attributes.always_sensitive,
            extractable: attributes.extractable,
            never_extractable: attributes.never_extractable,
            local: attributes.local,
        }),
        not_before: key.not_before,
        not_after: key.not_after,
    })
}
