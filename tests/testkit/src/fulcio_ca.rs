//! A CA such as Fulcio has: a root, an intermediate for code signing, and certificates of every kind, good and bad.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;

use crate::ct_log::{LogKey, SCT_LIST};
use crate::pki::at;
use crate::{Context, Result, der, now, pem, random_id, sha256, shell};

/// Root and intermediate.
pub struct FulcioCa {
    root: CertifiedIssuer<'static, KeyPair>,
    intermediate: CertifiedIssuer<'static, KeyPair>,
}

/// The CA's files, as `fulcio serve --ca fileca` takes them.
pub struct CaFiles {
    /// Intermediate and root, PEM.
    pub chain: PathBuf,
    /// The intermediate's key, encrypted PKCS#8.
    pub key: PathBuf,
    /// What it is encrypted with.
    pub password: String,
}

/// What a certificate is to say. [`Profile::fulcio`] is what Fulcio says; everything can be changed.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Subject alternative names.
    pub sans: Vec<San>,
    /// The OIDC issuer (1.3.6.1.4.1.57264.1.8), where there is one.
    pub issuer: Option<String>,
    /// Seconds from now.
    pub valid: (i64, i64),
    /// Extended key usages.
    pub extended_key_usages: Vec<ExtendedKeyUsagePurpose>,
    /// Key usages.
    pub key_usages: Vec<KeyUsagePurpose>,
    /// Whether it may sign certificates itself.
    pub is_ca: bool,
}

/// A subject alternative name.
#[derive(Clone, Debug)]
pub enum San {
    /// A URI.
    Uri(String),
    /// A mail address.
    Email(String),
    /// A DNS name.
    Dns(String),
}

impl FulcioCa {
    /// A new one; `name` tells its certificates from another's.
    ///
    /// # Errors
    /// When the cryptography fails.
    pub fn generate(name: &str) -> Result<Self> {
        let root = CertifiedIssuer::self_signed(ca_params(&format!("{name} root"), 1), new_key()?);
        let root = root.context("make a root certificate")?;
        let mut params = ca_params(&format!("{name} intermediate"), 0);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        params.use_authority_key_identifier_extension = true;
        let intermediate = CertifiedIssuer::signed_by(params, new_key()?, &root).context("sign an intermediate")?;
        Ok(Self { root, intermediate })
    }

    /// Intermediate and root, DER.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.intermediate.der().clone(), self.root.der().clone()]
    }

    /// A certificate for a key, with an SCT of `log` where one is given.
    ///
    /// # Errors
    /// When the profile cannot be written.
    pub fn issue(&self, key: &impl PublicKeyData, profile: &Profile, log: Option<Vouching<'_>>) -> Result<Vec<u8>> {
        let mut params = profile.params()?;
        let plain = params.signed_by(key, &self.intermediate).context("sign a certificate")?;
        let Some(vouching) = log else { return Ok(plain.der().to_vec()) };
        let mut vouched_for = der::tbs(plain.der())?.to_vec();
        if vouching.falsely {
            vouched_for.reverse();
        }
        let scts = vouching.log.sct_list(&vouched_for, der::public_key(self.intermediate.der())?);
        // Added last, so that taking it out again gives the bytes that were vouched for.
        params.custom_extensions.push(CustomExtension::from_oid_content(SCT_LIST, scts));
        Ok(params.signed_by(key, &self.intermediate).context("sign a certificate")?.der().to_vec())
    }

    /// Writes what a real Fulcio needs. Needs the `openssl` program.
    ///
    /// # Errors
    /// When a file cannot be written or openssl fails.
    pub fn write(&self, dir: &Path) -> Result<CaFiles> {
        let (plain, key, chain) = (dir.join("fulcio-ca.plain"), dir.join("fulcio-ca.key"), dir.join("fulcio-ca.pem"));
        let password = random_id();
        shell::write_private(&plain, self.intermediate.key().serialize_pem().as_bytes())?;
        let mut openssl = Command::new("openssl");
        openssl.args(["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout"]).arg(format!("pass:{password}"));
        shell::run(openssl.arg("-in").arg(&plain).arg("-out").arg(&key))?;
        std::fs::remove_file(&plain).context(format!("remove {}", plain.display()))?;
        let certificates: String = self.chain().iter().map(|link| pem("CERTIFICATE", link)).collect();
        std::fs::write(&chain, certificates).context(format!("write {}", chain.display()))?;
        Ok(CaFiles { chain, key, password })
    }
}

/// A log that vouches for a certificate, truly or not.
#[derive(Clone, Copy)]
pub struct Vouching<'a> {
    /// Whose SCT it is.
    pub log: &'a LogKey,
    /// Whether its signature is over something else.
    pub falsely: bool,
}

impl Profile {
    /// Ten minutes for one URI, vouched for by one OIDC issuer.
    #[must_use]
    pub fn fulcio(san: &str, issuer: &str) -> Self {
        Self {
            sans: vec![San::Uri(san.to_owned())],
            issuer: Some(issuer.to_owned()),
            valid: (0, 600),
            extended_key_usages: vec![ExtendedKeyUsagePurpose::CodeSigning],
            key_usages: vec![KeyUsagePurpose::DigitalSignature],
            is_ca: false,
        }
    }

    fn params(&self) -> Result<CertificateParams> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.serial_number = Some(SerialNumber::from_slice(&positive(sha256(random_id()))));
        (params.not_before, params.not_after) = (at!(now() + self.valid.0), at!(now() + self.valid.1));
        params.subject_alt_names = self.sans.iter().map(San::general_name).collect::<Result<_>>()?;
        params.extended_key_usages.clone_from(&self.extended_key_usages);
        params.key_usages.clone_from(&self.key_usages);
        params.use_authority_key_identifier_extension = true;
        params.is_ca = if self.is_ca { IsCa::Ca(BasicConstraints::Constrained(0)) } else { IsCa::NoCa };
        if let Some(issuer) = &self.issuer {
            let content = der::write(der::UTF8_STRING, issuer.as_bytes());
            params.custom_extensions.push(CustomExtension::from_oid_content(ISSUER, content));
        }
        Ok(params)
    }
}

impl San {
    fn general_name(&self) -> Result<SanType> {
        let text = |text: &String| text.as_str().try_into().context(format!("write {text} into a certificate"));
        Ok(match self {
            Self::Uri(uri) => SanType::URI(text(uri)?),
            Self::Email(address) => SanType::Rfc822Name(text(address)?),
            Self::Dns(name) => SanType::DnsName(text(name)?),
        })
    }
}

fn ca_params(name: &str, below: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (at!(now() - DAY), at!(now() + 30 * DAY));
    params
}

fn new_key() -> Result<KeyPair> {
    KeyPair::generate().context("make a CA key")
}

/// A serial number's bytes: twenty at most, and no sign bit (RFC 5280, section 4.1.2.2).
fn positive(random: [u8; 32]) -> [u8; 16] {
    let mut serial: [u8; 16] = random[..16].try_into().expect("sixteen of 32 bytes");
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

// 1.3.6.1.4.1.57264.1.8: the OIDC issuer, a DER UTF8String.
const ISSUER: &[u64] = &[1, 3, 6, 1, 4, 1, 57264, 1, 8];
const DAY: i64 = 24 * 3600;
