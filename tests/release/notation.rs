//! notation itself, in real registries: what it signs counts here, and of every signature that it judges we say the same.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use stellaops_signer::config::{Notation, Release, ReleaseIdentity};
use stellaops_signer::release::{Evidence, ReleaseError, TrustedRelease};
use testkit::notary::{ARTIFACT, COSE, Draft, JWS, Notary, TRUSTED, leaf_template, subject};
use testkit::pki::Pki;
use testkit::registry::{MANIFEST, USER};
use testkit::sigstore::x509::{Issuer, Template};
use testkit::tsa::TimestampServer;
use testkit::{now, peers, pem, shell};

use crate::site::{self, Image, Running, Site, run};
use crate::stage::{check, key_identity, releases};

#[test]
#[ignore = "needs notation, docker-registry and timestamp-server: cargo xtask test release"]
fn notation_and_we_agree_in_distribution() {
    compare(site::distribution);
}

#[test]
#[ignore = "needs notation, go-containerregistry and timestamp-server: cargo xtask test release"]
fn notation_and_we_agree_in_go_containerregistrys_registry() {
    compare(site::go_registry);
}

/// A registry, notation with its configuration, and certificates for both.
struct Scene {
    site: Site,
    /// Signs what notation would not.
    notary: Notary,
    tsa: TimestampServer,
}

/// One way to sign, whether notation accepts it, and our reason where we do not.
struct Row(&'static str, fn(&Scene, &Image), bool, Option<&'static str>);

/// Everybody accepts it.
const fn good(how: &'static str, make: fn(&Scene, &Image)) -> Row {
    Row(how, make, true, None)
}

/// Everybody refuses it.
const fn bad(how: &'static str, make: fn(&Scene, &Image), reason: &'static str) -> Row {
    Row(how, make, false, Some(reason))
}

/// notation accepts it.
const fn stricter(how: &'static str, make: fn(&Scene, &Image), reason: &'static str) -> Row {
    Row(how, make, true, Some(reason))
}

impl Scene {
    fn start(dir: &Path, registry: fn(&Pki, &Path) -> Running) -> Self {
        let site = Site::start(dir, registry);
        let tsa = TimestampServer::start(&site.pki, dir, "tsa").unwrap();
        let scene = Self { site, notary: Notary::generate("ES256", now()), tsa };
        scene.configure();
        scene
    }

    /// What an operator of notation writes, and the same for us.
    fn configure(&self) {
        let (root, at) = (&self.notary.root, now());
        let stranger = Notary::generate("ES256", at);
        let mut other = leaf_template(Vec::new(), at);
        other.subject = subject(&[("2.5.4.6", "US"), ("2.5.4.8", "WA"), ("2.5.4.10", "other")]);
        let right = leaf_template(Vec::new(), at);
        let ec = |curve| ["-algorithm", "EC", "-pkeyopt", curve];
        let rsa = |bits| ["-algorithm", "RSA", "-pkeyopt", bits];
        let keys = [
            self.key("p256", ec("ec_paramgen_curve:P-256"), root, &right),
            self.key("p384", ec("ec_paramgen_curve:P-384"), root, &right),
            self.key("p521", ec("ec_paramgen_curve:P-521"), root, &right),
            self.key("rsa2048", rsa("rsa_keygen_bits:2048"), root, &right),
            self.key("rsa3072", rsa("rsa_keygen_bits:3072"), root, &right),
            self.key("rsa4096", rsa("rsa_keygen_bits:4096"), root, &right),
            self.key("other", ec("ec_paramgen_curve:P-256"), root, &other),
            self.key("stranger", ec("ec_paramgen_curve:P-256"), &stranger.root, &right),
        ];
        self.write("notation/signingkeys.json", &json!({ "default": "p256", "keys": keys }).to_string());
        let authority = pem("CERTIFICATE", &root.certificate);
        let tsa = pem("CERTIFICATE", self.tsa.chain.last().unwrap());
        self.write("notation/truststore/x509/ca/wabbit/root.pem", &authority);
        self.write("notation/truststore/x509/signingAuthority/wabbit/root.pem", &authority);
        self.write("notation/truststore/x509/tsa/wabbit/root.pem", &tsa);
        // A certificate that signs for itself, as notation makes one to try it out.
        run(self.notation("cert generate-test test.example").arg("--bits").arg("2048"));
        let own = self.site.file("notation/truststore/x509/ca/test.example/test.example.crt");
        let policy = json!({
            "version": "1.0",
            "trustPolicies": [{
                "name": "scanners", "registryScopes": ["*"],
                "signatureVerification": { "level": "strict", "verifyTimestamp": "afterCertExpiry" },
                "trustStores": ["ca:wabbit", "ca:test.example", "signingAuthority:wabbit", "tsa:wabbit"],
                "trustedIdentities": [TRUSTED, SELF_SIGNED],
            }],
        });
        self.write("notation/trustpolicy.json", &policy.to_string());
        self.write("ca.pem", &format!("{authority}{}", std::fs::read_to_string(own).unwrap()));
        self.write("authority.pem", &authority);
        self.write("tsa.pem", &tsa);
    }

