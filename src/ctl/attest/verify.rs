//! A custody report judged offline: one verdict a line.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::shown;
use crate::config::Span;
use crate::ctl::error::{CtlError, Exit};
use crate::ctl::files;
use crate::ctl::output::{Report, plain};
use crate::ctl::verify::key::KeySource;
use crate::ctl::verify::{Fault, form, named_key, sole_signature};
use crate::custody::evidence::KeyCustody;
use crate::custody::evidence::attestation::{self, Subject};
use crate::custody::evidence::report::{CustodyReport, PREDICATE_TYPE, spki_sha256};
use crate::custody::{GateAttributes, KeyHealth, PublicKey};
use crate::dsse::{Signature, pae_digest, verify_digest};
use crate::statement::ReadStatement;

/// What the auditor pins.
#[derive(Default)]
pub(super) struct Demands {
    key: Option<PublicKey>,
    root: Option<CertificateDer<'static>>,
    max_age: Duration,
}

/// All verdicts on one report.
#[derive(Default)]
pub(super) struct Checked {
    lines: Vec<Line>,
}

struct Line {
    verdict: Verdict,
    check: String,
    detail: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Holds.
    Ok,
    /// Would not hold, were it not for a written exception of the operator.
    Exception,
    /// Was not or could not be checked.
    Note,
    /// Does not hold.
    Fail,
}

impl Demands {
    pub(super) fn read(key: Option<&Path>, root: Option<&Path>, max_age: Option<Span>) -> Result<Self, CtlError> {
        let key = key.map(|path| match KeySource::pem(path)? {
            KeySource::Pem(key) => {
                PublicKey::from_sec1(key.key.sec1()).map_err(|e| CtlError::content(path, e.to_string()))
            }
            KeySource::Set(_) => Err(CtlError::content(path, "is no PEM public key")),
        });
        let root = root.map(|path| {
            let pem = files::read(path, MAX_FILE_BYTES)?;
            CertificateDer::from_pem_slice(&pem).map_err(|_| CtlError::content(path, "holds no PEM certificate"))
        });
        Ok(Self { key: key.transpose()?, root: root.transpose()?, max_age: max_age.map_or(DEFAULT_MAX_AGE, Span::get) })
    }

    /// Of a report that was made just now.
    pub(super) fn fresh() -> Self {
        Self { max_age: DEFAULT_MAX_AGE, ..Self::default() }
    }
}

pub(super) fn run(file: &Path, demands: &Demands) -> Result<Report, CtlError> {
    let checked = check(&files::read(file, MAX_FILE_BYTES)?, demands)?;
    let holds = checked.first_fault().is_none();
    let mut text = String::new();
    for line in &checked.lines {
        text.push_str(&format!("{:<9}  {:<24}  {}\n", line.verdict.name(), plain(&line.check), plain(&line.detail)));
    }
    text.push_str(&format!("{}: the custody report {}\n", shown(file), if holds { "holds" } else { "DOES NOT HOLD" }));
    let mut report = Report::new(text, json!({ "verified": holds, "checks": checked.to_json() }));
    report.exit = if holds { Exit::Success } else { Exit::Failed };
    Ok(report)
}

