//! DPoP proofs (RFC 9449, section 4.3).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, Method};
use serde::Deserialize;

use super::authenticator::Moment;
use super::htu::PublicUrl;
use super::nonce::{Nonces, Standing};
use super::optok::malformed;
use super::replay::{Refusal, ReplayMemory};
use super::token_cache::VerifiedToken;
use super::{AuthError, Reason};
use crate::clock::UnixTime;
use crate::config::{Dpop, NoncePolicy};
use crate::jose::{Algorithm, Compact, Header, JoseError, NumericDate, VerifyingKey};

/// What every proof is held against.
pub(super) struct Proofs {
    public_url: PublicUrl,
    iat_window: Duration,
    skew: Duration,
    policy: NoncePolicy,
    memory: Arc<ProofMemory>,
}

/// What is known of earlier proofs. It outlives a change of the configuration: were it made anew, a proof could be used
/// twice.
pub(super) struct ProofMemory {
    nonces: Nonces,
    replay: ReplayMemory,
    started: Moment,
}

/// The request that a proof must be about.
pub(super) struct Request<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    /// SHA-256 of the token.
    pub(super) token_hash: &'a [u8; 32],
}

/// The header of a client's proofs and the key in it, read and checked. A client writes the same header into every
/// proof, so comparing it as text saves reading it, and its key, ever again.
pub(super) struct ProofKey {
    header: Box<str>,
    algorithm: Algorithm,
    key: VerifyingKey,
}

impl Proofs {
    pub(super) fn new(config: &Dpop, skew: Duration, public_url: PublicUrl, memory: Arc<ProofMemory>) -> Self {
        Self { public_url, iat_window: config.iat_window.get(), skew, policy: config.nonce, memory }
    }

    pub(super) fn memory(&self) -> &Arc<ProofMemory> {
        &self.memory
    }

    /// Checks `proof`, and remembers it. Returns the nonce for the answer, where the one in the proof is ageing.
    pub(super) fn check(
        &self,
        proof: &str,
        jkt: &[u8; 32],
        token: &VerifiedToken,
        request: &Request<'_>,
        now: Moment,
    ) -> Result<Option<HeaderValue>, AuthError> {
        let compact = Compact::split(proof, MAX_PROOF_BYTES).map_err(|error| unreadable(&error))?;
        let payload = verify(&compact, jkt, token)?;
        let claims: Claims<'_> =
            serde_json::from_slice(&payload).map_err(|error| malformed(Reason::DPOP_CLAIMS, &error))?;
        if claims.jti.is_empty() || claims.jti.len() > MAX_JTI_BYTES {
            return Err(AuthError::new(Reason::DPOP_CLAIMS).detail("jti"));
        }
        if claims.htm != request.method.as_str() {
            return Err(AuthError::new(Reason::DPOP_METHOD));
        }
        if !self.public_url.names(&claims.htu, request.path) {
            return Err(AuthError::new(Reason::DPOP_URI));
        }
        let mut ath = [0; 43];
        let encoded = URL_SAFE_NO_PAD.encode_slice(request.token_hash, &mut ath);
        if encoded != Ok(ath.len()) || claims.ath.as_deref().map(str::as_bytes) != Some(&ath) {
            return Err(AuthError::new(Reason::DPOP_TOKEN_HASH));
        }
        let NumericDate(issued_at) = claims.iat;
        let acceptable_until = self.check_age(issued_at, now.wall)?;
        let standing = self.check_nonce(claims.nonce.as_deref(), issued_at, now)?;
        let (age, next) = match standing {
            Some(Standing::Valid(age)) => (Some(age), None),
            Some(Standing::Ageing(age)) => (Some(age), Some(self.memory.nonces.issue(now.steady))),
            _ => (None, None),
        };
        // Last, so that only proofs that are good in every other way take up memory.
        let remembered = self.memory.replay.remember(jkt, &claims.jti, acceptable_until, age, now.steady);
        remembered.map_err(|refusal| match refusal {
            Refusal::Replayed => AuthError::new(Reason::DPOP_REPLAYED),
            // The wall clock cannot tell whether this one was used; a nonce can.
            Refusal::Forgotten if claims.nonce.is_none() => self.challenge(Reason::DPOP_NONCE_MISSING, now),
            Refusal::Forgotten => self.challenge(Reason::DPOP_NONCE_INVALID, now),
            Refusal::Full => {
                AuthError::new(Reason::REPLAY_MEMORY_FULL).with_retry_after(self.memory.replay.room_after())
            }
        })?;
        Ok(next)
    }

    pub(super) fn forget_old(&self, now: Instant) {
        self.memory.replay.forget_old(now);
    }

    /// The last moment at which a proof of this age passes.
    fn check_age(&self, issued_at: UnixTime, now: UnixTime) -> Result<UnixTime, AuthError> {
        let acceptable_until = issued_at.plus(self.iat_window).plus(self.skew);
        if now > acceptable_until {
            let detail = format!("made {} s ago", now.since(issued_at).as_secs());
            Err(AuthError::new(Reason::DPOP_EXPIRED).detail(detail))
        } else if issued_at > now.plus(self.skew) {
            let detail = format!("{} s ahead", issued_at.since(now).as_secs());
            Err(AuthError::new(Reason::DPOP_ISSUED_IN_FUTURE).detail(detail))
        } else {
            Ok(acceptable_until)
        }
    }

