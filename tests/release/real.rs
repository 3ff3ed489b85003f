//! Real registries, real clients: images signed in every way that cosign has, judged by cosign and by us.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;
use stellaops_signer::config::{Release, ReleaseIdentity};
use stellaops_signer::release::{Evidence, TrustedRelease};
use testkit::authority::{Authority, identity};
use testkit::ct_log::CtLog;
use testkit::fulcio::{Fulcio, OidcIssuer};
use testkit::pki::Pki;
use testkit::registry::USER;
use testkit::trusted_root::TrustedRoot;
use testkit::tsa::TimestampServer;
use testkit::{from_base64, hex, peers, pem, sha256, shell};

use crate::site::{Running, Site, run};
use crate::stage::{self, check, key_identity, releases};

/// A registry of any kind, and whoever signs.
pub(crate) struct World {
    site: Site,
    authority: Authority,
    fulcio: Fulcio,
    tsa: TimestampServer,
    ct: CtLog,
    _alone: MutexGuard<'static, ()>,
}

type Sign = fn(&World, &str);
type Verify = fn(&World, &str) -> Output;

/// One way to sign, and what is said of it.
struct Row {
    how: &'static str,
    sign: Sign,
    cosign: Verify,
    /// Whether cosign and we accept it.
    accepted: (bool, bool),
    /// Why we are stricter, where we are.
    why: &'static str,
    /// Our reason, where we refuse.
    reason: &'static str,
}

impl Row {
    /// Everybody accepts it.
    const fn good(how: &'static str, sign: Sign, cosign: Verify) -> Self {
        Self { how, sign, cosign, accepted: (true, true), why: "", reason: "" }
    }

    /// Everybody refuses it.
    const fn bad(how: &'static str, sign: Sign, cosign: Verify, reason: &'static str) -> Self {
        Self { how, sign, cosign, accepted: (false, false), why: "", reason }
    }

    /// cosign accepts it.
    const fn stricter(how: &'static str, sign: Sign, cosign: Verify, reason: &'static str, why: &'static str) -> Self {
        Self { how, sign, cosign, accepted: (true, false), why, reason }
    }
}

impl World {
    pub(crate) fn start(dir: &Path, registry: fn(&Pki, &Path) -> Running) -> Self {
        // Every timestamp-server takes the same port for its metrics.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let site = Site::start(dir, registry);
        let authority = Authority::start(&site.pki).unwrap();
        let ct = CtLog::start(&site.pki).unwrap();
        let issuer = OidcIssuer { url: authority.issuer(), ca: site.pki.server_ca.certificate.clone() };
        let fulcio = Fulcio::start(&site.pki, dir, Some(&ct), &[issuer]).unwrap();
        let tsa = TimestampServer::start(&site.pki, dir, "tsa").unwrap();
        let world = Self { site, authority, fulcio, tsa, ct, _alone };
        world.prepare();
        world
    }

