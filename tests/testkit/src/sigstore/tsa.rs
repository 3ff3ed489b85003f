//! A timestamp authority (RFC 3161) that states what it is told.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::der::{children, generalized_time, integer, octets, oid, seq, set, tlv, utf8};
use super::x509::{self, Issuer, SigningKey, Template};
use crate::sha256;

/// An authority.
pub struct Tsa {
    /// What a trusted root calls it.
    pub uri: String,
    /// Its root.
    pub root: Issuer,
    /// Its own certificate and key.
    pub signer: Issuer,
}

/// What it answers: as it should, unless a field says otherwise.
#[derive(Clone, Debug)]
pub struct Answer {
    /// `PKIStatus`.
    pub status: u8,
    /// `statusString`.
    pub text: Option<&'static str>,
    /// `genTime`, seconds since 1970.
    pub time: i64,
    /// Digits of a second beside it.
    pub fraction: Option<&'static str>,
    /// The imprint in place of the requested one.
    pub imprint: Option<Vec<u8>>,
    /// Contents of the nonce's INTEGER in place of the requested one; empty for none.
    pub nonce: Option<Vec<u8>>,
    /// `content-type`.
    pub content_type: &'static str,
    /// `message-digest` in place of the right one.
    pub message_digest: Option<Vec<u8>>,
    /// How the signature names its certificate.
    pub binding: Binding,
    /// DER of the certificate that it is bound to, in place of the signer's.
    pub bound_to: Option<Vec<u8>>,
    /// The certificates in it, in place of the signer's.
    pub certificates: Option<Vec<Vec<u8>>>,
    /// OID of the signature algorithm, in place of the key's own.
    pub algorithm: Option<&'static str>,
    /// Each a whole attribute, beside the others.
    pub more_attributes: Vec<Vec<u8>>,
    /// How many times the one signer is in it.
    pub signers: usize,
}

/// How a signature names its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// ESSCertIDv2 with SHA-256 by default.
    V2,
    /// ESSCertIDv2 with issuer and serial.
    V2IssuerSerial,
    /// ESSCertID with SHA-1.
    V1,
    /// Not at all.
    None,
}

impl Answer {
    /// Right in everything.
    #[must_use]
    pub fn at(time: i64) -> Self {
        Self {
            status: 0,
            text: None,
            time,
            fraction: None,
            imprint: None,
            nonce: None,
            content_type: TST_INFO,
            message_digest: None,
            binding: Binding::V2,
            bound_to: None,
            certificates: None,
            algorithm: None,
            more_attributes: Vec::new(),
            signers: 1,
        }
    }
}

impl Tsa {
    /// With fresh keys on P-256 below a root on P-384.
    #[must_use]
    pub fn new(now: i64) -> Self {
        Self::with_key(SigningKey::p256(), now)
    }

    /// With this key.
    #[must_use]
    pub fn with_key(key: SigningKey, now: i64) -> Self {
        let template = signer_template(&key, now);
        Self::of(template, key, now)
    }

    /// With this certificate for its key.
    #[must_use]
    pub fn of(template: Template, key: SigningKey, now: i64) -> Self {
        let root = Issuer::root("tsa root", SigningKey::p384(), now);
        let signer = root.below(template, key);
        Self { uri: "https://tsa.example".to_owned(), root, signer }
    }

    /// What a trusted root pins: its certificate, its root.
    #[must_use]
    pub fn chain(&self) -> Vec<Vec<u8>> {
        vec![self.signer.certificate.clone(), self.root.certificate.clone()]
    }

    /// The whole response to a request.
    #[must_use]
    pub fn answer(&self, query: &[u8], answer: &Answer) -> Vec<u8> {
        let fields = children(children(query)[0].1);
        let imprint = children(fields[1].1)[1].1.to_vec();
        let nonce = fields.iter().skip(2).find(|field| field.0 == 0x02).map(|field| field.1.to_vec());
        self.respond(&imprint, nonce.as_deref(), answer)
    }

    /// The whole response over a message, without a request.
    #[must_use]
    pub fn stamp(&self, message: &[u8], answer: &Answer) -> Vec<u8> {
        self.respond(&sha256(message), None, answer)
    }

    fn respond(&self, imprint: &[u8], nonce: Option<&[u8]>, answer: &Answer) -> Vec<u8> {
        let text = answer.text.map(|text| seq(&[&utf8(text)])).unwrap_or_default();
        let status = seq(&[&integer(&[answer.status]), &text]);
        if answer.status > 1 {
            return seq(&[&status]);
        }
        let imprint = answer.imprint.as_deref().unwrap_or(imprint);
        let nonce = answer.nonce.as_deref().or(nonce).filter(|nonce| !nonce.is_empty());
        let nonce = nonce.map(integer).unwrap_or_default();
        let sha = seq(&[&oid(SHA256), &[5, 0]]);
        let tst_info = seq(&[
            &integer(&[1]),
            &oid("1.2.3.4.1"),
            &seq(&[&sha, &octets(imprint)]),
            &integer(&[0x2a]),
            &match answer.fraction {
                None => generalized_time(answer.time),
                Some(digits) => fractional_time(answer.time, digits),
            },
            &seq(&[&integer(&[1])]),
            &nonce,
        ]);
        seq(&[&status, &self.token(&tst_info, answer)])
    }

