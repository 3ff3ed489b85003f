//! The routes of the Signer API, and the way from a request to its handler.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, HOST};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use hyper::body::Incoming;

use super::problem::{Code, Problem};
use super::sending::Sending;
use super::{body, keys, referrers, verify};
use crate::auth::PeerCertificate;
use crate::pipeline::{self, Appliance, Case, Refusal, Verdict};

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    SignDsse,
    Keys,
    Custody,
    VerifyDsse,
    VerifyReferrers,
}

/// One route. The OpenAPI document is made from this table.
pub(crate) struct Route {
    pub(crate) method: Method,
    /// [`NAME`] in it stands for one segment, a key's name.
    pub(crate) path: &'static str,
    pub(crate) operation: Operation,
}

impl Route {
    /// The name in `path`, empty for a route without one; `None` when this is not its route. Nothing is decoded: names
    /// of keys need no escapes, so an escape is another path.
    fn named_by<'p>(&self, path: &'p str) -> Option<&'p str> {
        let Some((before, after)) = self.path.split_once(NAME) else { return (self.path == path).then_some("") };
        let name = path.strip_prefix(before)?.strip_suffix(after)?;
        (!name.is_empty() && !name.contains('/')).then_some(name)
    }
}

/// Every route of the Signer API.
pub(crate) const ROUTES: [Route; 5] = [
    Route { method: Method::POST, path: "/api/v1/signer/sign/dsse", operation: Operation::SignDsse },
    Route { method: Method::GET, path: "/api/v1/signer/keys", operation: Operation::Keys },
    Route { method: Method::GET, path: "/api/v1/signer/keys/{name}/custody", operation: Operation::Custody },
    Route { method: Method::POST, path: "/api/v1/signer/verify/dsse", operation: Operation::VerifyDsse },
    Route { method: Method::GET, path: "/api/v1/signer/verify/referrers", operation: Operation::VerifyReferrers },
];

/// Answers one request. Every refusal leaves an audit record before it leaves the appliance.
pub(super) async fn dispatch(
    appliance: &Arc<Appliance>,
    peer: &Arc<PeerCertificate>,
    remote: SocketAddr,
    request: Request<Incoming>,
) -> Response<Sending> {
    let (head, incoming) = request.into_parts();
    let mut incoming = Some(incoming);
    let mut case = Case::open(appliance, peer, remote);
    let limit = appliance.config.server.limits.request_timeout.get();
    let verdict = case.verdict();
    let answered = {
        let answering = pin!(async {
            check_host(head.version, &head.headers)?;
            let (operation, name) = find(&head.method, head.uri.path())?;
            match operation {
                Operation::SignDsse => {
                    Ok(pipeline::sign(appliance, &mut case, peer, &head, &mut incoming).await?.into_response())
                }
                Operation::Keys => keys::list(appliance, &mut case, peer, &head).await,
                Operation::Custody => keys::custody(appliance, &mut case, peer, &head, name).await,
                Operation::VerifyDsse => verify::dsse(appliance, &mut case, peer, &head, &mut incoming).await,
                Operation::VerifyReferrers => referrers::verify(appliance, &mut case, peer, &head).await,
            }
        });
        within(limit, &verdict, answering).await
    };
    let refusal = match answered {
        Ok(response) => return response,
        Err(refusal) => refusal,
    };
    let response = case.refuse(refusal).await;
    if let Some(rest) = incoming.take() {
        body::discard(rest).await;
    }
    response
}

/// What `answering` comes to, or that the time is up. When its outcome is being recorded at that moment, the caller is
/// told that outcome, however long the disk takes: the log and the answer must not contradict each other.
async fn within<T>(
    limit: Duration,
    verdict: &Verdict,
    mut answering: Pin<&mut impl Future<Output = Result<T, Refusal>>>,
) -> Result<T, Refusal> {
    match tokio::time::timeout(limit, answering.as_mut()).await {
        Ok(answered) => answered,
        Err(_) if verdict.give_up() => Err(Refusal::timed_out(limit)),
        Err(_) => answering.await,
    }
}

/// A request that names no host, or two, may mean something else to a proxy in front (RFC 9112, section 3.2). HTTP/2 has
/// `:authority` instead.
fn check_host(version: Version, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let sound = match (hosts.next(), hosts.next()) {
        (None, _) => version != Version::HTTP_11,
        (Some(host), None) => Authority::try_from(host.as_bytes()).is_ok_and(|host| !host.as_str().contains('@')),
        (Some(_), Some(_)) => false,
    };
    if sound {
        return Ok(());
    }
    let problem = Problem::new(Code::InvalidRequest).reason("host").detail("name the host once, in the Host header");
    Err(Refusal::from(problem))
}

/// The operation, and the name in the path where its route has one.
fn find<'p>(method: &Method, path: &'p str) -> Result<(Operation, &'p str), Refusal> {
    let mut allowed = Vec::new();
    for route in &ROUTES {
        if let Some(name) = route.named_by(path) {
            if route.method == *method {
                return Ok((route.operation, name));
            }
            allowed.push(route.method.as_str());
        }
    }
    if allowed.is_empty() {
        return Err(Refusal::noise("unknown_route", Problem::new(Code::NotFound)));
    }
    let allow = HeaderValue::try_from(allowed.join(", ")).expect("method names are header text");
    Err(Refusal::noise("wrong_method", Problem::new(Code::MethodNotAllowed).header(ALLOW, allow)))
}

/// Where a path has a key's name.
pub(crate) const NAME: &str = "{name}";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::pending;

    use super::*;

    #[test]
    fn a_name_is_one_segment_and_nothing_else_is_a_route() {
        let found = |path| find(&Method::GET, path).ok();
        let custody = |name| Some((Operation::Custody, name));
        assert_eq!(found("/api/v1/signer/keys/acme-2026/custody"), custody("acme-2026"));
        assert_eq!(found("/api/v1/signer/keys/a%2Fb/custody"), custody("a%2Fb"), "which no key is called");
        assert_eq!(found("/api/v1/signer/keys"), Some((Operation::Keys, "")));
        for other in ["keys/", "keys//custody", "keys/custody", "keys/a/b/custody", "keys/a/custody/", "keys/a"] {
            assert!(find(&Method::GET, &format!("/api/v1/signer/{other}")).is_err(), "{other}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_time_is_up_nothing_is_recorded_as_signed_any_more() {
        let verdict = Verdict::default();
        let answered = within(Duration::from_secs(1), &verdict, pin!(pending::<Result<(), Refusal>>())).await;
        assert!(answered.is_err());
        assert!(!verdict.settle(), "whoever still works on it must record that the time was up");
    }

    #[tokio::test(start_paused = true)]
    async fn an_outcome_that_is_being_recorded_is_what_the_caller_is_told() {
        let verdict = Verdict::default();
        let answering = pin!(async {
            assert!(verdict.settle());
            tokio::time::sleep(Duration::from_secs(9)).await;
            Ok("signed")
        });
        assert_eq!(within(Duration::from_secs(1), &verdict, answering).await.ok(), Some("signed"));
    }
}
