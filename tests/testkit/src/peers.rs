//! Programs that are not ours. `cargo xtask test` builds them and says by environment where they are.

#![forbid(unsafe_code)]

use std::env;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use http::Request;
use http_body_util::Full;

use crate::client::{Answer, Connection, Protocol, TlsOptions};
use crate::jwt::Jwt;
use crate::key::Key;
use crate::pki::{Identity, Pki};
use crate::{Context, Error, Result, now, random_id, runtime};

/// A running `oidc-provider`; it ends when dropped.
pub struct OidcProvider {
    child: Child,
    port: u16,
    pki_tls: TlsOptions,
    secret: String,
}

/// cosign.
///
/// # Errors
/// When it was not built.
pub fn cosign() -> Result<PathBuf> {
    named("SIGNER_PEER_COSIGN")
}

/// The cosign of the generation before.
///
/// # Errors
/// When it was not built.
pub fn cosign_v2() -> Result<PathBuf> {
    named("SIGNER_PEER_COSIGN_V2")
}

/// sigstore-go's verifier.
///
/// # Errors
/// When it was not built.
pub fn sigstore_go() -> Result<PathBuf> {
    named("SIGNER_PEER_SIGSTORE_GO")
}

/// The script around `@sigstore/verify`, for `node`.
///
/// # Errors
/// When it was not built.
pub fn sigstore_js() -> Result<PathBuf> {
    named("SIGNER_PEER_SIGSTORE_JS")
}

/// The program around the crate `sigstore-verify`.
///
/// # Errors
/// When it was not built.
pub fn sigstore_rs() -> Result<PathBuf> {
    named("SIGNER_PEER_SIGSTORE_RS")
}

/// Fulcio.
///
/// # Errors
/// When it was not built.
pub fn fulcio() -> Result<PathBuf> {
    named("SIGNER_PEER_FULCIO")
}

/// timestamp-server.
///
/// # Errors
/// When it was not built.
pub fn timestamp_server() -> Result<PathBuf> {
    named("SIGNER_PEER_TIMESTAMP_SERVER")
}

/// zot.
///
/// # Errors
/// When it was not built.
pub fn zot() -> Result<PathBuf> {
    named("SIGNER_PEER_ZOT")
}

/// The registry of go-containerregistry, with TLS and a password.
///
/// # Errors
/// When it was not built.
pub fn registry() -> Result<PathBuf> {
    named("SIGNER_PEER_REGISTRY")
}

/// notation.
///
/// # Errors
/// When it was not built.
pub fn notation() -> Result<PathBuf> {
    named("SIGNER_PEER_NOTATION")
}

/// distribution, of Debian's package `docker-registry`.
///
/// # Errors
/// When it is not there.
pub fn distribution() -> Result<PathBuf> {
    named("SIGNER_PEER_DISTRIBUTION")
}

/// The kryoptic module.
///
/// # Errors
/// When it was not built.
pub fn kryoptic() -> Result<PathBuf> {
    named("SIGNER_PEER_KRYOPTIC")
}

/// The tpm2-pkcs11 module of a machine that also has swtpm.
///
/// # Errors
/// When it is not there.
pub fn tpm2_pkcs11() -> Result<PathBuf> {
    named("SIGNER_PEER_TPM2_PKCS11")
}

/// A Python that has securesystemslib.
///
/// # Errors
/// When it was not built.
pub fn python() -> Result<PathBuf> {
    named("SIGNER_PEER_PYTHON")
}

/// The directory of this repository's own peers, `tests/peers`.
#[must_use]
pub fn sources() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).with_file_name("peers")
}

/// A client of `oidc-provider` that gets identity tokens for Fulcio; its id is their subject.
pub enum IdentityClient<'a> {
    /// Proves itself by a certificate for `DNS.test` of the fixture's client CA.
    Certificate {
        /// `client_id`.
        id: &'a str,
        /// The certificate's DNS name.
        dns: &'a str,
    },
    /// Proves itself by assertions that this key signs (RFC 7523).
    Assertion {
        /// `client_id`.
        id: &'a str,
        /// The public key as a JWK, with its `kid`.
        jwk: serde_json::Value,
    },
}

impl OidcProvider {
    /// Starts it with the fixture's certificates. Its clients are `scanner-dpop`, which proves itself by a secret, and
    /// `scanner-mtls`, which proves itself by acme's certificate.
    ///
    /// # Errors
    /// When it was not built or does not start.
    pub fn start(pki: &Pki) -> Result<Self> {
        Self::start_with(pki, &[])
    }

