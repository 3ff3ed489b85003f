//! `signerctl init` as far as no device and no systemd is needed: its answers, what it would write, and images.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use crate::{Run, signerctl};

const ANSWERS: &str = r#"
profile = "softhsm2"
[token]
label = "signer"
module = "/usr/lib/softhsm/libsofthsm2.so"
[key]
name = "acme-1"
generate = true
[tenant]
id = "acme.example"
predicate_types = ["stella.ops/sbom@v1"]
[config.server]
public_url = "https://signer.example:8443"
listen = "192.0.2.1:9443"
[config.server.tls]
certificate = "@DIR@/server.pem"
private_key = "@DIR@/server.key"
client_ca = "@DIR@/clients.pem"
[config.authority]
issuer = "https://authority.example"
jwks = { discovery = "https://authority.example/.well-known/openid-configuration" }
ca = "@DIR@/authority.pem"
[config.licensing.offline]
issuer = "https://licensing.example"
keys = "@DIR@/licensing.json"
revocation_list = "@DIR@/revocations.jwt"
"#;

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        for name in ["server.pem", "clients.pem", "authority.pem", "licensing.json", "revocations.jwt", "server.key"] {
            fs::write(bench.dir.path().join(name), format!("content of {name}\n")).unwrap();
        }
        let answers = ANSWERS.replace("@DIR@", &bench.dir.path().display().to_string());
        fs::write(bench.dir.path().join("answers.toml"), answers).unwrap();
        // The users of an image are its own.
        fs::create_dir_all(bench.image("etc")).unwrap();
        fs::write(
            bench.image("etc/passwd"),
            "root:x:0:0::/:/bin/sh\nstellaops-signer:x:991:981::/:/x\nstellaops-signer-token:x:992:982::/:/x\n",
        )
        .unwrap();
        fs::write(bench.image("etc/group"), "stellaops-signer:x:981:\nstellaops-signer-token:x:982:\n").unwrap();
        bench
    }

    fn image(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join("image").join(path)
    }

    fn init(&self, more: &[&str]) -> Run {
        let image = self.image("").display().to_string();
        let arguments = [&["init", "--answers", "answers.toml", "--root", &image], more].concat();
        signerctl(self.dir.path(), &arguments)
    }
}

/// Mode, and where root made it (as in a container) its owner.
#[track_caller]
fn is(path: &Path, mode: u32, owner: (u32, u32)) {
    let metadata = fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{}", path.display());
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        assert_eq!((metadata.uid(), metadata.gid()), owner, "{}", path.display());
    }
}

#[test]
fn an_image_gets_its_files_with_owner_and_mode_and_a_second_run_changes_nothing() {
    let bench = Bench::new();
    let run = bench.init(&[]);
    assert_eq!(run.code, 0, "{run:?}");
    is(&bench.image("etc/stellaops-signer/signer.toml"), 0o644, (0, 0));
    is(&bench.image("etc/stellaops-signer/tls/server.crt"), 0o644, (0, 0));
    is(&bench.image("etc/stellaops-signer/tls/server.key"), 0o640, (0, 981));
    is(&bench.image("etc/stellaops-signer/licensing/keys.json"), 0o644, (0, 0));
    is(&bench.image("var/lib/stellaops-signer"), 0o750, (991, 981));
    is(&bench.image("var/lib/stellaops-signer/revocations.jwt"), 0o640, (991, 981));
    is(&bench.image("var/lib/stellaops-signer/audit"), 0o750, (991, 981));
    is(&bench.image("var/lib/stellaops-signer-token/main/softhsm2"), 0o700, (992, 982));
    is(&bench.image("etc/systemd/system/signer-token@main.service.d/10-device.conf"), 0o644, (0, 0));
    let listen = fs::read_to_string(bench.image("etc/systemd/system/signerd.socket.d/10-listen.conf")).unwrap();
    assert!(listen.contains("ListenStream=\nListenStream=192.0.2.1:9443\n"), "{listen}");
    assert!(!bench.image("etc/systemd/system/signerd-local.socket.d").exists(), "it listens where the unit says");

    // The appliance's own loader takes it.
    let config = bench.image("etc/stellaops-signer/signer.toml");
    let check = signerctl(bench.dir.path(), &["config", "check", "--no-files", "--config", config.to_str().unwrap()]);
    check.succeeds(&["is valid", "1 token", "1 key", "1 tenant"]);
    let text = fs::read_to_string(&config).unwrap();
    assert!(!text.contains(&bench.dir.path().display().to_string()), "the copies are named:\n{text}");

    let (before, inode) = (text, fs::metadata(&config).unwrap().ino());
    let again = bench.init(&[]);
    assert_eq!(again.code, 0, "{again:?}");
    assert!(again.stderr.contains("as it was"), "{}", again.stderr);
    assert_eq!((fs::read_to_string(&config).unwrap(), fs::metadata(&config).unwrap().ino()), (before, inode));
}

