//! Keys that sign JWTs: the four kinds the signer takes, and kinds that it must not take.

#![forbid(unsafe_code)]

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::{fmt, fs};

use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ED25519, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use serde_json::{Value, json};

use crate::{Context, Result, base64url, from_base64url, random_id, sha256};

/// A key with its `kid`. Clones are the same key.
#[derive(Clone)]
pub struct Key {
    secret: Arc<Secret>,
    /// What a JWS header and a JWK set call it.
    pub kid: String,
}

enum Secret {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa { pair: RsaKeyPair, pss: bool },
    WeakRsa { pem: String, modulus: Vec<u8> },
    Shared(Vec<u8>),
}

impl Key {
    /// P-256, signs as ES256.
    #[must_use]
    pub fn p256() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("randomness is there");
        Self::of(Secret::P256(pair))
    }

    /// P-256 from PKCS#8 DER, as certificates' keys come.
    ///
    /// # Errors
    /// When it is no such key.
    pub fn p256_from_pkcs8(der: &[u8]) -> Result<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).context("read a P-256 key")?;
        Ok(Self::of(Secret::P256(pair)))
    }

    /// P-384, signs as ES384: no algorithm of ours.
    #[must_use]
    pub fn p384() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("randomness is there");
        Self::of(Secret::P384(pair))
    }

    /// Ed25519, signs as `EdDSA`.
    #[must_use]
    pub fn ed25519() -> Self {
        Self::of(Secret::Ed25519(Ed25519KeyPair::generate().expect("randomness is there")))
    }

    /// RSA of 2,048 bits, signs as RS256.
    #[must_use]
    pub fn rsa() -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("randomness is there");
        Self::of(Secret::Rsa { pair, pss: false })
    }

    /// RSA of 2,048 bits, signs as PS256.
    #[must_use]
    pub fn rsa_pss() -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("randomness is there");
        Self::of(Secret::Rsa { pair, pss: true })
    }

    /// RSA of 1,024 bits, signs as RS256: too short to be believed. Needs the `openssl` program.
    ///
    /// # Errors
    /// When the program fails.
    pub fn weak_rsa() -> Result<Self> {
        let pem = openssl(&["genrsa", "1024"], b"")?;
        let modulus = openssl(&["rsa", "-noout", "-modulus"], &pem)?;
        let modulus = String::from_utf8_lossy(&modulus);
        let digits = modulus.trim().strip_prefix("Modulus=").context("read openssl's modulus")?;
        let modulus = (0..digits.len() / 2)
            .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).context("read openssl's modulus"))
            .collect::<Result<_>>()?;
        Ok(Self::of(Secret::WeakRsa { pem: String::from_utf8_lossy(&pem).into_owned(), modulus }))
    }

    /// A shared secret, signs as HS256: for tokens that call a public key a secret.
    #[must_use]
    pub fn shared(secret: &[u8]) -> Self {
        Self::of(Secret::Shared(secret.to_vec()))
    }

    /// The same key under another name.
    #[must_use]
    pub fn with_kid(mut self, kid: &str) -> Self {
        kid.clone_into(&mut self.kid);
        self
    }

    /// The JOSE name of the algorithm it signs with.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        match *self.secret {
            Secret::P256(_) => "ES256",
            Secret::P384(_) => "ES384",
            Secret::Ed25519(_) => "EdDSA",
            Secret::Rsa { pss: true, .. } => "PS256",
            Secret::Rsa { pss: false, .. } | Secret::WeakRsa { .. } => "RS256",
            Secret::Shared(_) => "HS256",
        }
    }

    /// Signs as JWS does (ECDSA signatures are r‖s).
    ///
    /// # Panics
    /// When the cryptography fails, which it does for no input.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &*self.secret {
            Secret::P256(pair) | Secret::P384(pair) => {
                pair.sign(&random, message).expect("an EC key signs anything").as_ref().to_vec()
            }
            Secret::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Secret::Rsa { pair, pss } => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let encoding = if *pss { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                pair.sign(encoding, &random, message, &mut signature).expect("an RSA key signs anything");
                signature
            }
            Secret::WeakRsa { pem, .. } => {
                let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
                fs::write(file.path(), pem).expect("a temporary file can be written");
                let path = file.path().to_str().expect("temporary paths are text");
                openssl(&["dgst", "-sha256", "-sign", path], message).expect("openssl signs what it generated")
            }
            Secret::Shared(secret) => {
                let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
                aws_lc_rs::hmac::sign(&key, message).as_ref().to_vec()
            }
        }
    }

    /// The public JWK (for a shared secret the whole of it), with `kid`, `alg` and `use`.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let mut jwk = self.bare_jwk();
        jwk["kid"] = json!(self.kid);
        jwk["alg"] = json!(self.algorithm());
        jwk["use"] = json!("sig");
        jwk
    }

    /// The members that make the key and no others, as a DPoP proof carries it.
    #[must_use]
    pub fn bare_jwk(&self) -> Value {
        match &*self.secret {
            Secret::P256(pair) => ec_jwk("P-256", pair),
            Secret::P384(pair) => ec_jwk("P-384", pair),
            Secret::Ed25519(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(pair.public_key())}),
            Secret::Rsa { pair, .. } => {
                let (n, e) = rsa_parts(pair.public_key().as_ref());
                json!({"kty": "RSA", "n": base64url(n), "e": base64url(e)})
            }
            Secret::WeakRsa { modulus, .. } => json!({"kty": "RSA", "n": base64url(modulus), "e": "AQAB"}),
            Secret::Shared(secret) => json!({"kty": "oct", "k": base64url(secret)}),
        }
    }

    /// The JWK with its private part, for proofs that give it away.
    ///
    /// # Panics
    /// For a key that is neither P-256 nor P-384.
    #[must_use]
    pub fn private_jwk(&self) -> Value {
        let (Secret::P256(pair) | Secret::P384(pair)) = &*self.secret else {
            panic!("only EC keys show their private part here")
        };
        let secret: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().expect("an EC key has a private part");
        let mut jwk = self.bare_jwk();
        jwk["d"] = json!(base64url(secret.as_ref()));
        jwk
    }

    /// PKCS#8 PEM of a P-256 key, for clients that read their DPoP key from a file.
    ///
    /// # Panics
    /// For a key that is not P-256.
    #[must_use]
    pub fn pkcs8_pem(&self) -> String {
        let Secret::P256(pair) = &*self.secret else { panic!("only P-256 keys are written here") };
        crate::pem("PRIVATE KEY", pair.to_pkcs8v1().expect("a P-256 key has a PKCS#8 form").as_ref())
    }

    /// The JWK thumbprint (RFC 7638), base64url: what `cnf.jkt` names.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        thumbprint(&self.bare_jwk()).expect("our own JWKs are complete")
    }

    /// The uncompressed public point of an EC key, else the bare public key.
    #[must_use]
    pub fn public_bytes(&self) -> Vec<u8> {
        match &*self.secret {
            Secret::P256(pair) | Secret::P384(pair) => pair.public_key().as_ref().to_vec(),
            Secret::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
            Secret::Rsa { pair, .. } => pair.public_key().as_ref().to_vec(),
            Secret::WeakRsa { modulus, .. } => modulus.clone(),
            Secret::Shared(secret) => secret.clone(),
        }
    }

    fn of(secret: Secret) -> Self {
        Self { secret: Arc::new(secret), kid: random_id() }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} {})", self.algorithm(), self.kid)
    }
}

