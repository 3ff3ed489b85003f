//! A client of one repository of an OCI registry (distribution specification v1.1), for reading signatures only.
//!
//! Own code over [`crate::outbound`]. The crate `oci-client` was looked at and does not keep what has to be kept here: its
//! HTTP client follows redirects to any host; the password goes to whatever token service a challenge names; answers of
//! any size are read; the digest of a manifest is what a header says; blobs are handed out unverified; referrers are not
//! paged. Here, instead:
//!
//! - requests go to the configured origin, and, without credentials, to origins that the operator named for redirects;
//! - a token is asked for on the registry's own origin or at the configured token service, for `pull` of this repository;
//! - every answer has a bound in size and time, a list one in pages;
//! - every manifest and blob has the digest and the length that it was asked for by, and the media type that it says.

pub(super) mod annotation;
mod auth;
mod error;
mod link;
mod manifest;
mod origin;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LINK, LOCATION};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use tokio::runtime::Handle;

use super::digest::Digest;
use crate::outbound::{Fetched, Outbound, OutboundError, OutboundLimits, OutboundTls};

use auth::Auth;
pub use auth::Credentials;
pub use error::RegistryError;
pub(super) use manifest::MAX_ENTRIES;
pub use manifest::{Descriptor, Index, Manifest};
use manifest::{INDEX_TYPE, LIST_TYPE, MANIFEST_TYPES};
pub(crate) use origin::Origin;

/// Where a repository is, and as whom it is read.
pub struct RegistrySettings {
    /// `https://registry.example/team/scanner`: the registry and the repository in it.
    pub url: String,
    /// Whom it must be, and who this is.
    pub tls: OutboundTls,
    /// User and password.
    pub credentials: Option<Credentials>,
    /// The token service, where it is on another host.
    pub token_service: Option<String>,
    /// Origins that content may be redirected to.
    pub redirects: Vec<String>,
    /// The whole of one call.
    pub timeout: Duration,
}

/// One repository.
pub struct Registry {
    name: Arc<str>,
    origin: Origin,
    repository: String,
    redirects: Vec<Origin>,
    outbound: Outbound,
    timeout: Duration,
    auth: Auth,
}

/// An image as a repository has it: what its digest does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Bytes of its manifest.
    pub size: u64,
    /// Media type of its manifest.
    pub media_type: String,
}

/// A page of a list of referrers.
#[derive(Debug)]
pub struct Page {
    /// What is on it.
    pub index: Index,
    /// Where the next one is.
    pub next: Option<String>,
}

/// Why a repository cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum RegistrySetupError {
    /// Not a repository.
    #[error("`{0}` is no repository; write one like https://registry.example/team/scanner")]
    Url(String),
    /// Not where something else is.
    #[error("`{0}` is no URL; write one like https://auth.example/token")]
    Other(String),
    /// The TLS configuration.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
}

impl Registry {
    /// A client whose calls are made on `runtime`.
    ///
    /// # Errors
    /// [`RegistrySetupError`].
    pub fn new(settings: RegistrySettings, runtime: &Handle) -> Result<Self, RegistrySetupError> {
        let place = || RegistrySetupError::Url(settings.url.clone());
        let (origin, repository) = repository_of(&settings.url).ok_or_else(place)?;
        let elsewhere = |url: &String| -> Result<Uri, RegistrySetupError> {
            let uri: Uri = url.parse().map_err(|_| RegistrySetupError::Other(url.clone()))?;
            Origin::of(&uri).map(|_| uri).ok_or_else(|| RegistrySetupError::Other(url.clone()))
        };
        let token_service = settings.token_service.as_ref().map(elsewhere).transpose()?;
        let redirects = settings
            .redirects
            .iter()
            .map(|url| Ok(Origin::of(&elsewhere(url)?).expect("checked above")))
            .collect::<Result<_, RegistrySetupError>>()?;
        let limits = OutboundLimits { timeout: settings.timeout, max_body_bytes: MAX_TOKEN };
        let outbound = Outbound::new(settings.tls, limits, runtime.clone())?;
        let name = settings.url.split_once("://").map_or(&*settings.url, |(_, rest)| rest);
        let auth = Auth::new(settings.credentials.as_ref(), token_service, origin.clone(), &repository);
        Ok(Self { name: name.into(), origin, repository, redirects, outbound, timeout: settings.timeout, auth })
    }

