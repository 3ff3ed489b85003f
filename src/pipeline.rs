//! The way of a request, top to bottom.
//!
//! [`sign`] is the product. Each step is one call into its own module and returns a value that proves the step was
//! done: no `Caller` without authentication, no `Entitlement` without a PoE, no `TrustedRelease` without somebody who
//! vouches for the scanner, no signature outside without a durable record of it.
//!
//! The caller is authenticated by the headers alone, before a byte of the body is read: what is cheap to refuse is
//! refused first. From the moment the intent is recorded the rest runs in a task of its own, so that a client that
//! goes away cannot leave an intent without an outcome. When the time of the request is up before that outcome is written,
//! the outcome is that; once it is being written, the caller is told what is written ([`Verdict`]).

#![forbid(unsafe_code)]

mod appliance;
mod assembly;
mod case;
mod live;
mod part;
mod refusal;
mod report;
mod signer;
mod verdict;

use std::sync::Arc;
use std::time::Instant;

use http::HeaderName;
use http::request::Parts;
use hyper::body::Incoming;

use crate::api::request::{Options, SignRequest};
use crate::api::response::Answer;
use crate::api::{Held, take_body};
use crate::auth::{Authenticated, PeerCertificate, Presented};
use crate::dsse::Bundle;
use crate::entitlement::{Entitlement, PoeError, PresentedPoe};
use crate::quota::Permit;
use crate::statement::Statement;
use crate::telemetry::Stage;

pub(crate) use appliance::Appliance;
pub(crate) use assembly::Standing;
pub(crate) use case::{Case, json};
pub(crate) use live::{Live, ReloadError, Reloaded};
pub(crate) use refusal::{RATE_LIMIT, RATE_LIMIT_POLICY, Refusal};
pub(crate) use report::custody_report;
pub(crate) use verdict::Verdict;

use signer::Signer;

/// Signs what an authenticated, entitled caller sent, or says why not.
///
/// # Errors
/// A [`Refusal`] carries the problem for the caller and the reason for the audit record.
pub(crate) async fn sign(
    appliance: &Arc<Appliance>,
    case: &mut Case,
    peer: &PeerCertificate,
    head: &Parts,
    incoming: &mut Option<Incoming>,
) -> Result<Answer, Refusal> {
    case.asks_for("sign");

    // Who is calling, and is the token theirs?
    let scopes = [appliance.config.authority.scope.as_str()];
    let presented = Presented::of(head, peer, &scopes);
    let Authenticated { caller, dpop_nonce } = appliance.authenticator.authenticate(&presented).await?;
    case.authenticated(&caller);

    // What do they ask?
    let (bytes, held) = take_body(&head.headers, incoming, &appliance.config.server.limits, &appliance.bodies).await?;
    let body_bytes = bytes.len() as u64;
    let (request, held) = off_the_loop_if_large(body_bytes, move || (SignRequest::parse(bytes), held)).await?;
    let request = request?;
    case.passed(Stage::Read);

    // What are they entitled to?
    let poe = presented_poe(head, &request)?;
    let entitlement = appliance.entitlements.entitle(poe, &caller, request.stellaops_version()).await?;
    case.entitled(&entitlement);

    // May it run now?
    let permit = appliance.quotas.admit(&caller.tenant, &entitlement, body_bytes, Instant::now())?;
    case.passed(Stage::Admit);

    // Was the evidence made by a released scanner?
    case.asks_about(request.scanner_image_digest());
    let release = appliance.releases.check(request.scanner_image_digest(), &caller.tenant).await?;
    case.released(release);

    // What exactly will be signed?
    let tenant = appliance.tenant(&caller)?;
    tenant.allows(request.predicate_type())?;
    let options = request.options();
    let (statement, held) = off_the_loop_if_large(body_bytes, move || (request.into_statement(), held)).await?;
    case.stated(&statement);

    // By which key, or under which identity?
    let signer = appliance.signer(&caller.tenant, options.signing_mode.unwrap_or(tenant.default_mode))?;
    case.resolved(&signer);

    // Record the intent, sign, verify, record the outcome.
    let order = Order { statement, signer, options, entitlement, permit, held };
    let task = tokio::spawn(fulfil(Arc::clone(appliance), case.hand_over(), order));
    let (body, permit, held) = task.await.map_err(|error| Refusal::lost(&error))??;
    Ok(Answer { body, permit, held, dpop_nonce })
}

