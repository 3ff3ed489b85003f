//! Signatures of the Notary Project, each part of them replaceable: what notation would write, and every lie.
//!
//! One draft is written as JWS or as COSE, so that a lie is told once for both.

#![forbid(unsafe_code)]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair as _, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use crate::base64;
use crate::sigstore::der;
use crate::sigstore::x509::{CODE_SIGNING, Issuer, SigningKey, Template, ca_extensions, extended_key_usage, key_usage};

/// A key that signs images, of one of the six kinds that there are.
pub struct NotaryKey {
    kind: Kind,
    /// `alg` in JWS.
    pub algorithm: &'static str,
}

enum Kind {
    Ecdsa(EcdsaKeyPair, &'static str),
    Rsa(RsaKeyPair),
}

impl NotaryKey {
    /// A fresh one: `ES256`, `ES384`, `ES512`, `PS256`, `PS384` or `PS512`.
    #[must_use]
    pub fn generate(algorithm: &'static str) -> Self {
        let ecdsa = |curve: &'static EcdsaSigningAlgorithm, oid| {
            Kind::Ecdsa(EcdsaKeyPair::generate(curve).expect("randomness is there"), oid)
        };
        let rsa = |size| Kind::Rsa(RsaKeyPair::generate(size).expect("randomness is there"));
        let kind = match algorithm {
            "ES256" => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, "1.2.840.10045.3.1.7"),
            "ES384" => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, "1.3.132.0.34"),
            "ES512" => ecdsa(&ECDSA_P521_SHA512_FIXED_SIGNING, "1.3.132.0.35"),
            "PS256" => rsa(KeySize::Rsa2048),
            "PS384" => rsa(KeySize::Rsa3072),
            "PS512" => rsa(KeySize::Rsa4096),
            other => panic!("{other} is no algorithm of the Notary Project"),
        };
        Self { kind, algorithm }
    }

    /// SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn spki(&self) -> Vec<u8> {
        match &self.kind {
            Kind::Ecdsa(pair, curve) => {
                let algorithm = der::seq(&[&der::oid("1.2.840.10045.2.1"), &der::oid(curve)]);
                der::seq(&[&algorithm, &der::bits(pair.public_key().as_ref())])
            }
            Kind::Rsa(pair) => {
                let algorithm = der::seq(&[&der::oid("1.2.840.113549.1.1.1"), &[5, 0]]);
                der::seq(&[&algorithm, &der::bits(pair.public_key().as_ref())])
            }
        }
    }

    /// As JOSE and COSE have it: r and s, or PSS.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.kind {
            Kind::Ecdsa(pair, _) => pair.sign(&random, message).expect("it signs").as_ref().to_vec(),
            Kind::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let padding = match self.algorithm {
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    _ => &RSA_PSS_SHA512,
                };
                pair.sign(padding, &random, message, &mut signature).expect("it signs");
                signature
            }
        }
    }
}

/// Somebody who signs with notation: a root, and a certificate below it.
pub struct Notary {
    /// The root.
    pub root: Issuer,
    /// The key that signs images.
    pub key: NotaryKey,
    /// Its certificate and the root's, DER.
    pub chain: Vec<Vec<u8>>,
}

impl Notary {
    /// With certificates of a year around `now`.
    #[must_use]
    pub fn generate(algorithm: &'static str, now: i64) -> Self {
        let root = Issuer::root("notary root", SigningKey::p256(), now);
        let key = NotaryKey::generate(algorithm);
        let leaf = root.sign(&leaf_template(key.spki(), now));
        let chain = vec![leaf, root.certificate.clone()];
        Self { root, key, chain }
    }

    /// An honest signature of an image, `sha256:…`, whose manifest has this size and type.
    #[must_use]
    pub fn draft(&self, image: &str, size: usize, media_type: &str, now: i64) -> Draft<'_> {
        let target = json!({ "targetArtifact": { "mediaType": media_type, "digest": image, "size": size } });
        let protected = json!({
            "alg": self.key.algorithm,
            "cty": PAYLOAD,
            "crit": [format!("{NAME}.signingScheme")],
            "io.cncf.notary.signingScheme": "notary.x509",
            "io.cncf.notary.signingTime": der::rfc3339(now),
        });
        Draft {
            key: &self.key,
            payload: target.to_string().into_bytes(),
            protected: protected.as_object().cloned().unwrap_or_default(),
            chain: self.chain.clone(),
            timestamp: None,
        }
    }
}

/// What a leaf certificate of the Notary Project should be: of [`SUBJECT`], for signing code.
#[must_use]
pub fn leaf_template(spki: Vec<u8>, now: i64) -> Template {
    let mut template = Template::new("release", spki, now);
    template.subject = subject(SUBJECT);
    template.with(vec![key_usage(1), extended_key_usage(&[CODE_SIGNING], false)])
}

