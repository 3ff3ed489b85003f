#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

/// A Licensing Service that answers what it is told to, when it is let to.
pub(super) struct Service {
    pub(super) address: SocketAddr,
    state: Arc<State>,
    server: tokio::task::JoinHandle<()>,
}

struct State {
    answer: Mutex<(StatusCode, Option<&'static str>, String)>,
    asked: watch::Sender<usize>,
    last: Mutex<String>,
    gate: Semaphore,
}

impl Service {
    pub(super) async fn start(answer: &Value) -> Self {
        Self::start_with(answer, None).await
    }

    pub(super) async fn start_with(answer: &Value, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            answer: Mutex::new((StatusCode::OK, None, answer.to_string())),
            asked: watch::Sender::new(0),
            last: Mutex::default(),
            gate: Semaphore::new(1_000_000),
        });
        let serving = Arc::clone(&state);
        let server = tokio::spawn(async move {
            // Connections die with the server, as those of a service that goes down do.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, tls) = (Arc::clone(&serving), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => state.serve(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                state.serve(stream).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, state, server }
    }

    pub(super) fn answers(&self, status: u16, body: &Value) {
        *self.state.answer.lock().unwrap() = (StatusCode::from_u16(status).unwrap(), None, body.to_string());
    }

    pub(super) fn answers_with(&self, status: u16, retry_after: &'static str, body: &str) {
        let status = StatusCode::from_u16(status).unwrap();
        *self.state.answer.lock().unwrap() = (status, Some(retry_after), body.to_owned());
    }

    pub(super) fn asked(&self) -> usize {
        *self.state.asked.borrow()
    }

    pub(super) async fn until_asked(&self, times: usize) {
        self.state.asked.subscribe().wait_for(|asked| *asked >= times).await.unwrap();
    }

    pub(super) fn hold(&self) {
        self.state.gate.forget_permits(1_000_000);
    }

    pub(super) fn let_go(&self) {
        self.state.gate.add_permits(1_000_000);
    }

    pub(super) fn last_request(&self) -> String {
        self.state.last.lock().unwrap().clone()
    }

    pub(super) async fn stop(&mut self) {
        self.server.abort();
        let _ = (&mut self.server).await;
    }
}

impl State {
    async fn serve(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
        let service = service_fn(|request| Arc::clone(&self).answer(request));
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(
        self: Arc<Self>,
        request: http::Request<Incoming>,
    ) -> Result<http::Response<Full<Bytes>>, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let seen = format!(
            "{} {} {:?} {:?} {}",
            parts.method,
            parts.uri,
            parts.headers["content-type"],
            parts.headers["accept"],
            std::str::from_utf8(&body).unwrap()
        );
        *self.last.lock().unwrap() = seen;
        self.asked.send_modify(|asked| *asked += 1);
        let _passed = self.gate.acquire().await.unwrap();
        let (status, retry_after, text) = self.answer.lock().unwrap().clone();
        let mut response = http::Response::new(Full::from(text));
        *response.status_mut() = status;
        if let Some(value) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(value));
        }
        Ok(response)
    }
}
