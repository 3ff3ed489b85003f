//! What an operator may do by the local listener: take tokens off and back, have a key's custody attested, and have the
//! configuration read anew.
//!
//! By the Unix socket only, where the kernel says who asks: root, or the user that `signerd` runs as. A TCP port is
//! everybody's on this machine, so there the answer is 403 and says what to configure.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use super::local::{LocalPeer, respond};
use crate::audit::{Detail, Record};
use crate::custody::DrainError;
use crate::pipeline::{Appliance, Case, Live, ReloadError, Reloaded, custody_report};

/// One order of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// `POST /tokens/NAME/drain`.
    Drain(String),
    /// `POST /tokens/NAME/undrain`.
    Undrain(String),
    /// `GET /keys/NAME/custody`.
    Custody(String),
    /// `POST /config/reload`.
    Reload,
}

impl Order {
    /// What is asked for; `None` when it is none of these.
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        if path == "/config/reload" {
            return (method == Method::POST).then_some(Self::Reload);
        }
        let mut segments = path.strip_prefix('/')?.split('/');
        let order = match (segments.next()?, segments.next()?, segments.next()?) {
            ("tokens", name, "drain") if method == Method::POST => Self::Drain(name.to_owned()),
            ("tokens", name, "undrain") if method == Method::POST => Self::Undrain(name.to_owned()),
            ("keys", name, "custody") if method == Method::GET => Self::Custody(name.to_owned()),
            _ => return None,
        };
        segments.next().is_none().then_some(order)
    }

    /// Does it, if whoever asks may.
    pub(super) async fn carry_out(&self, live: &Arc<Live>, peer: LocalPeer) -> Response<Full<Bytes>> {
        let uid = match permitted(peer, nix::unistd::geteuid().as_raw()) {
            Ok(uid) => uid,
            Err(why) => return refused(StatusCode::FORBIDDEN, "forbidden", why),
        };
        let appliance = live.now();
        match self {
            Self::Drain(token) => set_drained(&appliance, token, true, uid).await,
            Self::Undrain(token) => set_drained(&appliance, token, false, uid).await,
            Self::Custody(key) => custody(&appliance, key).await,
            Self::Reload => {
                drop(appliance);
                reload(live).await
            }
        }
    }
}

async fn reload(live: &Arc<Live>) -> Response<Full<Bytes>> {
    // In a task of its own: who asked may go away, and a reload is not left half-way.
    let running = tokio::spawn({
        let live = Arc::clone(live);
        async move { live.reload("operator").await }
    });
    match running.await {
        Ok(Ok(reloaded)) => {
            let Reloaded { digest, changed, workers_behind } = reloaded;
            let body = json!({ "sha256": digest, "changed": changed, "workersBehind": workers_behind });
            answer(StatusCode::OK, "application/json", &body)
        }
        Ok(Err(error @ (ReloadError::Config(_) | ReloadError::Assembly(_) | ReloadError::Worse(_)))) => {
            refused(StatusCode::UNPROCESSABLE_ENTITY, "config_invalid", &error.to_string())
        }
        Ok(Err(error @ ReloadError::NotRecorded(_))) => {
            refused(StatusCode::SERVICE_UNAVAILABLE, "dependency_unavailable", &error.to_string())
        }
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, "internal", &error.to_string()),
    }
}

/// The user, when it is root's or our own.
fn permitted(peer: LocalPeer, own: u32) -> Result<u32, &'static str> {
    match peer {
        LocalPeer::User(uid) if uid == 0 || uid == own => Ok(uid),
        LocalPeer::User(_) => Err("only root and the user of signerd may do this; try it with sudo"),
        LocalPeer::Unknown => Err(
            "this listener is a TCP port and cannot tell who asks; set server.local_listen = \"unix:/run/stellaops-signer/local.sock\"",
        ),
    }
}

async fn set_drained(appliance: &Appliance, token: &str, drained: bool, uid: u32) -> Response<Full<Bytes>> {
    let event = if drained { "token_drained" } else { "token_undrained" };
    let details = &[("token", Detail::Text(token)), ("uid", Detail::Number(uid.into()))];
    let recorded = async { appliance.audit.append(&Record::Event { event, details }).await };
    let done = match appliance.custody.set_drained(token, drained, recorded).await {
        Ok(done) => done,
        Err(error @ DrainError::Unknown { .. }) => {
            return refused(StatusCode::NOT_FOUND, "not_found", &error.to_string());
        }
        Err(error @ (DrainError::NotKept { .. } | DrainError::NotRecorded(_))) => {
            tracing::error!(%error, "a token cannot be drained or undrained");
            return refused(StatusCode::SERVICE_UNAVAILABLE, "dependency_unavailable", &error.to_string());
        }
    };
    let body = json!({
        "token": done.token,
        "drained": done.drained,
        "inFlight": done.in_flight,
        "keysWithoutToken": done.keys_without_token,
    });
    answer(StatusCode::OK, "application/json", &body)
}

async fn custody(appliance: &Arc<Appliance>, name: &str) -> Response<Full<Bytes>> {
    let mut case = Case::open_local(appliance);
    case.asks_for("custody");
    let report = match appliance.custody.named_key(None, name) {
        Ok(key) => custody_report(appliance, &mut case, key).await,
        Err(error) => Err(error.into()),
    };
    match report {
        Ok(report) => respond(StatusCode::OK, "application/json", report.into()),
        Err(refusal) => case.refuse(refusal).await.map(super::Sending::into_whole),
    }
}

fn refused(status: StatusCode, code: &str, detail: &str) -> Response<Full<Bytes>> {
    let title = status.canonical_reason().unwrap_or_default();
    let body = json!({ "title": title, "status": status.as_u16(), "code": code, "detail": detail });
    answer(status, "application/problem+json", &body)
}

fn answer(status: StatusCode, content_type: &'static str, body: &Value) -> Response<Full<Bytes>> {
    respond(status, content_type, body.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_our_own_user_may() {
        for (peer, may) in [
            (LocalPeer::User(0), true),
            (LocalPeer::User(991), true),
            (LocalPeer::User(1000), false),
            (LocalPeer::Unknown, false),
        ] {
            assert_eq!(permitted(peer, 991).is_ok(), may, "{peer:?}");
        }
    }

    #[test]
    fn an_order_is_its_method_and_its_path_and_nothing_like_it() {
        let drain = || Some(Order::Drain("main".to_owned()));
        for (method, path, expected) in [
            (Method::POST, "/tokens/main/drain", drain()),
            (Method::POST, "/tokens/main/undrain", Some(Order::Undrain("main".to_owned()))),
            (Method::GET, "/keys/acme/custody", Some(Order::Custody("acme".to_owned()))),
            (Method::POST, "/config/reload", Some(Order::Reload)),
            (Method::GET, "/config/reload", None),
            (Method::GET, "/tokens/main/drain", None),
            (Method::POST, "/keys/acme/custody", None),
            (Method::POST, "/tokens/main/drain/", None),
            (Method::POST, "/tokens/drain", None),
            (Method::GET, "/readyz", None),
        ] {
            assert_eq!(Order::of(&method, path), expected, "{method} {path}");
        }
    }
}
