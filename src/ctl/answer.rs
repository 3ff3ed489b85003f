//! An HTTP answer, read to its end within a bound.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use super::error::CtlError;

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Status.
    pub(crate) status: StatusCode,
    /// Headers.
    pub(crate) headers: HeaderMap,
    /// Body.
    pub(crate) body: Bytes,
}

impl Answer {
    /// Reads `response`; `url` names the peer in errors. A body beyond `max_bytes` is an error, not a truncation.
    pub(crate) async fn read(response: Response<Incoming>, url: &str, max_bytes: usize) -> Result<Self, CtlError> {
        let (head, mut body) = response.into_parts();
        let too_long = || CtlError::Unexpected(format!("the answer of {url} is longer than {max_bytes} bytes"));
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > max_bytes {
            return Err(too_long());
        }
        let mut bytes = BytesMut::with_capacity(announced);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| CtlError::Unreachable {
                url: url.to_owned(),
                cause: format!("the answer broke off: {}", innermost(&error)),
                remedy: "try again; nothing is known about the outcome, the appliance's audit log has it",
            })?;
            if let Ok(data) = frame.into_data() {
                if bytes.len() + data.len() > max_bytes {
                    return Err(too_long());
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(Self { status: head.status, headers: head.headers, body: bytes.freeze() })
    }

    /// A header as text, where it is text.
    pub(crate) fn header(&self, name: impl Into<HeaderName>) -> Option<&str> {
        self.headers.get(name.into())?.to_str().ok()
    }
}

/// The last cause of `error`: the one that says something.
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
