//! The case file of one request: what is known of it so far, for the audit record that ends it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Response};

use super::signer::{Signed, Signer};
use super::{Appliance, Refusal, Verdict};
use crate::api::Sending;
use crate::audit::{
    Append, AuditId, CertificateFacts, Facts, IdentityFacts, KeyFacts, MAX_SUBJECTS, Record, ReleaseFacts, StampFacts,
    StatementFacts,
};
use crate::auth::{Caller, PeerCertificate};
use crate::config::SigningMode;
use crate::custody::SigningKey;
use crate::entitlement::Entitlement;
use crate::keyless::{Issued, TenantIdentity};
use crate::release::TrustedRelease;
use crate::statement::Statement;
use crate::telemetry::Stage;
use crate::timestamp::StampedDer;

/// One request, from its first byte to its last record. A case that is dropped while it is open, because the client
/// went away, records that too.
pub(crate) struct Case {
    known: Option<Box<Known>>,
    audit_id: AuditId,
    opened: Instant,
    patience: Duration,
    verdict: Arc<Verdict>,
}

/// A timestamp in the form of the record.
struct Stamped {
    authority: String,
    time: String,
    signer_sha256: String,
}

struct Known {
    appliance: Arc<Appliance>,
    audit_id: AuditId,
    operation: &'static str,
    remote: Option<SocketAddr>,
    peer: Option<Arc<PeerCertificate>>,
    caller: Option<Arc<Caller>>,
    entitlement: Option<Arc<Entitlement>>,
    /// The scanner image that was asked about, and why it is not trusted where that is the answer.
    image: Option<Arc<str>>,
    untrusted: Option<&'static str>,
    release: Option<TrustedRelease>,
    statement: Option<Stated>,
    key: Option<Arc<SigningKey>>,
    /// Of the key's tokens, the one that signed.
    token: Option<Arc<str>>,
    /// As whom it is signed, where no key of ours signs.
    identity: Option<Arc<TenantIdentity>>,
    /// The certificate that was issued for it.
    issued: Option<Arc<Issued>>,
    /// Who stamped the signature, and when.
    stamps: Vec<Stamped>,
    /// An intent is in the log, which an outcome must follow.
    intended: bool,
    started: Instant,
    stage_began: Instant,
}

/// Of a statement, what the record says; the statement itself goes on to be signed.
struct Stated {
    predicate_type: &'static str,
    subjects: Vec<(Arc<str>, Arc<str>)>,
    subject_count: usize,
    payload_sha256: [u8; 32],
    pae_sha256: [u8; 32],
}

impl Case {
    /// Opens a case at the first sight of a request to the Signer API.
    pub(crate) fn open(appliance: &Arc<Appliance>, peer: &Arc<PeerCertificate>, remote: SocketAddr) -> Self {
        Self::opened(appliance, Some(Arc::clone(peer)), Some(remote))
    }

    /// Opens a case of the operator's, which came by the local listener.
    pub(crate) fn open_local(appliance: &Arc<Appliance>) -> Self {
        Self::opened(appliance, None, None)
    }

    fn opened(appliance: &Arc<Appliance>, peer: Option<Arc<PeerCertificate>>, remote: Option<SocketAddr>) -> Self {
        let audit_id = AuditId::new();
        let now = Instant::now();
        let known = Known {
            appliance: Arc::clone(appliance),
            audit_id,
            operation: "unknown",
            remote,
            peer,
            caller: None,
            entitlement: None,
            image: None,
            untrusted: None,
            release: None,
            statement: None,
            key: None,
            token: None,
            identity: None,
            issued: None,
            stamps: Vec::new(),
            intended: false,
            started: now,
            stage_began: now,
        };
        let patience = appliance.config.server.limits.request_timeout.get();
        Self { known: Some(Box::new(known)), audit_id, opened: now, patience, verdict: Arc::default() }
    }

    /// What decides between the time limit and the outcome.
    pub(crate) fn verdict(&self) -> Arc<Verdict> {
        Arc::clone(&self.verdict)
    }

