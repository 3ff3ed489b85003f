//! Verifies a Sigstore bundle offline with the crate `sigstore-verify`, which knows nothing of the signer.
//!
//! usage: `sigstore-rs-peer --bundle FILE --trusted-root FILE --digest HEX (--key PEM | --identity SAN --issuer URL)`
//!
//! `--digest` is the SHA-256 of a subject. No transparency log is asked for; a signed timestamp is. Exits 0 when the
//! bundle holds, 1 with `refused: …` when it does not, 2 when it could not be tried.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::fs;
use std::process::ExitCode;

use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::types::{Bundle, DerPublicKey, Sha256Hash};
use sigstore_verify::{Policy, PublicKeyVerificationPolicy, VerificationPolicy, Verifier};

fn main() -> ExitCode {
    match run() {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(reason)) => {
            eprintln!("refused: {reason}");
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// The inner result is the verifier's own.
fn run() -> Result<Result<(), String>, Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let mut options: HashMap<&str, &str> = HashMap::new();
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return Err("each option has a value".into()) };
        options.insert(name, value);
    }
    let option = |name: &str| options.get(name).copied().ok_or(format!("{name} is missing"));
    let read = |name: &str| fs::read_to_string(option(name)?).map_err(|error| format!("{name}: {error}"));

    let verifier = Verifier::new(&TrustedRoot::from_json(&read("--trusted-root")?)?)?;
    let digest = Sha256Hash::from_hex(option("--digest")?)?;
    let policy: Box<dyn Policy> = if options.contains_key("--key") {
        Box::new(PublicKeyVerificationPolicy::new(DerPublicKey::from_pem(&read("--key")?)?).skip_tlog_unsafe())
    } else {
        Box::new(VerificationPolicy::new(option("--identity")?, option("--issuer")?).skip_tlog_unsafe())
    };
    // A bundle that cannot be read is refused as well: that is the verifier's judgement, not ours.
    let bundle = match Bundle::from_json(&read("--bundle")?) {
        Ok(bundle) => bundle,
        Err(error) => return Ok(Err(error.to_string())),
    };
    Ok(match verifier.verify(digest, &bundle, policy.as_ref()) {
        Ok(result) if result.verified_timestamps().is_empty() => Err("no verified timestamp".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    })
}
