//! An installation: the machine with the package, and the services and clients around it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use testkit::authority::{Authority, identity};
use testkit::client::{Client, Endpoint};
use testkit::hostile_fulcio::HostileFulcio;
use testkit::keyless::{LONG, write_token};
use testkit::licensing::{self, Licensing};
use testkit::machine::{Image, Machine, network};
use testkit::pki::Pki;
use testkit::trusted_root::TrustedRoot;
use testkit::{key::Key, sample, shell};

/// Everything that is not the machine; it outlives all of them.
pub(crate) struct World {
    pub(crate) pki: Pki,
    pub(crate) authority: Arc<Authority>,
    pub(crate) licensing: Arc<Licensing>,
    pub(crate) fulcio: HostileFulcio,
    dir: PathBuf,
    turn: Mutex<()>,
}

/// One installation; it is gone when dropped.
pub(crate) struct Site {
    pub(crate) machine: Machine,
    pub(crate) world: &'static World,
    pub(crate) _turn: MutexGuard<'static, ()>,
}

impl World {
    pub(crate) fn get() -> &'static Self {
        static WORLD: OnceLock<World> = OnceLock::new();
        // Each test's thread, before it starts anything.
        network().unwrap();
        WORLD.get_or_init(|| {
            let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("appliance");
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).unwrap();
            let pki = Pki::generate(&dir.join("pki")).unwrap();
            let authority = Arc::new(Authority::start(&pki).unwrap());
            let licensing = Arc::new(Licensing::start(&pki, &dir).unwrap());
            let fulcio = HostileFulcio::start(&pki).unwrap();
            let root = TrustedRoot::new().certificate_authority(&fulcio.ca.chain()).ct_log(&fulcio.log);
            root.write(&dir.join("trusted_root.json")).unwrap();
            Self { pki, authority, licensing, fulcio, dir, turn: Mutex::default() }
        })
    }
}

impl Site {
    /// A machine without the package.
    pub(crate) fn bare(variable: &str) -> Self {
        let world = World::get();
        // A test that failed has said so; the next one may run.
        let turn = world.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let machine = Image::named(variable).unwrap().boot().unwrap();
        Self { machine, world, _turn: turn }
    }

    /// The package installed, and nothing else done.
    pub(crate) fn installed(variable: &str) -> Self {
        let site = Self::bare(variable);
        site.install(&package("now"));
        site
    }

    /// The package installed and `signerctl init` run: an appliance that has signed.
    pub(crate) fn ready(variable: &str) -> Self {
        let site = Self::installed(variable);
        site.write_answers("");
        site.init("");
        site
    }

    /// Puts a package onto the machine and installs it, without a network.
    pub(crate) fn install(&self, package: &Path) {
        let name = package.file_name().unwrap().to_str().unwrap();
        fs::copy(package, self.machine.path("/root").join(name)).unwrap();
        let options = "--yes --no-install-recommends -o Dpkg::Options::=--force-confold";
        self.machine
            .sh(&format!(
                "apt-get install {options} /root/{name} >/root/apt.log 2>&1 || {{ cat /root/apt.log; exit 1; }}"
            ))
            .unwrap();
    }

