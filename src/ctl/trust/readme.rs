//! The README.txt of an offline kit: the very commands.

use super::export::Kit;

/// For people who have the kit, a signed file, and no network.
pub(super) fn text(kit: &Kit) -> String {
    let mut text = HEAD.to_owned();
    if !kit.keys.is_empty() {
        text.push_str(KEYS);
        for key in &kit.keys {
            text.push_str(&format!("    keys/{:<32} {}\n", key.file, key.key.keyid()));
        }
        text.push_str(SIGNERCTL_KEY);
        text.push_str(COSIGN_KEY);
    }
    if let Some(root) = &kit.root {
        if !root.timestamp_authorities.is_empty() && !kit.keys.is_empty() {
            text.push_str(KEY_TIMESTAMP);
        }
        if !root.certificate_authorities.is_empty() {
            text.push_str(KEYLESS);
            for (san, issuer) in &kit.identities {
                text.push_str(&format!("    SAN={san}\n    ISSUER={issuer}\n"));
            }
            let stamped = !root.timestamp_authorities.is_empty();
            let lifetime = kit.lifetime.map(|most| format!(" --max-certificate-lifetime {}s", most.as_secs()));
            text.push_str(SIGNERCTL_KEYLESS);
            text.push_str(&lifetime.unwrap_or_default());
            text.push_str(if stamped { " --require-timestamp" } else { "" });
            text.push_str(ARTIFACT);
            if root.ct_logs.is_empty() {
                text.push_str(NO_CT_LOG);
            }
            text.push_str(if stamped { COSIGN_KEYLESS } else { NO_TIMESTAMP });
        }
    }
    text.push_str(OPENSSL);
    if kit.root.as_ref().is_some_and(|root| !root.timestamp_authorities.is_empty()) {
        text.push_str(OPENSSL_TIMESTAMP);
    }
    text
}

const HEAD: &str = "\
Offline verification kit of a StellaOps Signer
==============================================

Whoever can change these files decides what verifies: take them from a place that you trust, and keep them there.
Nothing below needs a network. ARTIFACT is the file that was signed about, BUNDLE the signed file in the Sigstore form,
ENVELOPE the same in any form; TYPE is its predicate type, as in stella.ops/sbom@v1.

";

const KEYS: &str = "\
Signed with a key
-----------------

The keyid in an envelope says which key has signed. keys.json has all of them:

";

const SIGNERCTL_KEY: &str = "
signerctl:

    signerctl verify ENVELOPE --keys keys.json --subject-file ARTIFACT --type TYPE

";

const COSIGN_KEY: &str = "\
cosign 3 (for cosign 2.6 add --new-bundle-format):

    cosign verify-blob-attestation --key keys/NAME.pem --insecure-ignore-tlog --type TYPE --bundle BUNDLE ARTIFACT

";

const KEY_TIMESTAMP: &str = "\
The same, and when it was signed at the latest, by a timestamp in the bundle:

    signerctl verify ENVELOPE --keys keys.json --trusted-root trusted_root.json --require-timestamp --subject-file ARTIFACT --type TYPE
    cosign verify-blob-attestation --key keys/NAME.pem --insecure-ignore-tlog --use-signed-timestamps --trusted-root trusted_root.json --type TYPE --bundle BUNDLE ARTIFACT

";

const KEYLESS: &str = "\
Signed keyless
--------------

A certificate of some minutes says who has signed. SAN is that name, ISSUER who vouched for it; know both beforehand:

";

const SIGNERCTL_KEYLESS: &str = "
signerctl:

    signerctl verify ENVELOPE --trusted-root trusted_root.json --certificate-identity SAN --certificate-oidc-issuer ISSUER";

const ARTIFACT: &str = " --subject-file ARTIFACT --type TYPE

";

const NO_TIMESTAMP: &str = "\
The trusted root has no timestamp authority, so this holds while the certificate lives, and later by --at TIME and your own
word alone. cosign verifies no such bundle.

";

const NO_CT_LOG: &str = "\
The trusted root has no CT log, so add --insecure-ignore-sct, here and with cosign.

";

const COSIGN_KEYLESS: &str = "\
cosign 3 (for cosign 2.6 add --new-bundle-format):

    cosign verify-blob-attestation --trusted-root trusted_root.json --certificate-identity SAN --certificate-oidc-issuer ISSUER --insecure-ignore-tlog --use-signed-timestamps --type TYPE --bundle BUNDLE ARTIFACT

";

/// A test runs these lines as they stand, with KEY.pem and BUNDLE as files.
const OPENSSL: &str = "\
With openssl, jq and a shell alone
----------------------------------

The signature is over the type and the payload, each with its length (DSSE):

    jq -r .dsseEnvelope.payload BUNDLE | base64 -d > payload
    jq -r '.dsseEnvelope.signatures[0].sig' BUNDLE | base64 -d > signature.der
    (printf 'DSSEv1 28 application/vnd.in-toto+json %s ' \"$(wc -c < payload | tr -d ' ')\"; cat payload) > signed
    openssl dgst -sha256 -verify KEY.pem -signature signature.der signed
    jq -r '.subject[].digest.sha256' payload

The last line must have what `sha256sum ARTIFACT` says. For a keyless bundle, KEY.pem comes out of its certificate, whose
issuer, name and purpose must be looked at as well:

    jq -r '.verificationMaterial.certificate.rawBytes // empty' BUNDLE | base64 -d > leaf.der
    openssl x509 -inform DER -in leaf.der -noout -pubkey > KEY.pem
    openssl x509 -inform DER -in leaf.der -noout -text
    openssl verify -CAfile fulcio.pem -no_check_time -purpose any leaf.der

";

const OPENSSL_TIMESTAMP: &str = "\
The timestamp, which is over the bytes of the signature, and must lie within the validity of the certificate:

    jq -r '.verificationMaterial.timestampVerificationData.rfc3161Timestamps[0].signedTimestamp' BUNDLE | base64 -d > stamp.tsr
    openssl ts -verify -in stamp.tsr -data signature.der -CAfile tsa.pem
    openssl ts -reply -in stamp.tsr -text
";