    fn check_nonce(
        &self,
        nonce: Option<&str>,
        issued_at: UnixTime,
        now: Moment,
    ) -> Result<Option<Standing>, AuthError> {
        let Some(nonce) = nonce else {
            return match self.nonce_is_due(issued_at, now) {
                true => Err(self.challenge(Reason::DPOP_NONCE_MISSING, now)),
                false => Ok(None),
            };
        };
        match self.memory.nonces.standing(nonce, now.steady) {
            // Also where none is due: a proof that carries somebody else's nonce was not made for this process.
            Standing::Invalid => Err(self.challenge(Reason::DPOP_NONCE_INVALID, now)),
            valid => Ok(Some(valid)),
        }
    }

    fn challenge(&self, reason: Reason, now: Moment) -> AuthError {
        AuthError::new(reason).with_nonce(self.memory.nonces.issue(now.steady))
    }

    /// A proof that an earlier process may have accepted must show that it was made for this one.
    ///
    /// Such a proof has an `iat` of at most the start plus the skew, and is acceptable up to the window plus the skew
    /// after that. Both clocks are asked: the steady one, so that a wall clock that was wrong at the start and is put
    /// right later opens nothing; the wall clock, so that one that is set back later opens nothing either.
    fn nonce_is_due(&self, issued_at: UnixTime, now: Moment) -> bool {
        match self.policy {
            NoncePolicy::Always => true,
            NoncePolicy::AfterRestart => {
                let since_start = now.steady.saturating_duration_since(self.memory.started.steady);
                since_start <= self.iat_window + 2 * self.skew || issued_at <= self.memory.started.wall.plus(self.skew)
            }
        }
    }
}

impl ProofMemory {
    /// `None` when the system has no randomness to give.
    pub(super) fn new(config: &Dpop, skew: Duration, started: Moment) -> Option<Self> {
        let limit = usize::try_from(config.max_remembered_proofs.get()).unwrap_or(usize::MAX);
        Some(Self {
            nonces: Nonces::new(config.nonce_lifetime.get(), started.steady)?,
            // From the first moment that a proof could be accepted to the last.
            replay: ReplayMemory::new(limit, config.iat_window.get() + 2 * skew, started.steady),
            started,
        })
    }
}

/// The payload of a proof that was made with the key that the token is bound to.
fn verify(compact: &Compact<'_>, jkt: &[u8; 32], token: &VerifiedToken) -> Result<Vec<u8>, AuthError> {
    let failed = |error: JoseError| {
        let reason = match error {
            JoseError::Signature => Reason::DPOP_SIGNATURE,
            JoseError::KeyMismatch { .. } => Reason::DPOP_KEY,
            _ => Reason::DPOP_MALFORMED,
        };
        AuthError::new(reason).detail(error.to_string())
    };
    if let Some(known) = token.proof_key.get().filter(|known| *known.header == *compact.header()) {
        return compact.verify(known.algorithm, &known.key).map_err(failed);
    }
    let header = Header::parse(compact.header()).map_err(|error| unreadable(&error))?;
    if !header.is_typ("dpop+jwt") {
        return Err(AuthError::new(Reason::DPOP_TYPE));
    }
    let jwk = header.jwk.ok_or_else(|| AuthError::new(Reason::DPOP_KEY).detail("no jwk"))?;
    // Before the signature, so that nobody makes us verify with a key of their choice.
    if jwk.thumbprint() != *jkt {
        return Err(AuthError::new(Reason::DPOP_KEY_MISMATCH));
    }
    let key =
        VerifyingKey::from_jwk(&jwk).map_err(|error| AuthError::new(Reason::DPOP_KEY).detail(error.to_string()))?;
    let payload = compact.verify(header.alg, &key).map_err(failed)?;
    let known = ProofKey { header: compact.header().into(), algorithm: header.alg, key };
    // Another request of the same client may have been first, which is as good.
    let _ = token.proof_key.set(known);
    Ok(payload)
}

fn unreadable(error: &JoseError) -> AuthError {
    let reason = match error {
        JoseError::TooLarge { .. } => Reason::DPOP_TOO_LARGE,
        JoseError::AlgorithmUnknown { .. } | JoseError::AlgorithmMissing => Reason::DPOP_ALGORITHM,
        JoseError::PrivateKey { .. }
        | JoseError::SymmetricKey
        | JoseError::KeyUnsupported { .. }
        | JoseError::KeyInvalid { .. } => Reason::DPOP_KEY,
        _ => Reason::DPOP_MALFORMED,
    };
    AuthError::new(reason).detail(error.to_string())
}

#[derive(Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    jti: Cow<'a, str>,
    #[serde(borrow)]
    htm: Cow<'a, str>,
    #[serde(borrow)]
    htu: Cow<'a, str>,
    iat: NumericDate,
    ath: Option<String>,
    nonce: Option<String>,
}

const MAX_PROOF_BYTES: usize = 4096;
const MAX_JTI_BYTES: usize = 256;