    pub(crate) fn audit_id(&self) -> AuditId {
        self.audit_id
    }

    /// Until when the request must be answered.
    pub(crate) fn deadline(&self) -> Instant {
        self.opened + self.patience
    }

    pub(crate) fn asks_for(&mut self, operation: &'static str) {
        self.note(|known| known.operation = operation);
    }

    pub(crate) fn authenticated(&mut self, caller: &Arc<Caller>) {
        self.note(|known| {
            known.caller = Some(Arc::clone(caller));
            known.passed(Stage::Authenticate);
        });
    }

    pub(crate) fn entitled(&mut self, entitlement: &Arc<Entitlement>) {
        self.note(|known| {
            known.entitlement = Some(Arc::clone(entitlement));
            known.passed(Stage::Entitle);
        });
    }

    /// Notes which scanner image is asked about, for a record that says no.
    pub(crate) fn asks_about(&mut self, image: &str) {
        self.note(|known| known.image = Some(image.into()));
    }

    /// Notes that the image is no trusted release, which was all that was asked.
    pub(crate) fn found_untrusted(&mut self, reason: &'static str) {
        self.note(|known| {
            known.untrusted = Some(reason);
            known.appliance.metrics.release_verify_failure(reason);
            known.passed(Stage::Release);
        });
    }

    pub(crate) fn released(&mut self, release: TrustedRelease) {
        self.note(|known| {
            known.release = Some(release);
            known.passed(Stage::Release);
        });
    }

    pub(crate) fn stated(&mut self, statement: &Statement) {
        let subjects = statement.subjects().iter().flat_map(|subject| subject.digest.iter());
        let stated = Stated {
            predicate_type: statement.predicate_type().uri,
            subjects: subjects.take(MAX_SUBJECTS).map(|(name, hex)| (Arc::clone(name), Arc::clone(hex))).collect(),
            subject_count: statement.subjects().len(),
            payload_sha256: *statement.payload_sha256(),
            pae_sha256: *statement.pae_sha256(),
        };
        self.note(|known| {
            known.statement = Some(stated);
            known.passed(Stage::State);
        });
    }

    pub(super) fn resolved(&mut self, signer: &Signer) {
        match signer {
            Signer::Kms(key) => self.resolved_key(key.key()),
            Signer::Keyless(identity) => self.note(|known| {
                known.identity = Some(Arc::clone(identity));
                known.passed(Stage::Resolve);
            }),
        }
    }

    pub(crate) fn resolved_key(&mut self, key: &Arc<SigningKey>) {
        self.note(|known| {
            known.key = Some(Arc::clone(key));
            known.passed(Stage::Resolve);
        });
    }

    /// Notes that a stage was passed that leaves nothing for the record.
    pub(crate) fn passed(&mut self, stage: Stage) {
        self.note(|known| known.passed(stage));
    }

    /// Hands the case on to whoever will record its outcome.
    pub(crate) fn hand_over(&mut self) -> Self {
        Self { known: self.known.take(), verdict: Arc::clone(&self.verdict), ..*self }
    }

    /// Records the intent to sign; returns when it is durable.
    ///
    /// # Errors
    /// When it cannot be made durable. The case stays open.
    pub(crate) async fn record_intent(&mut self) -> Result<(), Refusal> {
        let Some(known) = &self.known else { return Ok(()) };
        known.append(|facts| known.appliance.audit.append(&Record::Intent(facts))).await?;
        self.passed(Stage::AuditIntent);
        self.note(|known| known.intended = true);
        Ok(())
    }

