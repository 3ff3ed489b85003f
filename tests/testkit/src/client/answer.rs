//! What came back.

#![forbid(unsafe_code)]

use bytes::Bytes;
use http::{HeaderMap, Version};
use serde_json::Value;

use crate::envelope::Envelope;

/// A whole response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// HTTP version it came over.
    pub version: Version,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// An RFC 9457 problem document of the signer.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The stable `code`.
    pub code: String,
    /// `title`.
    pub title: String,
    /// `reason`, where telling it leaks nothing.
    pub reason: Option<String>,
    /// `auditId`.
    pub audit_id: Option<String>,
    /// The whole document.
    pub document: Value,
}

impl Answer {
    /// A header's value, when it is there and text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none; the message shows it.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("the body is no JSON ({error}): {self}"))
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Itself, when the status is this one.
    ///
    /// # Panics
    /// When it is another; the message shows the answer.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert!(self.status == status, "expected status {status}, got {self}");
        self
    }

    /// The problem document.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    #[track_caller]
    pub fn problem(&self) -> Problem {
        assert!(self.header("content-type") == Some("application/problem+json"), "expected a problem, got {self}");
        let document = self.json();
        let text = |name: &str| document[name].as_str().map(str::to_owned);
        Problem {
            code: text("code").unwrap_or_else(|| panic!("a problem has a code: {self}")),
            title: text("title").unwrap_or_else(|| panic!("a problem has a title: {self}")),
            reason: text("reason"),
            audit_id: text("auditId"),
            document,
        }
    }

    /// Status and code of a refusal, to be compared in one go.
    ///
    /// # Panics
    /// When it is no problem document.
    #[must_use]
    #[track_caller]
    pub fn refusal(&self) -> (u16, String) {
        (self.status, self.problem().code)
    }

    /// `auditId`, of a success or a problem.
    #[must_use]
    pub fn audit_id(&self) -> Option<String> {
        let body: Value = serde_json::from_slice(&self.body).ok()?;
        body["auditId"].as_str().map(str::to_owned)
    }

    /// The envelope of a signature: `bundle.dsse`, else the one inside `bundle.sigstore`.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn envelope(&self) -> Envelope {
        Envelope::read(&self.envelope_json()).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// The JSON of [`Answer::envelope`].
    #[must_use]
    pub fn envelope_json(&self) -> Value {
        let bundle = &self.json()["bundle"];
        if bundle["dsse"].is_object() { bundle["dsse"].clone() } else { bundle["sigstore"]["dsseEnvelope"].clone() }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.text();
        let shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
        let more = if shown.len() < text.len() { " …" } else { "" };
        write!(f, "{} {shown}{more}", self.status)
    }
}

const SHOWN_CHARACTERS: usize = 2000;
