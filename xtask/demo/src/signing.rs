//! The SBOM is signed by `signerctl`, as a client would do it.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use testkit::authority::Binding;
use testkit::{Context, Result, sample, shell};
use xtask::ui;

use crate::stage::Stage;

/// With a token bound to a DPoP key.
pub(crate) fn by_dpop(stage: &Stage) -> Result<()> {
    ui::heading("sign this project's SBOM, token bound by DPoP (RFC 9449)");
    let key = stage.fixture.client().dpop_key().clone();
    let key_file = stage.fixture.dir().join("dpop.key");
    shell::write_private(&key_file, key.pkcs8_pem().as_bytes())?;
    let binding = format!("binding = \"dpop\"\ndpop_key = {:?}\n", key_file.display().to_string());
    sign(stage, "dpop", &binding, &Binding::Dpop(key.thumbprint()))
}

/// With a token bound to the client's certificate.
pub(crate) fn by_certificate(stage: &Stage) -> Result<()> {
    ui::heading("and again, token bound to the client certificate (RFC 8705)");
    let thumbprint = stage.fixture.pki.acme.thumbprint();
    sign(stage, "mtls", "binding = \"mtls\"\n", &Binding::Certificate(thumbprint))
}

fn sign(stage: &Stage, name: &str, binding: &str, bound: &Binding) -> Result<()> {
    let fixture = &stage.fixture;
    let poe = fixture.dir().join(format!("{name}.poe"));
    shell::write_private(&poe, fixture.licensing.poe("acme", bound).encode().as_bytes())?;
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    let profile = format!(
        "url = {:?}\nca = {}\ncert = {}\nkey = {}\nauthority = {:?}\nclient_id = \"acme-ci\"\nscope = \"signer.sign signer.read\"\n\
         {binding}poe_file = {}\n\
         scanner_digest = {:?}\n",
        fixture.appliance.url(),
        quoted(&fixture.pki.server_ca.certificate),
        quoted(fixture.pki.acme.certificate()),
        quoted(fixture.pki.acme.private_key()),
        fixture.authority.issuer(),
        quoted(&poe),
        sample::SCANNER_IMAGE,
    );
    let file = stage.output.join(format!("{name}.toml"));
    fs::write(&file, profile).context(format!("write {}", file.display()))?;
    let signerctl = &stage.signerctl;
    let signerd = signerctl.replace("signerctl", "signerd");
    stage.show(&format!(
        "{signerctl} sign sbom.cdx.json --type sbom --subject-file {signerd} \\\n    \
         --profile {name}.toml --output {name}.dsse.json --force"
    ))
}
