//! `POST /verify/dsse`: whether a key of the caller's tenant signed an envelope.

use std::sync::Arc;

use http::Response;
use http::request::Parts;
use hyper::body::Incoming;

use super::body;
use super::contract::{SubjectBody, VerifiedKeyBody, VerifyResponseBody};
use super::keys::READ_SCOPE;
use super::request::VerifyRequest;
use super::sending::Sending;
use crate::audit::AuditId;
use crate::auth::{PeerCertificate, Presented};
use crate::config::KeyState;
use crate::custody::KeyListing;
use crate::dsse::{Envelope, PublicKey};
use crate::pipeline::{Appliance, Case, Refusal, off_the_loop_if_large};
use crate::statement::{ReadStatement, Subject};

/// Verifies one envelope against the current and retired keys of the caller's tenant.
///
/// # Errors
/// When the caller is not authenticated, or the body is no envelope.
pub(super) async fn dsse(
    appliance: &Arc<Appliance>,
    case: &mut Case,
    peer: &PeerCertificate,
    head: &Parts,
    incoming: &mut Option<Incoming>,
) -> Result<Response<Sending>, Refusal> {
    case.asks_for("verify");
    let scopes = [READ_SCOPE, &appliance.config.authority.scope];
    let presented = Presented::of(head, peer, &scopes);
    let authenticated = appliance.authenticator.authenticate(&presented).await?;
    case.authenticated(&authenticated.caller);
    let _permit = appliance.admit_read(&authenticated.caller.tenant)?;
    let (bytes, held) = body::take(&head.headers, incoming, &appliance.config.server.limits, &appliance.bodies).await?;
    let keys = appliance.custody.keys(Some(&authenticated.caller.tenant));
    let judged = off_the_loop_if_large(bytes.len() as u64, move || {
        let verdict = VerifyRequest::parse(bytes).map(|request| judge(&request.envelope, keys));
        (verdict, held)
    });
    let (verdict, _held) = judged.await?;
    let verdict = verdict?;
    case.answer(|audit_id| verdict.body(audit_id), authenticated.dpop_nonce).await
}

enum Verdict {
    Good { key: VerifiedKeyBody, statement: ReadStatement },
    Bad(&'static str),
}

fn judge(envelope: &Envelope, keys: Vec<KeyListing>) -> Verdict {
    let mut reason = "unknown_key";
    for key in keys.into_iter().filter(|key| key.state != KeyState::Next) {
        let Some((public, keyid)) = key.public else { continue };
        // A keyid is a hint that nobody signed: it can rule keys out, never vouch for one.
        if envelope.keyid.as_deref().is_some_and(|named| named != &*keyid) {
            continue;
        }
        reason = "signature_mismatch";
        let Ok(public) = PublicKey::from_sec1(public.sec1()) else { continue };
        if envelope.verify(&public).is_err() {
            continue;
        }
        return match ReadStatement::parse(envelope.payload.clone()) {
            Ok(statement) => {
                let key = VerifiedKeyBody { name: key.name.to_string(), keyid: keyid.to_string(), state: key.state };
                Verdict::Good { key, statement }
            }
            Err(_) => Verdict::Bad("not_a_statement"),
        };
    }
    Verdict::Bad(reason)
}

impl Verdict {
    fn body(self, audit_id: AuditId) -> Vec<u8> {
        let mut body = VerifyResponseBody {
            verified: false,
            reason: None,
            key: None,
            predicate_type: None,
            subject: None,
            audit_id: audit_id.to_string(),
        };
        match self {
            Self::Bad(reason) => body.reason = Some(reason.to_owned()),
            Self::Good { key, statement } => {
                body.verified = true;
                body.key = Some(key);
                body.predicate_type = Some(statement.predicate_type);
                body.subject = Some(statement.subjects.iter().map(subject).collect());
            }
        }
        serde_json::to_vec(&body).expect("strings always serialize")
    }
}

fn subject(subject: &Subject) -> SubjectBody {
    let digest = subject.digest.iter().map(|(algorithm, hex)| (algorithm.to_string(), hex.to_string()));
    SubjectBody { name: subject.name.as_ref().map(ToString::to_string), digest: digest.collect() }
}
