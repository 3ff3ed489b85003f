//! Who signs: a key in a token, or a sealed helper with a certificate of Fulcio. Behind it the pipeline is the same.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Appliance, Refusal};
use crate::api::request::{Options, ReturnBundle};
use crate::config::SigningMode;
use crate::custody::{ResolveError, SigningKey, TenantKey};
use crate::dsse::{DerSignature, Form, Signature, SignedBy};
use crate::keyless::{Issued, TenantIdentity};
use crate::timestamp::{Attempt, StampError, Stamped, StampedDer, Window};

/// What a tenant signs with, in the mode that was asked for.
pub(super) enum Signer {
    Kms(TenantKey),
    Keyless(Arc<TenantIdentity>),
}

/// A signature that was verified, and whose it is.
pub(super) struct Signed {
    signature: DerSignature,
    keyid: Arc<str>,
    by: By,
    stamps: Vec<StampedDer>,
}

enum By {
    Key { key: Arc<SigningKey>, token: Arc<str>, custody: &'static str },
    Certificate { issued: Arc<Issued>, expires: String },
}

impl Appliance {
    /// What this tenant signs with.
    pub(super) fn signer(&self, tenant: &str, mode: SigningMode) -> Result<Signer, Refusal> {
        match mode {
            SigningMode::Kms => Ok(Signer::Kms(self.custody.resolve(tenant, mode)?)),
            SigningMode::Keyless => {
                let identity = self.keyless.as_ref().and_then(|keyless| keyless.resolve(tenant));
                let unavailable = || ResolveError::ModeUnavailable(SigningMode::Keyless);
                Ok(Signer::Keyless(identity.ok_or_else(unavailable)?))
            }
        }
    }

    /// Has the digest signed. Whoever signs, custody and keyless verify the signature before they hand it over.
    pub(super) async fn sign(
        &self,
        signer: &Signer,
        digest: &[u8; 32],
        options: Options,
        deadline: Instant,
    ) -> Result<Signed, Refusal> {
        match signer {
            Signer::Kms(key) => {
                let signed = self.custody.sign(key, digest, deadline).await?;
                let signature = Signature::from_raw(&signed.signature).map_err(|error| Refusal::lost(&error))?;
                Ok(Signed {
                    signature: signature.to_der(),
                    keyid: Arc::clone(key.keyid()),
                    by: By::Key { key: Arc::clone(key.key()), token: signed.token, custody: signed.custody },
                    stamps: Vec::new(),
                })
            }
            Signer::Keyless(identity) => {
                let gone = || Refusal::lost(&"keyless signing was resolved and is not there");
                let keyless = self.keyless.as_ref().ok_or_else(gone)?;
                let life = options.expiry_seconds.map(|seconds| Duration::from_secs(seconds.into()));
                let signed = keyless.sign(identity, digest, life, deadline).await?;
                let (keyid, expires) = (Arc::clone(&signed.issued.keyid), signed.issued.not_after.rfc3339());
                let by = By::Certificate { issued: signed.issued, expires };
                Ok(Signed { signature: signed.signature, keyid, by, stamps: Vec::new() })
            }
        }
    }

    /// Has the signature stamped, where it goes into a form that carries timestamps and authorities are configured.
    pub(super) async fn stamp(&self, signed: &mut Signed, options: Options, deadline: Instant) -> Result<(), Refusal> {
        let Some(timestamps) = self.timestamps.as_ref().filter(|_| options.return_bundle == ReturnBundle::Sigstore)
        else {
            return Ok(());
        };
        let metrics = &self.metrics.timestamps;
        let failure = |one: &Attempt| metrics.failure(&one.authority, one.error.reason());
        match timestamps.stamp(&signed.signature, signed.window(), deadline).await {
            Ok(Stamped { stamps, failed }) => {
                failed.iter().for_each(failure);
                stamps.iter().for_each(|stamp| metrics.issued(&stamp.authority));
                signed.stamps = stamps;
                Ok(())
            }
            Err(error) => {
                match &error {
                    StampError::Failed(attempts) => attempts.iter().for_each(failure),
                    StampError::Deadline | StampError::Stopping => metrics.failure("any", error.reason()),
                }
                Err(error.into())
            }
        }
    }
}

impl Signed {
    pub(super) fn signature(&self) -> &DerSignature {
        &self.signature
    }

    pub(super) fn keyid(&self) -> &str {
        &self.keyid
    }

    /// For the record: the token that signed.
    pub(super) fn token(&self) -> Option<&Arc<str>> {
        match &self.by {
            By::Key { token, .. } => Some(token),
            By::Certificate { .. } => None,
        }
    }

    /// For the record: the certificate that was issued.
    pub(super) fn issued(&self) -> Option<&Arc<Issued>> {
        match &self.by {
            By::Key { .. } => None,
            By::Certificate { issued, .. } => Some(issued),
        }
    }

    /// Between which seconds a timestamp is of use: a certificate's verifiers judge it by them.
    fn window(&self) -> Option<Window> {
        self.issued().map(|issued| Window { not_before: issued.not_before, not_after: issued.not_after })
    }

    /// For the record: who stamped it, and when that was.
    pub(super) fn stamped(&self) -> &[StampedDer] {
        &self.stamps
    }

    /// The timestamps as a bundle carries them.
    pub(super) fn timestamps(&self) -> Vec<&[u8]> {
        self.stamps.iter().map(|stamp| stamp.der.as_slice()).collect()
    }

    /// The form that was asked for, with what belongs into it.
    pub(super) fn form<'a>(&'a self, wanted: ReturnBundle, timestamps: &'a [&'a [u8]]) -> Form<'a> {
        match (wanted, &self.by) {
            (ReturnBundle::Dsse, _) => Form::Dsse,
            (ReturnBundle::DsseCert, By::Key { key, .. }) => Form::DsseCert(key.certificate_chain()),
            (ReturnBundle::DsseCert, By::Certificate { issued, .. }) => Form::DsseCert(&issued.chain),
            (ReturnBundle::Sigstore, _) => Form::Sigstore(timestamps),
        }
    }

    pub(super) fn by(&self) -> SignedBy<'_> {
        match &self.by {
            By::Key { key, token, custody } => SignedBy::Key { key: key.name(), token, custody },
            By::Certificate { issued, expires } => {
                SignedBy::Certificate { leaf: &issued.leaf, issuer: &issued.issuer, san: &issued.san, expires }
            }
        }
    }
}
