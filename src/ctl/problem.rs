//! The error answers of others: problem details of the appliance (RFC 9457), error answers of the Authority
//! (RFC 6749, section 5.2), and what a person can do about them.

use std::fmt;
use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::answer::Answer;
use super::output::plain;

/// Who refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The signing appliance.
    Appliance,
    /// The token issuer.
    Authority,
}

/// An answer that is not a success. Texts of the peer are already fit for a terminal.
#[derive(Debug)]
pub(crate) struct Refusal {
    peer: Peer,
    status: StatusCode,
    code: Option<String>,
    title: Option<String>,
    detail: Option<String>,
    reason: Option<String>,
    audit_id: Option<String>,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// Reads an error answer, whatever its body is.
    pub(crate) fn read(peer: Peer, answer: &Answer) -> Self {
        let body: Body = if is_json(&answer.headers) {
            serde_json::from_slice(&answer.body).unwrap_or_default()
        } else {
            Body::default()
        };
        let shown = |text: Option<String>| text.map(|text| plain(&text)).filter(|text| !text.is_empty());
        Self {
            peer,
            status: answer.status,
            code: shown(body.code.or(body.error)),
            title: shown(body.title.or(body.error_description)),
            detail: shown(body.detail),
            reason: shown(body.reason),
            audit_id: shown(body.audit_id),
            retry_after: retry_after(&answer.headers),
        }
    }

    /// The peer's stable code, or the status class where it gave none.
    pub(crate) fn code(&self) -> &str {
        match &self.code {
            Some(code) => code,
            None if self.is_temporary() => "unavailable",
            None => "refused",
        }
    }

    /// Whether the same request may succeed later.
    pub(crate) fn is_temporary(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS || self.status.is_server_error()
    }

    /// How long the peer asks to wait, where it invites another attempt at all (429 and 503).
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let invites = matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        self.retry_after.filter(|_| invites)
    }

    /// Name and value of what else is known, for people.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = Vec::new();
        let mut fact = |name, value: &Option<String>| {
            if let Some(value) = value {
                facts.push((name, value.clone()));
            }
        };
        fact("detail", &self.detail);
        fact("reason", &self.reason);
        fact("audit id", &self.audit_id);
        fact("retry in", &self.retry_after.map(|wait| format!("{} s", wait.as_secs())));
        facts
    }

    /// The same for `--json`.
    pub(crate) fn describe(&self, error: &mut Value) {
        error["status"] = self.status.as_u16().into();
        for (name, value) in
            [("title", &self.title), ("detail", &self.detail), ("reason", &self.reason), ("auditId", &self.audit_id)]
        {
            if let Some(value) = value {
                error[name] = value.as_str().into();
            }
        }
        if let Some(wait) = self.retry_after {
            error["retryAfterSeconds"] = wait.as_secs().into();
        }
    }

    /// What the caller can do.
    pub(crate) fn remedy(&self) -> Option<&'static str> {
        let known = match self.peer {
            Peer::Appliance => APPLIANCE_REMEDIES,
            Peer::Authority => AUTHORITY_REMEDIES,
        };
        known.iter().find(|(code, _)| *code == self.code()).map(|(_, remedy)| *remedy)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = match self.peer {
            Peer::Appliance => "the appliance",
            Peer::Authority => "the Authority",
        };
        let did = if self.is_temporary() { "cannot serve this now" } else { "refused" };
        write!(f, "{peer} {did}: {} {}", self.status.as_u16(), self.code())?;
        match &self.title {
            Some(title) => write!(f, ", {title}"),
            None => Ok(()),
        }
    }
}

/// Members of both kinds of error answer; strangers are let pass, this is the reading side.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Body {
    code: Option<String>,
    title: Option<String>,
    detail: Option<String>,
    reason: Option<String>,
    audit_id: Option<String>,
    error: Option<String>,
    #[serde(rename = "error_description")]
    error_description: Option<String>,
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(kind)) = headers.get(CONTENT_TYPE).map(|value| value.to_str()) else { return false };
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/problem+json") || kind.eq_ignore_ascii_case("application/json")
}

/// `Retry-After` in seconds (RFC 9110, section 10.2.3); the date form is not used by the appliance and is ignored.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