    /// `registry.example/team/scanner`.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// A page of the referrers of `image`: the first, or the one that the page before named. `None` when the registry has
    /// no such API (distribution specification, "Listing Referrers").
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn referrers(&self, image: Digest, next: Option<&str>) -> Result<Option<Page>, RegistryError> {
        let path = format!("/v2/{}/referrers/{image}", self.repository);
        let url = match next {
            None => format!("{}{path}", self.origin),
            Some(next) => next.to_owned(),
        };
        let what = format!("the list of referrers of {image}");
        let Some(answer) = self.get(&url, INDEX_TYPE, MAX_MANIFEST).await? else { return Ok(None) };
        expect_type(&answer.headers, &[INDEX_TYPE], &what)?;
        let next = match answer.headers.get(LINK) {
            Some(link) => link::next(link, &self.origin, &path)?,
            None => None,
        };
        Ok(Some(Page { index: Index::parse(&what, answer.body)?, next }))
    }

    /// The list that registries without that API keep under a tag (distribution specification, "Referrers Tag Schema");
    /// `None` when there is none.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn fallback_list(&self, image: Digest) -> Result<Option<Index>, RegistryError> {
        let tag = format!("sha256-{}", image.hex());
        let what = format!("the index `{tag}`");
        let url = self.manifest_url(&tag);
        let Some(answer) = self.get(&url, INDEX_TYPE, MAX_MANIFEST).await? else { return Ok(None) };
        expect_type(&answer.headers, &[INDEX_TYPE], &what)?;
        Index::parse(&what, answer.body).map(Some)
    }

    /// The manifest under cosign's tag for signatures of `image`; `None` when there is none.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn signature_tag(&self, image: Digest) -> Result<Option<Manifest>, RegistryError> {
        let tag = format!("sha256-{}.sig", image.hex());
        let url = self.manifest_url(&tag);
        let Some(answer) = self.get(&url, &MANIFEST_TYPES.join(", "), MAX_MANIFEST).await? else { return Ok(None) };
        expect_type(&answer.headers, &MANIFEST_TYPES, &format!("the manifest `{tag}`"))?;
        Manifest::parse(answer.body).map(Some)
    }

    /// A manifest by its descriptor.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest, RegistryError> {
        let what = format!("the manifest {}", descriptor.digest);
        if !MANIFEST_TYPES.contains(&&*descriptor.media_type) {
            return Err(RegistryError::MediaType { what, found: shown(&descriptor.media_type) });
        }
        let url = self.manifest_url(&descriptor.digest.to_string());
        let limit = self.fits(&url, descriptor, MAX_REFERRER)?;
        let answer = self.get(&url, &MANIFEST_TYPES.join(", "), limit).await.map_err(longer(descriptor))?;
        let answer = answer.ok_or(RegistryError::Missing(what.clone()))?;
        expect_type(&answer.headers, &MANIFEST_TYPES, &what)?;
        expect_content(descriptor, &answer.body)?;
        Manifest::parse(answer.body)
    }

    /// The image itself: the manifest or index of this digest, which is fetched and hashed.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn target(&self, image: Digest) -> Result<Target, RegistryError> {
        let what = format!("the image {image}");
        let accepted = [MANIFEST_TYPES, [INDEX_TYPE, LIST_TYPE]].concat();
        let answer = self.get(&self.manifest_url(&image.to_string()), &accepted.join(", "), MAX_MANIFEST).await?;
        let answer = answer.ok_or(RegistryError::Missing(what.clone()))?;
        expect_type(&answer.headers, &accepted, &what)?;
        let found = Digest::of(&answer.body);
        if found != image {
            return Err(RegistryError::Digest { expected: image, found });
        }
        let declared = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        Ok(Target { size: answer.body.len() as u64, media_type })
    }

    /// A blob by its descriptor.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn blob(&self, descriptor: &Descriptor) -> Result<Bytes, RegistryError> {
        let url = format!("{}/v2/{}/blobs/{}", self.origin, self.repository, descriptor.digest);
        let limit = self.fits(&url, descriptor, MAX_BLOB)?;
        let answer = self.get(&url, "*/*", limit).await.map_err(longer(descriptor))?;
        let answer = answer.ok_or_else(|| RegistryError::Missing(format!("the blob {}", descriptor.digest)))?;
        expect_content(descriptor, &answer.body)?;
        Ok(answer.body)
    }

    fn manifest_url(&self, reference: &str) -> String {
        format!("{}/v2/{}/manifests/{reference}", self.origin, self.repository)
    }

    /// How much is read: what the descriptor says. What is said to be too large is not even asked for.
    fn fits(&self, url: &str, descriptor: &Descriptor, limit: usize) -> Result<usize, RegistryError> {
        let too_large = || RegistryError::TooLarge(OutboundError::TooLarge { place: url.to_owned(), limit });
        usize::try_from(descriptor.size).ok().filter(|size| *size <= limit).ok_or_else(too_large)
    }

    /// `None` for a 404.
    async fn get(&self, url: &str, accept: &str, limit: usize) -> Result<Option<Fetched>, RegistryError> {
        let mut url = url.to_owned();
        let mut header = self.auth.header(&self.outbound).await?;
        let (mut challenged, mut redirects) = (false, 0);
        loop {
            let answer = self.send(&url, accept, header.as_ref(), limit).await?;
            let place = || shown(&url);
            match answer.status {
                StatusCode::OK => return Ok(Some(answer)),
                StatusCode::NOT_FOUND => return Ok(None),
                StatusCode::UNAUTHORIZED if !challenged && redirects == 0 => {
                    challenged = true;
                    match self.auth.challenged(&answer.headers, header.as_ref(), &self.outbound).await? {
                        Some(other) => header = Some(other),
                        None => return Err(RegistryError::Denied { place: place(), status: answer.status }),
                    }
                }
                status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                    return Err(RegistryError::Denied { place: place(), status });
                }
                status if status.is_redirection() => {
                    redirects += 1;
                    let (to, home) = self.redirect(&url, &answer.headers, redirects)?;
                    if !home {
                        // Another host has no business with what this one is shown.
                        header = None;
                    }
                    url = to;
                }
                status => return Err(RegistryError::Status { place: place(), status }),
            }
        }
    }

    /// Where a redirect of the answer at `from` leads, and whether that is the registry itself.
    fn redirect(&self, from: &str, headers: &HeaderMap, count: u32) -> Result<(String, bool), RegistryError> {
        let location = headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let to = if location.starts_with('/') && !location.starts_with("//") {
            // Of the host that answered, which after another redirect is not the registry (RFC 9110, section 10.2.2).
            let from = from.parse::<Uri>().ok().and_then(|uri| Origin::of(&uri));
            format!("{}{location}", from.as_ref().unwrap_or(&self.origin))
        } else {
            location.to_owned()
        };
        let origin = to.parse::<Uri>().ok().and_then(|uri| Origin::of(&uri));
        match origin {
            Some(origin) if count <= MAX_REDIRECTS && origin == self.origin => Ok((to, true)),
            Some(origin) if count <= MAX_REDIRECTS && self.redirects.contains(&origin) => Ok((to, false)),
            Some(origin) => Err(RegistryError::Redirect { to: origin.to_string() }),
            None => Err(RegistryError::Redirect { to: shown(&to) }),
        }
    }

    async fn send(
        &self,
        url: &str,
        accept: &str,
        authorization: Option<&HeaderValue>,
        limit: usize,
    ) -> Result<Fetched, RegistryError> {
        let mut request = Request::get(url).header(ACCEPT, accept);
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value.clone());
        }
        let request = request.body(Bytes::new()).map_err(|_| RegistryError::Link(shown(url)))?;
        let limits = OutboundLimits { timeout: self.timeout, max_body_bytes: limit };
        Ok(self.outbound.limited(limits).refusals_up_to(MAX_REFUSAL).request(request).await?)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The origin and the repository of `https://registry.example/team/scanner`; `None` when it is none.
