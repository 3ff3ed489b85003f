//! CMS SignedData with one signer (RFC 5652, section 5), as timestamp tokens have it.

use super::TimestampError;
use crate::sigstore::der::{self, NotDer, Reader};

/// A token, taken apart.
#[derive(Debug)]
pub(super) struct SignedData<'a> {
    /// The `TSTInfo`: what `messageDigest` covers.
    pub(super) content: &'a [u8],
    /// Raw certificates, in any order.
    pub(super) certificates: Vec<&'a [u8]>,
    pub(super) signer: SignerInfo<'a>,
}

#[derive(Debug)]
pub(super) struct SignerInfo<'a> {
    pub(super) identifier: Identifier<'a>,
    /// Contents of the digest algorithm's OBJECT IDENTIFIER.
    pub(super) digest: &'a [u8],
    /// Contents of the attributes' SET.
    pub(super) attributes: &'a [u8],
    /// Contents of the signature algorithm's OBJECT IDENTIFIER.
    pub(super) algorithm: &'a [u8],
    pub(super) signature: &'a [u8],
}

/// Which certificate the signer names.
#[derive(Debug)]
pub(super) enum Identifier<'a> {
    /// Raw name, and contents of the serial number's INTEGER.
    IssuerAndSerial(&'a [u8], &'a [u8]),
    /// Contents of the subject key identifier's OCTET STRING.
    KeyIdentifier(&'a [u8]),
}

/// A SignedData around a `TSTInfo`.
pub(super) fn read(token: &[u8]) -> Result<SignedData<'_>, TimestampError> {
    let mut content = unwrapped(token).map_err(|NotDer| TimestampError::Malformed("ContentInfo"))?;
    let (certificates, tst_info, signers) =
        members(&mut content).map_err(|NotDer| TimestampError::Malformed("SignedData"))?;
    let [signer] = signers.as_slice() else { return Err(TimestampError::Signers(signers.len())) };
    let signer = signer_info(signer).map_err(|NotDer| TimestampError::Malformed("SignerInfo"))?;
    Ok(SignedData { content: tst_info, certificates, signer })
}

/// The values of the one attribute of this type; each type may be there once (RFC 5652, section 5.3).
pub(super) fn attribute<'a>(attributes: &'a [u8], oid: &[u8]) -> Result<Option<&'a [u8]>, NotDer> {
    let mut list = Reader::new(attributes);
    let mut found = None;
    while !list.is_empty() {
        let mut attribute = list.enter(der::SEQUENCE)?;
        let kind = attribute.oid()?;
        let values = attribute.expect(der::SET)?.value;
        attribute.end()?;
        if kind == oid && found.replace(values).is_some() {
            return Err(NotDer);
        }
    }
    Ok(found)
}

fn unwrapped(token: &[u8]) -> Result<Reader<'_>, NotDer> {
    let mut info = Reader::new(der::whole(token, der::SEQUENCE)?.value);
    if info.oid()? != SIGNED_DATA {
        return Err(NotDer);
    }
    let content = info.enter(der::context(0))?;
    info.end()?;
    Ok(content)
}

type Members<'a> = (Vec<&'a [u8]>, &'a [u8], Vec<&'a [u8]>);

fn members<'a>(content: &mut Reader<'a>) -> Result<Members<'a>, NotDer> {
    let mut fields = content.enter(der::SEQUENCE)?;
    content.end()?;
    fields.small()?;
    fields.expect(der::SET)?;
    let mut encapsulated = fields.enter(der::SEQUENCE)?;
    if encapsulated.oid()? != TST_INFO {
        return Err(NotDer);
    }
    let mut wrapped = encapsulated.enter(der::context(0))?;
    encapsulated.end()?;
    let tst_info = wrapped.expect(der::OCTET_STRING)?.value;
    wrapped.end()?;
    let mut certificates = Vec::new();
    if let Some(set) = fields.optional(der::context(0))? {
        let mut set = Reader::new(set.value);
        while !set.is_empty() {
            certificates.push(set.expect(der::SEQUENCE)?.raw);
        }
    }
    // CRLs: revocation is the pin's business.
    fields.optional(der::context(1))?;
    let mut set = fields.enter(der::SET)?;
    fields.end()?;
    let mut signers = Vec::new();
    while !set.is_empty() {
        signers.push(set.expect(der::SEQUENCE)?.value);
    }
    Ok((certificates, tst_info, signers))
}

fn signer_info(fields: &[u8]) -> Result<SignerInfo<'_>, NotDer> {
    let mut fields = Reader::new(fields);
    let version = fields.small()?;
    let identifier = match (version, fields.any()?) {
        (1, element) if element.tag == der::SEQUENCE => {
            let mut pair = Reader::new(element.value);
            let issuer = pair.expect(der::SEQUENCE)?.raw;
            let serial = pair.expect(der::INTEGER)?.value;
            pair.end()?;
            Identifier::IssuerAndSerial(issuer, serial)
        }
        (3, element) if element.tag == der::context_primitive(0) => Identifier::KeyIdentifier(element.value),
        _ => return Err(NotDer),
    };
    let digest = algorithm(&mut fields)?;
    // Attributes are mandatory here, because the content is not `data` (RFC 5652, section 5.3).
    let attributes = fields.expect(der::context(0))?.value;
    let signature_algorithm = algorithm(&mut fields)?;
    let signature = fields.expect(der::OCTET_STRING)?.value;
    fields.optional(der::context(1))?;
    fields.end()?;
    Ok(SignerInfo { identifier, digest, attributes, algorithm: signature_algorithm, signature })
}

/// An AlgorithmIdentifier without parameters or with NULL.
fn algorithm<'a>(fields: &mut Reader<'a>) -> Result<&'a [u8], NotDer> {
    let mut algorithm = fields.enter(der::SEQUENCE)?;
    let oid = algorithm.oid()?;
    algorithm.optional(der::NULL)?;
    algorithm.end()?;
    Ok(oid)
}

/// 1.2.840.113549.1.7.2.
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
/// id-ct-TSTInfo, 1.2.840.113549.1.9.16.1.4.
pub(super) const TST_INFO: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x10, 0x01, 0x04];
