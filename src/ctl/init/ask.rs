//! The questions, for whoever sits at a terminal; what was answered already is not asked.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;

use toml::{Table, Value};

use super::answers::{get, set};
use crate::ctl::error::CtlError;
use crate::custody::profiles::{self, Backend};

/// Completes the answers by asking. `root` is where the system is that they are for.
///
/// # Errors
/// When there is no terminal and something is missing, or the input ends.
pub(crate) fn complete(tree: &mut Table, root: &Path) -> Result<(), CtlError> {
    let mut desk = Desk { tree, terminal: io::stdin().is_terminal() };
    let known = profiles::names().collect::<Vec<_>>().join(", ");
    desk.need("profile", &format!("Kind of device ({known})"), None)?;
    let profile = desk.text("profile").and_then(|name| profiles::find(&name));
    if profile.is_some_and(|profile| profile.backend == Backend::Yubihsm) {
        desk.need("token.connector", "Where does the YubiHSM's connector listen", Some("http://127.0.0.1:12345"))?;
        desk.need_number("token.auth_key", "Object id of the worker's authentication key", 2)?;
    } else {
        desk.need("token.label", "Label of the token", Some("signer"))?;
        if profile.is_some_and(|profile| profile.installed_module(root).is_none()) {
            desk.need("token.module", "Path of the vendor's PKCS#11 module", None)?;
        }
    }
    desk.want("token.initialise", "Is the token empty, and to be initialised", false)?;
    desk.need("tenant.id", "Tenant (the `tid` of its tokens)", None)?;
    let name = desk.text("tenant.id").map(|tenant| format!("{tenant}-1"));
    desk.need("key.name", "Name of its key", name.as_deref())?;
    desk.want("key.generate", "Make this key when it is not in the token", true)?;

    desk.need("config.server.public_url", "URL that clients call, as in https://signer.example:8443", None)?;
    if !desk.has("config.server.tls.certificate") && !desk.has("tls_request") {
        let text = "PEM certificate chain for it (empty: make a key and a request for one)";
        if desk.ask(text, Some(""), "config.server.tls.certificate")?.is_empty() {
            let url = desk.text("config.server.public_url").unwrap_or_default();
            let host = url.split("://").nth(1).unwrap_or_default();
            let host = host.rsplit_once(':').map_or(host, |(host, _)| host).to_owned();
            set(desk.tree, "tls_request.names", Value::Array(vec![Value::from(host)]))?;
        } else {
            desk.need("config.server.tls.private_key", "Its PEM private key", None)?;
        }
    }
    desk.need("config.server.tls.client_ca", "PEM bundle of the CAs of client certificates", None)?;

    desk.need("config.authority.issuer", "Authority: exact `iss` of its tokens, a URL", None)?;
    if !desk.has("config.authority.jwks") {
        let issuer = desk.text("config.authority.issuer").unwrap_or_default();
        let metadata = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        desk.need("config.authority.jwks.discovery", "Authority: its metadata document", Some(&metadata))?;
    }
    if !desk.has("config.authority.jwks.file") {
        desk.need("config.authority.ca", "Authority: PEM bundle that its TLS certificate chains to", None)?;
    }

    if !desk.has("config.licensing.offline") && !desk.has("config.licensing.online") {
        let way = "Licensing: `online` (introspection) or `offline` (signed PoEs)";
        match desk.ask(way, Some("online"), "config.licensing")?.as_str() {
            "offline" => set(desk.tree, "config.licensing.offline", Value::Table(Table::new()))?,
            _ => set(desk.tree, "config.licensing.online", Value::Table(Table::new()))?,
        }
    }
    if desk.has("config.licensing.offline") {
        desk.need("config.licensing.offline.issuer", "Licensing: exact `iss` of its PoEs", None)?;
        desk.need("config.licensing.offline.keys", "Licensing: JWK set with its pinned keys", None)?;
        let list = "Licensing: the signed revocation list, kept fresh by you";
        desk.need("config.licensing.offline.revocation_list", list, Some(super::plan::REVOCATIONS))?;
    }
    if desk.has("config.licensing.online") {
        desk.need("config.licensing.online.introspection_url", "Licensing: URL of its introspection endpoint", None)?;
        desk.need("config.licensing.online.ca", "Licensing: PEM bundle that its TLS certificate chains to", None)?;
        desk.need("config.licensing.online.certificate", "Licensing: PEM certificate that we show there", None)?;
        desk.need("config.licensing.online.private_key", "Licensing: PEM private key of that", None)?;
    }
    Ok(())
}

struct Desk<'a> {
    tree: &'a mut Table,
    terminal: bool,
}

impl Desk<'_> {
    fn has(&self, name: &str) -> bool {
        get(self.tree, name).is_some()
    }

    fn text(&self, name: &str) -> Option<String> {
        get(self.tree, name).and_then(Value::as_str).map(str::to_owned)
    }

    /// Asks until there is an answer.
    fn need(&mut self, name: &str, question: &str, default: Option<&str>) -> Result<(), CtlError> {
        if self.has(name) {
            return Ok(());
        }
        let answer = loop {
            let answer = self.ask(question, default, name)?;
            if !answer.is_empty() {
                break answer;
            }
        };
        set(self.tree, name, Value::from(answer))
    }

    fn need_number(&mut self, name: &str, question: &str, default: u16) -> Result<(), CtlError> {
        while !self.has(name) {
            let answer = self.ask(question, Some(&default.to_string()), name)?;
            if let Ok(number) = crate::custody::admin::object_id(&answer) {
                set(self.tree, name, Value::from(i64::from(number)))?;
            }
        }
        Ok(())
    }

    /// A yes or no, which has a default where nobody can be asked.
    fn want(&mut self, name: &str, question: &str, default: bool) -> Result<(), CtlError> {
        while self.terminal && !self.has(name) {
            let answer =
                self.ask(&format!("{question} (yes or no)"), Some(if default { "yes" } else { "no" }), name)?;
            match answer.as_str() {
                "yes" | "y" => set(self.tree, name, Value::from(true))?,
                "no" | "n" => set(self.tree, name, Value::from(false))?,
                _ => {}
            }
        }
        Ok(())
    }

    fn ask(&mut self, question: &str, default: Option<&str>, name: &str) -> Result<String, CtlError> {
        if !self.terminal {
            return match default.filter(|default| !default.is_empty()) {
                Some(default) => Ok(default.to_owned()),
                None => Err(CtlError::Usage(format!(
                    "`{name}` is not answered ({question}), and nobody can be asked here; write it into the file of \
                     --answers, or give --set {name}=…"
                ))),
            };
        }
        let mut err = io::stderr().lock();
        let shown = default.filter(|default| !default.is_empty()).map(|default| format!(" [{default}]"));
        // Questions go to standard error: standard output may carry JSON.
        let _ = write!(err, "{question}{}: ", shown.unwrap_or_default()).and_then(|()| err.flush());
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line).map_err(|error| CtlError::read("-".as_ref(), error))?;
        if read == 0 {
            return Err(CtlError::Declined(format!("the input ended at `{name}`; nothing was done")));
        }
        let line = line.trim();
        Ok(if line.is_empty() { default.unwrap_or_default().to_owned() } else { line.to_owned() })
    }
}
