//! A row of the table.

#![forbid(unsafe_code)]

use testkit::client::{Answer, Call};

use crate::wire::Wire;
use crate::world::World;

/// One hostile request (or an odd one that must pass all the same).
pub(crate) struct Case {
    /// Unique among all rows.
    pub(crate) name: String,
    /// Sends it.
    pub(crate) attempt: Attempt,
    /// What must come of it.
    pub(crate) expect: Expect,
    /// Whether it waits for a time limit of the appliance; such rows run side by side.
    pub(crate) slow: bool,
}

/// Sends a row's request.
pub(crate) type Attempt = Box<dyn Fn(&World) -> testkit::Result<Sent> + Send + Sync>;

/// What came of sending it.
pub(crate) enum Sent {
    /// An answer of the API.
    Answer(Answer),
    /// Bytes, or none, and the end of a connection.
    Wire(Wire),
}

/// What must come of a row.
#[derive(Clone, Debug)]
pub(crate) enum Expect {
    /// A problem document, and a record that says the same.
    Problem {
        /// Of the answer, the document and the record.
        status: u16,
        /// Of the document and the record.
        code: &'static str,
        /// Of the document, where telling leaks nothing.
        reason: Option<&'static str>,
        /// The record's reason where it is more precise than the document's.
        recorded: Option<&'static str>,
        /// What `detail` must say among other things: the place of the mistake.
        naming: Option<String>,
    },
    /// The connection ends before there is a request, with a bare status at most; a `connection_refused` record says
    /// one of these reasons.
    Cut(Option<u16>, &'static [&'static str]),
    /// The connection ends because it was idle, which is nobody's business: in good order, by `close_notify` or GOAWAY.
    Closed,
    /// The same with a client that agreed on HTTP/2 and never began to speak it.
    Dropped,
    /// Over HTTP/2: one stream is reset with one of these error codes (RFC 9113, section 7), the others live on; a
    /// `connection_refused` record says so.
    Reset(&'static [u32]),
    /// Over HTTP/2: the connection ends with one of these error codes, and a `connection_refused` record says one of
    /// these reasons.
    GoAway(&'static [u32], &'static [&'static str]),
    /// 200, and the envelope is not verified.
    Unverified,
    /// 200.
    Accepted,
}

impl Case {
    /// A call of the API.
    pub(crate) fn call(
        name: impl Into<String>,
        expect: Expect,
        call: impl Fn(&World) -> Call + Send + Sync + 'static,
    ) -> Self {
        let attempt: Attempt = Box::new(move |world| call(world).try_send().map(Sent::Answer));
        Self { name: name.into(), attempt, expect, slow: false }
    }

    /// Bytes on a connection.
    pub(crate) fn wire(
        name: impl Into<String>,
        expect: Expect,
        exchange: impl Fn(&World) -> testkit::Result<Wire> + Send + Sync + 'static,
    ) -> Self {
        let attempt: Attempt = Box::new(move |world| exchange(world).map(Sent::Wire));
        Self { name: name.into(), attempt, expect, slow: false }
    }

    /// It waits for a time limit.
    pub(crate) fn slow(mut self) -> Self {
        self.slow = true;
        self
    }
}

impl Expect {
    /// A problem; its reason is the record's too.
    pub(crate) fn problem(status: u16, code: &'static str, reason: &'static str) -> Self {
        Self::Problem { status, code, reason: Some(reason), recorded: Some(reason), naming: None }
    }

    /// 401 `invalid_token`.
    pub(crate) fn unauthenticated(reason: &'static str) -> Self {
        Self::problem(401, "invalid_token", reason)
    }

    /// 400 `invalid_request`, whose detail names the place.
    pub(crate) fn invalid(naming: &str) -> Self {
        let naming = Some(naming.to_owned()).filter(|naming| !naming.is_empty());
        Self::Problem { status: 400, code: "invalid_request", reason: None, recorded: None, naming }
    }

    /// The same with another reason in the record than in the answer.
    pub(crate) fn recorded(mut self, precise: &'static str) -> Self {
        if let Self::Problem { recorded, .. } = &mut self {
            *recorded = Some(precise);
        }
        self
    }
}
