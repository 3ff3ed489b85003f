//! `signerctl token doctor`: what keeps a token from signing, and which line of which file mends it.
//!
//! Each module looks at one thing and adds its findings, in the order in which a start of the worker would meet them.

mod access;
mod device;
mod directives;
mod finding;
mod keys;
mod module;
mod pin_file;
mod running;
mod sandbox;
mod socket;
mod yubihsm;

use std::path::Path;

use serde_json::json;

use self::access::User;
use self::finding::{Finding, State};
use super::child::{Admin, Ended, during};
use super::cli::TokenDoctorArgs;
use crate::config::{self, Loaded, Token};
use crate::ctl::error::{CtlError, Exit};
use crate::ctl::output::Report;
use crate::custody::admin::{Failure, Probe};

/// What is looked at, and what was found.
struct Patient<'a> {
    name: &'a str,
    token: &'a Token,
    loaded: &'a Loaded,
    findings: Vec<Finding>,
}

pub(crate) fn run(args: &TokenDoctorArgs) -> Result<Report, CtlError> {
    let loaded = config::open(&args.reach.config).map_err(CtlError::Config)?;
    let token = loaded.config.token(&args.name).map_err(|error| CtlError::Usage(error.to_string()))?;
    let mut patient = Patient { name: &args.name, token, loaded: &loaded, findings: Vec::new() };
    let files = loaded.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
    patient.ok("configuration", format!("{files} is valid"));
    let front = patient.user("front user", "front_user", &token.front_user);
    let worker = patient.user("worker user", "worker_user", &token.worker_user);
    let yubihsm = token.connector.is_some();
    let loadable = if yubihsm { yubihsm::look(&mut patient) } else { module::look(&mut patient, worker.as_ref()) };
    pin_file::look(&mut patient, worker.as_ref());
    socket::look(&mut patient, front.as_ref(), worker.as_ref());
    if loadable {
        let probe = if args.in_unit {
            let keys: Vec<String> = patient.keys().iter().map(|(_, key)| patient.uri_of(key)).collect();
            let name = patient.name;
            sandbox::look(&mut patient, args.patience, args.login, &|login| probing(args, login, name, &keys))?
        } else {
            patient.probe(args)?
        };
        if let Some(probe) = probe {
            device::look(&mut patient, &probe);
            yubihsm::concerns(&mut patient, &probe);
            keys::look(&mut patient, &probe);
        }
    } else {
        patient.skipped("module", "not loaded: its file is not as it should be");
    }
    running::look(&mut patient);
    Ok(patient.report())
}

