//! A real Fulcio with a CA of ours, behind TLS.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::appliance::{Process, free_port};
use crate::ct_log::CtLog;
use crate::fulcio_ca::FulcioCa;
use crate::pki::Pki;
use crate::raw::Raw;
use crate::tls_front::TlsFront;
use crate::{Context, Error, Result, peers};

/// A running Fulcio; it ends when dropped.
pub struct Fulcio {
    /// Its CA.
    pub ca: FulcioCa,
    /// What clients connect to.
    pub front: TlsFront,
    /// Where it answers without TLS, as in `127.0.0.1:PORT`.
    pub plain: std::net::SocketAddr,
    process: Process,
}

/// An OIDC issuer whose tokens Fulcio takes.
pub struct OidcIssuer {
    /// Its URL: what `iss` says and where the metadata is.
    pub url: String,
    /// PEM file that its TLS certificate chains to.
    pub ca: PathBuf,
}

impl Fulcio {
    /// Starts it: subjects are SPIFFE ids of [`TRUST_DOMAIN`], and `log` vouches for its certificates.
    ///
    /// # Errors
    /// When it was not built, or does not start.
    pub fn start(pki: &Pki, dir: &Path, log: Option<&CtLog>, issuers: &[OidcIssuer]) -> Result<Self> {
        let dir = dir.join("fulcio");
        std::fs::create_dir_all(&dir).context(format!("make {}", dir.display()))?;
        let ca = FulcioCa::generate("StellaOps test Fulcio")?;
        let files = ca.write(&dir)?;
        let config = dir.join("config.json");
        std::fs::write(&config, configuration(issuers)?.to_string()).context("write Fulcio's configuration")?;
        let (http, grpc, metrics) = (free_port()?, free_port()?, free_port()?);
        let mut command = Command::new(peers::fulcio()?);
        command
            .args(["serve", "--ca", "fileca", "--fileca-watch=false", "--fileca-cert"])
            .arg(&files.chain)
            .arg("--fileca-key")
            .arg(&files.key)
            .args(["--fileca-key-passwd", &files.password, "--host", "127.0.0.1", "--grpc-host", "127.0.0.1"])
            .args(["--port", &http.to_string(), "--grpc-port", &grpc.to_string()])
            .args(["--metrics-port", &metrics.to_string(), "--log_type", "prod", "--config-path"])
            .arg(config)
            // One that is left over would be fatal, so it lies where nothing is.
            .arg("--legacy-unix-domain-socket")
            .arg(dir.join("grpc.sock"));
        match log {
            None => command.arg("--ct-log-url="),
            Some(log) => {
                let key = dir.join("ct-log.pem");
                log.write_public_key(&key)?;
                let command = command.arg("--ct-log-url").arg(log.url()).arg("--ct-log-public-key-path").arg(key);
                command.arg("--ct-log.tls-ca-cert").arg(&pki.server_ca.certificate)
            }
        };
        let mut process = Process::start("fulcio", command, &dir)?;
        let plain = ([127, 0, 0, 1], http).into();
        wait_until_it_answers(&mut process, plain, "/healthz")?;
        Ok(Self { ca, front: TlsFront::start(&pki.services, plain)?, plain, process })
    }

    /// `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        self.front.url()
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.process.log).unwrap_or_default()
    }
}

/// Waits until a server answers 200 for a path.
pub(crate) fn wait_until_it_answers(process: &mut Process, addr: std::net::SocketAddr, path: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let answers = || -> Result<bool> {
        let mut raw = Raw::plain(addr)?;
        raw.send(request.as_str())?;
        Ok(raw.receive_answer(Duration::from_secs(5))?.status == 200)
    };
    while !answers().unwrap_or(false) {
        if !process.is_running() || Instant::now() > deadline {
            let log = crate::shell::tail(&process.log, 20);
            return Err(Error(format!("{} does not answer {path}\n{log}", process.name)));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn configuration(issuers: &[OidcIssuer]) -> Result<serde_json::Value> {
    let mut by_url = serde_json::Map::new();
    for issuer in issuers {
        let ca = std::fs::read_to_string(&issuer.ca).context(format!("read {}", issuer.ca.display()))?;
        let entry = json!({
            "IssuerURL": issuer.url,
            "ClientID": AUDIENCE,
            "Type": "spiffe",
            "SPIFFETrustDomain": TRUST_DOMAIN,
            "CACert": ca,
        });
        by_url.insert(issuer.url.clone(), entry);
    }
    Ok(json!({"OIDCIssuers": by_url}))
}

/// `aud` of the tokens that Fulcio takes.
pub const AUDIENCE: &str = "sigstore";
/// Where its subjects are from.
pub const TRUST_DOMAIN: &str = "stella-ops.test";

const PATIENCE: Duration = Duration::from_secs(30);