/// Judges a report. A file that is no envelope is an error; what an envelope says and does not hold is a verdict.
pub(super) fn check(json: &[u8], demands: &Demands) -> Result<Checked, CtlError> {
    let fault = |fault: Fault| CtlError::Unexpected(format!("this is no custody report: {fault}"));
    let holder = form::read(json).map_err(fault)?;
    let found = holder.found().map_err(fault)?;
    let signature = sole_signature(&found).map_err(fault)?;
    let keyid = named_key(&found, signature).map_err(fault)?;
    let sig = form::decode(&signature.sig, "signature").map_err(fault)?;
    let payload = form::decode(&found.envelope.payload, "payload").map_err(fault)?;
    let statement = ReadStatement::parse(Bytes::from(payload.clone())).map_err(|e| fault(Fault::Statement(e)))?;
    if statement.predicate_type != PREDICATE_TYPE.uri {
        let found = statement.predicate_type;
        return Err(fault(Fault::Type { found, wanted: PREDICATE_TYPE.uri.to_owned() }));
    }
    let Payload { predicate: report } = serde_json::from_slice(&payload)
        .map_err(|error| CtlError::Unexpected(format!("this is no custody report: {error}")))?;

    let mut checked = Checked::default();
    let own = report.key.point();
    let Some(key) = demands.key.or(own) else {
        checked.fail("key", "the report names no P-256 public key, and none was given with --public-key");
        return Ok(checked);
    };
    let digest = pae_digest(&found.envelope.payload_type, &payload);
    let signed = key.verifier().is_ok_and(|key| {
        Signature::from_der(&sig).is_ok_and(|signature| verify_digest(&key, &digest, &signature).is_ok())
    });
    checked.expect(signed, "signature", "by the key itself", "not by this key over these bytes");
    match demands.key {
        Some(pinned) => checked.expect(
            own == Some(pinned),
            "key",
            &key.keyid(),
            "the report is about another key than --public-key",
        ),
        None => checked.note("key", &format!("{} is the report's own word; --public-key pins it", key.keyid())),
    }
    checked.expect(
        keyid == key.keyid() && report.key.keyid == key.keyid(),
        "keyid",
        &key.keyid(),
        "not the fingerprint of the key",
    );
    checked.subject(&statement, &report, &key);
    checked.age(&report, demands.max_age);
    if report.custody.is_empty() {
        checked.fail("tokens", "the report names no token");
    }
    for custody in &report.custody {
        checked.token(custody, &report, &key, demands);
    }
    Ok(checked)
}

impl Checked {
    pub(super) fn first_fault(&self) -> Option<String> {
        let fault = self.lines.iter().find(|line| line.verdict == Verdict::Fail)?;
        Some(format!("{}: {}", plain(&fault.check), plain(&fault.detail)))
    }

    pub(super) fn to_json(&self) -> Value {
        let line = |line: &Line| json!({ "check": line.check, "verdict": line.verdict.name(), "detail": line.detail });
        self.lines.iter().map(line).collect()
    }

    fn add(&mut self, verdict: Verdict, check: &str, detail: &str) {
        self.lines.push(Line { verdict, check: check.to_owned(), detail: detail.to_owned() });
    }

    fn fail(&mut self, check: &str, detail: &str) {
        self.add(Verdict::Fail, check, detail);
    }

    fn note(&mut self, check: &str, detail: &str) {
        self.add(Verdict::Note, check, detail);
    }

    fn expect(&mut self, holds: bool, check: &str, good: &str, bad: &str) {
        self.add(if holds { Verdict::Ok } else { Verdict::Fail }, check, if holds { good } else { bad });
    }

    /// The statement is about the key that signed it, and about nothing else.
    fn subject(&mut self, statement: &ReadStatement, report: &CustodyReport, key: &PublicKey) {
        let digest = spki_sha256(&key.spki());
        let is_key = match statement.subjects.as_slice() {
            [subject] => {
                subject.name.as_deref() == Some(&*report.key.name)
                    && subject.digest.iter().any(|(name, hex)| **name == *"sha256" && **hex == *digest)
            }
            _ => false,
        };
        self.expect(
            is_key,
            "subject",
            &format!("{} sha256:{digest}", report.key.name),
            "the subject is not the key that signed",
        );
    }

    fn age(&mut self, report: &CustodyReport, max: Duration) {
        let age = Timestamp::now().duration_since(report.generated_at);
        let made = report.generated_at;
        match Duration::try_from(age) {
            Ok(age) if age <= max => self.add(Verdict::Ok, "age", &format!("made {made:.0}")),
            Ok(_) => {
                self.fail("age", &format!("made {made:.0}, more than {max:?} ago; fetch a new one, or say --max-age"));
            }
            Err(_) if age.unsigned_abs() <= CLOCK_SKEW => self.add(Verdict::Ok, "age", &format!("made {made:.0}")),
            Err(_) => self.fail("age", &format!("made {made:.0}, which is in the future; check the clocks")),
        }
    }