    /// Records how a request with an intent ended, and closes the case; returns when it is durable. A request whose
    /// caller was told already that its time is up ended with that.
    ///
    /// # Errors
    /// When it cannot be made durable, or the time was up: then nothing may leave.
    pub(crate) async fn record_outcome(mut self, refusal: Option<&Refusal>) -> Result<(), Refusal> {
        let Some(mut known) = self.known.take() else { return Ok(()) };
        let late = (!self.verdict.settle()).then(|| Refusal::timed_out(self.patience));
        let refusal = late.as_ref().or(refusal);
        let latency = known.started.elapsed();
        let refused = refusal.map(Refusal::as_record);
        let recorded = known.append(|facts| known.appliance.audit.append(&Record::Outcome { facts, refused, latency }));
        if let Err(error) = recorded.await {
            let refusal = Refusal::from(error);
            known.finished(Some(&refusal));
            return Err(refusal);
        }
        known.passed(Stage::AuditOutcome);
        known.finished(refusal);
        late.map_or(Ok(()), Err)
    }

    /// Notes a signature: the step that everything else is there for.
    pub(super) fn signed(&mut self, signed: &Signed) {
        match (signed.token(), signed.issued()) {
            (Some(token), _) => self.signed_in(token),
            (None, issued) => self.note(|known| {
                known.issued = issued.cloned();
                known.passed(Stage::Sign);
            }),
        }
    }

    /// Notes the timestamps of a signature.
    pub(super) fn stamped(&mut self, signed: &Signed) {
        let one = |stamp: &StampedDer| Stamped {
            authority: stamp.authority.clone(),
            time: stamp.time.rfc3339(),
            signer_sha256: crate::hex::hex(&stamp.signer_sha256),
        };
        let stamps: Vec<Stamped> = signed.stamped().iter().map(one).collect();
        self.note(|known| {
            if !stamps.is_empty() {
                known.stamps = stamps;
                known.passed(Stage::Timestamp);
            }
        });
    }

    /// Notes a signature by this token.
    pub(crate) fn signed_in(&mut self, token: &Arc<str>) {
        self.note(|known| {
            known.token = Some(Arc::clone(token));
            known.passed(Stage::Sign);
            known.appliance.metrics.kms_sign.inc();
        });
    }

    /// Closes the case without a record, because the log takes none.
    pub(crate) fn abandon(mut self, refusal: &Refusal) {
        if let Some(known) = self.known.take() {
            known.finished(Some(refusal));
        }
    }

    /// Answers a request that neither signs nor is refused.
    ///
    /// # Errors
    /// When its record cannot be made durable.
    pub(crate) async fn answer(
        &mut self,
        body: impl FnOnce(AuditId) -> Vec<u8>,
        dpop_nonce: Option<HeaderValue>,
    ) -> Result<Response<Sending>, Refusal> {
        let audit_id = self.audit_id;
        self.hand_over().record_outcome(None).await?;
        Ok(json(body(audit_id), dpop_nonce))
    }

    /// Records a refusal and makes the answer that tells of it. Where the outcome was recorded already, nothing is
    /// written here; of refusals that are noise, so many a second are.
    pub(crate) async fn refuse(&mut self, refusal: Refusal) -> Response<Sending> {
        let Some(known) = self.known.take() else { return refusal.problem.into_response(self.audit_id) };
        let recorded = known.refusal(&refusal).await;
        known.finished(Some(&refusal));
        match recorded {
            Ok(()) => refusal.problem.into_response(self.audit_id),
            // A refusal that left no record would be a hole in the trail, so the caller hears of the log instead.
            Err(error) => Refusal::from(error).problem.into_response(self.audit_id),
        }
    }

    fn note(&mut self, what: impl FnOnce(&mut Known)) {
        if let Some(known) = &mut self.known {
            what(known);
        }
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        let Some(known) = self.known.take() else { return };
        let refusal = if known.intended { Refusal::lost(&"signing broke off") } else { Refusal::client_gone() };
        // Outside a runtime there is nobody to wait for the record; the process is ending.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let recorded = known.refusal(&refusal).await;
            if let Err(error) = recorded {
                tracing::error!(%error, "a request that broke off could not be recorded");
            }
            known.finished(Some(&refusal));
        });
    }
}

impl Stamped {
    fn facts(&self) -> StampFacts<'_> {
        StampFacts { authority: &self.authority, time: &self.time, signer_sha256: &self.signer_sha256 }
    }
}

