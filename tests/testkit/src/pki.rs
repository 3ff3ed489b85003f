//! Certificate authorities, certificates and a CRL that live for one run.

#![forbid(unsafe_code)]

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertificateSigningRequestParams,
    CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevocationReason, RevokedCertParams, SanType, SerialNumber,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::{Context, Result, base64url, now, sha256, shell};

// A function would have to name `time::OffsetDateTime`, which rcgen does not export.
macro_rules! at {
    ($unix:expr) => {
        rcgen::date_time_ymd(1970, 1, 1) + $crate::pki::since_1970($unix)
    };
}
pub(crate) use at;

/// Everything the fixture needs, as PEM files in one directory.
pub struct Pki {
    /// Where the files are.
    pub dir: PathBuf,
    /// Signs the certificates of the signer, the Authority and the Licensing Service.
    pub server_ca: Ca,
    /// Signs the certificates of the signer's clients.
    pub client_ca: Ca,
    /// Signs the certificate that the signer shows the Licensing Service.
    pub appliance_ca: Ca,
    /// Trusted by nobody.
    pub stranger_ca: Ca,
    /// The signer's own certificate, for `localhost` and `127.0.0.1`.
    pub server: Identity,
    /// The certificate of the Authority and the Licensing Service.
    pub services: Identity,
    /// What the signer shows the Licensing Service.
    pub appliance: Identity,
    /// The client of tenant acme.
    pub acme: Identity,
    /// The client of tenant globex.
    pub globex: Identity,
    /// A client whose certificate is on the CRL.
    pub revoked: Identity,
    /// A client whose certificate expired yesterday.
    pub expired: Identity,
    /// A client whose certificate becomes valid tomorrow.
    pub early: Identity,
    /// A client whose certificate the stranger signed.
    pub stranger: Identity,
    /// A certificate of the client CA that is for servers only.
    pub wrong_usage: Identity,
    /// PEM CRL of the client CA.
    pub client_crl: PathBuf,
}

/// A certificate authority.
pub struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: PathBuf,
    /// Its certificate, PEM.
    pub certificate: PathBuf,
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<IdentityParts>,
}

struct IdentityParts {
    certificate: PathBuf,
    private_key: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    serial: u64,
}

/// What a certificate is to say.
pub struct Leaf<'a> {
    name: &'a str,
    usage: ExtendedKeyUsagePurpose,
    valid: (i64, i64),
}

impl Pki {
    /// Makes it all in `dir`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn generate(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).context(format!("make {}", dir.display()))?;
        let ca = |name: &str| Ca::generate(dir, name);
        let (server_ca, client_ca) = (ca("server-ca")?, ca("client-ca")?);
        let (appliance_ca, stranger_ca) = (ca("appliance-ca")?, ca("stranger-ca")?);
        let revoked = client_ca.issue(&Leaf::client("revoked"))?;
        let client_crl = client_ca.write_crl("client.crl", &[&revoked])?;
        Ok(Self {
            dir: dir.to_owned(),
            server: server_ca.issue(&Leaf::server("signer"))?,
            services: server_ca.issue(&Leaf::server("services"))?,
            appliance: appliance_ca.issue(&Leaf::client("appliance"))?,
            acme: client_ca.issue(&Leaf::client("acme-ci"))?,
            globex: client_ca.issue(&Leaf::client("globex-ci"))?,
            expired: client_ca.issue(&Leaf::client("expired").valid(-2 * DAY, -DAY))?,
            early: client_ca.issue(&Leaf::client("early").valid(DAY, 2 * DAY))?,
            stranger: stranger_ca.issue(&Leaf::client("stranger"))?,
            wrong_usage: client_ca.issue(&Leaf::server("wrong-usage"))?,
            revoked,
            client_crl,
            server_ca,
            client_ca,
            appliance_ca,
            stranger_ca,
        })
    }

    /// The trust anchors a client of our servers needs.
    #[must_use]
    pub fn server_roots(&self) -> Arc<RootCertStore> {
        self.server_ca.roots()
    }
}

impl Ca {
    /// A certificate for whoever made this request (PKCS#10, PEM), as it asks for it, for thirty days. PEM.
    ///
    /// # Errors
    /// When it is no request, or its signature is not by its key.
    pub fn certify(&self, request: &str) -> Result<String> {
        let mut request = CertificateSigningRequestParams::from_pem(request).context("read a request")?;
        (request.params.not_before, request.params.not_after) = (at!(now() - DAY), at!(now() + 30 * DAY));
        Ok(request.signed_by(&self.issuer).context("sign a certificate")?.pem())
    }