#[test]
fn the_module_of_an_image_is_where_the_image_has_it_and_not_where_this_machine_has_one() {
    let bench = Bench::new();
    let answers = bench.dir.path().join("answers.toml");
    let text = fs::read_to_string(&answers).unwrap();
    fs::write(&answers, text.replace("module = \"/usr/lib/softhsm/libsofthsm2.so\"\n", "")).unwrap();
    bench.init(&[]).fails(2, &["token.module"]);
    // As openSUSE has it.
    let module = bench.image("usr/lib64/softhsm/libsofthsm.so");
    fs::create_dir_all(module.parent().unwrap()).unwrap();
    fs::write(&module, "").unwrap();
    let run = bench.init(&[]);
    assert_eq!(run.code, 0, "{run:?}");
    let config = fs::read_to_string(bench.image("etc/stellaops-signer/signer.toml")).unwrap();
    assert!(config.contains("module = \"/usr/lib64/softhsm/libsofthsm.so\""), "{config}");
}

#[test]
fn other_answers_replace_nothing_unless_forced_and_then_the_old_files_stay_beside() {
    let bench = Bench::new();
    assert_eq!(bench.init(&[]).code, 0);
    let config = bench.image("etc/stellaops-signer/signer.toml");
    let before = fs::read_to_string(&config).unwrap();
    let other = ["--set", "tenant.id=globex", "--set", "config.server.threads=3"];
    bench.init(&other).fails_with_steps(6, &["signer.toml", "--force"]);
    assert_eq!(fs::read_to_string(&config).unwrap(), before);

    let forced = bench.init(&[&other[..], &["--force"]].concat());
    assert_eq!(forced.code, 0, "{forced:?}");
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains("[tenants.globex]") && text.contains("threads = 3"), "{text}");
    let kept = bench.image("etc/stellaops-signer/signer.toml.before-init");
    assert_eq!(fs::read_to_string(kept).unwrap(), before);
}

#[test]
fn a_run_that_fails_leaves_the_image_as_it_was() {
    let bench = Bench::new();
    fs::remove_file(bench.dir.path().join("revocations.jwt")).unwrap();
    let run = bench.init(&[]);
    run.fails_with_steps(2, &["config.licensing.offline.revocation_list", "revocations.jwt", "taken back"]);
    assert!(!bench.image("etc/stellaops-signer").exists(), "{run:?}");
    assert!(!bench.image("var/lib/stellaops-signer").exists());
}

#[test]
fn what_would_be_written_is_shown_and_nothing_is_written() {
    let bench = Bench::new();
    let run = bench.init(&["--check"]);
    run.succeeds(&["etc/stellaops-signer/signer.toml", "[tokens.main]", "signer-token@main.service.d"]);
    assert!(!bench.image("etc/stellaops-signer").exists());
    let json = bench.init(&["--check", "--json"]).json();
    assert!(json["config"].as_str().unwrap().contains("public_url") && json["writes"].is_array(), "{json}");
}

#[test]
fn what_is_not_answered_or_wrong_is_named_where_nobody_can_be_asked() {
    let bench = Bench::new();
    let dir = bench.dir.path();
    signerctl(dir, &["init", "--check"])
        .fails(2, &["`profile` is not answered", "nobody can be asked", "--set profile="]);
    signerctl(dir, &["init", "--check", "--answers", "none.toml"]).fails(6, &["none.toml"]);
    for (setting, code, words) in [
        ("profile=softhsm9", 2, "there is no `softhsm9`"),
        ("token.pin=1234", 2, "unknown field `pin`"),
        ("config.server.public_url=ftp://x", 5, "server.public_url"),
        ("config.nonsense=1", 5, "nonsense"),
        ("key.name=a/b", 2, "key.name"),
    ] {
        bench.init(&["--check", "--set", setting]).fails(code, &[words]);
    }
}

