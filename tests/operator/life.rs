//! A key from an empty token to its end, with an appliance that signs meanwhile.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use testkit::appliance::Settings;
use testkit::client::Answer;
use testkit::{Fixture, sample};

use crate::desk::{PIN, Run, SO_PIN};

/// An appliance, and its operator.
struct House {
    fixture: Fixture,
}

impl House {
    fn start() -> Self {
        let house = Self { fixture: Fixture::start() };
        house.write("vault.pin", &format!("{PIN}\n"));
        house.write("vault.so-pin", &format!("{SO_PIN}\n"));
        house
    }

    fn dir(&self) -> &Path {
        self.fixture.dir()
    }

    fn write(&self, name: &str, content: &str) {
        testkit::shell::write_private(&self.dir().join(name), content.as_bytes()).unwrap();
    }

    fn settings(&mut self) -> &mut Settings {
        &mut self.fixture.appliance.settings
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dir()).env("SIGNER_CONFIG", self.fixture.appliance.config_file());
        command.envs(self.fixture.token.environment()).stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn signerctl(&self, arguments: &[&str]) -> Run {
        self.fixture.appliance.write_config().unwrap();
        let program = self.fixture.appliance.binaries().signerctl();
        self.command(&program).args(arguments).output().unwrap().into()
    }

    #[track_caller]
    fn openssl(&self, arguments: &[&str]) -> String {
        let run = Run::from(self.command(Path::new("openssl")).args(arguments).output().unwrap());
        assert_eq!(run.code, 0, "openssl {arguments:?}: {run:?}");
        run.stdout + &run.stderr
    }

    /// Makes a key and adds what `signerctl` says to the configuration.
    #[track_caller]
    fn generate(&mut self, name: &str, state: &str) -> Value {
        let made = self.signerctl(&["keys", "generate", name, "--token", "vault", "--json"]);
        let made = made.succeeds().json();
        let snippet: toml::Table = made["snippet"].as_str().unwrap().parse().unwrap();
        let section = format!("keys.{name}");
        self.settings().set(&section, snippet["keys"][name].clone()).set(&format!("{section}.state"), state);
        made["key"].clone()
    }

    #[track_caller]
    fn sign(&self, form: &str) -> Answer {
        let call =
            self.fixture.client().sign(&sample::request()).body(|body| body["options"] = json!({"returnBundle": form}));
        call.send().expect(200)
    }

    /// What the appliance itself says of an envelope.
    #[track_caller]
    fn verified_by(&self, envelope: &Value) -> Value {
        let answer = self.fixture.client().verify(envelope).send().expect(200).json();
        assert_eq!(answer["verified"], true, "{answer:#}");
        answer["key"].clone()
    }
}

