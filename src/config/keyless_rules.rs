//! What `[keyless]`, `[timestamps]` and the tenants' share of them must agree with.

use super::tree::Step;
use super::validate::{DAY, HOUR, MAX_SKEW, MINUTE, Report, key, known};
use super::{
    ClientAuthentication, ClientCredentials, Config, Identity, IdentitySource, KeyState, Keyless, SigningMode,
    TenantKeyless, Timestamps, rules,
};

/// Every problem of keyless signing and of timestamps.
pub(super) fn judge(config: &Config, report: &mut Report<'_>) {
    if let Some(keyless) = &config.keyless {
        fulcio(keyless, config, report);
        if keyless.reuse.is_on() {
            reuse(keyless, report);
        }
        exceptions(keyless, report);
        for (name, identity) in &keyless.identity {
            judge_identity(name, identity, config, report);
        }
    }
    for (tid, tenant) in &config.tenants {
        match &tenant.keyless {
            Some(settings) => tenant_settings(tid, settings, config, report),
            None if tenant.default_mode == SigningMode::Keyless => {
                let message = "the tenant has no settings for it; add [tenants.TID.keyless] with `identity` and `san`, \
                               or write \"kms\"";
                report.problem(key!["tenants", tid, "default_mode"], message);
            }
            None => {}
        }
    }
    if let Some(timestamps) = &config.timestamps {
        judge_timestamps(timestamps, config, report);
    }
}

impl Config {
    /// Whether anything is to be signed by a key in a token.
    pub(super) fn needs_tokens(&self) -> bool {
        self.tenants.is_empty()
            || self.tenants.values().any(|tenant| {
                tenant.default_mode == SigningMode::Kms || tenant.keyless.is_none() || !tenant.keys.is_empty()
            })
    }
}

fn fulcio(keyless: &Keyless, config: &Config, report: &mut Report<'_>) {
    let scheme = if keyless.fulcio_url.starts_with("http:") { "http" } else { "https" };
    let origin = rules::origin(&keyless.fulcio_url, scheme, "https://fulcio.example");
    report.expect(key!["keyless", "fulcio_url"], origin.and_then(|()| rules::outbound_url(&keyless.fulcio_url)));
    match &keyless.ca {
        Some(ca) => report.expect(key!["keyless", "ca"], rules::absolute(ca)),
        None if scheme == "https" => {
            let message = "is missing; name the PEM bundle of the CA that vouches for Fulcio's own TLS certificate";
            report.problem(key!["keyless", "ca"], message);
        }
        None => {}
    }
    if let Some(proxy) = &keyless.proxy {
        report.expect(key!["keyless", "proxy"], rules::origin(proxy, "http", "http://proxy.example:3128"));
        if scheme == "http" {
            let message = "`fulcio_url` is http, so that the identity token would pass the proxy in clear; write https \
                           there, or take the proxy out";
            report.problem(key!["keyless", "proxy"], message);
        }
    }
    report.expect(key!["keyless", "trusted_root"], rules::absolute(&keyless.trusted_root));
    if let Some(helper) = &keyless.helper {
        report.expect(key!["keyless", "helper"], rules::absolute(helper));
    }
    for (field, span, most) in [
        ("max_certificate_lifetime", keyless.max_certificate_lifetime, DAY),
        ("clock_skew", keyless.clock_skew, MAX_SKEW),
        ("connect_timeout", keyless.connect_timeout, MINUTE),
        ("step_timeout", keyless.step_timeout, MINUTE),
        ("sign_timeout", keyless.sign_timeout, MINUTE),
    ] {
        report.expect(key!["keyless", field], rules::at_most(span.get(), most));
    }
    report.expect(key!["keyless", "circuit", "open_for"], rules::at_most(keyless.circuit.open_for.get(), HOUR));
    for (field, value, most) in [
        ("max_flows", keyless.max_flows, 1000),
        ("max_waiting", keyless.max_waiting, 100_000),
        ("attempts", keyless.attempts, 10),
    ] {
        if value.get() > most {
            report.problem(key!["keyless", field], format!("{value} is out of range; write at most {most}"));
        }
    }
    let whole = config.server.limits.request_timeout;
    if keyless.sign_timeout >= whole {
        let message = format!(
            "{:?} for a signature is not less than the {:?} that `server.limits.request_timeout` leaves the whole request; write less",
            keyless.sign_timeout.get(),
            whole.get()
        );
        report.problem(key!["keyless", "sign_timeout"], message);
    }
}