pub(crate) fn repository_of(url: &str) -> Option<(Origin, String)> {
    let uri: Uri = url.parse().ok()?;
    let origin = Origin::of(&uri)?;
    let path = uri.path().strip_prefix('/')?;
    // Distribution specification, "Pulling manifests": what a name is.
    let component = |text: &str| {
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
        let bytes = text.as_bytes();
        edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|b| inside(*b)) && !text.contains("..")
    };
    let whole = uri.query().is_none() && !url.contains('#') && path.len() <= 255;
    (whole && path.split('/').all(component)).then(|| (origin, path.to_owned()))
}

/// More than the descriptor says came, and was not read.
fn longer(descriptor: &Descriptor) -> impl FnOnce(RegistryError) -> RegistryError {
    let (digest, expected) = (descriptor.digest, descriptor.size);
    move |error| match error {
        RegistryError::TooLarge(_) => RegistryError::Longer { digest, expected },
        other => other,
    }
}

fn expect_type(headers: &HeaderMap, expected: &[&str], what: &str) -> Result<(), RegistryError> {
    let declared = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = declared.split(';').next().unwrap_or_default().trim();
    if expected.iter().any(|one| essence.eq_ignore_ascii_case(one)) {
        return Ok(());
    }
    Err(RegistryError::MediaType { what: what.to_owned(), found: shown(essence) })
}