/// Everything that was authorised, and nothing that was not.
struct Order {
    statement: Statement,
    signer: Signer,
    options: Options,
    entitlement: Arc<Entitlement>,
    permit: Permit,
    held: Held,
}

/// Signs an authorised order: after this function has recorded the intent, it records the outcome, whatever happens.
async fn fulfil(appliance: Arc<Appliance>, mut case: Case, order: Order) -> Result<(Vec<u8>, Permit, Held), Refusal> {
    if let Err(refusal) = case.record_intent().await {
        // Nothing was signed and nothing can be recorded: the case goes back with nothing to tell.
        case.abandon(&refusal);
        return Err(refusal);
    }
    let signed = sign_and_check(&appliance, &mut case, &order).await;
    case.record_outcome(signed.as_ref().err()).await?;
    Ok((signed?, order.permit, order.held))
}

/// Has it signed, and writes an answer that was read back and found to be what was authorised.
async fn sign_and_check(appliance: &Appliance, case: &mut Case, order: &Order) -> Result<Vec<u8>, Refusal> {
    let Order { statement, signer, options, entitlement, permit, held: _ } = order;
    let deadline = case.deadline();
    let mut signed = appliance.sign(signer, statement.pae_sha256(), *options, deadline).await?;
    case.signed(&signed);

    // When was it signed, says somebody else?
    appliance.stamp(&mut signed, *options, deadline).await?;
    case.stamped(&signed);

    let timestamps = signed.timestamps();
    let bundle = Bundle {
        statement: statement.canonical(),
        signature: signed.signature(),
        keyid: signed.keyid(),
        form: signed.form(options.return_bundle, &timestamps),
        by: signed.by(),
    };
    let body = Answer::write(&bundle, entitlement, permit, case.audit_id());
    bundle.reread(&body)?;
    appliance.metrics.bundle_bytes.inc_by(body.len() as u64);
    case.passed(Stage::Verify);
    Ok(body)
}

/// The PoE of the body or of the `X-PoE` header, never both.
fn presented_poe<'a>(head: &'a Parts, request: &'a SignRequest) -> Result<PresentedPoe<'a>, Refusal> {
    let mut headers = head.headers.get_all(X_POE).iter();
    match (request.poe(), headers.next(), headers.next()) {
        (Some((format, value)), None, _) => Ok(PresentedPoe { format, value }),
        (None, Some(value), None) => match value.to_str() {
            Ok(value) => Ok(PresentedPoe::from_header(value)),
            Err(_) => Err(Refusal::poe_placement("X-PoE must be printable ASCII")),
        },
        (None, None, _) => Err(PoeError::Missing.into()),
        (Some(_), Some(_), _) => Err(Refusal::poe_placement("send the PoE in the body or in X-PoE, not in both")),
        (None, Some(_), Some(_)) => Err(Refusal::poe_placement("send X-PoE once")),
    }
}

/// Runs `work` here, or on a thread of its own where it would keep this event loop's other requests waiting.
pub(crate) async fn off_the_loop_if_large<T: Send + 'static>(
    bytes: u64,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    if bytes <= LARGE {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| Refusal::lost(&error))
}

const X_POE: HeaderName = HeaderName::from_static("x-poe");

/// Bodies above this take longer to parse and canonicalize than a request may hold up others: about 0.5 ms.
const LARGE: u64 = 256 * 1024;
