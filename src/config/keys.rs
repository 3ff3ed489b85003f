//! What `[keys]` must agree with: the tokens that exist, and itself.

use std::collections::{BTreeMap, BTreeSet};

use super::validate::{Report, key, known};
use super::{Config, Key, rules};

/// Every problem of the keys.
pub(super) fn judge(config: &Config, report: &mut Report<'_>) {
    if config.keys.is_empty() && config.needs_tokens() {
        report.problem(key!["keys"], "there is no key to sign with; add [keys.NAME]");
    }
    let mut objects: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for (name, key) in &config.keys {
        report.expect(key!["keys", name], rules::name(name));
        known(key!["keys", name, "token"], "token", &key.token, config.tokens.keys(), report);
        report.expect(key!["keys", name, "uri"], rules::key_uri(&key.uri));
        for (field, file) in [("public_key", &key.public_key), ("certificate_chain", &key.certificate_chain)] {
            if let Some(file) = file {
                report.expect(key!["keys", name, field], rules::absolute(file));
            }
        }
        if let (Some(from), Some(to)) = (key.not_before, key.not_after)
            && from >= to
        {
            let message = format!("the key ends ({to}) before it begins ({from}); write a later moment");
            report.problem(key!["keys", name, "not_after"], message);
        }
        if let Some(other) = objects.insert((&key.token, &key.uri), name) {
            let message = format!("key `{other}` names the same object of the same token; write it once");
            report.problem(key!["keys", name, "uri"], message);
        }
        replicas(name, key, config, &mut objects, report);
        exceptions(name, key, report);
    }
}

fn replicas<'c>(
    name: &'c String,
    key: &'c Key,
    config: &Config,
    objects: &mut BTreeMap<(&'c str, &'c str), &'c str>,
    report: &mut Report<'_>,
) {
    if key.replica.len() >= MAX_TOKENS {
        let message =
            format!("{} more tokens are more than one key needs; write at most {}", key.replica.len(), MAX_TOKENS - 1);
        report.problem(key!["keys", name, "replica"], message);
    }
    let mut tokens = BTreeSet::from([key.token.as_str()]);
    for (i, replica) in key.replica.iter().enumerate() {
        known(key!["keys", name, "replica", i, "token"], "token", &replica.token, config.tokens.keys(), report);
        report.expect(key!["keys", name, "replica", i, "uri"], rules::key_uri(&replica.uri));
        if !tokens.insert(&replica.token) {
            let message = format!("the key is in token `{}` already; name another token", replica.token);
            report.problem(key!["keys", name, "replica", i, "token"], message);
        } else if let Some(other) = objects.insert((&replica.token, &replica.uri), name) {
            let message = format!("key `{other}` names the same object of the same token; write it once");
            report.problem(key!["keys", name, "replica", i, "uri"], message);
        }
    }
}

fn exceptions(name: &String, key: &Key, report: &mut Report<'_>) {
    let mut seen = BTreeSet::new();
    for (i, exception) in key.custody_exception.iter().enumerate() {
        report.expect(key!["keys", name, "custody_exception", i, "reason"], rules::label(&exception.reason, 1024));
        if !seen.insert(exception.attribute) {
            let message = format!("{} is excepted twice; write it once", exception.attribute.name());
            report.problem(key!["keys", name, "custody_exception", i, "attribute"], message);
        }
    }
}

/// Tokens that hold one key.
const MAX_TOKENS: usize = 16;