    /// Puts a file onto the machine.
    pub(crate) fn put(&self, path: &str, content: impl AsRef<[u8]>, mode: u32) {
        let at = self.machine.path(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(&at, content).unwrap();
        fs::set_permissions(&at, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// What the operator brings along, and the file of answers; `more` is added to it.
    pub(crate) fn write_answers(&self, more: &str) {
        let World { pki, authority, licensing, fulcio, dir, .. } = self.world;
        let copy =
            |name: &str, from: &Path, mode| self.put(&format!("/srv/site/{name}"), fs::read(from).unwrap(), mode);
        copy("server.crt", pki.server.certificate(), 0o644);
        copy("server.key", pki.server.private_key(), 0o600);
        copy("client-ca.pem", &pki.client_ca.certificate, 0o644);
        copy("client.crl", &pki.client_crl, 0o644);
        copy("server-ca.pem", &pki.server_ca.certificate, 0o644);
        copy("licensing-keys.json", &licensing.keys_file, 0o644);
        copy("revocations.jwt", &licensing.revocation_file, 0o644);
        copy("licensing.crt", pki.appliance.certificate(), 0o644);
        copy("licensing.key", pki.appliance.private_key(), 0o600);
        copy("trusted_root.json", &dir.join("trusted_root.json"), 0o644);
        self.put("/srv/site/pin", format!("{PIN}\n"), 0o400);
        self.put("/srv/site/so-pin", "081500-officer-pin\n", 0o400);
        let answers = ANSWERS
            .replace("@ISSUER@", &authority.issuer())
            .replace("@DISCOVERY@", &authority.discovery_url())
            .replace("@LICENSING@", licensing::ISSUER)
            .replace("@INTROSPECTION@", &licensing.introspection_url())
            .replace("@SCANNER@", sample::SCANNER_IMAGE)
            .replace("@FULCIO@", &fulcio.url())
            .replace("@SAN@", &identity("acme"));
        self.put("/srv/site/answers.toml", format!("{answers}\n{more}\n"), 0o600);
    }

    /// A client's things on the machine, and the `[test]` that names them.
    pub(crate) fn write_test_call(&self) -> String {
        let pki = &self.world.pki;
        let client = self.client();
        let copy = |name: &str, from: &Path| self.put(&format!("/srv/site/{name}"), fs::read(from).unwrap(), 0o600);
        copy("acme.crt", pki.acme.certificate());
        copy("acme.key", pki.acme.private_key());
        let key = Key::p256();
        let client = client.with_dpop_key(&key);
        self.put("/srv/site/dpop.pem", key.pkcs8_pem(), 0o600);
        self.put("/srv/site/optok.jwt", client.token().encode(), 0o600);
        self.put("/srv/site/poe.jwt", client.poe().encode(), 0o600);
        TEST_CALL.replace("@SCANNER@", sample::SCANNER_IMAGE)
    }

    /// `signerctl init --answers`, with more arguments. Returns what it said.
    pub(crate) fn init(&self, more: &str) -> String {
        let token = self.world.authority.mint_identity("acme").shift("exp", LONG);
        // Into the front's directory, which its unit would make at its first start.
        self.machine
            .sh("install -d -o stellaops-signer -g stellaops-signer -m 0750 /var/lib/stellaops-signer")
            .unwrap();
        write_token(&self.machine.path(IDENTITY), &token).unwrap();
        self.machine.run(&["chown", "stellaops-signer:", IDENTITY]).unwrap();
        self.machine.sh(&format!("signerctl init --answers /srv/site/answers.toml {more} 2>&1")).unwrap()
    }

    /// A client of tenant acme, on a connection of its own, outside of the machine.
    pub(crate) fn client(&self) -> Client {
        let World { pki, authority, licensing, .. } = self.world;
        let endpoint = Endpoint {
            addr: ([127, 0, 0, 1], 8443).into(),
            url: "https://localhost:8443".to_owned(),
            roots: pki.server_roots(),
        };
        Client::new(endpoint, &pki.acme, "acme", authority.clone(), licensing.clone())
    }

    /// Signs once, and has openssl verify it with the public key that init wrote.
    #[track_caller]
    pub(crate) fn signs(&self) {
        let answer = self.client().sign(&sample::request()).send().expect(200);
        let envelope = answer.envelope();
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("pae"), envelope.pae()).unwrap();
        fs::write(at("sig"), &envelope.signature).unwrap();
        let key = self.machine.path("/etc/stellaops-signer/keys/acme-1.pub");
        let mut openssl = std::process::Command::new("openssl");
        openssl.args(["dgst", "-sha256", "-verify"]).arg(key).arg("-signature").arg(at("sig")).arg(at("pae"));
        shell::run(&mut openssl).unwrap();
    }

    /// Whether it signs now.
    pub(crate) fn would_sign(&self) -> bool {
        self.client().sign(&sample::request()).try_send().is_ok_and(|answer| answer.status == 200)
    }

    /// Waits until signerd calls itself ready, which it may do a moment after the first signature.
    #[track_caller]
    pub(crate) fn calls_itself_ready_within(&self, patience: Duration) {
        let ready =
            |machine: &Machine| machine.output(&["signerctl", "status"]).is_ok_and(|said| said.status.success());
        self.machine.wait(patience, "it calls itself ready", ready).unwrap();
    }

    /// Waits until it signs, and returns how long that took.
    #[track_caller]
    pub(crate) fn signs_within(&self, patience: Duration) -> Duration {
        self.machine.wait(patience, "it signs", |_| self.would_sign()).unwrap()
    }
}

/// The package of this version (`now`) or of the one before it (`before`): `cargo xtask test` builds them.
pub(crate) fn package(which: &str) -> PathBuf {
    let dir = std::env::var_os("SIGNER_PACKAGES").map(|dir| Path::new(&dir).join(which));
    let files = dir.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten().map(|entry| entry.path());
    let mut packages = files.filter(|path| path.extension().is_some_and(|end| end == "deb"));
    packages.next().expect("SIGNER_PACKAGES has the packages; cargo xtask test appliance builds them")
}

pub(crate) const PIN: &str = "471100-user-pin";
pub(crate) const IDENTITY: &str = "/var/lib/stellaops-signer/identity-acme.jwt";

/// As docs/install.md shows it, for this site.
const ANSWERS: &str = r#"
profile = "softhsm2"

[token]
label = "signer"
initialise = true
pin_file = "/srv/site/pin"
so_pin_file = "/srv/site/so-pin"
seal = "host"

[key]
name = "acme-1"
generate = true

[tenant]
id = "acme"
keyless = { identity = "acme", san = "@SAN@" }

[config.server]
public_url = "https://localhost:8443"

[config.server.tls]
certificate = "/srv/site/server.crt"
private_key = "/srv/site/server.key"
client_ca = "/srv/site/client-ca.pem"
client_crl = ["/srv/site/client.crl"]

[config.authority]
issuer = "@ISSUER@"
jwks = { discovery = "@DISCOVERY@" }
ca = "/srv/site/server-ca.pem"

[config.licensing.offline]
issuer = "@LICENSING@"
keys = "/srv/site/licensing-keys.json"
revocation_list = "/srv/site/revocations.jwt"

[config.licensing.online]
introspection_url = "@INTROSPECTION@"
ca = "/srv/site/server-ca.pem"
certificate = "/srv/site/licensing.crt"
private_key = "/srv/site/licensing.key"

[config.plans.pro]
qps = 10000
concurrency = 256
max_artifact_bytes = "32 MiB"

[[config.release.trusted]]
digest = "@SCANNER@"
signed_by = "release@stella-ops.test"
reason = "the scanner of this test"

[config.keyless]
fulcio_url = "@FULCIO@"
ca = "/srv/site/server-ca.pem"
trusted_root = "/srv/site/trusted_root.json"

[config.keyless.identity.acme]
source = { file = "/var/lib/stellaops-signer/identity-acme.jwt" }
issuer = "@ISSUER@"
"#;

const TEST_CALL: &str = r#"
[test]
ca = "/srv/site/server-ca.pem"
cert = "/srv/site/acme.crt"
key = "/srv/site/acme.key"
token_file = "/srv/site/optok.jwt"
poe_file = "/srv/site/poe.jwt"
dpop_key = "/srv/site/dpop.pem"
scanner_digest = "@SCANNER@"
"#;
