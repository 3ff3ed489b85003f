//! Real registries, real clients: images signed in every way that cosign has, judged by cosign and by us.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;
use stellaops_signer::config::{Release, ReleaseIdentity, Repository};
use stellaops_signer::release::{Evidence, TrustedRelease};
use testkit::authority::{Authority, identity};
use testkit::ct_log::CtLog;
use testkit::fulcio::{Fulcio, OidcIssuer};
use testkit::pki::Pki;
use testkit::registry::USER;
use testkit::trusted_root::TrustedRoot;
use testkit::tsa::TimestampServer;
use testkit::{hex, peers, pem, sha256, shell};

use crate::stage::{self, check, key_identity, releases};

/// A registry of either kind, and whoever signs.
pub(crate) struct World {
    host: String,
    password: String,
    pki: Pki,
    authority: Authority,
    fulcio: Fulcio,
    tsa: TimestampServer,
    ct: CtLog,
    dir: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

/// One way to sign, and what is said of it.
struct Row {
    how: &'static str,
    sign: fn(&World, &str),
    cosign: fn(&World, &str) -> Output,
    /// Whether cosign and we accept it.
    accepted: (bool, bool),
    /// Why we are stricter, where we are.
    why: &'static str,
    /// Our reason, where we refuse.
    reason: &'static str,
}

impl World {
    pub(crate) fn start(dir: &Path, registry: impl FnOnce(&Pki, &Path) -> (String, String)) -> Self {
        // Every timestamp-server takes the same port for its metrics.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let pki = Pki::generate(&dir.join("pki")).unwrap();
        let (host, password) = registry(&pki, dir);
        let authority = Authority::start(&pki).unwrap();
        let ct = CtLog::start(&pki).unwrap();
        let issuer = OidcIssuer { url: authority.issuer(), ca: pki.server_ca.certificate.clone() };
        let fulcio = Fulcio::start(&pki, dir, Some(&ct), &[issuer]).unwrap();
        let tsa = TimestampServer::start(&pki, dir, "tsa").unwrap();
        let world = Self { host, password, pki, authority, fulcio, tsa, ct, dir: dir.to_owned(), _alone };
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
        shell::write_private(&self.file("credentials"), format!("{USER}:{}\n", self.password).as_bytes()).unwrap();
        for name in ["cosign", "stranger"] {
            let mut generate = self.cosign("generate-key-pair", peers::cosign().unwrap());
            run(generate.args(["--output-key-prefix", name]));
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A new image in the registry; its digest.
    fn push(&self) -> String {
        let blob = |bytes: &[u8]| {
            let digest = format!("sha256:{}", hex(sha256(bytes)));
            std::fs::write(self.file("blob"), bytes).unwrap();
            let begun = self.curl(&["-X", "POST", "-D", "-", &self.url("blobs/uploads/")]);
            let head = String::from_utf8(begun).unwrap();
            let location = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
            });
            let location = location.unwrap_or_else(|| panic!("no upload was begun: {head}"));
            let location =
                if location.starts_with('/') { format!("https://{}{location}", self.host) } else { location };
            let separator = if location.contains('?') { '&' } else { '?' };
            let data = format!("@{}", self.file("blob").display());
            self.curl(&[
                "-X",
                "PUT",
                "--data-binary",
                &data,
                "-H",
                "content-type: application/octet-stream",
                &format!("{location}{separator}digest={digest}"),
            ]);
            digest
        };
        let layer = testkit::random_id();
        let (config, layer) = ((blob(b"{}"), 2), (blob(layer.as_bytes()), layer.len()));
        let manifest = json!({
            "schemaVersion": 2, "mediaType": testkit::registry::MANIFEST,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.0, "size": config.1 },
            "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.0, "size": layer.1 }],
        });
        let manifest = manifest.to_string();
        let digest = format!("sha256:{}", hex(sha256(&manifest)));
        let kind = format!("content-type: {}", testkit::registry::MANIFEST);
        let url = self.url(&format!("manifests/{digest}"));
        self.curl(&["-X", "PUT", "--data-binary", &manifest, "-H", &kind, &url]);
        digest
    }

    fn url(&self, rest: &str) -> String {
        format!("https://{}/v2/team/scanner/{rest}", self.host)
    }

    fn curl(&self, arguments: &[&str]) -> Vec<u8> {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail-with-body", "--cacert"]).arg(&self.pki.server_ca.certificate);
        curl.args(["-u", &format!("{USER}:{}", self.password)]).args(arguments);
        shell::run(&mut curl).unwrap()
    }

    fn cosign(&self, command: &str, program: PathBuf) -> Command {
        let mut cosign = Command::new(program);
        cosign.args(command.split(' ')).current_dir(&self.dir).env("HOME", &self.dir).env("COSIGN_PASSWORD", "x");
        // No variable of whoever runs the tests, and no Sigstore but the one here.
        cosign.env("SSL_CERT_FILE", &self.pki.server_ca.certificate).env_remove("SIGSTORE_ID_TOKEN");
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
        cosign.args(["--registry-username", USER, "--registry-password", &self.password, "--registry-cacert"]);
        cosign.arg(&self.pki.server_ca.certificate).arg(format!("{}/team/scanner@{image}", self.host));
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
        let repository = Repository {
            ca: Some(self.pki.server_ca.certificate.clone()),
            credentials: Some(self.file("credentials")),
            ..stage::repository(&format!("https://{}/team/scanner", self.host))
        };
        Release { identity: vec![key, keyless], repository: vec![repository], ..Release::default() }
    }
}