fn expect_content(descriptor: &Descriptor, bytes: &Bytes) -> Result<(), RegistryError> {
    let found = Digest::of(bytes);
    if found != descriptor.digest {
        return Err(RegistryError::Digest { expected: descriptor.digest, found });
    }
    if bytes.len() as u64 != descriptor.size {
        let (expected, found) = (descriptor.size, bytes.len() as u64);
        return Err(RegistryError::Size { digest: descriptor.digest, expected, found });
    }
    Ok(())
}

/// What others wrote, fit for a log: without a query, printable, not too long.
fn shown(text: &str) -> String {
    text.split(['?', '#']).next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Bytes of a list, and of the manifest under cosign's tag, which holds every signature there is; registries take four
/// megabytes at least (distribution specification, "Pushing manifests"), and the usual ones no more.
pub(crate) const MAX_MANIFEST: usize = 4 << 20;

/// Bytes of any other manifest: one signature, about a thousand.
pub(crate) const MAX_REFERRER: usize = 1 << 20;

/// Bytes of a signature: a bundle with certificate, timestamps and log entries has some ten thousand.
pub(crate) const MAX_BLOB: usize = 1 << 20;

const MAX_TOKEN: usize = 64 << 10;

/// Bytes of any answer but a 200: nothing in it is looked at.
const MAX_REFUSAL: usize = 64 << 10;
const MAX_REDIRECTS: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_an_origin_and_a_name() {
        let (origin, name) = repository_of("https://registry.example:5000/team/scan_ner-1.x").expect("is one");
        assert_eq!((origin.to_string(), name.as_str()), ("https://registry.example:5000".into(), "team/scan_ner-1.x"));
        for wrong in [
            "",
            "registry.example/team",
            "https://registry.example",
            "https://registry.example/",
            "https://registry.example/Team",
            "https://registry.example/team/",
            "https://registry.example//team",
            "https://registry.example/team/../other",
            "https://registry.example/team?x",
            "https://registry.example/team#x",
            "https://registry.example/team:latest",
            "https://registry.example/team@sha256:00",
            "https://u:p@registry.example/team",
            "ftp://registry.example/team",
        ] {
            assert!(repository_of(wrong).is_none(), "{wrong}");
        }
    }
}
