//! What the schema cannot say: values that must agree with each other, and names that must exist.
//!
//! Pure: judges the configuration alone. What it names on disk is looked at by [`super::files`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::error::{ConfigError, listed, nearest};
use super::tree::{Node, Step, dotted};
use super::{
    Authority, Config, JwksSource, KeyState, Licensing, LocalListen, Server, SigningMode, Span, profile, rules,
};
use crate::statement::catalog::Allowed;

/// Every problem of `config`; `tree` knows where each value was written.
pub(super) fn problems(config: &Config, tree: &Node) -> Vec<ConfigError> {
    let mut report = Report { tree, errors: Vec::new() };
    server(&config.server, &mut report);
    authority(&config.authority, &mut report);
    licensing(&config.licensing, &mut report);
    plans(config, &mut report);
    super::releases::judge(config, &mut report);
    tokens(config, &mut report);
    super::keys::judge(config, &mut report);
    super::keyless_rules::judge(config, &mut report);
    custody(config, &mut report);
    tenants(config, &mut report);
    audit_and_log(config, &mut report);
    report.errors
}

/// Collects problems with the place of the value that each is about.
pub(super) struct Report<'a> {
    pub(super) tree: &'a Node,
    pub(super) errors: Vec<ConfigError>,
}

impl Report<'_> {
    pub(super) fn problem(&mut self, path: &[Step], message: impl Into<String>) {
        let origin = self.tree.origin_of(path).clone();
        self.errors.push(ConfigError { origin, key: dotted(path), message: message.into() });
    }

    pub(super) fn expect(&mut self, path: &[Step], judged: Result<(), String>) {
        if let Err(message) = judged {
            self.problem(path, message);
        }
    }
}