/// A CA below another one.
#[must_use]
pub fn ca_template(common_name: &str, key: &SigningKey, path_length: Option<u8>, now: i64) -> Template {
    Template::new(common_name, key.spki(), now).with(ca_extensions(path_length))
}

/// A Name of these attributes, by their OIDs.
#[must_use]
pub fn subject(attributes: &[(&str, &str)]) -> Vec<u8> {
    let sets: Vec<Vec<u8>> =
        attributes.iter().map(|(oid, text)| der::set(&[&der::seq(&[&der::oid(oid), &der::utf8(text)])])).collect();
    der::seq(&sets.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

type Stamp<'a> = Box<dyn Fn(&[u8]) -> Vec<u8> + 'a>;

/// A signature before it is made. Change what is to be wrong.
pub struct Draft<'a> {
    /// Whose.
    pub key: &'a NotaryKey,
    /// What is signed.
    pub payload: Vec<u8>,
    /// The protected headers, as JWS has them.
    pub protected: Map<String, Value>,
    /// Certificates, DER.
    pub chain: Vec<Vec<u8>>,
    /// Makes a `TimeStampToken` over the signature.
    pub timestamp: Option<Stamp<'a>>,
}

impl<'a> Draft<'a> {
    /// With a protected header, or without it: `null`.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        if value.is_null() {
            self.protected.remove(name);
        } else {
            self.protected.insert(name.to_owned(), value);
        }
        self
    }

    /// With an expiry, marked as critical.
    #[must_use]
    pub fn expiring(self, at: i64) -> Self {
        self.with("io.cncf.notary.expiry", der::rfc3339(at).into())
            .with("crit", json!(["io.cncf.notary.signingScheme", "io.cncf.notary.expiry"]))
    }

    /// Of the other scheme, at this time.
    #[must_use]
    pub fn by_authority(self, at: i64) -> Self {
        self.with("io.cncf.notary.signingScheme", "notary.x509.signingAuthority".into())
            .with("io.cncf.notary.signingTime", Value::Null)
            .with("io.cncf.notary.authenticSigningTime", der::rfc3339(at).into())
            .with("crit", json!(["io.cncf.notary.signingScheme", "io.cncf.notary.authenticSigningTime"]))
    }

    /// With a time stamp that this makes over the signature.
    #[must_use]
    pub fn stamped(mut self, stamp: impl Fn(&[u8]) -> Vec<u8> + 'a) -> Self {
        self.timestamp = Some(Box::new(stamp));
        self
    }

    /// In JWS.
    #[must_use]
    pub fn jws(&self) -> Vec<u8> {
        self.jws_json().to_string().into_bytes()
    }

    /// In JWS, for more changes.
    #[must_use]
    pub fn jws_json(&self) -> Value {
        let url = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let protected = url(Value::from(self.protected.clone()).to_string().as_bytes());
        let payload = url(&self.payload);
        let signature = self.key.sign(format!("{protected}.{payload}").as_bytes());
        let chain: Vec<String> = self.chain.iter().map(base64).collect();
        let mut header = json!({ "x5c": chain, "io.cncf.notary.signingAgent": "test/1" });
        if let Some(stamp) = &self.timestamp {
            header["io.cncf.notary.timestampSignature"] = base64(stamp(&signature)).into();
        }
        json!({ "payload": payload, "protected": protected, "header": header, "signature": url(&signature) })
    }

    /// In COSE.
    #[must_use]
    pub fn cose(&self) -> Vec<u8> {
        self.cose_of(self.cose_protected().encoded(), |unprotected| unprotected)
    }

    /// The protected headers of COSE.
    #[must_use]
    pub fn cose_protected(&self) -> Cbor {
        let headers = self.protected.iter().map(|(name, value)| match (name.as_str(), value) {
            ("alg", value) => (Cbor::Int(1), Cbor::Int(number_of(value.as_str().unwrap_or_default()))),
            ("crit", value) => (Cbor::Int(2), cbor(value)),
            ("cty", value) => (Cbor::Int(3), cbor(value)),
            (name, Value::String(time)) if name.ends_with("Time") || name.ends_with("expiry") => {
                let at: jiff::Timestamp = time.parse().expect("a test has times of RFC 3339");
                (Cbor::text(name), Cbor::Tag(1, Box::new(Cbor::Int(at.as_second()))))
            }
            (name, value) => (Cbor::text(name), cbor(value)),
        });
        Cbor::Map(headers.collect())
    }

    /// In COSE with these bytes for protected headers, and what is made of the others.
    #[must_use]
    pub fn cose_of(&self, protected: Vec<u8>, unprotected: impl Fn(Vec<(Cbor, Cbor)>) -> Vec<(Cbor, Cbor)>) -> Vec<u8> {
        let signed = Cbor::Array(vec![
            Cbor::text("Signature1"),
            Cbor::Bytes(protected.clone()),
            Cbor::Bytes(Vec::new()),
            Cbor::Bytes(self.payload.clone()),
        ]);
        let signature = self.key.sign(&signed.encoded());
        let chain = Cbor::Array(self.chain.iter().cloned().map(Cbor::Bytes).collect());
        let mut headers =
            vec![(Cbor::Int(33), chain), (Cbor::text("io.cncf.notary.signingAgent"), Cbor::text("test/1"))];
        if let Some(stamp) = &self.timestamp {
            headers.push((Cbor::text("io.cncf.notary.timestampSignature"), Cbor::Bytes(stamp(&signature))));
        }
        let parts = vec![
            Cbor::Bytes(protected),
            Cbor::Map(unprotected(headers)),
            Cbor::Bytes(self.payload.clone()),
            Cbor::Bytes(signature),
        ];
        Cbor::Tag(18, Box::new(Cbor::Array(parts))).encoded()
    }
}