    fn token(&self, tst_info: &[u8], answer: &Answer) -> Vec<u8> {
        let sha = seq(&[&oid(SHA256), &[5, 0]]);
        let signer = self.signer_info(tst_info, answer);
        let signers: Vec<&[u8]> = std::iter::repeat_n(signer.as_slice(), answer.signers).collect();
        let own = vec![self.signer.certificate.clone()];
        let certificates = answer.certificates.as_ref().unwrap_or(&own);
        let certificates: Vec<&[u8]> = certificates.iter().map(Vec::as_slice).collect();
        let certificates = if certificates.is_empty() { Vec::new() } else { tlv(0xa0, &certificates) };
        let content = seq(&[&oid(TST_INFO), &tlv(0xa0, &[&octets(tst_info)])]);
        let data = seq(&[&integer(&[3]), &set(&[&sha]), &content, &certificates, &set(&signers)]);
        seq(&[&oid("1.2.840.113549.1.7.2"), &tlv(0xa0, &[&data])])
    }

    fn signer_info(&self, tst_info: &[u8], answer: &Answer) -> Vec<u8> {
        let digest = answer.message_digest.clone().unwrap_or_else(|| sha256(tst_info).to_vec());
        let certificate = answer.bound_to.as_ref().unwrap_or(&self.signer.certificate);
        let attribute = |dotted: &str, value: &[u8]| seq(&[&oid(dotted), &set(&[value])]);
        let mut attributes = vec![
            attribute("1.2.840.113549.1.9.3", &oid(answer.content_type)),
            attribute("1.2.840.113549.1.9.4", &octets(&digest)),
        ];
        let v2 = |id: Vec<u8>| attribute("1.2.840.113549.1.9.16.2.47", &seq(&[&seq(&[&id])]));
        match answer.binding {
            Binding::V2 => attributes.push(v2(seq(&[&octets(&sha256(certificate))]))),
            Binding::V2IssuerSerial => {
                let (issuer, serial) = issuer_and_serial(certificate);
                let name = seq(&[&tlv(0xa4, &[&issuer])]);
                attributes.push(v2(seq(&[&octets(&sha256(certificate)), &seq(&[&name, &serial])])));
            }
            Binding::V1 => {
                let id = seq(&[&octets(digest_sha1(certificate).as_ref())]);
                attributes.push(attribute("1.2.840.113549.1.9.16.2.12", &seq(&[&seq(&[&id])])));
            }
            Binding::None => {}
        }
        attributes.extend(answer.more_attributes.iter().cloned());
        attributes.sort();
        let list: Vec<&[u8]> = attributes.iter().map(Vec::as_slice).collect();
        let signature = self.signer.key.sign(&set(&list));
        let (issuer, serial) = issuer_and_serial(&self.signer.certificate);
        let algorithm = answer.algorithm.map_or_else(|| self.signer.key.algorithm(), |dotted| seq(&[&oid(dotted)]));
        seq(&[
            &integer(&[1]),
            &seq(&[&issuer, &serial]),
            &seq(&[&oid(SHA256), &[5, 0]]),
            &tlv(0xa0, &list),
            &algorithm,
            &octets(&signature),
        ])
    }
}

/// `YYYYMMDDhhmmss.sZ`.
fn fractional_time(time: i64, digits: &str) -> Vec<u8> {
    let mut whole = children(&generalized_time(time)).first().map(|element| element.1.to_vec()).unwrap_or_default();
    whole.pop();
    tlv(0x18, &[&whole, format!(".{digits}Z").as_bytes()])
}

/// What a TSA's certificate should be.
#[must_use]
pub fn signer_template(key: &SigningKey, now: i64) -> Template {
    Template::new("tsa", key.spki(), now)
        .with(vec![x509::key_usage(1), x509::extended_key_usage(&[x509::TIME_STAMPING], true)])
}

/// Raw name and raw INTEGER.
fn issuer_and_serial(certificate: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let certificate = children(children(certificate)[0].1);
    let fields = children(certificate[0].1);
    (fields[3].2.to_vec(), fields[1].2.to_vec())
}

fn digest_sha1(bytes: &[u8]) -> aws_lc_rs::digest::Digest {
    digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes)
}

/// id-ct-TSTInfo.
pub const TST_INFO: &str = "1.2.840.113549.1.9.16.1.4";
const SHA256: &str = "2.16.840.1.101.3.4.2.1";
