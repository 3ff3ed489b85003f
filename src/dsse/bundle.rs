//! What a signature comes back in: written once, straight into the answer, and read back before it leaves.

use super::{DerSignature, base64};

/// Everything that a bundle is made of.
#[derive(Clone, Copy, Debug)]
pub struct Bundle<'a> {
    /// The canonical statement: what was signed.
    pub statement: &'a [u8],
    /// The signature over its PAE.
    pub signature: &'a DerSignature,
    /// Of the public key; see [`super::keyid`].
    pub keyid: &'a str,
    /// What it comes back in.
    pub form: Form<'a>,
    /// The key's name in the appliance.
    pub key: &'a str,
    /// The token that holds it.
    pub token: &'a str,
    /// How the token holds it.
    pub custody: &'a str,
}

/// The forms of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form<'a> {
    /// `dsse`: the envelope.
    Dsse,
    /// `dsse+cert`: the envelope, and the key's certificate chain in PEM, leaf first; empty where it has none.
    DsseCert(&'a [String]),
    /// `sigstore`: a Sigstore bundle v0.3, which contains the envelope.
    Sigstore,
}

/// What is read back is not what was authorised. Nothing of it may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the written {part} is not the one that was authorised")]
pub struct RereadError {
    part: &'static str,
}

impl Bundle<'_> {
    /// Appends the `bundle` object of an answer to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        match self.form {
            Form::Dsse => self.write_dsse(out),
            Form::DsseCert(chain) => {
                self.write_dsse(out);
                out.extend_from_slice(b",\"certificateChain\":[");
                for (index, certificate) in chain.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    write_string(out, certificate);
                }
                out.push(b']');
            }
            Form::Sigstore => {
                out.extend_from_slice(SIGSTORE_HEAD);
                write_string(out, self.keyid);
                out.extend_from_slice(b"},\"tlogEntries\":[]},\"dsseEnvelope\":");
                self.write_envelope(out);
                out.push(b'}');
            }
        }
        out.extend_from_slice(b",\"mode\":\"kms\",\"signingIdentity\":{\"keyId\":");
        write_string(out, self.key);
        out.extend_from_slice(b",\"token\":");
        write_string(out, self.token);
        out.extend_from_slice(b",\"custody\":");
        write_string(out, self.custody);
        out.extend_from_slice(b"}}");
    }

    /// Bytes that [`write`](Self::write) appends at most, so that one allocation is enough.
    #[must_use]
    pub fn max_len(&self) -> usize {
        let chain: usize = match self.form {
            Form::DsseCert(chain) => chain.iter().map(|certificate| escaped_len(certificate) + 3).sum(),
            Form::Dsse | Form::Sigstore => 0,
        };
        let names = [self.key, self.token, self.custody, self.keyid, self.keyid];
        base64::encoded_len(self.statement.len())
            + chain
            + names.iter().map(|name| escaped_len(name)).sum::<usize>()
            + FIXED
    }

    /// Reads the written `bundle` object back and compares payload and signature, decoded, with what was authorised.
    /// It does not trust what wrote it: the members are found again in the text.
    ///
    /// # Errors
    /// [`RereadError`] names what differs.
    pub fn reread(&self, written: &[u8]) -> Result<(), RereadError> {
        let wrong = |part| Err(RereadError { part });
        // The envelope is written in one place and in one order, whatever the form.
        let Some(start) = memchr::memmem::find(written, ENVELOPE_HEAD) else { return wrong("payload type") };
        let rest = &written[start + ENVELOPE_HEAD.len()..];
        let Some((payload, rest)) = split_at_quote(rest) else { return wrong("payload") };
        if !base64::decodes_to(payload, self.statement) {
            return wrong("payload");
        }
        let Some(rest) = rest.strip_prefix(b",\"signatures\":[{\"keyid\":\"") else { return wrong("signature list") };
        let Some((keyid, rest)) = split_at_quote(rest) else { return wrong("keyid") };
        if keyid != self.keyid.as_bytes() {
            return wrong("keyid");
        }
        let Some(rest) = rest.strip_prefix(b",\"sig\":\"") else { return wrong("signature") };
        let Some((signature, rest)) = split_at_quote(rest) else { return wrong("signature") };
        if !base64::decodes_to(signature, self.signature) {
            return wrong("signature");
        }
        if rest.starts_with(b"}]}") { Ok(()) } else { wrong("end of the envelope") }
    }

    fn write_dsse(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"dsse\":");
        self.write_envelope(out);
    }

    fn write_envelope(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(ENVELOPE_HEAD);
        base64::append(out, self.statement);
        out.extend_from_slice(b"\",\"signatures\":[{\"keyid\":");
        write_string(out, self.keyid);
        out.extend_from_slice(b",\"sig\":\"");
        base64::append(out, self.signature);
        out.extend_from_slice(b"\"}]}");
    }
}

