//! `signerctl status`: the local listener of the appliance on this machine, for a person.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::cli::StatusArgs;
use super::client::runtime;
use super::error::{CtlError, Exit};
use super::local;
use super::output::{Report, plain, table};
use super::problem::{Peer, Refusal};

pub(crate) fn run(args: &StatusArgs) -> Result<Report, CtlError> {
    let listener = local::listener(args.local.as_deref(), &args.config)?;
    let (live, ready) = runtime()?.block_on(async {
        let live = local::read(&listener, "/livez").await?;
        Ok::<_, CtlError>((live, local::read(&listener, "/readyz").await?))
    })?;
    let is_live = live.status == StatusCode::OK;
    if !matches!(ready.status, StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE) {
        return Err(CtlError::Refused(Box::new(Refusal::read(Peer::Appliance, &ready))));
    }
    let is_ready = is_live && ready.status == StatusCode::OK;
    let details: Value = serde_json::from_slice(&ready.body).unwrap_or_else(|_| json!({}));
    let mut json = json!({ "live": is_live });
    if let (Value::Object(all), Value::Object(details)) = (&mut json, &details) {
        all.extend(details.clone());
    }
    json["ready"] = is_ready.into();
    let mut report = Report::new(describe(is_live, is_ready, &details), json);
    report.exit = if is_ready { Exit::Success } else { Exit::Failed };
    Ok(report)
}

/// Lines for what is one value, a table for what is a list of objects. What `/readyz` says is shown as it says it:
/// this program may be older than the appliance.
fn describe(is_live: bool, is_ready: bool, details: &Value) -> String {
    let yes_no = |yes| if yes { "yes" } else { "no" };
    let mut facts = vec![
        vec!["live".to_owned(), yes_no(is_live).to_owned()],
        vec!["ready".to_owned(), yes_no(is_ready).to_owned()],
    ];
    let empty = Map::new();
    let members = details.as_object().unwrap_or(&empty);
    let mut tables = String::new();
    for (name, value) in members {
        match value {
            _ if name == "ready" => {}
            Value::Array(rows) => tables.push_str(&list(name, rows)),
            other => facts.push(vec![plain(&heading(name)), cell(other)]),
        }
    }
    table(&facts) + &tables
}

fn list(name: &str, rows: &[Value]) -> String {
    let mut columns: Vec<&str> = Vec::new();
    for row in rows.iter().filter_map(Value::as_object) {
        for column in row.keys() {
            if !columns.contains(&column.as_str()) {
                columns.push(column);
            }
        }
    }
    // What a row is called, and how it is, come first.
    columns.sort_by_key(|column| match *column {
        "name" => 0,
        "state" => 1,
        _ => 2,
    });
    let mut cells = vec![columns.iter().map(|column| plain(&heading(column)).to_uppercase()).collect()];
    cells.extend(rows.iter().map(|row| match row {
        Value::Object(row) => columns.iter().map(|column| row.get(*column).map_or("-".to_owned(), cell)).collect(),
        other => vec![cell(other)],
    }));
    format!("\n{}\n{}", plain(&heading(name)), table(&cells))
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::String(text) => plain(text),
        other => plain(&other.to_string()),
    }
}

/// `inService` as `in service`.
fn heading(member: &str) -> String {
    let mut text = String::with_capacity(member.len() + 4);
    for c in member.chars() {
        if c.is_ascii_uppercase() {
            text.push(' ');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_tokens_and_keys_and_strangers_cannot_colour_it() {
        let details = json!({
            "ready": false,
            "audit": "ok",
            "authority": "stale",
            "tokens": [{ "sessions": 4, "state": "lost \u{1b}[32mok", "name": "main" }],
            "keys": [{ "name": "k1", "state": "active", "inService": false }],
        });
        let text = describe(true, false, &details);
        for line in [
            "live       yes",
            "ready      no",
            "audit      ok",
            "authority  stale",
            "NAME  STATE              SESSIONS",
            "main  lost \\u{1b}[32mok  4",
            "NAME  STATE   IN SERVICE",
            "k1    active  no",
        ] {
            assert!(text.lines().any(|shown| shown == line), "`{line}` is not in:\n{text}");
        }
    }
}
