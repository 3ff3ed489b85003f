//! The order of the checks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use subtle::ConstantTimeEq as _;

use super::authority_keys::AuthorityKeys;
use super::credentials::{self, Scheme};
use super::dpop::{ProofMemory, Proofs, Request};
use super::htu::PublicUrl;
use super::key_source::KeySource;
use super::optok::{self, OpTokPolicy};
use super::token_cache::{TokenCache, VerifiedToken};
use super::{AuthError, Authenticated, KeySourceError, KeyStatus, PeerCertificate, Presented, Reason};
use crate::clock::UnixTime;
use crate::config;
use crate::jose::{JoseError, Jws, VerifyingKey};
use crate::outbound::Outbound;

/// Authenticates requests. Those of one process share a memory of used proofs, which is what stops replays.
pub struct Authenticator {
    policy: OpTokPolicy,
    keys: Arc<AuthorityKeys>,
    tokens: Arc<TokenCache>,
    proofs: Proofs,
}

/// Why no [`Authenticator`] could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthSetupError {
    /// `server.public_url` is not what `htu` can be compared with.
    #[error("`server.public_url` is `{url}`: {why}; write one like https://signer.example:8443")]
    PublicUrl {
        /// As configured.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// `authority.audience` is a wildcard.
    #[error("`authority.audience` is a wildcard; name this service, as in \"signer\"")]
    Audience,
    /// `authority.algorithms` is empty.
    #[error("`authority.algorithms` is empty, so that no token could pass; leave it out or name some")]
    Algorithms,
    /// The key set file cannot be used.
    #[error("`authority.jwks` cannot be used")]
    Keys(#[source] KeySourceError),
    /// The system's random generator failed.
    #[error("the system has no randomness to give")]
    Randomness,
}

/// One moment on both clocks: the wall clock judges what tokens say, the steady one how long something has been.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) wall: UnixTime,
    pub(super) steady: Instant,
}

impl Authenticator {
    /// An authenticator for tokens of `config`'s Authority that name one of `tenants`, called under `public_url`
    /// (scheme and authority, the way clients spell it).
    ///
    /// Keys in a file are read here; keys from the network when [`maintain`](Self::maintain) runs, or at the first
    /// request that needs them.
    ///
    /// # Errors
    /// An [`AuthSetupError`] that names the configuration key and what would be right.
    pub fn new(
        config: &config::Authority,
        public_url: &str,
        tenants: impl IntoIterator<Item = impl Into<Arc<str>>>,
        outbound: Outbound,
    ) -> Result<Self, AuthSetupError> {
        Self::started_at(config, public_url, tenants, outbound, Moment::now())
    }

