//! `GET /verify/referrers`: whether a scanner image is a trusted release, by the same verdict that signing goes by.

use std::sync::Arc;

use http::Response;
use http::request::Parts;

use super::contract::{ReferrersResponseBody, ReleaseSignatureBody};
use super::keys::READ_SCOPE;
use super::problem::{Code, Problem};
use super::sending::Sending;
use crate::auth::{PeerCertificate, Presented};
use crate::pipeline::{Appliance, Case, Refusal};
use crate::release::{Evidence, ReleaseError, TrustedRelease};

/// Says whether the image in the query is trusted, and by whom.
///
/// # Errors
/// When the caller is not authenticated, the query names no image, or nobody can say now.
pub(super) async fn verify(
    appliance: &Arc<Appliance>,
    case: &mut Case,
    peer: &PeerCertificate,
    head: &Parts,
) -> Result<Response<Sending>, Refusal> {
    case.asks_for("verify_referrers");
    let scopes = [READ_SCOPE, &appliance.config.authority.scope];
    let authenticated = appliance.authenticator.authenticate(&Presented::of(head, peer, &scopes)).await?;
    case.authenticated(&authenticated.caller);
    let tenant = &authenticated.caller.tenant;
    let _permit = appliance.admit_read(tenant)?;
    let image = image_digest(head.uri.query()).ok_or_else(not_one_image)?;
    case.asks_about(&image);
    let verdict = match appliance.releases.check(&image, tenant).await {
        Ok(release) => Ok(release),
        Err(ReleaseError::Malformed) => return Err(not_one_image()),
        Err(error @ (ReleaseError::Unavailable { .. } | ReleaseError::Busy { .. })) => return Err(error.into()),
        Err(error) => Err(error.reason()),
    };
    let mut body = ReferrersResponseBody {
        trusted: verdict.is_ok(),
        image_digest: image,
        signatures: verdict.as_ref().map(|release| vec![signature(release)]).unwrap_or_default(),
        reason: verdict.as_ref().err().copied(),
        audit_id: String::new(),
    };
    match verdict {
        Ok(release) => case.released(release),
        Err(reason) => case.found_untrusted(reason),
    }
    let write = |audit_id: crate::audit::AuditId| {
        body.audit_id = audit_id.to_string();
        serde_json::to_vec(&body).expect("strings always serialize")
    };
    case.answer(write, authenticated.dpop_nonce).await
}

fn signature(release: &TrustedRelease) -> ReleaseSignatureBody {
    let kind = match release.evidence() {
        Evidence::OperatorList { .. } => "operator",
        Evidence::Signature { form, .. } if form.is_notary() => "notation",
        Evidence::Signature { .. } => "cosign",
    };
    let digest = release.evidence().signature().map(str::to_owned);
    let signature_sha256 = release.evidence().signature_sha256().map(str::to_owned);
    ReleaseSignatureBody { r#type: kind, digest, signature_sha256, signed_by: release.signed_by().to_owned() }
}

/// `imageDigest=sha256:<hex>`, once and alone; the colon may be escaped, as many clients do. Whether the rest is a digest
/// is for the look-up to say.
fn image_digest(query: Option<&str>) -> Option<String> {
    let value = query?.strip_prefix("imageDigest=")?;
    if value.contains(['&', '=', '+']) || value.len() > MAX_VALUE {
        return None;
    }
    Some(value.replacen("%3A", ":", 1).replacen("%3a", ":", 1))
}

fn not_one_image() -> Refusal {
    let detail = "write ?imageDigest=sha256: and 64 lowercase hex digits, and nothing else";
    Refusal::from(Problem::new(Code::InvalidRequest).reason("image_digest").detail(detail))
}

const MAX_VALUE: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_image_is_asked_about_in_one_of_two_spellings() {
        for right in ["imageDigest=sha256:ab", "imageDigest=sha256%3Aab", "imageDigest=sha256%3aab"] {
            assert_eq!(image_digest(Some(right)).as_deref(), Some("sha256:ab"), "{right}");
        }
        for wrong in
            ["", "x", "imagedigest=sha256:ab", "imageDigest=a&imageDigest=b", "imageDigest=a&x=y", "x=y&imageDigest=a"]
        {
            assert_eq!(image_digest(Some(wrong)), None, "{wrong}");
        }
        assert_eq!(image_digest(None), None);
    }
}
