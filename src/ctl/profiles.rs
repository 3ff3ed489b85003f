//! `signerctl token profiles`: the kinds of devices that are known, and what is known of each.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::cli::ProfileShowArgs;
use super::error::CtlError;
use super::output::{Report, table};
use crate::custody::profiles::{self, Profile, Source, Stated};

pub(crate) fn list() -> Report {
    let mut rows = vec![["PROFILE", "DEVICE", "EVIDENCE", "SESSIONS", "MODULE HERE"].map(str::to_owned).to_vec()];
    for profile in profiles::all() {
        let module = match profile.installed_module(Path::new("/")) {
            _ if profile.modules.is_empty() => "needs none".to_owned(),
            Some(module) => module.path.display().to_string(),
            None => "-".to_owned(),
        };
        rows.push(vec![
            profile.name.clone(),
            profile.title.clone(),
            profile.evidence.in_words().to_owned(),
            profile.sessions.value.to_string(),
            module,
        ]);
    }
    let json = json!({ "profiles": profiles::all().iter().map(describe).collect::<Vec<_>>() });
    Report::new(table(&rows), json)
}

pub(crate) fn show(args: &ProfileShowArgs) -> Result<Report, CtlError> {
    let Some(profile) = profiles::find(&args.name) else {
        let known: Vec<_> = profiles::names().collect();
        return Err(CtlError::Usage(format!("there is no profile `{}`; known: {}", args.name, known.join(", "))));
    };
    let json = describe(profile);
    if args.drop_in {
        return Ok(Report::new(profile.drop_in().to_owned(), json));
    }
    let mut text = format!("{} ({}): {}\n", profile.title, profile.evidence.in_words(), profile.basis);
    for module in &profile.modules {
        entry(&mut text, "module", &format!("{} ({})", module.path.display(), module.on), "", &module.source);
    }
    for (name, value, reason, source) in values(profile) {
        entry(&mut text, name, &value, reason, source);
    }
    for code in &profile.retry_codes {
        let value = format!("{} ({:#x}): {:?}", code.code, code.number, code.remedy);
        entry(&mut text, "return code", &value, &code.reason, &code.source);
    }
    for quirk in &profile.quirks {
        entry(&mut text, "quirk", &quirk.what, &quirk.consequence, &quirk.source);
    }
    text.push_str("\n--- README.md\n");
    text.push_str(profile.manual());
    text.push_str("\n--- signer-token.conf\n");
    text.push_str(profile.drop_in());
    Ok(Report::new(text, json))
}

fn entry(text: &mut String, name: &str, value: &str, reason: &str, source: &Source) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "\n{name}: {value}");
    if !reason.is_empty() {
        let _ = writeln!(text, "  because {reason}");
    }
    let _ = writeln!(text, "  {source}");
}

/// The single values: name, value, reason, source.
fn values(profile: &Profile) -> Vec<(&'static str, String, &str, &Source)> {
    fn one<'a, T>(
        name: &'static str,
        stated: &'a Stated<T>,
        shown: impl Fn(&T) -> String,
    ) -> (&'static str, String, &'a str, &'a Source) {
        (name, shown(&stated.value), &stated.reason, &stated.source)
    }
    let mut values = vec![one("sessions", &profile.sessions, ToString::to_string)];
    values.extend(profile.max_sessions.as_ref().map(|max| one("max_sessions", max, ToString::to_string)));
    values.extend(profile.read_write_sessions.as_ref().map(|rw| one("read_write_sessions", rw, ToString::to_string)));
    values.push(one("call_timeout", &profile.call_timeout, |span| format!("{:?}", span.get())));
    values.extend(
        profile.login_timeout.as_ref().map(|login| one("login_timeout", login, |span| format!("{:?}", span.get()))),
    );
    values
        .extend(profile.keep_alive.as_ref().map(|every| one("keep_alive", every, |span| format!("{:?}", span.get()))));
    values.push(one("PIN", &profile.login.pin, Clone::clone));
    values.extend(profile.login.locks_after.as_ref().map(|wrong| one("locks after", wrong, ToString::to_string)));
    values.push(one("warns before the lock-out", &profile.login.warns, ToString::to_string));
    values
}

fn describe(profile: &Profile) -> Value {
    let stated = values(profile).into_iter().map(|(name, value, reason, source)| {
        json!({ "name": name, "value": value, "reason": reason, "source": source.to_string() })
    });
    json!({
        "name": profile.name,
        "title": profile.title,
        "backend": profile.backend,
        "evidence": profile.evidence,
        "basis": profile.basis,
        "modules": profile.modules.iter().map(|module| json!({
            "path": module.path.display().to_string(),
            "on": module.on,
            "present": module.path.is_file(),
            "source": module.source.to_string(),
        })).collect::<Vec<_>>(),
        "values": stated.collect::<Vec<_>>(),
        "retryCodes": profile.retry_codes.iter().map(|code| json!({
            "code": code.code,
            "number": code.number,
            "remedy": code.remedy,
            "reason": code.reason,
            "source": code.source.to_string(),
        })).collect::<Vec<_>>(),
        "quirks": profile.quirks.iter().map(|quirk| json!({
            "about": quirk.about,
            "what": quirk.what,
            "consequence": quirk.consequence,
            "source": quirk.source.to_string(),
        })).collect::<Vec<_>>(),
    })
}
