//! The routes of the Signer API, and the way from a request to its handler.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{ALLOW, HOST};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use hyper::body::Incoming;

use super::problem::{Code, Problem};
use super::sending::Sending;
use super::{body, keys, verify};
use crate::auth::PeerCertificate;
use crate::pipeline::{self, Appliance, Case, Refusal};

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    SignDsse,
    Keys,
    VerifyDsse,
}

/// One route. The OpenAPI document is made from this table.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) operation: Operation,
}

/// Every route of the Signer API.
pub(crate) const ROUTES: [Route; 3] = [
    Route { method: Method::POST, path: "/api/v1/signer/sign/dsse", operation: Operation::SignDsse },
    Route { method: Method::GET, path: "/api/v1/signer/keys", operation: Operation::Keys },
    Route { method: Method::POST, path: "/api/v1/signer/verify/dsse", operation: Operation::VerifyDsse },
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
    let answered = tokio::time::timeout(limit, async {
        check_host(head.version, &head.headers)?;
        match find(&head.method, head.uri.path())? {
            Operation::SignDsse => {
                Ok(pipeline::sign(appliance, &mut case, peer, &head, &mut incoming).await?.into_response())
            }
            Operation::Keys => keys::list(appliance, &mut case, peer, &head).await,
            Operation::VerifyDsse => verify::dsse(appliance, &mut case, peer, &head, &mut incoming).await,
        }
    });
    let refusal = match answered.await {
        Ok(Ok(response)) => return response,
        Ok(Err(refusal)) => refusal,
        Err(_) => Refusal::timed_out(limit),
    };
    let response = case.refuse(refusal).await;
    if let Some(rest) = incoming.take() {
        body::discard(rest).await;
    }
    response
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

fn find(method: &Method, path: &str) -> Result<Operation, Refusal> {
    let mut allowed = Vec::new();
    for route in &ROUTES {
        if route.path == path {
            if route.method == *method {
                return Ok(route.operation);
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
