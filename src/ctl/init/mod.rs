//! `signerctl init`: from an installed package to an appliance that has signed.
//!
//! [`Init::go`] is the whole way, a line a step. What is there already is left; a step that fails takes back what this
//! run has written and says what stays.

mod answers;
mod ask;
pub(crate) mod cli;
mod place;
mod plan;
mod secret;
mod server_key;
mod trial;
mod units;
mod worker;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use self::answers::Answers;
use self::cli::InitArgs;
use self::place::{Ledger, Owner, Seeded};
use self::plan::{CONFIG, CONFIG_DIR, Copied, Plan};
use self::units::Changed;
use self::worker::{PIN, SO_PIN, Stage};
use super::error::{CtlError, Exit};
use super::files;
use super::output::{Report, plain};
use crate::config::{self, Config, Viewer};
use crate::custody::PublicKey;
use crate::custody::history::{History, Remembered};

pub(crate) fn run(args: &InitArgs, json: bool) -> Result<Report, CtlError> {
    let mut tree = answers::gather(args.answers.as_deref(), &args.set)?;
    let root = args.root.as_deref().unwrap_or(Path::new("/"));
    ask::complete(&mut tree, root)?;
    let answers = Answers::read(&tree)?;
    let image = args.root.is_some();
    let plan = Plan::of(&answers, !image, root)?;
    let config = judge(&plan)?;
    if args.check {
        return Ok(intention(&plan));
    }
    if !image && !nix::unistd::geteuid().is_root() {
        return Err(CtlError::Usage(
            "init sets up this machine, which root may; --check and --root need nobody".to_owned(),
        ));
    }
    if !image && !args.no_start && !units::is_booted() {
        return Err(CtlError::Usage(
            "systemd does not run here, so no unit can be started; give --no-start, or --root DIR for an image"
                .to_owned(),
        ));
    }
    let ledger = Ledger::new(args.root.as_deref(), args.force);
    let mut init = Init { args, answers, plan, config, ledger, step: "before the first step", said: Vec::new(), json };
    let outcome = if image { init.image() } else { init.go() };
    outcome.map_err(|error| init.fail(error))
}

struct Init<'a> {
    args: &'a InitArgs,
    answers: Answers,
    plan: Plan,
    config: Config,
    ledger: Ledger,
    /// What is being done, in words, for an error.
    step: &'static str,
    said: Vec<(&'static str, String)>,
    json: bool,
}