fn reuse(keyless: &Keyless, report: &mut Report<'_>) {
    let reuse = &keyless.reuse;
    let life = keyless.max_certificate_lifetime.get();
    if reuse.max_signatures.get() > 1_000_000 {
        let message = format!("{} is out of range; write at most 1000000", reuse.max_signatures);
        report.problem(key!["keyless", "reuse", "max_signatures"], message);
    }
    // A certificate that is never good for a second signature is a mistake, not a policy.
    if reuse.margin.get() >= life {
        let message = format!(
            "{:?} is the whole life of a certificate (`max_certificate_lifetime` is {life:?}); write less",
            reuse.margin.get()
        );
        report.problem(key!["keyless", "reuse", "margin"], message);
    } else if reuse.max_age.get() > life - reuse.margin.get() {
        let message = format!(
            "{:?} and the `margin` of {:?} are longer than a certificate lives ({life:?}); write less",
            reuse.max_age.get(),
            reuse.margin.get()
        );
        report.problem(key!["keyless", "reuse", "max_age"], message);
    }
}

fn exceptions(keyless: &Keyless, report: &mut Report<'_>) {
    // Neither can be had without it by a process that has no capability.
    let excepted = |name: &str| keyless.sandbox_exception.iter().position(|exception| exception.layer == name);
    if let Some(i) = excepted("no-new-privileges")
        && (excepted("landlock").is_none() || excepted("seccomp").is_none())
    {
        let message = "`landlock` and `seccomp` need it; except them as well, each with its reason, or take this out";
        report.problem(key!["keyless", "sandbox_exception", i, "layer"], message);
    }
    for (i, exception) in keyless.sandbox_exception.iter().enumerate() {
        let layer = key!["keyless", "sandbox_exception", i, "layer"];
        report.expect(layer, crate::keyless::judge_layer(&exception.layer));
        report.expect(key!["keyless", "sandbox_exception", i, "reason"], rules::label(&exception.reason, 1024));
        if keyless.sandbox_exception[..i].iter().any(|earlier| earlier.layer == exception.layer) {
            report.problem(layer, format!("`{}` is excepted twice; write it once", exception.layer));
        }
    }
}

fn judge_identity(name: &String, identity: &Identity, config: &Config, report: &mut Report<'_>) {
    report.expect(key!["keyless", "identity", name], rules::name(name));
    report.expect(key!["keyless", "identity", name, "issuer"], rules::issuer(&identity.issuer));
    report.expect(key!["keyless", "identity", name, "audience"], rules::label(&identity.audience, 256));
    if identity.audience.contains('*') {
        let message = "a wildcard matches nothing; write Fulcio's client id, as in \"sigstore\"";
        report.problem(key!["keyless", "identity", name, "audience"], message);
    }
    for (field, span, most) in [("refresh_before", identity.refresh_before, HOUR), ("max_age", identity.max_age, DAY)] {
        report.expect(key!["keyless", "identity", name, field], rules::at_most(span.get(), most));
    }
    match &identity.source {
        IdentitySource::File(file) => {
            report.expect(key!["keyless", "identity", name, "source", "file"], rules::absolute(file));
        }
        IdentitySource::Credential(credential) => {
            report.expect(key!["keyless", "identity", name, "source", "credential"], rules::name(credential));
        }
        IdentitySource::ClientCredentials(client) => client_credentials(name, client, config, report),
    }
}

