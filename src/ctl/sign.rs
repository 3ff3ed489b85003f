//! `signerctl sign`: one request to the Signer API, as any client makes it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, request};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::answer_check;
use super::appliance::{Appliance, Call};
use super::cli::SignArgs;
use super::client::runtime;
use super::error::CtlError;
use super::files;
use super::output::{Report, plain};
use super::request::{Expected, SignRequest};
use super::settings::BundleForm;
use super::subject::Subject;
use super::upload::{Upload, progress_bar};
use super::verify::form::ApiAnswer;

pub(crate) fn run(mut args: Box<SignArgs>, json: bool) -> Result<Report, CtlError> {
    let settings = std::mem::take(&mut args.settings).complete()?;
    let output = output_path(&args, settings.request.bundle.unwrap_or_default())?;
    let to_stdout = files::is_dash(&output);
    if to_stdout && json {
        return Err(CtlError::Usage(
            "--output - and --json both want standard output; give --output a file".to_owned(),
        ));
    }
    if !to_stdout {
        files::refuse_existing(&output, args.force)?;
    }
    let request = SignRequest::build(&args, &settings.request)?;
    let mut appliance = Appliance::prepare(&settings.access)?;
    let bar = progress_bar(request.len(), json);
    let answer = runtime()?.block_on(appliance.call(&SignCall { request: &request, bar: &bar }));
    bar.finish_and_clear();
    let (answer, expected) = (answer?, request.into_expected());
    let checked = answer_check::check(&answer.body, &expected)?;
    if to_stdout {
        write_bundle(&checked, expected.bundle, &mut io::stdout().lock()).map_err(CtlError::Stdout)?;
    } else {
        files::write_new(&output, args.force, |file| write_bundle(&checked, expected.bundle, file))?;
    }
    let mut report = report(&args.file, &output, &checked, &expected, appliance.binding());
    report.aside = to_stdout;
    Ok(report)
}

struct SignCall<'a> {
    request: &'a SignRequest,
    bar: &'a ProgressBar,
}

impl Call for SignCall<'_> {
    fn method(&self) -> Method {
        Method::POST
    }

    fn path(&self) -> &'static str {
        "/api/v1/signer/sign/dsse"
    }

    fn form(&self, mut request: request::Builder) -> (request::Builder, Upload) {
        request = request
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, application/problem+json");
        if let Some(poe) = self.request.poe_header() {
            request = request.header("x-poe", poe);
        }
        (request, self.request.body().with_progress(self.bar))
    }

    fn max_answer_bytes(&self) -> usize {
        // Base64 adds a third; canonical form may write numbers out.
        usize::try_from(self.request.len()).unwrap_or(usize::MAX).saturating_mul(3).saturating_add(1024 * 1024)
    }

    fn waiting(&self, why: &str, wait: Duration) {
        self.bar.set_message(format!("{why}, again in {} s", wait.as_secs()));
    }
}

fn output_path(args: &SignArgs, bundle: BundleForm) -> Result<PathBuf, CtlError> {
    if let Some(output) = &args.output {
        return Ok(output.clone());
    }
    if files::is_dash(&args.file) {
        return Err(CtlError::Usage(
            "standard input has no name to derive the output's from; give --output".to_owned(),
        ));
    }
    let mut name = args.file.clone().into_os_string();
    name.push(if bundle == BundleForm::Sigstore { ".sigstore.json" } else { ".dsse.json" });
    Ok(name.into())
}

/// The envelope alone, the Sigstore bundle alone, or with `dsse+cert` the API's whole `bundle`.
fn write_bundle(answer: &ApiAnswer<'_>, form: BundleForm, mut file: &mut dyn Write) -> io::Result<()> {
    match form {
        BundleForm::Dsse => serde_json::to_writer(&mut file, &answer.bundle.dsse)?,
        BundleForm::Sigstore => serde_json::to_writer(&mut file, &answer.bundle.sigstore)?,
        BundleForm::DsseCert => serde_json::to_writer(&mut file, &answer.bundle)?,
    }
    file.write_all(b"\n")?;
    file.flush()
}

fn report(file: &Path, output: &Path, answer: &ApiAnswer<'_>, expected: &Expected, binding: &str) -> Report {
    let keyid = answer.bundle.found().ok().and_then(|found| Some(found.envelope.signatures.first()?.keyid.clone()));
    let mut text = format!("signed {}\n", plain(&file.display().to_string()));
    let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<9} {value}\n"));
    line("type", &expected.predicate_type);
    for subject in &expected.subjects {
        line("subject", &format!("{} {}", plain(&subject.name), subject.digest));
    }
    if let Some(keyid) = keyid.as_deref().filter(|keyid| !keyid.is_empty()) {
        line("key", &plain(keyid));
    }
    if let Some(mode) = &answer.bundle.mode {
        line("mode", &plain(mode));
    }
    if let Some(plan) = answer.policy["plan"].as_str() {
        line("plan", &plain(plan));
    }
    if let Some(audit_id) = &answer.audit_id {
        line("audit id", &plain(audit_id));
    }
    if !files::is_dash(output) {
        line("written", &plain(&output.display().to_string()));
    }
    let json = json!({
        "signed": true,
        "file": file.display().to_string(),
        "output": output.display().to_string(),
        "predicateType": expected.predicate_type,
        "subject": expected.subjects.iter().map(Subject::to_json).collect::<Vec<Value>>(),
        "keyid": keyid,
        "mode": answer.bundle.mode,
        "signingIdentity": answer.bundle.signing_identity,
        "policy": answer.policy,
        "binding": binding,
        "auditId": answer.audit_id,
    });
    Report::new(text, json)
}