    /// As [`new`](Self::new), with the memory of used proofs of `earlier`, which may still be in use. `[authority.dpop]` and
    /// `clock_skew`, which that memory was made for, must be those of `earlier`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn succeeding(
        earlier: &Self,
        config: &config::Authority,
        public_url: &str,
        tenants: impl IntoIterator<Item = impl Into<Arc<str>>>,
        outbound: Outbound,
    ) -> Result<Self, AuthSetupError> {
        Self::with(config, public_url, tenants, outbound, Moment::now(), |_| Some(Arc::clone(earlier.proofs.memory())))
    }

    pub(super) fn started_at(
        config: &config::Authority,
        public_url: &str,
        tenants: impl IntoIterator<Item = impl Into<Arc<str>>>,
        outbound: Outbound,
        started: Moment,
    ) -> Result<Self, AuthSetupError> {
        let memory = |skew| ProofMemory::new(&config.dpop, skew, started).map(Arc::new);
        Self::with(config, public_url, tenants, outbound, started, memory)
    }

    fn with(
        config: &config::Authority,
        public_url: &str,
        tenants: impl IntoIterator<Item = impl Into<Arc<str>>>,
        outbound: Outbound,
        started: Moment,
        memory: impl FnOnce(Duration) -> Option<Arc<ProofMemory>>,
    ) -> Result<Self, AuthSetupError> {
        let skew = config.clock_skew.get();
        let public_url = PublicUrl::parse(public_url)
            .map_err(|why| AuthSetupError::PublicUrl { url: public_url.to_owned(), why })?;
        if config.audience.contains('*') {
            return Err(AuthSetupError::Audience);
        }
        if config.algorithms.is_empty() {
            return Err(AuthSetupError::Algorithms);
        }
        let policy = OpTokPolicy {
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            algorithms: config.algorithms.clone(),
            skew,
            max_lifetime: config.max_token_lifetime.get(),
            tenants: tenants.into_iter().map(Into::into).collect(),
        };
        let tokens = Arc::new(TokenCache::new());
        let source = KeySource::new(config.jwks.clone(), config.issuer.clone(), outbound);
        let (refresh, max_stale) = (config.jwks_refresh.get(), config.jwks_max_stale.get());
        let keys = AuthorityKeys::new(source, refresh, max_stale, Arc::clone(&tokens), started.steady)
            .map_err(AuthSetupError::Keys)?;
        let memory = memory(skew).ok_or(AuthSetupError::Randomness)?;
        let proofs = Proofs::new(&config.dpop, skew, public_url, memory);
        Ok(Self { policy, keys: Arc::new(keys), tokens, proofs })
    }

    /// Establishes who is calling.
    ///
    /// # Errors
    /// An [`AuthError`] with one [`Reason`]; nothing of the request may be acted on then.
    pub async fn authenticate(&self, presented: &Presented<'_>) -> Result<Authenticated, AuthError> {
        self.authenticate_at(presented, Moment::now()).await
    }

    /// Keeps the Authority's keys fresh and the memory of used proofs small. Never returns: run it once, on the
    /// background runtime, for as long as the process lives.
    pub async fn maintain(&self) {
        let sweep = async {
            loop {
                tokio::time::sleep(SWEEP_INTERVAL).await;
                self.forget_old(Moment::now());
            }
        };
        tokio::join!(self.keys.maintain(), sweep);
    }

    /// How the Authority's keys stand, for `/readyz`.
    #[must_use]
    pub fn key_status(&self) -> KeyStatus {
        self.keys.status(Instant::now())
    }

    pub(super) async fn authenticate_at(
        &self,
        presented: &Presented<'_>,
        now: Moment,
    ) -> Result<Authenticated, AuthError> {
        let (scheme, token) = credentials::token(presented.headers)?;
        self.authenticate_token(presented, scheme, token, now).await.map_err(|error| error.under(scheme))
    }

    async fn authenticate_token(
        &self,
        presented: &Presented<'_>,
        scheme: Scheme,
        token: &str,
        now: Moment,
    ) -> Result<Authenticated, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::new(Reason::OPTOK_TOO_LARGE));
        }
        // The key of the cache, and what `ath` of the proof must be.
        let hash = sha256(token);
        let verified = match self.tokens.find(&hash) {
            Some(verified) => {
                self.keys.ensure_usable(now.steady).await?;
                self.policy.check_times(&verified, now.wall).inspect_err(|_| self.tokens.remove(&hash))?;
                verified
            }
            None => self.verify(token, hash, now).await?,
        };
        let dpop_nonce = self.check_sender(presented, scheme, &verified, &hash, now)?;
        if !presented.any_scope.iter().any(|scope| optok::grants(&verified.scope, scope)) {
            let named = presented.any_scope.first().copied().unwrap_or_default();
            let refused = AuthError::new(Reason::OPTOK_SCOPE).of_caller(&verified.caller, named);
            return Err(refused);
        }
        Ok(Authenticated { caller: Arc::clone(&verified.caller), dpop_nonce })
    }

    async fn verify(&self, token: &str, hash: [u8; 32], now: Moment) -> Result<Arc<VerifiedToken>, AuthError> {
        let jws = Jws::parse(token, MAX_TOKEN_BYTES).map_err(|error| optok::unreadable(&error))?;
        let header = jws.header();
        self.policy.check_header(header)?;
        let candidates = self.keys.candidates(header.kid.as_deref(), header.alg, now.steady).await?;
        let (payload, key) = signed_by_one_of(&jws, &candidates)?;
        let verified = Arc::new(self.policy.check_claims(&payload, *key.thumbprint(), now.wall)?);
        self.tokens.insert(hash, Arc::clone(&verified), now.wall);
        // The key may have been withdrawn meanwhile, and its tokens purged before this one was there.
        if !self.keys.publishes(&verified.signed_by) {
            self.tokens.remove(&hash);
            return Err(AuthError::new(Reason::OPTOK_KEY_UNKNOWN));
        }
        Ok(verified)
    }

    /// Holds the token against every confirmation that it carries.
    fn check_sender(
        &self,
        presented: &Presented<'_>,
        scheme: Scheme,
        token: &VerifiedToken,
        token_hash: &[u8; 32],
        now: Moment,
    ) -> Result<Option<http::HeaderValue>, AuthError> {
        match (scheme, &token.jkt) {
            (Scheme::Bearer, Some(_)) => return Err(AuthError::new(Reason::DPOP_BOUND_AS_BEARER)),
            (Scheme::Dpop, None) => return Err(AuthError::new(Reason::OPTOK_NOT_DPOP_BOUND)),
            _ => {}
        }
        if let Some(certificate) = &token.certificate {
            check_certificate(certificate, presented.peer)?;
        }
        let Some(jkt) = &token.jkt else { return Ok(None) };
        let proof = credentials::proof(presented.headers)?;
        let request = Request { method: presented.method, path: presented.path, token_hash };
        self.proofs.check(proof, jkt, token, &request, now)
    }

    fn forget_old(&self, now: Moment) {
        self.proofs.forget_old(now.steady);
        self.tokens.retain(|token| self.policy.check_times(token, now.wall).is_ok());
    }

    #[cfg(test)]
    pub(super) fn cached_tokens(&self) -> usize {
        self.tokens.len()
    }
}

impl Moment {
    pub(super) fn now() -> Self {
        Self { wall: UnixTime::now(), steady: Instant::now() }
    }
}

fn signed_by_one_of<'a>(jws: &Jws<'_>, keys: &'a [VerifyingKey]) -> Result<(Vec<u8>, &'a VerifyingKey), AuthError> {
    let mut refusal = AuthError::new(Reason::OPTOK_SIGNATURE);
    for key in keys {
        match jws.verify(key) {
            Ok(payload) => return Ok((payload, key)),
            Err(JoseError::Signature | JoseError::KeyMismatch { .. }) => {}
            Err(error) => refusal = AuthError::new(Reason::OPTOK_MALFORMED).detail(error.to_string()),
        }
    }
    Err(refusal)
}

fn check_certificate(expected: &[u8; 32], peer: &PeerCertificate) -> Result<(), AuthError> {
    if bool::from(expected.ct_eq(&peer.thumbprint)) {
        Ok(())
    } else {
        Err(AuthError::new(Reason::CERTIFICATE_MISMATCH))
    }
}

fn sha256(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

const MAX_TOKEN_BYTES: usize = 8192;
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
