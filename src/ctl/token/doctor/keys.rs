//! The configured keys: are they in the token, may they sign, are they the ones that are published.

use super::Patient;
use crate::config::{Key, KeyState};
use crate::ctl::keys::{import_cert, public_half};
use crate::custody::PublicKey;
use crate::custody::admin::{Probe, ProbedKey};

pub(super) fn look(patient: &mut Patient<'_>, probe: &Probe) {
    if probe.token.is_none() {
        return patient.skipped("keys", "not looked for: there is no token");
    }
    let keys: Vec<(String, Key)> =
        patient.keys().into_iter().map(|(name, key)| (name.to_owned(), key.clone())).collect();
    if keys.is_empty() {
        let remedy = format!("make one: signerctl keys generate NAME --token {}", patient.name);
        return patient.problem("keys", "", "the configuration has no key in this token", remedy);
    }
    for ((name, key), probed) in keys.iter().zip(&probe.keys) {
        held(patient, name, key, probed);
        gate(patient, name, probed);
        public_key(patient, name, key, probed);
        chain(patient, name, key);
    }
}

fn held(patient: &mut Patient<'_>, name: &str, key: &Key, probed: &ProbedKey) {
    const CHECK: &str = "key";
    match (&probed.failure, &probed.facts, &probed.public_key) {
        (Some(failure), ..) if key.state == KeyState::Retired && failure.code == "key_not_found" => {
            patient.ok(CHECK, format!("`{name}` is retired and no longer in the token"));
        }
        (Some(failure), ..) => {
            let remedy = match failure.code.as_str() {
                "key_not_found" => format!(
                    "write the `object` and `id` of a key that is there (signerctl token list {} --objects --login), or make one: signerctl keys generate",
                    patient.name
                ),
                "several_keys" => "write both `object` and `id`, so that one key is named".to_owned(),
                _ => failure.remedy.clone().unwrap_or_else(|| "name another key".to_owned()),
            };
            patient.problem_at(CHECK, &["keys", name, "uri"], format!("`{name}`: {}", failure.message), remedy);
        }
        (None, Some(facts), _) => {
            patient.ok(CHECK, format!("`{name}` is `{}`, id {}: {}", facts.label, facts.id, facts.keyid));
        }
        (None, None, Some(_)) => patient
            .ok(CHECK, format!("`{name}`: its public key is there; the private one is invisible without --login")),
        (None, None, None) => {
            patient.skipped(CHECK, format!("`{name}`: nothing is visible without --login"));
        }
    }
}

/// The custody gate: what the worker will refuse, and what an exception in the configuration lets pass.
fn gate(patient: &mut Patient<'_>, name: &str, probed: &ProbedKey) {
    const CHECK: &str = "key attributes";
    let Some(facts) = &probed.facts else { return };
    let exceptions: Vec<String> = (0..)
        .map_while(|i| patient.loaded.written(&["keys", name, "custody_exception", &format!("[{i}]"), "attribute"]))
        .collect();
    let excepted = |objection: &String| exceptions.iter().any(|name| objection.split(' ').next() == Some(name));
    let (excepted, left): (Vec<String>, Vec<String>) = facts.gate_objections().into_iter().partition(excepted);
    if !left.is_empty() {
        let remedy = "make a key with `signerctl keys generate` and rotate to it; a key that could leave the device \
                      proves nothing";
        patient.problem_at(CHECK, &["keys", name, "uri"], format!("`{name}`: {}", left.join(", ")), remedy);
    } else if excepted.is_empty() {
        patient.ok(CHECK, format!("`{name}` was made in the token and cannot leave it"));
    } else {
        patient.ok(CHECK, format!("`{name}`, by a written exception: {}", excepted.join(", ")));
    }
}

fn public_key(patient: &mut Patient<'_>, name: &str, key: &Key, probed: &ProbedKey) {
    const CHECK: &str = "public key";
    let field = if key.public_key.is_some() { "public_key" } else { "certificate_chain" };
    let pinned = match public_half::pinned(key) {
        Ok(Some(pinned)) => pinned,
        Ok(None) if key.state == KeyState::Retired => {
            let remedy = "write its public key to a file and name that as public_key";
            let detail = format!(
                "`{name}` is retired and pinned by nothing: its signatures verify only as long as the token has it"
            );
            return patient.problem_at(CHECK, &["keys", name], detail, remedy);
        }
        Ok(None) => return patient.skipped(CHECK, format!("`{name}` is not pinned; signerctl keys rotate does it")),
        Err(error) => {
            let remedy = "write the path of a PEM file with the key's public half (signerctl keys export --format pem)";
            return patient.problem_at(CHECK, &["keys", name, field], error.to_string(), remedy);
        }
    };
    let shown = probed.public_key.as_ref().and_then(|pem| PublicKey::from_pem(pem.as_bytes()).ok());
    match shown {
        Some(shown) if shown != pinned => {
            let detail = format!("`{name}` is pinned to {}, the token has {}", pinned.keyid(), shown.keyid());
            let remedy = "correct the `uri` if it names another key; if the key was replaced, give the new one a name of its own and rotate to it";
            patient.problem_at(CHECK, &["keys", name, field], detail, remedy);
        }
        Some(_) => patient.ok(CHECK, format!("`{name}` is the one that the configuration pins")),
        None => patient.skipped(CHECK, format!("`{name}`: the token shows none")),
    }
}

fn chain(patient: &mut Patient<'_>, name: &str, key: &Key) {
    const CHECK: &str = "certificate chain";
    let Some(file) = &key.certificate_chain else { return };
    let path = ["keys", name, "certificate_chain"];
    let remedy = format!("signerctl keys csr {name}, have it issued, signerctl keys import-cert {name} --chain FILE");
    match import_cert::check_file(file) {
        Err(why) => patient.problem_at(CHECK, &path, format!("{}: {why}", file.display()), remedy),
        Ok(certified) => match public_half::pinned(key) {
            Ok(Some(pinned)) if pinned != certified => {
                let detail = format!("it is for {}, `{name}` is {}", certified.keyid(), pinned.keyid());
                patient.problem_at(CHECK, &path, detail, remedy);
            }
            _ => patient.ok(CHECK, format!("`{name}`: in order, valid now, for {}", certified.keyid())),
        },
    }
}