fn client_credentials(name: &String, client: &ClientCredentials, config: &Config, report: &mut Report<'_>) {
    let at = |field: &str| -> Vec<Step> {
        key!["keyless", "identity", name, "source", "client_credentials", field].to_vec()
    };
    report.expect(&at("token_url"), rules::https_url(&client.token_url));
    report.expect(&at("ca"), rules::absolute(&client.ca));
    report.expect(&at("client_id"), rules::label(&client.client_id, 256));
    report.expect(&at("timeout"), rules::at_most(client.timeout.get(), MINUTE));
    for (field, value) in [("scope", &client.scope), ("resource", &client.resource), ("audience", &client.audience)] {
        if let Some(value) = value {
            report.expect(&at(field), rules::label(value, 1024));
        }
    }
    let within = |way: &str, field: &str| -> Vec<Step> {
        let mut path = at("authentication");
        path.extend([Step::from(way), Step::from(field)]);
        path
    };
    match &client.authentication {
        ClientAuthentication::Mtls(own) => {
            report.expect(&within("mtls", "certificate"), rules::absolute(&own.certificate));
            report.expect(&within("mtls", "private_key"), rules::absolute(&own.private_key));
        }
        ClientAuthentication::PrivateKeyJwt(assertion) => {
            let path = within("private_key_jwt", "key");
            known(&path, "key", &assertion.key, config.keys.keys(), report);
            if let Some(key) = config.keys.get(&assertion.key)
                && key.state != KeyState::Active
            {
                let message = format!("key `{}` does not sign; its `state` must be \"active\"", assertion.key);
                report.problem(&path, message);
            }
            // Whoever can have evidence signed must not come near a signature that the Authority takes for ours.
            let owner = config.tenants.iter().find(|(_, tenant)| tenant.keys.contains(&assertion.key));
            if let Some((tid, _)) = owner {
                let message = format!("tenant `{tid}` signs with this key; name one that no tenant has");
                report.problem(&path, message);
            }
            for (field, value) in [("kid", &assertion.kid), ("audience", &assertion.audience)] {
                if let Some(value) = value {
                    report.expect(&within("private_key_jwt", field), rules::label(value, 1024));
                }
            }
        }
    }
}

fn tenant_settings(tid: &String, settings: &TenantKeyless, config: &Config, report: &mut Report<'_>) {
    let Some(keyless) = &config.keyless else {
        let message = "this appliance has no Fulcio to ask; add [keyless], or take this section out";
        return report.problem(key!["tenants", tid, "keyless"], message);
    };
    let identity = key!["tenants", tid, "keyless", "identity"];
    known(identity, "identity", &settings.identity, keyless.identity.keys(), report);
    report.expect(key!["tenants", tid, "keyless", "san"], rules::subject_alternative_name(&settings.san));
    if let Some(issuer) = &settings.issuer {
        report.expect(key!["tenants", tid, "keyless", "issuer"], rules::issuer(issuer));
    }
}

fn judge_timestamps(timestamps: &Timestamps, config: &Config, report: &mut Report<'_>) {
    report.expect(key!["timestamps", "trusted_root"], rules::absolute(&timestamps.trusted_root));
    report.expect(key!["timestamps", "timeout"], rules::at_most(timestamps.timeout.get(), MINUTE));
    if timestamps.timeout >= config.server.limits.request_timeout {
        let message = "it is not less than `server.limits.request_timeout`; write less";
        report.problem(key!["timestamps", "timeout"], message);
    }
    if timestamps.authority.is_empty() {
        let message = "there is no authority to ask; add [timestamps.authority.NAME], or take this section out";
        report.problem(key!["timestamps", "authority"], message);
    }
    if timestamps.authority.len() > MAX_AUTHORITIES {
        let message = format!("more than {MAX_AUTHORITIES} authorities serve nobody; take some out");
        report.problem(key!["timestamps", "authority"], message);
    }
    for (name, authority) in &timestamps.authority {
        report.expect(key!["timestamps", "authority", name], rules::name(name));
        report.expect(key!["timestamps", "authority", name, "url"], rules::outbound_url(&authority.url));
        if let Some(ca) = &authority.ca {
            report.expect(key!["timestamps", "authority", name, "ca"], rules::absolute(ca));
        }
    }
}

const MAX_AUTHORITIES: usize = 8;