    /// A new root, its certificate written to `dir/name.pem`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn generate(dir: &Path, name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("StellaOps test {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (at!(now() - DAY), at!(now() + 30 * DAY));
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().context("make a CA key")?)
            .context("make a CA certificate")?;
        let certificate = dir.join(format!("{name}.pem"));
        fs::write(&certificate, issuer.pem()).context(format!("write {}", certificate.display()))?;
        Ok(Self { issuer, dir: dir.to_owned(), certificate })
    }

    /// A certificate and its key, written to `NAME.pem` and `NAME.key` (mode 0600).
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn issue(&self, leaf: &Leaf<'_>) -> Result<Identity> {
        let key = KeyPair::generate().context("make a key")?;
        let serial = u64::from_be_bytes(uuid::Uuid::new_v4().as_bytes()[..8].try_into().expect("eight bytes")) >> 1;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(leaf.name);
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![leaf.usage.clone()];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = match leaf.usage {
            ExtendedKeyUsagePurpose::ServerAuth => {
                vec![dns_name("localhost")?, SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))]
            }
            _ => vec![dns_name(&format!("{}.test", leaf.name))?],
        };
        (params.not_before, params.not_after) = (at!(now() + leaf.valid.0), at!(now() + leaf.valid.1));
        let certificate = params.signed_by(&key, &self.issuer).context("sign a certificate")?;
        let (pem, key_pem) = (self.dir.join(format!("{}.pem", leaf.name)), self.dir.join(format!("{}.key", leaf.name)));
        fs::write(&pem, certificate.pem()).context(format!("write {}", pem.display()))?;
        shell::write_private(&key_pem, key.serialize_pem().as_bytes())?;
        Ok(Identity {
            inner: Arc::new(IdentityParts {
                certificate: pem,
                private_key: key_pem,
                chain: vec![certificate.der().clone()],
                key: PrivateKeyDer::try_from(key.serialize_der()).map_err(crate::Error::new)?,
                serial,
            }),
        })
    }

    /// Writes a CRL of this CA that revokes exactly these.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_crl(&self, file: &str, revoked: &[&Identity]) -> Result<PathBuf> {
        let list = CertificateRevocationListParams {
            this_update: at!(now() - DAY),
            next_update: at!(now() + 7 * DAY),
            crl_number: SerialNumber::from(u64::try_from(now()).unwrap_or(0)),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|identity| RevokedCertParams {
                    serial_number: SerialNumber::from(identity.inner.serial),
                    revocation_time: at!(now() - 60),
                    reason_code: Some(RevocationReason::KeyCompromise),
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).context("sign a CRL")?;
        let path = self.dir.join(file);
        fs::write(&path, list.pem().context("write a CRL")?).context(format!("write {}", path.display()))?;
        Ok(path)
    }

    /// A store that trusts this CA alone.
    #[must_use]
    pub fn roots(&self) -> Arc<RootCertStore> {
        let mut store = RootCertStore::empty();
        store.add(self.issuer.der().clone()).expect("a CA certificate of our own is well-formed");
        Arc::new(store)
    }
}

impl Identity {
    /// PEM file of the certificate.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.inner.certificate
    }

    /// PEM file of the key (PKCS#8).
    #[must_use]
    pub fn private_key(&self) -> &Path {
        &self.inner.private_key
    }

    /// The certificate chain, leaf first.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.inner.chain.clone()
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> PrivateKeyDer<'static> {
        self.inner.key.clone_key()
    }

    /// SHA-256 of the leaf, base64url: `x5t#S256` (RFC 8705, section 3.1).
    #[must_use]
    pub fn thumbprint(&self) -> String {
        base64url(sha256(&self.inner.chain[0]))
    }
}

impl<'a> Leaf<'a> {
    /// For a TLS client.
    #[must_use]
    pub fn client(name: &'a str) -> Self {
        Self { name, usage: ExtendedKeyUsagePurpose::ClientAuth, valid: (-3600, 7 * DAY) }
    }

    /// For a server on `localhost` and `127.0.0.1`.
    #[must_use]
    pub fn server(name: &'a str) -> Self {
        Self { name, usage: ExtendedKeyUsagePurpose::ServerAuth, valid: (-3600, 7 * DAY) }
    }

    /// Valid between these moments, in seconds from now.
    #[must_use]
    pub fn valid(mut self, from: i64, until: i64) -> Self {
        self.valid = (from, until);
        self
    }
}

const DAY: i64 = 24 * 3600;

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn dns_name(name: &str) -> Result<SanType> {
    Ok(SanType::DnsName(name.try_into().context(format!("use {name} as a DNS name"))?))
}

pub(crate) fn since_1970(unix: i64) -> Duration {
    Duration::from_secs(u64::try_from(unix).expect("certificates are of this century"))
}
