//! The signatures are verified by openssl, by commands that a reader can repeat.

#![forbid(unsafe_code)]

use testkit::Result;
use xtask::ui;

use crate::stage::Stage;

/// Takes the envelopes apart by shell commands and verifies the signature over the PAE.
pub(crate) fn by_openssl(stage: &Stage) -> Result<()> {
    ui::heading("verify by software that is not ours");
    ui::command(&format!("cd {}", stage.place()));
    for line in TAKE_APART.iter().chain(&VERIFY) {
        stage.show(line)?;
    }
    ui::note("the other envelope, in one go:");
    let both: Vec<String> =
        TAKE_APART.iter().chain(&VERIFY).map(|line| line.replace("dpop.dsse.json", "mtls.dsse.json")).collect();
    stage.show(&both.join(" &&\\\n    "))
}

// The envelope's members are found by sed, so that nothing has to be installed that understands JSON.
const TAKE_APART: [&str; 2] = [
    r#"sed -n 's/.*"payload": *"\([^"]*\)".*/\1/p' dpop.dsse.json | base64 -d > payload.json"#,
    r#"sed -n 's/.*"sig": *"\([^"]*\)".*/\1/p' dpop.dsse.json | base64 -d > sig.der"#,
];

const VERIFY: [&str; 2] = [
    r#"(printf 'DSSEv1 28 application/vnd.in-toto+json %s ' $(wc -c < payload.json); cat payload.json) > pae.bin"#,
    "openssl dgst -sha256 -verify pub.pem -signature sig.der pae.bin",
];