#[test]
fn from_an_empty_token_to_the_end_of_a_key() {
    let mut house = House::start();
    let (dir, module) = (house.dir().to_owned(), PathBuf::from(house.fixture.token.reached_by()));
    let user = house.settings().get("tokens.main.front_user").unwrap().as_str().unwrap().to_owned();
    house
        .settings()
        .set_path("tokens.vault.socket", &dir.join("vault.sock"))
        .set("tokens.vault.front_user", user.as_str())
        .set("tokens.vault.worker_user", user)
        .set_path("tokens.vault.module", &module)
        .set("tokens.vault.uri", "pkcs11:token=vault")
        .set_path("tokens.vault.pin_file", &dir.join("vault.pin"))
        .set_path("tokens.vault.state_dir", &dir.join("vault-state"));

    // An empty token becomes the token of the configuration.
    let list = house.signerctl(&["token", "list", "vault"]);
    assert!(list.succeeds().stdout.contains("(not initialised)"), "{}", list.stdout);
    house.signerctl(&["token", "init", "vault", "--so-pin-file", "vault.so-pin", "--yes"]).succeeds();
    house
        .signerctl(&["token", "init", "vault", "--so-pin-file", "vault.so-pin", "--yes"])
        .fails(3, &["--reinitialise"]);
    let slots = house.signerctl(&["token", "list", "vault", "--json"]).succeeds().json();
    let vault = slots["slots"].as_array().unwrap().iter().find(|slot| slot["token"]["label"] == "vault").unwrap();
    assert_eq!((&vault["token"]["initialized"], &vault["token"]["pinObjection"]), (&json!(true), &Value::Null));

    // A key, made to stay.
    let first = house.generate("release-1", "active");
    for (name, set) in [("CKA_SENSITIVE", true), ("CKA_EXTRACTABLE", false), ("CKA_LOCAL", true), ("CKA_DERIVE", false)]
    {
        assert_eq!(first["attributes"][name], set, "{name}");
    }
    house.settings().set_path("keys.release-1.certificate_chain", &dir.join("release-1.crt"));
    house.settings().set("tenants.acme.keys", vec!["release-1".to_owned()]);
    for unused in ["acme-active", "acme-next", "acme-retired"] {
        house.settings().unset(&format!("keys.{unused}"));
    }

    // A certificate for it.
    certify(&house);

    // The appliance signs with it, and sends the chain along.
    house.fixture.appliance.restart().unwrap();
    let answer = house.sign("dsse+cert");
    let old_envelope = answer.envelope_json();
    let chain: Vec<String> = serde_json::from_value(answer.json()["bundle"]["certificateChain"].clone()).unwrap();
    assert_eq!(chain.concat(), fs::read_to_string(dir.join("release-1.crt")).unwrap());
    house.write("leaf.pem", &chain[0]);
    house.write("root.pem", &chain[1]);
    house.openssl(&["verify", "-CAfile", "root.pem", "leaf.pem"]);
    house.write("key.pem", &house.openssl(&["x509", "-in", "leaf.pem", "-pubkey", "-noout"]));
    let envelope = answer.envelope();
    fs::write(dir.join("pae"), envelope.pae()).unwrap();
    fs::write(dir.join("sig"), &envelope.signature).unwrap();
    house.openssl(&["dgst", "-sha256", "-verify", "key.pem", "-signature", "sig", "pae"]);
    assert_eq!(envelope.keyid, first["keyid"]);

    // The next key is published, then takes over; both verify.
    let second = house.generate("release-2", "next");
    house.settings().set("tenants.acme.keys", vec!["release-1".to_owned(), "release-2".to_owned()]);
    house.signerctl(&["keys", "retire", "release-1", "--yes"]).fails(1, &["has no end", "signerctl keys rotate"]);
    house.fixture.appliance.restart().unwrap();
    assert_eq!(house.sign("dsse").envelope().keyid, first["keyid"], "a next key does not sign");
    house.signerctl(&["keys", "rotate", "release-2"]).fails(1, &["keys.release-2.state: next → \"active\"", "--yes"]);
    assert!(!dir.join("signer.toml.d").exists(), "nothing is written before it is confirmed");
    let rotated = house.signerctl(&["keys", "rotate", "release-2", "--yes"]);
    for words in ["is in force", "systemctl restart signerd", "signerctl keys retire release-1"] {
        assert!(rotated.succeeds().stdout.contains(words), "{}", rotated.stdout);
    }
    house.fixture.appliance.restart().unwrap();
    let new = house.sign("dsse");
    assert_eq!(new.envelope().keyid, second["keyid"]);
    assert_eq!(house.verified_by(&old_envelope)["state"], "active");
    assert_eq!(house.verified_by(&new.envelope_json())["keyid"], second["keyid"]);

    // The old one retires; everything can be exported and verifies.
    house.signerctl(&["keys", "retire", "release-1", "--yes"]).succeeds();
    house.fixture.appliance.restart().unwrap();
    assert_eq!(house.verified_by(&old_envelope)["state"], "retired");
    exports(&house, &old_envelope, &new.envelope_json());

    // Its end.
    house.signerctl(&["keys", "delete", "release-2", "--yes"]).fails(1, &["is active", "90-keys.toml:"]);
    house.signerctl(&["keys", "delete", "release-1"]).fails(1, &["nobody can bring it back", "give --yes"]);
    let deleted = house.signerctl(&["keys", "delete", "release-1", "--yes", "--json"]).succeeds().json();
    let classes: Vec<&str> =
        deleted["destroyed"].as_array().unwrap().iter().map(|object| object["class"].as_str().unwrap()).collect();
    assert_eq!(classes, ["private key", "public key", "certificate"]);
    house.fixture.appliance.restart().unwrap();
    assert_eq!(house.verified_by(&old_envelope)["state"], "retired", "its public half was written down");

    // Even out of the configuration it is not forgotten.
    house.settings().unset("keys.release-1").set("tenants.acme.keys", vec!["release-2".to_owned()]);
    let drop_in = dir.join("signer.toml.d/90-keys.toml");
    let kept: toml::Table = fs::read_to_string(&drop_in).unwrap().parse().unwrap();
    let kept = Settings::parse(&kept.to_string()).unset("keys.release-1").to_toml();
    fs::write(&drop_in, kept).unwrap();
    let listed = |more: &[&str]| {
        let run = house.signerctl(&[&["keys", "export"], more].concat());
        run.succeeds().json()["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect::<Vec<_>>()
    };
    assert!(!listed(&[]).contains(&first["keyid"]));
    assert!(listed(&["--all"]).contains(&first["keyid"]));
}

/// CSR, CA, chain: what is wrong is refused, what is right is where the configuration says.
fn certify(house: &House) {
    let subject = "CN=Release signing,O=Example\\, Inc.,C=DE";
    house
        .signerctl(&[
            "keys",
            "csr",
            "release-1",
            "--subject",
            subject,
            "--san",
            "URI:https://signer.example",
            "--output",
            "r1.csr",
        ])
        .succeeds();
    let shown = house.openssl(&["req", "-in", "r1.csr", "-verify", "-noout", "-text", "-nameopt", "RFC2253"]);
    for words in [
        "verify OK",
        "CN=Release signing,O=Example\\, Inc.,C=DE",
        "URI:https://signer.example",
        "Code Signing",
        "ecdsa-with-SHA256",
    ] {
        assert!(shown.contains(words), "`{words}` is not in:\n{shown}");
    }
    house.openssl(&["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "ca.key"]);
    house.openssl(&["req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=Test CA", "-days", "30", "-out", "ca.pem"]);
    let issue = |request: &str, out: &str| {
        let issue =
            ["x509", "-req", "-in", request, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "9"];
        house.openssl(&[&issue[..], &["-copy_extensions", "copy", "-out", out]].concat());
    };
    issue("r1.csr", "r1.pem");
    house.openssl(&["req", "-new", "-key", "ca.key", "-subj", "/CN=other", "-out", "other.csr"]);
    issue("other.csr", "other.pem");
    let read = |name: &str| fs::read_to_string(house.dir().join(name)).unwrap();
    house.write("right.pem", &format!("some text of the CA\n{}{}", read("r1.pem"), read("ca.pem")));
    house.write("reversed.pem", &format!("{}{}", read("ca.pem"), read("r1.pem")));
    house.write("others.pem", &format!("{}{}", read("other.pem"), read("ca.pem")));
    let import = |file: &str, more: &[&str]| {
        house.signerctl(&[&["keys", "import-cert", "release-1", "--chain", file][..], more].concat())
    };
    import("reversed.pem", &[]).fails(6, &["certificate 2", "is no CA certificate", "leaf first"]);
    import("others.pem", &[])
        .fails(6, &["its first certificate is for the key SHA256:", "`release-1` in the token is SHA256:"]);
    assert!(!house.dir().join("release-1.crt").exists());
    import("right.pem", &["--into-token"]).succeeds();
    assert_eq!(read("release-1.crt"), format!("{}{}", read("r1.pem"), read("ca.pem")), "without the CA's text");
    import("right.pem", &[]).fails(1, &["will be replaced", "--yes"]);
    let objects = house.signerctl(&["token", "list", "vault", "--objects", "--json"]).succeeds().json();
    let certificates = objects["objects"].as_array().unwrap().iter().filter(|object| object["class"] == "certificate");
    assert_eq!(certificates.count(), 1);
}

/// Both envelopes verify with what is exported, in either form.
fn exports(house: &House, old: &Value, new: &Value) {
    let jwks = house.signerctl(&["keys", "export", "--format", "jwks"]);
    house.write("keys.json", &jwks.succeeds().stdout);
    let state = |name: &str| {
        let keys = jwks.json();
        keys["keys"].as_array().unwrap().iter().find(|key| key["name"] == name).unwrap()["state"].clone()
    };
    assert_eq!((state("release-1"), state("release-2")), (json!("retired"), json!("active")));
    for (name, envelope) in [("old.json", old), ("new.json", new)] {
        house.write(name, &envelope.to_string());
        let run = house.signerctl(&["verify", name, "--keys", "keys.json"]);
        assert!(run.succeeds().stdout.contains("verified"), "{}", run.stdout);
    }
    let pem = house.signerctl(&["keys", "export", "--format", "pem"]).succeeds().stdout.clone();
    assert_eq!(pem.matches("BEGIN PUBLIC KEY").count(), 3, "release-1, release-2 and the other tenant's");
    let (_, from) = pem.split_once("release-1 (retired)\n").unwrap();
    house.write("one.pem", from);
    house.openssl(&["pkey", "-pubin", "-in", "one.pem", "-noout"]);
    house.signerctl(&["verify", "old.json", "--key", "one.pem"]).succeeds();
}
