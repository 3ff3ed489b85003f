//! Runs a family of rows and asks of each what the table's page promises.

#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::client::Answer;
use testkit::raw::End;

use crate::case::{Case, Expect, Sent};
use crate::counters::Signatures;
use crate::frames;
use crate::leaks;
use crate::wire::{PATIENCE, Wire};
use crate::world::World;

/// Runs the rows of a family on the shared appliance, one family at a time.
pub(crate) fn judge(family: &str, cases: Vec<Case>) {
    let world = World::shared();
    let _turn = World::turn();
    judge_on(&world, family, cases);
}

/// Runs the rows of a family, and fails with everything that any of them did wrong.
pub(crate) fn judge_on(world: &World, family: &str, cases: Vec<Case>) {
    let mut failures = Vec::new();
    let (slow, quick): (Vec<Case>, Vec<Case>) = cases.into_iter().partition(|case| case.slow);
    let mut claims = Vec::new();
    for case in &quick {
        claims.extend(run(world, std::slice::from_ref(case), &mut failures));
    }
    claims.extend(run(world, &slow, &mut failures));
    for (case, claim) in claims {
        if let Err(error) = claim.check(world) {
            failures.push(format!("{case}: {error}"));
        }
    }
    afterwards(world, &mut failures);
    assert!(failures.is_empty(), "{family}: {} failures\n{}", failures.len(), failures.join("\n"));
}

/// What the audit log must say of a row.
enum Claim {
    Refused { audit_id: String, status: u16, code: &'static str, reason: Option<&'static str> },
    Cut { from: String, reasons: &'static [&'static str] },
    Signed { audit_id: String },
    Nothing,
}

/// Runs rows side by side; no signature may be made but for those that were granted.
fn run<'a>(world: &World, cases: &'a [Case], failures: &mut Vec<String>) -> Vec<(&'a str, Claim)> {
    let before = Signatures::read(world).map(|signatures| (signatures, world.accepted()));
    let sent: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = cases.iter().map(|case| scope.spawn(|| attempt(world, case))).collect();
        threads.into_iter().map(|thread| thread.join().expect("attempts catch their panics")).collect()
    });
    let mut signed = 0;
    let mut claims = Vec::new();
    for (case, sent) in cases.iter().zip(sent) {
        let verdict = sent.and_then(|sent| {
            signed += granted(&sent);
            leaks::in_answer(world, &sent)?;
            verdict(case, &sent)
        });
        match verdict {
            Ok(claim) => claims.push((&*case.name, claim)),
            Err(error) => failures.push(format!("{}: {error}", case.name)),
        }
    }
    let counted = before.and_then(|(before, accepted)| {
        let expected = before.plus(signed + world.accepted() - accepted);
        Ok((expected, Signatures::read(world)?))
    });
    let names = || cases.iter().map(|case| &*case.name).collect::<Vec<_>>().join("; ");
    match counted {
        Ok((expected, found)) if expected == found => {}
        Ok((expected, found)) => failures.push(format!("{}: expected {expected:?}, found {found:?}", names())),
        Err(error) => failures.push(format!("{}: {error}", names())),
    }
    claims
}

fn attempt(world: &World, case: &Case) -> Result<Sent, String> {
    match catch_unwind(AssertUnwindSafe(|| (case.attempt)(world))) {
        Ok(sent) => sent.map_err(|error| error.to_string()),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            Err(words.or_else(|| panic.downcast_ref().copied()).unwrap_or("a panic without words").to_owned())
        }
    }
}

/// Signatures among the answers.
fn granted(sent: &Sent) -> u64 {
    let is_signature = |answer: &&Answer| answer.status == 200 && answer.text().starts_with("{\"bundle\"");
    match sent {
        Sent::Answer(answer) => Some(answer).iter().filter(|answer| is_signature(answer)).count() as u64,
        Sent::Wire(wire) => wire.answers().iter().filter(is_signature).count() as u64,
    }
}