    fn token(&mut self, custody: &KeyCustody, report: &CustodyReport, key: &PublicKey, demands: &Demands) {
        let of = |check: &str| format!("{} {check}", custody.token);
        match &custody.device {
            Some(device) => {
                let model = format!("{} {}", device.manufacturer, device.model);
                self.note(
                    &of("device"),
                    &format!("{model}, serial {}, firmware {}, label {}", device.serial, device.firmware, device.label),
                );
            }
            None => self.fail(&of("device"), "the appliance has not seen the key there"),
        }
        if let Some(attributes) = custody.attributes {
            let excepted: GateAttributes = report.exceptions.iter().map(|exception| exception.attribute).collect();
            match attributes.objection_with(excepted) {
                Some(objection) => self.fail(&of("attributes"), &objection),
                None => self.add(Verdict::Ok, &of("attributes"), attributes.summary()),
            }
            for exception in &report.exceptions {
                if attributes.failing().contains(exception.attribute) {
                    let (name, fault) = (exception.attribute.name(), exception.attribute.fault());
                    self.add(
                        Verdict::Exception,
                        &of("attributes"),
                        &format!("{name}: {fault}; the operator says: {}", exception.reason),
                    );
                }
            }
        } else if custody.device.is_some() {
            self.fail(&of("attributes"), "none: the report does not say what the device says of the key");
        }
        self.times(custody, report, demands);
        self.attestation(custody, report, key, demands);
        let verdict = if custody.state == KeyHealth::Live { Verdict::Ok } else { Verdict::Note };
        self.add(verdict, &of("state"), custody.state.name());
    }

    /// Evidence that was read from the device long before the report was made says nothing about it then.
    fn times(&mut self, custody: &KeyCustody, report: &CustodyReport, demands: &Demands) {
        let check = format!("{} times", custody.token);
        let Some(checked) = custody.checked_at else {
            if custody.device.is_some() {
                self.fail(&check, "the report does not say when the device was read");
            }
            return;
        };
        let tested = custody.tested_at.map_or("no test signature".to_owned(), |at| format!("test signature {at:.0}"));
        let said = format!("read from the device {checked:.0}, {tested}");
        let before = report.generated_at.duration_since(checked);
        match Duration::try_from(before) {
            Ok(before) if before > demands.max_age => {
                self.fail(&check, &format!("{said}: more than {:?} before the report was made", demands.max_age));
            }
            Err(_) if before.unsigned_abs() > CLOCK_SKEW => {
                self.fail(&check, &format!("{said}: after the report was made"));
            }
            _ => self.note(&check, &said),
        }
    }

    fn attestation(&mut self, custody: &KeyCustody, report: &CustodyReport, key: &PublicKey, demands: &Demands) {
        let check = format!("{} attestation", custody.token);
        let chain: Result<Vec<Vec<u8>>, _> =
            custody.attestation.iter().map(|text| BASE64_STANDARD.decode(text)).collect();
        match (chain, &demands.root) {
            (Err(_), _) => self.fail(&check, "a certificate is not base64"),
            (Ok(chain), None) if chain.is_empty() => {
                self.note(&check, "none: attributes are the appliance's word alone");
            }
            (Ok(chain), Some(_)) if chain.is_empty() => self.fail(&check, "none, and --attestation-root demands one"),
            (Ok(chain), None) => {
                self.note(
                    &check,
                    &format!("{} certificates, not checked; --attestation-root pins the vendor", chain.len()),
                );
            }
            (Ok(chain), Some(root)) => {
                let serial = custody.device.as_ref().map(|device| device.serial.as_str());
                let subject = Subject { key, serial, object: None };
                match attestation::check(&chain, &subject, root, report.generated_at) {
                    Ok(()) => self.add(Verdict::Ok, &check, "the device vouches for the key, up to the pinned root"),
                    Err(error) => self.fail(&check, &error.to_string()),
                }
            }
        }
    }
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Exception => "exception",
            Self::Note => "note",
            Self::Fail => "FAIL",
        }
    }
}

#[derive(Deserialize)]
struct Payload {
    predicate: CustodyReport,
}

const DEFAULT_MAX_AGE: Duration = Duration::from_secs(24 * 3600);
const CLOCK_SKEW: Duration = Duration::from_secs(300);
const MAX_FILE_BYTES: u64 = 1024 * 1024;