impl Patient<'_> {
    fn ok(&mut self, check: &'static str, detail: impl Into<String>) {
        self.findings.push(Finding::new(check, State::Ok, detail));
    }

    /// Could not be looked at from here.
    fn skipped(&mut self, check: &'static str, detail: impl Into<String>) {
        self.findings.push(Finding::new(check, State::Skipped, detail));
    }

    /// `field` of the token's section is where it is mended.
    fn problem(&mut self, check: &'static str, field: &str, detail: impl Into<String>, remedy: impl Into<String>) {
        let path = ["tokens", self.name, field];
        let path = if field.is_empty() { &path[..2] } else { &path[..] };
        self.problem_at(check, path, detail, remedy);
    }

    fn problem_at(&mut self, check: &'static str, path: &[&str], detail: impl Into<String>, remedy: impl Into<String>) {
        let mut finding = Finding::new(check, State::Problem, detail);
        finding.remedy = Some(remedy.into());
        finding.place = Some((self.loaded.origin(path), path.join(".")));
        self.findings.push(finding);
    }

    fn user(&mut self, check: &'static str, field: &str, name: &str) -> Option<User> {
        let user = User::find(name);
        match &user {
            Some(_) => self.ok(check, name),
            None => self.problem(
                check,
                field,
                format!("there is no user `{name}` on this machine"),
                format!("write a user's name or number, or create it: useradd --system {name}"),
            ),
        }
        user
    }

    /// Loads the module in a process of its own; a module that crashes or hangs takes down that alone.
    fn probe(&mut self, args: &TokenDoctorArgs) -> Result<Option<Probe>, CtlError> {
        let keys: Vec<String> = self.keys().iter().map(|(_, key)| self.uri_of(key)).collect();
        let admin = probing(args, args.login, self.name, &keys)?;
        let vendor = "ask the device's vendor; the worker would fare the same";
        let yubihsm = self.token.connector.is_some();
        // Whatever is wrong with the way there shows with the token itself.
        let (way, field) = if yubihsm { ("connector", "connector") } else { ("module", "module") };
        match admin.end(Some(args.patience.get())) {
            Ok(Ended::Done(result)) => {
                if !yubihsm {
                    self.ok(way, "loads and initialises");
                }
                Failure::result(result).map(Some).map_err(CtlError::Token)
            }
            Ok(Ended::Failed(failure)) => {
                if yubihsm {
                    yubihsm::refused(self, &failure);
                } else {
                    module::refused(self, &failure);
                }
                Ok(None)
            }
            Ok(Ended::Died { step, how }) => {
                self.problem(way, field, format!("it ended the process ({how}) {}", during(step)), vendor);
                Ok(None)
            }
            Ok(Ended::Hung { step, patience }) => {
                let detail = format!("it did not return in {patience:?} {}", during(step));
                self.problem(way, field, detail, "see whether the device is switched on and reachable");
                Ok(None)
            }
            Err(error) => {
                self.problem("module", "", error.to_string(), "install signer-token beside signerctl");
                Ok(None)
            }
        }
    }

    /// What the unit has wrong, in no line of the configuration; `place` is the unit's line, and the directive there.
    fn problem_of_unit(
        &mut self,
        check: &'static str,
        place: Option<(config::Origin, String)>,
        detail: impl Into<String>,
        remedy: String,
    ) {
        let mut finding = Finding::new(check, State::Problem, detail);
        finding.remedy = Some(remedy);
        finding.place = place;
        self.findings.push(finding);
    }

    fn uri_of(&self, key: &config::Key) -> String {
        key.in_token(self.name).unwrap_or(&key.uri).to_owned()
    }

    /// The configured keys of this token.
    fn keys(&self) -> Vec<(&'_ str, &'_ config::Key)> {
        let keys = self.loaded.config.keys.iter().filter(|(_, key)| key.in_token(self.name).is_some());
        keys.map(|(name, key)| (name.as_str(), key)).collect()
    }

    fn report(self) -> Report {
        let problems = self.findings.iter().filter(|finding| finding.state == State::Problem).count();
        let mut text: String = self.findings.iter().map(Finding::for_people).collect();
        text.push_str(&match problems {
            0 => format!("\ntoken `{}`: nothing is wrong\n", self.name),
            1 => format!("\ntoken `{}`: 1 problem\n", self.name),
            n => format!("\ntoken `{}`: {n} problems\n", self.name),
        });
        let findings: Vec<_> = self.findings.iter().map(Finding::to_json).collect();
        let mut report =
            Report::new(text, json!({ "token": self.name, "healthy": problems == 0, "findings": findings }));
        report.exit = if problems == 0 { Exit::Success } else { Exit::Failed };
        report
    }
}

/// A look at the module, the token and its keys, about to be taken.
fn probing(args: &TokenDoctorArgs, login: bool, name: &str, keys: &[String]) -> Result<Admin, CtlError> {
    let admin = Admin::configured(&args.reach, name)?.args(["probe"]);
    let admin = admin.args(keys.iter().flat_map(|key| ["--key", key]));
    Ok(if login { admin.args(["--login"]) } else { admin })
}

/// The directories above a path, nearest first.
fn above(path: &Path) -> impl Iterator<Item = &Path> {
    path.ancestors().skip(1)
}
