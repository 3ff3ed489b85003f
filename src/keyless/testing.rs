//! A Fulcio in the test's own hands, and helpers that say what a test has written down for them.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType, date_time_ymd,
};
use signer_keyless::wire::{FromHelper, Layers, Sealed, Signed, encode_from_helper};

use crate::clock::UnixTime;

pub(super) const SAN: &str = "spiffe://example.org/signer";
pub(super) const ISSUER: &str = "https://id.example";

/// A root that issues certificates as Fulcio does.
pub(super) struct FakeFulcio {
    root: CertifiedIssuer<'static, KeyPair>,
}

/// What a certificate says, unless a test wants it otherwise.
pub(super) struct Says {
    pub(super) sans: Vec<&'static str>,
    pub(super) issuer: &'static str,
    /// Seconds from now.
    pub(super) valid: (i64, i64),
}

impl Default for Says {
    fn default() -> Self {
        Self { sans: vec![SAN], issuer: ISSUER, valid: (-5, 590) }
    }
}

macro_rules! at {
    ($unix:expr) => {
        date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(u64::try_from($unix).unwrap())
    };
}

impl FakeFulcio {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let now = UnixTime::now().0;
        (params.not_before, params.not_after) = (at!(now - 86_400), at!(now + 86_400));
        Self { root: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// What a right helper answers to a job with this digest.
    pub(super) fn answer(&self, digest_of: &[u8], says: &Says) -> Signed {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = says.sans.iter().map(|san| SanType::URI((*san).try_into().unwrap())).collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let now = UnixTime::now().0;
        (params.not_before, params.not_after) = (at!(now + says.valid.0), at!(now + says.valid.1));
        let issuer = [&[0x0c, u8::try_from(says.issuer.len()).unwrap()], says.issuer.as_bytes()].concat();
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 57264, 1, 8], issuer)];
        let leaf = params.signed_by(&key, &self.root).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key.serialize_der()).unwrap();
        Signed {
            signature: pair.sign(&SystemRandom::new(), digest_of).unwrap().as_ref().to_vec(),
            certificates: vec![leaf.der().to_vec(), self.root.der().to_vec()],
            sct: None,
            public_key: key.der_bytes().try_into().unwrap(),
        }
    }

    /// Its `trusted_root.json`.
    pub(super) fn trusted_root(&self) -> String {
        let root = BASE64_STANDARD.encode(self.root.der());
        format!(
            r#"{{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","certificateAuthorities":[
            {{"subject":{{"organization":"x","commonName":"y"}},"uri":"https://fulcio.example",
            "certChain":{{"certificates":[{{"rawBytes":"{root}"}}]}},"validFor":{{"start":"2024-01-01T00:00:00Z"}}}}]}}"#
        )
    }
}

/// What a scripted helper does, one thing after the other.
pub(super) enum Act<'a> {
    /// Says a message.
    Say(&'a FromHelper),
    /// Says these bytes.
    Bytes(&'a [u8]),
    /// Waits until so many bytes have come.
    Hear(usize),
    /// Says nothing for ever.
    Hang,
    /// Is killed by this signal.
    Die(&'static str),
}

/// A helper with its whole sandbox.
pub(super) fn sealed() -> FromHelper {
    FromHelper::Sealed(Sealed { layers: Layers::all(), landlock_abi: 4, uid: 65534 })
}

/// Writes a shell script that plays a helper. A count of its starts grows in `STARTS` beside it.
pub(super) fn script(folder: &Path, acts: &[Act<'_>]) -> PathBuf {
    let path = folder.join("signer-keyless");
    let starts = folder.join("STARTS");
    let mut text = format!("#!/bin/sh\necho >> {}\n", starts.display());
    let say = |text: &mut String, bytes: &[u8]| {
        // Piece by piece: a line of a script has its limits.
        for piece in bytes.chunks(512) {
            let escaped: String = piece.iter().map(|byte| format!("\\{byte:03o}")).collect();
            text.push_str(&format!("printf '{escaped}' >&0\n"));
        }
    };
    for act in acts {
        match act {
            Act::Say(message) => say(&mut text, &encode_from_helper(message).unwrap()),
            Act::Bytes(bytes) => say(&mut text, bytes),
            Act::Hear(bytes) => text.push_str(&format!("/usr/bin/head -c {bytes} > /dev/null\n")),
            // With the script's name among its arguments, so that it is found when it is left behind.
            Act::Hang => text.push_str(&format!("exec /usr/bin/tail -f {}\n", path.display())),
            Act::Die(signal) => text.push_str(&format!("kill -{signal} $$\n")),
        }
    }
    // Under another name first: a script that is open for writing is not run.
    let draft = folder.join("draft");
    let mut file = fs::File::create(&draft).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    drop(file);
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&draft, &path).unwrap();
    path
}

/// How often the scripted helper was started.
pub(super) fn starts(folder: &Path) -> usize {
    fs::read(folder.join("STARTS")).map_or(0, |lines| lines.len())
}