const APPLIANCE_REMEDIES: &[(&str, &str)] = &[
    (
        "invalid_request",
        "correct the field that the detail names; `signerctl sign --help` lists what each option takes",
    ),
    (
        "invalid_token",
        "fetch a fresh OpTok; it must be bound to --dpop-key or to --cert, name audience and tenant, and clocks must agree",
    ),
    ("insufficient_scope", "ask the Authority for a token with the signing scope (--scope signer.sign)"),
    (
        "entitlement_denied",
        "check the PoE: not expired or revoked, for this tenant and version, bound to the same key as the token",
    ),
    ("release_untrusted", "sign with evidence of a released scanner; --scanner-digest must be the digest of its image"),
    ("predicate_not_allowed", "ask the operator to allow this predicate type for the tenant, or choose another --type"),
    (
        "artifact_too_large",
        "the plan's artifact limit is lower than this request; reduce the document or change the plan",
    ),
    ("plan_throttled", "wait as long as the appliance says, or let --retry-for do it"),
    ("overloaded", "wait as long as the appliance says, or let --retry-for do it"),
    ("signing_unavailable", "the token or its worker is away; `signerctl status` on the appliance says which"),
    ("internal", "give the audit id to the appliance's operator; nothing was signed"),
    ("not_found", "check --url: it must be the Signer API itself, without a path"),
    ("dependency_unavailable", "a service that the appliance asks is away; give the audit id to its operator"),
];

const AUTHORITY_REMEDIES: &[(&str, &str)] = &[
    ("invalid_client", "check --client-id and how the client proves itself: --cert and --key, or --client-key"),
    ("unauthorized_client", "the Authority does not let this client use client_credentials; ask its operator"),
    ("invalid_scope", "check --scope against what the Authority grants this client"),
    ("invalid_target", "check --resource against what the Authority knows"),
    ("invalid_dpop_proof", "check the clock of this machine and the type of --dpop-key"),
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)], body: &'static str) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        Answer { status: StatusCode::from_u16(status).unwrap(), headers: map, body: body.into() }
    }

    #[test]
    fn a_problem_document_is_told_in_full_and_without_escape_sequences() {
        let answer = answer(
            403,
            &[("content-type", "application/problem+json")],
            r#"{"code":"entitlement_denied","title":"Licence \u001b[31mrevoked","auditId":"a-1","reason":"poe_revoked"}"#,
        );
        let refusal = Refusal::read(Peer::Appliance, &answer);
        assert_eq!(refusal.to_string(), "the appliance refused: 403 entitlement_denied, Licence \\u{1b}[31mrevoked");
        assert_eq!(refusal.facts(), [("reason", "poe_revoked".to_owned()), ("audit id", "a-1".to_owned())]);
        assert!(refusal.remedy().unwrap().contains("PoE"));
        assert!(!refusal.is_temporary());
    }

    #[test]
    fn only_429_and_503_invite_another_attempt() {
        for (status, waits) in [(429, true), (503, true), (500, false), (502, false), (400, false), (403, false)] {
            let refusal = Refusal::read(Peer::Appliance, &answer(status, &[("retry-after", "7")], ""));
            assert_eq!(refusal.retry_after().is_some(), waits, "{status}");
        }
        let undated = Refusal::read(Peer::Appliance, &answer(503, &[("retry-after", "soon")], ""));
        assert_eq!(undated.retry_after(), None);
    }

    #[test]
    fn every_code_of_the_contract_has_a_remedy() {
        for code in [
            "invalid_request",
            "invalid_token",
            "insufficient_scope",
            "entitlement_denied",
            "release_untrusted",
            "predicate_not_allowed",
            "artifact_too_large",
            "plan_throttled",
            "signing_unavailable",
            "overloaded",
            "dependency_unavailable",
        ] {
            assert!(APPLIANCE_REMEDIES.iter().any(|(known, _)| *known == code), "{code}");
        }
    }

    #[test]
    fn an_answer_that_is_no_json_is_still_told() {
        let refusal = Refusal::read(Peer::Appliance, &answer(502, &[("content-type", "text/html")], "<html>"));
        assert_eq!(refusal.to_string(), "the appliance cannot serve this now: 502 unavailable");
    }
}
