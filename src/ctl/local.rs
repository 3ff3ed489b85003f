//! Plain HTTP to the appliance's local listener: a Unix socket or a loopback address.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::{Method, Request};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::answer::{Answer, innermost};
use super::error::CtlError;
use crate::config::{self, LocalListen};

/// Where the local listener is: as `--local` says, or as the configuration does.
pub(crate) fn listener(local: Option<&str>, config: &Path) -> Result<LocalListen, CtlError> {
    let Some(text) = local else {
        return config::load(config).map(|config| config.server.local_listen).map_err(CtlError::Config);
    };
    let bare = text.strip_prefix("http://").map_or(text, |rest| rest.trim_end_matches('/'));
    LocalListen::try_from(bare.to_owned()).map_err(|why| CtlError::Usage(format!("--local: {why}")))
}

/// Reads `path`, whatever its status.
pub(crate) async fn read(listener: &LocalListen, path: &str) -> Result<Answer, CtlError> {
    call(listener, &Method::GET, path).await
}

/// Asks for `path` by this method, without a body; returns the answer, whatever its status.
pub(crate) async fn call(listener: &LocalListen, method: &Method, path: &str) -> Result<Answer, CtlError> {
    call_within(TIMEOUT, listener, method, path).await
}

/// As [`call`], for what takes longer.
pub(crate) async fn call_within(
    patience: Duration,
    listener: &LocalListen,
    method: &Method,
    path: &str,
) -> Result<Answer, CtlError> {
    let name = match listener {
        LocalListen::Tcp(address) => format!("http://{address}{path}"),
        LocalListen::Unix(socket) => format!("unix:{}", socket.display()),
    };
    let exchange = async {
        match listener {
            LocalListen::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(|error| unreachable(&name, &error))?;
                exchange(stream, method, path, &name).await
            }
            LocalListen::Unix(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(|error| unreachable(&name, &error))?;
                exchange(stream, method, path, &name).await
            }
        }
    };
    match tokio::time::timeout(patience, exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(CtlError::Unreachable {
            url: name,
            cause: format!("nothing came within {patience:?}"),
            remedy: "signerd accepts but does not answer; look at its log and CPU",
        }),
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    method: &Method,
    path: &str,
    name: &str,
) -> Result<Answer, CtlError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(name, &e))?;
    // Ends when `sender` is dropped; what goes wrong on it shows in the exchange itself.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "localhost")
        .header(ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|error| CtlError::Unexpected(format!("the request cannot be formed: {error}")))?;
    let response = sender.send_request(request).await.map_err(|error| unreachable(name, &error))?;
    Answer::read(response, name, MAX_ANSWER_BYTES).await
}

fn unreachable(name: &str, error: &(dyn std::error::Error + 'static)) -> CtlError {
    CtlError::Unreachable {
        url: name.to_owned(),
        cause: innermost(error),
        remedy: "check that signerd runs (`systemctl status signerd`), that --local is its local_listen, and that you may open it",
    }
}

const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