    /// A key of openssl's and a certificate for it; an entry of `signingkeys.json`.
    fn key(&self, name: &str, kind: [&str; 4], issuer: &Issuer, template: &Template) -> Value {
        let (key, chain) = (self.site.file(&format!("{name}.key")), self.site.file(&format!("{name}.crt")));
        shell::run(Command::new("openssl").arg("genpkey").args(kind).arg("-out").arg(&key)).unwrap();
        let spki =
            shell::run(Command::new("openssl").args(["pkey", "-pubout", "-outform", "DER", "-in"]).arg(&key)).unwrap();
        let leaf = issuer.sign(&Template { spki, ..template.clone() });
        let text = format!("{}{}", pem("CERTIFICATE", &leaf), pem("CERTIFICATE", &issuer.certificate));
        std::fs::write(&chain, text).unwrap();
        json!({ "name": name, "keyPath": key, "certPath": chain })
    }

    fn write(&self, name: &str, text: &str) {
        let file = self.site.file(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    fn notation(&self, arguments: &str) -> Command {
        let mut notation = Command::new(peers::notation().unwrap());
        notation.args(arguments.split(' ')).current_dir(&self.site.dir);
        notation.env("HOME", &self.site.dir).env("XDG_CONFIG_HOME", &self.site.dir);
        notation.env("SSL_CERT_FILE", &self.site.pki.server_ca.certificate);
        notation.env("NOTATION_USERNAME", USER).env("NOTATION_PASSWORD", &self.site.password);
        notation
    }

    fn on(&self, arguments: &str, image: &Image) -> Command {
        // What is called localhost it takes to have no TLS.
        let host = self.site.host.replace("localhost", "127.0.0.1");
        let mut notation = self.notation(arguments);
        notation.arg(format!("{host}/team/scanner@{}", image.digest));
        notation
    }

    fn sign(&self, arguments: &str, image: &Image) {
        run(&mut self.on(&format!("sign {arguments}"), image));
    }

    fn stamped(&self, arguments: &str, image: &Image) {
        let stamp = format!("--timestamp-url {} --timestamp-root-cert tsa.pem", self.tsa.url());
        self.sign(&format!("{arguments} {stamp}"), image);
    }

    fn verify(&self, image: &Image) -> Output {
        self.on("verify", image).output().unwrap()
    }

    fn draft(&self, image: &Image) -> Draft<'_> {
        self.notary.draft(&image.digest, image.size, MANIFEST, now())
    }

    fn attach_jws(&self, image: &Image, envelope: &[u8]) {
        self.site.attach(image, ARTIFACT, JWS, envelope);
    }

    fn attach_cose(&self, image: &Image, envelope: &[u8]) {
        self.site.attach(image, ARTIFACT, COSE, envelope);
    }

    fn config(&self) -> Release {
        let notation = Notation {
            ca: Some(self.site.file("ca.pem")),
            signing_authority: Some(self.site.file("authority.pem")),
            tsa: Some(self.site.file("tsa.pem")),
            trusted_identities: vec![TRUSTED.to_owned(), SELF_SIGNED.to_owned()],
            revoked: Vec::new(),
        };
        let identity = ReleaseIdentity {
            public_key: None,
            notation: Some(notation),
            ..key_identity("wabbit networks", PathBuf::new())
        };
        Release { identity: vec![identity], repository: vec![self.site.repository()], ..Release::default() }
    }
}

/// Signs an image in each way and compares what notation and we say of it.
pub(crate) fn compare(registry: fn(&Pki, &Path) -> Running) {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::start(dir.path(), registry);
    let releases = releases(&scene.config());
    let mut wrong = Vec::new();
    println!("{:<56} {:<9} {:<9} we say", "how it was signed", "notation", "we");
    for Row(how, make, accepted, refused) in ROWS {
        let image = scene.site.push();
        make(&scene, &image);
        let theirs = scene.verify(&image);
        let ours = check(&releases, &image.digest);
        let said = |accepted| if accepted { "accepts" } else { "refuses" };
        let reason = ours.as_ref().err().map(ReleaseError::reason);
        let told = reason.unwrap_or_default();
        println!("{how:<56} {:<9} {:<9} {told}", said(theirs.status.success()), said(ours.is_ok()));
        if (theirs.status.success(), reason) != (*accepted, *refused) {
            wrong.push(format!("{how}: notation: {theirs:?}\nwe: {ours:?}"));
        }
        if let Ok(Evidence::Signature { time, form, .. }) = ours.as_ref().map(TrustedRelease::evidence) {
            let expected = match how {
                how if how.contains("time stamp") => Some("timestamp"),
                how if how.contains("authority") => Some("signing_authority"),
                _ => None,
            };
            let kind = if how.contains("COSE") { "notary_cose" } else { "notary_jws" };
            if (time.map(|time| time.by), form.name()) != (expected, kind) {
                wrong.push(format!("{how}: its form is {form:?}, its time {time:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

const ROWS: &[Row] = &[
    good("JWS, ECDSA on P-256", |scene, image| scene.sign("--key p256", image)),
    good("COSE, ECDSA on P-256", |scene, image| scene.sign("--key p256 --signature-format cose", image)),
    good("JWS, ECDSA on P-384", |scene, image| scene.sign("--key p384", image)),
    good("COSE, ECDSA on P-521", |scene, image| scene.sign("--key p521 --signature-format cose", image)),
    good("JWS, RSA of 2048 bits", |scene, image| scene.sign("--key rsa2048", image)),
    good("COSE, RSA of 3072 bits", |scene, image| scene.sign("--key rsa3072 --signature-format cose", image)),
    good("JWS, RSA of 4096 bits", |scene, image| scene.sign("--key rsa4096", image)),
    good("JWS, by a certificate that signs for itself", |scene, image| scene.sign("--key test.example", image)),
    good("JWS, with a time stamp", |scene, image| scene.stamped("--key p256", image)),
    good("COSE, with a time stamp", |scene, image| scene.stamped("--key p256 --signature-format cose", image)),
    good("JWS, for a day", |scene, image| scene.sign("--key p256 --expiry 24h", image)),
    good("COSE, for a day", |scene, image| scene.sign("--key p256 --expiry 24h --signature-format cose", image)),
    good("JWS, with metadata", |scene, image| scene.sign("--key p256 --user-metadata build=7", image)),
    good("JWS, by the referrers API", |scene, image| scene.sign("--key p256 --force-referrers-tag=false", image)),
    good("JWS, a stranger's and a good one", |scene, image| {
        scene.sign("--key stranger", image);
        scene.sign("--key p256", image);
    }),
    bad("nobody", |_, _| {}, "release_not_signed"),
    bad("JWS, another root", |scene, image| scene.sign("--key stranger", image), "release_certificate_untrusted"),
    bad(
        "COSE, another subject",
        |scene, image| scene.sign("--key other --signature-format cose", image),
        "release_identity_mismatch",
    ),
    // What notation's command line cannot make, made by us; it judges it all the same.
    good("JWS, ours", |scene, image| scene.attach_jws(image, &scene.draft(image).jws())),
    good("COSE, ours", |scene, image| scene.attach_cose(image, &scene.draft(image).cose())),
    good("JWS, ours, by a signing authority", |scene, image| {
        scene.attach_jws(image, &scene.draft(image).by_authority(now() - 60).jws());
    }),
    good("COSE, ours, by a signing authority", |scene, image| {
        scene.attach_cose(image, &scene.draft(image).by_authority(now() - 60).cose());
    }),
    bad(
        "JWS, ours, changed",
        |scene, image| {
            let mut envelope = scene.draft(image).jws_json();
            envelope["payload"] =
                testkit::base64url(String::from_utf8(scene.draft(image).payload).unwrap() + " ").into();
            scene.attach_jws(image, envelope.to_string().as_bytes());
        },
        "release_signature_invalid",
    ),
    bad(
        "COSE, ours, changed",
        |scene, image| {
            let mut envelope = scene.draft(image).cose();
            *envelope.last_mut().unwrap() ^= 1;
            scene.attach_cose(image, &envelope);
        },
        "release_signature_invalid",
    ),
    bad(
        "COSE, ours, of another image",
        |scene, image| {
            let other = scene.site.push();
            scene.attach_cose(image, &scene.draft(&other).cose());
        },
        "release_other_image",
    ),
    bad(
        "JWS, ours, of another size",
        |scene, image| {
            let other = Image { digest: image.digest.clone(), size: image.size + 1 };
            scene.attach_jws(image, &scene.draft(&other).jws());
        },
        "release_target",
    ),
    bad(
        "COSE, ours, expired",
        |scene, image| scene.attach_cose(image, &scene.draft(image).expiring(now() - 60).cose()),
        "release_signature_expired",
    ),
    bad(
        "JWS, ours, by an expired certificate",
        |scene, image| scene.attach_jws(image, &expired(scene, image).jws()),
        "release_certificate_expired",
    ),
    bad(
        "COSE, ours, by an expired certificate, by an authority too late",
        |scene, image| scene.attach_cose(image, &expired(scene, image).by_authority(now() - 60).cose()),
        "release_certificate_expired",
    ),
    good("COSE, ours, by a certificate expired since, by an authority", |scene, image| {
        scene.attach_cose(image, &expired(scene, image).by_authority(now() - 7200).cose());
    }),
    bad(
        "JWS, ours, its scheme not critical",
        |scene, image| scene.attach_jws(image, &scene.draft(image).with("crit", json!([])).jws()),
        "release_critical_attribute",
    ),
    bad(
        "COSE, ours, its expiry not critical",
        |scene, image| {
            let scheme = json!(["io.cncf.notary.signingScheme"]);
            scene.attach_cose(image, &scene.draft(image).expiring(now() + 600).with("crit", scheme).cose());
        },
        "release_critical_attribute",
    ),
    // The specification: "unknown critical attributes MUST cause signature verification to fail".
    stricter(
        "JWS, ours, something unknown critical",
        |scene, image| {
            let critical = json!(["io.cncf.notary.signingScheme", "x.example/y"]);
            let draft = scene.draft(image).with("x.example/y", "z".into()).with("crit", critical);
            scene.attach_jws(image, &draft.jws());
        },
        "release_critical_attribute",
    ),
];

/// By a certificate that ended an hour ago.
fn expired<'s>(scene: &'s Scene, image: &Image) -> Draft<'s> {
    let at = now();
    let template = Template { not_after: at - 3600, ..leaf_template(scene.notary.key.spki(), at) };
    let root = &scene.notary.root;
    Draft { chain: vec![root.sign(&template), root.certificate.clone()], ..scene.draft(image) }
}

/// What `notation cert generate-test` writes.
const SELF_SIGNED: &str = "x509.subject: C=US, ST=WA, L=Seattle, O=Notary, CN=test.example";
