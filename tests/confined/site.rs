//! An installation in a guest, and the services and clients around it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use testkit::authority::{Authority, identity};
use testkit::client::{Client, Endpoint};
use testkit::guest::{Guest, Lsm};
use testkit::hostile_fulcio::HostileFulcio;
use testkit::keyless::LONG;
use testkit::licensing::{self, Licensing};
use testkit::machine::network;
use testkit::pki::Pki;
use testkit::sample;
use testkit::trusted_root::TrustedRoot;

/// One installation; it is gone when dropped.
pub(crate) struct Site {
    pub(crate) guest: Guest,
    pki: Pki,
    authority: Arc<Authority>,
    licensing: Arc<Licensing>,
    fulcio: HostileFulcio,
    dir: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Site {
    /// A guest with what an operator brings along, and without the package.
    pub(crate) fn bare(lsm: Lsm) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // Before anything is started, which then is in it, too.
        network().unwrap();
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("confined");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let pki = Pki::generate(&dir.join("pki")).unwrap();
        let authority = Arc::new(Authority::start(&pki).unwrap());
        let licensing = Arc::new(Licensing::start(&pki, &dir).unwrap());
        let fulcio = HostileFulcio::start(&pki).unwrap();
        let guest = Guest::boot("SIGNER_PEER_GUEST", lsm).unwrap();
        let site = Self { guest, pki, authority, licensing, fulcio, dir, _turn: turn };
        site.bring();
        site
    }

    /// Installs the package.
    pub(crate) fn install(&self) {
        let folder = PathBuf::from(std::env::var_os("SIGNER_PACKAGES").unwrap()).join("now");
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let package = files.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb")).unwrap();
        self.guest.put("/root/signer.deb", fs::read(package).unwrap(), 0o644).unwrap();
        self.guest.sh("dpkg --install /root/signer.deb").unwrap();
    }

    /// The operator's files, and the file of answers.
    fn bring(&self) {
        let Self { pki, authority, licensing, fulcio, dir, .. } = self;
        let root = dir.join("trusted_root.json");
        TrustedRoot::new().certificate_authority(&fulcio.ca.chain()).ct_log(&fulcio.log).write(&root).unwrap();
        for (name, from, mode) in [
            ("server.crt", pki.server.certificate(), 0o644),
            ("server.key", pki.server.private_key(), 0o600),
            ("client-ca.pem", &pki.client_ca.certificate, 0o644),
            ("server-ca.pem", &pki.server_ca.certificate, 0o644),
            ("licensing-keys.json", &licensing.keys_file, 0o644),
            ("revocations.jwt", &licensing.revocation_file, 0o644),
            ("trusted_root.json", &root, 0o644),
        ] {
            self.guest.put(&format!("/srv/site/{name}"), fs::read(from).unwrap(), mode).unwrap();
        }
        self.guest.forward(&authority.issuer()).unwrap();
        self.guest.forward(&fulcio.url()).unwrap();
        self.guest.put("/srv/site/pin", PIN, 0o400).unwrap();
        self.guest.put("/srv/site/so-pin", "081500-officer-pin", 0o400).unwrap();
        let answers = ANSWERS
            .replace("@ISSUER@", &authority.issuer())
            .replace("@DISCOVERY@", &authority.discovery_url())
            .replace("@LICENSING@", licensing::ISSUER)
            .replace("@SCANNER@", sample::SCANNER_IMAGE)
            .replace("@FULCIO@", &fulcio.url())
            .replace("@SAN@", &identity("acme"));
        self.guest.put("/srv/site/answers.toml", answers, 0o600).unwrap();
    }

    /// `signerctl init`, and the token of the keyless identity. Returns what was said.
    pub(crate) fn init(&self) -> String {
        let state = "/var/lib/stellaops-signer";
        let token = self.authority.mint_identity("acme").shift("exp", LONG).encode();
        self.guest.sh(&format!("install -d -o stellaops-signer -g stellaops-signer -m 0750 {state}")).unwrap();
        self.guest.put(&format!("{state}/identity-acme.jwt"), token, 0o600).unwrap();
        self.guest.sh(&format!("chown stellaops-signer: {state}/identity-acme.jwt")).unwrap();
        self.guest.sh("signerctl init --answers /srv/site/answers.toml").unwrap()
    }

    /// A client of tenant acme, on a connection of its own, outside of the guest.
    pub(crate) fn client(&self) -> Client {
        let endpoint = Endpoint {
            addr: ([127, 0, 0, 1], 8443).into(),
            url: "https://localhost:8443".to_owned(),
            roots: self.pki.server_roots(),
        };
        Client::new(endpoint, &self.pki.acme, "acme", self.authority.clone(), self.licensing.clone())
    }
}

pub(crate) const PIN: &str = "471100-user-pin";

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

[config.authority]
issuer = "@ISSUER@"
jwks = { discovery = "@DISCOVERY@" }
ca = "/srv/site/server-ca.pem"

[config.licensing.offline]
issuer = "@LICENSING@"
keys = "/srv/site/licensing-keys.json"
revocation_list = "/srv/site/revocations.jwt"

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
