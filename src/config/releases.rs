//! What the schema cannot say of `[release]`.

use std::collections::BTreeSet;
use std::time::Duration;

use super::validate::{Report, key};
use super::{Config, Notation, ReleaseIdentity, Repository, rules};

pub(super) fn judge(config: &Config, report: &mut Report<'_>) {
    let release = &config.release;
    let mut seen = BTreeSet::new();
    for (i, trusted) in release.trusted.iter().enumerate() {
        report.expect(key!["release", "trusted", i, "digest"], rules::image_digest(&trusted.digest));
        report.expect(key!["release", "trusted", i, "signed_by"], rules::label(&trusted.signed_by, 256));
        report.expect(key!["release", "trusted", i, "reason"], rules::label(&trusted.reason, 1024));
        if !seen.insert(&trusted.digest) {
            report.problem(key!["release", "trusted", i, "digest"], "this digest is listed twice; write it once");
        }
    }
    for (i, revoked) in release.revoked.iter().enumerate() {
        report.expect(key!["release", "revoked", i, "digest"], rules::image_digest(&revoked.digest));
        report.expect(key!["release", "revoked", i, "reason"], rules::label(&revoked.reason, 1024));
        if seen.contains(&revoked.digest) {
            let message = "this digest is also under [[release.trusted]]; take it out of one of them";
            report.problem(key!["release", "revoked", i, "digest"], message);
        }
    }
    let mut names = BTreeSet::new();
    for (i, identity) in release.identity.iter().enumerate() {
        one_identity(i, identity, report);
        if !names.insert(&identity.name) {
            report.problem(key!["release", "identity", i, "name"], "another identity has this name; give each its own");
        }
    }
    let mut urls = BTreeSet::new();
    for (i, repository) in release.repository.iter().enumerate() {
        one_repository(i, repository, report);
        if !urls.insert(&repository.url) {
            report.problem(key!["release", "repository", i, "url"], "this repository is listed twice; write it once");
        }
    }
    if let Some(snapshot) = &release.snapshot {
        report.expect(key!["release", "snapshot", "file"], rules::absolute(&snapshot.file));
        report.expect(key!["release", "snapshot", "public_key"], rules::absolute(&snapshot.public_key));
        report.expect(key!["release", "snapshot", "max_age"], rules::at_most(snapshot.max_age.get(), YEAR));
    }
    let sources = !release.repository.is_empty() || release.snapshot.is_some();
    if sources && release.identity.is_empty() {
        let message = "no signature would count, since nobody is named who signs releases; add [[release.identity]]";
        if release.repository.is_empty() {
            report.problem(key!["release", "snapshot"], message);
        } else {
            report.problem(key!["release", "repository", 0], message);
        }
    }
    if !sources && !release.identity.is_empty() {
        let message = "its signatures are found nowhere; add [[release.repository]] or [release.snapshot]";
        report.problem(key!["release", "identity", 0], message);
    }
    for (what, many, most) in [("identity", release.identity.len(), 32), ("repository", release.repository.len(), 8)] {
        if many > most {
            report.problem(key!["release", what], format!("{many} are too many for one look-up; write at most {most}"));
        }
    }
    report.expect(key!["release", "trusted_ttl"], rules::at_most(release.trusted_ttl.get(), DAY));
    report.expect(key!["release", "untrusted_ttl"], rules::at_most(release.untrusted_ttl.get(), HOUR));
    let whole = config.server.limits.request_timeout;
    if release.timeout >= whole {
        let message = format!(
            "{:?} for a repository is not less than the {:?} that `server.limits.request_timeout` leaves the whole request; write less",
            release.timeout.get(),
            whole.get()
        );
        report.problem(key!["release", "timeout"], message);
    }
}

fn one_identity(i: usize, identity: &ReleaseIdentity, report: &mut Report<'_>) {
    let here = key!["release", "identity", i];
    report.expect(key!["release", "identity", i, "name"], rules::label(&identity.name, 256));
    match (&identity.public_key, &identity.san, &identity.issuer, &identity.notation) {
        (Some(key), None, None, None) => report.expect(key!["release", "identity", i, "public_key"], rules::absolute(key)),
        (None, Some(san), Some(issuer), None) => {
            report.expect(key!["release", "identity", i, "san"], rules::label(san, 1024));
            report.expect(key!["release", "identity", i, "issuer"], rules::label(issuer, 1024));
            if identity.trusted_root.is_none() {
                let message = "`trusted_root` is missing, which says whose certificates count; name a trusted_root.json";
                report.problem(here, message);
            }
        }
        (None, None, None, Some(notation)) => one_notation(i, identity, notation, report),
        _ => report.problem(
            here,
            "it must be known by its key or by its certificate; write `public_key`, or `san` and `issuer`, or `notation`, \
             and one of them only",
        ),
    }
    match &identity.trusted_root {
        _ if identity.notation.is_some() => {}
        Some(root) => report.expect(key!["release", "identity", i, "trusted_root"], rules::absolute(root)),
        None if identity.require_time => {
            let message = "nothing could prove the time; name a `trusted_root` with time stamp authorities or logs";
            report.problem(key!["release", "identity", i, "require_time"], message);
        }
        None => {}
    }
    if identity.not_before.is_some() && !proves_a_beginning(identity) {
        let message = "nothing proves that a signature was not made earlier; give signatures from then on a key or \
                       certificate of their own";
        report.problem(key!["release", "identity", i, "not_before"], message);
    }
    if let (Some(start), Some(end)) = (identity.not_before, identity.not_after)
        && end <= start
    {
        let message = "it ends before it begins; write a moment after `not_before`";
        report.problem(key!["release", "identity", i, "not_after"], message);
    }
}