/// The thumbprint of any public JWK (RFC 7638).
///
/// # Errors
/// When a required member is missing.
pub fn thumbprint(jwk: &Value) -> Result<String> {
    let member = |name: &str| jwk[name].as_str().context(format!("find `{name}` in the JWK"));
    // The RFC wants the required members in the order of their names and no space between them.
    let canonical = match member("kty")? {
        "EC" => format!(r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{}"}}"#, member("crv")?, member("x")?, member("y")?),
        "OKP" => format!(r#"{{"crv":"{}","kty":"OKP","x":"{}"}}"#, member("crv")?, member("x")?),
        "RSA" => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, member("e")?, member("n")?),
        "oct" => format!(r#"{{"k":"{}","kty":"oct"}}"#, member("k")?),
        other => return Err(crate::Error(format!("cannot take the thumbprint of a `{other}` key"))),
    };
    Ok(base64url(sha256(canonical)))
}

/// Verifies an ES256 or `EdDSA` signature by a public JWK.
///
/// # Errors
/// When the key is unreadable or the signature is not its.
pub fn verify(jwk: &Value, message: &[u8], signature: &[u8]) -> Result<()> {
    let part = |name: &str| from_base64url(jwk[name].as_str().context(format!("find `{name}` in the JWK"))?);
    let outcome = match (jwk["kty"].as_str(), jwk["crv"].as_str()) {
        (Some("EC"), Some("P-256")) => {
            let point = [vec![4], part("x")?, part("y")?].concat();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
        }
        (Some("OKP"), Some("Ed25519")) => UnparsedPublicKey::new(&ED25519, part("x")?).verify(message, signature),
        _ => return Err(crate::Error::new("cannot verify by a key that is neither P-256 nor Ed25519")),
    };
    outcome.map_err(|_| crate::Error::new("the signature is not the key's"))
}

fn ec_jwk(curve: &str, pair: &EcdsaKeyPair) -> Value {
    let point = &pair.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    json!({"kty": "EC", "crv": curve, "x": base64url(x), "y": base64url(y)})
}

/// Modulus and exponent of an `RSAPublicKey` (RFC 8017, A.1.1) without leading zeros.
fn rsa_parts(der: &[u8]) -> (&[u8], &[u8]) {
    fn element(der: &[u8]) -> (&[u8], &[u8]) {
        let (length, head) = match der[1] {
            short @ 0..0x80 => (usize::from(short), 2),
            long => {
                let bytes = usize::from(long & 0x7f);
                (der[2..2 + bytes].iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), 2 + bytes)
            }
        };
        (&der[head..head + length], &der[head + length..])
    }
    fn unsigned(integer: &[u8]) -> &[u8] {
        if integer[0] == 0 { &integer[1..] } else { integer }
    }
    let (sequence, _) = element(der);
    let (modulus, rest) = element(sequence);
    let (exponent, _) = element(rest);
    (unsigned(modulus), unsigned(exponent))
}

fn openssl(arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    use std::io::Write as _;
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("run openssl")?;
    child.stdin.take().context("write to openssl")?.write_all(input)?;
    let output = child.wait_with_output()?;
    if output.status.success() { Ok(output.stdout) } else { Err(crate::Error(format!("openssl {arguments:?} failed"))) }
}