impl Init<'_> {
    /// The whole way.
    fn go(&mut self) -> Result<Report, CtlError> {
        self.install_files()?;
        if self.plan.request && !self.certificate_is_there()? {
            self.ledger.commit();
            return Ok(self.wait_for_certificate());
        }
        let stage = Stage::new(&self.answers, &self.plan, self.args.signer_token.as_deref())?;
        self.seal_pin(&stage)?;
        self.make_token(&stage)?;
        self.make_key(&stage)?;
        self.examine(&stage)?;
        self.put_in_force(&stage)?;
        if self.args.no_start {
            let by_hand = units::by_hand(&self.answers.token.name);
            return Ok(self.report(&format!(
                "not started: {by_hand} starts it; what runs already goes by the old files until it is restarted"
            )));
        }
        self.start()?;
        self.sign()?;
        Ok(self.report("the appliance is ready, and has signed"))
    }

    /// The part of it that an image can have.
    fn image(&mut self) -> Result<Report, CtlError> {
        self.install_files()?;
        self.begin("write the configuration");
        let text = self.plan.config.clone();
        self.ledger.file(Path::new(CONFIG), text.as_bytes(), 0o644, Owner::Root)?;
        self.done(CONFIG);
        self.ledger.commit();
        Ok(self.report("the files are written; on the machine itself, `signerctl init` with the same answers goes on"))
    }

    fn install_files(&mut self) -> Result<(), CtlError> {
        self.begin("install files");
        for directory in ["tls", "keys", "licensing", "files"] {
            self.ledger.directory(&Path::new(CONFIG_DIR).join(directory), 0o755, Owner::Root)?;
        }
        self.ledger.directory(Path::new("/var/lib/stellaops-signer"), 0o750, Owner::Front)?;
        let audit = self.config.audit.path.parent().unwrap_or(Path::new("/")).to_owned();
        self.ledger.directory(&audit, 0o750, Owner::Front)?;
        let state = plan::worker_state(&self.answers.token.name);
        self.ledger.directory(Path::new("/var/lib/stellaops-signer-token"), 0o711, Owner::Root)?;
        self.ledger.directory(&state, 0o700, Owner::Worker)?;
        if self.answers.profile == "softhsm2" {
            self.ledger.directory(&state.join("softhsm2"), 0o700, Owner::Worker)?;
        }
        let copies = std::mem::take(&mut self.plan.copies);
        for copy in &copies {
            let installed = self.install(copy, &copies)?;
            self.done(installed);
        }
        let made = std::mem::take(&mut self.plan.files);
        for (path, text) in &made {
            let new = self.ledger.file(path, text.as_bytes(), 0o644, Owner::Root)?;
            self.done(format!("{}{}", path.display(), if new { "" } else { " (as it was)" }));
        }
        if self.plan.request {
            let names = self.answers.tls_request.as_ref().map(|request| request.names.clone()).unwrap_or_default();
            let seal = self.args.root.is_none().then_some(self.answers.token.seal.as_str());
            let request = server_key::request(&mut self.ledger, &names, seal)?;
            self.done(request);
        }
        Ok(())
    }

    /// One of the operator's files. Returns what was done, in words.
    fn install(&mut self, copy: &Copied, all: &[Copied]) -> Result<String, CtlError> {
        let content = self.content(copy)?;
        let (mode, owner) = match copy.to.starts_with("/var/lib") {
            _ if copy.secret => (0o640, Owner::RootForFront),
            true => (0o640, Owner::Front),
            false => (0o644, Owner::Root),
        };
        let to = copy.to.display();
        let (at, new) = match copy.sealed {
            Some(name) => {
                server_key::expect_private(&copy.from, &content)?;
                let file = secret::of_front(name);
                let new = secret::seal(&mut self.ledger, name, &file, &content, &self.answers.token.seal)?;
                // An image cannot seal; what it has in the clear goes once the sealed one is in force.
                let open = copy.in_image.as_deref().filter(|open| self.read(open).is_ok_and(|there| there == content));
                if let Some(open) = open {
                    self.ledger.retire(open);
                }
                (file, new)
            }
            None if copy.kept_fresh => match self.ledger.seed(&copy.to, &content, mode, owner)? {
                Seeded::Other => {
                    if copy.key == plan::SERVER_TLS_CERTIFICATE {
                        self.expect_key_of_certificate(copy, all)?;
                    }
                    let from = copy.from.display();
                    return Ok(format!("{to} (as it was; {from} differs, and is not taken: you keep it fresh there)"));
                }
                seeded => (copy.to.clone(), seeded == Seeded::New),
            },
            None => (copy.to.clone(), self.ledger.file(&copy.to, &content, mode, owner)?),
        };
        Ok(format!("{}{}", at.display(), if new { "" } else { " (as it was)" }))
    }

    /// What is to be installed. A private key that was brought along once need not be there again: it is in the image, or
    /// sealed.
    fn content(&self, copy: &Copied) -> Result<Zeroizing<Vec<u8>>, CtlError> {
        let content = match files::read(&copy.from, MAX_FILE_BYTES) {
            Err(CtlError::File { source, .. }) if source.kind() == ErrorKind::NotFound && copy.sealed.is_some() => {
                let open = copy.in_image.as_deref().and_then(|open| self.read(open).ok());
                let sealed = || copy.sealed.and_then(|name| secret::open(name, &secret::of_front(name)));
                return open
                    .or_else(sealed)
                    .ok_or_else(|| CtlError::Usage(format!("config.{}: {}: {source}", copy.key, copy.from.display())));
            }
            other => other,
        };
        content.map(Zeroizing::new).map_err(|error| CtlError::Usage(format!("config.{}: {error}", copy.key)))
    }

    fn read(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, CtlError> {
        files::read(&self.ledger.at(path), MAX_FILE_BYTES).map(Zeroizing::new)
    }

    /// A certificate that stays, beside a key that does not: signerd would not start.
    fn expect_key_of_certificate(&self, certificate: &Copied, all: &[Copied]) -> Result<(), CtlError> {
        let Some(key) = all.iter().find(|copy| copy.key == plan::SERVER_TLS_KEY) else { return Ok(()) };
        server_key::expect_pair(&self.ledger.at(&certificate.to), &self.read(&certificate.to)?, &self.content(key)?)
    }

    fn certificate_is_there(&self) -> Result<bool, CtlError> {
        let there = self.ledger.at(Path::new(plan::SERVER_CERTIFICATE));
        Ok(there.is_file())
    }

    fn seal_pin(&mut self, stage: &Stage) -> Result<(), CtlError> {
        self.begin("seal the PIN");
        let (token, yubihsm) = (&self.answers.token, self.answers.is_yubihsm());
        let name = &token.name;
        let file = Path::new(secret::STORE).join(format!("signer-token@{name}.pin"));
        // Sealed before, and nobody says another: it need not be typed again.
        let sealed = secret::open("pin", &file).filter(|_| token.pin_file.is_none());
        let what = if yubihsm { "password of the worker's authentication key" } else { "user PIN of the token" };
        let pin = match sealed {
            Some(pin) => pin,
            None => worker::pin(token.pin_file.as_deref(), what)?,
        };
        let new = secret::seal(&mut self.ledger, "pin", &file, &pin, &token.seal)?;
        stage.lend(PIN, &pin)?;
        self.done(format!("{}{}", file.display(), if new { "" } else { " (as it was)" }));
        Ok(())
    }

    fn make_token(&mut self, stage: &Stage) -> Result<(), CtlError> {
        if !self.answers.token.initialise {
            return Ok(());
        }
        self.begin("initialise the token");
        let label = self.answers.token.label.clone().unwrap_or_else(|| "YubiHSM".to_owned());
        let what = if self.answers.is_yubihsm() { "password of the administrator" } else { "security officer's PIN" };
        stage.lend(SO_PIN, &worker::pin(self.answers.token.so_pin_file.as_deref(), what)?)?;
        if stage.initialise(&label)? {
            self.ledger.stays(format!("the token `{}`, initialised", plain(&label)));
            let name = &self.answers.token.name;
            // Its PIN is this one now.
            self.ledger.keep(&Path::new(secret::STORE).join(format!("signer-token@{name}.pin")));
            self.done(format!("token `{}`", plain(&label)));
        } else {
            self.done(format!("token `{}` (as it was)", plain(&label)));
        }
        Ok(())
    }

    fn make_key(&mut self, stage: &Stage) -> Result<(), CtlError> {
        self.begin("find or make the key");
        let (key, yubihsm) = (&self.answers.key, self.answers.is_yubihsm());
        let name = key.name.clone();
        let uri = self.config.keys.get(&name).map(|key| key.uri.clone()).unwrap_or_default();
        let found = stage.public_key(&uri)?;
        let made = found.is_none();
        let public = match found {
            Some(public) => public,
            None if !key.generate => {
                return Err(CtlError::Usage(format!(
                    "the token has no key {uri}; correct key.name or key.uri, or set key.generate = true"
                )));
            }
            None => {
                if yubihsm && !self.answers.token.initialise {
                    let what = "password of the administrator, who makes the key";
                    stage.lend(SO_PIN, &worker::pin(self.answers.token.so_pin_file.as_deref(), what)?)?;
                }
                let id = if yubihsm { format!("{:04x}", key.object_id) } else { random_id()? };
                stage.generate(&name, &id)?
            }
        };
        let key = PublicKey::from_pem(public.as_bytes())
            .map_err(|error| CtlError::Unexpected(format!("the token's public key is {error}")))?;
        if made {
            self.ledger.stays(format!("the key `{name}` in the token, {}", key.keyid()));
        }
        self.ledger.file(&plan::public_key(&name), key.to_pem().as_bytes(), 0o644, Owner::Root)?;
        let history = History::of(&self.config);
        let remembered = [Remembered::now(&name, &self.answers.token.name, &key)];
        history
            .remember(&remembered)
            .map_err(|error| CtlError::content(history.path(), crate::custody::token::explain(&error)))?;
        self.done(format!("{} ({name}{})", key.keyid(), if made { ", made now" } else { ", as it was" }));
        Ok(())
    }

    /// What keeps the token from signing is found before anything is started.
    fn examine(&mut self, stage: &Stage) -> Result<(), CtlError> {
        self.begin("examine the token (signerctl token doctor)");
        let report = stage.doctor()?;
        if report["findings"].is_null() {
            return Err(CtlError::Unexpected(report["error"]["message"].as_str().unwrap_or("no report").to_owned()));
        }
        let findings = report["findings"].as_array().map_or(&[][..], Vec::as_slice);
        // The worker is not started yet.
        let problems = findings.iter().filter(|finding| finding["state"] == "problem" && finding["check"] != "worker");
        let text = |finding: &Value, member: &str| plain(finding[member].as_str().unwrap_or_default());
        let lines: Vec<String> = problems
            .map(|problem| {
                format!("{}: {}; {}", text(problem, "check"), text(problem, "detail"), text(problem, "remedy"))
            })
            .collect();
        if !lines.is_empty() {
            return Err(worker::failure("unfit", lines.join("\n")));
        }
        let ok = findings.iter().filter(|finding| finding["state"] == "ok").count();
        self.done(format!("{ok} checks passed"));
        Ok(())
    }

    fn put_in_force(&mut self, stage: &Stage) -> Result<(), CtlError> {
        self.begin("put the configuration in force");
        let loaded = config::open(stage.config()).map_err(CtlError::Config)?;
        loaded.check_files(Viewer::Operator).map_err(CtlError::Config)?;
        let text = self.plan.config.clone();
        // What the same answers make of an image: this is the other half of that.
        let image = Plan::of(&self.answers, false, Path::new("/"))?.config;
        let new = self.ledger.file_after(Path::new(CONFIG), text.as_bytes(), image.as_bytes(), 0o644, Owner::Root)?;
        // With the drop-ins that are there.
        config::open(CONFIG).and_then(|loaded| loaded.check_files(Viewer::Operator)).map_err(CtlError::Config)?;
        self.ledger.commit();
        self.done(format!("{CONFIG}{}", if new { "" } else { " (as it was)" }));
        Ok(())
    }

    fn start(&mut self) -> Result<(), CtlError> {
        self.begin("start the units");
        let changed = Changed {
            anything: self.ledger.has_changed(""),
            // A socket that is open goes on listening where it did.
            listeners: self.ledger.has_changed(".socket.d/"),
        };
        units::start(&self.answers.token.name, changed)?;
        self.done("stellaops-signer.target");
        self.begin("wait for the test signature");
        let (token, key) = (&self.answers.token.name, &self.answers.key.name);
        units::wait(&self.config, token, key, self.args.patience.get())?;
        self.done(format!("`{key}` has signed in token `{token}`, and signerd has verified it"));
        Ok(())
    }

    fn sign(&mut self) -> Result<(), CtlError> {
        let Some(test) = &self.answers.test else { return Ok(()) };
        self.step = "make a whole call";
        let dir = std::path::PathBuf::from(format!("/run/stellaops-signer-test.{}", std::process::id()));
        fs::create_dir(&dir).map_err(|error| CtlError::File { doing: "create", path: dir.clone(), source: error })?;
        let key = plan::public_key(&self.answers.key.name);
        let signed = trial::sign(test, &self.config.server.public_url, &key, &dir);
        // Nothing in it is secret, and /run is memory.
        let _ = fs::remove_dir_all(&dir);
        let audit_id = signed?;
        self.done(format!("signed and verified, audit id {}", plain(&audit_id)));
        Ok(())
    }

    fn begin(&mut self, step: &'static str) {
        self.step = step;
    }

    /// Says at once what was done: a person waits.
    fn done(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.json {
            eprintln!("{:<43}{what}", self.step);
        }
        self.said.push((self.step, what));
    }

    fn report(&self, end: &str) -> Report {
        let steps: Vec<Value> = self.said.iter().map(|(step, what)| json!({ "step": step, "what": what })).collect();
        let config = self.ledger.at(Path::new(CONFIG)).display().to_string();
        Report::new(format!("{end}\n"), json!({ "done": true, "end": end, "steps": steps, "config": config }))
    }

    fn wait_for_certificate(&self) -> Report {
        let (csr, certificate) = (server_key::REQUEST, plan::SERVER_CERTIFICATE);
        let mut report = self.report(&format!(
            "have {csr} certified for a TLS server, put the chain into {certificate}, and run init again; it goes on there"
        ));
        report.exit = Exit::Failed;
        report.json["done"] = false.into();
        report
    }

    fn fail(&mut self, error: CtlError) -> CtlError {
        let (undone, stays) = self.ledger.undo();
        CtlError::Init { step: self.step, source: Box::new(error), undone, stays }
    }
}

/// The appliance's own loader judges the configuration before anything is written.
fn judge(plan: &Plan) -> Result<Config, CtlError> {
    config::open_text(Path::new(CONFIG), &plan.config).map(|loaded| loaded.config).map_err(CtlError::Config)
}

/// What `--check` says.
fn intention(plan: &Plan) -> Report {
    let copies = plan.copies.iter().map(|copy| {
        let to = copy
            .sealed
            .map_or_else(|| copy.to.display().to_string(), |name| secret::of_front(name).display().to_string());
        format!("{} from {}", plain(&to), plain(&copy.from.display().to_string()))
    });
    let files = plan.files.iter().map(|(path, _)| path.display().to_string());
    let writes: Vec<String> = copies.chain(files).chain([CONFIG.to_owned()]).collect();
    let text = format!("would write\n  {}\n\n{}", writes.join("\n  "), plan.config);
    Report::new(text, json!({ "writes": writes, "config": plan.config }))
}

fn random_id() -> Result<String, CtlError> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| CtlError::Unexpected("the operating system gives no random numbers".to_owned()))?;
    Ok(crate::hex::hex(&bytes))
}

pub(crate) const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
