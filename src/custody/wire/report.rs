//! The worker's account of itself.

/// State of a worker and its token, from memory: asking costs the device nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusReport {
    /// Can it sign?
    pub state: WorkerState,
    /// Why not, in plain words; empty when it can.
    pub detail: String,
    /// `CK_TOKEN_INFO.label`.
    pub label: String,
    /// `CK_TOKEN_INFO.serialNumber`.
    pub serial: String,
    /// `CK_TOKEN_INFO.manufacturerID`.
    pub manufacturer: String,
    /// `CK_TOKEN_INFO.model`.
    pub model: String,
    /// `CK_TOKEN_INFO.firmwareVersion`.
    pub firmware: String,
    /// Sessions that can sign now.
    pub sessions_open: u32,
    /// Sessions that the configuration asks for.
    pub sessions_configured: u32,
    /// Requests waiting for a session.
    pub queue_depth: u32,
    /// Requests that may wait.
    pub max_queue: u32,
    /// Connections of the front.
    pub connections: u32,
    /// Since the worker started.
    pub counters: Counters,
}

/// Counted since the worker started; they only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sign requests read from the socket.
    pub sign_requests: u64,
    /// Signatures the device made.
    pub signatures: u64,
    /// Sign requests answered with an error of the device or the token.
    pub failed: u64,
    /// Requests whose budget ran out while they waited.
    pub expired: u64,
    /// Requests refused because the queue was full.
    pub refused_full: u64,
    /// Successful logins.
    pub logins: u64,
    /// Sessions opened.
    pub sessions_opened: u64,
    /// Sessions closed because of a fatal code.
    pub sessions_lost: u64,
    /// Connections refused because of their user.
    pub refused_peers: u64,
    /// Times the module was finalized and initialized anew.
    pub reinitialized: u64,
    /// Calls made on idle sessions to keep them alive.
    pub kept_alive: u64,
    /// Milliseconds since the start.
    pub uptime_ms: u64,
}

/// Can the worker sign?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum WorkerState {
    /// Not tried yet.
    #[default]
    Starting = 0,
    /// Logged in, at least one session open.
    Ready = 1,
    /// No session: the token is absent or failing. Tried again with backoff.
    TokenUnavailable = 2,
    /// The PIN was refused, or the token's flags forbid an attempt. An operator is needed.
    PinRefused = 3,
    /// Finishing what is in flight.
    Stopping = 4,
}

impl WorkerState {
    /// As in `/readyz`, audit records and the service manager's status.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::TokenUnavailable => "token_unavailable",
            Self::PinRefused => "pin_refused",
            Self::Stopping => "stopping",
        }
    }

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Starting, Self::Ready, Self::TokenUnavailable, Self::PinRefused, Self::Stopping]
            .into_iter()
            .find(|state| *state as u8 == byte)
    }
}

// Encoding order; decoding reads the same fields by name, and a round-trip test holds the two together.
impl StatusReport {
    pub(super) fn texts(&self) -> [&str; 6] {
        [&self.detail, &self.label, &self.serial, &self.manufacturer, &self.model, &self.firmware]
    }

    pub(super) fn gauges(&self) -> [u32; 5] {
        [self.sessions_open, self.sessions_configured, self.queue_depth, self.max_queue, self.connections]
    }
}

impl Counters {
    pub(super) fn all(&self) -> [u64; 12] {
        [
            self.sign_requests,
            self.signatures,
            self.failed,
            self.expired,
            self.refused_full,
            self.logins,
            self.sessions_opened,
            self.sessions_lost,
            self.refused_peers,
            self.reinitialized,
            self.kept_alive,
            self.uptime_ms,
        ]
    }
}