    /// Starts it with more clients.
    ///
    /// # Errors
    /// When it was not built or does not start.
    pub fn start_with(pki: &Pki, clients: &[IdentityClient<'_>]) -> Result<Self> {
        let clients: Vec<_> = clients.iter().map(IdentityClient::json).collect();
        let dir = named("SIGNER_PEER_OIDC_PROVIDER")?;
        let secret = random_id();
        let mut child = Command::new("node")
            .arg(dir.join("server.mjs"))
            .env("TLS_CERT", pki.services.certificate())
            .env("TLS_KEY", pki.services.private_key())
            .env("CLIENT_CA", &pki.client_ca.certificate)
            .env("DPOP_SECRET", &secret)
            .env("IDENTITY_CLIENTS", serde_json::Value::from(clients).to_string())
            .env("ORPHAN_WATCH", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("run node")?;
        let mut lines = BufReader::new(child.stdout.take().context("read from node")?).lines();
        let listening =
            lines.by_ref().map_while(Result::ok).find_map(|line| line.strip_prefix("listening ")?.parse().ok());
        // It must not be stopped by a pipe that nobody reads.
        std::thread::spawn(move || lines.for_each(drop));
        let pki_tls = TlsOptions::new(pki.server_roots(), None);
        match listening {
            Some(port) => Ok(Self { child, port, pki_tls, secret }),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                Err(Error::new("oidc-provider ended before it was listening"))
            }
        }
    }

    /// `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// A token bound to this DPoP key, by the client `scanner-dpop`.
    ///
    /// # Errors
    /// When the provider refuses.
    pub fn dpop_token(&self, key: &Key, scope: &str) -> Result<String> {
        let claims = serde_json::json!({"jti": random_id(), "htm": "POST", "htu": format!("{}/token", self.issuer()), "iat": now()});
        let proof = Jwt::new("dpop+jwt", claims, key).header("jwk", key.bare_jwk()).encode();
        self.token(&format!("client_id=scanner-dpop&client_secret={}&scope={scope}", self.secret), None, Some(&proof))
    }

    /// A token bound to nothing, by the client `scanner-dpop`.
    ///
    /// # Errors
    /// When the provider refuses.
    pub fn unbound_token(&self, scope: &str) -> Result<String> {
        self.token(&format!("client_id=scanner-dpop&client_secret={}&scope={scope}", self.secret), None, None)
    }

    /// A token bound to this certificate, by the client `scanner-mtls`.
    ///
    /// # Errors
    /// When the provider refuses.
    pub fn certificate_token(&self, identity: &Identity, scope: &str) -> Result<String> {
        self.token(&format!("client_id=scanner-mtls&scope={scope}"), Some(identity), None)
    }

    /// Signs with a new key from now on; the old one stays published. Returns the new `kid`.
    ///
    /// # Errors
    /// When the provider does not answer.
    pub fn rotate(&self) -> Result<String> {
        self.control("/test/rotate")
    }

    /// Takes all keys but the newest out of the JWK set. Returns the newest's `kid`.
    ///
    /// # Errors
    /// When the provider does not answer.
    pub fn forget(&self) -> Result<String> {
        self.control("/test/forget")
    }

    fn token(&self, parameters: &str, identity: Option<&Identity>, proof: Option<&str>) -> Result<String> {
        let form = format!("grant_type=client_credentials&{parameters}");
        let answer = self.post("/token", &form, identity, proof)?;
        let token = (answer.status == 200).then(|| answer.json()["access_token"].as_str().map(str::to_owned)).flatten();
        token.context(format!("get a token from oidc-provider: {answer}"))
    }

    fn control(&self, path: &str) -> Result<String> {
        let answer = self.post(path, "", None, None)?;
        answer.json()["kid"].as_str().map(str::to_owned).context(format!("change the provider's keys: {answer}"))
    }

    fn post(&self, path: &str, form: &str, identity: Option<&Identity>, proof: Option<&str>) -> Result<Answer> {
        let mut tls = self.pki_tls.clone();
        tls.identity = identity.cloned();
        // The provider compares htu with what the client called it.
        tls.server_name = "127.0.0.1".to_owned();
        let mut request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
        if let Some(proof) = proof {
            request = request.header("dpop", proof);
        }
        let request = request.body(Full::from(form.to_owned())).context("build the request")?;
        let addr = ([127, 0, 0, 1], self.port).into();
        runtime().block_on(Connection::new(addr, tls, Protocol::Http1).send(request))
    }
}

impl IdentityClient<'_> {
    fn json(&self) -> serde_json::Value {
        match self {
            Self::Certificate { id, dns } => serde_json::json!({"client_id": id, "dns": dns}),
            Self::Assertion { id, jwk } => serde_json::json!({"client_id": id, "jwk": jwk}),
        }
    }
}

impl Drop for OidcProvider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn named(variable: &str) -> Result<PathBuf> {
    env::var_os(variable).map(PathBuf::from).context(format!("find {variable}: run this by `cargo xtask test`"))
}
