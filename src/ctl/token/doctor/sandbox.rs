//! The sandbox of the worker's unit: does the module work inside it, and if not, which directive stands in the way?
//!
//! Found out by trying. The same look at the module is taken in a transient unit with the directives of the worker's own
//! (`systemctl cat` has them, drop-ins included): with all of them; with none; then with one after the other added, and
//! whichever breaks it is told, with the line that says it, and left out. What the module was refused, and how it takes that,
//! need not be known for it.

use std::process::{Command, Stdio};

use super::Patient;
use super::directives::{Assignment, Directive, Directives};
use crate::config::Span;
use crate::ctl::error::CtlError;
use crate::ctl::token::child::{Admin, Ended, during};
use crate::custody::admin::{Failure, Probe};

/// What came of a look: what was seen, or why nothing was.
type Seen = Result<Probe, Failure>;

/// The best look that could be had inside; `None` when there was none. `probe` makes one, with or without a login.
pub(super) fn look(
    patient: &mut Patient<'_>,
    patience: Span,
    login: bool,
    probe: &dyn Fn(bool) -> Result<Admin, CtlError>,
) -> Result<Option<Probe>, CtlError> {
    const CHECK: &str = "sandbox";
    let unit = format!("signer-token@{}.service", patient.name);
    let text = match cat(&unit) {
        Ok(text) => text,
        Err(why) => {
            let remedy = "install the package's units; without them, leave out --in-unit".to_owned();
            patient.problem_of_unit(CHECK, None, format!("{unit} cannot be read: {why}"), remedy);
            return Ok(None);
        }
    };
    let directives = Directives::read(&text, patient.name);
    let all: Vec<&Directive> = directives.sandbox.iter().collect();
    let mut seen = inside(probe(login)?, &directives, &all, patience, login)?;
    let without = pin_trouble(&seen);
    if let Some(why) = &without {
        // Nothing was asked of the module: no directive is to be blamed for that.
        patient.skipped(CHECK, format!("no login inside {unit}, since there is no PIN: {why}"));
        seen = inside(probe(false)?, &directives, &all, patience, false)?;
    }
    let login = login && without.is_none();
    let run = |closed: &[&Directive]| inside(probe(login)?, &directives, closed, patience, login);
    let Some(why) = trouble(&seen) else {
        patient.ok(CHECK, format!("the module works inside {unit}, with its {} directives", all.len()));
        return Ok(seen.ok());
    };
    let open = run(&[])?;
    if let Some(outside) = trouble(&open) {
        patient.skipped(CHECK, format!("without the directives of {unit} it is no better: {outside}"));
        return Ok(open.ok());
    }
    let mut closed: Vec<Directive> = Vec::new();
    let mut found = 0;
    for directive in &all {
        closed.push((*directive).clone());
        let Some(why) = trouble(&run(&closed.iter().collect::<Vec<_>>())?) else { continue };
        closed.pop();
        found += 1;
        let (blamed, rest) = blame(&closed, directive, &run)?;
        let needs = if directive.name == "SystemCallFilter" { needed(&closed, directive, &run)? } else { None };
        let remedy = needs.unwrap_or_else(|| directive.relaxed());
        let place = blamed.values.last().map(|line| line.origin.clone());
        // The package's own file is replaced by each upgrade; what is in a drop-in somebody has put there.
        let ours = place.as_ref().is_none_or(|place| place.file.extension().is_none_or(|end| end != "conf"));
        let first = if ours { "" } else { "take that line away if nothing else needs it, or write " };
        patient.problem_of_unit(
            CHECK,
            place.map(|place| (place, directive.name.clone())),
            format!("{} stands in the way: {why}", blamed.spelled()),
            format!("{first}{remedy}, in a drop-in: systemctl edit {unit}"),
        );
        closed.extend(rest);
    }
    if found == 0 {
        let detail = format!("it fails inside {unit} now and then: {why}");
        patient.problem_of_unit(CHECK, None, detail, "try it again".to_owned());
    }
    Ok(open.ok())
}

/// What is wrong with a look.
fn trouble(seen: &Seen) -> Option<String> {
    match seen {
        Ok(probe) => {
            let login = probe.login_failure.as_ref().filter(|failure| !ABOUT_THE_PIN.contains(&&*failure.code));
            probe.token_failure.as_ref().or(login).map(|failure| failure.message.clone())
        }
        Err(failure) => Some(failure.message.clone()),
    }
}

