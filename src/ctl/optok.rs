//! The OpTok as its holder sees it: where it comes from, what it is bound to, how a request proves that.

use std::path::{Path, PathBuf};

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, request};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::discovery::Issuer;
use super::error::CtlError;
use super::files;
use super::proof_key::{Proof, ProofKey};
use super::settings::{Access, Binding};
use super::tls::Identity;
use crate::clock::UnixTime;
use crate::jose::{NumericDate, base64url, base64url_decode};

/// An OpTok and the key that proves it ours.
pub(crate) struct Credentials {
    source: Source,
    key: Option<ProofKey>,
    /// `x5t#S256` of the client certificate.
    certificate: String,
    token: Option<OpTok>,
}

enum Source {
    File(PathBuf),
    Authority(Box<Issuer>),
}

/// A token as far as its holder needs to read it. Nobody verifies here: the appliance does.
struct OpTok {
    text: Zeroizing<String>,
    binding: Binding,
    expires_at: Option<UnixTime>,
}

impl Credentials {
    /// Finds out where the token comes from and loads the key, before anything is sent.
    pub(crate) fn load(settings: &Access, identity: &Identity) -> Result<Self, CtlError> {
        let mut key = settings.dpop_key.as_deref().map(ProofKey::load).transpose()?;
        let source = match (&settings.token_file, &settings.authority) {
            (Some(path), _) => Source::File(path.clone()),
            (None, Some(_)) => {
                if key.is_none() && settings.binding.unwrap_or_default() == Binding::Dpop {
                    key = Some(ProofKey::ephemeral()?);
                }
                Source::Authority(Box::new(Issuer::load(settings, identity)?))
            }
            (None, None) => {
                return Err(CtlError::Usage(
                    "no OpTok: give --token-file FILE, or --authority URL with --client-id to fetch one".to_owned(),
                ));
            }
        };
        let mut credentials = Self { source, key, certificate: base64url(&identity.thumbprint()), token: None };
        if let Source::File(path) = &credentials.source {
            let text = files::read_secret_line(path, "OpTok")?;
            credentials.token = Some(credentials.bind(text, Some(path))?);
        }
        Ok(credentials)
    }

    /// Makes sure that there is a token which will not expire on the way. One from a file is used as it is.
    pub(crate) async fn refresh(&mut self) -> Result<(), CtlError> {
        let Source::Authority(issuer) = &mut self.source else { return Ok(()) };
        let soon = UnixTime::now().0 + EXPIRY_MARGIN_SECONDS;
        if self.token.as_ref().is_some_and(|token| token.expires_at.is_none_or(|at| at.0 > soon)) {
            return Ok(());
        }
        let text = issuer.fetch(self.key.as_ref()).await?;
        self.token = Some(self.bind(text, None)?);
        Ok(())
    }

    /// Puts the token, and the proof that it is ours, on a request to `url`.
    pub(crate) fn authorise(
        &self,
        request: request::Builder,
        method: &str,
        url: &str,
        nonce: Option<&str>,
    ) -> Result<request::Builder, CtlError> {
        let token = self.token.as_ref().ok_or_else(|| CtlError::Usage("no OpTok was fetched".to_owned()))?;
        match (token.binding, &self.key) {
            (Binding::Dpop, Some(key)) => {
                let proof = key.prove(&Proof { method, url, token: Some(token.text.as_str()), nonce })?;
                Ok(request
                    .header(AUTHORIZATION, secret_header("DPoP", &token.text)?)
                    .header(HeaderName::from_static("dpop"), proof))
            }
            _ => Ok(request.header(AUTHORIZATION, secret_header("Bearer", &token.text)?)),
        }
    }

    /// What the token's binding is, for the report.
    pub(crate) fn binding(&self) -> &'static str {
        match self.token.as_ref().map(|token| token.binding) {
            Some(Binding::Mtls) => "mtls",
            Some(Binding::Dpop) => "dpop",
            None => "none",
        }
    }

    /// Reads the token's claims and holds its `cnf` against the keys at hand, because the appliance's answer to a
    /// mismatch must not say more than that the token was refused.
    fn bind(&self, text: Zeroizing<String>, path: Option<&Path>) -> Result<OpTok, CtlError> {
        let wrong = |why: String| match path {
            Some(path) => CtlError::content(path, why),
            None => CtlError::Unexpected(format!("the Authority's token {why}")),
        };
        let claims = claims(&text).map_err(|why| wrong(why.to_owned()))?;
        if let Some(expires_at) = claims.exp
            && expires_at.0.0 + EXPIRY_MARGIN_SECONDS < UnixTime::now().0
        {
            let ago = UnixTime::now().since(expires_at.0).as_secs();
            return Err(wrong(format!("expired {ago} s ago; fetch a fresh one")));
        }
        let binding = match (claims.cnf.jkt, claims.cnf.x5t) {
            (Some(jkt), _) => {
                let key = self
                    .key
                    .as_ref()
                    .ok_or_else(|| wrong(format!("is bound to the DPoP key {jkt}; give that key with --dpop-key")))?;
                if key.thumbprint() != jkt {
                    let ours = key.thumbprint();
                    return Err(wrong(format!("is bound to the DPoP key {jkt}, but --dpop-key is {ours}")));
                }
                Binding::Dpop
            }
            (None, Some(x5t)) if x5t == self.certificate => Binding::Mtls,
            (None, Some(x5t)) => {
                let ours = &self.certificate;
                return Err(wrong(format!("is bound to the certificate {x5t}, but --cert is {ours}")));
            }
            (None, None) => {
                return Err(wrong(
                    "is bound to no key (no cnf.jkt, no cnf.x5t#S256); the appliance refuses such tokens".to_owned(),
                ));
            }
        };
        Ok(OpTok { text, binding, expires_at: claims.exp.map(|exp| exp.0) })
    }
}

#[derive(Deserialize)]
struct Claims {
    exp: Option<NumericDate>,
    #[serde(default)]
    cnf: Confirmation,
}

#[derive(Default, Deserialize)]
struct Confirmation {
    jkt: Option<String>,
    #[serde(rename = "x5t#S256")]
    x5t: Option<String>,
}

fn claims(token: &str) -> Result<Claims, &'static str> {
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err("is not a JWT; the appliance takes JWT access tokens (RFC 9068)");
    };
    let unreadable = "is not a JWT that can be read: its payload is not base64url JSON";
    let payload = Zeroizing::new(base64url_decode(payload, "OpTok payload").map_err(|_| unreadable)?);
    let mut claims: Claims = serde_json::from_slice(&payload).map_err(|_| unreadable)?;
    // Both are shown in errors; neither is longer than a SHA-256 when it is what it should be.
    for name in [&mut claims.cnf.jkt, &mut claims.cnf.x5t].into_iter().flatten() {
        if name.len() > 64 || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("has a cnf that is no thumbprint");
        }
    }
    Ok(claims)
}

fn secret_header(scheme: &str, token: &str) -> Result<HeaderValue, CtlError> {
    let text = Zeroizing::new(format!("{scheme} {token}"));
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| CtlError::Unexpected("the OpTok holds characters that no header can carry".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

const EXPIRY_MARGIN_SECONDS: i64 = 5;
