//! One signature: by a helper that waits, else by a new flow, tried again where that is safe.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;
use signer_keyless::wire::{Bounds, FromHelper, Job, Signed, Step, ToHelper, Token};

use super::conversation::{Helper, TalkError, judge_seal};
use super::error::{FlowStep, KeylessError};
use super::identity::IdentityToken;
use super::kept::KeptHelper;
use super::{Keyless, KeylessSigned, TenantIdentity};
use crate::clock::UnixTime;

impl Keyless {
    pub(super) async fn again_or_anew(
        &self,
        who: &TenantIdentity,
        digest: &[u8; 32],
        wanted_life: Duration,
        deadline: Instant,
    ) -> Result<KeylessSigned, KeylessError> {
        if let Some(signed) = self.again(who, digest, wanted_life, deadline).await? {
            return Ok(signed);
        }
        let (mut attempt, mut pause) = (1, FIRST_PAUSE);
        loop {
            let error = match self.attempt(who, digest, deadline).await {
                Ok(signed) => return Ok(signed),
                Err(error) => error,
            };
            // Fulcio may know better how long it needs.
            let wait = match &error {
                KeylessError::Flow(failed) => failed.retry_after.map_or(pause, |s| Duration::from_secs(s.into())),
                _ => pause,
            };
            let in_time = Instant::now() + wait < deadline;
            if !error.may_be_tried_again() || attempt >= self.limits.attempts || !in_time {
                return Err(error);
            }
            tracing::info!(attempt, %error, "a keyless flow is tried again");
            tokio::time::sleep(wait).await;
            if self.circuit.closed_for(Instant::now()).is_some() {
                // Why it opened says more than that it is open.
                return Err(error);
            }
            (attempt, pause) = (attempt + 1, pause * 2);
        }
    }

    /// A further signature by a helper that waits; `None` when none does.
    async fn again(
        &self,
        who: &TenantIdentity,
        digest: &[u8; 32],
        wanted_life: Duration,
        deadline: Instant,
    ) -> Result<Option<KeylessSigned>, KeylessError> {
        if !self.limits.reuse.is_on() {
            return Ok(None);
        }
        while let Some(mut kept) = self.kept.take(&who.tenant, wanted_life) {
            let until = deadline.min(Instant::now() + self.limits.silence);
            match kept.helper.say(&ToHelper::Digest(*digest), None, until).await {
                Ok(()) => {}
                // It was gone before it could read anything.
                Err(TalkError::Ended) => continue,
                Err(error) => return Err(failed(kept.helper, FlowStep::Certificate, error, deadline).await),
            }
            let signature = match kept.helper.hear(until).await {
                Ok(FromHelper::Signature(signature)) => signature,
                Ok(FromHelper::Failed(failed)) => return Err(KeylessError::Flow(failed)),
                Ok(_) => return Err(failed(kept.helper, FlowStep::Certificate, TalkError::OutOfTurn, deadline).await),
                Err(error) => return Err(failed(kept.helper, FlowStep::Certificate, error, deadline).await),
            };
            let signature = kept.issued.check(digest, &signature)?;
            let issued = Arc::clone(&kept.issued);
            kept.left -= 1;
            self.kept.put(&who.tenant, kept);
            return Ok(Some(KeylessSigned { signature, issued, reused: true }));
        }
        Ok(None)
    }

    /// A whole flow, under the eyes of the circuit. Nobody waits for a token with a place in hand: where one tenant's
    /// tokens cannot be had, the others' flows go on. Nor is a token fetched that could not be shown to Fulcio.
    async fn attempt(
        &self,
        who: &TenantIdentity,
        digest: &[u8; 32],
        deadline: Instant,
    ) -> Result<KeylessSigned, KeylessError> {
        if let Some(retry_after) = self.circuit.closed_for(Instant::now()) {
            return Err(KeylessError::CircuitOpen { retry_after });
        }
        let token = who.identity.token(deadline).await?;
        let _place = self.places.enter(&who.places, deadline).await?;
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        if left < LEAST {
            return Err(KeylessError::Late { step: FlowStep::Begun, fulcios: false });
        }
        let pass = self.circuit.pass(now, left >= self.limits.enough_to_try);
        let pass = pass.map_err(|retry_after| KeylessError::CircuitOpen { retry_after })?;
        let _counted = InProgress::new(&self.metrics.flows);
        let signed = self.flow(who, &token, digest, deadline).await;
        match &signed {
            Ok(_) => pass.answered(),
            Err(error) if error.is_fulcios_failure() => {
                let asked_for = match error {
                    KeylessError::Flow(failed) => failed.retry_after.map(|s| Duration::from_secs(s.into())),
                    _ => None,
                };
                pass.failed(asked_for);
            }
            Err(error) if error.fulcio_answered() => pass.answered(),
            // Nothing was learnt about Fulcio.
            Err(_) => drop(pass),
        }
        signed
    }

