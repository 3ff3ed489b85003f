//! The custody report on its way: signed, verified and audited as every other statement.
//!
//! A report costs a signature in the HSM, and who may read keys may ask for it without a PoE. So there is at most one
//! a minute for a key; who asks again within it gets the same one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::{Appliance, Case, Refusal};
use crate::api::contract::{EnvelopeBody, SignatureBody};
use crate::custody::TenantKey;
use crate::dsse::{PAYLOAD_TYPE, Signature};
use crate::statement::Statement;
use crate::telemetry::Stage;

/// The last report of each key.
#[derive(Default)]
pub(crate) struct Reports(Mutex<HashMap<Arc<str>, Arc<Place>>>);

/// Locked while a report is made, so that those who ask at the same time share it.
type Place = tokio::sync::Mutex<Option<(Instant, Vec<u8>)>>;

impl Reports {
    fn of(&self, key: &Arc<str>) -> Arc<Place> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(places.entry(Arc::clone(key)).or_default())
    }
}

/// A DSSE envelope with the custody report of this key.
///
/// # Errors
/// When the key does not sign now, or the log does not take the records.
pub(crate) async fn custody_report(
    appliance: &Arc<Appliance>,
    case: &mut Case,
    key: TenantKey,
) -> Result<Vec<u8>, Refusal> {
    let statement = appliance.custody.report(&key).map_err(|error| Refusal::lost(&error))?;
    let task = tokio::spawn(kept_or_made(Arc::clone(appliance), case.hand_over(), key, statement));
    task.await.map_err(|error| Refusal::lost(&error))?
}

async fn kept_or_made(
    appliance: Arc<Appliance>,
    mut case: Case,
    key: TenantKey,
    statement: Statement,
) -> Result<Vec<u8>, Refusal> {
    let place = appliance.reports.of(key.name());
    let mut kept = place.lock().await;
    if let Some((_, report)) = kept.as_ref().filter(|(made, _)| made.elapsed() < KEPT) {
        let report = report.clone();
        drop(kept);
        case.record_outcome(None).await?;
        return Ok(report);
    }
    case.asks_for("attest");
    case.stated(&statement);
    case.resolved_key(key.key());
    if let Err(refusal) = case.record_intent().await {
        case.abandon(&refusal);
        return Err(refusal);
    }
    let signed = sign(&appliance, &mut case, &key, &statement).await;
    case.record_outcome(signed.as_ref().err()).await?;
    let report = signed?;
    *kept = Some((Instant::now(), report.clone()));
    Ok(report)
}

async fn sign(
    appliance: &Appliance,
    case: &mut Case,
    key: &TenantKey,
    statement: &Statement,
) -> Result<Vec<u8>, Refusal> {
    // Custody verifies the signature against the pinned key before it hands it over.
    let signed = appliance.custody.sign(key, statement.pae_sha256(), case.deadline()).await?;
    let signature = Signature::from_raw(&signed.signature).map_err(|error| Refusal::lost(&error))?.to_der();
    case.signed_in(&signed.token);
    let envelope = EnvelopeBody {
        payload_type: PAYLOAD_TYPE.to_owned(),
        payload: BASE64_STANDARD.encode(statement.canonical()),
        signatures: vec![SignatureBody {
            keyid: Some(key.keyid().to_string()),
            sig: BASE64_STANDARD.encode(&*signature),
        }],
    };
    case.passed(Stage::Verify);
    serde_json::to_vec(&envelope).map_err(|error| Refusal::lost(&error))
}

const KEPT: Duration = Duration::from_secs(60);