/// Signs an image in each way and compares what cosign and we say of it.
pub(crate) fn compare(world: &World) {
    let releases = releases(&world.config());
    let mut wrong = Vec::new();
    println!("{:<52} {:<8} {:<8} why we are stricter", "how it was signed", "cosign", "we");
    for row in ROWS {
        let image = world.push();
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

    // The wrong password is no verdict, and neither is a certificate of somebody else.
    let image = world.push();
    let mut config = world.config();
    shell::write_private(&world.file("wrong"), format!("{USER}:wrong\n").as_bytes()).unwrap();
    config.repository[0].credentials = Some(world.file("wrong"));
    let error = check(&stage::releases(&config), &image).unwrap_err();
    assert_eq!((error.code(), error.reason()), ("dependency_unavailable", "release_registry_denied"));
    let mut config = world.config();
    config.repository[0].ca = Some(world.pki.stranger_ca.certificate.clone());
    let error = check(&stage::releases(&config), &image).unwrap_err();
    assert_eq!((error.code(), error.reason()), ("dependency_unavailable", "release_registry_unreachable"));
}

const ROWS: &[Row] = &[
    Row {
        how: "cosign 3, key",
        sign: |world, image| world.sign(3, "sign -y --key cosign.key --signing-config key.json", image),
        cosign: |world, image| world.verify_key(3, "", image),
        accepted: (true, true),
        why: "",
        reason: "",
    },
    Row {
        how: "cosign 3, key, with a time stamp",
        sign: |world, image| {
            world.sign(3, "sign -y --key cosign.key --signing-config keyless.json --trusted-root root.json", image);
        },
        cosign: |world, image| world.verify_key(3, " --use-signed-timestamps --trusted-root root.json", image),
        accepted: (true, true),
        why: "",
        reason: "",
    },
    Row {
        how: "cosign 3, key, simple signing",
        sign: |world, image| {
            let flags = "--new-bundle-format=false --use-signing-config=false --tlog-upload=false";
            world.sign(3, &format!("sign -y --key cosign.key {flags}"), image);
        },
        cosign: |world, image| world.verify_key(3, "", image),
        accepted: (true, true),
        why: "",
        reason: "",
    },
    Row {
        how: "cosign 2, key, simple signing",
        sign: |world, image| world.sign(2, "sign -y --key cosign.key --tlog-upload=false", image),
        cosign: |world, image| world.verify_key(2, "", image),
        accepted: (true, true),
        why: "",
        reason: "",
    },
    Row {
        how: "cosign 2, key, old OCI 1.1 mode",
        sign: |world, image| {
            let arguments = "sign -y --key cosign.key --tlog-upload=false --registry-referrers-mode=oci-1-1";
            run(world.on(2, arguments, image).env("COSIGN_EXPERIMENTAL", "1"));
        },
        cosign: |world, image| world.verify_key(2, " --experimental-oci11", image),
        accepted: (true, true),
        why: "",
        reason: "",
    },
    Row {
        how: "cosign 3, keyless, with a time stamp",
        sign: |world, image| {
            world.sign_keyless(3, "sign -y --signing-config keyless.json --trusted-root root.json", image);
        },
        cosign: |world, image| world.verify_keyless(" --use-signed-timestamps", image),
        accepted: (true, true),
        why: "",
        reason: "",
    },
    Row {
        how: "cosign 2, keyless, simple signing, with a time stamp",
        sign: |world, image| world.sign_keyless(2, "sign -y --tlog-upload=false", image),
        cosign: |world, image| {
            let (san, issuer) = (identity("acme"), world.authority.issuer());
            let arguments = format!(
                "verify --certificate-identity {san} --certificate-oidc-issuer {issuer} --insecure-ignore-tlog \
                 --timestamp-certificate-chain tsa.pem"
            );
            world.on(2, &arguments, image).output().unwrap()
        },
        accepted: (true, true),
        why: "",
        reason: "",
    },
    Row {
        how: "cosign 3, keyless, nothing proves when",
        sign: |world, image| {
            world.sign_keyless(3, "sign -y --signing-config untimed.json --trusted-root root.json", image);
        },
        cosign: |world, image| world.verify_keyless("", image),
        accepted: (true, false),
        why: "cosign judges it by today's clock, so that it passes for ten minutes and never again",
        reason: "release_time_missing",
    },
    Row {
        how: "nobody",
        sign: |_, _| {},
        cosign: |world, image| world.verify_key(3, "", image),
        accepted: (false, false),
        why: "",
        reason: "release_not_signed",
    },
    Row {
        how: "a stranger's key",
        sign: |world, image| world.sign(3, "sign -y --key stranger.key --signing-config key.json", image),
        cosign: |world, image| world.verify_key(3, "", image),
        accepted: (false, false),
        why: "",
        reason: "release_signer_unknown",
    },
    Row {
        how: "cosign 2, attestation alone",
        sign: |world, image| {
            let arguments = "attest -y --key cosign.key --tlog-upload=false --predicate predicate.json --type https://example.test/x/v1";
            world.sign(2, arguments, image);
        },
        cosign: |world, image| world.verify_key(2, "", image),
        accepted: (false, false),
        why: "",
        reason: "release_not_signed",
    },
    Row {
        how: "cosign 3, attestation alone",
        sign: |world, image| {
            let arguments = "attest -y --key cosign.key --signing-config key.json --predicate predicate.json --type https://example.test/x/v1";
            world.sign(3, arguments, image);
        },
        cosign: |world, image| world.verify_key(3, "", image),
        accepted: (true, false),
        why: "cosign 3 does not look at the predicate type: any statement about an image is a signature to it",
        reason: "release_predicate_type",
    },
];

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
