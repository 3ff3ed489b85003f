//! The token: is it there, may its PIN be tried, does it do what the configuration asks of it.

use super::Patient;
use crate::custody::admin::Probe;

pub(super) fn look(patient: &mut Patient<'_>, probe: &Probe) {
    if let Some(failure) = &probe.token_failure {
        let remedy = match failure.code.as_str() {
            "token_absent" => {
                "write the label or serial of a token that is present, or initialise one: signerctl token init"
            }
            "several_tokens" => "add `serial` to the URI; `signerctl token list` shows it",
            _ => "see whether the device is switched on, connected and reachable",
        };
        let field = if patient.token.connector.is_some() { "connector" } else { "uri" };
        return patient.problem("token", field, failure.message.as_str(), remedy);
    }
    let Some((slot, token)) = probe.token.as_ref().and_then(|slot| Some((slot, slot.token.as_ref()?))) else { return };
    let (label, serial) = (&token.label, &token.serial);
    let about = format!("`{label}` in slot {}: serial {serial}, {} {}", slot.id, token.manufacturer, token.model);
    patient.ok("token", about);
    match &token.pin_objection {
        Some(objection) => patient.problem("PIN state", "pin_file", objection.as_str(), PIN_REMEDY),
        None => {
            let seen = token.flags.iter().filter(|flag| flag.contains("user PIN")).cloned().collect::<Vec<_>>();
            patient.ok(
                "PIN state",
                if seen.is_empty() { "no wrong PIN since the last good one".to_owned() } else { seen.join(", ") },
            );
        }
    }
    match &probe.login_failure {
        Some(failure) => patient.problem(
            "login",
            "pin_file",
            failure.message.as_str(),
            failure.remedy.as_deref().unwrap_or("write the right PIN into the file, once you are sure of it"),
        ),
        None if probe.logged_in => patient.ok("login", "the token takes the PIN"),
        None => patient.skipped("login", "the PIN was not tried; --login tries it once"),
    }
    let sessions =
        patient.loaded.written(&["tokens", patient.name, "sessions"]).and_then(|text| text.parse::<u64>().ok());
    match (sessions, token.max_sessions) {
        (Some(wanted), Some(most)) if wanted > most => {
            let detail = format!("{wanted} sessions are configured, the token has {most}");
            patient.problem("sessions", "sessions", detail, format!("write at most {most}"));
        }
        (_, Some(most)) => patient.ok("sessions", format!("the token has {most}")),
        (_, None) => patient.ok("sessions", "the token sets no limit"),
    }
    match token.ecdsa_bits {
        Some((least, most)) if least <= 256 && 256 <= most => {
            patient.ok("CKM_ECDSA", format!("curves of {least} to {most} bits"));
        }
        Some((least, most)) => {
            let detail = format!("the token signs with curves of {least} to {most} bits, not with P-256");
            patient.problem("CKM_ECDSA", "uri", detail, "name a token that does");
        }
        None => patient.problem(
            "CKM_ECDSA",
            "uri",
            "the token does not offer CKM_ECDSA for signing",
            "switch it on in the device's policy, or name a token that has it",
        ),
    }
}

const PIN_REMEDY: &str =
    "mend this with the vendor's tool before a worker is started; the worker does not try a PIN in this state";
