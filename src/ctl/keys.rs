//! `signerctl keys`: what the appliance publishes of its keys, here; their life on the appliance, one module a command.

pub(crate) mod cli;
pub(crate) mod csr;
pub(crate) mod delete;
mod drop_in;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod import_cert;
pub(crate) mod public_half;
pub(crate) mod rotate;

use http::header::ACCEPT;
use http::{Method, request};
use serde_json::{Value, json};

use super::appliance::{Appliance, Call};
use super::cli::KeysListArgs;
use super::client::runtime;
use super::error::CtlError;
use super::output::{Report, plain, table};
use super::settings::{Defaults, Settings};
use super::upload::Upload;
use super::verify::key::{PublishedKey, published};

pub(crate) fn list(args: Box<KeysListArgs>) -> Result<Report, CtlError> {
    let KeysListArgs { jwks, pem, keyid, access } = *args;
    let settings = Settings { access, request: Defaults::default() }.complete()?;
    let mut appliance = Appliance::prepare(&settings.access)?;
    let answer = runtime()?.block_on(appliance.call(&ListCall))?;
    let mut keys =
        published(&answer.body).map_err(|why| CtlError::Unexpected(format!("the appliance's answer {why}")))?;
    if let Some(wanted) = &keyid {
        keys.retain(|key| key.key.keyid() == wanted);
        if keys.is_empty() {
            return Err(CtlError::Unexpected(format!(
                "the appliance publishes no key {} to this tenant",
                plain(wanted)
            )));
        }
    }
    let all = json!({ "keys": keys.iter().map(|key| key.about.clone()).collect::<Vec<Value>>() });
    let text = if jwks {
        format!("{all:#}\n")
    } else if pem {
        keys.iter().map(as_pem).collect()
    } else {
        as_table(&keys)
    };
    Ok(Report::new(text, all))
}

struct ListCall;

impl Call for ListCall {
    fn method(&self) -> Method {
        Method::GET
    }

    fn path(&self) -> &'static str {
        "/api/v1/signer/keys"
    }

    fn form(&self, request: request::Builder) -> (request::Builder, Upload) {
        let accept = "application/jwk-set+json, application/json, application/problem+json";
        (request.header(ACCEPT, accept), Upload::default())
    }

    fn max_answer_bytes(&self) -> usize {
        1024 * 1024
    }
}

/// The label above a block is not part of the PEM, and readers of PEM skip it (RFC 7468, section 2).
fn as_pem(key: &PublishedKey) -> String {
    let state = key.text("state").map(|state| format!(" ({})", plain(state))).unwrap_or_default();
    format!("{}{state}\n{}", key.key.keyid(), key.to_pem())
}

fn as_table(keys: &[PublishedKey]) -> String {
    let shown = |key: &PublishedKey, member: &str| key.text(member).map_or_else(|| "-".to_owned(), plain);
    let mut rows = vec![["KEYID", "STATE", "NAME", "TOKEN", "NOT BEFORE", "NOT AFTER"].map(str::to_owned).to_vec()];
    for key in keys {
        rows.push(vec![
            key.key.keyid().to_owned(),
            match key.about["inService"].as_bool() {
                Some(false) => format!("{}, out of service", shown(key, "state")),
                _ => shown(key, "state"),
            },
            shown(key, "name"),
            shown(key, "token"),
            shown(key, "notBefore"),
            shown(key, "notAfter"),
        ]);
    }
    table(&rows)
}
