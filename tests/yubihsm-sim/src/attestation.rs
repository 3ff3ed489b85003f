//! Certificates for keys: device, intermediate and root, RSA as Yubico's are, made for this run.

use std::sync::OnceLock;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair, PKCS_RSA_SHA256, RsaKeySize,
    SubjectPublicKeyInfo,
};

use crate::control::Attest;

/// What vouches for one device.
pub(crate) struct Attestation {
    serial: u32,
    device: CertificateParams,
    key: &'static KeyPair,
}

/// Made once a process: RSA keys take their time.
struct Authorities {
    root: CertificateParams,
    root_key: KeyPair,
    intermediate: CertificateParams,
    intermediate_key: KeyPair,
    device_key: KeyPair,
    /// A second root that nobody pins.
    other_root: CertificateParams,
    other_key: KeyPair,
}

impl Attestation {
    pub(crate) fn new(serial: u32) -> Self {
        let device = device_params(serial);
        Self { serial, device, key: &authorities().device_key }
    }

    /// Intermediate and root, as an operator pins them.
    pub(crate) fn roots(&self) -> String {
        let known = authorities();
        let root = known.root.self_signed(&known.root_key).expect("the parameters are sound");
        let above = Issuer::from_params(&known.root, &known.root_key);
        let intermediate = known.intermediate.signed_by(&known.intermediate_key, &above);
        format!("{}{}", intermediate.expect("the parameters are sound").pem(), root.pem())
    }

    /// Opaque object 0.
    pub(crate) fn device_certificate(&self, how: Attest) -> Vec<u8> {
        let known = authorities();
        let signed = match how {
            Attest::OtherRoot => {
                self.device.signed_by(self.key, &Issuer::from_params(&known.other_root, &known.other_key))
            }
            Attest::OtherSerial => device_params(self.serial + 1)
                .signed_by(self.key, &Issuer::from_params(&known.intermediate, &known.intermediate_key)),
            Attest::ByAttestedKey => {
                let mut params = self.device.clone();
                params.custom_extensions.push(integer(OBJECT_ID, 7));
                params.signed_by(self.key, &Issuer::from_params(&known.intermediate, &known.intermediate_key))
            }
            Attest::Good | Attest::OtherKey => {
                self.device.signed_by(self.key, &Issuer::from_params(&known.intermediate, &known.intermediate_key))
            }
        };
        signed.expect("the parameters are sound").der().to_vec()
    }

    /// The certificate of an EC key; `None` for a key on another curve than P-256.
    pub(crate) fn certify(
        &self,
        id: u16,
        point: &[u8],
        label: &[u8; 40],
        version: [u8; 3],
        how: Attest,
    ) -> Option<Vec<u8>> {
        let mut point = <[u8; 64]>::try_from(point).ok()?;
        if how == Attest::OtherKey {
            // The generator of P-256: a point on the curve whose private key everybody knows.
            point = GENERATOR;
        }
        let spki = SubjectPublicKeyInfo::from_der(&[SPKI_P256, &[4], &point[..]].concat()).ok()?;
        let mut params = named(&format!("YubiHSM Attestation id:{id:#06x}"));
        let text = &label[..label.iter().position(|&byte| byte == 0).unwrap_or(label.len())];
        params.custom_extensions = vec![
            extension(1, &[&[4, 3], &version[..]].concat()),
            integer(SERIAL, self.serial),
            // Bit strings: generated here; capabilities and domains are left out.
            extension(3, &[3, 2, 0, 1]),
            integer(OBJECT_ID, id.into()),
            extension(9, &[&[12, u8::try_from(text.len()).ok()?], text].concat()),
        ];
        let certificate = params.signed_by(&spki, &Issuer::from_params(&self.device, self.key)).ok()?;
        Some(certificate.der().to_vec())
    }
}

fn authorities() -> &'static Authorities {
    static MADE: OnceLock<Authorities> = OnceLock::new();
    MADE.get_or_init(|| {
        let key = || KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("an RSA key can be made");
        let authority = |name: &str| {
            let mut params = named(name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
        };
        Authorities {
            root: authority("Simulated YubiHSM Root CA"),
            root_key: key(),
            intermediate: authority("Simulated YubiHSM Attestation CA"),
            intermediate_key: key(),
            device_key: key(),
            other_root: authority("Simulated YubiHSM Attestation CA"),
            other_key: key(),
        }
    })
}

fn device_params(serial: u32) -> CertificateParams {
    let mut params = named(&format!("YubiHSM Attestation ({serial})"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.custom_extensions = vec![integer(SERIAL, serial)];
    params
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn integer(number: u64, value: u32) -> CustomExtension {
    let bytes = value.to_be_bytes();
    let mut content = bytes[bytes.iter().position(|&byte| byte != 0).unwrap_or(3)..].to_vec();
    if content[0] & 0x80 != 0 {
        content.insert(0, 0);
    }
    let length = u8::try_from(content.len()).unwrap_or(0);
    extension(number, &[&[2, length], &content[..]].concat())
}

/// Yubico's arc for YubiHSM attestations.
fn extension(number: u64, der: &[u8]) -> CustomExtension {
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 41482, 4, number], der.to_vec())
}

const SERIAL: u64 = 2;
const OBJECT_ID: u64 = 6;

/// SubjectPublicKeyInfo of P-256 up to the point.
const SPKI_P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

const GENERATOR: [u8; 64] = [
    0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40, 0xf2, 0x77, 0x03, 0x7d,
    0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96, 0x4f, 0xe3, 0x42, 0xe2, 0xfe, 0x1a,
    0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e, 0x16, 0x2b, 0xce, 0x33, 0x57, 0x6b, 0x31, 0x5e, 0xce, 0xcb,
    0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5,
];