/// A value of CBOR (RFC 8949).
#[derive(Clone, Debug)]
pub enum Cbor {
    /// Of either sign.
    Int(i64),
    /// A byte string.
    Bytes(Vec<u8>),
    /// A text.
    Text(String),
    /// An array.
    Array(Vec<Cbor>),
    /// A map, in this order.
    Map(Vec<(Cbor, Cbor)>),
    /// Something with a tag.
    Tag(u64, Box<Cbor>),
    /// These bytes, whatever they are.
    Raw(Vec<u8>),
}

impl Cbor {
    /// A text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// Its bytes.
    #[must_use]
    pub fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Int(number @ 0..) => head(out, 0, number.unsigned_abs()),
            Self::Int(number) => head(out, 1, number.unsigned_abs() - 1),
            Self::Bytes(bytes) => {
                head(out, 2, bytes.len() as u64);
                out.extend(bytes);
            }
            Self::Text(text) => {
                head(out, 3, text.len() as u64);
                out.extend(text.as_bytes());
            }
            Self::Array(values) => {
                head(out, 4, values.len() as u64);
                values.iter().for_each(|value| value.write(out));
            }
            Self::Map(pairs) => {
                head(out, 5, pairs.len() as u64);
                pairs.iter().for_each(|(key, value)| {
                    key.write(out);
                    value.write(out);
                });
            }
            Self::Tag(number, value) => {
                head(out, 6, *number);
                value.write(out);
            }
            Self::Raw(bytes) => out.extend(bytes),
        }
    }
}

fn head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let octets = argument.to_be_bytes();
    let (info, width) = match argument {
        0..24 => return out.push(major << 5 | octets[7]),
        24..0x100 => (24, 1),
        0x100..0x1_0000 => (25, 2),
        0x1_0000..0x1_0000_0000 => (26, 4),
        _ => (27, 8),
    };
    out.push(major << 5 | info);
    out.extend(&octets[8 - width..]);
}

fn cbor(value: &Value) -> Cbor {
    match value {
        Value::Array(values) => Cbor::Array(values.iter().map(cbor).collect()),
        Value::Number(number) => Cbor::Int(number.as_i64().unwrap_or_default()),
        Value::String(text) => Cbor::text(text),
        other => Cbor::Text(other.to_string()),
    }
}

fn number_of(algorithm: &str) -> i64 {
    match algorithm {
        "ES256" => -7,
        "ES384" => -35,
        "ES512" => -36,
        "PS256" => -37,
        "PS384" => -38,
        "PS512" => -39,
        // HMAC with SHA-256: whatever else a test names is none.
        _ => 5,
    }
}

/// Whose certificates these are.
pub const SUBJECT: &[(&str, &str)] =
    &[("2.5.4.6", "US"), ("2.5.4.8", "WA"), ("2.5.4.10", "wabbit-networks.io"), ("2.5.4.3", "release")];
/// The same, as a trust policy has it.
pub const TRUSTED: &str = "x509.subject: C=US, ST=WA, O=wabbit-networks.io";
/// Media type of what is signed.
pub const PAYLOAD: &str = "application/vnd.cncf.notary.payload.v1+json";
/// The artifact type of a signature's manifest.
pub const ARTIFACT: &str = "application/vnd.cncf.notary.signature";
/// Media type of an envelope.
pub const JWS: &str = "application/jose+json";
/// As [`JWS`].
pub const COSE: &str = "application/cose";

const NAME: &str = "io.cncf.notary";