/// The path of one value: keys and indices.
macro_rules! key {
    ($($step:expr),+ $(,)?) => { &[$(crate::config::tree::Step::from($step)),+] };
}
pub(super) use key;

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<&String> for Step {
    fn from(key: &String) -> Self {
        Self::Key(key.clone())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

fn server(server: &Server, report: &mut Report<'_>) {
    report.expect(key!["server", "public_url"], rules::public_url(&server.public_url));
    match &server.local_listen {
        LocalListen::Unix(socket) => report.expect(key!["server", "local_listen"], rules::socket(socket)),
        LocalListen::Tcp(local) if *local == server.listen && local.port() != 0 => report.problem(
            key!["server", "local_listen"],
            format!("{local} is the Signer API's own address; write another port, as in \"127.0.0.1:9443\""),
        ),
        LocalListen::Tcp(_) => {}
    }
    if let Some(threads) = server.threads.filter(|threads| threads.get() > 128) {
        report.problem(key!["server", "threads"], format!("{threads} event loops help nobody; write at most 128"));
    }
    let tls = &server.tls;
    for (key, file) in
        [("certificate", &tls.certificate), ("private_key", &tls.private_key), ("client_ca", &tls.client_ca)]
    {
        report.expect(key!["server", "tls", key], rules::absolute(file));
    }
    for (i, crl) in tls.client_crl.iter().enumerate() {
        report.expect(key!["server", "tls", "client_crl", i], rules::absolute(crl));
    }

    let limits = &server.limits;
    for (key, span) in [
        ("handshake_timeout", limits.handshake_timeout),
        ("header_timeout", limits.header_timeout),
        ("body_timeout", limits.body_timeout),
        ("idle_timeout", limits.idle_timeout),
        ("request_timeout", limits.request_timeout),
    ] {
        report.expect(key!["server", "limits", key], rules::at_most(span.get(), HOUR));
    }
    let header = limits.max_header_bytes.get();
    if !(4 << 10..=1 << 20).contains(&header) {
        let message = format!("{} is out of range; write between \"4 KiB\" and \"1 MiB\"", limits.max_header_bytes);
        report.problem(key!["server", "limits", "max_header_bytes"], message);
    }
    if limits.max_body_bytes.get() > MAX_BODY {
        let message = format!("{} is out of range; write at most \"255 MiB\"", limits.max_body_bytes);
        report.problem(key!["server", "limits", "max_body_bytes"], message);
    }
    if limits.max_body_bytes_in_flight < limits.max_body_bytes {
        let (all, one) = (limits.max_body_bytes_in_flight, limits.max_body_bytes);
        report.problem(
            key!["server", "limits", "max_body_bytes_in_flight"],
            format!("{all} for all bodies is less than the {one} that `max_body_bytes` lets one have; write at least \"{one}\""),
        );
    }
}

fn authority(authority: &Authority, report: &mut Report<'_>) {
    report.expect(key!["authority", "issuer"], rules::issuer(&authority.issuer));
    let audience = rules::label(&authority.audience, 256);
    report.expect(key!["authority", "audience"], audience);
    if authority.audience.contains('*') {
        let message = "a wildcard would accept tokens meant for others; write the one audience of this service";
        report.problem(key!["authority", "audience"], message);
    }
    if authority.scope.is_empty() || authority.scope.chars().any(|c| c.is_whitespace() || c.is_control()) {
        report.problem(key!["authority", "scope"], "this is not one scope; write a single one, as in \"signer.sign\"");
    }
    match &authority.jwks {
        JwksSource::Discovery(url) => report.expect(key!["authority", "jwks", "discovery"], rules::outbound_url(url)),
        JwksSource::Url(url) => report.expect(key!["authority", "jwks", "url"], rules::outbound_url(url)),
        JwksSource::File(file) => report.expect(key!["authority", "jwks", "file"], rules::absolute(file)),
    }
    algorithms(key!["authority", "algorithms"], &authority.algorithms, report);
    report.expect(key!["authority", "clock_skew"], rules::at_most(authority.clock_skew.get(), MAX_SKEW));
    report.expect(key!["authority", "max_token_lifetime"], rules::at_most(authority.max_token_lifetime.get(), DAY));
    report.expect(key!["authority", "jwks_max_stale"], rules::at_most(authority.jwks_max_stale.get(), WEEK));
    not_less(
        key!["authority", "jwks_max_stale"],
        authority.jwks_max_stale,
        "jwks_refresh",
        authority.jwks_refresh,
        report,
    );
    match (&authority.ca, &authority.jwks) {
        (Some(ca), _) => report.expect(key!["authority", "ca"], rules::absolute(ca)),
        (None, JwksSource::Discovery(url) | JwksSource::Url(url)) if url.starts_with("https:") => {
            let message = "is missing, so that any public CA could vouch for the Authority; name the PEM bundle of the one that does";
            report.problem(key!["authority", "ca"], message);
        }
        (None, _) => {}
    }
    let dpop = &authority.dpop;
    report.expect(key!["authority", "dpop", "nonce_lifetime"], rules::at_most(dpop.nonce_lifetime.get(), HOUR));
    report.expect(key!["authority", "dpop", "iat_window"], rules::at_most(dpop.iat_window.get(), MAX_SKEW));
    if dpop.max_remembered_proofs.get() < 1000 {
        let message = "a handful of proofs is full at once and every further request is refused; write at least 1000";
        report.problem(key!["authority", "dpop", "max_remembered_proofs"], message);
    }
}

fn licensing(licensing: &Licensing, report: &mut Report<'_>) {
    report.expect(key!["licensing", "clock_skew"], rules::at_most(licensing.clock_skew.get(), MAX_SKEW));
    if licensing.offline.is_none() && licensing.online.is_none() {
        let message = "no PoE can be proven; add [licensing.offline] or [licensing.online]";
        report.problem(key!["licensing"], message);
    }
    if let Some(offline) = &licensing.offline {
        report.expect(key!["licensing", "offline", "issuer"], rules::label(&offline.issuer, 1024));
        report.expect(key!["licensing", "offline", "keys"], rules::absolute(&offline.keys));
        report.expect(key!["licensing", "offline", "revocation_list"], rules::absolute(&offline.revocation_list));
        algorithms(key!["licensing", "offline", "algorithms"], &offline.algorithms, report);
    }
    if let Some(online) = &licensing.online {
        let url = key!["licensing", "online", "introspection_url"];
        report.expect(url, rules::outbound_url(&online.introspection_url));
        for (key, file) in
            [("ca", &online.ca), ("certificate", &online.certificate), ("private_key", &online.private_key)]
        {
            report.expect(key!["licensing", "online", key], rules::absolute(file));
        }
        report.expect(key!["licensing", "online", "cache_ttl"], rules::at_most(online.cache_ttl.get(), DAY));
        let negative = key!["licensing", "online", "negative_cache_ttl"];
        report.expect(negative, rules::at_most(online.negative_cache_ttl.get(), HOUR));
        report.expect(key!["licensing", "online", "timeout"], rules::at_most(online.timeout.get(), MINUTE));
    }
}

fn plans(config: &Config, report: &mut Report<'_>) {
    let most = config.server.limits.max_body_bytes;
    for (name, plan) in &config.plans {
        report.expect(key!["plans", name], rules::label(name, 64));
        if plan.max_artifact_bytes > most {
            report.problem(
                key!["plans", name, "max_artifact_bytes"],
                format!(
                    "{} can never be used, since server.limits.max_body_bytes is {most}; write at most \"{most}\" or raise that",
                    plan.max_artifact_bytes
                ),
            );
        }
    }
}

fn tokens(config: &Config, report: &mut Report<'_>) {
    if config.tokens.is_empty() && config.needs_tokens() {
        report.problem(key!["tokens"], "there is no token to sign with; add [tokens.NAME]");
    }
    let mut sockets: BTreeMap<&Path, &str> = BTreeMap::new();
    for (name, token) in &config.tokens {
        report.expect(key!["tokens", name], rules::name(name));
        report.expect(key!["tokens", name, "socket"], rules::socket(&token.socket));
        report.expect(key!["tokens", name, "front_user"], rules::label(&token.front_user, 64));
        report.expect(key!["tokens", name, "worker_user"], rules::label(&token.worker_user, 64));
        if let Err(error) = token.backend() {
            report.problem(key!["tokens", name, error.key], error.message);
        }
        for (key, file) in token.files() {
            report.expect(key!["tokens", name, key], rules::absolute(file));
        }
        if let Some(uri) = &token.uri {
            report.expect(key!["tokens", name, "uri"], rules::token_uri(uri));
        }
        report.expect(key!["tokens", name, "sign_timeout"], rules::at_most(token.sign_timeout.get(), MINUTE));
        if let Some(sha256) = &token.module_sha256 {
            report.expect(key!["tokens", name, "module_sha256"], rules::sha256(sha256));
        }
        for (field, span, most) in [
            ("call_timeout", token.call_timeout, 5 * MINUTE),
            ("login_timeout", token.login_timeout, 5 * MINUTE),
            ("keep_alive", token.keep_alive, HOUR),
        ] {
            if let Some(span) = span {
                report.expect(key!["tokens", name, field], rules::at_most(span.get(), most));
            }
        }
        profile::sessions(name, token, report);
        let whole = config.server.limits.request_timeout;
        if token.sign_timeout >= whole {
            let message = format!(
                "{:?} for a signature is not less than the {:?} that `server.limits.request_timeout` leaves the whole request; write less",
                token.sign_timeout.get(),
                whole.get()
            );
            report.problem(key!["tokens", name, "sign_timeout"], message);
        }
        if token.max_queue.get() > 1_000_000 {
            let message = format!("{} requests cannot wait at once; write at most 1000000", token.max_queue);
            report.problem(key!["tokens", name, "max_queue"], message);
        }
        if let Some(other) = sockets.insert(&token.socket, name) {
            let message = format!("token `{other}` has the same socket; give each worker its own");
            report.problem(key!["tokens", name, "socket"], message);
        }
    }
}

fn tenants(config: &Config, report: &mut Report<'_>) {
    if config.tenants.is_empty() {
        report.problem(key!["tenants"], "nobody may sign; add [tenants.TID] with the `tid` of the tenant's tokens");
    }
    for (tid, tenant) in &config.tenants {
        report.expect(key!["tenants", tid], rules::label(tid, 128));
        let mut seen = BTreeSet::new();
        for (i, key) in tenant.keys.iter().enumerate() {
            known(key!["tenants", tid, "keys", i], "key", key, config.keys.keys(), report);
            if !seen.insert(key) {
                report.problem(key!["tenants", tid, "keys", i], format!("`{key}` is listed twice; write it once"));
            }
        }
        if seen.iter().all(|key| config.keys.contains_key(*key)) && tenant.default_mode == SigningMode::Kms {
            signing_keys(config, tid, &seen, report);
        }
        if tenant.predicate_types.is_empty() {
            let message =
                "the tenant may have nothing signed; list predicate types, or write [\"*\"] for the whole catalog";
            report.problem(key!["tenants", tid, "predicate_types"], message);
        }
        let mut seen = BTreeSet::new();
        for (i, predicate_type) in tenant.predicate_types.iter().enumerate() {
            let judged = Allowed::new(std::slice::from_ref(predicate_type)).map(drop);
            report.expect(key!["tenants", tid, "predicate_types", i], judged.map_err(|error| error.to_string()));
            if !seen.insert(predicate_type) {
                let message = format!("`{predicate_type}` is listed twice; write it once");
                report.problem(key!["tenants", tid, "predicate_types", i], message);
            }
        }
    }
}

/// Exactly one key signs at any time between the first beginning and the last end.
fn signing_keys(config: &Config, tid: &str, names: &BTreeSet<&String>, report: &mut Report<'_>) {
    let here = key!["tenants", tid, "keys"];
    let mut active: Vec<_> = names
        .iter()
        .filter_map(|name| config.keys.get(*name).map(|key| (name.as_str(), key)))
        .filter(|(_, key)| key.state == KeyState::Active)
        .collect();
    if active.is_empty() {
        let message = "none of the tenant's keys signs; list one whose `state` is \"active\"";
        return report.problem(here, message);
    }
    active.sort_by_key(|(_, key)| key.not_before);
    for pair in active.windows(2) {
        let [(earlier, first), (later, second)] = pair else { continue };
        match (first.not_after, second.not_before) {
            (Some(end), Some(start)) if end < start => {
                let message = format!(
                    "nobody signs between the end of `{earlier}` ({end}) and the beginning of `{later}` ({start})"
                );
                report.problem(here, format!("{message}; let one end when the next begins"));
            }
            (Some(end), Some(start)) if end == start => {}
            _ => report.problem(
                here,
                format!(
                    "both `{earlier}` and `{later}` sign at once; make one of them \"next\" or \"retired\", \
                     or let `not_after` of one be `not_before` of the other"
                ),
            ),
        }
    }
}

fn custody(config: &Config, report: &mut Report<'_>) {
    let custody = &config.custody;
    report.expect(key!["custody", "canary_interval"], rules::at_most(custody.canary_interval.get(), HOUR));
    report.expect(key!["custody", "canary_slow"], rules::at_most(custody.canary_slow.get(), MINUTE));
    report.expect(key!["custody", "check_interval"], rules::at_most(custody.check_interval.get(), DAY));
    if let Some(file) = &custody.drained_file {
        report.expect(key!["custody", "drained_file"], rules::absolute(file));
    }
}

fn audit_and_log(config: &Config, report: &mut Report<'_>) {
    report.expect(key!["audit", "path"], rules::absolute(&config.audit.path));
    if let Some(history) = &config.custody.history {
        report.expect(key!["custody", "history"], rules::absolute(history));
    }
    let most = Duration::from_millis(100);
    report.expect(key!["audit", "group_commit"], rules::at_most(config.audit.group_commit.get(), most));
    if let Some(filter) = &config.log.filter
        && let Err(error) = tracing_subscriber::EnvFilter::try_new(filter)
    {
        let message = format!("this is no filter ({error}); write one like \"info,stellaops_signer::auth=debug\"");
        report.problem(key!["log", "filter"], message);
    }
}

fn algorithms(path: &[Step], list: &[crate::jose::Algorithm], report: &mut Report<'_>) {
    if list.is_empty() {
        report.problem(path, "no signature would be accepted; list at least one, as in [\"ES256\"]");
    }
}

fn not_less(path: &[Step], value: Span, other_key: &str, other: Span, report: &mut Report<'_>) {
    if value < other {
        let (value, other) = (value.get(), other.get());
        report.problem(path, format!("{value:?} is shorter than `{other_key}` ({other:?}); write at least that"));
    }
}

pub(super) fn known<'a>(
    path: &[Step],
    what: &str,
    name: &str,
    names: impl Iterator<Item = &'a String> + Clone,
    report: &mut Report<'_>,
) {
    if names.clone().any(|known| known == name) {
        return;
    }
    let meant = nearest(name, names.clone().map(String::as_str)).map(|meant| format!("did you mean `{meant}`? "));
    let have = listed(names.map(String::as_str));
    let have = if have.is_empty() { "none".to_owned() } else { have };
    report.problem(path, format!("there is no {what} `{name}`; {}configured: {have}", meant.unwrap_or_default()));
}

/// What the strict JSON reader addresses is below 256 MiB.
const MAX_BODY: u64 = 255 << 20;
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const MAX_SKEW: Duration = Duration::from_secs(300);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
