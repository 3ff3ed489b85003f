//! Listeners, routes, and how an answer looks on the wire.

#![forbid(unsafe_code)]
