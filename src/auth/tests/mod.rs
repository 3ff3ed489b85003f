#![allow(clippy::unwrap_used)]

mod keys;
mod proof;
mod restart;
mod rfc9449;
mod token;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::header::HeaderName;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::authenticator::Moment;
use super::*;
use crate::config::{self, JwksSource};
use crate::jose::testing::SigningKey;
use crate::jose::{Algorithm, Jwk, base64url};
use crate::outbound::{Outbound, OutboundLimits, OutboundTls};

const ISSUER: &str = "https://authority.example";
const PUBLIC_URL: &str = "https://signer.example:8443";
const PATH: &str = "/api/v1/signer/sign/dsse";
const HTU: &str = "https://signer.example:8443/api/v1/signer/sign/dsse";
const CERTIFICATE: [u8; 32] = [0xc7; 32];
const EPOCH: i64 = 1_800_000_000;

/// An Authority with one key in a file, a client with a DPoP key and a certificate, and an appliance that has been
/// running for an hour, so that no nonce is due.
struct World {
    authority: SigningKey,
    client: SigningKey,
    appliance: Authenticator,
    jwks: PathBuf,
    started: Instant,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// A world with another configuration; must be made inside a runtime.
    fn with(configure: impl FnOnce(&mut config::Authority)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let jwks = folder.path().join("jwks.json");
        let authority = SigningKey::generate(Algorithm::Es256);
        std::fs::write(&jwks, published(&[("k1", &authority)])).unwrap();
        let mut config = authority_config(&JwksSource::File(jwks.clone()));
        configure(&mut config);
        let started = Instant::now();
        let start = Moment { wall: UnixTime(EPOCH - 3600), steady: started };
        let appliance = Authenticator::started_at(&config, PUBLIC_URL, ["acme", "globex"], outbound(), start).unwrap();
        // A file is confirmed every few seconds; these tests move the clock themselves.
        Self { authority, client: SigningKey::generate(Algorithm::Es256), appliance, jwks, started, _folder: folder }
    }

    /// `seconds` after noon, when the appliance has been up for an hour.
    fn at(&self, seconds: i64) -> Moment {
        let up = u64::try_from(3600 + seconds).unwrap();
        Moment { wall: UnixTime(EPOCH + seconds), steady: self.started + Duration::from_secs(up) }
    }

    fn jkt(&self) -> String {
        base64url(&Jwk::from_value(&self.client.jwk()).unwrap().thumbprint())
    }

    /// The claims of a token that passes.
    fn claims(&self) -> Value {
        json!({
            "iss": ISSUER, "aud": "signer", "sub": "scanner-7", "jti": "token-1", "tid": "acme",
            "client_id": "scanner", "inst": "inst-1", "scope": "openid signer.sign", "roles": ["x"],
            "iat": EPOCH, "nbf": EPOCH, "exp": EPOCH + 300, "cnf": { "jkt": self.jkt() },
        })
    }

    fn token(&self, claims: &Value) -> String {
        self.authority.token(Algorithm::Es256, &json!({ "alg": "ES256", "typ": "at+jwt", "kid": "k1" }), claims)
    }

    fn good_token(&self) -> String {
        self.token(&self.claims())
    }

    fn proof_header(&self) -> Value {
        json!({ "alg": "ES256", "typ": "dpop+jwt", "jwk": self.client.jwk() })
    }