/// Whether its signatures cannot be older than they seem. Time stamps and logs prove that a signature was there already,
/// and an old one can be stamped today. A certificate of Fulcio is for one signature, made in its few minutes; and a signing
/// authority states the time in what it signs.
fn proves_a_beginning(identity: &ReleaseIdentity) -> bool {
    match &identity.notation {
        Some(notation) => notation.ca.is_none(),
        None => identity.public_key.is_none(),
    }
}

fn one_notation(i: usize, identity: &ReleaseIdentity, notation: &Notation, report: &mut Report<'_>) {
    let here = key!["release", "identity", i, "notation"];
    for (key, file) in
        [("ca", &notation.ca), ("signing_authority", &notation.signing_authority), ("tsa", &notation.tsa)]
    {
        if let Some(file) = file {
            report.expect(key!["release", "identity", i, "notation", key], rules::absolute(file));
        }
    }
    if notation.ca.is_none() && notation.signing_authority.is_none() {
        report.problem(here, "it has no trust store; write `ca`, `signing_authority`, or both");
    }
    if identity.trusted_root.is_some() {
        let message = "it is for cosign's signatures; time stamps of notation's are verified by `notation.tsa`";
        report.problem(key!["release", "identity", i, "trusted_root"], message);
    }
    if identity.require_time && notation.tsa.is_none() && notation.signing_authority.is_none() {
        let message = "nothing could prove the time; name `notation.tsa` or `notation.signing_authority`";
        report.problem(key!["release", "identity", i, "require_time"], message);
    }
    if let Err((at, why)) = crate::release::check_trusted_identities(&notation.trusted_identities) {
        let place = if notation.trusted_identities.is_empty() {
            key!["release", "identity", i, "notation", "trusted_identities"].to_vec()
        } else {
            key!["release", "identity", i, "notation", "trusted_identities", at].to_vec()
        };
        report.problem(&place, why);
    }
    for (j, revoked) in notation.revoked.iter().enumerate() {
        report.expect(key!["release", "identity", i, "notation", "revoked", j], rules::certificate_key_digest(revoked));
    }
    let many = notation.trusted_identities.len().max(notation.revoked.len());
    if many > 256 {
        report.problem(here, format!("a list of {many} is too long for one identity; write at most 256"));
    }
}

fn one_repository(i: usize, repository: &Repository, report: &mut Report<'_>) {
    let url = key!["release", "repository", i, "url"];
    match rules::outbound_url(&repository.url) {
        Ok(()) if crate::release::registry::repository_of(&repository.url).is_none() => {
            let message = "it names no repository; write the registry and the repository in it, without tag or digest, \
                           as in \"https://registry.example/team/scanner\"";
            report.problem(url, message);
        }
        judged => report.expect(url, judged),
    }
    for (key, file) in [
        ("ca", &repository.ca),
        ("certificate", &repository.certificate),
        ("private_key", &repository.private_key),
        ("credentials", &repository.credentials),
    ] {
        if let Some(file) = file {
            report.expect(key!["release", "repository", i, key], rules::absolute(file));
        }
    }
    if repository.certificate.is_some() != repository.private_key.is_some() {
        let message = "`certificate` and `private_key` go together; write both or neither";
        report.problem(key!["release", "repository", i], message);
    }
    if let Some(service) = &repository.token_service {
        report.expect(key!["release", "repository", i, "token_service"], rules::outbound_url(service));
    }
    for (j, origin) in repository.redirects.iter().enumerate() {
        let place = key!["release", "repository", i, "redirects", j];
        let authority_only = origin
            .parse::<http::Uri>()
            .is_ok_and(|uri| matches!(uri.path(), "" | "/") && uri.query().is_none() && !origin.ends_with('/'));
        match rules::outbound_url(origin) {
            Ok(()) if !authority_only => {
                report.problem(place, "it has a path; write scheme, host and port, as in \"https://storage.example\"");
            }
            judged => report.expect(place, judged),
        }
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);