fn verdict(case: &Case, sent: &Sent) -> Result<Claim, String> {
    match (&case.expect, sent) {
        (expect, Sent::Answer(answer)) => answered(expect, answer),
        (Expect::Cut(status, reasons), Sent::Wire(wire)) => cut(wire, *status, reasons),
        (Expect::Closed, Sent::Wire(wire)) => {
            let told = wire.received.end == End::Closed || frames::goaway_code(&wire.received.bytes) == Some(0);
            if told && wire.received.ended() && wire.answers().is_empty() {
                Ok(Claim::Nothing)
            } else {
                Err(format!("expected a close in good order, got {wire}"))
            }
        }
        (Expect::Dropped, Sent::Wire(wire)) if wire.received.ended() && wire.answers().is_empty() => Ok(Claim::Nothing),
        (Expect::Reset(codes), Sent::Wire(wire)) => match frames::reset_code(&wire.received.bytes) {
            Some(code) if codes.contains(&code) => {
                Ok(Claim::Cut { from: wire.from.to_string(), reasons: &["http2_stream_reset"] })
            }
            other => Err(format!("expected a reset with one of {codes:?}, got {other:?} in {wire}")),
        },
        (Expect::GoAway(codes, reasons), Sent::Wire(wire)) => match frames::goaway_code(&wire.received.bytes) {
            Some(code) if codes.contains(&code) && wire.received.ended() => {
                Ok(Claim::Cut { from: wire.from.to_string(), reasons })
            }
            other => Err(format!("expected an end with one of {codes:?}, got {other:?} in {wire}")),
        },
        (expect, Sent::Wire(wire)) => {
            let answers = wire.answers();
            answered(expect, answers.last().ok_or_else(|| format!("expected an answer, got {wire}"))?)
        }
    }
}

fn answered(expect: &Expect, answer: &Answer) -> Result<Claim, String> {
    match expect {
        Expect::Accepted if answer.status == 200 => {
            let audit_id = answer.audit_id().unwrap_or_default();
            Ok(if granted(&Sent::Answer(answer.clone())) == 1 { Claim::Signed { audit_id } } else { Claim::Nothing })
        }
        Expect::Unverified if answer.status == 200 => {
            let unverified = answer.text().contains("\"verified\":false");
            if unverified { Ok(Claim::Nothing) } else { Err(format!("expected `verified` to be false, got {answer}")) }
        }
        Expect::Problem { status, code, reason, recorded, naming } => {
            let document = problem(answer)?;
            let text = |name: &str| document[name].as_str().unwrap_or_default();
            if (answer.status, text("code")) != (*status, *code)
                || reason.is_some_and(|reason| text("reason") != reason)
            {
                return Err(format!("expected {status} {code} {}, got {answer}", reason.unwrap_or_default()));
            }
            if let Some(naming) = naming.as_ref().filter(|naming| !text("detail").contains(naming.as_str())) {
                return Err(format!("expected a detail naming {naming}, got {answer}"));
            }
            headers(answer, code, text("reason"))?;
            let audit_id = text("auditId").to_owned();
            Ok(Claim::Refused { audit_id, status: *status, code, reason: *recorded })
        }
        other => Err(format!("expected {other:?}, got {answer}")),
    }
}

/// The document has the form of RFC 9457 and agrees with the answer.
fn problem(answer: &Answer) -> Result<Value, String> {
    let whole = || {
        let document: Value = serde_json::from_slice(&answer.body).ok()?;
        let code = document["code"].as_str()?;
        let sound = answer.header("content-type")? == "application/problem+json"
            && answer.header("cache-control")? == "no-store"
            && document["type"] == format!("urn:stellaops:signer:problem:{code}")
            && document["status"] == answer.status
            && !document["title"].as_str()?.is_empty()
            && document["auditId"].as_str()?.len() == 36;
        sound.then_some(document)
    };
    whole().ok_or_else(|| format!("expected a problem document, got {answer} with {:?}", answer.headers))
}

