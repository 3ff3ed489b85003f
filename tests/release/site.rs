//! A real registry with TLS and a password, images in it, and what is attached to them.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use stellaops_signer::config::Repository;
use testkit::pki::Pki;
use testkit::registry::{Distribution, GoRegistry, INDEX, MANIFEST, USER, Zot, manifest};
use testkit::{hex, sha256, shell};

use crate::stage;

/// The registry, and a directory for whoever signs.
pub(crate) struct Site {
    /// `localhost:PORT`.
    pub(crate) host: String,
    pub(crate) password: String,
    pub(crate) pki: Pki,
    pub(crate) dir: PathBuf,
    _registry: Box<dyn Any>,
}

/// A registry that runs: where, its password, and what ends it when dropped.
pub(crate) struct Running(String, String, Box<dyn Any>);

/// An image in the registry.
pub(crate) struct Image {
    /// `sha256:…`.
    pub(crate) digest: String,
    /// Bytes of its manifest.
    pub(crate) size: usize,
}

pub(crate) fn zot(pki: &Pki, dir: &Path) -> Running {
    let zot = Zot::start(pki, dir).unwrap();
    Running(zot.host(), zot.password().to_owned(), Box::new(zot))
}

pub(crate) fn distribution(pki: &Pki, dir: &Path) -> Running {
    let distribution = Distribution::start(pki, dir).unwrap();
    Running(distribution.host(), distribution.password().to_owned(), Box::new(distribution))
}

pub(crate) fn go_registry(pki: &Pki, _: &Path) -> Running {
    let registry = GoRegistry::start(pki).unwrap();
    Running(registry.host(), registry.password().to_owned(), Box::new(registry))
}

impl Site {
    pub(crate) fn start(dir: &Path, registry: fn(&Pki, &Path) -> Running) -> Self {
        let pki = Pki::generate(&dir.join("pki")).unwrap();
        let Running(host, password, _registry) = registry(&pki, dir);
        let site = Self { host, password, pki, dir: dir.to_owned(), _registry };
        shell::write_private(&site.file("credentials"), format!("{USER}:{}\n", site.password).as_bytes()).unwrap();
        site
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// As `[[release.repository]]` has it.
    pub(crate) fn repository(&self) -> Repository {
        Repository {
            ca: Some(self.pki.server_ca.certificate.clone()),
            credentials: Some(self.file("credentials")),
            ..stage::repository(&format!("https://{}/team/scanner", self.host))
        }
    }

    /// A new image in the registry.
    pub(crate) fn push(&self) -> Image {
        let layer = testkit::random_id();
        let (config, layer) = ((self.blob(b"{}"), 2), (self.blob(layer.as_bytes()), layer.len()));
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.0, "size": config.1 },
            "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.0, "size": layer.1 }],
        });
        let manifest = manifest.to_string();
        Image { digest: self.manifest(None, MANIFEST, &manifest), size: manifest.len() }
    }

    /// Attaches one blob to an image, by the API and, as clients do where there is none, by the tag that stands in for it.
    pub(crate) fn attach(&self, image: &Image, artifact_type: &str, media_type: &str, content: &[u8]) {
        self.blob(b"{}");
        let digest = self.blob(content);
        // As notation does for registries that know no artifact types: by the type of the config.
        let mut text: Value = manifest(artifact_type, Some(&image.digest), &[]);
        text.as_object_mut().unwrap().remove("artifactType");
        text["config"]["mediaType"] = artifact_type.into();
        text["layers"] = json!([{ "mediaType": media_type, "digest": digest, "size": content.len() }]);
        text["subject"]["size"] = image.size.into();
        let text = text.to_string();
        let signature = self.manifest(None, MANIFEST, &text);
        let entry = json!({
            "mediaType": MANIFEST, "digest": signature, "size": text.len(), "artifactType": artifact_type,
        });
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
        self.manifest(Some(&image.digest.replace(':', "-")), INDEX, &index.to_string());
    }

    /// Puts a manifest there, under a tag or its digest; returns the digest.
    fn manifest(&self, tag: Option<&str>, media_type: &str, text: &str) -> String {
        let digest = format!("sha256:{}", hex(sha256(text)));
        let kind = format!("content-type: {media_type}");
        let url = self.url(&format!("manifests/{}", tag.unwrap_or(&digest)));
        self.curl(&["-X", "PUT", "--data-binary", text, "-H", &kind, &url]);
        digest
    }

    fn blob(&self, bytes: &[u8]) -> String {
        let digest = format!("sha256:{}", hex(sha256(bytes)));
        std::fs::write(self.file("blob"), bytes).unwrap();
        let begun = self.curl(&["-X", "POST", "-D", "-", &self.url("blobs/uploads/")]);
        let head = String::from_utf8(begun).unwrap();
        let location = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
        });
        let location = location.unwrap_or_else(|| panic!("no upload was begun: {head}"));
        let location = if location.starts_with('/') { format!("https://{}{location}", self.host) } else { location };
        let separator = if location.contains('?') { '&' } else { '?' };
        let data = format!("@{}", self.file("blob").display());
        let kind = "content-type: application/octet-stream";
        let url = format!("{location}{separator}digest={digest}");
        self.curl(&["-X", "PUT", "--data-binary", &data, "-H", kind, &url]);
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
}

/// Runs a client, which must succeed.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
