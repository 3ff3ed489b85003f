//! What a file brings along to prove itself, in whichever of its forms.

use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::Fault;
use super::form::{self, EnvelopeSignature, Found};
use crate::dsse::Envelope;
use crate::sigstore::bundle::{Material, Signer};
use crate::sigstore::verify::Evidence;
use crate::statement::json::{Document, Field, JsonLimits};

/// One envelope, its certificates and its timestamps. Nothing of it is verified.
#[derive(Debug)]
pub(super) struct Brought {
    envelope: Envelope,
    chain: Vec<CertificateDer<'static>>,
    timestamps: Vec<Vec<u8>>,
    /// Entries of transparency logs, which are not looked at.
    pub(super) log_entries: usize,
}

impl Brought {
    /// Reads everything that goes with the one signature of `json`.
    pub(super) fn read(json: &[u8], found: &Found<'_>, signature: &EnvelopeSignature) -> Result<Self, Fault> {
        let keyid = Some(signature.keyid.clone()).filter(|keyid| !keyid.is_empty());
        let envelope = Envelope {
            signature: form::decode(&signature.sig, "signature")?,
            payload: form::decode(&found.envelope.payload, "payload")?.into(),
            keyid,
        };
        let mut brought =
            Self { envelope, chain: chain(found.certificate_chain)?, timestamps: Vec::new(), log_entries: 0 };
        if found.material.is_some() {
            brought.add(material(json)?)?;
        }
        Ok(brought)
    }

    fn add(&mut self, material: Material) -> Result<(), Fault> {
        if let Signer::Certificate(leaf) = material.signer {
            match self.chain.first() {
                None => self.chain.push(leaf),
                Some(first) if *first == leaf => {}
                Some(_) => return Err(Fault::Ambiguous),
            }
        }
        self.timestamps = material.timestamps;
        self.log_entries = material.log_entries;
        Ok(())
    }

    pub(super) fn evidence(&self) -> Evidence<'_> {
        Evidence { envelope: &self.envelope, chain: &self.chain, timestamps: &self.timestamps }
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.envelope.payload
    }

    /// The first certificate that came along.
    pub(super) fn leaf(&self) -> Option<&CertificateDer<'static>> {
        self.chain.first()
    }

    pub(super) fn has_timestamps(&self) -> bool {
        !self.timestamps.is_empty()
    }
}

/// `verificationMaterial` of the one Sigstore bundle in `json`, read strictly.
fn material(json: &[u8]) -> Result<Material, Fault> {
    let none = |why: String| Fault::NotAnEnvelope(why);
    let document = Document::parse(Bytes::copy_from_slice(json), &JsonLimits::default())
        .map_err(|error| none(format!("it is no strict JSON: {error}")))?;
    let root = Field::root(document.root());
    let outer = root.member("bundle");
    let outer = outer.as_ref().unwrap_or(&root);
    let bundle = outer.member("sigstore");
    let material = bundle.as_ref().unwrap_or(outer).member("verificationMaterial");
    let material = material.ok_or_else(|| none("its bundle has no `verificationMaterial`".to_owned()))?;
    Material::read(&material).map_err(|error| none(error.to_string()))
}

fn chain(pem: &[String]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    if pem.len() > MAX_CHAIN || pem.iter().any(|one| one.len() > MAX_PEM) {
        let why = format!("its `certificateChain` has more than {MAX_CHAIN} certificates, or one of more than 32 KiB");
        return Err(Fault::NotAnEnvelope(why));
    }
    let one = |text: &String| {
        CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| {
            Fault::NotAnEnvelope("its `certificateChain` holds something else than PEM certificates".to_owned())
        })
    };
    pem.iter().map(one).collect()
}

const MAX_CHAIN: usize = 8;

/// 32 KiB of DER in base64, its lines, and room for words before and after.
const MAX_PEM: usize = 48 * 1024;
