//! OpToks that were verified, by the hash of their text.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use super::Caller;
use super::dpop::ProofKey;
use crate::clock::UnixTime;

/// An OpTok whose signature and claims are in order. Its times are checked again at every use.
pub(super) struct VerifiedToken {
    pub(super) caller: Arc<Caller>,
    /// `cnf.jkt`.
    pub(super) jkt: Option<[u8; 32]>,
    /// `cnf.x5t#S256`.
    pub(super) certificate: Option<[u8; 32]>,
    pub(super) scope: Box<str>,
    pub(super) not_before: Option<UnixTime>,
    pub(super) issued_at: UnixTime,
    /// Thumbprint of the Authority's key that signed it.
    pub(super) signed_by: [u8; 32],
    /// The key of the caller's proofs, once one of them has verified.
    pub(super) proof_key: OnceLock<ProofKey>,
}

/// Bounded: a token that does not fit is verified again at its next use, nothing worse.
pub(super) struct TokenCache {
    shards: [RwLock<HashMap<[u8; 32], Arc<VerifiedToken>>>; SHARDS],
}

impl TokenCache {
    pub(super) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| RwLock::default()) }
    }

    pub(super) fn find(&self, hash: &[u8; 32]) -> Option<Arc<VerifiedToken>> {
        self.shard(hash).read().unwrap_or_else(PoisonError::into_inner).get(hash).cloned()
    }

    pub(super) fn insert(&self, hash: [u8; 32], token: Arc<VerifiedToken>, now: UnixTime) {
        let mut shard = self.shard(&hash).write().unwrap_or_else(PoisonError::into_inner);
        if shard.len() >= TOKENS_PER_SHARD {
            shard.retain(|_, token| token.caller.expires_at > now);
        }
        if shard.len() >= TOKENS_PER_SHARD
            && let Some(any) = shard.keys().next().copied()
        {
            shard.remove(&any);
        }
        shard.insert(hash, token);
    }

    pub(super) fn remove(&self, hash: &[u8; 32]) {
        self.shard(hash).write().unwrap_or_else(PoisonError::into_inner).remove(hash);
    }

    /// Keeps the tokens for which `keep` holds.
    pub(super) fn retain(&self, keep: impl Fn(&VerifiedToken) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|_, token| keep(token));
            if shard.len() < shard.capacity() / 4 {
                shard.shrink_to_fit();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().map_or(0, |shard| shard.len())).sum()
    }

    fn shard(&self, hash: &[u8; 32]) -> &RwLock<HashMap<[u8; 32], Arc<VerifiedToken>>> {
        &self.shards[usize::from(hash[0]) % SHARDS]
    }
}

const SHARDS: usize = 16;
/// 16,384 tokens in all, some 20 MiB at the very most.
const TOKENS_PER_SHARD: usize = 1024;
