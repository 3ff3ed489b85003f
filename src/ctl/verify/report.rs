//! What is told of an envelope that passed: every check by name, and what was not checked.

use std::path::Path;

use serde_json::{Value, json};

use super::evidence::Brought;
use super::form::{Form, Found};
use super::{Demands, Signer, Verified, subjects_to_json};
use crate::ctl::output::{Report, plain};
use crate::dsse::PAYLOAD_TYPE;
use crate::sigstore::verify::TimeSource;

impl Verified<'_> {
    /// Names each check that was made.
    pub(super) fn tell(&mut self, found: &Found<'_>, demands: &Demands, brought: &Brought) {
        let mut checked = vec![("payload type", PAYLOAD_TYPE.to_owned())];
        if let Some(key) = self.key {
            checked.push(("keyid", format!("{}, computed from the key", key.key.keyid())));
            if found.material.is_some() {
                checked.push(("hint", "the bundle's publicKey.hint equals the keyid".to_owned()));
            }
            if brought.leaf().is_some() {
                checked.push(("certificate", "the one that came along is for this key".to_owned()));
            }
        }
        for stamp in &self.proven.timestamps {
            checked.push(("timestamp", format!("{} by {}", stamp.time.rfc3339(), plain(&stamp.authority))));
        }
        if let Some(certificate) = &self.proven.certificate {
            let window = format!("{} to {}", certificate.not_before.rfc3339(), certificate.not_after.rfc3339());
            checked.push(("certificate", format!("of a pinned Fulcio, code signing alone, valid {window}")));
            checked.push(("validity", self.validity()));
            checked.push(("identity", plain(certificate.san.value())));
            checked.push(("oidc issuer", plain(&certificate.issuer)));
            for sct in &self.proven.scts {
                let log: String = crate::hex::hex(&sct.log_id[..8]);
                checked.push(("sct", format!("by the pinned CT log {log}…, {}", sct.time.rfc3339())));
            }
        }
        checked.push(("signature", "ECDSA P-256 with SHA-256 over the PAE".to_owned()));
        checked.push(("statement", "in-toto Statement v1".to_owned()));
        if demands.predicate_type.is_some() {
            checked.push(("type", plain(&self.proven.statement.predicate_type)));
        }
        for matched in &self.matched {
            checked.push(("subject", matched.clone()));
        }
        if matches!(&demands.signer, Signer::Identity(_, policy) if policy.required == 0) && self.proven.scts.is_empty()
        {
            self.unchecked.push("the promise of a CT log, because of --insecure-ignore-sct");
        }
        if self.proven.foreign_timestamps > 0 {
            self.unchecked.push("timestamps of authorities that the trusted root does not have");
        }
        if matches!(self.proven.time, TimeSource::Asserted(_)) {
            self.unchecked.push("that it was signed at the time of --at: nothing proves it");
        }
        self.checked = checked;
    }

    fn validity(&self) -> String {
        match self.proven.time {
            TimeSource::None => String::new(),
            TimeSource::Timestamp(at) => format!("when it was stamped, {}", at.rfc3339()),
            TimeSource::Asserted(at) => format!("at {}, as --at says; NOT PROVEN", at.rfc3339()),
            TimeSource::Clock(at) => format!("at this moment, {}; without a timestamp not for long", at.rfc3339()),
        }
    }

    fn time(&self) -> Value {
        match self.proven.time {
            TimeSource::None => Value::Null,
            TimeSource::Timestamp(at) => json!({ "at": at.rfc3339(), "source": "timestamp", "proven": true }),
            TimeSource::Asserted(at) => json!({ "at": at.rfc3339(), "source": "asserted", "proven": false }),
            TimeSource::Clock(at) => json!({ "at": at.rfc3339(), "source": "clock", "proven": true }),
        }
    }

    pub(super) fn report(&self, file: &Path) -> Report {
        let state = self.key.and_then(|key| key.text("state")).map(plain);
        let keyid = match (&self.key, &self.proven.certificate) {
            (Some(key), _) => key.key.keyid(),
            (None, Some(certificate)) => certificate.public_key.keyid(),
            (None, None) => "",
        };
        let form = match self.form {
            Form::Envelope => "envelope",
            Form::Answer => "answer",
            Form::Sigstore => "sigstore",
        };
        let statement = &self.proven.statement;
        let mut text = format!("verified {}\n", plain(&file.display().to_string()));
        let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<11} {value}\n"));
        match (&state, &self.proven.certificate) {
            (Some(state), _) => line("key", &format!("{keyid} ({state})")),
            (None, None) => line("key", keyid),
            (None, Some(certificate)) => {
                line("identity", &plain(certificate.san.value()));
                line("issuer", &plain(&certificate.issuer));
            }
        }
        line("type", &plain(&statement.predicate_type));
        for subject in &statement.subjects {
            let name = subject.name.as_deref().unwrap_or("(no name)");
            let digests: Vec<String> =
                subject.digest.iter().map(|(algorithm, hex)| format!("{}:{hex}", plain(algorithm))).collect();
            line("subject", &format!("{} {}", plain(name), digests.join(" ")));
        }
        for matched in &self.matched {
            line("compared", matched);
        }
        for (check, detail) in &self.checked {
            line("checked", &format!("{check}: {detail}"));
        }
        for unchecked in &self.unchecked {
            line("not checked", unchecked);
        }
        let check = |(check, detail): &(&str, String)| json!({ "check": check, "detail": detail });
        let mut json = json!({
            "verified": true,
            "form": form,
            "keyid": keyid,
            "keyState": state,
            "payloadType": PAYLOAD_TYPE,
            "predicateType": statement.predicate_type,
            "subject": subjects_to_json(&statement.subjects),
            "payloadSha256": crate::hex::hex(&self.payload_sha256),
            "compared": self.matched,
            "checks": self.checked.iter().map(check).collect::<Value>(),
            "notChecked": self.unchecked,
        });
        if let Some(certificate) = &self.proven.certificate {
            json["certificate"] = json!({
                "identity": certificate.san.value(),
                "issuer": certificate.issuer,
                "notBefore": certificate.not_before.rfc3339(),
                "notAfter": certificate.not_after.rfc3339(),
            });
            json["time"] = self.time();
        }
        json["timestamps"] = (self.proven.timestamps.iter())
            .map(|stamp| json!({ "at": stamp.time.rfc3339(), "authority": stamp.authority }))
            .collect();
        Report::new(text, json)
    }
}
