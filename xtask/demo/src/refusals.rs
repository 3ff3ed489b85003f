//! One refusal of each kind, with its problem document.

#![forbid(unsafe_code)]

use serde_json::json;
use testkit::client::Answer;
use testkit::{Error, Result, sample};
use xtask::ui;

use crate::stage::{REVOKED_LICENSE, Stage};

/// How many there are.
pub(crate) const COUNT: usize = 4;

/// Shows them; returns how many requests were signed on the way, to use up a quota.
pub(crate) fn one_of_each_kind(stage: &Stage) -> Result<u64> {
    ui::heading("what is refused");
    let client = stage.fixture.client();
    let sign = || client.sign(&sample::request());

    let stolen = sign().without_proof().try_send()?;
    show("a stolen token, without the proof of its owner's key", &stolen, 401, "invalid_token")?;

    let revoked = sign().poe(|poe| poe.claim("license_id", REVOKED_LICENSE)).try_send()?;
    show("a revoked licence", &revoked, 403, "entitlement_denied")?;

    let unknown = sign().body(|body| body["predicateType"] = json!("https://example.test/poem/v1")).try_send()?;
    show("an unknown predicate type", &unknown, 400, "invalid_request")?;

    // What the plan allows is used up first.
    let frugal = || sign().poe(|poe| poe.claim("plan", "free").claim("license_id", "lic-acme-free")).try_send();
    let mut signed = 0;
    let mut answer = frugal()?;
    while answer.status == 200 && signed < MOST_SIGNED {
        signed += 1;
        answer = frugal()?;
    }
    show("one request more than the plan allows", &answer, 429, "plan_throttled")?;
    Ok(signed)
}

const MOST_SIGNED: u64 = 20;

fn show(what: &str, answer: &Answer, status: u16, code: &str) -> Result<()> {
    if answer.refusal() != (status, code.to_owned()) {
        return Err(Error(format!("{what}: expected {status} {code}, got {answer}")));
    }
    ui::refused(format!("{what}: {}", ui::bold(&format!("{status} {code}"))));
    for header in ["www-authenticate", "retry-after", "ratelimit"] {
        if let Some(value) = answer.header(header) {
            ui::note(format!("{header}: {value}"));
        }
    }
    println!("  {}", answer.problem().document);
    Ok(())
}