fn split_at_quote(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'"', text)?;
    Some((&text[..end], &text[end + 1..]))
}

/// A JSON string (RFC 8259, section 7). Names and PEM, short: the payload never passes here.
fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string serializes, and a Vec takes it");
}

fn escaped_len(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum::<usize>() + 2
}

const ENVELOPE_HEAD: &[u8] = b"{\"payloadType\":\"application/vnd.in-toto+json\",\"payload\":\"";
const SIGSTORE_HEAD: &[u8] = b"\"sigstore\":{\"mediaType\":\"application/vnd.dev.sigstore.bundle.v0.3+json\",\
\"verificationMaterial\":{\"publicKey\":{\"hint\":";

/// Everything but payload, names and certificates, generously.
const FIXED: usize = 640;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::dsse::{PAYLOAD_TYPE, Signature};
    use serde_json::Value;

    const KEYID: &str = "SHA256:QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY";

    fn signature() -> DerSignature {
        Signature::from_raw(&[0x77; 64]).unwrap().to_der()
    }

    fn bundle<'a>(statement: &'a [u8], signature: &'a DerSignature, form: Form<'a>) -> Bundle<'a> {
        Bundle { statement, signature, keyid: KEYID, form, key: "acme-2026", token: "main", custody: "a \"token\"\n" }
    }

    #[test]
    fn every_form_is_json_within_its_announced_size_and_reads_back() {
        let signature = signature();
        let chain =
            ["-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".to_owned(), "second\n".to_owned()];
        for form in [Form::Dsse, Form::DsseCert(&[]), Form::DsseCert(&chain), Form::Sigstore] {
            for statement in [&b"{}"[..], b"{\"a\":1}", &[b'x'; 4099]] {
                let bundle = bundle(statement, &signature, form);
                let mut written = Vec::new();
                bundle.write(&mut written);
                assert!(written.len() <= bundle.max_len(), "{form:?}: {} > {}", written.len(), bundle.max_len());
                let json: Value = serde_json::from_slice(&written).unwrap();
                assert_eq!(json["signingIdentity"]["custody"], "a \"token\"\n");
                bundle.reread(&written).unwrap();
            }
        }
    }

    #[test]
    fn a_sigstore_bundle_names_the_key_as_the_envelope_does() {
        let signature = signature();
        let mut written = Vec::new();
        bundle(b"{}", &signature, Form::Sigstore).write(&mut written);
        let json: Value = serde_json::from_slice(&written).unwrap();
        let sigstore = &json["sigstore"];
        assert_eq!(sigstore["mediaType"], "application/vnd.dev.sigstore.bundle.v0.3+json");
        assert_eq!(sigstore["verificationMaterial"]["publicKey"]["hint"], KEYID);
        assert_eq!(sigstore["dsseEnvelope"]["signatures"][0]["keyid"], KEYID);
        assert_eq!(sigstore["dsseEnvelope"]["payloadType"], PAYLOAD_TYPE);
        assert_eq!(sigstore["verificationMaterial"]["tlogEntries"], serde_json::json!([]));
    }

    #[test]
    fn one_changed_byte_of_payload_or_signature_is_noticed() {
        let signature = signature();
        let bundle = bundle(b"{\"subject\":[]}", &signature, Form::Dsse);
        let mut written = Vec::new();
        bundle.write(&mut written);
        let end = memchr::memmem::find(&written, b"}]}").unwrap();
        for at in 0..end {
            let mut tampered = written.clone();
            tampered[at] ^= 1;
            let before_envelope = at < b"{\"dsse\":".len();
            assert_eq!(bundle.reread(&tampered).is_ok(), before_envelope, "byte {at}");
        }
    }
}