    async fn flow(
        &self,
        who: &TenantIdentity,
        token: &IdentityToken,
        digest: &[u8; 32],
        deadline: Instant,
    ) -> Result<KeylessSigned, KeylessError> {
        let (helper, fulcio) = self.helper_and_fulcio(deadline).await?;
        let (helper, signed) = self.entrust(helper, fulcio, token, digest, deadline).await?;
        self.metrics.certs_issued.inc();
        let judging = Instant::now();
        // Refused, the helper is dropped with what it knows.
        let (issued, signature) = self.pins.judge(&signed, &who.expected, digest, UnixTime::now())?;
        self.metrics.step(FlowStep::Verified.name(), judging.elapsed());
        let issued = Arc::new(issued);
        let left = self.limits.reuse.max_signatures.get() - 1;
        if left == 0 {
            helper.dismiss();
        } else {
            let until = Instant::now() + self.limits.reuse.max_age.get();
            self.kept.put(&who.tenant, KeptHelper { helper, issued: Arc::clone(&issued), left, until });
        }
        Ok(KeylessSigned { signature, issued, reused: false })
    }

    /// Both at once. Whichever fails first ends the other: a helper that is dropped is killed.
    async fn helper_and_fulcio(&self, deadline: Instant) -> Result<(Helper, OwnedFd), KeylessError> {
        let mut sealing = pin!(self.sealed(deadline));
        let mut connecting = pin!(self.connected(deadline));
        let mut fulcio = None;
        let helper = loop {
            tokio::select! {
                sealed = &mut sealing => break sealed?,
                connected = &mut connecting, if fulcio.is_none() => fulcio = Some(connected?),
            }
        };
        let fulcio = match fulcio {
            Some(fulcio) => fulcio,
            // A sealed helper has nothing to say before it has its job: when it stirs, it is gone or not what it was.
            None => tokio::select! {
                connected = &mut connecting => connected?,
                () = helper.stirs() => return Err(failed(helper, FlowStep::Sealed, TalkError::Ended, deadline).await),
            },
        };
        Ok((helper, fulcio))
    }

    /// Starts a helper and has it close its sandbox, so that a layer that this machine lacks, or a call that the unit
    /// forbids, shows before the first request does.
    pub(super) async fn rehearse(&self) -> Result<(), KeylessError> {
        self.sealed(Instant::now() + self.limits.silence).await.map(Helper::dismiss)
    }

    /// A new helper that has said that it is sealed.
    async fn sealed(&self, deadline: Instant) -> Result<Helper, KeylessError> {
        let begun = Instant::now();
        let until = deadline.min(begun + self.limits.silence);
        let not_started = |error: std::io::Error| KeylessError::Helper {
            step: FlowStep::Begun,
            why: format!("it cannot be started: {error}"),
        };
        let started = match tokio::time::timeout_at(until.into(), self.launcher.start()).await {
            Ok(started) => started.map_err(not_started)?,
            Err(_) => return Err(KeylessError::Late { step: FlowStep::Begun, fulcios: false }),
        };
        self.metrics.step(FlowStep::Spawned.name(), begun.elapsed());
        let mut helper = Helper::new(started).map_err(not_started)?;
        let sealed = match helper.hear(until).await {
            Ok(FromHelper::Sealed(sealed)) => sealed,
            Ok(FromHelper::Failed(failed)) => return Err(KeylessError::Flow(failed)),
            Ok(_) => return Err(failed(helper, FlowStep::Spawned, TalkError::OutOfTurn, deadline).await),
            Err(error) => return Err(failed(helper, FlowStep::Spawned, error, deadline).await),
        };
        judge_seal(sealed.layers, self.excepted).map_err(KeylessError::Unsealed)?;
        if self.landlock_abi.swap(sealed.landlock_abi, Relaxed) != sealed.landlock_abi {
            tracing::info!(landlock_abi = sealed.landlock_abi, "the kernel's Landlock, as keyless helpers have it");
        }
        self.metrics.step(FlowStep::Sealed.name(), begun.elapsed());
        Ok(helper)
    }

