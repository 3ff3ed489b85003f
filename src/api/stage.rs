//! The way out.

/// How far the front is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Connections are accepted and kept.
    Serving,
    /// Connections from before end as soon as they have nothing to do; who connects now is served, too.
    Draining,
    /// Nobody is accepted: whoever connects waits for the next process, where the service manager holds the socket. What is
    /// open ends.
    Leaving,
}