/// The headers that the API promises with some refusals.
fn headers(answer: &Answer, code: &str, reason: &str) -> Result<(), String> {
    let has = |name: &str| answer.header(name).is_some_and(|value| !value.is_empty());
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    let retry_after = answer.header("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
    let sound = match code {
        "invalid_token" if reason.starts_with("dpop_nonce") => {
            has("dpop-nonce") && challenge.contains("error=\"use_dpop_nonce\"")
        }
        "invalid_token" => challenge.contains("DPoP") || challenge.contains("Bearer"),
        "insufficient_scope" => challenge.contains("error=\"insufficient_scope\""),
        "method_not_allowed" => has("allow"),
        "plan_throttled" => {
            retry_after.is_some_and(|seconds| seconds > 0) && has("ratelimit") && has("ratelimit-policy")
        }
        "overloaded" | "signing_unavailable" | "dependency_unavailable" => {
            retry_after.is_some_and(|seconds| (1..=300).contains(&seconds))
        }
        _ => true,
    };
    if sound { Ok(()) } else { Err(format!("the headers do not fit {code} {reason}: {:?}", answer.headers)) }
}

fn cut(wire: &Wire, status: Option<u16>, reasons: &'static [&'static str]) -> Result<Claim, String> {
    let told = wire.answers().last().map(|answer| answer.status);
    if told == status && (status.is_some() || wire.received.ended()) {
        Ok(Claim::Cut { from: wire.from.to_string(), reasons })
    } else {
        Err(format!("expected the connection to end with {status:?}, got {wire}"))
    }
}

impl Claim {
    /// Holds the claim against the audit log. Records of requests are there before the answer; those of connections
    /// come when the connection has been torn down.
    fn check(&self, world: &World) -> Result<(), String> {
        let records = |name: &str, value: &str| -> Result<Vec<Value>, String> {
            let all = world.fixture.appliance.audit().map_err(|error| error.to_string())?;
            Ok(all.into_iter().filter(|record| record[name] == value).collect())
        };
        match self {
            Self::Nothing => Ok(()),
            Self::Signed { audit_id } => {
                let found = records("auditId", audit_id)?;
                let kinds: Vec<&str> = found.iter().filter_map(|record| record["kind"].as_str()).collect();
                if kinds == ["intent", "outcome"] {
                    Ok(())
                } else {
                    Err(format!("expected intent and outcome, found {found:?}"))
                }
            }
            Self::Refused { audit_id, status, code, reason } => {
                let found = records("auditId", audit_id)?;
                let [record] = &found[..] else { return Err(format!("expected one record, found {found:?}")) };
                let same = record["status"] == *status
                    && record["code"] == *code
                    && record["kind"] != "intent"
                    && reason.is_none_or(|reason| record["reason"] == reason);
                if same { Ok(()) } else { Err(format!("expected {status} {code} {reason:?} in {record}")) }
            }
            Self::Cut { from, reasons } => {
                let deadline = Instant::now() + PATIENCE;
                loop {
                    let found = records("remote", from)?;
                    // An earlier connection may have had the same port.
                    let as_expected = |record: &&Value| {
                        record["kind"] == "connection_refused"
                            && record["reason"].as_str().is_some_and(|reason| reasons.contains(&reason))
                    };
                    if found.iter().any(|record| as_expected(&record)) {
                        return Ok(());
                    }
                    if Instant::now() > deadline {
                        return Err(format!("expected a record of {from} with one of {reasons:?}, found {found:?}"));
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }
}

/// The appliance is as well as before, and neither log says what it must not.
fn afterwards(world: &World, failures: &mut Vec<String>) {
    let mut check = |what: &str, outcome: Result<(), String>| {
        failures.extend(outcome.err().map(|error| format!("afterwards, {what}: {error}")));
    };
    check("a good request is signed", {
        let answer = world.sign_by_certificate().try_send().map_err(|error| error.to_string());
        answer.and_then(|answer| if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) })
    });
    check("as many signatures are recorded as were made", recorded_signatures(world));
    check("the logs hold no secret and no panic", leaks::in_logs(world));
    check("the audit log holds no secret", leaks::in_audit(world));
}

/// No signature without its record: the audit log, the front and the token agree on their number.
fn recorded_signatures(world: &World) -> Result<(), String> {
    let made = Signatures::read(world).map_err(|error| error.to_string())?;
    let records = world.fixture.appliance.audit().map_err(|error| error.to_string())?;
    let recorded = records.iter().filter(|record| record["outcome"] == "signed").count() as u64;
    let same = [made.front, made.asked, made.made].iter().all(|count| *count == recorded);
    if same { Ok(()) } else { Err(format!("{recorded} are recorded, {made:?}")) }
}

impl std::fmt::Display for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = String::from_utf8_lossy(&self.received.bytes);
        write!(f, "{:?} and the end {:?}", text.chars().take(600).collect::<String>(), self.received.end)
    }
}
