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
    /// Who signed.
    pub by: SignedBy<'a>,
}

/// Who signed, as the answer says it, and what a verifier needs to know of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedBy<'a> {
    /// A key in a token; its public half is published by the appliance.
    Key {
        /// The key's name in the appliance.
        key: &'a str,
        /// The token that holds it.
        token: &'a str,
        /// How the token holds it.
        custody: &'a str,
    },
    /// An ephemeral key, for which a Fulcio issued a certificate.
    Certificate {
        /// The certificate, DER.
        leaf: &'a [u8],
        /// The OIDC issuer that it names.
        issuer: &'a str,
        /// Its subject alternative name.
        san: &'a str,
        /// Until when it is valid, as RFC 3339 writes it.
        expires: &'a str,
    },
}

/// The forms of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form<'a> {
    /// `dsse`: the envelope.
    Dsse,
    /// `dsse+cert`: the envelope, and the certificate chain of the key in PEM, leaf first; empty where it has none.
    DsseCert(&'a [String]),
    /// `sigstore`: a Sigstore bundle v0.3, which contains the envelope, and these RFC 3161 timestamps, each a whole
    /// `TimeStampResp` in DER. Of a certificate it carries the leaf alone, as verifiers demand.
    Sigstore(&'a [&'a [u8]]),
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
                out.extend_from_slice(CHAIN);
                out.push(b'[');
                for (index, certificate) in chain.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    write_string(out, certificate);
                }
                out.push(b']');
            }
            Form::Sigstore(timestamps) => {
                out.extend_from_slice(SIGSTORE_HEAD);
                self.write_material(timestamps, out);
                out.extend_from_slice(b",\"dsseEnvelope\":");
                self.write_envelope(out);
                out.push(b'}');
            }
        }
        let (mode, identity) = match self.by {
            SignedBy::Key { key, token, custody } => ("kms", [("keyId", key), ("token", token), ("custody", custody)]),
            SignedBy::Certificate { issuer, san, expires, .. } => {
                ("keyless", [("issuer", issuer), ("san", san), ("certExpiry", expires)])
            }
        };
        out.extend_from_slice(b",\"mode\":");
        write_string(out, mode);
        out.extend_from_slice(b",\"signingIdentity\":{");
        for (index, (name, value)) in identity.into_iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_string(out, name);
            out.push(b':');
            write_string(out, value);
        }
        out.extend_from_slice(b"}}");
    }

    /// Bytes that [`write`](Self::write) appends at most, so that one allocation is enough.
    #[must_use]
    pub fn max_len(&self) -> usize {
        let chain: usize = match self.form {
            Form::DsseCert(chain) => chain.iter().map(|certificate| escaped_len(certificate) + 3).sum(),
            Form::Dsse | Form::Sigstore(_) => 0,
        };
        let timestamps: usize = match self.form {
            Form::Sigstore(stamps) => stamps.iter().map(|stamp| base64::encoded_len(stamp.len()) + TIMESTAMP).sum(),
            Form::Dsse | Form::DsseCert(_) => 0,
        };
        let (names, leaf) = match self.by {
            SignedBy::Key { key, token, custody } => ([key, token, custody, self.keyid, self.keyid], 0),
            SignedBy::Certificate { leaf, issuer, san, expires } => {
                ([issuer, san, expires, self.keyid, self.keyid], base64::encoded_len(leaf.len()))
            }
        };
        base64::encoded_len(self.statement.len())
            + chain
            + timestamps
            + leaf
            + names.iter().map(|name| escaped_len(name)).sum::<usize>()
            + FIXED
    }

    /// Reads the written `bundle` object back and compares payload and signature, decoded, with what was authorised, and
    /// certificates and timestamps with what was verified. It does not trust what wrote it: the members are found again
    /// in the text.
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
        let Some(rest) = rest.strip_prefix(b"}]}") else { return wrong("end of the envelope") };
        match self.form {
            Form::Dsse => Ok(()),
            Form::DsseCert(chain) => reread_chain(rest, chain),
            Form::Sigstore(timestamps) => self.reread_material(&written[..start], timestamps),
        }
    }

    /// What stands before the envelope in a Sigstore bundle.
    fn reread_material(&self, written: &[u8], timestamps: &[&[u8]]) -> Result<(), RereadError> {
        let wrong = |part| Err(RereadError { part });
        let Some(start) = memchr::memmem::find(written, SIGSTORE_HEAD) else { return wrong("media type") };
        let mut rest = &written[start + SIGSTORE_HEAD.len()..];
        match self.by {
            SignedBy::Key { .. } => {
                let Some(after) = rest.strip_prefix(HINT) else { return wrong("key hint") };
                let Some((hint, after)) = split_at_quote(after) else { return wrong("key hint") };
                if hint != self.keyid.as_bytes() {
                    return wrong("key hint");
                }
                rest = after;
            }
            SignedBy::Certificate { leaf, .. } => {
                let Some(after) = rest.strip_prefix(CERTIFICATE) else { return wrong("certificate") };
                let Some((certificate, after)) = split_at_quote(after) else { return wrong("certificate") };
                if !base64::decodes_to(certificate, leaf) {
                    return wrong("certificate");
                }
                rest = after;
            }
        }
        let Some(mut rest) = rest.strip_prefix(NO_LOG) else { return wrong("log entries") };
        for (index, timestamp) in timestamps.iter().enumerate() {
            let lead = if index == 0 { FIRST_TIMESTAMP } else { NEXT_TIMESTAMP };
            let Some(after) = rest.strip_prefix(lead) else { return wrong("timestamp") };
            let Some((stamp, after)) = split_at_quote(after) else { return wrong("timestamp") };
            if !base64::decodes_to(stamp, timestamp) {
                return wrong("timestamp");
            }
            rest = after;
        }
        let end: &[u8] = if timestamps.is_empty() { b"}" } else { LAST_TIMESTAMP };
        if rest.strip_prefix(end) == Some(b",\"dsseEnvelope\":") { Ok(()) } else { wrong("verification material") }
    }

    fn write_material(&self, timestamps: &[&[u8]], out: &mut Vec<u8>) {
        match self.by {
            SignedBy::Key { .. } => {
                out.extend_from_slice(HINT);
                out.extend_from_slice(self.keyid.as_bytes());
                out.push(b'"');
            }
            SignedBy::Certificate { leaf, .. } => {
                out.extend_from_slice(CERTIFICATE);
                base64::append(out, leaf);
                out.push(b'"');
            }
        }
        out.extend_from_slice(NO_LOG);
        for (index, timestamp) in timestamps.iter().enumerate() {
            out.extend_from_slice(if index == 0 { FIRST_TIMESTAMP } else { NEXT_TIMESTAMP });
            base64::append(out, timestamp);
            out.push(b'"');
        }
        out.extend_from_slice(if timestamps.is_empty() { b"}" } else { LAST_TIMESTAMP });
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

/// `certificateChain` behind the envelope.
fn reread_chain(rest: &[u8], chain: &[String]) -> Result<(), RereadError> {
    let wrong = Err(RereadError { part: "certificate chain" });
    let Some(list) = rest.strip_prefix(CHAIN) else { return wrong };
    let read = serde_json::Deserializer::from_slice(list).into_iter::<Vec<String>>().next();
    match read {
        Some(Ok(read)) if read == chain => Ok(()),
        _ => wrong,
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
\"verificationMaterial\":{";
/// A `keyid` is base64 and a colon: nothing of it is escaped.
const HINT: &[u8] = b"\"publicKey\":{\"hint\":\"";
const CERTIFICATE: &[u8] = b"\"certificate\":{\"rawBytes\":\"";
const NO_LOG: &[u8] = b"},\"tlogEntries\":[]";
const FIRST_TIMESTAMP: &[u8] = b",\"timestampVerificationData\":{\"rfc3161Timestamps\":[{\"signedTimestamp\":\"";
const NEXT_TIMESTAMP: &[u8] = b"},{\"signedTimestamp\":\"";
const LAST_TIMESTAMP: &[u8] = b"}]}}";
const CHAIN: &[u8] = b",\"certificateChain\":";
/// Around each timestamp.
const TIMESTAMP: usize = 32;

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
        let by = SignedBy::Key { key: "acme-2026", token: "main", custody: "a \"token\"\n" };
        Bundle { statement, signature, keyid: KEYID, form, by }
    }

    const LEAF: &[u8] = &[0x30, 0x82, 1, 2, 3, 4, 5];

    fn keyless<'a>(statement: &'a [u8], signature: &'a DerSignature, form: Form<'a>) -> Bundle<'a> {
        let by = SignedBy::Certificate {
            leaf: LEAF,
            issuer: "https://id.example",
            san: "spiffe://example.org/\"signer\"",
            expires: "2026-01-01T00:00:00Z",
        };
        Bundle { statement, signature, keyid: KEYID, form, by }
    }

    #[test]
    fn every_form_is_json_within_its_announced_size_and_reads_back() {
        let signature = signature();
        let chain =
            ["-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".to_owned(), "second\n".to_owned()];
        let stamps = [&[0x30, 3, 2, 1, 0][..], &[0x30; 700]];
        let forms = [
            Form::Dsse,
            Form::DsseCert(&[]),
            Form::DsseCert(&chain),
            Form::Sigstore(&[]),
            Form::Sigstore(&stamps[..1]),
            Form::Sigstore(&stamps),
        ];
        for form in forms {
            for statement in [&b"{}"[..], b"{\"a\":1}", &[b'x'; 4099]] {
                for bundle in [bundle(statement, &signature, form), keyless(statement, &signature, form)] {
                    let mut written = Vec::new();
                    bundle.write(&mut written);
                    assert!(written.len() <= bundle.max_len(), "{form:?}: {} > {}", written.len(), bundle.max_len());
                    let json: Value = serde_json::from_slice(&written).unwrap();
                    match bundle.by {
                        SignedBy::Key { custody, .. } => assert_eq!(json["signingIdentity"]["custody"], custody),
                        SignedBy::Certificate { san, .. } => assert_eq!(json["signingIdentity"]["san"], san),
                    }
                    bundle.reread(&written).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_sigstore_bundle_names_the_key_as_the_envelope_does() {
        let signature = signature();
        let mut written = Vec::new();
        bundle(b"{}", &signature, Form::Sigstore(&[])).write(&mut written);
        let json: Value = serde_json::from_slice(&written).unwrap();
        let sigstore = &json["sigstore"];
        assert_eq!(sigstore["mediaType"], "application/vnd.dev.sigstore.bundle.v0.3+json");
        assert_eq!(sigstore["verificationMaterial"]["publicKey"]["hint"], KEYID);
        assert_eq!(sigstore["dsseEnvelope"]["signatures"][0]["keyid"], KEYID);
        assert_eq!(sigstore["dsseEnvelope"]["payloadType"], PAYLOAD_TYPE);
        assert_eq!(sigstore["verificationMaterial"]["tlogEntries"], serde_json::json!([]));
    }

    #[test]
    fn a_keyless_sigstore_bundle_carries_the_leaf_and_the_timestamps() {
        use ::base64::Engine as _;
        let signature = signature();
        let mut written = Vec::new();
        keyless(b"{}", &signature, Form::Sigstore(&[b"one", b"two"])).write(&mut written);
        let json: Value = serde_json::from_slice(&written).unwrap();
        let encoded = |bytes: &[u8]| ::base64::prelude::BASE64_STANDARD.encode(bytes);
        assert_eq!(
            json["sigstore"]["verificationMaterial"],
            serde_json::json!({
                "certificate": { "rawBytes": encoded(LEAF) },
                "tlogEntries": [],
                "timestampVerificationData": {
                    "rfc3161Timestamps": [{ "signedTimestamp": encoded(b"one") }, { "signedTimestamp": encoded(b"two") }],
                },
            })
        );
        assert_eq!(json["mode"], "keyless");
        let identity = serde_json::json!({
            "issuer": "https://id.example",
            "san": "spiffe://example.org/\"signer\"",
            "certExpiry": "2026-01-01T00:00:00Z",
        });
        assert_eq!(json["signingIdentity"], identity);
    }

    #[test]
    fn one_changed_byte_of_certificates_or_timestamps_is_noticed() {
        let signature = signature();
        let chain = ["leaf\n".to_owned(), "issuer\n".to_owned()];
        let stamps = [&b"one"[..], b"two"];
        for form in [Form::DsseCert(&chain), Form::Sigstore(&stamps)] {
            let bundle = keyless(b"{\"subject\":[]}", &signature, form);
            let mut written = Vec::new();
            bundle.write(&mut written);
            let end = memchr::memmem::find(&written, b"\"mode\"").unwrap() - 1;
            let begin = if matches!(form, Form::Sigstore(_)) { 1 } else { b"{\"dsse\":".len() };
            // Behind the envelope of a Sigstore bundle there is a brace and nothing else.
            let last = if matches!(form, Form::Sigstore(_)) { end - 1 } else { end };
            for at in begin..last {
                let mut tampered = written.clone();
                tampered[at] ^= 1;
                assert!(bundle.reread(&tampered).is_err(), "{form:?}: byte {at}");
            }
        }
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
