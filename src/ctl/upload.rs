//! A request body that is sent in slices of what is in memory already, with a progress bar where somebody watches.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::IsTerminal as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use indicatif::{ProgressBar, ProgressStyle};

/// The parts of a body, sent one after the other without joining them.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    parts: VecDeque<Bytes>,
    left: u64,
    progress: Option<ProgressBar>,
}

impl Upload {
    /// A body of these parts.
    pub(crate) fn new(parts: impl IntoIterator<Item = Bytes>) -> Self {
        let parts: VecDeque<Bytes> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        Self { left: parts.iter().map(|part| part.len() as u64).sum(), parts, progress: None }
    }

    /// Shows how far it is on `bar`.
    pub(crate) fn with_progress(mut self, bar: &ProgressBar) -> Self {
        bar.set_length(self.left);
        bar.set_position(0);
        self.progress = Some(bar.clone());
        self
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(part) = self.parts.front_mut() else { return Poll::Ready(None) };
        let slice = part.split_to(part.len().min(SLICE_BYTES));
        if part.is_empty() {
            self.parts.pop_front();
        }
        self.left -= slice.len() as u64;
        if let Some(bar) = &self.progress {
            bar.inc(slice.len() as u64);
            if self.left == 0 {
                bar.set_message("waiting for the signature");
            }
        }
        Poll::Ready(Some(Ok(Frame::data(slice))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A bar on standard error for a body worth watching; hidden where nobody watches.
pub(crate) fn progress_bar(body_bytes: u64, quiet: bool) -> ProgressBar {
    if quiet || body_bytes < WORTH_WATCHING_BYTES || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{bar:32} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {msg}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(body_bytes).with_style(style).with_message("sending");
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

const SLICE_BYTES: usize = 64 * 1024;
const WORTH_WATCHING_BYTES: u64 = 1024 * 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn the_parts_arrive_in_order_and_the_length_is_exact() {
        let large = Bytes::from(vec![7; SLICE_BYTES * 2 + 1]);
        let parts = [Bytes::from_static(b"head"), Bytes::new(), large.clone(), Bytes::from_static(b"tail")];
        let upload = Upload::new(parts);
        assert_eq!(upload.size_hint().exact(), Some(large.len() as u64 + 8));
        let bar = ProgressBar::hidden();
        let sent = upload.with_progress(&bar).collect().await.unwrap().to_bytes();
        assert_eq!(sent, [b"head".as_slice(), &large, b"tail"].concat());
        assert_eq!(bar.position(), sent.len() as u64);
    }
}
