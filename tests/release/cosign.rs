//! Release keys of every kind that cosign takes, made by openssl.

use std::process::Command;

use stellaops_signer::config::Release;
use testkit::registry::USER;
use testkit::{peers, shell};

use crate::site::{self, Site, run};
use crate::stage::{check, key_identity, releases};

#[test]
#[ignore = "needs cosign 3 and 2 and go-containerregistry: cargo xtask test release"]
fn keys_of_every_kind_that_cosign_takes_count_here_in_each_of_its_ways() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path(), site::go_registry);
    let config = r#"{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json","caUrls":[],"oidcUrls":[],
        "rekorTlogUrls":[],"tsaUrls":[],"rekorTlogConfig":{"selector":"ANY"},"tsaConfig":{"selector":"ANY"}}"#;
    std::fs::write(site.file("key.json"), config).unwrap();
    let mut wrong = Vec::new();
    println!("{:<10} {:<28} {:<12} we", "key", "how it signed", "cosign");
    for (kind, options, hash) in KINDS {
        let key = site.file(&format!("{kind}.pem"));
        shell::run(Command::new("openssl").args(["genpkey", "-out"]).arg(&key).args(*options)).unwrap();
        let public = site.file(&format!("{kind}.pub"));
        shell::run(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&key).arg("-out").arg(&public))
            .unwrap();
        let identity = vec![key_identity("release team", public.clone())];
        let release = Release { identity, repository: vec![site.repository()], ..Release::default() };
        let imported = site.file(&format!("imported-{kind}"));
        run(cosign(&site, 3, "import-key-pair -y --key").arg(&key).arg("--output-key-prefix").arg(&imported));
        for (version, how, flags) in WAYS {
            let image = site.push().digest;
            let mut sign =
                on(&site, *version, &format!("sign -y {flags} --key"), &imported.with_extension("key"), &image);
            run(&mut sign);
            // cosign signs with the hash of a curve's size, and verifies with SHA-256 unless it is told.
            let verify = |hash| {
                let arguments = format!("verify --insecure-ignore-tlog --signature-digest-algorithm {hash} --key");
                on(&site, *version, &arguments, &public, &image).output().unwrap()
            };
            let theirs = Some(verify("sha256")).filter(|output| output.status.success());
            let theirs = theirs.unwrap_or_else(|| verify(hash));
            let ours = check(&releases(&release), &image);
            let said = |accepted| if accepted { "accepts" } else { "refuses" };
            let cosign = said(theirs.status.success());
            println!("{kind:<10} {how:<28} {cosign:<12} {}", said(ours.is_ok()));
            if ours.is_ok() != theirs.status.success() {
                wrong.push(format!("{kind}, {how}: cosign: {theirs:?}\nwe: {ours:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn cosign(site: &Site, version: u8, arguments: &str) -> Command {
    let program = if version == 3 { peers::cosign() } else { peers::cosign_v2() };
    let mut cosign = Command::new(program.unwrap());
    cosign.args(arguments.split_whitespace()).current_dir(&site.dir).env("HOME", &site.dir).env("COSIGN_PASSWORD", "x");
    cosign.env("SSL_CERT_FILE", &site.pki.server_ca.certificate).env_remove("SIGSTORE_ID_TOKEN");
    cosign
}

fn on(site: &Site, version: u8, arguments: &str, key: &std::path::Path, image: &str) -> Command {
    let mut cosign = cosign(site, version, arguments);
    cosign.arg(key).args(["--registry-username", USER, "--registry-password", &site.password, "--registry-cacert"]);
    cosign.arg(&site.pki.server_ca.certificate).arg(format!("{}/team/scanner@{image}", site.host));
    cosign
}

/// Name, how openssl makes one, and the hash of its size. With Ed25519 cosign 3 signs in a way (Ed25519ph) that neither its
/// own `verify --key` takes nor we do.
const KINDS: &[(&str, &[&str], &str)] = &[
    ("p256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], "sha256"),
    ("p384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"], "sha384"),
    ("p521", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"], "sha512"),
    ("rsa2048", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], "sha256"),
    ("rsa3072", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"], "sha256"),
    ("rsa4096", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"], "sha256"),
    ("ed25519", &["-algorithm", "ED25519"], "sha512"),
];

const WAYS: &[(u8, &str, &str)] = &[
    (3, "cosign 3, bundle", "--signing-config key.json"),
    (3, "cosign 3, simple signing", "--new-bundle-format=false --use-signing-config=false --tlog-upload=false"),
    (2, "cosign 2, simple signing", "--tlog-upload=false"),
];