impl Known {
    fn passed(&mut self, stage: Stage) {
        let now = Instant::now();
        self.appliance.metrics.observe(stage, now.duration_since(self.stage_began));
        self.stage_began = now;
    }

    fn finished(&self, refusal: Option<&Refusal>) {
        self.appliance.metrics.observe(Stage::Total, self.started.elapsed());
        match refusal {
            None if self.operation == "sign" => self.appliance.metrics.request("signed"),
            None => self.appliance.metrics.request("ok"),
            Some(refusal) => {
                let license =
                    self.entitlement.as_ref().map(|entitlement| (&*entitlement.license_id, &*entitlement.plan));
                self.appliance.metrics.request(refusal.problem.code().as_str());
                refusal.count(&self.appliance.metrics, license);
                refusal.log(self.audit_id);
            }
        }
    }

    fn refusal(&self, refusal: &Refusal) -> Append {
        let (refused, latency) = (refusal.as_record(), self.started.elapsed());
        if self.intended {
            let refused = Some(refused);
            return self.append(|facts| self.appliance.audit.append(&Record::Outcome { facts, refused, latency }));
        }
        let audit = &self.appliance.audit;
        self.append(|facts| {
            let record = Record::Refusal { facts, refused, latency };
            if refusal.is_noise() { audit.append_noise(&record) } else { audit.append(&record) }
        })
    }

    /// Gives `enter` all that is known, in the form of the record.
    fn append(&self, enter: impl FnOnce(&Facts<'_>) -> Append) -> Append {
        let subjects: Vec<(&str, &str)> = match &self.statement {
            Some(stated) => stated.subjects.iter().map(|(name, hex)| (&**name, &**hex)).collect(),
            None => Vec::new(),
        };
        let stamps: Vec<StampFacts<'_>> = self.stamps.iter().map(Stamped::facts).collect();
        let expires = self.issued.as_ref().map(|issued| issued.not_after.rfc3339());
        let facts = Facts {
            remote: self.remote,
            peer: self.peer.as_deref(),
            caller: self.caller.as_deref(),
            entitlement: self.entitlement.as_deref(),
            image: self.image.as_deref(),
            untrusted: self.untrusted,
            release: self.release.as_ref().map(|release| ReleaseFacts {
                signed_by: release.signed_by(),
                evidence: release.evidence().kind(),
                signature: release.evidence().signature(),
                signature_sha256: release.evidence().signature_sha256(),
            }),
            statement: self.statement.as_ref().map(|stated| StatementFacts {
                predicate_type: stated.predicate_type,
                subjects: &subjects,
                subject_count: stated.subject_count,
                payload_sha256: &stated.payload_sha256,
                pae_sha256: &stated.pae_sha256,
            }),
            key: self.key.as_ref().map(|key| KeyFacts {
                name: key.name(),
                keyid: key.keyid(),
                token: self.token.as_ref().unwrap_or_else(|| key.tokens()),
            }),
            identity: self.identity.as_ref().map(|identity| IdentityFacts {
                name: identity.identity(),
                san: identity.san(),
                issuer: identity.issuer(),
            }),
            certificate: self.issued.as_ref().zip(expires.as_deref()).map(|(issued, expires)| CertificateFacts {
                sha256: &issued.sha256,
                keyid: &issued.keyid,
                expires,
            }),
            timestamps: &stamps,
            mode: match (&self.key, &self.identity) {
                (Some(_), _) => Some(SigningMode::Kms),
                (None, Some(_)) => Some(SigningMode::Keyless),
                (None, None) => None,
            },
            ..Facts::new(self.audit_id, self.operation)
        };
        enter(&facts)
    }
}

/// A 200 with a JSON body.
pub(crate) fn json(body: Vec<u8>, dpop_nonce: Option<HeaderValue>) -> Response<Sending> {
    let mut response = Response::new(Sending::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(nonce) = dpop_nonce {
        headers.insert(DPOP_NONCE, nonce);
    }
    response
}

/// `DPoP-Nonce` (RFC 9449, section 8).
pub(crate) const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
