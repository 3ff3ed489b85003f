//! openssl as the authority that answers us, and as the client that judges the authority of our tests.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use testkit::sigstore::Tsa;
use testkit::sigstore::tsa::Answer;
use testkit::sigstore::x509::SigningKey;

use super::*;
use crate::sigstore::TrustedRoot;
use crate::sigstore::trusted_root::Authority;

const MESSAGE: &[u8] = b"the DER of a signature";

fn openssl(directory: &Path, arguments: &str) {
    let ran = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output().unwrap();
    assert!(ran.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&ran.stderr));
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::prelude::BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[test]
fn what_openssl_stamps_is_accepted_and_no_other_request_is() {
    for (key, hash) in [
        ("ec -pkeyopt ec_paramgen_curve:P-256", "sha256"),
        ("ec -pkeyopt ec_paramgen_curve:P-384", "sha384"),
        ("rsa:2048", "sha512"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        fs::write(at.join("c.cnf"), CONFIG.replace("HASH", hash)).unwrap();
        fs::write(at.join("serial"), "1f00ff").unwrap();
        openssl(
            at,
            &format!("req -x509 -config c.cnf -extensions ca -newkey {key} -nodes -keyout ca.key -out ca.pem -days 30"),
        );
        openssl(at, &format!("req -new -config c.cnf -subj /CN=tsa -newkey {key} -nodes -keyout tsa.key -out tsa.csr"));
        openssl(
            at,
            "x509 -req -in tsa.csr -CA ca.pem -CAkey ca.key -set_serial 7 -days 30 -extfile c.cnf -extensions tsa -out tsa.pem",
        );
        let request = Request::new(MESSAGE).unwrap();
        fs::write(at.join("query"), request.der()).unwrap();
        openssl(at, "ts -query -in query -text");
        openssl(at, "ts -reply -config c.cnf -section tsa1 -queryfile query -signer tsa.pem -inkey tsa.key -out reply");
        let response = fs::read(at.join("reply")).unwrap();

        let certificate = |name: &str| CertificateDer::from_pem_file(at.join(name)).unwrap();
        let chain = vec![certificate("tsa.pem"), certificate("ca.pem")];
        let authority = Authority::of_chain("openssl".to_owned(), chain).unwrap();
        let root = TrustedRoot { timestamp_authorities: vec![authority], ..TrustedRoot::default() };
        let now = UnixTime::now();
        let stamp = verify_answer(&response, &request, &root, now).unwrap();
        assert!(now.since(stamp.time).as_secs() < 600, "{stamp:?}");
        let other = Request::new(MESSAGE).unwrap();
        assert_eq!(verify_answer(&response, &other, &root, now).unwrap_err(), TimestampError::Nonce);
        assert_eq!(verify(&response, b"other", &root, now).unwrap_err(), TimestampError::Imprint);
    }
}

#[test]
fn openssl_accepts_what_the_authority_of_our_tests_stamps() {
    let now = UnixTime::now().0;
    for key in [SigningKey::p256(), SigningKey::rsa()] {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let tsa = Tsa::with_key(key, now);
        fs::write(at.join("message"), MESSAGE).unwrap();
        fs::write(at.join("ca.pem"), pem(&tsa.root.certificate)).unwrap();
        fs::write(at.join("reply"), tsa.stamp(MESSAGE, &Answer::at(now))).unwrap();
        openssl(at, "ts -verify -in reply -data message -CAfile ca.pem");
    }
}

const CONFIG: &str = "\
[req]
distinguished_name = dn
prompt = no
[dn]
CN = openssl ca
[ca]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
subjectKeyIdentifier = hash
[tsa]
extendedKeyUsage = critical,timeStamping
keyUsage = critical,digitalSignature
[tsa1]
serial = serial
crypto_device = builtin
signer_digest = HASH
default_policy = 1.2.3.4.1
digests = sha256
ess_cert_id_alg = HASH
accuracy = secs:1, millisecs:500
ordering = yes
tsa_name = yes
";