/// Why there was no PIN to log in with.
fn pin_trouble(seen: &Seen) -> Option<String> {
    seen.as_ref().err().filter(|failure| ABOUT_THE_PIN.contains(&&*failure.code)).map(|failure| failure.message.clone())
}

/// The one line of several without which the module works, and the directive without it; all of them where no line alone
/// is to blame.
fn blame(
    closed: &[Directive],
    directive: &Directive,
    run: &dyn Fn(&[&Directive]) -> Result<Seen, CtlError>,
) -> Result<(Directive, Option<Directive>), CtlError> {
    // What somebody has added is looked at first.
    for at in (0..directive.values.len()).rev().filter(|_| directive.values.len() > 1) {
        let (mut rest, mut blamed) = (directive.clone(), directive.clone());
        blamed.values = vec![rest.values.remove(at)];
        let tried: Vec<&Directive> = closed.iter().chain([&rest]).collect();
        if trouble(&run(&tried)?).is_none() {
            return Ok((blamed, Some(rest)));
        }
    }
    Ok((directive.clone(), None))
}

/// Which group of system calls it takes for the filter to let the module work.
fn needed(
    closed: &[Directive],
    filter: &Directive,
    run: &dyn Fn(&[&Directive]) -> Result<Seen, CtlError>,
) -> Result<Option<String>, CtlError> {
    for group in GROUPS {
        let mut wider = filter.clone();
        let Some(last) = wider.values.last().cloned() else { return Ok(None) };
        wider.values.push(Assignment { value: (*group).to_owned(), ..last });
        let tried: Vec<&Directive> = closed.iter().chain([&wider]).collect();
        if trouble(&run(&tried)?).is_none() {
            return Ok(Some(format!("SystemCallFilter={group}")));
        }
    }
    Ok(None)
}

/// Takes the look in a transient unit with these of the directives.
fn inside(
    admin: Admin,
    directives: &Directives,
    closed: &[&Directive],
    patience: Span,
    login: bool,
) -> Result<Seen, CtlError> {
    let limit = patience.get() * 4;
    let mut wrapper: Vec<String> = ["--quiet", "--wait", "--pipe", "--collect", "--service-type=exec"]
        .map(str::to_owned)
        .into_iter()
        .chain([format!("--property=RuntimeMaxSec={}", limit.as_secs().max(1))])
        .collect();
    for directive in directives.identity(login).chain(closed.iter().copied()) {
        wrapper.extend(directive.values.iter().map(|line| format!("--property={}={}", directive.name, line.value)));
    }
    wrapper.push("--".to_owned());
    Ok(match admin.inside("systemd-run", &wrapper).end(Some(patience.get()))? {
        Ended::Done(result) => Failure::result(result),
        Ended::Failed(failure) => Err(failure),
        Ended::Died { step, how } => {
            Err(Failure::new("module_died", format!("it ended the process ({how}) {}", during(step))))
        }
        Ended::Hung { step, patience } => {
            Err(Failure::new("module_hung", format!("it did not return in {patience:?} {}", during(step))))
        }
    })
}

fn cat(unit: &str) -> Result<String, String> {
    let output = Command::new("systemctl")
        .args(["cat", "--no-pager", "--", unit])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("systemctl: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// Failures that a PIN is the cause of, or the lack of one; the module did what it should.
const ABOUT_THE_PIN: &[&str] = &["pin", "pin_refused", "pin_not_tried"];

/// What the unit's filter leaves out of `@known` and a module may want (`systemd-analyze syscall-filter`).
const GROUPS: &[&str] = &[
    "@aio",
    "@keyring",
    "@resources",
    "@memlock",
    "@pkey",
    "@privileged",
    "@debug",
    "@clock",
    "@mount",
    "@raw-io",
    "@obsolete",
    "@cpu-emulation",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_that_is_missing_or_refused_is_no_fault_of_the_sandbox() {
        let failed = |code: &str| Failure::new(code, "why");
        let no_pin: Seen = Err(failed("pin"));
        assert_eq!(pin_trouble(&no_pin).as_deref(), Some("why"));
        let no_module: Seen = Err(failed("module_load"));
        assert_eq!((pin_trouble(&no_module), trouble(&no_module).as_deref()), (None, Some("why")));
        for (code, expected) in [("pin_refused", None), ("pin_not_tried", None), ("device", Some("why"))] {
            let seen: Seen = Ok(Probe { login_failure: Some(failed(code)), ..Probe::default() });
            assert_eq!(trouble(&seen).as_deref(), expected, "{code}");
        }
    }
}
