//! `--keep`: how to call what is left running.

#![forbid(unsafe_code)]

use std::fs;

use testkit::{Context, Result, runtime, sample};
use xtask::ui;

use crate::stage::Stage;

/// Prints commands that work now, and waits for Ctrl-C.
pub(crate) fn until_interrupted(stage: &Stage) -> Result<()> {
    let fixture = &stage.fixture;
    let client = fixture.client().bound_by_certificate();
    let request = client.sign(&sample::request()).body_bytes();
    fs::write(stage.output.join("request.json"), request).context("write request.json")?;

    let (pki, signerctl) = (&fixture.pki, &stage.signerctl);
    ui::heading("it is running; call it from another terminal");
    println!("cd {}\n", stage.output.display());
    println!("# sign with signerctl, and list the keys");
    println!(
        "{signerctl} sign sbom.cdx.json --type sbom --subject-file pub.pem --profile dpop.toml --output - --force"
    );
    println!("{signerctl} keys list --profile dpop.toml");
    println!("{signerctl} status --local {}\n", fixture.appliance.local_addr());
    println!("# sign with curl: a token bound to the client certificate, then the request");
    println!("PKI={}", pki.dir.display());
    println!(
        "curl() {{ command curl -s --cacert $PKI/server-ca.pem --cert $PKI/acme-ci.pem --key $PKI/acme-ci.key \"$@\"; }}"
    );
    println!(
        "TOKEN=$(curl {} -d grant_type=client_credentials -d client_id=acme-ci -d scope=signer.sign \\\n    \
         | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')",
        fixture.authority.token_url()
    );
    println!(
        "curl {}/api/v1/signer/sign/dsse -H \"Authorization: Bearer $TOKEN\" \\\n    \
         -H 'Content-Type: application/json' -d @request.json\n",
        fixture.appliance.url()
    );
    println!("# operate");
    println!("command curl -s http://{}/readyz", fixture.appliance.local_addr());
    println!("command curl -s http://{}/metrics", fixture.appliance.local_addr());
    println!("tail -f {}\n", fixture.appliance.settings.get("audit.path").and_then(|p| p.as_str()).unwrap_or_default());
    println!("{}", ui::bold("Ctrl-C stops everything."));
    runtime().block_on(tokio::signal::ctrl_c()).context("wait for Ctrl-C")
}