#[test]
fn a_request_for_a_certificate_is_one_that_openssl_reads() {
    let bench = Bench::new();
    request_instead_of_certificate(&bench);
    let run = bench.init(&[]);
    assert_eq!(run.code, 0, "{run:?}");
    is(&bench.image("etc/stellaops-signer/tls/server.key"), 0o640, (0, 981));
    let request = bench.image("etc/stellaops-signer/tls/server.csr");
    let openssl = std::process::Command::new("openssl")
        .args(["req", "-noout", "-text", "-verify", "-in"])
        .arg(&request)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&openssl.stdout).into_owned();
    for words in ["DNS:signer.example", "IP Address:192.0.2.1", "TLS Web Server Authentication", "CN = signer.example"]
    {
        assert!(openssl.status.success() && said.contains(words), "`{words}` is not in:\n{said}");
    }
    let key = fs::read(bench.image("etc/stellaops-signer/tls/server.key")).unwrap();
    assert_eq!(bench.init(&[]).code, 0);
    assert_eq!(fs::read(bench.image("etc/stellaops-signer/tls/server.key")).unwrap(), key, "no other one is made");
}

#[test]
fn what_the_operator_keeps_fresh_is_never_overwritten_and_a_certificate_stays_only_beside_its_key() {
    let bench = Bench::new();
    let in_dir = |name: &str| bench.dir.path().join(name);
    let key = rcgen::KeyPair::generate().unwrap();
    let certified = |key: &rcgen::KeyPair| {
        rcgen::CertificateParams::new(["signer.example".to_owned()]).unwrap().self_signed(key).unwrap().pem()
    };
    fs::write(in_dir("server.key"), key.serialize_pem()).unwrap();
    fs::write(in_dir("server.pem"), certified(&key)).unwrap();
    fs::write(in_dir("a.crl"), "the first list").unwrap();
    let crl = format!("config.server.tls.client_crl=[\"{}\"]", in_dir("a.crl").display());
    let init = |more: &[&str]| bench.init(&[&["--set", &crl][..], more].concat());
    assert_eq!(init(&[]).code, 0);

    let renewed = certified(&key);
    let fresh = [
        ("etc/stellaops-signer/tls/server.crt", renewed.as_str()),
        ("etc/stellaops-signer/files/server-tls-client-crl-0.crl", "the second list"),
        ("var/lib/stellaops-signer/revocations.jwt", "the second list"),
    ];
    for (file, content) in fresh {
        assert!(bench.image(file).is_file(), "{file}");
        fs::write(bench.image(file), content).unwrap();
    }
    for force in [&[][..], &["--force"]] {
        let run = init(force);
        assert_eq!(run.code, 0, "{run:?}");
        for (file, content) in fresh {
            assert_eq!(fs::read_to_string(bench.image(file)).unwrap(), content, "{file} {force:?}");
        }
        assert_eq!(run.stderr.matches("as it was; ").count(), fresh.len(), "{}", run.stderr);
    }

    fs::write(bench.image(fresh[0].0), certified(&rcgen::KeyPair::generate().unwrap())).unwrap();
    init(&["--force"]).fails_with_steps(6, &["tls/server.crt", "is for another key", "remove it"]);
}

#[test]
fn a_certificate_from_before_is_not_paired_with_a_key_that_is_made_now() {
    let bench = Bench::new();
    request_instead_of_certificate(&bench);
    assert_eq!(bench.init(&[]).code, 0);
    let tls = |name: &str| bench.image("etc/stellaops-signer/tls").join(name);
    let request = fs::read(tls("server.csr")).unwrap();
    // As on a machine that was restored from a backup, which has no private key.
    fs::remove_file(tls("server.key")).unwrap();
    fs::write(tls("server.crt"), "the certificate of the lost key").unwrap();
    let run = bench.init(&[]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stderr.contains("server.csr (anew") && run.stderr.contains("server.crt.before-init"), "{}", run.stderr);
    assert!(tls("server.key").is_file() && !tls("server.crt").exists());
    assert_ne!(fs::read(tls("server.csr")).unwrap(), request);
    assert_eq!(fs::read(tls("server.csr.before-init")).unwrap(), request);
    assert_eq!(fs::read_to_string(tls("server.crt.before-init")).unwrap(), "the certificate of the lost key");
}

fn request_instead_of_certificate(bench: &Bench) {
    let answers = bench.dir.path().join("answers.toml");
    let text = fs::read_to_string(&answers).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("certificate =") && !line.starts_with("private_key ="));
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    fs::write(&answers, format!("{text}[tls_request]\nnames = [\"signer.example\", \"192.0.2.1\"]\n")).unwrap();
}

impl Run {
    /// As [`Run::fails`], after it has said what it did before.
    #[track_caller]
    fn fails_with_steps(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not in:\n{}", self.stderr);
        }
    }
}