    async fn connected(&self, deadline: Instant) -> Result<OwnedFd, KeylessError> {
        let begun = Instant::now();
        let fulcio = self.route.connect(deadline).await?;
        self.metrics.step(FlowStep::Connected.name(), begun.elapsed());
        Ok(fulcio)
    }

    /// Gives the helper the job and the connection, and waits for its answer.
    async fn entrust(
        &self,
        mut helper: Helper,
        fulcio: OwnedFd,
        token: &IdentityToken,
        digest: &[u8; 32],
        deadline: Instant,
    ) -> Result<(Helper, Signed), KeylessError> {
        let begun = Instant::now();
        let unfit = |what: &str| KeylessError::Helper { step: FlowStep::Connected, why: format!("no job: {what}") };
        let text = std::str::from_utf8(token.expose()).map_err(|_| unfit("the identity token is no text"))?;
        let job = ToHelper::Job(Job {
            transport: self.route.transport(),
            authority: self.route.authority(),
            path: SIGNING_CERT,
            token: Token::new(text).map_err(|_| unfit("the identity token is no JWT"))?,
            digest: *digest,
            bounds: Bounds { answer: MAX_ANSWER, signatures: self.limits.reuse.max_signatures.get() },
        });
        if let Err(error) = helper.say(&job, Some(fulcio.as_fd()), deadline).await {
            return Err(failed(helper, FlowStep::Connected, error, deadline).await);
        }
        // The helper has its own; when it is gone, so is the connection.
        drop(fulcio);
        match helper.hear(deadline).await {
            Ok(FromHelper::Signed(signed)) => {
                self.metrics.step(FlowStep::Answered.name(), begun.elapsed());
                Ok((helper, signed))
            }
            Ok(FromHelper::Failed(failed)) => {
                if failed.step == Step::Sign {
                    self.metrics.certs_issued.inc();
                }
                helper.dismiss();
                Err(KeylessError::Flow(failed))
            }
            Ok(_) => Err(failed(helper, FlowStep::JobSent, TalkError::OutOfTurn, deadline).await),
            Err(error) => match failed(helper, FlowStep::JobSent, error, deadline).await {
                // With a job in its hands the helper waits for Fulcio and for nothing else. What Fulcio could not have
                // answered because we came late with it is not held against it.
                KeylessError::Late { step, .. } => {
                    Err(KeylessError::Late { step, fulcios: begun.elapsed() >= self.limits.silence })
                }
                error => Err(error),
            },
        }
    }
}

/// A helper that failed after this step, with how it ended where that says more. One that said nothing before the whole
/// time was up has not failed by itself.
async fn failed(helper: Helper, step: FlowStep, error: TalkError, deadline: Instant) -> KeylessError {
    if matches!(error, TalkError::Silent) && Instant::now() >= deadline {
        return KeylessError::Late { step, fulcios: false };
    }
    let ended = helper.post_mortem(!matches!(step, FlowStep::Begun | FlowStep::Spawned)).await;
    let why = match error {
        TalkError::Ended => format!("{error}; {ended}"),
        error => error.to_string(),
    };
    KeylessError::Helper { step, why }
}

struct InProgress<'a>(&'a Gauge);

impl<'a> InProgress<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

const SIGNING_CERT: &str = "/api/v2/signingCert";
/// Fulcio's answer has four kilobytes, with a chain of three certificates.
const MAX_ANSWER: u32 = 64 << 10;
/// With less left nothing is begun: a helper alone takes some of it.
const LEAST: Duration = Duration::from_millis(100);
const FIRST_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "flow_tests.rs"]
mod tests;
