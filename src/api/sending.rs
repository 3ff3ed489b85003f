//! The body of an answer, and what must not be given back before it is sent.

use std::any::Any;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};

/// A whole body that keeps things until it has been taken to be sent, or given up.
pub(crate) struct Sending {
    body: Full<Bytes>,
    kept: Vec<Box<dyn Any + Send>>,
}

/// Keeps `thing` as long as the body of `response` is not on its way.
pub(crate) fn keeping(response: Response<Sending>, thing: impl Any + Send) -> Response<Sending> {
    response.map(|mut body| {
        body.kept.push(Box::new(thing));
        body
    })
}

impl Sending {
    /// The body alone, for a listener that keeps nothing.
    pub(super) fn into_whole(self) -> Full<Bytes> {
        self.body
    }
}

impl From<Vec<u8>> for Sending {
    fn from(body: Vec<u8>) -> Self {
        Self { body: Full::new(body.into()), kept: Vec::new() }
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