    /// The claims of a proof that passes with `token`; each has a `jti` of its own.
    fn proof_claims(token: &str) -> Value {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let jti = format!("proof-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
        json!({ "jti": jti, "htm": "POST", "htu": HTU, "iat": EPOCH, "ath": base64url(hash.as_ref()) })
    }

    fn proof(&self, claims: &Value) -> String {
        self.client.token(Algorithm::Es256, &self.proof_header(), claims)
    }

    fn good_proof(&self, token: &str) -> String {
        self.proof(&Self::proof_claims(token))
    }

    async fn call(&self, headers: &[(&str, &str)], now: Moment) -> Result<Authenticated, AuthError> {
        self.appliance.authenticate_at(&presented(&header_map(headers)), now).await
    }

    async fn call_dpop(&self, token: &str, proof: &str, now: Moment) -> Result<Authenticated, AuthError> {
        self.call(&[("authorization", &format!("DPoP {token}")), ("dpop", proof)], now).await
    }

    async fn call_bearer(&self, token: &str, now: Moment) -> Result<Authenticated, AuthError> {
        self.call(&[("authorization", &format!("Bearer {token}"))], now).await
    }
}

fn authority_config(jwks: &JwksSource) -> config::Authority {
    let jwks_text = match jwks {
        JwksSource::File(path) => format!("{{ file = {:?} }}", path.to_str().unwrap()),
        JwksSource::Url(url) => format!("{{ url = {url:?} }}"),
        JwksSource::Discovery(url) => format!("{{ discovery = {url:?} }}"),
    };
    toml::from_str(&format!("issuer = {ISSUER:?}\njwks = {jwks_text}\njwks_max_stale = \"8760h\"")).unwrap()
}

fn outbound() -> Outbound {
    let limits = OutboundLimits { timeout: Duration::from_secs(5), max_body_bytes: 1 << 18 };
    Outbound::new(OutboundTls::default(), limits, Handle::current()).unwrap()
}

fn published(keys: &[(&str, &SigningKey)]) -> String {
    let keys: Vec<Value> = keys
        .iter()
        .map(|(kid, key)| {
            let mut jwk = key.jwk();
            jwk["kid"] = (*kid).into();
            jwk
        })
        .collect();
    json!({ "keys": keys }).to_string()
}

fn header_map(headers: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    map
}

fn presented(headers: &HeaderMap) -> Presented<'_> {
    static PEER: std::sync::LazyLock<PeerCertificate> =
        std::sync::LazyLock::new(|| PeerCertificate { thumbprint: CERTIFICATE, subject: "CN=scanner".into() });
    Presented { method: &Method::POST, path: PATH, headers, peer: &PEER, any_scope: &["signer.sign"] }
}

fn challenge(error: &AuthError) -> String {
    error.challenge().map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

fn with(value: &Value, member: &str, replacement: impl Into<Value>) -> Value {
    let mut value = value.clone();
    value[member] = replacement.into();
    value
}

fn without(value: &Value, member: &str) -> Value {
    let mut value = value.clone();
    value.as_object_mut().unwrap().remove(member);
    value
}

#[test]
fn every_reason_stands_in_the_table_and_is_fit_for_a_header() {
    let table: Vec<(&str, &str)> = include_str!("../reason.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("/// | `"))
        .map(|line| {
            let (name, rest) = line.split_once("` | ").unwrap();
            (name, rest.split(" |").next().unwrap())
        })
        .collect();
    let expected: Vec<(&str, String)> = Reason::ALL
        .iter()
        .map(|reason| {
            let error = AuthError::new(*reason);
            let status = match error.code() {
                "invalid_token" => 401,
                "insufficient_scope" => 403,
                _ => 503,
            };
            (reason.name(), format!("{status} `{}`", error.code()))
        })
        .collect();
    assert_eq!(table, expected.iter().map(|(name, code)| (*name, code.as_str())).collect::<Vec<_>>());
    for reason in Reason::ALL {
        let title = reason.title();
        assert!(title.bytes().all(|byte| matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\'), "{title}");
        let challenged = AuthError::new(*reason).challenge().is_some();
        let later = matches!(reason.class(), Class::Overloaded | Class::DependencyUnavailable);
        assert_eq!(challenged, !later, "{}", reason.name());
    }
}

#[tokio::test]
async fn a_stranger_is_shown_both_ways_in() {
    let world = World::new();
    for headers in [&[][..], &[("authorization", "Basic dXNlcjpwYXNz")], &[("authorization", "")]] {
        let error = world.call(headers, world.at(0)).await.unwrap_err();
        assert_eq!(challenge(&error), r#"DPoP algs="ES256 EdDSA PS256 RS256", Bearer realm="signer""#);
    }
}

#[tokio::test]
async fn a_wrong_setup_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let make = |public_url: &str, change: fn(&mut config::Authority)| {
        let mut config = authority_config(&JwksSource::File(path.clone()));
        change(&mut config);
        Authenticator::new(&config, public_url, ["acme"], outbound()).map(|_| ()).map_err(|error| error.to_string())
    };
    assert!(make(PUBLIC_URL, |_| {}).unwrap_err().contains("authority.jwks"), "the file is missing");
    std::fs::write(&path, "{}").unwrap();
    assert!(make(PUBLIC_URL, |_| {}).unwrap_err().contains("authority.jwks"), "the file is no key set");
    std::fs::write(&path, r#"{"keys":[]}"#).unwrap();
    make(PUBLIC_URL, |_| {}).unwrap();
    assert!(make("http://signer.example", |_| {}).unwrap_err().contains("server.public_url"));
    assert!(make(PUBLIC_URL, |config| config.audience = "*".into()).unwrap_err().contains("authority.audience"));
    assert!(make(PUBLIC_URL, |config| config.algorithms.clear()).unwrap_err().contains("authority.algorithms"));
}