    fn prepare(&self) {
        TrustedRoot::new()
            .certificate_authority(&self.fulcio.ca.chain())
            .timestamp_authority(&self.tsa.chain)
            .ct_log(&self.ct.key)
            .write(&self.file("root.json"))
            .unwrap();
        let services = |urls: &[String]| -> serde_json::Value {
            let one = |url: &String| json!({ "url": url, "majorApiVersion": 1, "validFor": { "start": "2024-01-01T00:00:00Z" }, "operator": "test" });
            urls.iter().map(one).collect()
        };
        let signing_config = |ca: &[String], tsa: &[String]| {
            json!({
                "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                "caUrls": services(ca), "oidcUrls": [], "rekorTlogUrls": [], "tsaUrls": services(tsa),
                "rekorTlogConfig": { "selector": "ANY" }, "tsaConfig": { "selector": "ANY" },
            })
            .to_string()
        };
        std::fs::write(self.file("key.json"), signing_config(&[], &[])).unwrap();
        std::fs::write(self.file("untimed.json"), signing_config(&[self.fulcio.url()], &[])).unwrap();
        std::fs::write(self.file("keyless.json"), signing_config(&[self.fulcio.url()], &[self.tsa.url()])).unwrap();
        self.ct.write_public_key(&self.file("ct.pem")).unwrap();
        let chain = |file: &str, chain: &[rustls_pki_types::CertificateDer<'static>]| {
            let text: String = chain.iter().map(|link| pem("CERTIFICATE", link)).collect();
            std::fs::write(self.file(file), text).unwrap();
        };
        chain("fulcio.pem", &self.fulcio.ca.chain());
        chain("tsa.pem", &self.tsa.chain);
        std::fs::write(self.file("predicate.json"), "{}").unwrap();
        for name in ["cosign", "stranger"] {
            let mut generate = self.cosign("generate-key-pair", peers::cosign().unwrap());
            run(generate.args(["--output-key-prefix", name]));
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.site.file(name)
    }

    fn cosign(&self, command: &str, program: PathBuf) -> Command {
        let mut cosign = Command::new(program);
        cosign
            .args(command.split(' '))
            .current_dir(&self.site.dir)
            .env("HOME", &self.site.dir)
            .env("COSIGN_PASSWORD", "x");
        // No variable of whoever runs the tests, and no Sigstore but the one here.
        cosign.env("SSL_CERT_FILE", &self.site.pki.server_ca.certificate).env_remove("SIGSTORE_ID_TOKEN");
        cosign
    }

    /// cosign 3 or 2, on the image.
    fn on(&self, version: u8, arguments: &str, image: &str) -> Command {
        let program = if version == 3 { peers::cosign() } else { peers::cosign_v2() };
        let mut cosign = self.cosign(arguments, program.unwrap());
        if version == 2 {
            cosign.env("SIGSTORE_CT_LOG_PUBLIC_KEY_FILE", self.file("ct.pem"));
            cosign.env("SIGSTORE_ROOT_FILE", self.file("fulcio.pem"));
        }
        cosign.args(["--registry-username", USER, "--registry-password", &self.site.password, "--registry-cacert"]);
        cosign.arg(&self.site.pki.server_ca.certificate).arg(format!("{}/team/scanner@{image}", self.site.host));
        cosign
    }

    fn sign(&self, version: u8, arguments: &str, image: &str) {
        run(&mut self.on(version, arguments, image));
    }

    /// With a fresh identity token.
    fn sign_keyless(&self, version: u8, arguments: &str, image: &str) {
        let token = self.authority.mint_identity("acme").encode();
        std::fs::write(self.file("token"), token).unwrap();
        let urls = format!("--fulcio-url {} --timestamp-server-url {}", self.fulcio.url(), self.tsa.url());
        let arguments = if version == 3 { arguments.to_owned() } else { format!("{arguments} {urls}") };
        run(self.on(version, &arguments, image).arg("--identity-token").arg(self.file("token")));
    }

    fn verify_key(&self, version: u8, more: &str, image: &str) -> Output {
        let arguments = format!("verify --key cosign.pub --insecure-ignore-tlog{more}");
        self.on(version, &arguments, image).env("COSIGN_EXPERIMENTAL", "1").output().unwrap()
    }

    fn verify_keyless(&self, more: &str, image: &str) -> Output {
        let (san, issuer) = (identity("acme"), self.authority.issuer());
        let arguments = format!(
            "verify --certificate-identity {san} --certificate-oidc-issuer {issuer} --trusted-root root.json \
             --insecure-ignore-tlog{more}"
        );
        self.on(3, &arguments, image).output().unwrap()
    }

    fn config(&self) -> Release {
        let keyless = ReleaseIdentity {
            public_key: None,
            san: Some(identity("acme")),
            issuer: Some(self.authority.issuer()),
            trusted_root: Some(self.file("root.json")),
            ..key_identity("release pipeline", PathBuf::new())
        };
        // The key's signatures count without a proven time; where they have one, it is to be found.
        let key = ReleaseIdentity {
            trusted_root: Some(self.file("root.json")),
            ..key_identity("release key", self.file("cosign.pub"))
        };
        let repository = vec![self.site.repository()];
        Release { identity: vec![key, keyless], repository, ..Release::default() }
    }
}

/// Signs an image in each way and compares what cosign and we say of it.
pub(crate) fn compare(world: &World) {
    let releases = releases(&world.config());
    let mut wrong = Vec::new();
    println!("{:<52} {:<8} {:<8} why we are stricter", "how it was signed", "cosign", "we");
    for row in ROWS {
        let image = world.site.push().digest;
        (row.sign)(world, &image);
        let output = (row.cosign)(world, &image);
        let ours = check(&releases, &image);
        let said = |accepted| if accepted { "accepts" } else { "refuses" };
        println!("{:<52} {:<8} {:<8} {}", row.how, said(output.status.success()), said(ours.is_ok()), row.why);
        if (output.status.success(), ours.is_ok()) != row.accepted {
            wrong.push(format!("{}: cosign: {output:?}\nwe: {ours:?}", row.how));
        }
        if let Ok(Evidence::Signature { time, .. }) = ours.as_ref().map(TrustedRelease::evidence)
            && time.map(|time| time.by) != row.how.contains("time stamp").then_some("timestamp")
        {
            wrong.push(format!("{}: its time is {time:?}", row.how));
        }
        if let Err(error) = ours
            && error.reason() != row.reason
        {
            wrong.push(format!("{}: {} is not {}: {error}", row.how, error.reason(), row.reason));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));

    // Of several signatures under one tag the one that counts is named, by a digest that others find as well.
    let image = world.site.push().digest;
    for key in ["stranger", "cosign"] {
        world.sign(2, &format!("sign -y --key {key}.key --tlog-upload=false"), &image);
    }
    let listed = run(&mut world.on(2, "download signature", &image));
    let digests: Vec<String> = String::from_utf8(listed.stdout).unwrap().lines().map(sha256_of_signature).collect();
    let release = check(&releases, &image).unwrap();
    let named = release.evidence().signature_sha256().unwrap();
    assert_eq!(digests.iter().position(|digest| digest == named), Some(1), "{digests:?}, {named}");

    // The wrong password is no verdict, and neither is a certificate of somebody else.
    let image = world.site.push().digest;
    let mut config = world.config();
    shell::write_private(&world.file("wrong"), format!("{USER}:wrong\n").as_bytes()).unwrap();
    config.repository[0].credentials = Some(world.file("wrong"));
    let error = check(&stage::releases(&config), &image).unwrap_err();
    assert_eq!((error.code(), error.reason()), ("dependency_unavailable", "release_registry_denied"));
    let mut config = world.config();
    config.repository[0].ca = Some(world.site.pki.stranger_ca.certificate.clone());
    let error = check(&stage::releases(&config), &image).unwrap_err();
    assert_eq!((error.code(), error.reason()), ("dependency_unavailable", "release_registry_unreachable"));
}

/// Of a line of `cosign download signature`.
fn sha256_of_signature(line: &str) -> String {
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    hex(sha256(from_base64(line["Base64Signature"].as_str().unwrap()).unwrap()))
}

/// By the release key.
const BY_KEY: Verify = |world, image| world.verify_key(3, "", image);

const ROWS: &[Row] = &[
    Row::good(
        "cosign 3, key",
        |world, image| world.sign(3, "sign -y --key cosign.key --signing-config key.json", image),
        BY_KEY,
    ),
    Row::good(
        "cosign 3, key, with a time stamp",
        |world, image| {
            world.sign(3, "sign -y --key cosign.key --signing-config keyless.json --trusted-root root.json", image);
        },
        |world, image| world.verify_key(3, " --use-signed-timestamps --trusted-root root.json", image),
    ),
    Row::good(
        "cosign 3, key, simple signing",
        |world, image| {
            let flags = "--new-bundle-format=false --use-signing-config=false --tlog-upload=false";
            world.sign(3, &format!("sign -y --key cosign.key {flags}"), image);
        },
        BY_KEY,
    ),
    Row::good(
        "cosign 2, key, simple signing",
        |world, image| world.sign(2, "sign -y --key cosign.key --tlog-upload=false", image),
        |world, image| world.verify_key(2, "", image),
    ),
    Row::good(
        "cosign 2, key, old OCI 1.1 mode",
        |world, image| {
            let arguments = "sign -y --key cosign.key --tlog-upload=false --registry-referrers-mode=oci-1-1";
            run(world.on(2, arguments, image).env("COSIGN_EXPERIMENTAL", "1"));
        },
        |world, image| world.verify_key(2, " --experimental-oci11", image),
    ),
    Row::good(
        "cosign 3, keyless, with a time stamp",
        |world, image| {
            world.sign_keyless(3, "sign -y --signing-config keyless.json --trusted-root root.json", image);
        },
        |world, image| world.verify_keyless(" --use-signed-timestamps", image),
    ),
    Row::good(
        "cosign 2, keyless, simple signing, with a time stamp",
        |world, image| world.sign_keyless(2, "sign -y --tlog-upload=false", image),
        |world, image| {
            let (san, issuer) = (identity("acme"), world.authority.issuer());
            let arguments = format!(
                "verify --certificate-identity {san} --certificate-oidc-issuer {issuer} --insecure-ignore-tlog \
                 --timestamp-certificate-chain tsa.pem"
            );
            world.on(2, &arguments, image).output().unwrap()
        },
    ),
    Row::stricter(
        "cosign 3, keyless, nothing proves when",
        |world, image| {
            world.sign_keyless(3, "sign -y --signing-config untimed.json --trusted-root root.json", image);
        },
        |world, image| world.verify_keyless("", image),
        "release_time_missing",
        "cosign judges it by today's clock, so that it passes for ten minutes and never again",
    ),
    Row::bad("nobody", |_, _| {}, BY_KEY, "release_not_signed"),
    Row::bad(
        "a stranger's key",
        |world, image| world.sign(3, "sign -y --key stranger.key --signing-config key.json", image),
        BY_KEY,
        "release_signer_unknown",
    ),
    Row::bad(
        "cosign 2, attestation alone",
        |world, image| {
            let arguments = "attest -y --key cosign.key --tlog-upload=false --predicate predicate.json --type https://example.test/x/v1";
            world.sign(2, arguments, image);
        },
        |world, image| world.verify_key(2, "", image),
        "release_not_signed",
    ),
    Row::stricter(
        "cosign 3, attestation alone",
        |world, image| {
            let arguments = "attest -y --key cosign.key --signing-config key.json --predicate predicate.json --type https://example.test/x/v1";
            world.sign(3, arguments, image);
        },
        BY_KEY,
        "release_predicate_type",
        "cosign 3 does not look at the predicate type: any statement about an image is a signature to it",
    ),
];
